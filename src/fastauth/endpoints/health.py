"""``/livez`` and ``/readyz``: is this process alive, and does it want new work?"""

from collections.abc import Callable
from typing import Final

import msgspec

from fastauth.endpoints.http import JSON, NO_STORE, Request, Response
from fastauth.endpoints.openapi import Operation
from fastauth.endpoints.operators import Operators

_ALIVE: Final = Response(200, (JSON, NO_STORE), b'{"status":"alive"}')
_READY: Final = Response(200, (JSON, NO_STORE), b'{"status":"ready"}')
_STALE: Final = Response(503, (JSON, NO_STORE, (b"retry-after", b"1")), b'{"status":"stale"}')
_DRAINING: Final = Response(503, (JSON, NO_STORE, (b"retry-after", b"1")), b'{"status":"draining"}')


def livez(_request: Request) -> Response:
    """200 while the event loop turns."""
    return _ALIVE


class HealthState(msgspec.Struct, omit_defaults=True):
    """``degraded`` names, to operators, what has to be done without."""

    status: str
    degraded: list[str] | None = None


ALIVE: Final = Operation(summary="200 while the process works", answers={200: HealthState})
READY: Final = Operation(summary="200 while the server wants new work", answers={200: HealthState})


class ReadyEndpoint:
    """503 from the moment the server has been told to stop, so that load balancers look elsewhere in time.

    503 too while it has not heard of revocations for longer than the operator allows (``revocation.max_stale_s``).
    Other dependencies do not count: without the database tokens are still verified, without Redis each node guards its
    share of the limits, and taking every node out of rotation at once would turn a partial outage into a whole one.
    Operators are told what is missing.
    """

    def __init__(
        self,
        is_draining: Callable[[], bool],
        is_stale: Callable[[], bool],
        missing: Callable[[], list[str]],
        operators: Operators,
    ) -> None:
        self._is_draining = is_draining
        self._is_stale = is_stale
        self._missing = missing
        self._operators = operators

    def __call__(self, request: Request) -> Response:
        if self._is_draining():
            return _DRAINING
        if self._is_stale():
            return _STALE
        if (missing := self._missing()) and self._operators.include(request):
            body = msgspec.json.encode({"status": "ready", "degraded": missing})
            return Response(200, (JSON, NO_STORE), body)
        return _READY
