"""``POST /introspect`` (RFC 7662): what a token is worth right now. No I/O for access tokens."""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from fastauth.domain.clients import Client
from fastauth.domain.errors import InvalidClient
from fastauth.domain.ports import SessionStore
from fastauth.domain.refresh_tokens import RefreshToken
from fastauth.domain.users import User
from fastauth.endpoints.bodies import read_form
from fastauth.endpoints.client_authentication import ClientAuthentication
from fastauth.endpoints.errors import InvalidRequest
from fastauth.endpoints.http import JSON, NO_STORE, Request, Response
from fastauth.endpoints.openapi import Operation
from fastauth.jose.claims import Claims
from fastauth.jose.refusals import TokenRefused
from fastauth.verifier import Verifier

_INACTIVE: Final = Response(200, (JSON, NO_STORE), b'{"active":false}')


class _Person(msgspec.Struct):
    """The claim that Claims has no field for."""

    preferred_username: str | None = None


_decode_person = msgspec.json.Decoder(_Person).decode
_encode = msgspec.json.Encoder().encode


class Users(Protocol):
    """Where accounts come from, perhaps through a cache."""

    async def find_by_sub(self, sub: str) -> User | None: ...


class IntrospectionForm(msgspec.Struct, omit_defaults=True):
    """The body."""

    token: str
    token_type_hint: str | None = None
    client_id: str | None = None
    client_secret: str | None = None

    def __repr__(self) -> str:
        return "IntrospectionForm(...)"


class Introspection(msgspec.Struct, omit_defaults=True):
    """The answer (RFC 7662 section 2.2); of a token that is not good, or not the client's to see, only ``active``."""

    active: bool
    token_type: str | None = None
    username: str | None = None
    iss: str | None = None
    sub: str | None = None
    aud: str | None = None
    exp: int | None = None
    iat: int | None = None
    jti: str | None = None
    client_id: str | None = None
    scope: str | None = None
    sid: str | None = None
    auth_time: int | None = None


OPERATION: Final = Operation(
    summary="Ask what a token is worth right now",
    body=IntrospectionForm,
    is_form=True,
    answers={200: Introspection},
    problems=(401,),
    security="client",
)


class IntrospectEndpoint:
    """Begins with ``{"active": false}`` and says more only of a good token, and only to a client that may see it."""

    def __init__(
        self,
        clients: ClientAuthentication,
        verifier: Verifier,
        sessions: SessionStore,
        users: Users,
        issuer_url: str,
        clock: Callable[[], float],
    ) -> None:
        self._clients = clients
        self._accept = verifier.accept
        self._sessions = sessions
        self._users = users
        self._issuer_url = issuer_url
        self._clock = clock

    async def __call__(self, request: Request) -> Response:
        """Raises InvalidClient, InvalidRequest, and Unavailable for a refresh token while the database is down."""
        fields = await read_form(request)
        client = await self._clients.authenticate(request, fields)
        if client is None:
            raise InvalidClient
        token = fields.get("token")
        if token is None:
            raise InvalidRequest("token is missing")
        presented = RefreshToken.parse(token)
        if presented is not None:
            return await self._refresh_token(client, presented)
        return self._access_token(client, token)

    def _access_token(self, client: Client, token: str) -> Response:
        try:
            claims = self._accept(token).claims
        except TokenRefused:
            return _INACTIVE
        if not may_see(client, claims):
            return _INACTIVE
        # What was signed is an object of claims already; two members in front make it the answer.
        front = b'{"active":true,"token_type":"Bearer",'
        if claims.sid is not None and (name := _decode_person(claims.payload).preferred_username) is not None:
            front += b'"username":' + _encode(name) + b","
        return Response(200, (JSON, NO_STORE), front + claims.payload[1:])

    async def _refresh_token(self, client: Client, presented: RefreshToken) -> Response:
        session = await self._sessions.find(presented.sid)
        if session is None or (client.introspect != "any" and session.client_id != client.client_id):
            return _INACTIVE
        user = await self._users.find_by_sub(session.sub)
        if user is None or user.disabled or not session.is_newest(presented, int(self._clock())):
            return _INACTIVE
        state = Introspection(
            active=True,
            iss=self._issuer_url,
            sub=session.sub,
            client_id=session.client_id,
            username=user.name,
            scope=session.scope,
            exp=session.ends_at_s,
            sid=session.sid,
        )
        return Response(200, (JSON, NO_STORE), _encode(state))


def may_see(client: Client, claims: Claims) -> bool:
    """Whether a client may look at an access token: its own, one meant for it, or any if it was registered so."""
    return client.introspect == "any" or claims.client_id == client.client_id or client.client_id in claims.aud
