"""The key ring in memory: which key signs, which keys verify, and the JWKS document, all parsed once."""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from fastauth.domain.ports import StoredKey
from fastauth.jose.keys import SigningKey, VerifyingKey
from fastauth.jose.refusals import KeyRefused
from fastauth.jose.wrapping import MasterKey

# How long others may keep the JWKS; a new key must be published for longer before it signs.
JWKS_MAX_AGE_S: Final = 300


class KeyRing:
    """The keys of this issuer. The newest signs; all of them verify."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        """In: the keys, oldest first. Raises KeyRefused for an empty ring or a ``kid`` that stands twice."""
        if not keys:
            raise KeyRefused("the key ring is empty")
        self.active = keys[-1]
        self.verifying: dict[str, VerifyingKey] = {key.kid: key.verifying_key() for key in keys}
        if len(self.verifying) != len(keys):
            raise KeyRefused("two keys have the same kid")
        self.jwks: bytes = msgspec.json.encode({"keys": [key.public_jwk for key in keys]})
        self.etag: str = f'"{hashlib.sha256(self.jwks).hexdigest()[:32]}"'

    @classmethod
    def unwrap(cls, stored: Sequence[StoredKey], master: MasterKey) -> "KeyRing":
        """The ring from its rows. Raises MasterKeyRefused or KeyRefused."""
        keys = []
        for row in stored:
            key = SigningKey.from_der(master.unwrap(row.wrapped_private, row.kid))
            if key.kid != row.kid:
                raise KeyRefused("a stored key does not match its kid")
            keys.append(key)
        return cls(keys)
