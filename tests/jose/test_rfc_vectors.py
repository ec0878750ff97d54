"""``verify_compact`` on the tokens and keys of the RFCs, and on what is nearly one: its own rules, key by key."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from fastauth.jose import KeyRefused, TokenRefused, base64url, verify_compact
from fastauth.jose.jwk import thumbprint
from fastauth.jose.keys import SigningKey
from fastauth.jose.roca import is_roca_weak
from tests.cases import each
from tests.integration.running import FULL
from tests.jose.making import b64, signed_input, token_of

Jwk = dict[str, Any]

VECTORS: Final = Path(__file__).parent.parent / "vectors"
PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi"})
EC_KEY: Final = SigningKey.generate("ES256")
ED_KEY: Final = SigningKey.generate("Ed25519")
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER: Final = (1 << 252) + 27742317777372353535851937790883648493
ED25519_PRIME: Final = (1 << 255) - 19


def cookbook(name: str) -> dict[str, Any]:
    (file,) = (VECTORS / "cookbook").glob(f"{name}*.json")
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def public(jwk: Jwk) -> Jwk:
    return {name: value for name, value in jwk.items() if name not in PRIVATE}


def without(jwk: Jwk, *names: str) -> Jwk:
    return {name: value for name, value in jwk.items() if name not in names}


def code_of(token: str | bytes, keys: Any) -> str | None:
    """Why the token is refused; None if it is not."""
    try:
        verify_compact(token, keys)
    except TokenRefused as refusal:
        return refusal.code
    return None


def key_refusal(keys: Any) -> str:
    """Why the keys are refused."""
    with pytest.raises(KeyRefused) as refusal:
        verify_compact(token_of(ED_KEY, {"alg": "Ed25519"}), keys)
    return str(refusal.value)


# ------------------------------------------------------------------ the tokens of the RFCs


def _cookbook_token(name: str) -> dict[str, Any]:
    vector = cookbook(name)
    return {
        "jwk": public(vector["input"]["key"]),
        "header": vector["signing"]["protected"],
        "payload": vector["input"]["payload"],
        "token": vector["output"]["compact"],
    }


TOKENS: Final = [*json.loads((VECTORS / "rfc_tokens.json").read_text()), _cookbook_token("jws/4_1")]


@each("vector", TOKENS)
def test_the_tokens_of_the_rfcs_verify_as_text_and_as_bytes_with_a_jwk_and_with_a_jwks(vector: dict[str, Any]) -> None:
    token, jwk = vector["token"], vector["jwk"]
    for keys in (jwk, {"keys": [jwk]}, {**jwk, "use": "sig"}, {**jwk, "key_ops": ["verify"]}):
        for form in (token, token.encode()):
            assert verify_compact(form, keys) == (vector["header"], vector["payload"].encode())


@each("vector", TOKENS)
def test_the_tokens_of_the_rfcs_verify_with_no_other_key_and_in_no_other_form(vector: dict[str, Any]) -> None:
    token: str = vector["token"]
    for other in TOKENS:
        if other["jwk"] != vector["jwk"]:
            assert code_of(token, without(other["jwk"], "kid")) in {"algorithm", "signature"}
    header, payload, signature = token.split(".")
    assert code_of(f"{header}.AAAA{payload}.{signature}", vector["jwk"]) == "signature"
    assert code_of(f"{header}..{signature}", vector["jwk"]) == "signature", "content that is detached"
    assert code_of(f"{header}.{payload}.", vector["jwk"]) == "signature"


@each(
    ("name", "refusal"),
    [
        ("jws/4_2", "the algorithm is not the key's"),  # PS384 by an RSA key
        ("jws/4_3", "the key is on another curve than P-256 or Ed25519"),  # ES512
        ("jws/4_4", "the key is not an RSA, EC or OKP key"),  # HS256
        ("jws/4_5", "the key is not an RSA, EC or OKP key"),  # HS256, detached
    ],
)
def test_tokens_of_rfc_7520_by_other_algorithms_are_refused_with_their_own_keys(name: str, refusal: str) -> None:
    vector = cookbook(name)
    jwk = public(vector["input"]["key"])
    with pytest.raises((TokenRefused, KeyRefused), match=refusal):
        verify_compact(vector["output"]["compact"], jwk)


@each("name", ["jws/4_1", "jws/4_2", "jws/4_3", "jws/4_4", "jws/4_5", "jws/4_6", "jws/4_7", "jws/4_8"])
def test_the_json_serializations_of_rfc_7520_are_refused(name: str) -> None:
    output = cookbook(name)["output"]
    jwk = public(cookbook("jws/4_1")["input"]["key"])
    documents = [json.dumps(output[form]) for form in ("json", "json_flat") if form in output]
    assert documents
    for document in documents:
        assert code_of(document, jwk) == "malformed"


def test_one_of_the_signatures_of_rfc_7520_section_4_8_is_a_compact_token_once_it_stands_alone() -> None:
    document = cookbook("jws/4_8")["output"]["json"]
    by_rsa, by_p521, by_hmac = (
        f"{entry.get('protected', '')}.{document['payload']}.{entry['signature']}" for entry in document["signatures"]
    )
    jwk = public(cookbook("jws/4_1")["input"]["key"])
    assert verify_compact(by_rsa, jwk)[0] == {"alg": "RS256"}
    assert code_of(by_p521, jwk) == "malformed", "its header is not protected"
    assert code_of(by_hmac, jwk) == "key"


# ------------------------------------------------------------------ RFC 8037 appendix A


def rfc_8037() -> SigningKey:
    """The key of appendix A.1; the RFC prints the private half."""
    secret = base64url.decode(cookbook("curve25519/jws")["input"]["key"]["d"].encode())
    assert secret is not None
    return SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(secret))


def test_the_key_of_rfc_8037_has_the_jwk_and_the_thumbprint_of_appendices_a_1_to_a_3() -> None:
    jwk = rfc_8037().public_jwk
    assert (jwk["kty"], jwk["crv"], jwk["x"]) == ("OKP", "Ed25519", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert jwk["kid"] == thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_key_of_rfc_8037_signs_what_stands_in_appendix_a_4_and_verifies_it_as_in_a_5() -> None:
    vector = cookbook("curve25519/jws")
    key, signed = rfc_8037(), vector["signing"]["sig-input"].encode()
    assert b64(key.sign(signed)).decode() == vector["signing"]["sig"]
    assert verify_compact(vector["output"]["compact"], key.public_jwk)[1] == vector["input"]["payload"].encode()


@each("name", ["Ed25519", "EdDSA"])
@each("in_the_jwk", ["Ed25519", "EdDSA", None])
def test_ed25519_goes_by_its_new_name_and_by_its_old(name: str, in_the_jwk: str | None) -> None:
    jwk = {**without(ED_KEY.public_jwk, "alg"), **({"alg": in_the_jwk} if in_the_jwk else {})}
    assert code_of(token_of(ED_KEY, {"alg": name}), jwk) is None


@each("name", ["ed25519", "eddsa", "Ed448", "ES256", "RS256", "HS256", "none", ""])
def test_ed25519_goes_by_no_other_name(name: str) -> None:
    assert code_of(token_of(ED_KEY, {"alg": name}), ED_KEY.public_jwk) == "algorithm"


# ------------------------------------------------------------------ which key is meant


def test_a_token_without_kid_is_fine_where_there_is_one_key_and_refused_where_there_are_two() -> None:
    token = token_of(ED_KEY, {"alg": "Ed25519"})
    one, other = ED_KEY.public_jwk, EC_KEY.public_jwk
    for keys in (one, without(one, "kid"), {"keys": [one]}, {"keys": [without(one, "kid")]}):
        assert code_of(token, keys) is None
    assert code_of(token, {"keys": [one, other]}) == "key"
    assert code_of(token, {"keys": [one, without(other, "kid")]}) == "key"
    assert code_of(token, {"keys": [one, {"kty": "oct"}]}) == "key", "nobody knows what the other one would be"
    assert code_of(token, other) == "algorithm"


def test_a_token_that_names_a_key_is_checked_with_that_key_or_with_the_one_that_has_no_name() -> None:
    token = token_of(ED_KEY, {"alg": "Ed25519", "kid": "mine"})
    mine, nameless = {**ED_KEY.public_jwk, "kid": "mine"}, without(ED_KEY.public_jwk, "kid")
    for keys in (mine, nameless, {"keys": [mine]}, {"keys": [nameless]}, {"keys": [EC_KEY.public_jwk, mine]}):
        assert code_of(token, keys) is None
    for keys in (ED_KEY.public_jwk, {"keys": [ED_KEY.public_jwk]}, {"keys": [EC_KEY.public_jwk, nameless]}):
        assert code_of(token, keys) == "key"
    assert code_of(token, {**EC_KEY.public_jwk, "kid": "mine"}) == "algorithm"


def test_a_kid_that_stands_twice_is_refused_even_if_one_of_the_keys_is_of_no_use() -> None:
    for other in (EC_KEY.public_jwk, ED_KEY.public_jwk, {"kty": "oct", "k": "AAAA"}, {}):
        keys = {"keys": [ED_KEY.public_jwk, {**other, "kid": ED_KEY.kid}]}
        assert key_refusal(keys) == "two keys have the same kid"


# ------------------------------------------------------------------ tokens


@each("payload", [b"", b"\0", b"{}", b"not JSON", bytes(range(256)), b'{"a":1,"a":2}', "é".encode("utf-16"), b"." * 99])
@each("key", [EC_KEY, ED_KEY])
def test_a_payload_may_be_anything(key: SigningKey, payload: bytes) -> None:
    assert verify_compact(token_of(key, {"alg": key.alg}, payload), key.public_jwk) == ({"alg": key.alg}, payload)


def test_the_header_comes_back_whole_and_no_typ_is_wanted() -> None:
    header = {"alg": "ES256", "kid": EC_KEY.kid, "cty": "x", "nonce": {"a": [1.5, None, True]}, "é": "😀"}
    for more in ({}, {"typ": "JWT"}, {"typ": "at+jwt"}):
        assert verify_compact(token_of(EC_KEY, {**header, **more}), EC_KEY.public_jwk)[0] == {**header, **more}


def test_an_expired_token_is_none_of_its_business() -> None:
    assert code_of(token_of(ED_KEY, {"alg": "Ed25519"}, {"exp": 0}), ED_KEY.public_jwk) is None


class _Text(str):
    __slots__ = ()


@each(
    "token", [None, 5, True, ["a.b.c"], {"a": 1}, bytearray(b"a.b.c"), memoryview(b"a.b.c"), _Text("a.b.c"), object()]
)
def test_a_token_that_is_neither_text_nor_bytes_is_a_mistake_of_the_caller(token: Any) -> None:
    with pytest.raises(TypeError, match="token must be str or bytes"):
        verify_compact(token, ED_KEY.public_jwk)


@each("token", ["", ".", "..", "é.é.é", "a.b.c", "\0", "\ud800..", b"", b"..", b"\xff.\xff.\xff", "....", "A" * 8_192])
def test_what_is_no_token_is_malformed(token: str | bytes) -> None:
    assert code_of(token, ED_KEY.public_jwk) == "malformed"


def test_what_is_too_large_is_told_before_anything_is_looked_at() -> None:
    for token in ("é" * 8_193, "A" * 1_000_000, b"." * 8_193):
        assert code_of(token, ED_KEY.public_jwk) == "too_large"


# ------------------------------------------------------------------ keys that are refused


def number(value: int) -> str:
    return b64(value.to_bytes(max(1, (value.bit_length() + 7) // 8))).decode()


def rsa_jwk(modulus: int, exponent: int = 65537) -> Jwk:
    return {"kty": "RSA", "n": number(modulus), "e": number(exponent)}


def rsa_modulus(rng: Random) -> int:
    """As an honest generator's: odd, 2048 bits; what it is a product of does not matter here."""
    return rng.getrandbits(2048) | 1 << 2047 | 1


