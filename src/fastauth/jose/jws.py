"""The strict compact JWS: size, shape, alphabet and header are judged before any key is touched.

RFC 7515 section 7.1 and RFC 8725: no JSON serialization, no ``crit``, no ``b64``, no key from the token itself.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fastauth import core
from fastauth.jose import base64url
from fastauth.jose.keys import VerifyingKey
from fastauth.jose.keyset import KeySet
from fastauth.jose.refusals import KeyRefused, TokenRefused

MAX_TOKEN_BYTES: Final = 8_192
MAX_HEADER_BYTES: Final = 1_024  # in base64url
_MOST_HEADERS: Final = 256
_HEADER_DEPTH: Final = 4


class JoseHeader(msgspec.Struct):
    """The protected header's members that decide; any other is ignored, and never used as a key."""

    alg: str
    kid: str | msgspec.UnsetType = msgspec.UNSET
    typ: str | msgspec.UnsetType = msgspec.UNSET
    crit: object = msgspec.UNSET
    b64: object = msgspec.UNSET


_decode_header = msgspec.json.Decoder(JoseHeader).decode
_decode_members = msgspec.json.Decoder(dict[str, Any]).decode
_split = core.split_token


class JwsVerifier:
    """Checks signatures with a fixed set of keys.

    A protected header that has been seen under a valid signature is found by its bytes; the table is bounded, and a
    header that is refused never enters it.
    """

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys  # other keys need another verifier: the header table belongs to these
        self._headers: dict[bytes, tuple[VerifyingKey, str | None]] = {}

    def verify(self, token: bytes) -> tuple[VerifyingKey, str | None, bytes]:
        """The key, the header's ``typ`` and the payload of a token with a valid signature.

        Raises TokenRefused: ``too_large``, ``malformed``, ``key``, ``algorithm`` or ``signature``.
        """
        parts = _split(token, MAX_TOKEN_BYTES)
        if type(parts) is int:
            raise TokenRefused("too_large" if parts == core.TOKEN_TOO_LARGE else "malformed")
        header_text, payload, signature, signed = parts  # type: ignore[misc]
        known = self._headers.get(header_text)
        key, typ = known or self._judge(header_text)
        if not key.is_signature(signature, signed):
            raise TokenRefused("signature")
        if known is None:  # only what its owner signed is remembered: a forger cannot fill the table
            if len(self._headers) >= _MOST_HEADERS:
                self._headers.clear()
            self._headers[header_text] = (key, typ)
        return key, typ, payload

    @staticmethod
    def check_shape(token: bytes) -> None:
        """Raises TokenRefused for what cannot be a token with any key."""
        parts = _split(token, MAX_TOKEN_BYTES)
        if isinstance(parts, int):
            raise TokenRefused("too_large" if parts == core.TOKEN_TOO_LARGE else "malformed")
        _parse_header(parts[0])

    def is_of_unknown_key(self, token: bytes) -> bool:
        """Whether a token that was refused for its key names one, so that a newer set might have it."""
        return _parse_header(token.partition(b".")[0]).kid is not msgspec.UNSET

    def _judge(self, header_text: bytes) -> tuple[VerifyingKey, str | None]:
        header = _parse_header(header_text)
        key = self.keys.find(None if header.kid is msgspec.UNSET else header.kid)
        if key is None:
            raise TokenRefused("key")
        if header.alg not in key.names:
            raise TokenRefused("algorithm")
        return key, None if header.typ is msgspec.UNSET else header.typ


def verify_compact(token: str | bytes, keys: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The header and the payload of a compact JWS, whatever the payload is (RFC 7515 section 5.2).

    In: ``keys`` a public JWK, or a JWKS (a dict with ``keys``). A token that names no key is checked with the only one
    there is. RS256, ES256, Ed25519 (also as ``EdDSA``); no claim is looked at, no ``typ`` wanted.
    Raises TokenRefused, KeyRefused for keys of which none is usable, TypeError for anything but str or bytes.
    """
    data = token_bytes(token)
    if not isinstance(keys, Mapping):
        raise KeyRefused("keys must be a JWK or a JWKS as a dict")
    key_set = KeySet.from_jwks(keys, needs_kid=False) if "keys" in keys else KeySet.from_jwk(keys)
    _, _, payload = JwsVerifier(key_set).verify(data)
    header: dict[str, Any] = _decode_members(base64url.decode(data.partition(b".")[0]) or b"")
    return header, payload


def token_bytes(token: str | bytes) -> bytes:
    """A token as bytes, its size judged before it is copied. Raises TokenRefused or TypeError."""
    if type(token) is not bytes and type(token) is not str:
        raise TypeError("token must be str or bytes")
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenRefused("too_large")
    if isinstance(token, bytes):
        return token
    if not token.isascii():
        raise TokenRefused("malformed")
    return token.encode()


def _parse_header(header_text: bytes) -> JoseHeader:
    data = base64url.decode(header_text) if len(header_text) <= MAX_HEADER_BYTES else None
    if data is None or core.scan_json(data, _HEADER_DEPTH) != core.JSON_OK:
        raise TokenRefused("malformed")
    try:
        _decode_members(data)  # the typed decoder passes over members that it does not know
        header = _decode_header(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenRefused("malformed") from None
    if header.crit is not msgspec.UNSET or header.b64 is not msgspec.UNSET:
        raise TokenRefused("malformed")
    return header
