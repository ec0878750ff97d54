"""The main job, end to end over HTTP."""

import time

import jwt
import pytest

from tests.integration.conftest import ALICE_PASSWORD
from tests.integration.running import RunningServer


def test_a_login_answers_with_a_bearer_token_for_one_hour(server: RunningServer) -> None:
    answer = server.login("alice", ALICE_PASSWORD)
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["expires_in"] == 3600


def test_the_token_has_the_claims_of_the_contract(server: RunningServer) -> None:
    token = server.login("alice", ALICE_PASSWORD).json["token"]
    header = jwt.get_unverified_header(token)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert header["typ"] == "at+jwt"
    assert header["alg"] == "RS256"
    assert claims["iss"] == claims["aud"] == server.url
    assert claims["exp"] - claims["iat"] == 3600
    assert abs(claims["iat"] - time.time()) < 60
    assert claims["client_id"] == "fastauth"
    assert claims["scope"] == "user"
    assert claims["preferred_username"] == "alice"
    assert claims["auth_time"] == claims["iat"]
    assert claims["sub"] != "alice"
    assert claims["sid"]
    assert claims["jti"]
    assert set(claims) == {
        *("iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope"),
        *("sid", "auth_time", "preferred_username"),
    }


def test_two_logins_share_the_subject_and_nothing_else(server: RunningServer) -> None:
    first, second = (
        jwt.decode(server.login("alice", ALICE_PASSWORD).json["token"], options={"verify_signature": False})
        for _ in range(2)
    )
    assert first["sub"] == second["sub"]
    assert first["jti"] != second["jti"]
    assert first["sid"] != second["sid"]


def test_verify_answers_with_the_claims_and_the_headers_for_a_proxy(server: RunningServer, token: str) -> None:
    answer = server.verify(token)
    assert answer.status == 200
    assert answer.json == jwt.decode(token, options={"verify_signature": False})
    assert answer.headers["x-auth-subject"] == answer.json["sub"]
    assert answer.headers["x-auth-scope"] == "user"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"])
@pytest.mark.parametrize("path", ["/verify", "/verify/", "/verify/any/where"])
def test_verify_takes_any_method_and_any_path_below(server: RunningServer, token: str, method: str, path: str) -> None:
    assert server.request(method, path, headers={"Authorization": f"bearer {token}"}).status == 200


def test_another_program_verifies_the_token_with_pyjwt_and_the_jwks_url(server: RunningServer, token: str) -> None:
    key = jwt.PyJWKClient(f"{server.url}/.well-known/jwks.json").get_signing_key_from_jwt(token)
    claims = jwt.decode(token, key, algorithms=["RS256"], audience=server.url, issuer=server.url)
    assert claims["preferred_username"] == "alice"


def test_the_jwks_is_cacheable_and_has_public_members_only(server: RunningServer) -> None:
    answer = server.request("GET", "/.well-known/jwks.json")
    assert answer.headers["content-type"] == "application/jwk-set+json"
    assert "max-age=" in answer.headers["cache-control"]
    (key,) = answer.json["keys"]
    assert set(key) == {"kid", "kty", "use", "alg", "n", "e"}
    again = server.request("GET", "/.well-known/jwks.json", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(("path", "status"), [("/livez", "alive"), ("/readyz", "ready")])
def test_the_health_routes_say_yes(server: RunningServer, path: str, status: str) -> None:
    answer = server.request("GET", path)
    assert (answer.status, answer.json) == (200, {"status": status})


def test_a_head_request_gets_the_headers_of_a_get(server: RunningServer) -> None:
    answer = server.request("HEAD", "/.well-known/jwks.json")
    assert answer.status == 200
    assert answer.body == b""
    assert int(answer.headers["content-length"]) > 0
