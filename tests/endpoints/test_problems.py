"""Every error of this program has one answer over HTTP, or is known never to meet a request."""

import json
import pkgutil
from collections.abc import Iterator
from importlib import import_module

import fastauth
from fastauth.domain.errors import (
    Conflict,
    FastauthError,
    InvalidCredentials,
    InvalidGrant,
    IssueFailed,
    Overloaded,
    Unavailable,
)
from fastauth.endpoints.errors import BodyTooLarge, MalformedBody, MethodNotAllowed, TokenMissing
from fastauth.endpoints.problems import INVALID_TOKEN, NEVER_OVER_HTTP, PROBLEMS, oauth_response, problem_response
from fastauth.jose.refusals import TokenRefused
from tests.cases import each
from tests.endpoints.asking import header_of

# Scripts: importing them would run them.
NOT_AT_OAUTH_ENDPOINTS = {
    "bearer_twice",
    "forbidden",
    "invalid_credentials",
    "no_session",
    "path_not_found",
    "token_missing",
    "token_refused",
}
MET_AT_OAUTH_ENDPOINTS = PROBLEMS.keys() - NOT_AT_OAUTH_ENDPOINTS
# RFC 6749 section 5.2: %x20-21 / %x23-5B / %x5D-7E
DESCRIPTION = {chr(code) for code in range(0x20, 0x7F)} - {'"', "\\"}
SCRIPTS = {"fastauth.__main__", "fastauth.backends.migrations.env", "fastauth.backends.migrations.upgrade"}


def all_errors() -> set[type[FastauthError]]:
    """Every error class of every module."""
    for module in pkgutil.walk_packages(fastauth.__path__, "fastauth."):
        if module.name not in SCRIPTS:
            import_module(module.name)

    def below(kind: type[FastauthError]) -> Iterator[type[FastauthError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    return {kind for kind in below(FastauthError) if kind.__module__.startswith("fastauth.")}


def test_every_code_has_an_answer_or_never_meets_a_request() -> None:
    codes = {kind.code for kind in all_errors()}
    assert codes - PROBLEMS.keys() - NEVER_OVER_HTTP == set()


def test_the_table_has_no_code_that_nobody_raises_and_none_on_both_sides() -> None:
    codes = {kind.code for kind in all_errors()} | {FastauthError.code}
    assert PROBLEMS.keys() - codes == set()
    assert NEVER_OVER_HTTP - codes == set()
    assert PROBLEMS.keys() & NEVER_OVER_HTTP == set()


def test_no_two_errors_share_a_code() -> None:
    codes = [kind.code for kind in all_errors()]
    assert len(codes) == len(set(codes))
    assert "internal_error" not in codes


def test_only_texts_that_are_meant_for_the_sender_reach_the_sender() -> None:
    passed_on = {code for code, problem in PROBLEMS.items() if problem.detail is None}
    assert passed_on == {
        "bad_request",
        "malformed_body",
        "method_not_allowed",
        "unsupported_media_type",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    }


@each("code", PROBLEMS)
def test_an_answer_is_a_problem_document_that_nobody_keeps(code: str) -> None:
    class Raised(FastauthError):
        pass

    error = Raised("its text")
    error.code = code
    response = problem_response(error)
    body = json.loads(response.body)
    assert header_of(response, "content-type") == "application/problem+json"
    assert header_of(response, "cache-control") == "no-store"
    assert body.keys() == {"type", "title", "status", "code", "detail"}
    assert (body["status"], body["code"], body["type"]) == (response.status, code, "about:blank")
    assert 400 <= response.status <= 599
    assert body["detail"]
    assert (body["detail"] == "its text") == (PROBLEMS[code].detail is None)


@each("code", PROBLEMS)
def test_at_an_oauth_endpoint_the_same_is_written_as_rfc_6749_has_it(code: str) -> None:
    class Raised(FastauthError):
        pass

    error = Raised("its text")
    error.code = code
    response, problem = oauth_response(error), problem_response(error)
    body = json.loads(response.body)
    assert response.status == problem.status
    assert header_of(response, "content-type") == "application/json"
    assert (header_of(response, "cache-control"), header_of(response, "pragma")) == ("no-store", "no-cache")
    assert body.keys() == {"error", "error_description"}
    assert all(char in DESCRIPTION for char in body["error_description"])
    assert header_of(response, "www-authenticate") == header_of(problem, "www-authenticate")


def test_the_codes_that_an_oauth_endpoint_can_meet_are_those_of_the_rfc() -> None:
    said = {json.loads(oauth_response(InvalidGrant("x")).body)["error"]}
    for code in MET_AT_OAUTH_ENDPOINTS:
        said.add(PROBLEMS[code].oauth or code)
    assert said <= {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
    }


@each(
    "error",
    [FastauthError("s3cr3t"), Conflict("s3cr3t"), *(type("New", (FastauthError,), {"code": "brand_new"})("s3cr3t"),)],
)
def test_an_error_that_is_not_in_the_table_is_a_generic_500(error: FastauthError) -> None:
    response = problem_response(error, "1234")
    assert response.status == 500
    assert json.loads(response.body)["code"] == "internal_error"
    assert json.loads(response.body)["request_id"] == header_of(response, "x-request-id") == "1234"
    assert b"s3cr3t" not in response.body


@each("error", [Overloaded(7), Unavailable("database", "s3cr3t", 7)])
def test_what_may_be_tried_again_says_when(error: FastauthError) -> None:
    response = problem_response(error)
    assert response.status == 503
    assert header_of(response, "retry-after") == "7"
    assert b"s3cr3t" not in response.body


def test_a_method_that_is_not_allowed_names_those_that_are() -> None:
    response = problem_response(MethodNotAllowed(("GET", "HEAD")))
    assert response.status == 405
    assert header_of(response, "allow") == "GET, HEAD"


def test_a_401_says_how_to_do_better() -> None:
    for error in (InvalidCredentials(), TokenMissing()):
        assert header_of(problem_response(error), "www-authenticate") == 'Bearer realm="fastauth"'
    challenge = header_of(INVALID_TOKEN, "www-authenticate")
    assert challenge is not None
    assert 'error="invalid_token"' in challenge


@each(
    "code",
    ["expired", "not_yet_valid", "signature", "key", "issuer", "audience", "type", "malformed", "too_large", "revoked"],
)
def test_why_a_token_is_refused_is_not_the_senders_business(code: str) -> None:
    response = problem_response(TokenRefused(code))  # type: ignore[arg-type]
    assert (response.status, response.headers, response.body) == (401, INVALID_TOKEN.headers, INVALID_TOKEN.body)


def test_a_body_that_was_not_read_closes_the_connection() -> None:
    assert header_of(problem_response(BodyTooLarge()), "connection") == "close"
    assert header_of(problem_response(MalformedBody("x")), "connection") is None


def test_a_failed_issue_is_told_apart_from_wrong_credentials() -> None:
    response = problem_response(IssueFailed("s3cr3t"), "1234")
    assert response.status == 500
    assert json.loads(response.body)["code"] == "issue_failed"
    assert b"s3cr3t" not in response.body
