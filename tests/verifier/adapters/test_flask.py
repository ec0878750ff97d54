"""The decorator for Flask's views."""

from collections.abc import Sequence

import pytest
from flask import Flask, g
from werkzeug.datastructures import Headers

from fastauth import Verifier
from fastauth.verifier.flask import require_token
from tests.verifier.adapters.asking import (
    Answer,
    Ask,
    DarkVerifier,
    Tokens,
    check_good,
    check_refusals,
    check_unavailable,
)


def application(verifier: Verifier, realm: str = "fastauth") -> Flask:
    """A Flask application as its documentation builds them."""
    app = Flask(__name__)

    @app.get("/")
    @require_token(verifier, realm=realm)
    def who() -> str:
        sub: str = g.claims.sub
        return sub

    @app.get("/reports/<name>")
    @require_token(verifier, "reports", realm=realm)
    def reports(name: str) -> str:
        return f"{name} for {g.claims.sub}"

    @app.get("/async")
    @require_token(verifier, "reports", realm=realm)
    async def reports_async() -> str:
        return f"sales for {g.claims.sub}"

    return app


def asked(app: Flask, path: str) -> Ask:
    """Asks through Flask's own client."""
    client = app.test_client()

    def ask(values: Sequence[str]) -> Answer:
        response = client.get(path, headers=Headers([("Authorization", value) for value in values]))
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, response.text)

    return ask


def test_good_tokens_pass_and_all_others_get_their_challenge(verifier: Verifier, tokens: Tokens) -> None:
    for path in ("/reports/sales", "/async"):
        ask = asked(application(verifier, "api"), path)
        check_good(ask, tokens)
        check_refusals(ask, tokens, "api")
        assert ask([f"Bearer {tokens.good}"]).body == "sales for 5f9c"
        assert ask([]).headers["content-type"] == "application/problem+json"


def test_a_view_without_scopes_takes_any_good_token(verifier: Verifier, tokens: Tokens) -> None:
    for token in (tokens.good, tokens.poor, tokens.bare):
        assert asked(application(verifier), "/")([f"Bearer {token}"]).body == "5f9c"


def test_without_keys_the_answer_is_503(tokens: Tokens) -> None:
    check_unavailable(asked(application(DarkVerifier()), "/")([f"Bearer {tokens.good}"]))


def test_bad_configuration_is_refused_when_the_view_is_decorated(verifier: Verifier) -> None:
    with pytest.raises(ValueError, match="scope"):
        require_token(verifier, "a b")
    with pytest.raises(ValueError, match="realm"):
        require_token(verifier, realm='"')
