"""The backend for Starlette's AuthenticationMiddleware, and the ASGI middleware on one of its routes."""

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser, requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastauth import Verifier
from fastauth.jose.keys import SigningKey
from fastauth.verifier.asgi import CLAIMS, BearerMiddleware
from fastauth.verifier.starlette import BearerBackend, on_error
from tests.jose.making import claims_with, token_of
from tests.verifier.adapters.asking import (
    DarkVerifier,
    Tokens,
    check_doubled,
    check_good,
    check_invalid,
    check_refusals,
    check_unavailable,
)
from tests.verifier.adapters.test_asgi import asked


def who(request: Request) -> JSONResponse:
    """Tells what the backend has found."""
    user = request.user
    return JSONResponse([user.is_authenticated, user.display_name, user.is_authenticated and user.identity])


@requires("reports")
async def reports(request: Request) -> JSONResponse:
    """For the scope ``reports`` only."""
    return JSONResponse(request.auth.scopes)


@requires("authenticated", status_code=401)
def members(request: Request) -> JSONResponse:
    """For any good token."""
    return JSONResponse(request.user.claims.sub)


def application(backend: AuthenticationBackend) -> Starlette:
    """A Starlette application as its documentation builds them."""
    return Starlette(
        routes=[Route("/", who), Route("/reports", reports), Route("/members", members)],
        middleware=[Middleware(AuthenticationMiddleware, backend=backend, on_error=on_error)],
    )


def test_a_good_token_gives_a_user_and_its_scopes(signing_key: SigningKey, verifier: Verifier, tokens: Tokens) -> None:
    app = application(BearerBackend(verifier))
    check_good(asked(app, "/reports"), tokens)
    assert asked(app)([f"Bearer {tokens.good}"]).body == '[true,"5f9c","5f9c"]'
    assert asked(app, "/reports")([f"Bearer {tokens.good}"]).body == '["authenticated","reports","user"]'
    assert asked(app, "/members")([f"Bearer {tokens.bare}"]).body == '"5f9c"'
    named = token_of(signing_key, payload=claims_with(preferred_username="alice")).decode()
    assert asked(app)([f"Bearer {named}"]).body == '[true,"alice","5f9c"]'


def test_without_a_token_the_user_is_anonymous_and_requires_judges(verifier: Verifier, tokens: Tokens) -> None:
    app = application(BearerBackend(verifier))
    for values in ([], ["Basic abc"]):
        assert asked(app)(values).body == '[false,"",false]'
        assert asked(app, "/members")(values).status == 401
        assert asked(app, "/reports")(values).status == 403
    assert asked(app, "/reports")([f"Bearer {tokens.poor}"]).status == 403


def test_bad_tokens_get_their_challenge_on_every_path(verifier: Verifier, tokens: Tokens) -> None:
    for path in ("/", "/reports", "/nowhere"):
        ask = asked(application(BearerBackend(verifier, realm="api")), path)
        check_invalid(ask, tokens, "api")
        check_doubled(ask, tokens, "api")


def test_without_keys_the_answer_is_503(tokens: Tokens) -> None:
    check_unavailable(asked(application(BearerBackend(DarkVerifier())))([f"Bearer {tokens.good}"]))


def test_another_backends_error_is_answered_as_starlette_does() -> None:
    class Other(AuthenticationBackend):
        async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
            raise AuthenticationError("no such key")

    answer = asked(application(Other()))([])
    assert (answer.status, answer.body) == (400, "no such key")


def test_the_asgi_middleware_guards_a_single_route(verifier: Verifier, tokens: Tokens) -> None:
    def read(request: Request) -> JSONResponse:
        return JSONResponse(request.scope[CLAIMS].sub)

    guard = Middleware(BearerMiddleware, verifier=verifier, scopes=["reports"])
    ask = asked(Starlette(routes=[Route("/", read, middleware=[guard])]))
    check_good(ask, tokens)
    check_refusals(ask, tokens)


def test_a_realm_that_needs_quoting_is_refused(verifier: Verifier) -> None:
    with pytest.raises(ValueError, match="realm"):
        BearerBackend(verifier, realm='"')
