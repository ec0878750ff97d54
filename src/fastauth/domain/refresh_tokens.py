"""Refresh tokens: opaque, 256 random bits, and only their hashes are stored.

A token is a handle and a secret. The handle stays the same for all tokens of a session and is known to their holders
alone; the session's public id (``sid``) is a hash of it. So whoever brings a handle has, or had, a token of that
session, and an old token is known for what it is although nothing is kept of it.
"""

import base64
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

PREFIX: Final = "fa_rt_"
"""So that scanners for leaked secrets, and people, see what it is."""

_HANDLE_BYTES: Final = 16
_SECRET_BYTES: Final = 32
_SID_BYTES: Final = 16
_SID_LENGTH: Final = 22  # without the padding
_NONCE_BYTES: Final = 12
# 48 bytes are 64 characters of base64url to the last bit: one form only.
_TOKEN: Final = re.compile(PREFIX + r"([A-Za-z0-9_-]{64})")

RandomBytes = Callable[[int], bytes]


class RefreshToken(msgspec.Struct, frozen=True):
    """A refresh token taken apart."""

    handle: bytes
    secret: bytes

    def __repr__(self) -> str:  # the token never reaches a log or a traceback
        return "RefreshToken(...)"

    @classmethod
    def parse(cls, text: str) -> "RefreshToken | None":
        """From what a client sent; None for what no such token looks like."""
        match = _TOKEN.fullmatch(text)
        if match is None:
            return None
        data = base64.urlsafe_b64decode(match[1])
        return cls(data[:_HANDLE_BYTES], data[_HANDLE_BYTES:])

    @classmethod
    def new(cls, random_bytes: RandomBytes) -> "RefreshToken":
        """The first token of a session."""
        return cls(random_bytes(_HANDLE_BYTES), random_bytes(_SECRET_BYTES))

    def successor(self, random_bytes: RandomBytes) -> "RefreshToken":
        """Another token of the same session."""
        return RefreshToken(self.handle, random_bytes(_SECRET_BYTES))

    @property
    def text(self) -> str:
        """As clients have it."""
        return PREFIX + base64.urlsafe_b64encode(self.handle + self.secret).decode()

    @property
    def sid(self) -> str:
        """The public id of its session."""
        digest = sha256(b"fastauth/v1/sid" + self.handle).digest()
        return base64.urlsafe_b64encode(digest[:_SID_BYTES])[:_SID_LENGTH].decode()

    @property
    def hash(self) -> bytes:
        """What is stored of it. The token is random, so a plain hash has nothing to be guessed from."""
        return sha256(b"fastauth/v1/refresh-token" + self.handle + self.secret).digest()

    def seal(self, successor: "RefreshToken", random_bytes: RandomBytes) -> bytes:
        """``successor``, readable for nobody but the holder of this token: no key is shared or stored."""
        nonce = random_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self._sealing_key()).encrypt(nonce, successor.secret, self.handle)

    def unseal(self, sealed: bytes) -> "RefreshToken | None":
        """The successor; None when it was sealed under another token."""
        nonce, box = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return RefreshToken(self.handle, AESGCM(self._sealing_key()).decrypt(nonce, box, self.handle))
        except (InvalidTag, ValueError):
            return None

    def _sealing_key(self) -> bytes:
        # Uniformly random, so there is nothing to extract first (RFC 5869 section 3.3).
        return HKDFExpand(algorithm=SHA256(), length=32, info=b"fastauth/v1/refresh-successor").derive(self.secret)
