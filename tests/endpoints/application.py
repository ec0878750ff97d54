"""The whole application in one process, and an OAuth client's way of talking to it."""

import asyncio
import base64
import json
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from fastauth.backends.passwords import PROFILES, hash_password
from fastauth.domain.clients import Client
from fastauth.domain.users import User, skeleton
from fastauth.jose.keyring import wrap_key
from fastauth.jose.keys import SigningKey
from fastauth.server.app import Process, Service, compose
from fastauth.server.asgi import AsgiApp
from fastauth.server.bootstrap import load_master_key, new_user, open_client_secrets
from fastauth.server.settings import Settings
from fastauth.server.storage import Storage, open_storage
from tests.server.asking import HOST, JSON, Answer, ask, body_of

T = TypeVar("T")

PASSWORD: Final = "correct horse battery staple"
FORM: Final = (b"content-type", b"application/x-www-form-urlencoded")
Fields = dict[str, str] | list[tuple[str, str]] | bytes


class Credentials:
    """A client and its secret."""

    def __init__(self, client_id: str, secret: str) -> None:
        self.client_id = client_id
        self.secret = secret

    @property
    def basic(self) -> tuple[bytes, bytes]:
        """As ``client_secret_basic``."""
        return (b"authorization", b"Basic " + base64.b64encode(f"{self.client_id}:{self.secret}".encode()))

    @property
    def post(self) -> dict[str, str]:
        """As ``client_secret_post``."""
        return {"client_id": self.client_id, "client_secret": self.secret}


class Application:
    """A composed service on an event loop of its own, with a second connection to its database for the operator."""

    def __init__(self, settings: Settings, key: SigningKey) -> None:
        self.settings = settings
        self.key = key
        self._runner = asyncio.Runner()
        self.operator = self.run(open_storage(settings))
        self.run(self._fill())
        self.service: Service | None = None
        self.app = AsgiApp(self._start)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    async def _start(self) -> Service:
        self.service = await compose(self.settings, Process.alone())
        return self.service

    async def _fill(self) -> None:
        master_key = load_master_key(self.settings, may_create=True)
        row = wrap_key(self.key, master_key, bytes(12), 0, 0)
        assert await self.operator.keys.change_ring(await self.operator.keys.ring_version(), row, {})
        await self.operator.users.add(self._user("alice"), skeleton("alice"))

    def _user(self, name: str, scope: str | None = None) -> User:
        return new_user(name, hash_password(PASSWORD, PROFILES["cheapest-for-tests"]), scope)

    def add_user(self, name: str, scope: str | None = None) -> None:
        self.run(self.operator.users.add(self._user(name, scope), skeleton(name)))

    def add_client(self, name: str, **more: Any) -> Credentials:
        """A client of the client_credentials grant unless ``grants`` says otherwise."""

        async def add(storage: Storage) -> Credentials:
            secret, secret_hash = (await open_client_secrets(self.settings, storage)).make(f"id-{name}")
            now_s = int(time.time())
            members = {"grants": ("client_credentials",), "created_at_s": now_s, "updated_at_s": now_s, **more}
            client = Client(client_id=f"id-{name}", name=name, secret_hash=secret_hash, **members)
            await storage.clients.add(client)
            return Credentials(client.client_id, secret)

        return self.run(add(self.operator))

    def followed(self) -> None:
        """Until the service has heard of everything that was told so far."""
        self.run(asyncio.sleep(0.25))

    def form(self, path: str, fields: Fields, *headers: tuple[bytes, bytes], **scope: Any) -> Answer:
        """``POST`` of a form."""
        body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
        return self.run(ask(self.app, path, "POST", (HOST, FORM, *headers), body_of(body), **scope))

    def post_json(self, path: str, value: object, *headers: tuple[bytes, bytes]) -> Answer:
        body = json.dumps(value).encode()
        return self.run(ask(self.app, path, "POST", (HOST, JSON, *headers), body_of(body)))

    def login(self, name: str = "alice") -> dict[str, Any]:
        answer = self.post_json("/auth", {"username": name, "password": PASSWORD})
        assert answer.status == 200
        granted: dict[str, Any] = answer.json
        return granted

    def refresh(self, token: str, **fields: str) -> Answer:
        return self.form("/token", {"grant_type": "refresh_token", "refresh_token": token, **fields})

    def verify(self, token: str) -> int:
        return self.run(ask(self.app, "/verify", headers=(HOST, bearer(token)))).status

    def close(self) -> None:
        if self.service is not None:
            self.run(self.service.close())
        self.run(self.operator.close())
        self._runner.close()


def bearer(token: str) -> tuple[bytes, bytes]:
    """The Authorization header."""
    return (b"authorization", b"Bearer " + token.encode())