def private_jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> Jwk:
    if isinstance(key, rsa.RSAPrivateKey):
        return RSAAlgorithm.to_jwk(key, as_dict=True)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return ECAlgorithm.to_jwk(key, as_dict=True)
    return OKPAlgorithm.to_jwk(key, as_dict=True)


def ec_jwk(curve: ec.EllipticCurve) -> Jwk:
    return public(private_jwk(ec.generate_private_key(curve)))


def okp_jwk(curve: str, key: x25519.X25519PrivateKey | ed448.Ed448PrivateKey) -> Jwk:
    return {"kty": "OKP", "crv": curve, "x": b64(key.public_key().public_bytes_raw()).decode()}


CURVE: Final = "the key is on another curve than P-256 or Ed25519"
EC_JWK: Final = EC_KEY.public_jwk
ED_JWK: Final = ED_KEY.public_jwk


@each(
    ("jwk", "why"),
    [
        (private_jwk(ec.generate_private_key(ec.SECP256R1())), "the key has private members"),
        (private_jwk(ed25519.Ed25519PrivateKey.generate()), "the key has private members"),
        ({"kty": "oct", "k": "AAAA"}, "the key is not an RSA, EC or OKP key"),
        ({**ED_JWK, "k": "AAAA"}, "the key has private members"),
        ({}, "the key is not an RSA, EC or OKP key"),
        ({**ED_JWK, "kty": "okp"}, "the key is not an RSA, EC or OKP key"),
        ({**ED_JWK, "use": "enc"}, "the key is not for signatures"),
        ({**ED_JWK, "key_ops": ["sign"]}, "the key is not for verifying"),
        ({**ED_JWK, "key_ops": []}, "the key is not for verifying"),
        ({**ED_JWK, "alg": "ES256"}, "the key is for another algorithm"),
        ({**EC_JWK, "alg": "ES384"}, "the key is for another algorithm"),
        ({**EC_JWK, "alg": "ECDH-ES"}, "the key is for another algorithm"),
        ({**EC_JWK, "alg": "RS256"}, "the key is for another algorithm"),
        (ec_jwk(ec.SECP384R1()), CURVE),
        (ec_jwk(ec.SECP521R1()), CURVE),
        (ec_jwk(ec.SECP256K1()), CURVE),
        ({**ec_jwk(ec.SECP384R1()), "crv": "P-256"}, "the numbers of the key make no key"),
        ({**ec_jwk(ec.SECP256K1()), "crv": "P-256"}, "the numbers of the key make no key"),
        (okp_jwk("X25519", x25519.X25519PrivateKey.generate()), CURVE),
        (okp_jwk("Ed448", ed448.Ed448PrivateKey.generate()), CURVE),
        (without(cookbook("curve25519/ecdh-es")["input"]["key"], "d"), "the key is not for signatures"),
        (without(cookbook("curve25519/ecdh-es")["input"]["key"], "d", "use"), CURVE),
        ({**EC_JWK, "x": EC_JWK["y"], "y": EC_JWK["x"]}, "the numbers of the key make no key"),
        ({**EC_JWK, "x": number(0), "y": number(0)}, "the numbers of the key make no key"),
        ({**EC_JWK, "x": b64(bytes(32)).decode(), "y": b64(bytes(32)).decode()}, "the numbers of the key make no key"),
        ({**EC_JWK, "x": EC_JWK["x"] + "AA"}, "a number of the key is not base64url without leading zeros"),
        ({**EC_JWK, "x": EC_JWK["x"] + "="}, "a number of the key is not base64url without leading zeros"),
        ({**ED_JWK, "x": b64(bytes(31)).decode()}, "the numbers of the key make no key"),
        ({**ED_JWK, "x": b64(bytes(33)).decode()}, "the numbers of the key make no key"),
        (rsa_jwk(rsa_modulus(Random(1)) >> 1024), "an RSA key has 2048 to 8192 bits"),
        (rsa_jwk(rsa_modulus(Random(1)), 3), "the exponent is even, below 65537 or beyond 64 bits"),
        (
            {**rsa_jwk(rsa_modulus(Random(1))), "e": "AAEAAQ"},
            "a number of the key is not base64url without leading zeros",
        ),
        (rsa_jwk(2**2047 + 2), "the modulus is even"),
        (rsa_jwk(rsa_modulus(Random(1)), 2**64 + 1), "the exponent is even, below 65537 or beyond 64 bits"),
        (rsa_jwk(rsa_modulus(Random(1)), 17), "the exponent is even, below 65537 or beyond 64 bits"),
        (rsa_jwk(rsa_modulus(Random(1)), 1), "the numbers of the key make no key"),
        (rsa_jwk(rsa_modulus(Random(1)), 65536), "the numbers of the key make no key"),
    ],
)
def test_an_unfit_key_is_refused_and_told_why(jwk: Jwk, why: str) -> None:
    assert key_refusal(jwk) == why
    assert key_refusal({"keys": [jwk]}) in {
        "the JWKS has no key that could verify these tokens",
        "a JWKS of more than 256 keys is not taken",
    }


