"""Parsed keys, ready to sign and to verify: one key has exactly one algorithm (RFC 8725 section 3.1)."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from fastauth.jose.jwk import MAX_KID_LENGTH, check_rsa_key, load_rsa_public_jwk, rsa_public_jwk
from fastauth.jose.refusals import KeyRefused

RS256: Final = "RS256"
NEW_KEY_BITS: Final = 2048

# Prepared once: making them anew costs a tenth of a verification.
_PADDING = PKCS1v15()
_HASH = hashes.SHA256()


class VerifyingKey:
    """A public key under its ``kid``."""

    __slots__ = ("_verify", "alg", "kid")

    def __init__(self, kid: str, key: rsa.RSAPublicKey) -> None:
        self.kid = kid
        self.alg = RS256
        self._verify = key.verify

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> "VerifyingKey":
        """Raises KeyRefused for a key without ``kid``, of another algorithm, or unfit (``jwk.py``)."""
        kid = jwk.get("kid")
        if not isinstance(kid, str) or not 1 <= len(kid) <= MAX_KID_LENGTH:
            raise KeyRefused("the key has no usable kid")
        if jwk.get("alg", RS256) != RS256:
            raise KeyRefused("the key is for another algorithm")
        return cls(kid, load_rsa_public_jwk(jwk))

    def is_signature(self, signature: bytes, signed: bytes) -> bool:
        """Whether ``signature`` is this key's over ``signed`` (RSASSA-PKCS1-v1_5, SHA-256)."""
        try:
            self._verify(signature, signed, _PADDING, _HASH)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key, its ``kid`` and its public JWK."""

    __slots__ = ("_key", "alg", "kid", "public_jwk")

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        self.alg = RS256
        self.public_jwk = rsa_public_jwk(key.public_key(), self.alg)
        self.kid = self.public_jwk["kid"]

    @classmethod
    def generate(cls) -> "SigningKey":
        """A new RSA key of 2048 bits; takes 50 to 500 ms."""
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=NEW_KEY_BITS))

    @classmethod
    def from_der(cls, der: bytes) -> "SigningKey":
        """A key from PKCS #8 that this class wrote. Raises KeyRefused for anything else."""
        try:
            key = load_der_private_key(der, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise KeyRefused("the stored private key is unreadable") from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise KeyRefused("the stored private key is not an RSA key")
        check_rsa_key(key.public_key())
        return cls(key)

    def to_der(self) -> bytes:
        """The private key as PKCS #8, unencrypted: for ``wrapping.py`` and nobody else."""
        return self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        """The signature; about 1 ms, with the GIL released."""
        return self._key.sign(data, _PADDING, _HASH)

    def public_jwk_json(self) -> str:
        """The public JWK as JSON text, for storage."""
        return msgspec.json.encode(self.public_jwk).decode()

    def verifying_key(self) -> VerifyingKey:
        """The public half."""
        return VerifyingKey(self.kid, self._key.public_key())
