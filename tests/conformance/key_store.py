"""The promises of ``KeyStore``."""

import asyncio

import msgspec
import pytest

from fastauth.domain.ports import KeyStore, StoredKey
from tests.conformance.user_store import run


def stored_key(kid: str, activates_ms: int = 2_000) -> StoredKey:
    """A row; what is in it is nobody's business here."""
    return StoredKey(
        kid=kid,
        alg="RS256",
        public_jwk='{"kty":"RSA"}',
        wrapped_private=bytes(range(256)),
        published_ms=1_000,
        activates_ms=activates_ms,
    )


def added(keys: KeyStore, *rows: StoredKey) -> int:
    """Add the rows; out: the version then."""
    for row in rows:
        assert run(keys.change_ring(run(keys.ring_version()), row, {}))
    return run(keys.ring_version())


class KeyStoreSuite:
    """Give ``keys`` an empty store."""

    @pytest.fixture
    def keys(self) -> KeyStore:
        raise NotImplementedError

    def test_an_empty_ring_has_a_version_and_no_keys(self, keys: KeyStore) -> None:
        version, rows = run(keys.load_keys())
        assert (version, list(rows)) == (run(keys.ring_version()), [])

    def test_keys_come_back_whole_in_the_order_of_activation(self, keys: KeyStore) -> None:
        late, early = stored_key("a", 1 << 50), stored_key("b", 1)
        version = added(keys, late, early)
        assert run(keys.load_keys()) == (version, [early, late])

    def test_every_change_changes_the_version(self, keys: KeyStore) -> None:
        versions = [run(keys.ring_version()), added(keys, stored_key("a")), added(keys, stored_key("b"))]
        assert run(keys.change_ring(versions[-1], None, {"a": 5}))
        versions.append(run(keys.ring_version()))
        assert len(set(versions)) == 4

    def test_a_key_is_added_and_others_are_removed_in_one_step(self, keys: KeyStore) -> None:
        version = added(keys, stored_key("a"), stored_key("b"))
        assert run(keys.change_ring(version, stored_key("c"), {"a": 7, "b": 8}))
        assert {row.kid: row.removes_ms for row in run(keys.load_keys())[1]} == {"a": 7, "b": 8, "c": None}

    def test_a_change_of_another_version_changes_nothing_at_all(self, keys: KeyStore) -> None:
        version = added(keys, stored_key("a"))
        before = run(keys.load_keys())
        for stale in (version - 1, version + 1, 0):
            assert not run(keys.change_ring(stale, stored_key("b"), {"a": 7}))
        assert run(keys.load_keys()) == before

    def test_of_many_changes_at_once_exactly_one_happens(self, keys: KeyStore) -> None:
        version = run(keys.ring_version())

        async def all_at_once() -> list[bool]:
            changes = (keys.change_ring(version, stored_key(f"k{number}"), {}) for number in range(20))
            return await asyncio.gather(*changes)

        won = run(all_at_once())
        assert won.count(True) == 1
        assert [key.kid for key in run(keys.load_keys())[1]] == [f"k{won.index(True)}"]

    def test_a_private_half_is_erased_and_the_rest_stays(self, keys: KeyStore) -> None:
        version = added(keys, stored_key("a"), stored_key("b"))
        run(keys.erase_private(["a", "unknown"]))
        assert run(keys.load_keys()) == (
            version,
            [msgspec.structs.replace(stored_key("a"), wrapped_private=b""), stored_key("b")],
        )
