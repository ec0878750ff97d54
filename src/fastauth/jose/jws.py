"""The strict compact JWS: size, shape, alphabet and header are judged before any key is touched.

RFC 7515 section 7.1 and RFC 8725: no JSON serialization, no ``crit``, no ``b64``, no key from the token itself.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from fastauth import core
from fastauth.jose import base64url
from fastauth.jose.keys import VerifyingKey
from fastauth.jose.refusals import TokenRefused

MAX_TOKEN_BYTES: Final = 8_192
MAX_HEADER_BYTES: Final = 1_024  # in base64url
_MOST_HEADERS: Final = 256
_HEADER_DEPTH: Final = 4


class JoseHeader(msgspec.Struct):
    """The protected header's members that decide; any other is ignored, and never used as a key."""

    alg: str
    kid: str | None = None
    typ: str | None = None
    crit: object = msgspec.UNSET
    b64: object = msgspec.UNSET


_decode_header = msgspec.json.Decoder(JoseHeader).decode


def decode_json_object(data: bytes, max_depth: int) -> bytes | None:
    """``data`` if it can be decoded without surprises: UTF-8, no duplicate member, bounded depth; else None."""
    if core.scan_json(data, max_depth) != core.JSON_OK or not data.startswith(b"{"):
        return None
    return data


class VerifiedJws(msgspec.Struct, frozen=True):
    """What a valid signature covers."""

    typ: str | None
    payload: bytes


class JwsVerifier:
    """Checks signatures with a fixed set of keys.

    A protected header that has been seen and accepted is found by its bytes; the table is bounded, and a header
    that is refused never enters it.
    """

    def __init__(self, keys: Mapping[str, VerifyingKey]) -> None:
        self._keys = dict(keys)  # other keys need another verifier: the header table belongs to these
        self._headers: dict[bytes, tuple[VerifyingKey, str | None]] = {}

    def verify(self, token: bytes) -> VerifiedJws:
        """The payload of a token with a valid signature.

        Raises TokenRefused: ``too_large``, ``malformed``, ``key``, ``algorithm`` or ``signature``.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenRefused("too_large")
        if token.count(b".") != 2:
            raise TokenRefused("malformed")
        signed, _, signature_text = token.rpartition(b".")
        header_text, _, payload_text = signed.partition(b".")
        known = self._headers.get(header_text)
        key, typ = known or self._judge(header_text)
        signature = base64url.decode(signature_text)
        payload = base64url.decode(payload_text)
        if signature is None or payload is None:
            raise TokenRefused("malformed")
        if not key.is_signature(signature, signed):
            raise TokenRefused("signature")
        if known is None:  # only what its owner signed is remembered: a forger cannot fill the table
            if len(self._headers) >= _MOST_HEADERS:
                self._headers.clear()
            self._headers[header_text] = (key, typ)
        return VerifiedJws(typ, payload)

    def _judge(self, header_text: bytes) -> tuple[VerifyingKey, str | None]:
        header = _parse_header(header_text)
        key = None if header.kid is None else self._keys.get(header.kid)
        if key is None:
            raise TokenRefused("key")
        if header.alg != key.alg:
            raise TokenRefused("algorithm")
        return key, header.typ


def _parse_header(header_text: bytes) -> JoseHeader:
    data = base64url.decode(header_text) if len(header_text) <= MAX_HEADER_BYTES else None
    if data is None or decode_json_object(data, _HEADER_DEPTH) is None:
        raise TokenRefused("malformed")
    try:
        header = _decode_header(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenRefused("malformed") from None
    if header.crit is not msgspec.UNSET or header.b64 is not msgspec.UNSET:
        raise TokenRefused("malformed")
    return header
