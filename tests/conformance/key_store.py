"""The promises of ``KeyStore``."""

import asyncio

import pytest

from fastauth.domain.ports import KeyStore, StoredKey
from tests.conformance.user_store import run


def stored_key(kid: str, created_at_s: int = 1_000) -> StoredKey:
    """A row; what is in it is nobody's business here."""
    return StoredKey(
        kid=kid, alg="RS256", public_jwk='{"kty":"RSA"}', wrapped_private=bytes(range(256)), created_at_s=created_at_s
    )


class KeyStoreSuite:
    """Give ``keys`` an empty store."""

    @pytest.fixture
    def keys(self) -> KeyStore:
        raise NotImplementedError

    def test_an_empty_ring_has_no_keys(self, keys: KeyStore) -> None:
        assert list(run(keys.load_keys())) == []

    def test_the_first_key_is_stored_whole_and_a_second_first_one_is_not(self, keys: KeyStore) -> None:
        assert run(keys.add_first_key(stored_key("a"))) is True
        assert run(keys.add_first_key(stored_key("b"))) is False
        assert run(keys.add_first_key(stored_key("a"))) is False
        assert list(run(keys.load_keys())) == [stored_key("a")]

    def test_of_many_first_keys_at_once_exactly_one_is_stored(self, keys: KeyStore) -> None:
        async def all_at_once() -> list[bool]:
            return await asyncio.gather(*(keys.add_first_key(stored_key(f"k{number}")) for number in range(20)))

        won = run(all_at_once())
        assert won.count(True) == 1
        assert [key.kid for key in run(keys.load_keys())] == [f"k{won.index(True)}"]
