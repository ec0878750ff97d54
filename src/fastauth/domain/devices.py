"""Known devices: proof that somebody has logged in to an account from here before.

OWASP's device cookies (Slow Down Online Guessing Attacks with Device Cookies): who shows such a proof has a guess
budget of its own, so an attack on the account does not keep its owner out. It is no credential: it opens nothing
without the password.
"""

import secrets
import struct
from collections.abc import Callable
from typing import Any, Final

from fastauth.domain.sealed_text import SealedText
from fastauth.domain.users import User

PURPOSE: Final = b"fastauth/v1/known-device"

_NONCE_BYTES: Final = 16
_FIELDS: Final = ">16sQ"  # nonce, expiry in seconds since 1970 UTC


class DeviceTokens:
    """Makes and checks the proofs of one installation.

    In: ``key`` 32 secret bytes for ``PURPOSE``; ``ttl_s`` how long a proof is good, in seconds.
    """

    def __init__(self, key: bytes, ttl_s: int, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self.ttl_s = ttl_s
        self._sealed = SealedText(key, _FIELDS)
        self._random_bytes = random_bytes

    def issue(self, user: User, now_s: int) -> str:
        """A proof for this account as its password is now; it names neither."""
        fields = (self._random_bytes(_NONCE_BYTES), now_s + self.ttl_s)
        return self._sealed.seal(fields, _message(user, fields))

    def check(self, text: bytes, user: User, now_s: int) -> str | None:
        """The proof's nonce, in hexadecimal, when it is genuine, for this account and not expired; else None."""
        fields = self._sealed.open(text, lambda fields: _message(user, fields))
        if fields is None or fields[1] <= now_s:
            return None
        return str(fields[0].hex())


def _message(user: User, fields: tuple[Any, ...]) -> bytes:
    nonce, exp_s = fields
    sub, name = user.sub.encode(), user.name.encode()
    # Lengths first, so that no two accounts make one message.
    bound = struct.pack(">IIQQ", len(sub), len(name), user.credential_generation, exp_s)
    return bytes(bound + nonce + sub + name)
