"""``/verify``: one answer for good tokens, one and the same for all others."""

import json

import pytest

from fastauth.endpoints.errors import TokenMissing
from fastauth.endpoints.http import Response
from fastauth.endpoints.verify import VerifyEndpoint
from fastauth.jose.keys import SigningKey
from fastauth.verifier import Verifier
from tests.cases import each
from tests.endpoints.asking import ReadyRequest, header_of
from tests.jose.making import AUDIENCE, ISSUER, NOW_S, claims_with, token_of
from tests.jose.making import header_of as jose_header_of


@pytest.fixture
def endpoint(signing_key: SigningKey) -> VerifyEndpoint:
    return VerifyEndpoint(Verifier({"keys": [signing_key.public_jwk]}, ISSUER, AUDIENCE, clock=lambda: NOW_S), None)


def ask(endpoint: VerifyEndpoint, authorization: bytes) -> Response:
    response = endpoint(ReadyRequest(headers={b"authorization": authorization}))
    assert isinstance(response, Response)
    return response


def test_a_good_token_gives_its_claims_and_the_headers_for_a_proxy(
    endpoint: VerifyEndpoint, signing_key: SigningKey
) -> None:
    response = ask(endpoint, b"Bearer " + token_of(signing_key))
    assert response.status == 200
    assert json.loads(response.body) == claims_with()
    assert header_of(response, "content-type") == "application/json"
    assert header_of(response, "cache-control") == "no-store"
    assert header_of(response, "x-auth-subject") == "5f9c"
    assert header_of(response, "x-auth-scope") == "user"


def test_a_token_without_scope_has_an_empty_scope_header(endpoint: VerifyEndpoint, signing_key: SigningKey) -> None:
    response = ask(endpoint, b"Bearer " + token_of(signing_key, payload=claims_with(scope=None)))
    assert header_of(response, "x-auth-scope") == ""


@each("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_the_scheme_has_no_case(endpoint: VerifyEndpoint, signing_key: SigningKey, scheme: bytes) -> None:
    assert ask(endpoint, scheme + b" " + token_of(signing_key)).status == 200


@each("authorization", [b"", b"Basic YTpi", b"Token x", b"x", b"Bearerx y", b"DPoP x"])
def test_without_a_bearer_token_the_challenge_names_no_error(endpoint: VerifyEndpoint, authorization: bytes) -> None:
    with pytest.raises(TokenMissing):
        ask(endpoint, authorization)


def test_a_verification_never_makes_the_id_of_its_request(endpoint: VerifyEndpoint, signing_key: SigningKey) -> None:
    for token in (token_of(signing_key), b"no token"):
        request = ReadyRequest(headers={b"authorization": b"Bearer " + token, b"traceparent": b"00-1-2-01"})
        endpoint(request)
        assert not hasattr(request, "_trace")


def test_a_request_without_the_header_has_no_token(endpoint: VerifyEndpoint) -> None:
    with pytest.raises(TokenMissing):
        endpoint(ReadyRequest())


def test_every_refused_token_gets_one_and_the_same_answer(
    endpoint: VerifyEndpoint, signing_key: SigningKey, other_key: SigningKey
) -> None:
    refused = {
        "expired": token_of(signing_key, payload=claims_with(exp=NOW_S)),
        "bad signature": token_of(other_key, jose_header_of(signing_key)),
        "unknown kid": token_of(other_key),
        "alg none": token_of(signing_key, jose_header_of(signing_key, alg="none")).rpartition(b".")[0] + b".",
        "another issuer": token_of(signing_key, payload=claims_with(iss="https://evil.example")),
        "another audience": token_of(signing_key, payload=claims_with(aud="https://other.example")),
        "another type": token_of(signing_key, jose_header_of(signing_key, typ="JWT")),
        "not yet valid": token_of(signing_key, payload=claims_with(nbf=NOW_S + 61)),
        "malformed": b"x",
        "too large": b"x" * 100_000,
        "empty": b"",
        "two": token_of(signing_key) + b" " + token_of(signing_key),
        "bytes": b"\xff\x00",
    }
    answers = {name: ask(endpoint, b"Bearer " + token) for name, token in refused.items()}
    assert {answer.status for answer in answers.values()} == {401}
    assert len({(answer.headers, answer.body) for answer in answers.values()}) == 1
    challenge = header_of(answers["expired"], "www-authenticate")
    assert challenge is not None
    assert challenge.startswith("Bearer ")
    assert 'error="invalid_token"' in challenge


@each(
    ("subject", "header"),
    [
        ("a\r\nX-Auth-Subject: admin", "a%0D%0AX-Auth-Subject: admin"),
        ("é", "%C3%A9"),
        ("%C3%A9", "%25C3%25A9"),
        ("\u2028", "%E2%80%A8"),
        (" admin", "%20admin"),
        ("admin ", "admin%20"),
    ],
)
def test_a_subject_never_breaks_its_header_and_never_looks_like_another(
    endpoint: VerifyEndpoint, signing_key: SigningKey, subject: str, header: str
) -> None:
    response = ask(endpoint, b"Bearer " + token_of(signing_key, payload=claims_with(sub=subject)))
    assert response.status == 200
    assert header_of(response, "x-auth-subject") == header
    assert json.loads(response.body)["sub"] == subject
