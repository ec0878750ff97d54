"""The part that all adapters share: the header, the scopes, the challenges, and what may be configured."""

import asyncio
import importlib
import json
import sys

import pytest

from fastauth import TokenRefused, Verifier
from fastauth.verifier.bearer import Bearer, BearerRefused, as_scopes, scopes_of
from tests.cases import each
from tests.verifier.adapters.asking import (
    Answer,
    Ask,
    DarkVerifier,
    Tokens,
    check_good,
    check_refusals,
    check_unavailable,
)


def asked(bearer: Bearer, *, is_async: bool) -> Ask:
    """Asks without a framework."""

    def ask(values: list[str]) -> Answer:
        try:
            claims = asyncio.run(bearer.find_async(values)) if is_async else bearer.find(values)
            bearer.require(claims, ["reports"])
        except BearerRefused as refusal:
            headers = {name.lower(): value for name, value in refusal.headers.items()}
            return Answer(refusal.status, headers, refusal.body.decode())
        return Answer(200, {}, "")

    return ask  # type: ignore[return-value]


@each("is_async", [False, True])
def test_good_tokens_pass_and_all_others_get_their_challenge(
    verifier: Verifier, tokens: Tokens, is_async: bool
) -> None:
    ask = asked(Bearer(verifier, "the api (v2)"), is_async=is_async)
    check_good(ask, tokens)
    check_refusals(ask, tokens, "the api (v2)")
    check_unavailable(asked(Bearer(DarkVerifier()), is_async=is_async)([f"Bearer {tokens.good}"]))


def test_a_refusal_is_a_problem_and_is_not_to_be_cached(verifier: Verifier) -> None:
    with pytest.raises(BearerRefused) as refused:
        Bearer(verifier).require(None)
    assert refused.value.headers["Cache-Control"] == "no-store"
    assert json.loads(refused.value.body) == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "code": "token_missing",
        "detail": "Send the access token as: Authorization: Bearer TOKEN.",
    }


def test_the_reason_of_a_refusal_is_there_for_the_log_only(verifier: Verifier, tokens: Tokens) -> None:
    with pytest.raises(BearerRefused) as refused:
        Bearer(verifier).find([f"Bearer {tokens.expired}"])
    assert isinstance(refused.value.__cause__, TokenRefused)
    assert refused.value.__cause__.code == "expired"
    assert "expired" not in str(refused.value) + str(refused.value.headers) + refused.value.body.decode()


@each(
    ("value", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("Bearer   abc", "abc"),
        (" Bearer abc \t", "abc"),
        ("Bearer a\xa0b", "a\xa0b"),  # no space in HTTP; the verifier refuses it
        ("Basic abc", None),
        ('Digest realm="a", nonce="b"', None),
        ("Bearer\tabc", None),
        ("Bearerabc", None),
        ("abc", None),
        ("", None),
    ],
)
def test_the_token_is_the_one_word_after_the_scheme(verifier: Verifier, value: str, token: str | None) -> None:
    assert Bearer(verifier).read([value]) == token


def test_every_scope_wanted_must_be_there(verifier: Verifier, tokens: Tokens) -> None:
    bearer = Bearer(verifier)
    claims = bearer.find([f"Bearer {tokens.good}"])
    assert claims is not None
    assert scopes_of(claims) == {"user", "reports"}
    assert bearer.require(claims, ["reports", "user"]) is claims
    with pytest.raises(BearerRefused) as refused:
        bearer.require(claims, ["reports", "admin"])
    assert str(refused.value.challenge).endswith('scope="reports admin"')


@each(
    ("configured", "scopes"),
    [((), ()), (["a"], ("a",)), ("a", ("a",)), ("a b", ("a", "b")), (("a:read", "b.c/d"), ("a:read", "b.c/d"))],
)
def test_scopes_are_configured_as_names_or_as_oauth_writes_them(
    configured: str | list[str], scopes: tuple[str, ...]
) -> None:
    assert as_scopes(configured) == scopes


@each("bad", ['a"', "a\\b", "a\r\nb", "é", "\x7f"])
def test_what_a_challenge_cannot_quote_is_refused_when_it_is_configured(verifier: Verifier, bad: str) -> None:
    with pytest.raises(ValueError, match="scope"):
        as_scopes([bad])
    with pytest.raises(ValueError, match="realm"):
        Bearer(verifier, bad)


@each("bad", [[""], ["a b"], "", "a  b", " a"])
def test_an_empty_scope_or_one_with_a_space_is_refused(bad: str | list[str]) -> None:
    with pytest.raises(ValueError, match="scope"):
        as_scopes(bad)


@each(
    ("adapter", "framework", "text"),
    [
        ("starlette", "starlette.authentication", "starlette needs Starlette: pip install starlette"),
        ("fastapi", "fastapi", "fastapi needs FastAPI: pip install fastapi"),
        ("flask", "flask", "flask needs Flask: pip install flask"),
        ("django", "django.conf", "django needs Django: pip install django"),
        (
            "rest_framework",
            "rest_framework.authentication",
            "rest_framework needs Django REST framework: pip install djangorestframework",
        ),
    ],
)
def test_a_missing_framework_is_named_with_what_to_install(adapter: str, framework: str, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, f"fastauth.verifier.{adapter}", raising=False)
        patch.setitem(sys.modules, framework, None)
        with pytest.raises(ImportError) as missing:
            importlib.import_module(f"fastauth.verifier.{adapter}")
    assert str(missing.value) == f"fastauth.verifier.{text}"
