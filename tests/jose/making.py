"""Tokens made by hand, right ones and wrong ones, without the code under test."""

import base64
import json
from typing import Any, Final

import msgspec

from fastauth.domain.sessions import Session
from fastauth.jose.keys import SigningKey

ISSUER: Final = "https://auth.example"
AUDIENCE: Final = "https://api.example"
NOW_S: Final = 1_800_000_000


def b64(data: bytes) -> bytes:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def as_bytes(value: Any) -> bytes:
    """Bytes as they are, anything else as JSON."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def header_of(key: SigningKey, **changes: Any) -> dict[str, Any]:
    """The header of a good access token; a change to None removes the member."""
    members = {"alg": "RS256", "typ": "at+jwt", "kid": key.kid, **changes}
    return {name: value for name, value in members.items() if value is not None}


def claims_with(**changes: Any) -> dict[str, Any]:
    """The claims of a good access token; a change to None removes the claim."""
    claims = {
        "iss": ISSUER,
        "sub": "5f9c",
        "aud": AUDIENCE,
        "exp": NOW_S + 600,
        "iat": NOW_S,
        "jti": "j1",
        "client_id": "fastauth",
        "scope": "user",
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def signed_input(header: Any, payload: Any) -> bytes:
    """The two parts that a signature covers."""
    return b64(as_bytes(header)) + b"." + b64(as_bytes(payload))


def token_of(key: SigningKey, header: Any = None, payload: Any = None) -> bytes:
    """A compact JWS by ``key`` over any header and payload."""
    signed = signed_input(header_of(key) if header is None else header, claims_with() if payload is None else payload)
    return signed + b"." + b64(key.sign(signed))


def raw_claims(claim: str, **without: None) -> bytes:
    """Good claims as JSON text, with the text of one more member in front; pass ``name=None`` to leave one out."""
    return b"{" + claim.encode() + b"," + json.dumps(claims_with(**without)).encode()[1:]


def session_of(**changes: Any) -> Session:
    """A session that began just now."""
    session = Session(
        sid="s1",
        sub="5f9c",
        client_id="fastauth",
        scope="user",
        auth_time_s=NOW_S,
        expires_at_s=NOW_S + 90 * 86_400,
        ends_at_s=NOW_S + 14 * 86_400,
        tokens_until_s=NOW_S + 3_600,
        token_hash=bytes(32),
    )
    return msgspec.structs.replace(session, **changes)
