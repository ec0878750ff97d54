"""JSON Web Keys: from and to ``cryptography`` objects (PyJWT converts), and the rules for a usable key."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from fastauth.jose import base64url
from fastauth.jose.algorithms import Algorithm, PublicKey, algorithm_of
from fastauth.jose.refusals import KeyRefused
from fastauth.jose.roca import is_roca_weak

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192  # a check grows with the square of the size
MAX_RSA_EXPONENT: Final = (1 << 64) - 1  # and with its length
MAX_KID_LENGTH: Final = 256
_MAX_NUMBER_LENGTH: Final = 2048  # base64url characters: no number of a usable key is longer
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# The members that make the key: what is given to the converter, and what RFC 7638 hashes.
_REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "RSA": ("e", "kty", "n"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
}
# The y of every Ed25519 point whose order divides 8, reduced or not, without the last byte: it may have the sign bit.
_SMALL_ORDER: Final = frozenset(
    y.to_bytes(32, "little")[:-1]
    for y in (
        0,
        1,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        2**255 - 20,
        2**255 - 19,
        2**255 - 18,
    )
)
_CURVES: Final = {"EC": "P-256", "OKP": "Ed25519"}


def public_jwk(key: PublicKey, alg: Algorithm) -> dict[str, str]:
    """The public JWK of a signature key (RFC 7518 section 6, RFC 8037 section 2); its ``kid`` is the thumbprint."""
    if isinstance(key, RSAPublicKey):
        members = RSAAlgorithm.to_jwk(key, as_dict=True)
    elif isinstance(key, EllipticCurvePublicKey):
        members = ECAlgorithm.to_jwk(key, as_dict=True)
    else:
        members = OKPAlgorithm.to_jwk(key, as_dict=True)
    required = {name: members[name] for name in _REQUIRED[members["kty"]]}
    return {"kid": thumbprint(required), "use": "sig", "alg": alg, **required}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """RFC 7638 section 3: SHA-256 over the required members in lexicographic order, base64url.

    In: a JWK that ``load_public_jwk`` accepts.
    """
    required = {name: jwk[name] for name in _REQUIRED[jwk["kty"]]}
    return base64url.encode(hashlib.sha256(msgspec.json.encode(required, order="sorted")).digest()).decode()


def load_public_jwk(jwk: Mapping[str, Any]) -> PublicKey:
    """The key of a JWK that is fit to check signatures: RSA, P-256 or Ed25519.

    Raises KeyRefused for any other kind, a private or symmetric member, a use or operation other than verifying, and
    an RSA key that ``check_rsa_key`` refuses. Numbers must be in strict base64url.
    """
    kty = jwk.get("kty")
    if not isinstance(kty, str) or kty not in _REQUIRED:
        raise KeyRefused("the key is not an RSA, EC or OKP key")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise KeyRefused("the key has private members")
    if jwk.get("use", "sig") != "sig":
        raise KeyRefused("the key is not for signatures")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise KeyRefused("the key is not for verifying")
    if kty in _CURVES and jwk.get("crv") != _CURVES[kty]:
        raise KeyRefused("the key is on another curve than P-256 or Ed25519")
    key = _convert(kty, {name: _member(jwk, name) for name in _REQUIRED[kty]})
    if isinstance(key, RSAPublicKey):
        check_rsa_key(key)
    if isinstance(key, Ed25519PublicKey) and key.public_bytes_raw()[:-1] in _SMALL_ORDER:
        raise KeyRefused("the key is a point of small order: anybody can sign for it")
    if algorithm_of(key) is None:
        raise KeyRefused("the key is on another curve than P-256 or Ed25519")
    return key


def _member(jwk: Mapping[str, Any], name: str) -> str:
    value = jwk.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_NUMBER_LENGTH or not value.isascii():
        raise KeyRefused("the key lacks a number that makes it")
    if name in ("kty", "crv"):
        return value
    number = base64url.decode(value.encode())
    # RFC 7518 section 2 (Base64urlUInt): the fewest bytes, or one key would have several thumbprints.
    if number is None or (name in ("n", "e") and number[0] == 0):
        raise KeyRefused("a number of the key is not base64url without leading zeros")
    return value


def _convert(kty: str, members: dict[str, str]) -> PublicKey:
    try:
        if kty == "RSA":
            key: object = RSAAlgorithm.from_jwk(members)
        elif kty == "EC":
            key = ECAlgorithm.from_jwk(members)
        else:
            key = OKPAlgorithm.from_jwk(members)
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):
        raise KeyRefused("the numbers of the key make no key") from None
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey):
        raise KeyRefused("the key is not a public key")
    return key


def check_rsa_key(key: RSAPublicKey) -> None:
    """Raises KeyRefused for an RSA key that is too short (RFC 7518 section 3.3) or too long, has an exponent that is
    even, below 65537 or beyond 64 bits, an even modulus, or was made by the broken generator of CVE-2017-15361.
    """
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise KeyRefused(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    numbers = key.public_numbers()
    if not 65537 <= numbers.e <= MAX_RSA_EXPONENT or numbers.e % 2 == 0:
        raise KeyRefused("the exponent is even, below 65537 or beyond 64 bits")
    if numbers.n % 2 == 0:
        raise KeyRefused("the modulus is even")
    if is_roca_weak(numbers.n):
        raise KeyRefused("the key is of a generator that is broken (ROCA, CVE-2017-15361)")
