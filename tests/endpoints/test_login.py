"""``POST /auth`` in one process: a real database, real hashes, real tokens."""

import asyncio
import contextlib
import json
import secrets
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest
import structlog.testing

from fastauth.backends.caching import CachedUsers
from fastauth.backends.hash_scheduler import HashScheduler
from fastauth.backends.passwords import PasswordHasher, PasswordSettings
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.sessions import SqliteSessionStore
from fastauth.backends.sqlite.users import SqliteUserStore
from fastauth.domain.errors import FastauthError, InvalidCredentials, IssueFailed, Overloaded, Unavailable
from fastauth.domain.password_schemes import decoy_hash, parse_scheme
from fastauth.domain.sessions import Session, SessionRules
from fastauth.domain.users import User, canonical_name, skeleton
from fastauth.endpoints.audit import SILENT, LoginAudit
from fastauth.endpoints.auth import ExternalLogins, LoginEndpoint
from fastauth.endpoints.errors import MalformedBody, UnsupportedMediaType
from fastauth.endpoints.http import Request, Response
from fastauth.endpoints.login_limits import LoginLimits
from fastauth.endpoints.login_queue import EVERYBODY_ELSE, LoginQueue
from fastauth.endpoints.problems import problem_response
from fastauth.endpoints.session_starter import SessionStarter
from fastauth.jose.issuer import Issuer, TokenSettings
from fastauth.jose.keys import SigningKey
from fastauth.verifier import Verifier
from tests.backends.foreign_hashes import MAKERS
from tests.backends.locking import locked
from tests.endpoints.asking import ReadyRequest, header_of
from tests.endpoints.queueing import answer_of, queueing
from tests.jose.making import ISSUER, NOW_S

T = TypeVar("T")

PASSWORD = "correct horse battery staple"
RULES = SessionRules(idle_s=86_400, max_s=10 * 86_400, grace_s=10, access_ttl_s=3_600, per_family=None)
JSON_BODY = {b"content-type": b"application/json"}


class SeenHasher(PasswordHasher):
    """A real hasher that keeps which schemes it was made to compute."""

    def __init__(self) -> None:
        super().__init__(PasswordSettings(profile="cheapest-for-tests"))
        self.checked: list[str] = []

    def check(self, password: str, password_hash: str) -> bool:
        self.checked.append(parse_scheme(password_hash).identifier)
        return super().check(password, password_hash)


class Logins:
    """A login endpoint over one database file."""

    def __init__(self, database: Database, key: SigningKey) -> None:
        self.database = database
        self.users = SqliteUserStore(database)
        self.hasher = SeenHasher()
        self.key = key
        self.token_bytes: Callable[[int], bytes] = bytes

    def add(self, name: str, password_hash: str | None = None, **more: Any) -> User:
        account = User(
            sub=f"sub-{name}",
            name=name,
            password_hash=password_hash or self.hasher.hash(PASSWORD),
            created_at_s=0,
            updated_at_s=0,
            **more,
        )
        asyncio.run(self.users.add(account, skeleton(name)))
        return account

    def found(self, name: str) -> User:
        account = asyncio.run(self.users.find_by_name(name))
        assert account is not None
        return account

    def with_endpoint(self, work: Callable[[LoginEndpoint, HashScheduler], Awaitable[T]]) -> T:
        async def run() -> T:
            issuer = Issuer(self.key, ISSUER, TokenSettings(), self.token_bytes)
            log = structlog.get_logger()
            sessions = SessionStarter(SqliteSessionStore(self.database), RULES, "user", secrets.token_bytes)
            async with queueing() as (queue, scheduler):
                users, limits, audit = CachedUsers(self.users), LoginLimits(), LoginAudit(SILENT, bytes(32))
                endpoint = LoginEndpoint(
                    users, self.hasher, queue, sessions, issuer, lambda: NOW_S + 0.9, log, limits, audit
                )
                return await work(endpoint, scheduler)

        return asyncio.run(run())

    def login(self, username: str, password: str, headers: dict[bytes, bytes] = JSON_BODY) -> Response:
        """The answer; every write that it set off is durable. Raises what the endpoint raises."""

        async def work(endpoint: LoginEndpoint, _scheduler: HashScheduler) -> Response:
            body = json.dumps({"username": username, "password": password}).encode()
            response = await answer_of(endpoint, ReadyRequest(body, headers, "POST", "/auth"))
            await asyncio.sleep(0)  # the write behind the answer is queued
            await self.database.write(lambda _connection: None)  # and this one stands behind it
            return response

        return self.with_endpoint(work)

    def refusal(self, username: str, password: str) -> FastauthError:
        with pytest.raises(FastauthError) as refused:
            self.login(username, password)
        return refused.value