def test_a_private_rsa_key_and_one_of_1024_bits_are_refused(weak_key: rsa.RSAPrivateKey) -> None:
    jwk = private_jwk(weak_key)
    assert key_refusal(jwk) == "the key has private members"
    assert key_refusal(without(public(jwk), "key_ops")) == "an RSA key has 2048 to 8192 bits"


STRANGE: Final[tuple[Any, ...]] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1.5,
        float("nan"),
        10**400,
        [],
        [1],
        [None],
        ["RSA"],
        {},
        {"a": 1},
        (),
        b"AQAB",
        object(),
    ),
    *(
        "",
        " ",
        "\0",
        "é",
        "\ud800",
        "😀",
        "=",
        "AA==",
        "A",
        "+/+/",
        "A" * 2_049,
        "A" * 1_000_000,
        "é" * 100_000,
        "none",
    ),
)


@each("key", [EC_JWK, ED_JWK, rsa_jwk(rsa_modulus(Random(1)))])
def test_a_member_of_a_strange_type_or_content_makes_a_key_refused_and_nothing_else(key: Jwk) -> None:
    members = ["use", "alg", "key_ops", *(name for name in ("kty", "crv", "n", "e", "x", "y") if name in key)]
    for name in members:
        for value in STRANGE:
            assert key_refusal({**key, name: value}), (name, value)
    for value in STRANGE:
        if not isinstance(value, str | None) or not 1 <= len(value or " ") <= 256:
            assert key_refusal({**key, "kid": value}) == "the key has no usable kid"
    for value in STRANGE:  # what nobody asks for may be anything
        assert code_of(token_of(ED_KEY, {"alg": "none"}), {**key, "x5c": value, "ext": value}) == "algorithm"


