"""Clients and their secrets."""

import msgspec
import pytest

from fastauth.domain.clients import SECRET_PREFIX, Client, ClientSecrets, check_client_name
from fastauth.domain.errors import ClientRefused
from tests.cases import each

NOW_S = 1_800_000_000
SECRETS = ClientSecrets(bytes(range(32)))


def client_with(secret_hash: bytes, **more: object) -> Client:
    client = Client(client_id="c1", name="svc", secret_hash=secret_hash, created_at_s=NOW_S, updated_at_s=NOW_S)
    return msgspec.structs.replace(client, **more)


def test_a_secret_is_right_for_its_client_and_installation_alone() -> None:
    secret, secret_hash = SECRETS.make("c1")
    client = client_with(secret_hash)
    assert secret.startswith(SECRET_PREFIX)
    assert len(secret) >= len(SECRET_PREFIX) + 43
    assert SECRETS.is_right(client, "c1", secret, NOW_S)
    assert not SECRETS.is_right(client, "c2", secret, NOW_S)
    assert not ClientSecrets(bytes(32)).is_right(client, "c1", secret, NOW_S)
    for wrong in ("", secret[:-1], secret + "x", secret.upper(), "\0", "\ud800", "x" * 100_000):
        assert not SECRETS.is_right(client, "c1", wrong, NOW_S)
    assert not SECRETS.is_right(None, "c1", secret, NOW_S)


def test_id_and_secret_cannot_be_shifted_into_each_other() -> None:
    _, secret_hash = SECRETS.make("c1")
    hashes = {SECRETS._hash(*pair) for pair in [("a", "b:c"), ("a:b", "c"), ("a:1", "b"), ("ab", "c"), ("a", "bc")]}
    assert len(hashes) == 5
    assert len(secret_hash) == 32


def test_the_old_secret_is_good_for_as_long_as_it_was_to_be_kept() -> None:
    old, old_hash = SECRETS.make("c1")
    new, new_hash = SECRETS.make("c1")
    client = client_with(new_hash, old_secret_hash=old_hash, old_secret_until_s=NOW_S + 10)
    assert SECRETS.is_right(client, "c1", new, NOW_S)
    assert SECRETS.is_right(client, "c1", old, NOW_S + 9)
    assert not SECRETS.is_right(client, "c1", old, NOW_S + 10)
    assert SECRETS.is_right(client, "c1", new, NOW_S + 10)


def test_no_two_secrets_are_the_same() -> None:
    assert len({SECRETS.make("c1")[0] for _ in range(100)}) == 100


@each("size", [0, 16, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ClientSecrets(bytes(size))


@each("name", ["a", "billing", "svc-1.eu_west", "A" * 64, "0"])
def test_a_name_that_is_good_is_taken_unchanged(name: str) -> None:
    assert check_client_name(name) == name


@each("name", ["", "-a", ".a", "a b", "a\n", "é", "A" * 65, "a/b", "a\0", "--help"])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(ClientRefused):
        check_client_name(name)


def test_nothing_printed_of_a_client_is_a_hash() -> None:
    _, secret_hash = SECRETS.make("c1")
    assert secret_hash.hex() not in repr(client_with(secret_hash))
    assert "hash" not in repr(client_with(secret_hash))
