"""Refresh tokens: one form, nothing stored that could be used, and a successor for nobody but its parent's holder."""

import base64
import secrets

from hypothesis import given
from hypothesis import strategies as st

from fastauth.domain.refresh_tokens import PREFIX, RefreshToken
from tests.cases import each

TOKEN = RefreshToken(bytes(range(16)), bytes(range(100, 132)))


def test_a_token_has_a_prefix_and_256_random_bits() -> None:
    assert TOKEN.text.startswith(PREFIX)
    assert len(TOKEN.text) == len(PREFIX) + 64
    taken: list[int] = []

    def random_bytes(size: int) -> bytes:
        taken.append(size)
        return secrets.token_bytes(size)

    token = RefreshToken.new(random_bytes)
    token.successor(random_bytes)
    assert taken == [16, 32, 32]


@given(handle=st.binary(min_size=16, max_size=16), secret=st.binary(min_size=32, max_size=32))
def test_a_token_is_read_as_it_was_written(handle: bytes, secret: bytes) -> None:
    token = RefreshToken(handle, secret)
    assert RefreshToken.parse(token.text) == token


@each(
    "text",
    [
        "",
        PREFIX,
        TOKEN.text[:-1],
        TOKEN.text + "A",
        TOKEN.text + "=",
        TOKEN.text + "\n",
        " " + TOKEN.text,
        TOKEN.text[len(PREFIX) :],
        TOKEN.text.upper(),
        TOKEN.text.replace("AAEC", "A+EC"),
        TOKEN.text.replace("AAEC", "A/EC"),
        TOKEN.text.replace("AAEC", "A\0EC"),
        TOKEN.text.replace("AAEC", "ＡAEC"),
        "eyJhbGciOiJSUzI1NiJ9.e30.AAAA",
        "fa_cs_" + TOKEN.text[len(PREFIX) :],
        PREFIX + "A" * 100_000,
    ],
)
def test_anything_else_is_no_token(text: str) -> None:
    assert RefreshToken.parse(text) is None


def test_the_sid_is_that_of_the_session_and_does_not_give_the_handle_away() -> None:
    successor = TOKEN.successor(secrets.token_bytes)
    assert successor.sid == TOKEN.sid
    assert len(base64.urlsafe_b64decode(TOKEN.sid + "==")) == 16
    assert RefreshToken.new(secrets.token_bytes).sid != TOKEN.sid
    assert base64.urlsafe_b64encode(TOKEN.handle).rstrip(b"=").decode() != TOKEN.sid


def test_hashes_differ_with_every_bit_of_the_token_and_hold_nothing_of_it() -> None:
    other = RefreshToken(TOKEN.handle, bytes([101]) + TOKEN.secret[1:])
    another = RefreshToken(bytes([1]) + TOKEN.handle[1:], TOKEN.secret)
    assert len({TOKEN.hash, other.hash, another.hash}) == 3
    assert len(TOKEN.hash) == 32
    assert TOKEN.secret[:8] not in TOKEN.hash


def test_a_successor_is_opened_by_its_parent_and_by_nobody_else() -> None:
    successor = TOKEN.successor(secrets.token_bytes)
    sealed = TOKEN.seal(successor, secrets.token_bytes)
    assert successor.secret not in sealed
    assert TOKEN.unseal(sealed) == successor
    for other in (successor, RefreshToken.new(secrets.token_bytes), RefreshToken(bytes(16), TOKEN.secret)):
        assert other.unseal(sealed) is None


@each("broken", [b"", b"\0" * 12, b"\0" * 60, b"\0" * 1_000])
def test_a_seal_that_is_damaged_opens_nothing(broken: bytes) -> None:
    assert TOKEN.unseal(broken) is None


def test_nothing_printed_of_it_is_the_token() -> None:
    assert TOKEN.secret.hex() not in repr(TOKEN)
    assert TOKEN.text not in repr(TOKEN)
    assert repr(TOKEN) == "RefreshToken(...)"
