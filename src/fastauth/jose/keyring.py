"""The key ring in memory at one moment: which key signs, which keys verify, and the JWKS document, all parsed once."""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from fastauth.domain.ports import StoredKey
from fastauth.jose.keys import SigningKey
from fastauth.jose.keyset import KeySet
from fastauth.jose.refusals import KeyRefused
from fastauth.jose.wrapping import MasterKey


class KeyRing:
    """The keys of this issuer, immutable: a change makes another ring. One signs; all of them verify."""

    def __init__(self, keys: Sequence[SigningKey], active_kid: str) -> None:
        """In: the keys that are published, in the order of the JWKS.

        Raises KeyRefused for a ``kid`` that stands twice or an active key that is not among them.
        """
        by_kid = {key.kid: key for key in keys}
        if len(by_kid) != len(keys):
            raise KeyRefused("two keys have the same kid")
        if active_kid not in by_kid:
            raise KeyRefused("the active key is not in the ring")
        self.active: Final = by_kid[active_kid]
        self.verifying: Final = KeySet({key.kid: key.verifying_key() for key in keys})
        self.jwks: Final[bytes] = msgspec.json.encode({"keys": [key.public_jwk for key in keys]})
        self.etag: Final = f'"{hashlib.sha256(self.jwks).hexdigest()[:32]}"'


def wrap_key(key: SigningKey, master: MasterKey, nonce: bytes, published_ms: int, activates_ms: int) -> StoredKey:
    """A key as it is stored. In: ``nonce`` 12 random bytes, never used twice; times in milliseconds since 1970 UTC."""
    return StoredKey(
        kid=key.kid,
        alg=key.alg,
        public_jwk=key.public_jwk_json(),
        wrapped_private=master.wrap(key.to_der(), key.kid, nonce),
        published_ms=published_ms,
        activates_ms=activates_ms,
    )


def unwrap_key(row: StoredKey, master: MasterKey) -> SigningKey:
    """The key of a row. Nothing of the row but its seal is believed: whoever can write to the database cannot add a
    key. Raises MasterKeyRefused or KeyRefused.
    """
    key = SigningKey.from_der(master.unwrap(row.wrapped_private, row.kid))
    if key.kid != row.kid:
        raise KeyRefused("a stored key does not match its kid")
    return key
