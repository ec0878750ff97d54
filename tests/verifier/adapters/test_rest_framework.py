"""The authentication and the permission for Django REST framework."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.test import override_settings
from django.urls import path
from rest_framework.authentication import BasicAuthentication
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.permissions import AllowAny, IsAdminUser, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from fastauth import Claims, Verifier
from fastauth.verifier.rest_framework import BearerAuthentication, HasScope
from tests.verifier.adapters.asking import (
    Answer,
    Ask,
    DarkVerifier,
    Tokens,
    check_good,
    check_insufficient,
    check_refusals,
    check_unavailable,
)


class Who(APIView):  # type: ignore[misc]
    """Says who asks."""

    authentication_classes = (BearerAuthentication,)
    permission_classes = (IsAuthenticated,)

    def get(self, request: Request) -> Response:
        """Its only method."""
        return Response(str(request.user))


class Open(Who):
    """The same, also for those without a token."""

    permission_classes = (AllowAny,)


class Either(Who):
    """For administrators, and for the scope ``reports``."""

    permission_classes = (IsAdminUser | HasScope.of("reports"),)


class Foreign(Who):
    """For users of another scheme as well, whose ``request.auth`` are no claims."""

    class Somebody(BasicAuthentication):  # type: ignore[misc]
        """Lets in everyone."""

        def authenticate(self, request: Request) -> tuple[str, str]:
            """Anyone."""
            return "somebody", "anyhow"

    authentication_classes = (Somebody,)
    permission_classes = (HasScope,)


class Named(BearerAuthentication):
    """One that makes its own users."""

    def user_of(self, claims: Claims) -> Any:
        """A user of the project."""
        return f"user {claims.sub}"


@api_view(["GET", "POST"])  # type: ignore[untyped-decorator]
@authentication_classes([BearerAuthentication])  # type: ignore[untyped-decorator]
@permission_classes([HasScope.of("reports")])  # type: ignore[untyped-decorator]
def reports(request: Request) -> Response:
    """For the scope ``reports`` only."""
    return Response(request.auth.sub)


urlpatterns = [
    path("", Who.as_view()),
    path("open", Open.as_view()),
    path("named", Open.as_view(authentication_classes=[Named])),
    path("either", Either.as_view()),
    path("scoped", Who.as_view(permission_classes=[HasScope])),
    path("foreign", Foreign.as_view()),
    path("reports", reports),
]


@pytest.fixture(autouse=True)
def project(verifier: Verifier) -> Iterator[None]:
    """The settings of a project that uses REST framework alone."""
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[], FASTAUTH={"VERIFIER": verifier, "REALM": "api"}):
        yield


def asked(url: str, method: str = "get") -> Ask:
    """Asks through the framework's own client; several fields come joined, as a WSGI server joins them."""
    client = APIClient(enforce_csrf_checks=True)

    def ask(values: Sequence[str]) -> Answer:
        response = getattr(client, method)(url, **({"HTTP_AUTHORIZATION": ",".join(values)} if values else {}))
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, response.content.decode())

    return ask


def test_good_tokens_pass_and_all_others_get_their_challenge(tokens: Tokens) -> None:
    for method in ("get", "post"):
        ask = asked("/reports", method)
        check_good(ask, tokens)
        check_refusals(ask, tokens, "api")
        assert ask([f"Bearer {tokens.good}"]).body == '"5f9c"'
        assert ask([f"Bearer {tokens.expired}"]).body == '{"detail":"The access token is invalid."}'


def test_any_good_token_makes_an_authenticated_user(tokens: Tokens) -> None:
    for url in ("/", "/scoped"):
        assert asked(url)([f"Bearer {tokens.bare}"]).body == '"5f9c"'
        assert asked(url)([]).challenge == 'Bearer realm="api"'
    assert asked("/named")([f"Bearer {tokens.bare}"]).body == '"user 5f9c"'


def test_without_a_token_the_user_is_the_frameworks_anonymous_one(tokens: Tokens) -> None:
    assert asked("/open")([]).body == '"AnonymousUser"'
    assert asked("/open")([f"Bearer {tokens.forged}"]).status == 401


def test_behind_another_permission_the_scope_has_the_last_word(tokens: Tokens) -> None:
    assert asked("/either")([f"Bearer {tokens.good}"]).status == 200
    check_insufficient(asked("/either"), tokens, "api")


def test_a_user_without_claims_has_no_scopes() -> None:
    assert asked("/foreign")([]).status == 403


def test_without_keys_the_answer_is_503(tokens: Tokens) -> None:
    with override_settings(FASTAUTH={"VERIFIER": DarkVerifier()}):
        check_unavailable(asked("/")([f"Bearer {tokens.good}"]))


def test_a_scope_that_no_challenge_can_hold_is_refused_when_the_view_is_made() -> None:
    with pytest.raises(ValueError, match="scope"):
        HasScope.of("a b")