@pytest.fixture
def logins(database: Database, signing_key: SigningKey) -> Logins:
    """A database with ``alice``, and ``mallory``, who is disabled."""
    logins = Logins(database, signing_key)
    logins.add("alice")
    logins.add("mallory", disabled=True)
    return logins


# ------------------------------------------------------------------ the right password


def test_the_right_password_gets_a_token_that_verifies(logins: Logins) -> None:
    response = logins.login("alice", PASSWORD)
    body = json.loads(response.body)
    assert response.status == 200
    assert header_of(response, "content-type") == "application/json"
    assert header_of(response, "cache-control") == "no-store"
    assert body.keys() == {"token", "token_type", "expires_in", "refresh_token"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)
    verifier = Verifier({"keys": [logins.key.public_jwk]}, ISSUER, ISSUER, clock=lambda: NOW_S)
    claims = verifier.verify(body["token"])
    assert (claims.sub, claims.iat, claims.exp) == ("sub-alice", NOW_S, NOW_S + 3600)
    assert claims["preferred_username"] == "alice"


@pytest.mark.parametrize("spelling", ["Alice", "ALICE", "ａｌｉｃｅ"])
def test_any_spelling_of_a_name_is_the_same_account(logins: Logins, spelling: str) -> None:
    assert logins.login(spelling, PASSWORD).status == 200


@pytest.mark.parametrize("password", ["x", "x" * 64, "x" * 128, " ", "a\0b", "\0", "e\u0301 😀"])
def test_a_password_counts_whole_and_unchanged(logins: Logins, password: str) -> None:
    logins.add("bob", logins.hasher.hash(password))
    assert logins.login("bob", password).status == 200
    for wrong in (password + "\0", password.strip() + "y"):
        assert isinstance(logins.refusal("bob", wrong), InvalidCredentials)


@pytest.mark.parametrize("maker", MAKERS)
def test_an_imported_hash_of_any_kind_logs_in_and_is_replaced_by_todays(logins: Logins, maker: str) -> None:
    imported = logins.add("bob", MAKERS[maker](PASSWORD))
    assert logins.login("bob", PASSWORD).status == 200
    stored = logins.found("bob")
    if maker in {"this library", "argon2id"}:  # these have today's parameters
        assert stored == imported
        return
    assert not logins.hasher.needs_rehash(PASSWORD, stored.password_hash)
    assert stored.updated_at_s == NOW_S
    assert logins.hasher.check(PASSWORD, stored.password_hash)


def test_a_wrong_password_replaces_nothing(logins: Logins) -> None:
    imported = logins.add("bob", MAKERS["bcrypt 2b"](PASSWORD))
    logins.refusal("bob", "wrong")
    assert logins.found("bob") == imported


def test_a_disabled_account_is_not_rehashed(logins: Logins) -> None:
    imported = logins.add("bob", MAKERS["bcrypt 2b"](PASSWORD), disabled=True)
    assert isinstance(logins.refusal("bob", PASSWORD), InvalidCredentials)
    assert logins.found("bob") == imported


def test_a_rehash_that_cannot_be_stored_does_not_fail_the_login_and_is_logged_without_the_hash(logins: Logins) -> None:
    imported = logins.add("bob", MAKERS["bcrypt 2b"](PASSWORD))

    async def work(endpoint: LoginEndpoint, _scheduler: HashScheduler) -> Response:
        body = json.dumps({"username": "bob", "password": PASSWORD}).encode()
        await logins.database.write(lambda connection: connection.execute("PRAGMA busy_timeout=20").fetchall())
        with contextlib.ExitStack() as holding:
            save = endpoint._sessions.save

            async def save_and_lock(session: Session, user: User, request: Request) -> bool:
                saved = await save(session, user, request)
                holding.enter_context(locked(logins.database.path))
                return saved

            endpoint._sessions.save = save_and_lock  # type: ignore[method-assign]
            response = await answer_of(endpoint, ReadyRequest(body, JSON_BODY, "POST", "/auth"))
            await asyncio.sleep(0)  # the write behind the answer is queued
            with pytest.raises(Unavailable):  # and this one stands behind it
                await logins.database.write(lambda _connection: None)
        return response

    with structlog.testing.capture_logs() as events:
        assert logins.with_endpoint(work).status == 200
    assert [event["event"] for event in events] == ["rehash_not_stored"]
    assert events[0]["sub"] == "sub-bob"
    assert "argon2" not in str(events)
    assert logins.found("bob") == imported


