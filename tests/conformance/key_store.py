"""The promises of ``KeyStore``."""

import asyncio
from typing import Any

import msgspec
import pytest

from fastauth.domain.errors import Conflict
from fastauth.domain.ports import KeyStore, RingPolicy, StoredKey
from tests.conformance.user_store import run

LATEST_MS = (1 << 53) - 1


def stored_key(kid: str, activates_ms: int = 1_000, **changes: Any) -> StoredKey:
    """A row; what is in it is nobody's business here."""
    fresh = StoredKey(
        kid=kid,
        alg="RS256",
        public_jwk='{"kty":"RSA"}',
        wrapped_private=bytes(range(256)),
        published_ms=activates_ms - 500,
        activates_ms=activates_ms,
    )
    return msgspec.structs.replace(fresh, **changes)


class KeyStoreSuite:
    """Give ``keys`` an empty store."""

    @pytest.fixture
    def keys(self) -> KeyStore:
        raise NotImplementedError

    def ring(self, keys: KeyStore) -> list[StoredKey]:
        return list(run(keys.load_keys())[1])

    def change(self, keys: KeyStore, new_key: StoredKey | None, **removals: int) -> None:
        """A change of the ring as it is now; it must be done."""
        assert run(keys.change_ring(run(keys.ring_version()), new_key, removals)) is True

    def test_an_empty_ring_has_a_version_and_no_keys(self, keys: KeyStore) -> None:
        version, rows = run(keys.load_keys())
        assert (version, list(rows)) == (run(keys.ring_version()), [])

    def test_a_key_is_stored_whole(self, keys: KeyStore) -> None:
        for row in (
            stored_key("a"),
            stored_key("b", 2_000, removes_ms=0, alg="Ed25519"),
            stored_key("-_é\n'\"--", 3_000, public_jwk='{"x":"😀"}', wrapped_private=b"\0"),
            stored_key("d", LATEST_MS, published_ms=LATEST_MS, removes_ms=LATEST_MS),
        ):
            self.change(keys, row)
            assert self.ring(keys)[-1] == row

    def test_keys_come_in_the_order_of_activation_and_by_kid_within_one_millisecond(self, keys: KeyStore) -> None:
        for kid, activates_ms in (("b", 2), ("c", 1), ("a", 2), ("d", 3)):
            self.change(keys, stored_key(kid, activates_ms))
        assert [row.kid for row in self.ring(keys)] == ["c", "a", "b", "d"]

    def test_every_change_has_a_version_of_its_own_and_reading_makes_none(self, keys: KeyStore) -> None:
        versions = [run(keys.ring_version())]
        for new_key, removals in (
            (stored_key("a"), {}),
            (stored_key("b"), {"a": 5}),
            (None, {"b": 6}),
            (None, {"b": 7}),
            (None, {}),
        ):
            assert run(keys.change_ring(versions[-1], new_key, removals)) is True
            versions.append(run(keys.ring_version()))
            assert run(keys.load_keys())[0] == run(keys.ring_version()) == versions[-1]
        assert len(set(versions)) == len(versions)

    def test_a_removal_changes_the_time_of_the_keys_that_it_names_and_nothing_else(self, keys: KeyStore) -> None:
        rows = [stored_key(kid) for kid in "abc"]
        for row in rows:
            self.change(keys, row)
        self.change(keys, None, a=5, c=LATEST_MS, unknown=7)
        times = (5, None, LATEST_MS)
        expected = [msgspec.structs.replace(row, removes_ms=at) for row, at in zip(rows, times, strict=True)]
        assert self.ring(keys) == expected
        self.change(keys, stored_key("d"), a=4)
        assert self.ring(keys) == [msgspec.structs.replace(rows[0], removes_ms=4), *expected[1:], stored_key("d")]

    def test_a_change_of_a_ring_that_has_changed_meanwhile_does_nothing_not_even_half(self, keys: KeyStore) -> None:
        stale = run(keys.ring_version())
        self.change(keys, stored_key("a"))
        before = run(keys.load_keys())
        for version in (stale, before[0] + 1, -1):
            for new_key, removals in ((stored_key("b"), {"a": 5}), (None, {"a": 5}), (stored_key("b"), {}), (None, {})):
                assert run(keys.change_ring(version, new_key, removals)) is False
        assert run(keys.load_keys()) == before

    def test_a_kid_that_exists_is_not_stored_again_and_nothing_of_the_change_stays(self, keys: KeyStore) -> None:
        self.change(keys, stored_key("a"))
        self.change(keys, stored_key("b"))
        before = run(keys.load_keys())
        with pytest.raises(Conflict):
            run(keys.change_ring(before[0], stored_key("a", 9), {"b": 5}))
        assert run(keys.load_keys()) == before

    def test_of_many_changes_at_once_exactly_one_is_done(self, keys: KeyStore) -> None:
        self.change(keys, stored_key("old"))
        version = run(keys.ring_version())

        async def all_at_once() -> list[bool]:
            changes = (keys.change_ring(version, stored_key(f"k{n}"), {"old": 100 + n}) for n in range(20))
            return await asyncio.gather(*changes)

        won = run(all_at_once())
        assert won.count(True) == 1
        winner = won.index(True)
        old = stored_key("old", removes_ms=100 + winner)
        assert sorted(self.ring(keys), key=lambda row: row.kid) == [stored_key(f"k{winner}"), old]

    def test_an_erased_private_half_is_gone_and_the_version_stays(self, keys: KeyStore) -> None:
        for kid in "abc":
            self.change(keys, stored_key(kid))
        version = run(keys.ring_version())
        run(keys.erase_private(["a", "c", "unknown"]))
        run(keys.erase_private(["a"]))
        run(keys.erase_private([]))
        empty = [stored_key(kid, wrapped_private=b"") for kid in "ac"]
        assert self.ring(keys) == [empty[0], stored_key("b"), empty[1]]
        assert run(keys.ring_version()) == version

    def test_the_policy_is_the_last_one_saved_and_changes_no_version(self, keys: KeyStore) -> None:
        version = run(keys.ring_version())
        assert run(keys.find_policy()) is None
        for policy in (RingPolicy("RS256", 362), RingPolicy("ES256", 10)):
            run(keys.save_policy(policy))
            assert run(keys.find_policy()) == policy
        assert run(keys.ring_version()) == version
