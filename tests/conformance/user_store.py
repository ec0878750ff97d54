"""The promises of ``UserStore``."""

import asyncio
import atexit
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import msgspec
import pytest

from fastauth.domain.errors import Conflict, NotFound
from fastauth.domain.password_schemes import decoy_hash, parse_scheme
from fastauth.domain.ports import UserStore
from fastauth.domain.users import User

T = TypeVar("T")

BCRYPT_4, BCRYPT_5 = decoy_hash("$2b$04", bytes(53)), decoy_hash("$2b$05", bytes(53))
ARGON2 = decoy_hash("$argon2id$v=19$m=8,t=1,p=1", bytes(53))


_runner: Final = asyncio.Runner()  # a pool of connections belongs to one loop
atexit.register(_runner.close)


def run(work: Coroutine[Any, Any, T]) -> T:
    return _runner.run(work)


def user(name: str, **changes: Any) -> User:
    """A user whose subject is made from the name."""
    fresh = User(sub=f"sub-{name}", name=name, password_hash=ARGON2, created_at_s=1_000, updated_at_s=1_000)
    return msgspec.structs.replace(fresh, **changes)


class UserStoreSuite:
    """Give ``users`` an empty store."""

    @pytest.fixture
    def users(self) -> UserStore:
        raise NotImplementedError

    def test_an_added_user_is_found_whole(self, users: UserStore) -> None:
        for account in (
            user("alice"),
            user("bob", scope="a b", disabled=True, created_at_s=1 << 40, updated_at_s=(1 << 40) + 1),
            user("émile 😀\n'\"--", password_hash=BCRYPT_4),
        ):
            run(users.add(account, account.name))
            assert run(users.find_by_name(account.name)) == account
            assert run(users.find_by_sub(account.sub)) == account
        assert run(users.find_by_sub("alice")) is None

    def test_an_unknown_name_is_none_and_names_are_compared_exactly(self, users: UserStore) -> None:
        run(users.add(user("alice"), "alice"))
        for name in ("bob", "Alice", "alice ", "", "alic", "ALICE", "al%", "alice\0"):
            assert run(users.find_by_name(name)) is None

    def test_a_user_of_a_source_is_found_by_what_the_source_calls_him_and_nobody_is_twice(
        self, users: UserStore
    ) -> None:
        ann = user("ann", password_hash="", source="http", subject="Ann:1")
        run(users.add(ann, "ann"))
        run(users.add(user("bob", password_hash="", source="ldap", subject="Ann:1"), "bob"))
        run(users.add(user("carol"), "carol"))
        run(users.add(user("dave"), "dave"))  # of local accounts none has a subject, and many have none
        assert run(users.find_by_identity("http", "Ann:1")) == ann
        assert run(users.find_by_identity("http", "ann:1")) is None
        assert run(users.find_by_identity("http", "Ann:1\0")) is None
        assert run(users.find_by_identity("local", "")) is None
        with pytest.raises(Conflict):
            run(users.add(user("eve", password_hash="", source="http", subject="Ann:1"), "eve"))

    def test_a_name_a_look_alike_and_a_subject_are_each_taken_once(self, users: UserStore) -> None:
        run(users.add(user("alice"), "alice"))
        for again, skeleton in (
            (user("alice", sub="s2"), "other"),
            (user("\u0430lice", sub="s3"), "alice"),
            (user("carol", sub="sub-alice"), "carol"),
        ):
            with pytest.raises(Conflict):
                run(users.add(again, skeleton))
        assert run(users.count()) == 1

    def test_a_deleted_name_can_be_added_again_as_somebody_else(self, users: UserStore) -> None:
        run(users.add(user("alice"), "alice"))
        run(users.delete("alice", 2_000))
        assert run(users.find_by_name("alice")) is None
        run(users.add(user("alice", sub="another"), "alice"))
        found = run(users.find_by_name("alice"))
        assert found is not None
        assert found.sub == "another"

    def test_users_are_counted_and_listed_by_name_a_page_at_a_time(self, users: UserStore) -> None:
        assert run(users.count()) == 0
        assert list(run(users.list_users("", 10))) == []
        names = ["alice", "bob", "carol", "dave", "émile"]
        for name in reversed(names):
            run(users.add(user(name), name))
        assert run(users.count()) == 5
        assert [account.name for account in run(users.list_users("", 10))] == names
        assert [account.name for account in run(users.list_users("", 2))] == names[:2]
        assert [account.name for account in run(users.list_users("bob", 2))] == ["carol", "dave"]
        assert [account.name for account in run(users.list_users("bo", 1))] == ["bob"]
        assert list(run(users.list_users("émile", 10))) == []
        assert run(users.list_users("", 1))[0] == user("alice")

    def test_disabling_and_enabling_say_when(self, users: UserStore) -> None:
        run(users.add(user("alice"), "alice"))
        run(users.add(user("bob"), "bob"))
        run(users.set_disabled("alice", True, 2_000))
        assert run(users.find_by_name("alice")) == user("alice", disabled=True, updated_at_s=2_000)
        run(users.set_disabled("alice", False, 3_000))
        assert run(users.find_by_name("alice")) == user("alice", updated_at_s=3_000)
        assert run(users.find_by_name("bob")) == user("bob")

    def test_a_new_password_is_stored_and_dated(self, users: UserStore) -> None:
        run(users.add(user("alice"), "alice"))
        run(users.add(user("bob"), "bob"))
        run(users.set_password_hash("alice", BCRYPT_4, 2_000))
        assert run(users.find_by_name("alice")) == user(
            "alice", password_hash=BCRYPT_4, updated_at_s=2_000, credential_generation=1
        )
        assert run(users.find_by_name("bob")) == user("bob")

    def test_each_new_password_is_a_generation_and_a_new_hash_of_the_same_one_is_none(self, users: UserStore) -> None:
        run(users.add(user("alice"), "alice"))
        for generation in (1, 2, 3):
            run(users.set_password_hash("alice", BCRYPT_4, 2_000))
            assert run(users.replace_password_hash("sub-alice", BCRYPT_4, BCRYPT_5, 2_001))
            found = run(users.find_by_name("alice"))
            assert found is not None
            assert found.credential_generation == generation
        (listed,) = run(users.list_users("", 9))
        assert listed.credential_generation == 3

    def test_what_does_not_exist_is_not_found(self, users: UserStore) -> None:
        run(users.add(user("alice"), "alice"))
        for work in (
            users.set_disabled("bob", True, 1),
            users.set_password_hash("bob", BCRYPT_4, 1),
            users.delete("bob", 2_000),
            users.delete("Alice", 2_000),
        ):
            with pytest.raises(NotFound):
                run(work)
        assert run(users.find_by_name("alice")) == user("alice")

    def test_a_hash_is_replaced_only_while_it_is_the_one_that_was_seen(self, users: UserStore) -> None:
        run(users.add(user("alice"), "alice"))
        assert not run(users.replace_password_hash("sub-alice", BCRYPT_5, BCRYPT_4, 2_000))
        assert not run(users.replace_password_hash("sub-bob", ARGON2, BCRYPT_4, 2_000))
        assert run(users.find_by_name("alice")) == user("alice")
        assert run(users.replace_password_hash("sub-alice", ARGON2, BCRYPT_4, 3_000))
        assert run(users.find_by_name("alice")) == user("alice", password_hash=BCRYPT_4, updated_at_s=3_000)

    def test_of_many_that_replace_one_hash_exactly_one_wins(self, users: UserStore) -> None:
        run(users.add(user("alice"), "alice"))
        fresh = [decoy_hash("$2b$04", bytes([number] * 53)) for number in range(2, 22)]

        async def all_at_once() -> list[bool]:
            return await asyncio.gather(*(users.replace_password_hash("sub-alice", ARGON2, one, 2) for one in fresh))

        won = run(all_at_once())
        assert won.count(True) == 1
        found = run(users.find_by_name("alice"))
        assert found is not None
        assert found.password_hash == fresh[won.index(True)]

    def test_of_many_that_add_one_name_exactly_one_wins(self, users: UserStore) -> None:
        async def all_at_once() -> list[object]:
            adding = (users.add(user("alice", sub=f"s{number}"), "alice") for number in range(20))
            return await asyncio.gather(*adding, return_exceptions=True)

        outcomes = run(all_at_once())
        assert outcomes.count(None) == 1
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19
        assert run(users.count()) == 1

    def test_adding_missing_users_passes_over_those_that_exist_or_look_alike(self, users: UserStore) -> None:
        run(users.add(user("alice"), "alice"))
        batch = [
            (user("alice", sub="s2", disabled=True), "alice"),
            (user("bob"), "bob"),
            (user("\u0430lice"), "alice"),
            (user("bob", sub="s3"), "bob"),
            (user("b\u043eb"), "bob"),
            (user("carol", password_hash=BCRYPT_4), "carol"),
        ]
        outcome = run(users.add_missing(batch))
        assert outcome.existing == 2
        assert list(outcome.lookalikes) == ["\u0430lice", "b\u043eb"]
        assert run(users.find_by_name("alice")) == user("alice")
        assert run(users.find_by_name("bob")) == user("bob")
        assert run(users.find_by_name("carol")) == user("carol", password_hash=BCRYPT_4)
        assert run(users.count()) == 3

    def test_adding_nobody_is_no_mistake(self, users: UserStore) -> None:
        outcome = run(users.add_missing([]))
        assert (outcome.existing, list(outcome.lookalikes)) == (0, [])

    def test_the_slowest_scheme_follows_every_way_in_which_a_hash_is_stored(self, users: UserStore) -> None:
        assert run(users.slowest_scheme()) is None
        run(users.add(user("alice"), "alice"))
        assert run(users.slowest_scheme()) == parse_scheme(ARGON2).identifier
        run(users.add_missing([(user("bob", password_hash=BCRYPT_4), "bob")]))
        assert run(users.slowest_scheme()) == "$2b$04"
        run(users.set_password_hash("alice", BCRYPT_5, 2))
        assert run(users.slowest_scheme()) == "$2b$05"
        run(users.replace_password_hash("sub-bob", BCRYPT_4, decoy_hash("$2b$06", bytes(53)), 2))
        assert run(users.slowest_scheme()) == "$2b$06"

    def test_the_slowest_scheme_is_forgotten_with_the_last_who_has_it(self, users: UserStore) -> None:
        run(users.add(user("alice"), "alice"))
        for name in ("bob", "carol"):
            run(users.add(user(name, password_hash=BCRYPT_5), name))
        run(users.delete("bob", 2_000))
        assert run(users.slowest_scheme()) == "$2b$05"
        run(users.replace_password_hash("sub-carol", BCRYPT_5, ARGON2, 2))
        assert run(users.slowest_scheme()) == parse_scheme(ARGON2).identifier
