"""JSON Object Signing: keys, key ring, tokens. CPU only; no I/O, no clock, no randomness of its own."""

from fastauth.jose.jws import verify_compact
from fastauth.jose.refusals import KeyRefused, TokenRefused

__all__ = ["KeyRefused", "TokenRefused", "verify_compact"]
