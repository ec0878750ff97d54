"""Rows that a worker keeps: bounded, short-lived, and forgotten when they change."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
import pytest

from fastauth.backends import caching
from fastauth.backends.caching import CachedClients, CachedUsers, RowCache
from fastauth.backends.sqlite.clients import SqliteClientStore
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.users import SqliteUserStore
from fastauth.domain.users import User
from tests.conformance.client_store import client
from tests.conformance.user_store import user

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class CountedUsers(SqliteUserStore):
    """A real store that counts what is read."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.reads: Counter[str] = Counter()

    async def find_by_name(self, name: str) -> User | None:
        self.reads["name"] += 1
        return await super().find_by_name(name)

    async def find_by_sub(self, sub: str) -> User | None:
        self.reads["sub"] += 1
        return await super().find_by_sub(sub)

    async def slowest_scheme(self) -> str | None:
        self.reads["slowest"] += 1
        return await super().slowest_scheme()


@pytest.fixture
def store(database: Database) -> CountedUsers:
    store = CountedUsers(database)
    run(store.add(user("alice"), "alice"))
    return store


def test_a_row_is_kept_for_a_short_while() -> None:
    clock = Clock()
    cache: RowCache[str] = RowCache(clock)
    cache.put("a", "row", cache.epoch)
    clock.now_s = caching.TTL_S - 0.01
    assert cache.get("a") == "row"
    clock.now_s = caching.TTL_S
    assert cache.get("a") is None
    assert len(cache) == 0


def test_the_number_of_rows_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "MAX_ROWS", 3)
    cache: RowCache[int] = RowCache(Clock())
    for number in range(10):
        cache.put(str(number), number, cache.epoch)
        assert len(cache) <= 3
    assert [cache.get(str(number)) for number in range(10)] == [None] * 7 + [7, 8, 9]


def test_a_row_that_was_read_before_a_change_is_not_kept() -> None:
    cache: RowCache[str] = RowCache(Clock())
    epoch = cache.epoch
    cache.forget("a")
    cache.put("a", "outdated", epoch)
    assert cache.get("a") is None


def test_an_account_is_read_once_by_name_and_by_sub(store: CountedUsers) -> None:
    users = CachedUsers(store)
    for _ in range(5):
        assert run(users.find_by_name("alice")) == user("alice")
        assert run(users.find_by_sub("sub-alice")) == user("alice")
        assert run(users.slowest_scheme()) is not None
    assert store.reads == {"name": 1, "slowest": 1}


def test_what_is_not_there_is_never_remembered(store: CountedUsers) -> None:
    users = CachedUsers(store)
    assert run(users.find_by_name("bob")) is None
    assert run(users.find_by_sub("sub-bob")) is None
    run(store.add(user("bob"), "bob"))
    assert run(users.find_by_name("bob")) == run(users.find_by_sub("sub-bob")) == user("bob")


def test_an_account_that_has_changed_is_read_again(store: CountedUsers) -> None:
    users = CachedUsers(store)
    assert run(users.find_by_name("alice")) == user("alice")
    run(store.set_disabled("alice", True, 2_000))
    users.forget("sub-alice")
    for found in (run(users.find_by_name("alice")), run(users.find_by_sub("sub-alice"))):
        assert found is not None
        assert found.disabled


def test_a_name_that_belongs_to_somebody_else_by_now_leads_to_them(store: CountedUsers) -> None:
    users = CachedUsers(store)
    assert run(users.find_by_name("alice")) == user("alice")
    run(store.delete("alice", 2_000))
    run(store.add(user("alice", sub="another"), "alice"))
    users.forget("sub-alice")
    found = run(users.find_by_name("alice"))
    assert found is not None
    assert found.sub == "another"


def test_a_row_can_be_read_again_at_once(store: CountedUsers) -> None:
    users = CachedUsers(store)
    before = run(users.find_by_name("alice"))
    assert before is not None
    run(store.set_disabled("alice", True, 2_000))
    assert run(users.find_by_name("alice")) == before
    after = run(users.find_again(before))
    assert after == msgspec.structs.replace(before, disabled=True, updated_at_s=2_000)
    assert run(users.find_by_name("alice")) == after


def test_a_client_is_kept_until_it_changes(database: Database) -> None:
    store = SqliteClientStore(database)
    clients = CachedClients(store)
    assert run(clients.find("id-a")) is None
    run(store.add(client("a")))
    assert run(clients.find("id-a")) == client("a")
    run(store.set_disabled("id-a", True, 2_000))
    assert run(clients.find("id-a")) == client("a")
    clients.forget("id-a")
    found = run(clients.find("id-a"))
    assert found is not None
    assert found.disabled
