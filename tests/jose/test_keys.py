"""Keys: which ones are fit to verify and to sign, what is published of them, and their names."""

import json
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from fastauth.jose import base64url
from fastauth.jose.jwk import thumbprint
from fastauth.jose.keyring import KeyRing
from fastauth.jose.keys import SigningKey, VerifyingKey
from fastauth.jose.refusals import KeyRefused
from tests.cases import each

RFC_7638_MODULUS = (
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn"
    "jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6q"
    "MQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awap"
    "JzKnqDKgw"
)
PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


def number(value: int) -> str:
    """A JWK's number."""
    return base64url.encode(value.to_bytes((value.bit_length() + 7) // 8)).decode()


def jwk_of(key: rsa.RSAPrivateKey) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "kid": "k", "n": number(numbers.n), "e": number(numbers.e)}


def der_of(key: Any) -> bytes:
    der: bytes = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return der


# ------------------------------------------------------------------ names


def test_the_thumbprint_is_that_of_rfc_7638_section_3_1() -> None:
    jwk = {"kty": "RSA", "n": RFC_7638_MODULUS, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_a_key_is_named_by_its_thumbprint(signing_key: SigningKey) -> None:
    assert signing_key.kid == thumbprint(signing_key.public_jwk)
    assert signing_key.verifying_key().kid == signing_key.kid


def test_the_public_jwk_has_exactly_the_public_members(signing_key: SigningKey) -> None:
    assert signing_key.public_jwk.keys() == {"kid", "kty", "use", "alg", "n", "e"}
    assert signing_key.public_jwk["use"] == "sig"
    assert signing_key.public_jwk["alg"] == "RS256"
    assert json.loads(signing_key.public_jwk_json()) == signing_key.public_jwk


# ------------------------------------------------------------------ keys that verify


def test_a_published_key_verifies_what_the_private_one_signed(signing_key: SigningKey, other_key: SigningKey) -> None:
    key = VerifyingKey.from_jwk(signing_key.public_jwk)
    assert key.is_signature(signing_key.sign(b"data"), b"data")
    assert not key.is_signature(other_key.sign(b"data"), b"data")
    assert not key.is_signature(signing_key.sign(b"data"), b"date")


@each(
    "changes",
    [
        {},
        {"use": None, "alg": None},
        {"key_ops": ["verify"]},
        {"key_ops": ["verify", "sign"]},
        {"x5t": "AAAA", "unknown": {"a": 1}},
        {"kid": "k" * 256},
    ],
)
def test_a_fit_key_is_taken(signing_key: SigningKey, changes: dict[str, Any]) -> None:
    jwk = {name: value for name, value in {**signing_key.public_jwk, **changes}.items() if value is not None}
    assert VerifyingKey.from_jwk(jwk).kid == jwk["kid"]


@each(
    "changes",
    [
        {"kty": "EC"},
        {"kty": "oct"},
        {"kty": None},
        {"kty": "rsa"},
        {"alg": "RS384"},
        {"alg": "PS256"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": None},
        {"use": "enc"},
        {"use": None},
        {"use": ["sig"]},
        {"key_ops": ["encrypt"]},
        {"key_ops": ["sign"]},
        {"key_ops": []},
        {"key_ops": "verify"},
        {"key_ops": None},
        {"kid": ""},
        {"kid": None},
        {"kid": 5},
        {"kid": "k" * 257},
        {"n": ""},
        {"n": None},
        {"n": 65537},
        {"n": "é"},
        {"n": ["AQAB"]},
        {"e": ""},
        {"e": None},
        {"e": 65537},
        {"e": "AQ"},  # 1
        {"e": "Ag"},  # 2
        {"e": "Aw"},  # 3
        {"e": "AQAA"},  # 65536
        *({member: "AQAB"} for member in PRIVATE_MEMBERS),
    ],
)
def test_an_unfit_key_is_refused(signing_key: SigningKey, changes: dict[str, Any]) -> None:
    with pytest.raises(KeyRefused):
        VerifyingKey.from_jwk({**signing_key.public_jwk, **changes})


@each("member", ["kty", "n", "e"])
def test_a_key_without_a_needed_member_is_refused(signing_key: SigningKey, member: str) -> None:
    with pytest.raises(KeyRefused):
        VerifyingKey.from_jwk({name: value for name, value in signing_key.public_jwk.items() if name != member})


@each("bits", [1, 1024, 2047, 8193, 16_384])
def test_a_modulus_that_is_small_or_huge_is_refused(signing_key: SigningKey, bits: int) -> None:
    with pytest.raises(KeyRefused):
        VerifyingKey.from_jwk({**signing_key.public_jwk, "n": number((1 << bits) - 1)})


def test_no_refusal_repeats_the_key(signing_key: SigningKey) -> None:
    secret = "c2VjcmV0LXByaXZhdGUtZXhwb25lbnQ"
    for jwk in ({**signing_key.public_jwk, "d": secret}, {**signing_key.public_jwk, "n": secret}, {"kid": secret}):
        with pytest.raises(KeyRefused) as refusal:
            VerifyingKey.from_jwk(jwk)
        assert secret not in f"{refusal.value} {refusal.value.args} {refusal.value!r}"


# ------------------------------------------------------------------ keys that sign


def test_a_stored_key_comes_back_as_it_was(signing_key: SigningKey) -> None:
    restored = SigningKey.from_der(signing_key.to_der())
    assert restored.kid == signing_key.kid
    assert signing_key.verifying_key().is_signature(restored.sign(b"data"), b"data")


def test_a_generated_key_has_2048_bits_and_the_usual_exponent(signing_key: SigningKey) -> None:
    assert len(base64url.decode(signing_key.public_jwk["n"].encode()) or b"") == 256
    assert signing_key.public_jwk["e"] == "AQAB"


@each("der", [b"", b"garbage", b"\x30\x00", bytes(100)])
def test_what_is_no_key_is_refused(der: bytes) -> None:
    with pytest.raises(KeyRefused):
        SigningKey.from_der(der)


def test_a_key_cut_short_is_refused(signing_key: SigningKey) -> None:
    with pytest.raises(KeyRefused):
        SigningKey.from_der(signing_key.to_der()[:-1])


@each("key", [ec.generate_private_key(ec.SECP384R1()), ed448.Ed448PrivateKey.generate()])
def test_a_private_key_of_another_kind_is_refused(key: Any) -> None:
    with pytest.raises(KeyRefused):
        SigningKey.from_der(der_of(key))


def test_an_encrypted_private_key_is_refused(weak_key: rsa.RSAPrivateKey) -> None:
    der = weak_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(KeyRefused):
        SigningKey.from_der(der)


def test_a_private_key_of_1024_bits_never_signs(weak_key: rsa.RSAPrivateKey) -> None:
    with pytest.raises(KeyRefused):
        SigningKey.from_der(der_of(weak_key))


def test_a_signing_key_does_not_show_its_private_half_when_printed(signing_key: SigningKey) -> None:
    private = SigningKey.from_der(signing_key.to_der())._key
    assert isinstance(private, rsa.RSAPrivateKey)
    numbers = private.private_numbers()
    shown = f"{signing_key!r} {signing_key}"
    assert str(numbers.d)[:20] not in shown
    assert number(numbers.p)[:20] not in shown


# ------------------------------------------------------------------ the ring


def test_the_active_key_signs_and_all_verify(signing_key: SigningKey, other_key: SigningKey) -> None:
    ring = KeyRing([signing_key, other_key], other_key.kid)
    assert ring.active is other_key
    assert ring.verifying.by_kid.keys() == {signing_key.kid, other_key.kid}
    assert ring.verifying.by_kid[signing_key.kid].is_signature(signing_key.sign(b"data"), b"data")


def test_the_jwks_holds_every_public_key_and_nothing_private(signing_key: SigningKey, other_key: SigningKey) -> None:
    jwks = msgspec.json.decode(KeyRing([signing_key, other_key], signing_key.kid).jwks)
    assert jwks == {"keys": [signing_key.public_jwk, other_key.public_jwk]}
    assert all(set(PRIVATE_MEMBERS).isdisjoint(jwk) and jwk["kty"] == "RSA" for jwk in jwks["keys"])


def test_the_etag_is_quoted_and_changes_with_the_keys(signing_key: SigningKey, other_key: SigningKey) -> None:
    one, same, two = (
        KeyRing(keys, signing_key.kid) for keys in ([signing_key], [signing_key], [signing_key, other_key])
    )
    assert one.etag == same.etag != two.etag
    assert one.etag[0] == one.etag[-1] == '"'
    assert '"' not in one.etag[1:-1]


def test_a_ring_without_its_active_key_or_with_one_kid_twice_is_refused(signing_key: SigningKey) -> None:
    with pytest.raises(KeyRefused):
        KeyRing([], signing_key.kid)
    with pytest.raises(KeyRefused):
        KeyRing([signing_key], "another")
    with pytest.raises(KeyRefused):
        KeyRing([signing_key, SigningKey.from_der(signing_key.to_der())], signing_key.kid)
