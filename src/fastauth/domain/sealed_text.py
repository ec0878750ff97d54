"""Short texts that clients keep for us and bring back: some fields and a MAC over them, in one form and no other."""

import base64
import binascii
import hmac
import re
import struct
from collections.abc import Callable
from typing import Any, Final

KEY_BYTES: Final = 32
_MAC_BYTES: Final = 32
_VERSION: Final = "1."


class SealedText:
    """``1.`` and base64url of the fields and an HMAC-SHA256.

    In: ``key`` 32 secret bytes for one purpose; ``fields`` how they are packed. Raises ValueError for another key.
    """

    def __init__(self, key: bytes, fields: str) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError("the key must be 32 bytes")
        self._key = key
        self._fields = struct.Struct(fields)
        letters = -(-(self._fields.size + _MAC_BYTES) * 4 // 3)
        self._form = re.compile(rf"1\.([A-Za-z0-9_-]{{{letters}}})")
        self._padding = "=" * (-letters % 4)
        self._length = len(_VERSION) + letters

    def seal(self, fields: tuple[Any, ...], message: bytes) -> str:
        """In: what the MAC is over, the fields included."""
        body = self._fields.pack(*fields) + hmac.digest(self._key, message, "sha256")
        return _VERSION + base64.urlsafe_b64encode(body).rstrip(b"=").decode()

    def open(self, text: bytes, message_of: Callable[[tuple[Any, ...]], bytes]) -> tuple[Any, ...] | None:
        """The fields when the text is genuine, else None. In: what ``message`` was for these fields."""
        body = self._body(text)
        if body is None:
            return None
        fields = self._fields.unpack_from(body)
        if not hmac.compare_digest(body[self._fields.size :], hmac.digest(self._key, message_of(fields), "sha256")):
            return None
        return fields

    def read(self, text: bytes) -> tuple[Any, ...] | None:
        """The fields, whoever wrote them; None for another form."""
        body = self._body(text)
        return None if body is None else self._fields.unpack_from(body)

    def _body(self, text: bytes) -> bytes | None:
        if len(text) != self._length or not text.isascii() or not (match := self._form.fullmatch(text.decode())):
            return None
        try:
            body = base64.urlsafe_b64decode(match[1] + self._padding)
        except binascii.Error:
            return None
        if base64.urlsafe_b64encode(body).rstrip(b"=").decode() != match[1]:  # stray bits at the end: one form only
            return None
        return body
