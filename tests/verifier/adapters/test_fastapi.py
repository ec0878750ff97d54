"""The dependency for FastAPI: claims, scopes, and the OpenAPI document."""

from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Security, WebSocket
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from fastauth import Claims, Verifier
from fastauth.verifier.fastapi import BearerAuth
from tests.verifier.adapters.asking import DarkVerifier, Tokens, check_good, check_refusals, check_unavailable
from tests.verifier.adapters.test_asgi import asked


def application(verifier: Verifier, realm: str = "fastauth") -> FastAPI:
    """A FastAPI application as its documentation builds them."""
    app = FastAPI()
    auth = BearerAuth(verifier, realm=realm)

    def reader(claims: Annotated[Claims, Security(auth, scopes=["reports"])]) -> str:
        return claims.sub

    @app.get("/")
    def who(claims: Annotated[Claims, Depends(auth)]) -> str:
        return claims.sub

    @app.get("/reports")
    async def reports(claims: Annotated[Claims, Security(auth, scopes=["reports"])]) -> str:
        return claims.sub

    @app.get("/deep")
    def deep(sub: Annotated[str, Security(reader, scopes=["user"])]) -> str:
        return sub

    @app.websocket("/socket")
    async def socket(connection: WebSocket, claims: Annotated[Claims, Depends(auth)]) -> None:
        await connection.accept()
        await connection.send_text(claims.sub)
        await connection.close()

    return app


def test_good_tokens_pass_and_all_others_get_their_challenge(verifier: Verifier, tokens: Tokens) -> None:
    ask = asked(application(verifier, "api"), "/reports")
    check_good(ask, tokens)
    check_refusals(ask, tokens, "api")
    assert ask([f"Bearer {tokens.good}"]).body == '"5f9c"'
    assert ask([]).body == '{"detail":"Send the access token as: Authorization: Bearer TOKEN."}'


def test_a_dependency_without_scopes_takes_any_good_token(verifier: Verifier, tokens: Tokens) -> None:
    for token in (tokens.good, tokens.poor, tokens.bare):
        assert asked(application(verifier))([f"Bearer {token}"]).status == 200


def test_the_scopes_of_all_dependencies_in_the_chain_are_wanted(verifier: Verifier, tokens: Tokens) -> None:
    ask = asked(application(verifier), "/deep")
    assert ask([f"Bearer {tokens.good}"]).status == 200
    answer = ask([f"Bearer {tokens.poor}"])
    assert answer.status == 403
    assert str(answer.challenge).endswith('scope="user reports"')


def test_without_keys_the_answer_is_503(tokens: Tokens) -> None:
    check_unavailable(asked(application(DarkVerifier()))([f"Bearer {tokens.good}"]))


def test_the_openapi_document_shows_a_bearer_scheme(verifier: Verifier) -> None:
    document = application(verifier).openapi()
    assert document["components"]["securitySchemes"] == {
        "fastauth": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    assert document["paths"]["/"]["get"]["security"] == [{"fastauth": []}]
    assert document["paths"]["/reports"]["get"]["security"] == [{"fastauth": ["reports"]}]


def test_a_websocket_is_refused_before_it_is_accepted(verifier: Verifier, tokens: Tokens) -> None:
    app = application(verifier)
    with TestClient(app).websocket_connect("/socket", headers={"Authorization": f"Bearer {tokens.good}"}) as socket:
        assert socket.receive_text() == "5f9c"
    with pytest.raises(WebSocketDenialResponse) as denial, TestClient(app).websocket_connect("/socket"):
        pass
    assert denial.value.status_code == 401
    assert denial.value.headers["www-authenticate"] == 'Bearer realm="fastauth"'

    async def older_server(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "extensions": {}}, receive, send)

    with pytest.raises(WebSocketDisconnect) as closed, TestClient(older_server).websocket_connect("/socket"):
        pass
    assert not isinstance(closed.value, WebSocketDenialResponse)
