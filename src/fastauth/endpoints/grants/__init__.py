"""The grants of ``POST /token``, one module each: hooks that ``endpoints/token.py`` calls in a fixed order."""

from collections.abc import Mapping
from typing import Protocol, TypeVar

from fastauth.domain.clients import Client
from fastauth.endpoints.http import Request
from fastauth.jose.issuer import IssuedToken

E = TypeVar("E")


class Grant(Protocol[E]):
    """What differs from grant to grant. ``E`` is what a request was found to be entitled to."""

    @property
    def name(self) -> str:
        """As ``grant_type`` has it."""
        ...

    async def admit(self, request: Request) -> None:
        """Limits beside those of the client. Raises RateLimited."""
        ...

    async def authorize(self, request: Request, client: Client | None, fields: Mapping[str, str], now_us: int) -> E:
        """Judge the request, without changing anything. In: the client, None for the built-in public one.

        Raises InvalidRequest, InvalidGrant, UnauthorizedClient, RateLimited.
        """
        ...

    def scope(self, entitled: E) -> str | None:
        """The most that may be granted."""
        ...

    def issue(self, entitled: E, scope: str | None, now_s: int) -> IssuedToken:
        """Make the access token; perhaps in another thread."""
        ...

    async def settle(self, entitled: E) -> str | None:
        """Write what has to be written, as the last step that can fail; out: a refresh token. Raises as above."""
        ...
