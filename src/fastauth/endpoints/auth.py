"""``POST /auth``: a name and a password in, an access token out. The login journey, top to bottom."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar

import msgspec

from fastauth.core import Decision
from fastauth.domain.errors import FastauthError, InvalidCredentials, IssueFailed, Overloaded, UserNameRefused
from fastauth.domain.identity import LOCAL, Identity
from fastauth.domain.limits import RateLimited
from fastauth.domain.refresh_tokens import RefreshToken
from fastauth.domain.sessions import Session
from fastauth.domain.users import User, canonical_name
from fastauth.domain.waiting_line import LONGEST_AWAY_S
from fastauth.endpoints.audit import LoginAudit
from fastauth.endpoints.bodies import check_json_content_type, decode_json
from fastauth.endpoints.errors import ClientLeft
from fastauth.endpoints.http import CALLED_OFF, JSON, NO_STORE, Headers, Request, Response
from fastauth.endpoints.identity import ExternalAccounts, IdentityChain
from fastauth.endpoints.login_limits import DEVICE_COOKIE, DEVICE_HEADER, LoginLimits, presented_device
from fastauth.endpoints.login_queue import Turn
from fastauth.endpoints.openapi import Operation
from fastauth.endpoints.problems import problem_response
from fastauth.endpoints.waiting_page import wants_page
from fastauth.jose.issuer import IssuedToken, Issuer

T = TypeVar("T")


class Credentials(msgspec.Struct):
    """The body of ``POST /auth``; further members are ignored."""

    username: str
    password: str

    def __repr__(self) -> str:  # the password never reaches a log or a traceback
        return "Credentials(...)"


class Granted(msgspec.Struct):
    """The answer to a login (RFC 6749 section 5.1's names, but for ``token``)."""

    token: str
    token_type: str
    expires_in: int
    refresh_token: str

    def __repr__(self) -> str:
        return "Granted(...)"


class Hasher(Protocol):
    """Checks passwords; every call costs what a hash costs and belongs into the pool."""

    def check(self, password: str, password_hash: str) -> bool: ...
    def hash(self, password: str) -> str: ...
    def needs_rehash(self, password: str, password_hash: str) -> bool: ...
    def decoys(self, slowest_scheme: str | None, stored_hash: str | None) -> list[str]: ...
    def memory_kib(self, slowest_scheme: str | None, stored_hash: str | None) -> int: ...


class Users(Protocol):
    """Where accounts come from, perhaps through a cache."""

    async def find_by_name(self, name: str) -> User | None: ...
    async def find_again(self, user: User) -> User | None: ...
    async def slowest_scheme(self) -> str | None: ...
    async def replace_password_hash(self, sub: str, old: str, new: str, now_s: int) -> bool: ...


class Queue(Protocol):
    """Who may have a password checked, and when."""

    def refuse_unread(self, request: Request) -> Overloaded | None: ...
    async def enter(self, request: Request, name: str, *, is_known_device: bool) -> Turn: ...
    def leave(self, turn: Turn | None) -> None: ...
    async def run(self, request: Request, turn: Turn, memory_kib: int, job: Callable[[], T]) -> T: ...


class Sessions(Protocol):
    """How a login becomes a session; ``SessionStarter`` is one."""

    def begin(self, user: User, now_s: int, identity: Identity | None = None) -> tuple[Session, RefreshToken]: ...
    async def save(self, session: Session, user: User, request: Request) -> bool: ...


class Pool(Protocol):
    """Runs jobs that sign, a bounded number of them; raises Overloaded beyond."""

    async def run(self, job: Callable[[], "_Login | None"]) -> "_Login | None": ...


class Log(Protocol):
    """The part of a structlog logger that is needed here."""

    def warning(self, event: str, **values: Any) -> Any: ...
    def error(self, event: str, **values: Any) -> Any: ...


class _Asked(msgspec.Struct):
    """A login that is asked for: the account's name in its canonical form, None when no account can have this one, and
    the nonce of the device if it is a known one. For the audit stream, the account as it was found and what refused it.
    """

    request: Request
    credentials: Credentials
    name: str | None
    device: str | None = None
    user: User | None = None
    reason: str | None = None


class _Login(msgspec.Struct):
    """Right credentials: whose, the session that begins with them and is not stored yet, its first tokens, and the hash
    that replaces an outdated one.
    """

    user: User
    session: Session
    access: IssuedToken
    refresh: RefreshToken
    new_hash: str | None

    def __repr__(self) -> str:
        return "_Login(...)"


class ExternalLogins(msgspec.Struct, frozen=True):
    """Logins that somebody else decides: who is asked, whose account it is here, and where their tokens are signed."""

    chain: IdentityChain
    accounts: ExternalAccounts
    signatures: Pool


OPERATION: Final = Operation(
    summary="Log in: a name and a password for an access token and a refresh token",
    body=Credentials,
    answers={200: Granted},
    problems=(401, 415, 429),
)

_decode_credentials = msgspec.json.Decoder(Credentials).decode
_encode = msgspec.json.Encoder().encode


class LoginEndpoint:
    """Checks credentials, starts a session and issues its first tokens."""

    def __init__(
        self,
        users: Users,
        hasher: Hasher,
        queue: Queue,
        sessions: Sessions,
        issuer: Issuer,
        clock: Callable[[], float],
        log: Log,
        limits: LoginLimits,
        audit: LoginAudit,
        external: ExternalLogins | None = None,
    ) -> None:
        """In: ``external`` None when the own database decides alone."""
        self._users = users
        self._hasher = hasher
        self._queue = queue
        self._sessions = sessions
        self._issuer = issuer
        self._clock = clock
        self._log = log
        self._limits = limits
        self._audit = audit
        self._external = external
        self._background: set[asyncio.Task[None]] = set()

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        """Raises what ``endpoints/problems.py`` answers. In the worst of a storm most are refused here and now."""
        decision = self._limits.take_of_address(request)
        if isinstance(decision, Decision):
            return self._admit(request, decision)
        return self._admit_later(request, decision)

    async def _admit_later(self, request: Request, decision: Awaitable[Decision]) -> Response:
        answer = self._admit(request, await decision)
        return answer if isinstance(answer, Response) else await answer

    def _admit(self, request: Request, decision: Decision) -> Response | Awaitable[Response]:
        try:
            self._limits.judge_address(request, decision)
        except RateLimited as limited:
            self._audit.limited(request, limited)
            raise
        refusal = self._queue.refuse_unread(request)
        if refusal is None:
            return self._answer(request)
        self._audit.sent_away()
        if wants_page(request):
            raise refusal
        return _unread_refusal(refusal.retry_after_s)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._answer_read(request)
        except RateLimited as refusal:
            self._audit.limited(request, refusal)
            raise
        except Overloaded:
            self._audit.sent_away()
            raise

    async def _answer_read(self, request: Request) -> Response:
        await self._limits.admit()
        check_json_content_type(request)
        credentials = decode_credentials(await request.read_body())
        name = canonical_or_none(credentials.username)
        asked = _Asked(request, credentials, name)
        if not credentials.password:  # refused before any source is asked: to LDAP it would be an anonymous bind
            raise self._refused(asked, "empty_password")
        asked.device = await self._known_device(request, name)
        # Before anything else is spent on it, unless it may turn out that somebody else checks this password.
        turn = await self._enter(asked) if self._external is None else None
        try:
            login = await self._guess(asked, turn)
        finally:
            self._queue.leave(turn)
        if login is None:
            raise self._refused(asked, asked.reason or _reason(asked.user))
        self._audit.succeeded(
            request,
            credentials.username,
            name,
            login.user,
            login.session.sid,
            "new" if asked.device is None else "known",
        )
        if login.new_hash is not None:
            self._store_rehashed(request, login.user, login.new_hash)
        granted = Granted(login.access.text, "Bearer", login.access.ttl_s, login.refresh.text)
        return Response(200, (JSON, NO_STORE, *self._remember_device(request, login.user)), _encode(granted))

    async def _guess(self, asked: "_Asked", turn: Turn | None) -> "_Login | None":
        """A login within the account's guess budget."""
        attempt = await self._limits.reserve(asked.credentials.username, asked.name, asked.device)
        failed = False
        try:
            login = await self._log_in(asked, turn)
            failed = login is None
            return login
        except (asyncio.CancelledError, ClientLeft) as end:  # whoever hangs up has guessed too
            failed = CALLED_OFF not in end.args
            if failed:
                self._refused(asked, "left")
            raise
        finally:  # trouble of our own costs the account nothing
            attempt.settle(failed=failed)

    def _refused(self, asked: "_Asked", reason: str) -> InvalidCredentials:
        """Told to the operator, and not to the client."""
        self._audit.refused(asked.request, asked.credentials.username, asked.name, asked.user, reason)
        return InvalidCredentials()

    async def _enter(self, asked: "_Asked") -> Turn:
        name = asked.name or asked.credentials.username
        return await self._queue.enter(asked.request, name, is_known_device=asked.device is not None)

    async def _log_in(self, asked: "_Asked", turn: Turn | None) -> "_Login | None":
        """A session that is stored, None for a refusal."""
        name, password = asked.name, asked.credentials.password
        user = asked.user = await self._find(name)
        if self._external is not None and name is not None and not self._external.chain.is_local(name, user):
            verdict = await asked.request.while_connected(self._external.chain.ask(name, password, user))
            if isinstance(verdict, Identity):
                return await self._log_in_as(asked, self._external, verdict, name)
            if verdict == "refused":
                asked.reason = "source"
                return None
        return await self._log_in_here(asked, user, turn or await self._enter(asked))

    async def _log_in_as(
        self, asked: "_Asked", external: ExternalLogins, identity: Identity, name: str
    ) -> "_Login | None":
        """Somebody whose password a source has found right; the account here may be disabled all the same."""
        user = asked.user = await external.accounts.find(identity, name, asked.request)
        if user is None or user.disabled:
            asked.reason = "no_account" if user is None else None
            return None
        login = await external.signatures.run(lambda: self._sign(user, identity))
        is_saved = login is not None and await self._sessions.save(login.session, user, asked.request)
        return login if is_saved else None

    async def _log_in_here(self, asked: "_Asked", user: User | None, turn: Turn) -> "_Login | None":
        """The own database decides. The row may come from a cache, and be outdated: it is believed only when it admits
        and the session can be stored, and looked at again in the database otherwise.
        """
        try:
            login = await self._try(asked, user, turn)
        finally:
            self._queue.leave(turn)  # whatever went wrong before it could be taken
        if login is not None or user is None:
            return login
        current = asked.user = await self._users.find_again(user)
        return None if current == user else await self._try(asked, current, turn)

    async def _try(self, asked: "_Asked", user: User | None, turn: Turn) -> "_Login | None":
        slowest = await self._users.slowest_scheme()
        memory_kib = self._hasher.memory_kib(slowest, user.password_hash if user is not None else None)
        password = asked.credentials.password
        login = await self._queue.run(
            asked.request, turn, memory_kib, lambda: self._check_and_sign(asked.request, password, user, slowest)
        )
        if login is None or not await self._sessions.save(login.session, login.user, asked.request):
            return None
        return login

    async def _find(self, name: str | None) -> User | None:
        return None if name is None else await self._users.find_by_name(name)

    async def _known_device(self, request: Request, name: str | None) -> str | None:
        if presented_device(request) is None:
            return None
        return self._limits.known_device(request, await self._find(name), int(self._clock()))

    def _remember_device(self, request: Request, user: User) -> Headers:
        """Proof for the next time, where this time's came from: the header if there is one, else the cookie."""
        if self._limits.devices is None:
            return ()
        token = self._limits.devices.issue(user, int(self._clock())).encode()
        if DEVICE_HEADER in request.headers:
            return ((DEVICE_HEADER, token),)
        cookie = b"%b=%b; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=%d"
        return ((b"set-cookie", cookie % (DEVICE_COOKIE, token, self._limits.devices.ttl_s)),)

    def _check_and_sign(
        self, request: Request, password: str, user: User | None, slowest_scheme: str | None
    ) -> "_Login | None":
        """In a hash thread: both the hash and the signature release the GIL, so they share one hand-over."""
        stored_hash = user.password_hash if user is not None and user.source == LOCAL else None
        is_right = stored_hash is not None and self._hasher.check(password, stored_hash)
        if not is_right or user is None or user.disabled:
            for decoy in self._hasher.decoys(slowest_scheme, stored_hash):  # every refusal does the same work
                self._hasher.check(password, decoy)
            return None
        return self._sign(user, None, self._rehash(request, password, user))

    def _sign(self, user: User, identity: Identity | None, new_hash: str | None = None) -> "_Login":
        now_s = int(self._clock())
        session, refresh = self._sessions.begin(user, now_s, identity)
        try:
            access = self._issuer.issue_user_token(session, user.name, session.scope, now_s)
        except Exception as error:
            raise IssueFailed(f"no token could be made: {type(error).__name__}") from error
        return _Login(user, session, access, refresh, new_hash)

    def _rehash(self, request: Request, password: str, user: User) -> str | None:
        if not self._hasher.needs_rehash(password, user.password_hash):
            return None
        try:
            return self._hasher.hash(password)
        except Exception as error:  # noqa: BLE001 - no memory, say: the login is good all the same
            self._log.warning("rehash_failed", request_id=request.id, sub=user.sub, error=type(error).__name__)
            return None

    def _store_rehashed(self, request: Request, user: User, new_hash: str) -> None:
        # The login does not wait for it: if it fails, the next login tries again.
        task = asyncio.get_running_loop().create_task(self._replace_hash(request, user, new_hash))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _replace_hash(self, request: Request, user: User, new_hash: str) -> None:
        try:
            await self._users.replace_password_hash(user.sub, user.password_hash, new_hash, int(self._clock()))
        except FastauthError as error:
            self._log.warning("rehash_not_stored", request_id=request.id, sub=user.sub, reason=str(error))


@lru_cache(LONGEST_AWAY_S)
def _unread_refusal(retry_after_s: int) -> Response:
    return problem_response(Overloaded(retry_after_s))


def _reason(user: User | None) -> str:
    if user is None:
        return "unknown_name"
    return "disabled" if user.disabled else "wrong_password"


def canonical_or_none(username: str) -> str | None:
    """The name as accounts have it; None for one that no account can have, to be refused as slowly as any other."""
    try:
        return canonical_name(username)
    except UserNameRefused:
        return None


def decode_credentials(body: bytes) -> Credentials:
    """Raises MalformedBody, whose text says what is wrong and never quotes the body."""
    return decode_json(body, _decode_credentials, "{'username': text, 'password': text}")
