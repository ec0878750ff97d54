"""``POST /token`` (RFC 6749 section 3.2): one pipeline for every grant, so that none can forget a phase."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec

from fastauth.domain.clients import Client
from fastauth.domain.scopes import narrowed
from fastauth.endpoints.bodies import read_form
from fastauth.endpoints.client_authentication import ClientAuthentication
from fastauth.endpoints.errors import InvalidRequest, UnsupportedGrantType
from fastauth.endpoints.grants import Grant
from fastauth.endpoints.http import JSON, NO_CACHE, NO_STORE, Request, Response
from fastauth.endpoints.openapi import Operation
from fastauth.endpoints.rate_limit import RateLimit
from fastauth.endpoints.signing import Signing


class TokenAnswer(msgspec.Struct, omit_defaults=True):
    """RFC 6749 section 5.1."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str | None = None
    scope: str | None = None

    def __repr__(self) -> str:
        return "TokenAnswer(...)"


class TokenForm(msgspec.Struct, omit_defaults=True):
    """The body. A client sends its credentials here or, better, in the Authorization header."""

    grant_type: Literal["client_credentials", "refresh_token"]
    scope: str | None = None
    refresh_token: str | None = None
    client_id: str | None = None
    client_secret: str | None = None

    def __repr__(self) -> str:
        return "TokenForm(...)"


OPERATION: Final = Operation(
    summary="Get tokens: client_credentials or refresh_token",
    body=TokenForm,
    is_form=True,
    answers={200: TokenAnswer},
    problems=(401, 429),
    security="client_or_public",
)

_encode = msgspec.json.Encoder().encode


class TokenEndpoint:
    """The phases: parse, limit, client authentication, authorize, scopes, issue, session, write."""

    def __init__(
        self,
        clients: ClientAuthentication,
        grants: Sequence[Grant[Any]],
        per_client: RateLimit | None,
        signing: Signing,
        clock: Callable[[], float],
    ) -> None:
        self._clients = clients
        self._grants = {grant.name: grant for grant in grants}
        self._per_client = per_client
        self._signing = signing
        self._clock = clock

    async def __call__(self, request: Request) -> Response:
        """Raises what ``endpoints/problems.py`` answers as RFC 6749 section 5.2 writes it."""
        fields = await read_form(request)
        grant = self._grant(fields.get("grant_type"))
        await grant.admit(request)
        client = await self._clients.authenticate(request, fields)
        await self._admit(client)
        now_us = int(self._clock() * 1_000_000)
        entitled = await grant.authorize(request, client, fields, now_us)
        scope = narrowed(grant.scope(entitled), fields.get("scope"))
        # Signed before the session changes: what fails here costs nobody a refresh token.
        token = await self._signing.run(lambda: grant.issue(entitled, scope, now_us // 1_000_000))
        refresh_token = await grant.settle(entitled)
        answer = TokenAnswer(token.text, "Bearer", token.ttl_s, refresh_token, scope)
        return Response(200, (JSON, NO_STORE, NO_CACHE), _encode(answer))

    def _grant(self, name: str | None) -> Grant[Any]:
        if name is None:
            raise InvalidRequest("grant_type is missing")
        if name not in self._grants:
            raise UnsupportedGrantType(f"the grants are {', '.join(self._grants)}")
        return self._grants[name]

    async def _admit(self, client: Client | None) -> None:
        """Only who has proved to be the client spends its tokens."""
        if client is not None and self._per_client is not None:
            await self._per_client.admit(client.client_id)
