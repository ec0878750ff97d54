"""Sessions on a real server of two workers: races, revocations that reach every worker, crashes, and a full disk."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.backends.locking import locked
from tests.integration.running import (
    CHEAP,
    FULL,
    KeepAlive,
    RawAnswer,
    RunningServer,
    at_once,
    cheap_hash,
    copy_without_users,
    fastauth,
    import_lines,
    running_server,
    verify_bytes,
    wait_for,
)

pytestmark = pytest.mark.integration

PASSWORD = "correct horse battery staple"
NO_LIMITS = {
    "FASTAUTH_LIMITS__REFRESH_PER_IP": "off",
    "FASTAUTH_LIMITS__REFRESH_PER_FAMILY": "off",
    "FASTAUTH_LIMITS__TOKEN_PER_CLIENT": "off",
}
BOUND_S = 1.0


def form_bytes(path: str, fields: dict[str, str], authorization: str = "") -> bytes:
    body = urlencode(fields).encode()
    more = f"Authorization: {authorization}\r\n" if authorization else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n{more}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def refresh_bytes(token: str) -> bytes:
    return form_bytes("/token", {"grant_type": "refresh_token", "refresh_token": token})


def logout_bytes(token: str) -> bytes:
    head = f"POST /logout HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    return (head + "Content-Length: 0\r\n\r\n").encode()


def filled(data_dir: Path, users: int = 1) -> Path:
    copy_without_users(data_dir)
    hashed = cheap_hash(PASSWORD)
    import_lines(data_dir, [{"username": f"u{number}", "password_hash": hashed} for number in range(users)])
    return data_dir


def add_client(data_dir: Path, name: str, *more: str) -> tuple[str, str]:
    added = fastauth("client", "add", name, "--grant", "client_credentials", "--json", *more, data_dir=data_dir)
    assert added.returncode == 0, added.stderr
    made = json.loads(added.stdout)
    return made["client_id"], "Basic " + base64.b64encode(
        f"{made['client_id']}:{made['client_secret']}".encode()
    ).decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data_dir = filled(tmp_path_factory.mktemp("sessions") / "data", 4)
    with running_server(data_dir, "--workers", "2", env={**CHEAP, **NO_LIMITS}) as running:
        yield running


@contextlib.asynccontextmanager
async def connected(server: RunningServer, count: int) -> AsyncIterator[list[KeepAlive]]:
    """Connections that reach every worker: more than a few are spread over all of them."""
    connections = await asyncio.gather(*(KeepAlive.open(server.port) for _ in range(count)))
    try:
        yield connections
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))


async def once(server: RunningServer, request: bytes) -> RawAnswer:
    """One request on a connection of its own."""
    async with connected(server, 1) as (connection,):
        return await connection.send(request)


def granted_by(server: RunningServer, name: str = "u0") -> dict[str, Any]:
    answer = server.login(name, PASSWORD)
    assert answer.status == 200
    granted: dict[str, Any] = answer.json
    return granted


# ------------------------------------------------------------------ races


def test_fifty_refreshes_of_one_token_at_once_have_one_new_head(server: RunningServer) -> None:
    """SECURITY 69: on two workers, again and again; the history is one line."""
    rounds = 1_000 if FULL else 40

    async def race() -> None:
        token = granted_by(server)["refresh_token"]
        history = [token]
        async with connected(server, 50) as connections:
            for _ in range(rounds):
                answers = await asyncio.gather(*(connection.send(refresh_bytes(token)) for connection in connections))
                assert [answer.status for answer in answers] == [200] * 50
                heads = {answer.json["refresh_token"] for answer in answers}
                assert len(heads) == 1
                (token,) = heads
                history.append(token)
            assert len(set(history)) == rounds + 1
            last = await connections[0].send(refresh_bytes(history[-3]))
            assert (last.status, last.json["error"]) == (400, "invalid_grant")
            assert (await connections[1].send(refresh_bytes(token))).status == 400

    asyncio.run(race())


def test_a_logout_in_the_middle_of_a_storm_of_refreshes_is_final(server: RunningServer) -> None:
    async def storm() -> None:
        async with connected(server, 13) as connections:
            for _ in range(5):
                granted = granted_by(server)
                requests = [refresh_bytes(granted["refresh_token"])] * 12
                requests.insert(4, logout_bytes(granted["token"]))
                answers = await asyncio.gather(
                    *(connection.send(request) for connection, request in zip(connections, requests, strict=True))
                )
                assert {answer.status for answer in answers} <= {200, 204, 400}
                made = {granted["refresh_token"]} | {a.json["refresh_token"] for a in answers if a.status == 200}
                for token in made:
                    assert (await connections[0].send(refresh_bytes(token))).status == 400

    asyncio.run(storm())


# ------------------------------------------------------------------ pushed revocation


async def time_until_refused(server: RunningServer, token: str, do: Callable[[], Awaitable[None]]) -> float:
    """Seconds from the end of ``do`` to the last time that any worker took the token."""
    async with connected(server, 8) as connections:

        async def is_taken() -> bool:
            answers = await asyncio.gather(*(connection.send(verify_bytes(token)) for connection in connections))
            return 200 in {answer.status for answer in answers}

        assert await is_taken()
        await do()
        started, taken_s = time.monotonic(), 0.0
        while time.monotonic() - started < taken_s + 0.35:
            if await is_taken():
                taken_s = time.monotonic() - started
            await asyncio.sleep(0.01)
        return taken_s


async def command(server: RunningServer, *arguments: str) -> None:
    done = await asyncio.to_thread(fastauth, *arguments, data_dir=server.data_dir, stdin="another password\n")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", ["/logout", "/revoke"])
def test_what_is_ended_over_http_is_refused_by_every_worker_within_a_second(server: RunningServer, path: str) -> None:
    async def check() -> float:
        token = granted_by(server, "u1")["token"]
        by_path = {
            "/logout": logout_bytes(token),
            "/revoke": form_bytes("/revoke", {"token": token, "client_id": "fastauth"}),
        }

        async def end() -> None:
            assert (await once(server, by_path[path])).status in (200, 204)

        return await time_until_refused(server, token, end)

    assert asyncio.run(check()) < BOUND_S


@pytest.mark.parametrize("what", ["disable", "set-password", "delete"])
def test_what_a_command_does_to_an_account_reaches_every_worker_within_a_second(
    server: RunningServer, what: str
) -> None:
    name = f"user-{what}"
    import_lines(server.data_dir, [{"username": name, "password_hash": cheap_hash(PASSWORD)}])

    async def check() -> float:
        granted = granted_by(server, name)
        more = ["--password-stdin"] if what == "set-password" else []
        taken_s = await time_until_refused(server, granted["token"], lambda: command(server, "user", what, name, *more))
        assert refresh(server, granted["refresh_token"]).status == 400
        assert server.login(name, PASSWORD).status == 401
        return taken_s

    assert asyncio.run(check()) < BOUND_S
    if what == "disable":
        assert fastauth("user", "enable", name, data_dir=server.data_dir).returncode == 0
        for _ in range(4):
            assert server.verify(granted_by(server, name)["token"]).status == 200
    if what == "set-password":
        assert server.login(name, "another password").status == 200


def test_a_disabled_client_loses_its_tokens_on_every_worker_within_a_second(server: RunningServer) -> None:
    _, basic = add_client(server.data_dir, "one")

    async def check() -> float:
        answer = await once(server, form_bytes("/token", {"grant_type": "client_credentials"}, basic))
        token = answer.json["access_token"]
        return await time_until_refused(server, token, lambda: command(server, "client", "disable", "one"))

    assert asyncio.run(check()) < BOUND_S


def _form(token: str) -> tuple[str, dict[str, str]]:
    body = urlencode({"grant_type": "refresh_token", "refresh_token": token})
    return body, {"Content-Type": "application/x-www-form-urlencoded"}


def refresh(server: RunningServer, token: str) -> Any:
    return server.request("POST", "/token", *_form(token))


# ------------------------------------------------------------------ crashes


def test_after_kill_9_of_everything_sessions_live_and_what_was_revoked_stays_revoked(tmp_path: Path) -> None:
    data_dir = filled(tmp_path / "data")
    env = {**CHEAP, **NO_LIMITS, "FASTAUTH_ISSUER": "http://auth.example"}
    with running_server(data_dir, "--workers", "2", env=env) as server:
        kept, ended, revoked = (granted_by(server) for _ in range(3))
        rotated = refresh(server, kept["refresh_token"]).json
        assert server.request("POST", "/logout", headers={"Authorization": f"Bearer {ended['token']}"}).status == 204
        body = urlencode({"token": revoked["token"], "client_id": "fastauth"})
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert server.request("POST", "/revoke", body, form).status == 200
        workers = server.workers()
        server.process.kill()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        server.process.wait()
    with running_server(data_dir, "--workers", "2", env=env) as server:
        for _ in range(4):
            assert [server.verify(granted["token"]).status for granted in (kept, ended, revoked)] == [200, 401, 401]
        assert refresh(server, ended["refresh_token"]).status == 400
        # The answer may have been lost in the crash: the predecessor gives the same successor on any worker.
        assert refresh(server, kept["refresh_token"]).json["refresh_token"] == rotated["refresh_token"]
        assert refresh(server, rotated["refresh_token"]).status == 200
        assert refresh(server, revoked["refresh_token"]).status == 200


async def keep_refreshing(server: RunningServer, token: str, until: asyncio.Event) -> tuple[str, int]:
    """A client that never gives up: the newest token it knows, and how often it was refreshed."""
    count = 0
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with connected(server, 1) as (connection,):
                while not until.is_set():
                    answer = await connection.send(refresh_bytes(token))
                    assert answer.status == 200, answer.body
                    token, count = answer.json["refresh_token"], count + 1
                return token, count
        await asyncio.sleep(0.01)


def test_kill_9_of_a_worker_in_mid_rotation_loses_no_session(server: RunningServer) -> None:
    """SECURITY 81: whoever got no answer asks again with the token they have, and goes on."""
    kills, sessions = (20 if FULL else 2), 8

    async def crash() -> None:
        until = asyncio.Event()
        tokens = [granted_by(server, "u2")["refresh_token"] for _ in range(sessions)]
        keeping = [asyncio.create_task(keep_refreshing(server, token, until)) for token in tokens]
        for _ in range(kills):
            await asyncio.sleep(0.3)
            victim = server.workers()[0]
            os.kill(victim, signal.SIGKILL)
            await asyncio.to_thread(wait_for, lambda gone=victim: gone not in server.workers())
            await asyncio.to_thread(wait_for, lambda: len(server.workers()) == 2)
        await asyncio.sleep(0.3)
        until.set()
        for token, count in await asyncio.gather(*keeping):
            assert count > kills
            assert refresh(server, token).status == 200

    asyncio.run(crash())


def test_while_the_database_is_locked_nothing_is_lost_and_nothing_said_that_is_not_so(server: RunningServer) -> None:
    granted = granted_by(server, "u3")
    with locked(server.data_dir / "fastauth.db"):
        started = time.monotonic()
        headers = {"Authorization": f"Bearer {granted['token']}"}
        answers = at_once(
            [
                lambda: refresh(server, granted["refresh_token"]),
                lambda: server.request("POST", "/logout", headers=headers),
                lambda: server.verify(granted["token"]),
            ]
        )
        waited_s = time.monotonic() - started
    assert answers.pop().status == 200
    assert [answer.status for answer in answers] == [503, 503]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    assert answers[0].json["error"] == "temporarily_unavailable"
    assert waited_s < 5
    assert server.verify(granted["token"]).status == 200
    assert refresh(server, granted["refresh_token"]).status == 200


# ------------------------------------------------------------------ a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail("a tmpfs could not be mounted")
        pytest.skip("needs root, to mount a small file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_on_a_full_disk_writes_are_refused_reads_live_and_no_session_is_lost(tmp_path: Path, small_disk: Path) -> None:
    """SECURITY 80."""
    data_dir = filled(tmp_path / "data")
    shutil.move(data_dir / "fastauth.db", small_disk)
    env = {**CHEAP, **NO_LIMITS, "FASTAUTH_DATABASE_URL": f"sqlite:///{small_disk}/fastauth.db"}
    with running_server(data_dir, env=env) as server:
        granted = granted_by(server)
        token = refresh(server, granted["refresh_token"]).json["refresh_token"]
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4_096))
        refused = None
        for _ in range(400):  # what the WAL still has room for is done
            answer = refresh(server, token)
            if answer.status != 200:
                refused = answer
                break
            token = answer.json["refresh_token"]
        assert refused is not None
        assert (refused.status, refused.json["error"]) == (503, "temporarily_unavailable")
        assert server.login("u0", PASSWORD).status == 503
        assert server.request("POST", "/logout", headers={"Authorization": f"Bearer {granted['token']}"}).status == 503
        assert server.verify(granted["token"]).status == 200
        assert server.request("GET", "/.well-known/jwks.json").status == 200
        ballast.unlink()
        answer = refresh(server, token)
        assert answer.status == 200
        assert refresh(server, answer.json["refresh_token"]).status == 200
        assert server.login("u0", PASSWORD).status == 200
        assert "fa_rt_" not in server.log
        assert server.stop() == 0
    with contextlib.closing(sqlite3.connect(small_disk / "fastauth.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_answer_tells_nothing_of_the_token(server: RunningServer) -> None:
    granted = granted_by(server)
    answers: list[RawAnswer | Any] = [
        refresh(server, granted["refresh_token"] + "x"),
        refresh(server, "fa_rt_" + "B" * 64),
    ]
    for answer in answers:
        assert b"fa_rt_" not in answer.body
    assert "fa_rt_" not in server.log
    assert "fa_cs_" not in server.log
