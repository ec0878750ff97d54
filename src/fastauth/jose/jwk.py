"""JSON Web Keys: from and to ``cryptography`` objects (PyJWT converts), and the rules for a usable key."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm
from jwt.exceptions import PyJWTError

from fastauth.jose import base64url
from fastauth.jose.refusals import KeyRefused

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192  # a check grows with the square of the size
MAX_KID_LENGTH: Final = 256
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def rsa_public_jwk(key: RSAPublicKey, alg: str) -> dict[str, str]:
    """The public JWK of a signature key (RFC 7518 section 6.3.1), its ``kid`` the RFC 7638 thumbprint."""
    members = RSAAlgorithm.to_jwk(key, as_dict=True)
    jwk = {"kty": "RSA", "use": "sig", "alg": alg, "n": members["n"], "e": members["e"]}
    return {"kid": thumbprint(jwk), **jwk}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """RFC 7638: SHA-256 over the required members in lexicographic order, base64url."""
    required = {"e": jwk["e"], "kty": jwk["kty"], "n": jwk["n"]}
    return base64url.encode(hashlib.sha256(msgspec.json.encode(required, order="sorted")).digest()).decode()


def load_rsa_public_jwk(jwk: Mapping[str, Any]) -> RSAPublicKey:
    """The RSA key of a JWK that is fit to check signatures.

    Raises KeyRefused for another key type, a private or symmetric member, a use or operation other than verifying,
    fewer than 2048 bits (RFC 7518 section 3.3), or an exponent that is even or below 65537.
    """
    if jwk.get("kty") != "RSA":
        raise KeyRefused("the key is not an RSA key")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise KeyRefused("the key has private members")
    if jwk.get("use", "sig") != "sig":
        raise KeyRefused("the key is not for signatures")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise KeyRefused("the key is not for verifying")
    try:
        key = RSAAlgorithm.from_jwk({"kty": "RSA", "n": jwk.get("n"), "e": jwk.get("e")})
    except (PyJWTError, ValueError, TypeError, AttributeError):
        raise KeyRefused("the key has no usable modulus and exponent") from None
    if not isinstance(key, RSAPublicKey):
        raise KeyRefused("the key is not a public key")
    check_rsa_key(key)
    return key


def check_rsa_key(key: RSAPublicKey) -> None:
    """Raises KeyRefused for an RSA key that is too short, too long, or has a weak exponent."""
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise KeyRefused(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    exponent = key.public_numbers().e
    if exponent < 65537 or exponent % 2 == 0:
        raise KeyRefused("the exponent is even or below 65537")
