"""Minted tokens are RFC 9068 access tokens, and other people's libraries read them."""

import json
from collections.abc import Callable

import jwt
import msgspec
import pytest
from jwt import PyJWK

from fastauth.domain.sessions import Session
from fastauth.jose import base64url
from fastauth.jose.issuer import Issuer, TokenSettings
from fastauth.jose.keys import SigningKey
from tests.cases import each
from tests.jose.making import AUDIENCE, ISSUER, NOW_S, session_of


def counting_bytes() -> Callable[[int], bytes]:
    """Random bytes that a test can foresee: 1, 2, 3 ..."""
    count = 0

    def token_bytes(size: int) -> bytes:
        nonlocal count
        count += 1
        return count.to_bytes(size)

    return token_bytes


def issuer_with(key: SigningKey, settings: TokenSettings | None = None) -> Issuer:
    return Issuer(key, ISSUER, settings or TokenSettings(), counting_bytes())


def token_of(issuer: Issuer, session: Session | None = None, scope: str = "user", now_s: int = NOW_S) -> str:
    return issuer.issue_user_token(session or session_of(), "alice", scope, now_s).text


def parts_of(token: str) -> tuple[dict[str, object], dict[str, object]]:
    header, payload, _ = token.split(".")
    decoded = [json.loads(base64url.decode(part.encode()) or b"") for part in (header, payload)]
    return decoded[0], decoded[1]


def test_a_user_token_has_the_claims_of_rfc_9068_and_nothing_else(signing_key: SigningKey) -> None:
    header, claims = parts_of(token_of(issuer_with(signing_key)))
    assert header == {"alg": "RS256", "typ": "at+jwt", "kid": signing_key.kid}
    assert claims == {
        "iss": ISSUER,
        "sub": "5f9c",
        "aud": ISSUER,
        "exp": NOW_S + 3600,
        "iat": NOW_S,
        "jti": base64url.encode((1).to_bytes(16)).decode(),
        "client_id": "fastauth",
        "scope": "user",
        "sid": "s1",
        "auth_time": NOW_S,
        "preferred_username": "alice",
    }


def test_the_times_are_whole_numbers_as_text(signing_key: SigningKey) -> None:
    _, payload, _ = token_of(issuer_with(signing_key)).split(".")
    text = base64url.decode(payload.encode()) or b""
    assert b'"exp":%d,' % (NOW_S + 3600) in text
    assert b'"iat":%d,' % NOW_S in text


def test_the_settings_decide_audience_and_life(signing_key: SigningKey) -> None:
    issuer = issuer_with(signing_key, TokenSettings(audience=AUDIENCE, access_ttl_s=60))
    _, claims = parts_of(token_of(issuer))
    assert (claims["aud"], claims["exp"]) == (AUDIENCE, NOW_S + 60)
    assert issuer.issue_user_token(session_of(), "alice", "user", NOW_S).ttl_s == 60


def test_a_token_of_a_refreshed_session_says_when_the_person_logged_in(signing_key: SigningKey) -> None:
    refreshed = session_of(tokens_until_s=NOW_S + 5_600)
    _, claims = parts_of(token_of(issuer_with(signing_key), refreshed, "a b", NOW_S + 2_000))
    assert (claims["auth_time"], claims["iat"], claims["scope"]) == (NOW_S, NOW_S + 2_000, "a b")


@each(("tokens_until_s", "ttl_s"), [(NOW_S + 10, 10), (NOW_S + 3_599, 3_599), (NOW_S + 9_999, 3_600), (NOW_S - 5, 1)])
def test_a_token_does_not_outlive_its_session(signing_key: SigningKey, tokens_until_s: int, ttl_s: int) -> None:
    ending = session_of(tokens_until_s=tokens_until_s)
    token = issuer_with(signing_key).issue_user_token(ending, "alice", "user", NOW_S)
    assert token.ttl_s == ttl_s
    assert parts_of(token.text)[1]["exp"] == NOW_S + ttl_s


def test_a_client_token_is_about_the_client_alone(signing_key: SigningKey) -> None:
    token = issuer_with(signing_key).issue_client_token("c1", "a b", NOW_S)
    assert parts_of(token.text)[1] == {
        "iss": ISSUER,
        "sub": "c1",
        "aud": ISSUER,
        "exp": NOW_S + 3600,
        "iat": NOW_S,
        "jti": base64url.encode((1).to_bytes(16)).decode(),
        "client_id": "c1",
        "scope": "a b",
    }
    assert "scope" not in parts_of(issuer_with(signing_key).issue_client_token("c1", None, NOW_S).text)[1]


def test_no_two_tokens_share_an_id(signing_key: SigningKey) -> None:
    issuer = issuer_with(signing_key)
    assert len({parts_of(token_of(issuer))[1]["jti"] for _ in range(3)}) == 3


def test_pyjwt_verifies_the_token_with_the_published_key(signing_key: SigningKey) -> None:
    token = token_of(issuer_with(signing_key))
    claims = jwt.decode(
        token,
        PyJWK(signing_key.public_jwk),
        algorithms=["RS256"],
        audience=ISSUER,
        issuer=ISSUER,
        options={"verify_exp": False, "verify_iat": False, "require": ["exp", "iat", "sub", "jti"]},
    )
    assert claims["preferred_username"] == "alice"


@each("key", ["access_ttl_s", "refresh_idle_s", "refresh_max_s"])
@each("value", [0, -1, 1 << 40, 1.5, "x"])
def test_a_life_out_of_bounds_is_no_setting(key: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({key: value}, TokenSettings)
