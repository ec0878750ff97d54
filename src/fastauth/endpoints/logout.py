"""``POST /logout``: a person ends this session, or all of theirs."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from fastauth.domain.ports import SessionStore
from fastauth.endpoints.audit import Audit
from fastauth.endpoints.bearer import bearer_token
from fastauth.endpoints.bodies import check_json_content_type, decode_json
from fastauth.endpoints.errors import NoSession
from fastauth.endpoints.http import NO_STORE, Request, Response
from fastauth.endpoints.openapi import Operation
from fastauth.verifier import Verifier


class LogoutOrder(msgspec.Struct):
    """The body, which may be absent; further members are ignored."""

    all: bool = False


OPERATION: Final = Operation(
    summary="Log out: end this session, or all of this user",
    body=LogoutOrder,
    is_body_optional=True,
    answers={204: None},
    problems=(401, 415),
    security="bearer",
)

_DONE: Final = Response(204, (NO_STORE,), b"")
_decode_order = msgspec.json.Decoder(LogoutOrder).decode


class LogoutEndpoint:
    """Answers 204 once it is durable; access and refresh tokens of the session are refused from then on."""

    def __init__(
        self,
        verifier: Verifier,
        sessions: SessionStore,
        catch_up: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
        audit: Audit,
    ) -> None:
        """In: ``catch_up`` makes this worker know what was just revoked."""
        self._accept = verifier.accept
        self._sessions = sessions
        self._catch_up = catch_up
        self._clock = clock
        self._audit = audit

    async def __call__(self, request: Request) -> Response:
        """Raises TokenMissing, TokenRefused, MalformedBody, NoSession for a client's own token, Unavailable."""
        claims = self._accept(bearer_token(request)).claims
        body = await request.read_body()
        order = LogoutOrder()
        if body:
            check_json_content_type(request)
            order = decode_json(body, _decode_order, "{'all': true or false}")
        if claims.sid is None:
            raise NoSession
        now_s = int(self._clock())
        await self._sessions.end(claims.sid, now_s, claims.exp)
        if order.all:
            await self._sessions.end_all(claims.sub, now_s)
        self._audit.record(
            "session_ended", request, sub=claims.sub, sid=claims.sid, reason="logout", all_of_user=order.all
        )
        await self._catch_up()
        return _DONE
