"""The ASGI middleware, around an application without a framework."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from fastauth import Verifier
from fastauth.verifier.asgi import CLAIMS, App, BearerMiddleware, Receive, Scope, Send
from tests.verifier.adapters.asking import (
    Answer,
    Ask,
    DarkVerifier,
    Tokens,
    check_good,
    check_refusals,
    check_unavailable,
)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Says whose token it was."""
    sub = scope[CLAIMS].sub if scope[CLAIMS] else "nobody"
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": sub})
        await send({"type": "websocket.close"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": sub.encode()})


def asked(app: App, path: str = "/") -> Ask:
    """Asks through a real ASGI client."""
    client = TestClient(app)

    def ask(values: Sequence[str]) -> Answer:
        response = client.get(path, headers=[(b"Authorization", value.encode("latin-1")) for value in values])
        return Answer(response.status_code, dict(response.headers), response.text)

    return ask


def test_good_tokens_pass_and_all_others_get_their_challenge(verifier: Verifier, tokens: Tokens) -> None:
    ask = asked(BearerMiddleware(application, verifier, scopes=["reports"], realm="api"))
    check_good(ask, tokens)
    check_refusals(ask, tokens, "api")
    assert ask([f"Bearer {tokens.good}"]).body == "5f9c"
    assert ask([]).headers["content-type"] == "application/problem+json"


def test_without_keys_the_answer_is_503(tokens: Tokens) -> None:
    check_unavailable(asked(BearerMiddleware(application, DarkVerifier()))([f"Bearer {tokens.good}"]))


def test_an_excluded_path_needs_no_token_and_looks_at_none(verifier: Verifier, tokens: Tokens) -> None:
    app = BearerMiddleware(application, verifier, exclude=["/health"])
    for values in ([], [f"Bearer {tokens.good}"], ["Bearer x"]):
        assert asked(app, "/health")(values).body == "nobody"
    for path in ("/", "/health/", "/healthy", "/health/../x"):
        assert asked(app, path)([]).status == 401, path


def test_a_websocket_is_accepted_with_a_good_token(verifier: Verifier, tokens: Tokens) -> None:
    client = TestClient(BearerMiddleware(application, verifier))
    with client.websocket_connect("/", headers={"Authorization": f"Bearer {tokens.good}"}) as socket:
        assert socket.receive_text() == "5f9c"


def test_a_websocket_is_refused_with_a_challenge_before_it_is_accepted(verifier: Verifier) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as denial,
        TestClient(BearerMiddleware(application, verifier)).websocket_connect("/"),
    ):
        pass
    assert denial.value.status_code == 401
    assert denial.value.headers["www-authenticate"] == 'Bearer realm="fastauth"'


def test_a_server_that_cannot_send_the_challenge_closes_the_websocket_before_it_is_accepted(verifier: Verifier) -> None:
    guarded = BearerMiddleware(application, verifier)

    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        await guarded({**scope, "extensions": {}}, receive, send)

    with pytest.raises(WebSocketDisconnect) as closed, TestClient(server).websocket_connect("/"):
        pass
    assert not isinstance(closed.value, WebSocketDenialResponse)


def test_the_application_gets_the_very_channels_of_the_server(verifier: Verifier, tokens: Tokens) -> None:
    seen: list[Any] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend((scope, receive, send))

    async def receive() -> dict[str, Any]:
        raise AssertionError("the middleware read the body")

    async def send(message: Any) -> None:
        raise AssertionError("the middleware answered")

    scope = {
        "type": "http",
        "path": "/",
        "headers": [(b"authorization", f"Bearer {tokens.good}".encode())],
        CLAIMS: "smuggled in",
    }
    asyncio.run(BearerMiddleware(inner, verifier)(scope, receive, send))
    assert seen[1:] == [receive, send]
    assert seen[0][CLAIMS].sub == "5f9c"
    assert scope[CLAIMS] == "smuggled in"  # the server's own is not written to


def test_lifespan_passes_and_what_is_unknown_does_not(verifier: Verifier) -> None:
    seen = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return {}

    guarded = BearerMiddleware(inner, verifier)
    asyncio.run(guarded({"type": "lifespan"}, nothing, nothing))
    with pytest.raises(NotImplementedError):
        asyncio.run(guarded({"type": "webtransport"}, nothing, nothing))
    assert seen == ["lifespan"]


def test_one_path_in_place_of_a_list_is_refused_before_it_opens_every_letter(verifier: Verifier) -> None:
    with pytest.raises(TypeError, match="list of paths"):
        BearerMiddleware(application, verifier, exclude="/health")
    with pytest.raises(ValueError, match="slash"):
        BearerMiddleware(application, verifier, exclude=["health"])
