"""base64url as RFC 7515 section 2 and RFC 4648 section 3.5 have it, and nothing looser."""

import base64

from fastauth import core

decode = core.decode_base64url


def encode(data: bytes) -> bytes:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")
