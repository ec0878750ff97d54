"""The master key: what it wraps opens only for it, only whole, and only in its own row."""

import base64
from collections.abc import Callable

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from fastauth.domain.errors import MasterKeyRefused
from fastauth.domain.ports import StoredKey
from fastauth.jose.jwk import public_jwk
from fastauth.jose.keyring import unwrap_key, wrap_key
from fastauth.jose.keys import SigningKey
from fastauth.jose.refusals import KeyRefused
from fastauth.jose.wrapping import MasterKey
from tests.cases import each

SECRET = bytes(range(32))
NONCE = bytes(12)


@pytest.fixture
def master() -> MasterKey:
    return MasterKey(SECRET)


def stored(key: SigningKey, master: MasterKey) -> StoredKey:
    wrapped = master.wrap(key.to_der(), key.kid, NONCE)
    return StoredKey(kid=key.kid, alg=key.alg, public_jwk="{}", wrapped_private=wrapped, published_ms=0, activates_ms=0)


def test_what_was_wrapped_unwraps(master: MasterKey) -> None:
    wrapped = master.wrap(b"private", "kid", NONCE)
    assert b"private" not in wrapped
    assert master.unwrap(wrapped, "kid") == b"private"


def test_another_master_key_opens_nothing_and_says_what_to_restore(master: MasterKey) -> None:
    with pytest.raises(MasterKeyRefused, match=r"restore master\.key"):
        MasterKey(bytes(32)).unwrap(master.wrap(b"private", "kid", NONCE), "kid")


@given(position=st.integers(0, 12 + 7 + 16 - 1), bit=st.integers(0, 7))
def test_a_single_altered_bit_is_noticed(position: int, bit: int) -> None:
    wrapped = bytearray(MasterKey(SECRET).wrap(b"private", "kid", NONCE))
    wrapped[position] ^= 1 << bit
    with pytest.raises(MasterKeyRefused):
        MasterKey(SECRET).unwrap(bytes(wrapped), "kid")


@each("length", [0, 1, 7, 8, 11, 12, 13, 27, 28, 34])
def test_a_row_cut_short_is_noticed(master: MasterKey, length: int) -> None:
    with pytest.raises(MasterKeyRefused):
        master.unwrap(master.wrap(b"private", "kid", NONCE)[:length], "kid")


@each("kid", ["", "kid ", "Kid", "kid2"])
def test_a_wrapped_key_cannot_be_moved_to_another_row(master: MasterKey, kid: str) -> None:
    with pytest.raises(MasterKeyRefused):
        master.unwrap(master.wrap(b"private", "kid", NONCE), kid)


@each("size", [0, 11, 13, 16])
def test_a_nonce_has_twelve_bytes(master: MasterKey, size: int) -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        master.wrap(b"private", "kid", bytes(size))


@each("size", [0, 16, 31, 33, 64])
def test_a_master_key_has_32_bytes(size: int) -> None:
    with pytest.raises(MasterKeyRefused, match="32 bytes"):
        MasterKey(bytes(size))


def test_secrets_are_derived_by_hkdf_and_differ_by_purpose(master: MasterKey) -> None:
    assert master.derive(b"a") == HKDF(SHA256(), 32, None, b"a").derive(SECRET)
    assert len({master.derive(b"a"), master.derive(b"b"), MasterKey(bytes(32)).derive(b"a"), SECRET}) == 4


@each("encode", [base64.b64encode, base64.urlsafe_b64encode])
@each("ending", ["", "\n", "\r\n", "  "])
@each("is_padded", [True, False])
def test_both_alphabets_are_read_with_and_without_padding(
    encode: Callable[[bytes], bytes], ending: str, is_padded: bool
) -> None:
    secret = b"\xfb\xff" * 16
    text = encode(secret).decode()
    read = MasterKey.from_text((text if is_padded else text.rstrip("=")) + ending)
    assert read.derive(b"x") == MasterKey(secret).derive(b"x")


def test_a_written_key_is_read_back(master: MasterKey) -> None:
    assert MasterKey.from_text(master.to_text()).derive(b"x") == master.derive(b"x")


@each("text", ["", "AAAA", "A" * 42, "A" * 44, "A" * 42 + "!", "A" * 20 + "\n" + "A" * 23, "hunter2"])
def test_what_is_no_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(MasterKeyRefused) as refusal:
        MasterKey.from_text(text)
    assert len(text) < 5 or text not in str(refusal.value)


@each("char", ["é", "Ａ", "\ud800"])
def test_a_key_with_a_character_beyond_ascii_is_refused(char: str) -> None:
    with pytest.raises(MasterKeyRefused):
        MasterKey.from_text("A" * 42 + char)


def test_the_key_is_not_shown_when_printed(master: MasterKey) -> None:
    shown = f"{master!r} {master}"
    assert master.to_text()[:12] not in shown
    assert SECRET.hex()[:12] not in shown


# ------------------------------------------------------------------ a key in its row


def test_a_row_unwraps_to_its_key(master: MasterKey, signing_key: SigningKey) -> None:
    row = wrap_key(signing_key, master, NONCE, 1, 2)
    assert (row.kid, row.alg, row.published_ms, row.activates_ms, row.removes_ms) == (
        signing_key.kid,
        "RS256",
        1,
        2,
        None,
    )
    assert unwrap_key(row, master).public_jwk == signing_key.public_jwk
    assert signing_key.to_der() not in row.wrapped_private


def test_a_row_under_another_master_key_is_refused(master: MasterKey, signing_key: SigningKey) -> None:
    with pytest.raises(MasterKeyRefused):
        unwrap_key(stored(signing_key, MasterKey(bytes(32))), master)


def test_a_row_with_the_wrapped_key_of_another_is_refused(
    master: MasterKey, signing_key: SigningKey, other_key: SigningKey
) -> None:
    first, second = stored(signing_key, master), stored(other_key, master)
    moved = msgspec.structs.replace(first, wrapped_private=second.wrapped_private)
    with pytest.raises(MasterKeyRefused):
        unwrap_key(moved, master)


def test_a_row_whose_key_has_another_name_is_refused(master: MasterKey, signing_key: SigningKey) -> None:
    renamed = StoredKey(
        kid="another",
        alg="RS256",
        public_jwk="{}",
        wrapped_private=master.wrap(signing_key.to_der(), "another", NONCE),
        published_ms=0,
        activates_ms=0,
    )
    with pytest.raises(KeyRefused):
        unwrap_key(renamed, master)


def test_a_row_that_holds_no_key_is_refused(master: MasterKey) -> None:
    row = StoredKey(
        kid="k",
        alg="RS256",
        public_jwk="{}",
        wrapped_private=master.wrap(b"x", "k", NONCE),
        published_ms=0,
        activates_ms=0,
    )
    with pytest.raises(KeyRefused):
        unwrap_key(row, master)


def test_a_weak_key_in_the_own_ring_is_refused(master: MasterKey, weak_key: rsa.RSAPrivateKey) -> None:
    kid = public_jwk(weak_key.public_key(), "RS256")["kid"]
    der = weak_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    row = StoredKey(
        kid=kid,
        alg="RS256",
        public_jwk="{}",
        wrapped_private=master.wrap(der, kid, NONCE),
        published_ms=0,
        activates_ms=0,
    )
    with pytest.raises(KeyRefused):
        unwrap_key(row, master)
