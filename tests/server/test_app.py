"""The whole application in one process: the routes of the contract over a real database."""

import asyncio
import json
import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from fastauth import Verifier, create_app
from fastauth.backends.passwords import PROFILES, hash_password
from fastauth.domain.users import skeleton
from fastauth.jose.keyring import wrap_key
from fastauth.jose.keys import SigningKey
from fastauth.server.app import Process, compose
from fastauth.server.asgi import AsgiApp
from fastauth.server.bootstrap import load_master_key, new_user
from fastauth.server.settings import Settings, SettingsRefused, load_settings
from fastauth.server.storage import open_storage
from tests.server.asking import HOST, JSON, Answer, ask, body_of, lifespan

T = TypeVar("T")

PASSWORD = "correct horse battery staple"


@pytest.fixture
def settings(tmp_path: Path, migrated_file: Path, signing_key: SigningKey) -> Settings:
    """Settings whose database has the schema, a signing key and the user ``alice`` already."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    shutil.copy(migrated_file, data_dir / "fastauth.db")
    environment = {
        "FASTAUTH_DATA_DIR": str(data_dir),
        "FASTAUTH_ISSUER": "https://auth.example",
        "FASTAUTH_PASSWORDS__PROFILE": "cheapest-for-tests",
        "FASTAUTH_ALLOW_INSECURE": "1",
    }
    settings = load_settings(None, environment, {})

    async def fill() -> None:
        storage = await open_storage(settings)
        row = wrap_key(signing_key, load_master_key(settings, may_create=True), bytes(12), 0, 0)
        assert await storage.keys.change_ring(await storage.keys.ring_version(), row, {})
        password_hash = hash_password(PASSWORD, PROFILES["cheapest-for-tests"])
        await storage.users.add(new_user("alice", password_hash), skeleton("alice"))
        await storage.close()

    asyncio.run(fill())
    return settings


def with_app(settings: Settings, work: Callable[[AsgiApp], Awaitable[T]]) -> T:
    async def run() -> T:
        app = create_app(settings)
        try:
            return await work(app)
        finally:
            await lifespan(app, "lifespan.shutdown")

    return asyncio.run(run())


async def login(app: AsgiApp, username: str, password: str, **scope: str) -> Answer:
    body = json.dumps({"username": username, "password": password}).encode()
    return await ask(app, scope.pop("path", "/auth"), "POST", (HOST, JSON), body_of(body), **scope)


async def verify(app: AsgiApp, token: str, path: str = "/verify") -> Answer:
    return await ask(app, path, headers=(HOST, (b"authorization", b"Bearer " + token.encode())))


def test_who_logs_in_gets_a_token_that_the_server_and_every_verifier_accept(settings: Settings) -> None:
    async def work(app: AsgiApp) -> tuple[Answer, Answer, Answer]:
        granted = await login(app, "alice", PASSWORD)
        jwks = await ask(app, "/.well-known/jwks.json")
        return granted, jwks, await verify(app, granted.json["token"], "/verify/some/path")

    granted, jwks, verified = with_app(settings, work)
    assert (granted.status, jwks.status, verified.status) == (200, 200, 200)
    claims = Verifier(jwks.json, "https://auth.example", "https://auth.example").verify(granted.json["token"])
    assert verified.header("x-auth-subject") == claims.sub
    assert verified.json["preferred_username"] == "alice"


def test_unknown_wrong_and_malformed_are_answered_as_the_contract_says(settings: Settings) -> None:
    async def work(app: AsgiApp) -> list[Answer]:
        return [
            await login(app, "nobody", PASSWORD),
            await login(app, "alice", "wrong"),
            await login(app, "alice", ""),
            await ask(app, "/auth", "POST", (HOST, JSON), body_of(b"{")),
            await ask(app, "/auth", "POST", (HOST,), body_of(b"{}")),
            await ask(app, "/auth"),
            await ask(app, "/verify"),
            await verify(app, "x"),
            await ask(app, "/livez"),
            await ask(app, "/readyz"),
            await ask(app, "/nowhere"),
        ]

    answers = with_app(settings, work)
    assert [answer.status for answer in answers] == [401, 401, 401, 400, 415, 405, 401, 401, 200, 200, 404]
    assert len({(tuple(answer.headers), answer.body) for answer in answers[:3]}) == 1


def test_a_restart_keeps_users_and_keys(settings: Settings) -> None:
    async def grant(app: AsgiApp) -> str:
        token: str = (await login(app, "alice", PASSWORD)).json["token"]
        return token

    token = with_app(settings, grant)
    assert with_app(settings, lambda app: verify(app, token)).status == 200


def test_a_mounted_application_works_below_its_prefix(settings: Settings) -> None:
    async def work(app: AsgiApp) -> Answer:
        return await login(app, "alice", PASSWORD, path="/sso/auth", root_path="/sso")

    assert with_app(settings, work).status == 200


def test_a_mounted_application_leaves_its_hosts_process_alone(settings: Settings) -> None:
    mask = os.umask(0o022)
    handlers = list(logging.getLogger().handlers)
    try:
        assert with_app(settings, lambda app: ask(app, "/livez")).status == 200
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(mask)
    assert logging.getLogger().handlers == handlers


def test_what_the_server_makes_is_its_owners_alone_whatever_the_umask(settings: Settings, migrated_file: Path) -> None:
    (settings.data_path / "fastauth.db").unlink()
    shutil.copyfile(migrated_file, settings.data_path / "fastauth.db")
    (settings.data_path / "master.key").unlink()
    mask = os.umask(0)
    try:
        with_app(settings, lambda app: login(app, "alice", PASSWORD))
    finally:
        os.umask(mask)
    assert (settings.data_path / "master.key").stat().st_mode & 0o777 == 0o600


def test_readiness_follows_the_drain(settings: Settings) -> None:
    draining: list[bool] = []

    async def run() -> list[int]:
        service = await compose(settings, Process.alone(lambda: bool(draining)))

        async def start() -> object:
            return service

        app = AsgiApp(start)  # type: ignore[arg-type]
        statuses = [(await ask(app, "/readyz")).status]
        draining.append(True)
        statuses += [(await ask(app, path)).status for path in ("/readyz", "/livez")]
        await service.close()
        return statuses

    assert asyncio.run(run()) == [200, 503, 200]


def test_settings_that_cannot_be_used_are_refused_when_the_application_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FASTAUTH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FASTAUTH_PORT", "x")
    with pytest.raises(SettingsRefused, match="FASTAUTH_PORT"):
        create_app()


def test_a_start_with_the_wrong_master_key_fails_the_lifespan_and_leaves_the_database_closed(
    settings: Settings, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    (settings.data_path / "master.key").write_text("A" * 43)

    async def run() -> str:
        sent = await lifespan(create_app(settings), "lifespan.startup")
        assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
        message: str = sent[0]["message"]
        return message

    assert "master.key" in asyncio.run(run())
    assert b"start_failed" in capsysbinary.readouterr().err
