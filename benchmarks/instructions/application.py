"""The real application in this process, and one request to it again and again, without a server or a socket."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.micro.tokens import ISSUER, NAME, session_at
from fastauth.jose.issuer import Issuer, TokenSettings
from fastauth.jose.keyring import wrap_key
from fastauth.jose.keys import SigningKey
from fastauth.server.app import Process, Service, compose
from fastauth.server.asgi import AsgiApp
from fastauth.server.bootstrap import load_master_key
from fastauth.server.limiting import table_path
from fastauth.server.settings import Settings, load_settings
from fastauth.server.storage import open_storage

_TOKENS: Final = "tokens.txt"
_OFF: Final = {"FASTAUTH_LIMITS__VERIFY_PER_IP": "off"}
_ON: Final = {"FASTAUTH_LIMITS__VERIFY_PER_IP": "1000000/s burst 1000000"}  # nothing is refused: that is another path


def _settings(folder: Path, limits: Mapping[str, str]) -> Settings:
    environment = {
        "FASTAUTH_DATA_DIR": str(folder / "data"),
        "FASTAUTH_ISSUER": ISSUER,
        "FASTAUTH_ALLOW_INSECURE": "1",
        "FASTAUTH_LIMITS__MAX_BUCKETS": "1024",
        **limits,
    }
    return load_settings(None, environment, {})


def prepare(folder: Path, tokens: int) -> None:
    """Make a data directory with a signing key, and so many access tokens of it, each another."""
    settings, key = _settings(folder, _OFF), SigningKey.generate()

    async def fill() -> None:
        storage = await open_storage(settings)
        row = wrap_key(key, load_master_key(settings, may_create=True), bytes(12), 0, 0)
        if not await storage.keys.change_ring(await storage.keys.ring_version(), row, {}):
            raise RuntimeError("the new database has keys already")
        await storage.close()

    asyncio.run(fill())
    number = itertools.count()
    issuer = Issuer(key, ISSUER, TokenSettings(), lambda size: next(number).to_bytes(size))
    now_s = int(time.time())
    made = (issuer.issue_user_token(session_at(now_s), NAME, "user", now_s).text for _ in range(tokens))
    path = folder / _TOKENS
    path.touch(0o600)
    path.write_text("\n".join(made))


def prepared_tokens(folder: Path) -> list[bytes]:
    """What ``prepare`` made."""
    return (folder / _TOKENS).read_bytes().split()


Ask = Callable[[str, bytes | None], int]


@contextmanager
def running(folder: Path, *, is_limited: bool = False) -> Iterator[Ask]:
    """The application on what ``prepare`` made. Out: a function that asks ``GET path`` with a token, if there is one,
    and gives the status.

    It must not wait for anything, and then needs no turn of the event loop: what else the loop and the threads of the
    application do is not counted. Another kind of shell is driven from here, and nothing else has to know.
    """
    settings = _settings(folder, _ON if is_limited else _OFF)
    with asyncio.Runner() as runner:
        service = runner.run(compose(settings, Process.alone()))

        async def start() -> Service:
            return service

        app = AsgiApp(start)
        status = 0

        async def receive() -> dict[str, Any]:
            raise AssertionError("these requests have no body")

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]

        def ask(path: str, token: bytes | None) -> int:
            headers = [(b"host", b"auth.example"), (b"accept", b"*/*"), (b"user-agent", b"benchmark")]
            if token is not None:
                headers.append((b"authorization", b"Bearer " + token))
            scope = {
                "type": "http",
                "http_version": "1.1",
                "method": "GET",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "root_path": "",
                "headers": headers,
                "client": ("192.0.2.1", 50_000),
            }
            try:
                app(scope, receive, send).send(None)
            except StopIteration:
                return status
            raise AssertionError(f"{path} waited for something")

        app._service = service
        try:
            yield ask
        finally:
            runner.run(service.close())
            table_path(settings).unlink(missing_ok=True)
