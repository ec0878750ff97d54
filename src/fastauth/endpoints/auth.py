"""``POST /auth``: a name and a password in, an access token out. The login journey, top to bottom."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from fastauth import core
from fastauth.domain.errors import FastauthError, InvalidCredentials, IssueFailed, UserNameRefused
from fastauth.domain.ports import UserStore
from fastauth.domain.users import User, canonical_name
from fastauth.endpoints.errors import MalformedBody, UnsupportedMediaType
from fastauth.endpoints.http import JSON, NO_STORE, Headers, Request, Response
from fastauth.endpoints.login_limits import DEVICE_COOKIE, DEVICE_HEADER, LoginLimits, presented_device
from fastauth.jose.issuer import IssuedToken, Issuer


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

    def __repr__(self) -> str:
        return "Granted(...)"


class Hasher(Protocol):
    """Checks passwords; every call costs what a hash costs and belongs into the pool."""

    def check(self, password: str, password_hash: str) -> bool: ...
    def hash(self, password: str) -> str: ...
    def needs_rehash(self, password: str, password_hash: str) -> bool: ...
    def decoys(self, slowest_scheme: str | None, stored_hash: str | None) -> list[str]: ...


class Pool(Protocol):
    """Runs hash jobs, a bounded number of them; raises Overloaded beyond."""

    async def run(self, job: Callable[[], "_Outcome"]) -> "_Outcome": ...


class Log(Protocol):
    """The part of a structlog logger that is needed here."""

    def warning(self, event: str, **values: Any) -> Any: ...
    def error(self, event: str, **values: Any) -> Any: ...


class _Outcome(msgspec.Struct):
    """What a hash job found: ``token`` None for a wrong password, ``new_hash`` when the stored one is outdated."""

    token: IssuedToken | None = None
    new_hash: str | None = None

    def __repr__(self) -> str:
        return "_Outcome(...)"


_SCAN_PROBLEMS: Final = {
    core.JSON_DUPLICATE: "a member name stands twice in the JSON",
    core.JSON_TOO_DEEP: "the JSON is nested too deeply",
    core.JSON_TOO_MANY: "the JSON has too many members",
    core.JSON_MALFORMED: "the body is not valid JSON",
}
_BODY_DEPTH: Final = 16
_BODY_MEMBERS: Final = 64

_decode_credentials = msgspec.json.Decoder(Credentials).decode
_encode = msgspec.json.Encoder().encode


class LoginEndpoint:
    """Checks credentials against the own database and issues a token."""

    def __init__(
        self,
        users: UserStore,
        hasher: Hasher,
        pool: Pool,
        issuer: Issuer,
        clock: Callable[[], float],
        log: Log,
        limits: LoginLimits,
    ) -> None:
        self._users = users
        self._hasher = hasher
        self._pool = pool
        self._issuer = issuer
        self._clock = clock
        self._log = log
        self._limits = limits
        self._background: set[asyncio.Task[None]] = set()

    async def __call__(self, request: Request) -> Response:
        """Raises what ``endpoints/problems.py`` answers."""
        await self._limits.admit(request)
        check_json_content_type(request)
        credentials = decode_credentials(await request.read_body())
        if not credentials.password:  # refused before any source is asked: to LDAP it would be an anonymous bind
            raise InvalidCredentials
        name = canonical_or_none(credentials.username)
        device = await self._known_device(request, name)
        attempt = await self._limits.reserve(credentials.username, name, device)
        failed = False
        try:
            user = await self._find(name)
            slowest = await self._users.slowest_scheme()
            outcome = await self._pool.run(lambda: self._check_and_sign(credentials.password, user, slowest))
            failed = user is None or outcome.token is None
        except asyncio.CancelledError:  # whoever hangs up before the answer has guessed all the same
            failed = True
            raise
        finally:  # trouble of our own costs the account nothing
            attempt.settle(failed=failed)
        if user is None or outcome.token is None:
            raise InvalidCredentials
        if outcome.new_hash is not None:
            self._store_rehashed(user, outcome.new_hash)
        granted = Granted(outcome.token.text, "Bearer", outcome.token.ttl_s)
        return Response(200, (JSON, NO_STORE, *self._remember_device(request, user)), _encode(granted))

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

    def _check_and_sign(self, password: str, user: User | None, slowest_scheme: str | None) -> _Outcome:
        """In a hash thread: both the hash and the signature release the GIL, so they share one hand-over."""
        stored_hash = None if user is None else user.password_hash
        is_right = stored_hash is not None and self._hasher.check(password, stored_hash)
        if not is_right or user is None or user.disabled:
            for decoy in self._hasher.decoys(slowest_scheme, stored_hash):  # every refusal does the same work
                self._hasher.check(password, decoy)
            return _Outcome()
        try:
            token = self._issuer.issue_user_token(user, int(self._clock()))
        except Exception as error:
            raise IssueFailed(f"no token could be made: {type(error).__name__}") from error
        return _Outcome(token, self._rehash(password, user))

    def _rehash(self, password: str, user: User) -> str | None:
        if not self._hasher.needs_rehash(password, user.password_hash):
            return None
        try:
            return self._hasher.hash(password)
        except Exception as error:  # noqa: BLE001 - no memory, say: the login is good all the same
            self._log.warning("rehash_failed", sub=user.sub, error=type(error).__name__)
            return None

    def _store_rehashed(self, user: User, new_hash: str) -> None:
        # The login does not wait for it: if it fails, the next login tries again.
        task = asyncio.get_running_loop().create_task(self._replace_hash(user, new_hash))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _replace_hash(self, user: User, new_hash: str) -> None:
        try:
            await self._users.replace_password_hash(user.sub, user.password_hash, new_hash, int(self._clock()))
        except FastauthError as error:
            self._log.warning("rehash_not_stored", sub=user.sub, reason=str(error))


def canonical_or_none(username: str) -> str | None:
    """The name as accounts have it; None for one that no account can have, to be refused as slowly as any other."""
    try:
        return canonical_name(username)
    except UserNameRefused:
        return None


def check_json_content_type(request: Request) -> None:
    """Raises UnsupportedMediaType unless the body is plain JSON in UTF-8 (RFC 8259 section 8.1)."""
    media_type, *parameters = request.headers.get(b"content-type", b"").lower().split(b";")
    if media_type.strip() != b"application/json":
        raise UnsupportedMediaType("send the body as Content-Type: application/json")
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip(b' \t"') != b"utf-8":
            raise UnsupportedMediaType("JSON is UTF-8; no other charset is taken")
    if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("an encoded body is not taken")


def decode_credentials(body: bytes) -> Credentials:
    """Raises MalformedBody, whose text says what is wrong and never quotes the body."""
    problem = core.scan_json(body, _BODY_DEPTH, _BODY_MEMBERS)
    if problem != core.JSON_OK:
        raise MalformedBody(_SCAN_PROBLEMS[problem])
    try:
        return _decode_credentials(body)
    except msgspec.ValidationError as error:  # names a member and a type, never a value
        raise MalformedBody(f"the body must be {{'username': text, 'password': text}}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedBody("the body is not valid JSON in UTF-8") from None