# ------------------------------------------------------------------ refusals are all alike


def test_unknown_wrong_and_disabled_get_the_very_same_answer(logins: Logins) -> None:
    refusals = [
        logins.refusal("nobody", PASSWORD),
        logins.refusal("alice", "wrong"),
        logins.refusal("mallory", PASSWORD),
        logins.refusal("mallory", "wrong"),
        logins.refusal("no such name is allowed", PASSWORD),
        logins.refusal("", PASSWORD),
        logins.refusal("x" * 10_000, PASSWORD),
        logins.refusal("alice", ""),
        logins.refusal("nobody", ""),
    ]
    assert {type(refusal) for refusal in refusals} == {InvalidCredentials}
    answers = {(answer.status, answer.headers, answer.body) for answer in map(problem_response, refusals)}
    assert len(answers) == 1
    assert answers.pop()[0] == 401


@pytest.mark.parametrize("slowest", ["$2b$04", "$pbkdf2-sha256$1000", "$scrypt$ln=4,r=8,p=1", None])
def test_every_refusal_computes_the_same_schemes(logins: Logins, slowest: str | None) -> None:
    if slowest is not None:
        logins.add("bob", decoy_hash(slowest, bytes(53)))
        logins.add("carol", decoy_hash(slowest, bytes(53)), disabled=True)
    computed = []
    for name, password in (
        ("nobody", PASSWORD),
        ("alice", "wrong"),
        ("mallory", PASSWORD),
        ("no such name", "x"),
        *([("bob", "x"), ("carol", "x")] if slowest else []),
    ):
        logins.hasher.checked.clear()
        logins.refusal(name, password)
        computed.append(Counter(logins.hasher.checked))
    today = logins.hasher.profile.identifier
    expected = Counter({today, slowest or today})
    assert computed == [expected] * len(computed)


def test_with_no_users_at_all_a_refusal_costs_one_hash_of_today(database: Database, signing_key: SigningKey) -> None:
    logins = Logins(database, signing_key)
    assert isinstance(logins.refusal("nobody", PASSWORD), InvalidCredentials)
    assert logins.hasher.checked == [logins.hasher.profile.identifier]


def test_an_empty_password_is_refused_before_anything_is_asked(logins: Logins) -> None:
    asyncio.run(logins.database.write(lambda connection: connection.execute("DROP TABLE users").fetchall()))
    assert isinstance(logins.refusal("alice", PASSWORD), Unavailable)
    assert isinstance(logins.refusal("alice", ""), InvalidCredentials)
    assert logins.hasher.checked == []


# ------------------------------------------------------------------ other failures


def test_a_token_that_cannot_be_made_is_a_failure_of_its_own(logins: Logins) -> None:
    def no_entropy(_size: int) -> bytes:
        raise OSError("s3cr3t")

    logins.token_bytes = no_entropy
    error = logins.refusal("alice", PASSWORD)
    assert isinstance(error, IssueFailed)
    assert isinstance(error.__cause__, OSError)
    assert "s3cr3t" not in str(error)
    assert problem_response(error, "1234").status == 500
    assert isinstance(logins.refusal("alice", "wrong"), InvalidCredentials)


def test_a_full_queue_refuses_with_a_time_to_come_back_and_a_place_in_line(logins: Logins) -> None:
    async def work(endpoint: LoginEndpoint, scheduler: HashScheduler) -> None:
        body = json.dumps({"username": "alice", "password": PASSWORD}).encode()
        go_on = threading.Event()
        waiting = [scheduler.submit(go_on.wait, EVERYBODY_ELSE, number, 0) for number in range(65)]
        with pytest.raises(Overloaded) as refusal:
            await answer_of(endpoint, ReadyRequest(body, JSON_BODY, "POST", "/auth"))
        assert refusal.value.ticket is not None
        go_on.set()
        await asyncio.gather(*waiting)
        assert (await answer_of(endpoint, ReadyRequest(body, JSON_BODY, "POST", "/auth"))).status == 200

    logins.with_endpoint(work)


