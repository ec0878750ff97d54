"""ASGI requests without a server: what an application is handed, and what it answers."""

import asyncio
import json
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from fastauth.server.asgi import AsgiApp, Route, Router

T = TypeVar("T")
Message = MutableMapping[str, Any]

HOST = (b"host", b"auth.example")
JSON = (b"content-type", b"application/json")


class Answer:
    """A response, put together from its messages."""

    def __init__(self, messages: list[Message]) -> None:
        start, *rest = messages
        assert start["type"] == "http.response.start"
        assert [message["type"] for message in rest] == ["http.response.body"]
        self.status: int = start["status"]
        self.headers: list[tuple[bytes, bytes]] = list(start["headers"])
        self.body: bytes = rest[0]["body"]

    def header(self, name: str) -> str | None:
        values = [value.decode() for key, value in self.headers if key == name.encode()]
        assert len(values) <= 1, f"{name} stands {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Body:
    """Gives the messages of a body one by one; beyond them there is a mistake in the test."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.received = 0

    async def __call__(self) -> Message:
        self.received += 1
        return self.messages.pop(0)


def body_of(*chunks: bytes) -> Body:
    """A body that arrives in these chunks."""
    last = len(chunks) - 1
    return Body(*({"type": "http.request", "body": chunk, "more_body": at < last} for at, chunk in enumerate(chunks)))


DISCONNECT: Message = {"type": "http.disconnect"}


async def ask(
    app: AsgiApp,
    path: str = "/",
    method: str = "GET",
    headers: tuple[tuple[bytes, bytes], ...] = (HOST,),
    receive: Callable[[], Coroutine[Any, Any, Message]] | None = None,
    **scope: Any,
) -> Answer:
    """The answer to one request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    request = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        **scope,
    }
    await app(request, receive or Body(), send)
    return Answer(sent)


class StartedService:
    """What an application serves, what it has counted, and whether it has been closed."""

    def __init__(self, *routes: Route) -> None:
        self.router = Router(list(routes))
        self.is_closed = False
        self.is_leaving = False
        self.counted: list[tuple[str, int]] = []

    def count(self, label: str, status: int, seconds: float) -> None:
        assert 0 <= seconds < 60
        self.counted.append((label, status))

    async def close(self) -> None:
        self.is_closed = True


def app_with(*routes: Route) -> AsgiApp:
    """An application of these routes."""

    async def start() -> StartedService:
        return StartedService(*routes)

    return AsgiApp(start)


async def lifespan(app: AsgiApp, *events: str) -> list[Message]:
    """What an application answers to lifespan events."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, Body(*({"type": event} for event in events)), send)
    return sent


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)
