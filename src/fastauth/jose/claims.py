"""The claims of an access token, decoded strictly and judged (RFC 7519 section 4.1, RFC 9068 section 4)."""

import math
from typing import Any, Final

import msgspec

from fastauth import core
from fastauth.jose.jws import decode_json_object
from fastauth.jose.refusals import TokenCode, TokenRefused

CLOCK_SKEW_S: Final = 60  # how far iat and nbf may lie ahead: clocks differ
MAX_SUBJECT_BYTES: Final = 255
ACCESS_TOKEN_TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
_PAYLOAD_DEPTH: Final = 16
_LATEST_S: Final = 1 << 53

NumericDate = int | float


class _Payload(msgspec.Struct):
    iss: str
    sub: str
    aud: str | list[str]
    exp: NumericDate
    iat: NumericDate | None = None
    nbf: NumericDate | None = None
    jti: str | None = None
    sid: str | None = None
    scope: str | None = None
    client_id: str | None = None


_decode_payload = msgspec.json.Decoder(_Payload).decode
_decode_members = msgspec.json.Decoder(dict[str, Any]).decode


class Claims(msgspec.Struct, frozen=True, kw_only=True):
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

    def __getitem__(self, name: str) -> Any:
        """The value of any claim. Raises KeyError."""
        return _decode_members(self.payload)[name]

    def __contains__(self, name: object) -> bool:
        return name in _decode_members(self.payload)


_TIME_REFUSALS: Final[dict[int, TokenCode]] = {
    core.TIMES_EXPIRED: "expired",
    core.TIMES_NOT_YET_VALID: "not_yet_valid",
    core.TIMES_ISSUED_IN_FUTURE: "not_yet_valid",
}


def check_access_claims(
    typ: str | None, payload: bytes, *, issuer: str, audience: str, now_s: int, leeway_s: int
) -> Claims:
    """The claims of an access token whose signature was valid.

    In: the header's ``typ``, the payload, the exact ``iss`` and the ``aud`` wanted, the time in seconds since 1970
    UTC, and how long after ``exp`` a token still passes. Raises TokenRefused: ``type``, ``malformed``,
    ``issuer``, ``audience``, ``expired`` or ``not_yet_valid``.
    """
    if typ is None or typ.lower() not in ACCESS_TOKEN_TYPES:  # a media type has no case (RFC 7515 section 4.1.9)
        raise TokenRefused("type")
    raw = _decode(payload)
    if raw.iss != issuer:
        raise TokenRefused("issuer")
    audiences = (raw.aud,) if isinstance(raw.aud, str) else tuple(raw.aud)
    if audience not in audiences:
        raise TokenRefused("audience")
    if not _is_subject(raw.sub):
        raise TokenRefused("malformed")
    # A fraction, which only foreign issuers send, is rounded to the stricter side.
    exp_s = _whole(raw.exp, math.floor)
    iat_s = None if raw.iat is None else _whole(raw.iat, math.ceil)
    nbf_s = None if raw.nbf is None else _whole(raw.nbf, math.ceil)
    verdict = core.check_times(now_s, exp_s, nbf_s, iat_s, leeway_s, CLOCK_SKEW_S)
    if verdict != core.TIMES_OK:
        raise TokenRefused(_TIME_REFUSALS[verdict])
    return Claims(
        iss=raw.iss,
        sub=raw.sub,
        aud=audiences,
        exp=exp_s,
        iat=iat_s,
        nbf=nbf_s,
        jti=raw.jti,
        sid=raw.sid,
        scope=raw.scope,
        client_id=raw.client_id,
        payload=payload,
    )


def _decode(payload: bytes) -> _Payload:
    if decode_json_object(payload, _PAYLOAD_DEPTH) is None:
        raise TokenRefused("malformed")
    try:
        _decode_members(payload)  # the typed decoder passes over members that it does not know
        return _decode_payload(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenRefused("malformed") from None


def _is_subject(sub: str) -> bool:
    return len(sub) >= 1 and len(sub.encode()) <= MAX_SUBJECT_BYTES and "\0" not in sub


def _whole(date: NumericDate, rounded: Any) -> int:
    if not 0 <= date <= _LATEST_S:
        raise TokenRefused("malformed")
    whole: int = rounded(date)
    return whole
