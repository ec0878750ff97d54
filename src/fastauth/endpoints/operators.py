"""Who is an operator: the readers of ``/metrics`` and of what ``/readyz`` says beyond yes and no."""

from collections.abc import Callable, Sequence
from typing import Final

from fastauth.endpoints.client_address import Network, address_of, in_networks
from fastauth.endpoints.errors import NotForYou
from fastauth.endpoints.http import NO_STORE, Request, Response
from fastauth.endpoints.openapi import Operation

# What proxies add. Behind one on this machine everybody seems to come from here.
_FORWARDED: Final = (
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-real-ip",
    b"via",
)


class Operators:
    """Knows an operator by the address of the connection."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks

    def include(self, request: Request) -> bool:
        """Whether the request comes from one of the networks, and through no proxy."""
        if any(name in request.headers for name in _FORWARDED):
            return False
        address = address_of(request.peer)
        return address is not None and in_networks(address, self._networks)


METRICS: Final = Operation(
    summary="Prometheus metrics, for operators",
    answers={200: "text/plain; version=0.0.4; charset=utf-8"},
    problems=(403,),
)


class MetricsEndpoint:
    """``/metrics`` in the Prometheus text format."""

    def __init__(self, operators: Operators, render: Callable[[], tuple[str, bytes]]) -> None:
        """In: ``render`` the content type and the text."""
        self._operators = operators
        self._render = render

    def __call__(self, request: Request) -> Response:
        """Raises NotForYou."""
        if not self._operators.include(request):
            raise NotForYou
        content_type, text = self._render()
        return Response(200, ((b"content-type", content_type.encode()), NO_STORE), text)