def test_a_wrong_media_type_is_refused_before_the_body_is_read(logins: Logins) -> None:
    async def work(endpoint: LoginEndpoint, _scheduler: HashScheduler) -> None:
        request = ReadyRequest(b"{}", {b"content-type": b"text/plain"}, "POST", "/auth")
        with pytest.raises(UnsupportedMediaType):
            await answer_of(endpoint, request)
        assert request.reads == 0
        with pytest.raises(MalformedBody):
            await answer_of(endpoint, ReadyRequest(b"{}", JSON_BODY, "POST", "/auth"))

    logins.with_endpoint(work)


def test_names_that_look_like_an_account_do_not_open_it(logins: Logins) -> None:
    for name in ("\u0430lice", "alice\u200b", " alice", "alice\0", "alìce"):
        assert isinstance(logins.refusal(name, PASSWORD), InvalidCredentials)
    assert skeleton(canonical_name("\u0430lice")) == "alice"


# ------------------------------------------------------------------ what has changed behind the cache


def sent(username: str, password: str) -> ReadyRequest:
    body = json.dumps({"username": username, "password": password}).encode()
    return ReadyRequest(body, JSON_BODY, "POST", "/auth")


def test_a_new_password_is_good_at_once_and_the_old_one_no_more(logins: Logins) -> None:
    async def work(endpoint: LoginEndpoint, _scheduler: HashScheduler) -> None:
        assert (await answer_of(endpoint, sent("alice", PASSWORD))).status == 200  # her row is kept from now on
        await logins.users.set_password_hash("alice", logins.hasher.hash("another password"), 1)
        with pytest.raises(InvalidCredentials):
            await answer_of(endpoint, sent("alice", PASSWORD))
        assert (await answer_of(endpoint, sent("alice", "another password"))).status == 200
        with pytest.raises(InvalidCredentials):
            await answer_of(endpoint, sent("alice", PASSWORD))

    logins.with_endpoint(work)


def test_a_user_who_is_disabled_behind_the_cache_gets_no_session_and_enabled_again_gets_one(logins: Logins) -> None:
    async def work(endpoint: LoginEndpoint, _scheduler: HashScheduler) -> None:
        assert (await answer_of(endpoint, sent("alice", PASSWORD))).status == 200
        await logins.users.set_disabled("alice", True, 1)
        with pytest.raises(InvalidCredentials):
            await answer_of(endpoint, sent("alice", PASSWORD))
        assert logins.database.read("SELECT count(*) FROM sessions") == [(0,)]
        await logins.users.set_disabled("alice", False, 2)
        assert (await answer_of(endpoint, sent("alice", PASSWORD))).status == 200

    logins.with_endpoint(work)


def test_somebody_else_of_the_same_name_is_somebody_else_at_once(logins: Logins) -> None:
    async def work(endpoint: LoginEndpoint, _scheduler: HashScheduler) -> Response:
        assert (await answer_of(endpoint, sent("alice", PASSWORD))).status == 200
        await logins.users.delete("alice", 1)
        another = User(
            sub="another", name="alice", password_hash=logins.hasher.hash(PASSWORD), created_at_s=0, updated_at_s=0
        )
        await logins.users.add(another, "alice")
        return await answer_of(endpoint, sent("alice", PASSWORD))

    claims = Verifier({"keys": [logins.key.public_jwk]}, ISSUER, ISSUER, clock=lambda: NOW_S).verify(
        json.loads(logins.with_endpoint(work).body)["token"]
    )
    assert claims.sub == "another"


# ------------------------------------------------------------------ a place in the queue is not lost


@pytest.mark.parametrize("has_sources", [False, True])
def test_a_login_that_fails_before_its_turn_holds_no_place(logins: Logins, has_sources: bool) -> None:
    class Users(CachedUsers):
        async def slowest_scheme(self) -> str | None:
            raise Unavailable("database", "is away")

    async def work(endpoint: LoginEndpoint, _scheduler: HashScheduler) -> list[int]:
        endpoint._users = Users(logins.users)
        if has_sources:  # then the turn is taken later, by whoever turns out to be local
            chain = SimpleNamespace(is_local=lambda _name, _user: True)
            endpoint._external = cast("ExternalLogins", SimpleNamespace(chain=chain))
        body = json.dumps({"username": "alice", "password": PASSWORD}).encode()
        with pytest.raises(Unavailable):
            await answer_of(endpoint, ReadyRequest(body, JSON_BODY, "POST", "/auth"))
        assert isinstance(endpoint._queue, LoginQueue)
        return endpoint._queue._pending

    assert logins.with_endpoint(work) == [0, 0]
