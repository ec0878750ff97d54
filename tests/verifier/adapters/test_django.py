"""The middleware and the decorators for Django, under WSGI and under ASGI."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View

from fastauth import Verifier
from fastauth.jose.keys import SigningKey
from fastauth.verifier.django import BearerMiddleware, project_bearer, require_scope, require_token
from tests.cases import each
from tests.jose.making import AUDIENCE, ISSUER
from tests.verifier.adapters.asking import (
    Answer,
    Ask,
    DarkVerifier,
    Tokens,
    check_doubled,
    check_good,
    check_invalid,
    check_refusals,
    check_unavailable,
)
from tests.verifier.adapters.test_asgi import asked as asked_over_asgi


def who(request: HttpRequest) -> HttpResponse:
    """Open to all."""
    return HttpResponse(request.claims.sub if request.claims else "nobody")


@require_token
def members(request: HttpRequest) -> HttpResponse:
    """For any good token."""
    return HttpResponse(request.claims.sub)


@require_scope("reports")
def reports(request: HttpRequest, name: str) -> HttpResponse:
    """For the scope ``reports`` only."""
    return HttpResponse(f"{name} for {request.claims.sub}")


@require_scope("reports")
async def reports_async(request: HttpRequest, name: str) -> HttpResponse:
    """The same as a coroutine."""
    return HttpResponse(f"{name} for {request.claims.sub}")


class Reports(View):  # type: ignore[misc]
    """The same as a class."""

    @method_decorator(require_scope("reports"))  # type: ignore[untyped-decorator]
    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        """Its only method."""
        return HttpResponse(f"{name} for {request.claims.sub}")


urlpatterns = [
    path("", who),
    path("members", members),
    path("sync/<name>", reports),
    path("async/<name>", reports_async),
    path("class/<name>", Reports.as_view()),
]
VIEWS = ("/sync/sales", "/async/sales", "/class/sales")


@pytest.fixture(autouse=True)
def project(verifier: Verifier) -> Iterator[None]:
    """The settings of a project."""
    with override_settings(ROOT_URLCONF=__name__, FASTAUTH={"VERIFIER": verifier, "REALM": "api"}):
        yield


def asked(url: str) -> Ask:
    """Asks through Django's own client; several fields come joined, as a WSGI server joins them."""
    client = Client()

    def ask(values: Sequence[str]) -> Answer:
        response = client.get(url, **({"HTTP_AUTHORIZATION": ",".join(values)} if values else {}))
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, response.content.decode())

    return ask


@each("view", VIEWS)
def test_good_tokens_pass_and_all_others_get_their_challenge(tokens: Tokens, view: str) -> None:
    for ask in (asked(view), asked_over_asgi(get_asgi_application(), view)):
        check_good(ask, tokens)
        check_refusals(ask, tokens, "api")
        assert ask([f"Bearer {tokens.good}"]).body == "sales for 5f9c"
        assert ask([]).headers["content-type"] == "application/problem+json"


def test_a_view_that_requires_nothing_knows_who_asks(tokens: Tokens) -> None:
    for ask in (asked("/"), asked_over_asgi(get_asgi_application(), "/")):
        assert ask([]).body == "nobody"
        assert ask(["Basic abc"]).body == "nobody"
        assert ask([f"Bearer {tokens.bare}"]).body == "5f9c"
        check_invalid(ask, tokens, "api")
        check_doubled_or_anonymous(ask, tokens)


def check_doubled_or_anonymous(ask: Ask, tokens: Tokens) -> None:
    """Joined, a field of another scheme in front makes the request an anonymous one."""
    check_doubled(lambda values: Answer(401, {}, "") if values[0] == "Basic abc" else ask(values), tokens, "api")
    assert ask(["Basic abc", f"Bearer {tokens.good}"]).body == "nobody"


def test_require_token_takes_any_good_token_and_nothing_else(tokens: Tokens) -> None:
    ask = asked("/members")
    for token in (tokens.good, tokens.poor, tokens.bare):
        assert ask([f"Bearer {token}"]).body == "5f9c"
    assert ask([]).challenge == 'Bearer realm="api"'


def test_without_keys_the_answer_is_503(tokens: Tokens) -> None:
    with override_settings(FASTAUTH={"VERIFIER": DarkVerifier()}):
        for ask in (asked("/"), asked_over_asgi(get_asgi_application(), "/")):
            check_unavailable(ask([f"Bearer {tokens.good}"]))


def test_the_settings_make_one_verifier(signing_key: SigningKey, tokens: Tokens) -> None:
    keys = {"keys": [signing_key.public_jwk]}
    with override_settings(FASTAUTH={"KEYS": keys, "ISSUER": ISSUER, "AUDIENCE": AUDIENCE, "LEEWAY_S": 60}):
        assert project_bearer() is project_bearer()
        assert asked("/")([f"Bearer {tokens.cut}"]).challenge is not None


@each("missing", ["KEYS", "ISSUER", "AUDIENCE"])
def test_a_setting_that_is_missing_is_named_at_the_start(signing_key: SigningKey, missing: str) -> None:
    options: dict[str, Any] = {"KEYS": {"keys": [signing_key.public_jwk]}, "ISSUER": ISSUER, "AUDIENCE": AUDIENCE}
    del options[missing]
    with override_settings(FASTAUTH=options), pytest.raises(ImproperlyConfigured, match=missing):
        BearerMiddleware(who)


def test_a_decorator_without_the_middleware_says_so() -> None:
    with pytest.raises(ImproperlyConfigured, match="BearerMiddleware"):
        members(RequestFactory().get("/"))
