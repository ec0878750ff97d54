"""``POST /revoke`` (RFC 7009): a client says that a token of its own is to be refused from now on."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from fastauth.domain.clients import BUILT_IN_CLIENT
from fastauth.domain.errors import InvalidClient, InvalidGrant
from fastauth.domain.ports import RevocationBus, SessionStore
from fastauth.domain.refresh_tokens import RefreshToken
from fastauth.endpoints.audit import Audit
from fastauth.endpoints.bodies import read_form
from fastauth.endpoints.client_authentication import ClientAuthentication
from fastauth.endpoints.errors import InvalidRequest
from fastauth.endpoints.http import NO_STORE, Request, Response
from fastauth.endpoints.openapi import Operation
from fastauth.jose.refusals import TokenRefused
from fastauth.verifier import Verifier


class RevocationForm(msgspec.Struct, omit_defaults=True):
    """The body."""

    token: str
    token_type_hint: str | None = None
    client_id: str | None = None
    client_secret: str | None = None

    def __repr__(self) -> str:
        return "RevocationForm(...)"


OPERATION: Final = Operation(
    summary="Revoke a token; a refresh token with its whole session",
    body=RevocationForm,
    is_form=True,
    answers={200: None},
    problems=(401,),
    security="client_or_public",
)

_DONE: Final = Response(200, (NO_STORE,), b"")


class RevokeEndpoint:
    """Answers 200 once it is durable, also for a token that was not good any more (section 2.2).

    A refresh token takes its session with it, access tokens included. What kind of token it is can be seen from it, so
    ``token_type_hint`` is not needed and never misleads.
    """

    def __init__(
        self,
        clients: ClientAuthentication,
        verifier: Verifier,
        sessions: SessionStore,
        bus: RevocationBus,
        catch_up: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
        audit: Audit,
    ) -> None:
        """In: ``catch_up`` makes this worker know what was just revoked."""
        self._clients = clients
        self._accept = verifier.accept
        self._sessions = sessions
        self._bus = bus
        self._catch_up = catch_up
        self._clock = clock
        self._audit = audit

    async def __call__(self, request: Request) -> Response:
        """Raises InvalidClient, InvalidRequest, InvalidGrant for another client's token, Unavailable."""
        fields = await read_form(request)
        client = await self._clients.authenticate(request, fields)
        if client is None and "client_id" not in fields:  # a public client has to name itself (section 2.1)
            raise InvalidClient
        token = fields.get("token")
        if token is None:
            raise InvalidRequest("token is missing")
        client_id = BUILT_IN_CLIENT if client is None else client.client_id
        presented = RefreshToken.parse(token)
        if presented is None:
            await self._revoke_access_token(request, client_id, token)
        else:
            await self._end_session(request, client_id, presented)
        await self._catch_up()
        return _DONE

    async def _revoke_access_token(self, request: Request, client_id: str, token: str) -> None:
        try:
            claims = self._accept(token).claims
        except TokenRefused:
            return
        if claims.client_id != client_id:
            raise InvalidGrant("the token was issued to another client")
        if claims.jti is not None:
            await self._bus.revoke_token(claims.jti, claims.exp)
            self._audit.record("token_revoked", request, client_id=client_id, sub=claims.sub, jti=claims.jti)

    async def _end_session(self, request: Request, client_id: str, presented: RefreshToken) -> None:
        session = await self._sessions.find(presented.sid)
        if session is None:
            return
        if session.client_id != client_id:
            raise InvalidGrant("the token was issued to another client")
        if await self._sessions.end(session.sid, int(self._clock())):
            self._audit.record(
                "session_ended", request, client_id=client_id, sub=session.sub, sid=session.sid, reason="revoked"
            )
