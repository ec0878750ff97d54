"""Proofs of known devices: good for one account, one password, one time; nothing else passes."""

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastauth.domain.devices import DeviceTokens
from fastauth.domain.users import User
from tests.cases import each

NOW_S = 1_800_000_000
TTL_S = 90 * 86_400
ALICE = User(sub="sub-1", name="alice", password_hash="", created_at_s=0, updated_at_s=0)


def tokens(key: bytes = bytes(32)) -> DeviceTokens:
    return DeviceTokens(key, TTL_S)


def check(text: str | bytes, user: User = ALICE, now_s: int = NOW_S, key: bytes = bytes(32)) -> str | None:
    return tokens(key).check(text if isinstance(text, bytes) else text.encode(), user, now_s)


def changed(**fields: Any) -> User:
    return msgspec.structs.replace(ALICE, **fields)


def test_a_proof_is_good_until_it_expires_and_names_a_nonce_that_nobody_else_has() -> None:
    first, second = (tokens().issue(ALICE, NOW_S) for _ in range(2))
    nonces = {check(first), check(second)}
    assert len(nonces) == 2
    assert None not in nonces
    assert check(first, now_s=NOW_S + TTL_S - 1) == check(first)
    assert check(first, now_s=NOW_S + TTL_S) is None


@each(
    "user",
    [
        changed(sub="sub-2"),
        changed(name="alicf"),
        changed(credential_generation=1),
        changed(sub="sub-1a", name="lice"),
        changed(sub="sub-", name="1alice"),
    ],
)
def test_a_proof_is_for_one_account_with_one_password(user: User) -> None:
    assert check(tokens().issue(ALICE, NOW_S), user) is None
    assert check(tokens().issue(user, NOW_S), user) is not None


def test_a_proof_of_another_installation_is_none() -> None:
    assert check(tokens().issue(ALICE, NOW_S), key=bytes(31) + b"\1") is None


def test_a_change_of_any_character_is_refused() -> None:
    token = tokens().issue(ALICE, NOW_S)
    for place in range(len(token)):
        for other in "A-_9=. %":
            if token[place] != other:
                assert check(token[:place] + other + token[place + 1 :]) is None


def test_there_is_one_way_to_write_a_proof() -> None:
    token = tokens().issue(ALICE, NOW_S)
    body = base64.urlsafe_b64decode(token[2:] + "=")
    spellings = [token[:-1] + last for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"]
    same = [text for text in spellings if base64.urlsafe_b64decode(text[2:] + "=") == body]
    assert len(same) == 4
    assert [text for text in same if check(text)] == [token]


@each(
    "text",
    [b"", b"1.", b"1." + b"A" * 75, b"2." + b"A" * 75, b"\xff" * 77, b"1." + b"\xc3\xa9" * 37 + b"A", b"x" * 100_000],
)
def test_what_is_no_proof_is_refused(text: bytes) -> None:
    assert check(text) is None


@given(st.binary(max_size=120))
def test_no_bytes_make_it_raise(text: bytes) -> None:
    assert check(text) is None


@each("cut", [slice(0, -1), slice(1, None)])
def test_a_part_of_a_proof_is_none_and_neither_is_more_than_one(cut: slice) -> None:
    token = tokens().issue(ALICE, NOW_S)
    assert check(token[cut]) is None
    assert check(token + "A") is None


def test_a_proof_says_nothing_of_the_account_and_printing_says_nothing_of_the_key() -> None:
    made = DeviceTokens(b"secret" * 5 + b"!!", TTL_S)
    token = made.issue(changed(name="alexandria", sub="subject-of-hers"), NOW_S)
    for text in (token, base64.urlsafe_b64decode(token[2:] + "=").decode("latin-1")):
        assert "alexandria" not in text
        assert "subject" not in text
    assert "secret" not in repr(made)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        DeviceTokens(b"short", TTL_S)
