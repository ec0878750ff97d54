"""``grant_type=refresh_token`` (RFC 6749 section 6): a refresh token is exchanged for its successor."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from fastauth.domain.clients import BUILT_IN_CLIENT, Client
from fastauth.domain.errors import InvalidGrant, Unavailable
from fastauth.domain.ports import SessionStore
from fastauth.domain.refresh_tokens import RefreshToken
from fastauth.domain.sessions import RefreshReused, Replay, Rotation, Session, SessionRules
from fastauth.domain.users import User
from fastauth.endpoints.audit import Audit
from fastauth.endpoints.errors import InvalidRequest
from fastauth.endpoints.http import Request
from fastauth.endpoints.rate_limit import AddressLimit, NamedLimit, decided
from fastauth.jose.issuer import IssuedToken, Issuer

# Whoever loses the race for a token finds its successor at the next look.
_MOST_LOOKS: Final = 4


class Users(Protocol):
    """Where accounts come from, perhaps through a cache."""

    async def find_by_sub(self, sub: str) -> User | None: ...


class Log(Protocol):
    """The part of a structlog logger that is needed here."""

    def warning(self, event: str, **values: Any) -> Any: ...


class Refresh(msgspec.Struct):
    """What a presented token is entitled to."""

    request: Request
    client_id: str
    presented: RefreshToken
    session: Session
    user: User
    outcome: Rotation | Replay
    now_us: int


class RefreshTokenGrant:
    """Needs the refresh token and, for sessions of the built-in public client, nothing else."""

    name: Final = "refresh_token"

    def __init__(
        self,
        sessions: SessionStore,
        users: Users,
        rules: SessionRules,
        issuer: Issuer,
        per_address: AddressLimit | None,
        per_family: NamedLimit | None,
        random_bytes: Callable[[int], bytes],
        catch_up: Callable[[], Awaitable[None]],
        log: Log,
        audit: Audit,
    ) -> None:
        """In: ``catch_up`` makes this worker know what was just revoked."""
        self._sessions = sessions
        self._users = users
        self._rules = rules
        self._issuer = issuer
        self._per_address = per_address
        self._per_family = per_family
        self._random_bytes = random_bytes
        self._catch_up = catch_up
        self._log = log
        self._audit = audit

    async def admit(self, request: Request) -> None:
        """One token of the address. Raises RateLimited."""
        if self._per_address is not None:
            self._per_address.judge(request, await decided(self._per_address.take(request)))

    async def authorize(
        self, request: Request, client: Client | None, fields: Mapping[str, str], now_us: int
    ) -> Refresh:
        """Raises InvalidRequest, InvalidGrant, RateLimited."""
        text = fields.get("refresh_token")
        if text is None:
            raise InvalidRequest("refresh_token is missing")
        presented = RefreshToken.parse(text)
        if presented is None:
            raise InvalidGrant("the refresh token is no longer good")
        client_id = BUILT_IN_CLIENT if client is None else client.client_id
        return await self._look(request, client_id, presented, now_us)

    def scope(self, refresh: Refresh) -> str:
        """That of the session."""
        return refresh.session.scope

    def issue(self, refresh: Refresh, scope: str | None, now_s: int) -> IssuedToken:
        """A token of the session as it is after this refresh; the race for it does not change what it says."""
        session = refresh.outcome.session if isinstance(refresh.outcome, Rotation) else refresh.session
        return self._issuer.issue_user_token(session, refresh.user.name, scope or session.scope, now_s)

    async def settle(self, refresh: Refresh) -> str:
        """Exchange the token: one conditional update, whose row count names the winner of a race."""
        for _ in range(_MOST_LOOKS):
            outcome = refresh.outcome
            if isinstance(outcome, Replay) or await self._sessions.rotate(outcome.session, refresh.session.token_hash):
                return outcome.token.text
            refresh = await self._look(refresh.request, refresh.client_id, refresh.presented, refresh.now_us)
        raise Unavailable("database", "the session keeps changing")

    async def _look(self, request: Request, client_id: str, presented: RefreshToken, now_us: int) -> Refresh:
        """What the token is worth right now."""
        session = await self._sessions.find(presented.sid)
        if session is None or session.client_id != client_id:
            raise InvalidGrant("the refresh token is no longer good")
        user = await self._users.find_by_sub(session.sub)
        if user is None or user.disabled:
            raise InvalidGrant("the refresh token is no longer good")
        try:
            outcome = self._rules.refresh(session, presented, now_us, self._random_bytes)
        except RefreshReused as error:
            await self._end(request, session, now_us // 1_000_000)
            raise InvalidGrant("the refresh token is no longer good") from error
        if isinstance(outcome, Rotation) and outcome.pace is not None and self._per_family is not None:
            self._per_family.judge(outcome.pace)
        return Refresh(request, client_id, presented, session, user, outcome, now_us)

    async def _end(self, request: Request, session: Session, now_s: int) -> None:
        if await self._sessions.end(session.sid, now_s):
            what = {"sid": session.sid, "sub": session.sub, "client_id": session.client_id, "session": "ended"}
            self._audit.record("refresh_token_reused", request, "warning", **what)
            if not self._audit.is_in_log:  # nobody who reads the log alone may miss an incident
                self._log.warning("refresh_token_reused", request_id=request.id, **what)
        await self._catch_up()
