"""base64url as RFC 7515 section 2 and RFC 4648 section 3.5 have it, and nothing looser."""

import base64
from typing import Final

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def encode(data: bytes) -> bytes:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decode(text: bytes) -> bytes | None:
    """The bytes, or None for padding, a foreign character, an impossible length or spare bits that are not zero.

    Anything looser would give one token several spellings, and a revocation or a cache keyed on its text could
    be stepped around.
    """
    if text.translate(None, _ALPHABET) or len(text) % 4 == 1:
        return None
    data = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if len(text) % 4 and encode(data)[-1] != text[-1]:
        return None
    return data
