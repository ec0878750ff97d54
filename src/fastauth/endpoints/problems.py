"""The ONE table from an error's code to its HTTP answer, and what is said of everything else.

The OAuth endpoints write it as RFC 6749 section 5.2 does, all others as RFC 9457.
"""

from http import HTTPStatus
from typing import Any, Final

import msgspec

from fastauth.domain.errors import FastauthError, HandlerTimeout, Overloaded, Unavailable
from fastauth.domain.limits import RateLimited
from fastauth.endpoints.errors import MethodNotAllowed
from fastauth.endpoints.http import JSON, NO_CACHE, NO_STORE, Headers, Response
from fastauth.jose.refusals import TokenRefused

_PROBLEM_JSON: Final = (b"content-type", b"application/problem+json")
_CLOSE: Final = (b"connection", b"close")
_BEARER: Final = (b"www-authenticate", b'Bearer realm="fastauth"')
_BASIC: Final = (b"www-authenticate", b'Basic realm="fastauth"')
_BEARER_TWICE: Final = (b"www-authenticate", b'Bearer realm="fastauth", error="invalid_request"')
_INVALID_REQUEST: Final = "invalid_request"
_LATER: Final = "temporarily_unavailable"
_INVALID_TOKEN: Final = (
    b"www-authenticate",
    b'Bearer realm="fastauth", error="invalid_token", error_description="The access token is invalid"',
)


class Problem(msgspec.Struct, frozen=True):
    """How one code is answered. ``detail`` None lets the error's own text through. ``oauth`` is the error code at the
    OAuth endpoints, None where it is the code itself.
    """

    status: int
    detail: str | None
    headers: Headers = ()
    oauth: str | None = None


PROBLEMS: Final[dict[str, Problem]] = {
    "bad_request": Problem(400, None, (_CLOSE,), _INVALID_REQUEST),
    "malformed_body": Problem(400, None, (), _INVALID_REQUEST),
    "body_aborted": Problem(400, "The request body broke off; nothing was done.", (_CLOSE,), _INVALID_REQUEST),
    "client_left": Problem(400, "The connection was closed before there was an answer.", (_CLOSE,), _INVALID_REQUEST),
    "bearer_twice": Problem(400, "Send the access token once, in the Authorization header.", (_BEARER_TWICE,)),
    "no_session": Problem(400, "This token belongs to no session; a client revokes its own tokens at /revoke."),
    "invalid_request": Problem(400, None),
    "invalid_grant": Problem(400, None),
    "invalid_scope": Problem(400, None),
    "unauthorized_client": Problem(400, None),
    "unsupported_grant_type": Problem(400, None),
    "invalid_client": Problem(401, None, (_BASIC,)),
    "invalid_credentials": Problem(401, "The user name or the password is wrong.", (_BEARER,)),
    "token_missing": Problem(401, "Send the access token as: Authorization: Bearer TOKEN.", (_BEARER,)),
    "token_refused": Problem(
        401,
        "The access token is expired, revoked, malformed, or invalid for other reasons.",
        (_INVALID_TOKEN,),
    ),
    "forbidden": Problem(403, "This is only for addresses in FASTAUTH_METRICS__ALLOW, without a proxy in between."),
    "path_not_found": Problem(404, "Nothing is served at this path."),
    "method_not_allowed": Problem(405, None, (), _INVALID_REQUEST),
    "body_timeout": Problem(408, "The request body did not arrive in time.", (_CLOSE,), _INVALID_REQUEST),
    "body_too_large": Problem(413, "The request body is larger than 64 KiB.", (_CLOSE,), _INVALID_REQUEST),
    "unsupported_media_type": Problem(415, None, (), _INVALID_REQUEST),
    "rate_limited": Problem(429, "Too many requests; try again after the time in Retry-After.", (), _LATER),
    "internal_error": Problem(
        500, "Something went wrong here; the request id finds it in the log of the server.", (), "server_error"
    ),
    "issue_failed": Problem(
        500, "The credentials are right, but no token could be made; try again.", (), "server_error"
    ),
    "overloaded": Problem(
        503, "More is waiting than can be done in time; try again after the time in Retry-After.", (), _LATER
    ),
    "timeout": Problem(503, "The answer was not ready in time; nothing goes on for it any more.", (), _LATER),
    "unavailable": Problem(
        503, "Something this request needs is not available; try again after the time in Retry-After.", (), _LATER
    ),
}
# Codes that only commands and start-up meet; over HTTP they would be a defect of this server.
NEVER_OVER_HTTP: Final = frozenset(
    {
        "bad_line",
        "client_refused",
        "conflict",
        "database_refused",
        "identity_refused",
        "key_refused",
        "keys_unavailable",
        "limit_refused",
        "master_key_refused",
        "move_refused",
        "not_found",
        "not_running",
        "password_hash_refused",
        "password_refused",
        "redis_refused",
        "refresh_reused",
        "rehearsal_refused",
        "rotation_refused",
        "schema_refused",
        "scope_refused",
        "settings_refused",
        "start_refused",
        "table_refused",
        "tracing_refused",
        "username_refused",
    }
)


def problem_response(error: FastauthError, request_id: str | None = None) -> Response:
    """The answer to an error (RFC 9457). A code that is not in the table is a generic 500."""
    code, problem = _found(error)
    headers = (_PROBLEM_JSON, NO_STORE, *_headers(problem, error, request_id))
    return Response(problem.status, headers, _body(code, problem, error, request_id))


def oauth_response(error: FastauthError, request_id: str | None = None) -> Response:
    """The same at an OAuth endpoint (RFC 6749 section 5.2)."""
    code, problem = _found(error)
    body = {"error": problem.oauth or code, "error_description": problem.detail or str(error)}
    if request_id is not None:
        body["request_id"] = request_id
    headers = (JSON, NO_STORE, NO_CACHE, *_headers(problem, error, request_id))
    return Response(problem.status, headers, msgspec.json.encode(body))


def _found(error: FastauthError) -> tuple[str, Problem]:
    code = "token_refused" if isinstance(error, TokenRefused) else error.code
    if code not in PROBLEMS:
        code = "internal_error"
    return code, PROBLEMS[code]


def _headers(problem: Problem, error: FastauthError, request_id: str | None) -> Headers:
    headers = problem.headers
    if isinstance(error, Overloaded | RateLimited | Unavailable | HandlerTimeout):
        headers += ((b"retry-after", str(error.retry_after_s).encode()),)
    if isinstance(error, MethodNotAllowed):
        headers += ((b"allow", ", ".join(error.allowed).encode()),)
    if request_id is not None:
        headers += ((b"x-request-id", request_id.encode()),)
    return headers


def _body(code: str, problem: Problem, error: FastauthError, request_id: str | None) -> bytes:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": code,
        "detail": problem.detail or str(error),
    }
    if isinstance(error, Overloaded) and error.ticket is not None:
        body["ticket"] = error.ticket
    if request_id is not None:
        body["request_id"] = request_id
    return msgspec.json.encode(body)


INVALID_TOKEN: Final = problem_response(TokenRefused("malformed"))
"""The same bytes for every refused token: why it was refused is not the sender's business."""
