"""The ONE table from an error's code to its HTTP answer (RFC 9457), and what is said of everything else."""

from http import HTTPStatus
from typing import Any, Final

import msgspec

from fastauth.domain.errors import FastauthError, Overloaded, Unavailable
from fastauth.domain.limits import RateLimited
from fastauth.endpoints.errors import MethodNotAllowed
from fastauth.endpoints.http import NO_STORE, Headers, Response
from fastauth.jose.refusals import TokenRefused

_PROBLEM_JSON: Final = (b"content-type", b"application/problem+json")
_CLOSE: Final = (b"connection", b"close")
_BEARER: Final = (b"www-authenticate", b'Bearer realm="fastauth"')
_INVALID_TOKEN: Final = (
    b"www-authenticate",
    b'Bearer realm="fastauth", error="invalid_token", error_description="The access token is invalid"',
)


class Problem(msgspec.Struct, frozen=True):
    """How one code is answered. ``detail`` None lets the error's own text through."""

    status: int
    detail: str | None
    headers: Headers = ()


PROBLEMS: Final[dict[str, Problem]] = {
    "bad_request": Problem(400, None, (_CLOSE,)),
    "malformed_body": Problem(400, None),
    "body_aborted": Problem(400, "The request body broke off; nothing was done.", (_CLOSE,)),
    "invalid_credentials": Problem(401, "The user name or the password is wrong.", (_BEARER,)),
    "token_missing": Problem(401, "Send the access token as: Authorization: Bearer TOKEN.", (_BEARER,)),
    "token_refused": Problem(
        401,
        "The access token is expired, revoked, malformed, or invalid for other reasons.",
        (_INVALID_TOKEN,),
    ),
    "forbidden": Problem(403, "This is only for addresses in FASTAUTH_METRICS__ALLOW, without a proxy in between."),
    "path_not_found": Problem(404, "Nothing is served at this path."),
    "method_not_allowed": Problem(405, None),
    "body_timeout": Problem(408, "The request body did not arrive in time.", (_CLOSE,)),
    "body_too_large": Problem(413, "The request body is larger than 64 KiB.", (_CLOSE,)),
    "unsupported_media_type": Problem(415, None),
    "rate_limited": Problem(429, "Too many requests; try again after the time in Retry-After."),
    "internal_error": Problem(500, "Something went wrong here; the request id finds it in the server's log."),
    "issue_failed": Problem(500, "The credentials are right, but no token could be made; try again."),
    "overloaded": Problem(503, "More is waiting than can be done in time; try again after the time in Retry-After."),
    "unavailable": Problem(
        503, "Something this request needs is not available; try again after the time in Retry-After."
    ),
}
# Codes that only commands and start-up meet; over HTTP they would be a defect of this server.
NEVER_OVER_HTTP: Final = frozenset(
    {
        "bad_line",
        "conflict",
        "key_refused",
        "keys_unavailable",
        "limit_refused",
        "master_key_refused",
        "not_found",
        "password_hash_refused",
        "password_refused",
        "redis_refused",
        "rotation_refused",
        "schema_refused",
        "scope_refused",
        "settings_refused",
        "start_refused",
        "table_refused",
        "username_refused",
    }
)


def problem_response(error: FastauthError, request_id: str | None = None) -> Response:
    """The answer to an error. A code that is not in the table is a generic 500."""
    code = "token_refused" if isinstance(error, TokenRefused) else error.code
    if code not in PROBLEMS:
        code = "internal_error"
    problem = PROBLEMS[code]
    headers = (_PROBLEM_JSON, NO_STORE, *problem.headers)
    if isinstance(error, Overloaded | RateLimited | Unavailable):
        headers += ((b"retry-after", str(error.retry_after_s).encode()),)
    if isinstance(error, MethodNotAllowed):
        headers += ((b"allow", ", ".join(error.allowed).encode()),)
    if request_id is not None:
        headers += ((b"x-request-id", request_id.encode()),)
    return Response(problem.status, headers, _body(code, problem, str(error), request_id))


def _body(code: str, problem: Problem, text: str, request_id: str | None) -> bytes:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": code,
        "detail": problem.detail or text,
    }
    if request_id is not None:
        body["request_id"] = request_id
    return msgspec.json.encode(body)


INVALID_TOKEN: Final = problem_response(TokenRefused("malformed"))
"""The same bytes for every refused token: why it was refused is not the sender's business."""
