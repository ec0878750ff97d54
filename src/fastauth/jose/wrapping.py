"""The master key: it wraps the private keys at rest, and every other server secret is derived from it.

AES-256-GCM under HKDF-SHA256 (RFC 5869) with a named purpose; the ``kid`` is bound as associated data, so that
a wrapped key cannot be moved to another row.
"""

import base64
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fastauth.domain.errors import MasterKeyRefused

MASTER_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_WRAP_PURPOSE: Final = b"fastauth/v1/wrap-private-key"


class MasterKey:
    """32 secret bytes; never printed."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != MASTER_KEY_BYTES:
            raise MasterKeyRefused(f"the master key must be {MASTER_KEY_BYTES} bytes in base64")
        self._secret = secret

    @classmethod
    def from_text(cls, text: str) -> "MasterKey":
        """From base64 or base64url, as in ``master.key``. Raises MasterKeyRefused."""
        plain = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return cls(base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True))
        except ValueError:  # binascii.Error is one, and so is the complaint about a character beyond ASCII
            raise MasterKeyRefused(f"the master key must be {MASTER_KEY_BYTES} bytes in base64") from None

    def to_text(self) -> str:
        """base64url, for ``master.key``."""
        return base64.urlsafe_b64encode(self._secret).decode()

    def derive(self, purpose: bytes) -> bytes:
        """32 bytes for one named purpose."""
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(self._secret)

    def wrap(self, private: bytes, kid: str, nonce: bytes) -> bytes:
        """Encrypt a private key for storage. In: ``nonce`` 12 random bytes, never used twice."""
        if len(nonce) != _NONCE_BYTES:
            raise ValueError("the nonce must be 12 bytes")
        return nonce + AESGCM(self.derive(_WRAP_PURPOSE)).encrypt(nonce, private, kid.encode())

    def unwrap(self, wrapped: bytes, kid: str) -> bytes:
        """Raises MasterKeyRefused when this is not the key that wrapped it, or the row was altered."""
        nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        try:
            return AESGCM(self.derive(_WRAP_PURPOSE)).decrypt(nonce, sealed, kid.encode())
        except (InvalidTag, ValueError):
            raise MasterKeyRefused(
                "the master key is not the one that wrapped the signing keys in the database; restore master.key "
                "(or FASTAUTH_MASTER_KEY) from the same installation"
            ) from None