@each("keys", [*STRANGE, [ED_JWK], json.dumps(ED_JWK), {ED_KEY.kid: ED_JWK}])
def test_keys_that_are_no_jwk_and_no_jwks_are_refused(keys: Any) -> None:
    assert key_refusal(keys)


@each(
    "entries", [*STRANGE, ED_JWK, (ED_JWK,), [[ED_JWK]], [json.dumps(ED_JWK)], [None, 5], [ED_JWK, ED_JWK], [{}] * 257]
)
def test_a_jwks_without_a_list_of_usable_keys_is_refused(entries: Any) -> None:
    assert key_refusal({"keys": entries})


def test_a_strange_entry_of_a_jwks_does_not_spoil_the_others() -> None:
    token = token_of(ED_KEY, {"alg": "Ed25519", "kid": ED_KEY.kid})
    strange = [{**EC_JWK, "kid": value} for value in STRANGE if not isinstance(value, str)]
    assert code_of(token, {"keys": [*STRANGE, *strange, ED_JWK]}) is None


# ------------------------------------------------------------------ ROCA


def small_primes(count: int) -> list[int]:
    primes: list[int] = []
    candidate = 2
    while len(primes) < count:
        if all(candidate % prime for prime in primes):
            primes.append(candidate)
        candidate += 1
    return primes


