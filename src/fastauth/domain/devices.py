"""Known devices: proof that somebody has logged in to an account from here before.

OWASP's device cookies (Slow Down Online Guessing Attacks with Device Cookies): who shows such a proof has a guess
budget of its own, so an attack on the account does not keep its owner out. It is no credential: it opens nothing
without the password.
"""

import base64
import binascii
import hmac
import re
import secrets
import struct
from collections.abc import Callable
from typing import Final

from fastauth.domain.users import User

PURPOSE: Final = b"fastauth/v1/known-device"

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 16
_BODY: Final = struct.Struct(">16sQ32s")  # nonce, expiry in seconds since 1970 UTC, MAC
# Version, and the body in base64url: 56 bytes are 75 characters, of which the last carries four bits and two zeros.
_TOKEN: Final = re.compile(r"1\.([A-Za-z0-9_-]{75})")
_TEXT_BYTES: Final = 77


class DeviceTokens:
    """Makes and checks the proofs of one installation.

    In: ``key`` 32 secret bytes for ``PURPOSE``; ``ttl_s`` how long a proof is good, in seconds.
    """

    def __init__(self, key: bytes, ttl_s: int, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError("the key must be 32 bytes")
        self.ttl_s = ttl_s
        self._key = key
        self._random_bytes = random_bytes

    def issue(self, user: User, now_s: int) -> str:
        """A proof for this account as its password is now; it names neither."""
        nonce, exp_s = self._random_bytes(_NONCE_BYTES), now_s + self.ttl_s
        body = _BODY.pack(nonce, exp_s, self._mac(user, nonce, exp_s))
        return "1." + base64.urlsafe_b64encode(body).rstrip(b"=").decode()

    def check(self, text: bytes, user: User, now_s: int) -> str | None:
        """The proof's nonce, in hexadecimal, when it is genuine, for this account and not expired; else None."""
        if len(text) != _TEXT_BYTES or not text.isascii() or not (match := _TOKEN.fullmatch(text.decode())):
            return None
        try:
            body = base64.urlsafe_b64decode(match[1] + "=")
        except binascii.Error:
            return None
        nonce, exp_s, mac = _BODY.unpack(body)
        if not hmac.compare_digest(mac, self._mac(user, nonce, exp_s)) or exp_s <= now_s:
            return None
        if base64.urlsafe_b64encode(body).rstrip(b"=").decode() != match[1]:  # stray bits at the end: one form only
            return None
        return str(nonce.hex())

    def _mac(self, user: User, nonce: bytes, exp_s: int) -> bytes:
        sub, name = user.sub.encode(), user.name.encode()
        # Lengths first, so that no two accounts make one message.
        bound = struct.pack(">IIQQ", len(sub), len(name), user.credential_generation, exp_s) + nonce + sub + name
        return hmac.digest(self._key, bound, "sha256")
