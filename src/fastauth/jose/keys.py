"""Parsed keys, ready to sign and to verify: one key has exactly one algorithm (RFC 8725 section 3.1)."""

from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from fastauth.jose.algorithms import (
    NAMES,
    Algorithm,
    PrivateKey,
    PublicKey,
    SignatureCheck,
    algorithm_of,
    generate_private_key,
    sign,
    signature_check,
)
from fastauth.jose.jwk import MAX_KID_LENGTH, check_rsa_key, load_public_jwk, public_jwk, thumbprint
from fastauth.jose.refusals import KeyRefused


class VerifyingKey:
    """A public key: its ``kid`` (None when it has no name), its algorithm, the names a token may call that by.

    ``is_signature(signature, signed)`` says whether a signature is this key's over the signed bytes.
    """

    __slots__ = ("alg", "is_signature", "kid", "names", "thumbprint")

    def __init__(self, kid: str | None, key: PublicKey, alg: Algorithm, thumbprint: str) -> None:
        self.kid = kid
        self.alg = alg
        self.names = NAMES[alg]
        self.thumbprint = thumbprint
        self.is_signature: SignatureCheck = signature_check(key)

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> "VerifyingKey":
        """Raises KeyRefused for a key whose ``kid`` or ``alg`` is not its own, or which is unfit (``jwk.py``)."""
        kid = jwk.get("kid")
        if "kid" in jwk and (not isinstance(kid, str) or not 1 <= len(kid) <= MAX_KID_LENGTH):
            raise KeyRefused("the key has no usable kid")
        key = load_public_jwk(jwk)
        alg = algorithm_of(key)
        named = jwk.get("alg", alg)
        if alg is None or not isinstance(named, str) or named not in NAMES[alg]:
            raise KeyRefused("the key is for another algorithm")
        return cls(kid, key, alg, thumbprint(jwk))


class SigningKey:
    """A private key, its ``kid`` and its public JWK."""

    __slots__ = ("_key", "alg", "kid", "public_jwk")

    def __init__(self, key: PrivateKey) -> None:
        """Raises KeyRefused for a curve other than P-256."""
        alg = algorithm_of(key)
        if alg is None:
            raise KeyRefused("the private key is on another curve than P-256 or Ed25519")
        self._key = key
        self.alg: Algorithm = alg
        self.public_jwk = public_jwk(key.public_key(), alg)
        self.kid = self.public_jwk["kid"]

    @classmethod
    def generate(cls, alg: Algorithm = "RS256") -> "SigningKey":
        """A new key; RSA has 2048 bits and takes 50 to 500 ms."""
        return cls(generate_private_key(alg))

    @classmethod
    def from_der(cls, der: bytes) -> "SigningKey":
        """A key from PKCS #8 that this class wrote and the master key sealed. Raises KeyRefused for anything else."""
        try:
            # The seal says that the numbers are ours; proving it anew takes 35 ms a key.
            key = load_der_private_key(der, password=None, unsafe_skip_rsa_key_validation=True)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise KeyRefused("the stored private key is unreadable") from None
        if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey):
            raise KeyRefused("the stored private key is of another kind than RSA, EC or Ed25519")
        public = key.public_key()
        if isinstance(public, RSAPublicKey):
            check_rsa_key(public)
        return cls(key)

    def to_der(self) -> bytes:
        """The private key as PKCS #8, unencrypted: for ``wrapping.py`` and nobody else."""
        return self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        """The JWS signature; about 1 ms with RSA, a twentieth with the others, the GIL released."""
        return sign(self._key, data)

    def public_jwk_json(self) -> str:
        """The public JWK as JSON text, for storage."""
        return msgspec.json.encode(self.public_jwk).decode()

    def verifying_key(self) -> VerifyingKey:
        """The public half."""
        return VerifyingKey(self.kid, self._key.public_key(), self.alg, self.kid)
