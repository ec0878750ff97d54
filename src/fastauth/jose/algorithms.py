"""The signature algorithms: what each signs with and how it is named. One key has exactly one (RFC 8725 section 3.1).

RS256 and ES256 are of RFC 7518 section 3; Ed25519 is the name of RFC 9864 for what RFC 8037 called EdDSA.
"""

from collections.abc import Callable
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

Algorithm = Literal["RS256", "ES256", "Ed25519"]
PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

# Whether a signature (first) is the key's over the signed bytes (second).
SignatureCheck = Callable[[bytes, bytes], bool]

NEW_RSA_BITS: Final = 2048
# The names under which a token may call the algorithm of its key.
NAMES: Final[dict[Algorithm, frozenset[str]]] = {
    "RS256": frozenset({"RS256"}),
    "ES256": frozenset({"ES256"}),
    "Ed25519": frozenset({"Ed25519", "EdDSA"}),
}

# Prepared once: making them anew costs a tenth of a verification.
_PADDING = PKCS1v15()
_SHA256 = hashes.SHA256()
_ECDSA = ECDSA(_SHA256)
_P256_BYTES: Final = 32


def algorithm_of(key: PublicKey | PrivateKey) -> Algorithm | None:
    """The algorithm of a key by its kind, or None for a curve that is not P-256."""
    if isinstance(key, RSAPublicKey | RSAPrivateKey):
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey | EllipticCurvePrivateKey):
        return "ES256" if isinstance(key.curve, SECP256R1) else None
    return "Ed25519"


def generate_private_key(algorithm: Algorithm) -> PrivateKey:
    """A new key; RSA has 2048 bits and takes 50 to 500 ms, with the GIL released."""
    if algorithm == "RS256":
        return generate_rsa_key(public_exponent=65537, key_size=NEW_RSA_BITS)
    if algorithm == "ES256":
        return generate_ec_key(SECP256R1())
    return Ed25519PrivateKey.generate()


def signature_check(key: PublicKey) -> SignatureCheck:
    """How a signature of this key is checked; the key is of one of the three algorithms."""
    if isinstance(key, RSAPublicKey):
        return _rs256_check(key)
    if isinstance(key, EllipticCurvePublicKey):
        return _es256_check(key)
    return _ed25519_check(key)


def _rs256_check(key: RSAPublicKey) -> SignatureCheck:
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 section 3.3)."""
    verify, padding, sha256 = key.verify, _PADDING, _SHA256

    def is_signature(signature: bytes, signed: bytes) -> bool:
        try:
            verify(signature, signed, padding, sha256)
        except InvalidSignature:
            return False
        return True

    return is_signature


def _es256_check(key: EllipticCurvePublicKey) -> SignatureCheck:
    """ECDSA on P-256 with SHA-256; the signature is r and s, 32 bytes each (RFC 7518 section 3.4)."""
    verify = key.verify

    def is_signature(signature: bytes, signed: bytes) -> bool:
        if len(signature) != 2 * _P256_BYTES:
            return False
        r, s = int.from_bytes(signature[:_P256_BYTES]), int.from_bytes(signature[_P256_BYTES:])
        if r == 0 or s == 0:  # OpenSSL refuses them too; CVE-2022-21449 is why nobody should rely on one check
            return False
        try:
            verify(encode_dss_signature(r, s), signed, _ECDSA)
        except InvalidSignature:
            return False
        return True

    return is_signature


def _ed25519_check(key: Ed25519PublicKey) -> SignatureCheck:
    """Ed25519 (RFC 8037 section 3.1)."""
    verify = key.verify

    def is_signature(signature: bytes, signed: bytes) -> bool:
        try:
            verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    return is_signature


def sign(key: PrivateKey, data: bytes) -> bytes:
    """A JWS signature; RSA takes about 1 ms, the others a twentieth, all with the GIL released."""
    if isinstance(key, RSAPrivateKey):
        return key.sign(data, _PADDING, _SHA256)
    if isinstance(key, EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(data, _ECDSA))
        return r.to_bytes(_P256_BYTES) + s.to_bytes(_P256_BYTES)
    return key.sign(data)