def roca_prime(seed: int) -> int:
    """As the broken generator made them: k * M + (65537 ** a mod M)."""
    m = math.prod(small_primes(39))
    rng = Random(seed)
    return rng.randrange(15 * 2**1020 // m, 2**1024 // m) * m + pow(65537, rng.randrange(m), m)


def test_a_key_of_the_broken_generator_is_refused() -> None:
    p, q = roca_prime(3), roca_prime(5)  # the first seeds that give primes
    assert pow(2, p - 1, p) == pow(2, q - 1, q) == 1
    assert (p * q).bit_length() == 2048
    assert "ROCA" in key_refusal(rsa_jwk(p * q))


def test_two_hundred_honest_moduli_are_not_taken_for_broken_ones(signing_key: SigningKey) -> None:
    rng = Random(2017)
    assert not any(is_roca_weak(rsa_modulus(rng)) for _ in range(100_000 if FULL else 200))
    assert code_of(token_of(signing_key, {"alg": "RS256"}), signing_key.public_jwk) is None


# ------------------------------------------------------------------ signatures that are nearly right

Change = Callable[[bytes], bytes]


def with_signature(key: SigningKey, change: Change) -> bytes:
    """A token whose signature was right before it was changed."""
    signed = signed_input({"alg": key.alg}, b"payload")
    return signed + b"." + b64(change(key.sign(signed)))


def _numbers(change: Callable[[int, int], tuple[int, int]]) -> Change:
    def changed(signature: bytes) -> bytes:
        numbers = change(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
        size = max(32, *((number.bit_length() + 7) // 8 for number in numbers))
        return b"".join(number.to_bytes(size) for number in numbers)

    return changed


def _der(signature: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))


@each(
    "change",
    [
        _numbers(lambda r, s: (0, s)),
        _numbers(lambda r, s: (r, 0)),
        _numbers(lambda r, s: (0, 0)),
        _numbers(lambda r, s: (P256_ORDER, s)),
        _numbers(lambda r, s: (r, P256_ORDER)),
        _numbers(lambda r, s: (P256_ORDER, P256_ORDER)),
        _numbers(lambda r, s: (r + P256_ORDER, s)),
        _numbers(lambda r, s: (r, s + P256_ORDER)),
        _numbers(lambda r, s: (P256_ORDER - r, s)),
        _numbers(lambda r, s: (s, r)),
        lambda signature: signature[:63],
        lambda signature: signature[1:],
        lambda signature: signature + b"\0",
        lambda signature: b"\0" + signature,
        lambda signature: b"\0" + signature[:32] + b"\0" + signature[32:],
        lambda signature: b"\xff" * 64,
        lambda signature: b"",
        lambda signature: signature[:32],
        lambda signature: signature * 2,
        _der,
        lambda signature: _der(signature)[:64].ljust(64, b"\0"),
    ],
)
def test_an_ecdsa_signature_in_another_form_or_out_of_range_is_refused(change: Change) -> None:
    assert code_of(with_signature(EC_KEY, change), EC_KEY.public_jwk) == "signature"


def test_either_s_of_an_ecdsa_signature_is_right() -> None:
    """RFC 7518 section 3.4 has no rule of the lower one: a token has two signatures, and none can be made up."""
    for _ in range(4):
        for change in (bytes, _numbers(lambda r, s: (r, P256_ORDER - s))):
            assert code_of(with_signature(EC_KEY, change), EC_KEY.public_jwk) is None


def _plus_order(times: int) -> Change:
    def changed(signature: bytes) -> bytes:
        s = int.from_bytes(signature[32:], "little") + times * ED25519_ORDER
        return signature[:32] + s.to_bytes(32, "little")

    return changed


@each(
    "change",
    [
        *(_plus_order(times) for times in (1, 2, 7, 14)),
        lambda signature: signature[:63],
        lambda signature: signature[1:],
        lambda signature: signature + b"\0",
        lambda signature: bytes(64),
        lambda signature: b"\1" + bytes(63),
        lambda signature: b"\xff" * 64,
        lambda signature: signature[32:] + signature[:32],
        lambda signature: signature[:31] + bytes([signature[31] ^ 0x80]) + signature[32:],
        lambda signature: signature[:63] + bytes([signature[63] | 0x80]),
        lambda signature: b"",
        lambda signature: signature * 2,
    ],
)
def test_an_ed25519_signature_in_another_form_or_out_of_range_is_refused(change: Change) -> None:
    assert code_of(with_signature(ED_KEY, change), ED_KEY.public_jwk) == "signature"


# The points whose order divides 8, as they are encoded, and as a lenient decoder reads them beyond the prime.
_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL_ORDER: Final = [
    (y | sign << 255).to_bytes(32, "little")
    for y in (0, 1, ED25519_PRIME - 1, ED25519_PRIME, ED25519_PRIME + 1, _ORDER_8, ED25519_PRIME - _ORDER_8)
    for sign in (0, 1)
]


@each("point", SMALL_ORDER)
def test_an_ed25519_key_of_small_order_is_refused(point: bytes) -> None:
    """S of zero and an R of small order are a signature under it, of one payload in eight or of any."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(point).decode()}
    signed = signed_input({"alg": "Ed25519"}, {"sub": "admin"})
    for r in SMALL_ORDER:
        with pytest.raises(KeyRefused):
            verify_compact(signed + b"." + b64(r + bytes(32)), jwk)
