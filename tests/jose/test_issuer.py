"""Minted tokens are RFC 9068 access tokens, and other people's libraries read them."""

import json
from collections.abc import Callable

import jwt
import msgspec
import pytest
from jwt import PyJWK

from fastauth.domain.users import User
from fastauth.jose import base64url
from fastauth.jose.issuer import Issuer, TokenSettings
from fastauth.jose.keys import SigningKey
from tests.cases import each
from tests.jose.making import AUDIENCE, ISSUER, NOW_S

ALICE = User(sub="5f9c", name="alice", password_hash="-", created_at_s=0, updated_at_s=0)


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


def parts_of(token: str) -> tuple[dict[str, object], dict[str, object]]:
    header, payload, _ = token.split(".")
    decoded = [json.loads(base64url.decode(part.encode()) or b"") for part in (header, payload)]
    return decoded[0], decoded[1]


def test_a_user_token_has_the_claims_of_rfc_9068_and_nothing_else(signing_key: SigningKey) -> None:
    header, claims = parts_of(issuer_with(signing_key).issue_user_token(ALICE, NOW_S).text)
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
        "sid": base64url.encode((2).to_bytes(16)).decode(),
        "auth_time": NOW_S,
        "preferred_username": "alice",
    }


def test_the_times_are_whole_numbers_as_text(signing_key: SigningKey) -> None:
    _, payload, _ = issuer_with(signing_key).issue_user_token(ALICE, NOW_S).text.split(".")
    text = base64url.decode(payload.encode()) or b""
    assert b'"exp":%d,' % (NOW_S + 3600) in text
    assert b'"iat":%d,' % NOW_S in text


def test_the_settings_decide_audience_life_and_scope(signing_key: SigningKey) -> None:
    settings = TokenSettings(audience=AUDIENCE, access_ttl_s=60, user_scope="a b")
    issuer = issuer_with(signing_key, settings)
    _, claims = parts_of(issuer.issue_user_token(ALICE, NOW_S).text)
    assert (claims["aud"], claims["exp"], claims["scope"]) == (AUDIENCE, NOW_S + 60, "a b")
    assert issuer.issue_user_token(ALICE, NOW_S).ttl_s == 60


def test_a_users_own_scope_goes_before_the_default(signing_key: SigningKey) -> None:
    admin = msgspec.structs.replace(ALICE, scope="admin")
    _, claims = parts_of(issuer_with(signing_key).issue_user_token(admin, NOW_S).text)
    assert claims["scope"] == "admin"


def test_no_two_tokens_share_an_id(signing_key: SigningKey) -> None:
    issuer = issuer_with(signing_key)
    claims = [parts_of(issuer.issue_user_token(ALICE, NOW_S).text)[1] for _ in range(3)]
    assert len({claim for one in claims for claim in (one["jti"], one["sid"])}) == 6


def test_pyjwt_verifies_the_token_with_the_published_key(signing_key: SigningKey) -> None:
    token = issuer_with(signing_key).issue_user_token(ALICE, NOW_S).text
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
