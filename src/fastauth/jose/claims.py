"""The claims of an access token, decoded strictly and judged (RFC 7519 section 4.1, RFC 9068 section 4)."""

from typing import Any, Final

import msgspec

from fastauth import core
from fastauth.jose.refusals import TokenCode, TokenRefused

MAX_LEEWAY_S: Final = 60  # how long a token may outlive its exp, where a verifier wants it
CLOCK_SKEW_S: Final = 60  # how far iat and nbf may lie ahead: clocks differ
ACCESS_TOKEN_TYPE: Final = "at+jwt"  # RFC 9068 section 2.1
_ACCESS_TOKEN_TYPES: Final = frozenset({ACCESS_TOKEN_TYPE, f"application/{ACCESS_TOKEN_TYPE}"})
_PAYLOAD_DEPTH: Final = 16

_decode_members = msgspec.json.Decoder(dict[str, Any]).decode
_read = core.read_claims


class Claims(msgspec.Struct, frozen=True, gc=False):
    """What a valid token says; immutable. Times in whole seconds since 1970 UTC.

    Any further claim is ``claims["name"]``, decoded anew at each call, so that nobody can change it for others.
    """

    iss: str
    sub: str
    aud: tuple[str, ...]
    exp: int
    iat: int | None
    nbf: int | None
    jti: str | None
    sid: str | None
    scope: str | None
    client_id: str | None
    payload: bytes
    """The claims as the JSON text that was signed."""

    __iter__ = None  # a claim is asked for by its name; nothing here is a sequence

    def __getitem__(self, name: str) -> Any:
        """The value of any claim. Raises KeyError."""
        return _decode_members(self.payload)[name]

    def __contains__(self, name: object) -> bool:
        return name in _decode_members(self.payload)


_REFUSALS: Final[dict[int, TokenCode]] = {
    core.TIMES_EXPIRED: "expired",
    core.TIMES_NOT_YET_VALID: "not_yet_valid",
    core.TIMES_ISSUED_IN_FUTURE: "not_yet_valid",
    core.CLAIMS_MALFORMED: "malformed",
    core.CLAIMS_ISSUER: "issuer",
    core.CLAIMS_AUDIENCE: "audience",
}


def check_access_claims(
    typ: str | None, payload: bytes, issuer: str, audience: str, now_s: int, leeway_s: int
) -> Claims:
    """The claims of an access token whose signature was valid.

    In: the header's ``typ``, the payload, the exact ``iss`` and the ``aud`` wanted, the time in seconds since 1970
    UTC, and how long after ``exp`` a token still passes. Raises TokenRefused: ``type``, ``malformed``,
    ``issuer``, ``audience``, ``expired`` or ``not_yet_valid``.
    """
    # A media type has no case (RFC 7515 section 4.1.9).
    if typ != ACCESS_TOKEN_TYPE and (typ is None or typ.lower() not in _ACCESS_TOKEN_TYPES):
        raise TokenRefused("type")
    try:
        read = _read(payload, _decode_members, _PAYLOAD_DEPTH, issuer, audience, now_s, leeway_s, CLOCK_SKEW_S)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenRefused("malformed") from None
    if type(read) is int:
        raise TokenRefused(_REFUSALS[read])
    return Claims(*read)  # type: ignore[misc]
