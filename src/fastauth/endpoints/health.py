"""``/livez`` and ``/readyz``: is this process alive, and does it want new work?"""

from collections.abc import Callable
from typing import Final

from fastauth.endpoints.http import JSON, NO_STORE, Request, Response

_ALIVE: Final = Response(200, (JSON, NO_STORE), b'{"status":"alive"}')
_READY: Final = Response(200, (JSON, NO_STORE), b'{"status":"ready"}')
_DRAINING: Final = Response(503, (JSON, NO_STORE, (b"retry-after", b"1")), b'{"status":"draining"}')


def livez(_request: Request) -> Response:
    """200 while the event loop turns."""
    return _ALIVE


class ReadyEndpoint:
    """503 from the moment the server has been told to stop, so that load balancers look elsewhere in time.

    The database does not count: without it tokens are still verified, and taking every node out of rotation at
    once would turn a partial outage into a whole one.
    """

    def __init__(self, is_draining: Callable[[], bool]) -> None:
        self._is_draining = is_draining

    def __call__(self, _request: Request) -> Response:
        return _DRAINING if self._is_draining() else _READY
