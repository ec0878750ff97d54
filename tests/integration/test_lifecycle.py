"""Starting, stopping, dying and coming back: the processes of a server and what they leave on disk."""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog

from fastauth import create_app
from fastauth.server.settings import Settings, load_settings
from tests.integration.running import (
    CHEAP,
    FASTAUTH,
    Answer,
    KeepAlive,
    RunningServer,
    at_once,
    cheap_hash,
    copy_without_users,
    environment,
    fastauth,
    free_port,
    import_lines,
    is_alive,
    login_bytes,
    running_server,
    wait_for,
    without_audit,
)

PASSWORD = "a password of alice"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - the warning about it is what is tested


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a server with the user alice has left behind, to be copied and never changed."""
    path = copy_without_users(tmp_path_factory.mktemp("pristine"))
    import_lines(path, [{"username": "alice", "password_hash": cheap_hash(PASSWORD)}])
    return path


@pytest.fixture
def data_dir(tmp_path: Path, pristine: Path) -> Path:
    """The data directory of a server that has run, with the user alice."""
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    for name in ("fastauth.db", "master.key"):
        shutil.copy2(pristine / name, path)
    return path


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, pristine: Path) -> Iterator[RunningServer]:
    """A running server with two workers, for the tests that get in its way and must not stop it."""
    path = tmp_path_factory.mktemp("serving")
    for name in ("fastauth.db", "master.key"):
        shutil.copy2(pristine / name, path)
    with running_server(path, "--workers", "2", env=CHEAP) as running:
        yield running


def serve_once(data_dir: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A ``fastauth serve`` that is expected to end by itself."""
    return fastauth("serve", "--port", str(free_port()), *arguments, data_dir=data_dir, env={**CHEAP, **(env or {})})


def assert_refused(outcome: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit 1 and one line on standard error, with these words in it."""
    assert outcome.returncode == 1
    assert outcome.stdout == ""
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("fastauth: ")
    for word in words:
        assert word in line


# ---------------------------------------------------------------- starting


def test_the_first_start_prints_the_password_once_and_the_second_start_only_that_it_is_ready(tmp_path: Path) -> None:
    port = free_port()
    with running_server(tmp_path / "new", env=CHEAP, port=port) as first:
        password = first.first_password
        lines = first.out.read_text().splitlines()
        assert [line for line in lines if password in line] == lines[1:3]
        assert lines[1] == f"password: {password}"
        assert lines[-1] == f"fastauth: ready on {first.url}"
        assert len(password) >= 20
        assert password.isalnum()
        assert password not in first.log
        token = first.login("admin", password).json["token"]
        jwks = first.request("GET", "/.well-known/jwks.json").body
    with running_server(tmp_path / "new", env=CHEAP, port=port) as second:
        assert second.out.read_text() == f"fastauth: ready on {second.url}\n"
        assert second.complaints == ""
        assert second.request("GET", "/.well-known/jwks.json").body == jwks
        before = second.verify(token)  # a token outlives the server that made it
        after = second.verify(second.login("admin", password).json["token"])
        assert before.status == after.status == 200
        assert before.json["sub"] == after.json["sub"]


def test_a_server_with_users_makes_no_admin(serving: RunningServer) -> None:
    assert serving.out.read_text() == f"fastauth: ready on {serving.url}\n"
    assert fastauth("user", "show", "admin", data_dir=serving.data_dir).returncode == 1


def test_a_second_server_on_the_same_data_is_refused_and_does_not_disturb_the_first(serving: RunningServer) -> None:
    second = serve_once(serving.data_dir)
    assert_refused(second, "another fastauth", str(serving.data_dir))
    assert (serving.data_dir / "fastauth.pid").read_text() == f"{serving.process.pid}\n"
    assert serving.login("alice", PASSWORD).status == 200
    assert serving.request("GET", "/readyz").status == 200


def test_the_port_of_another_fastauth_is_refused_before_anything_is_made(
    serving: RunningServer, tmp_path: Path
) -> None:
    refused = serve_once(tmp_path / "other", "--port", str(serving.port))
    assert_refused(refused, str(serving.port), "--port")
    assert not (tmp_path / "other" / "fastauth.db").exists()  # so no password was made and lost


def test_the_port_of_another_program_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(serve_once(tmp_path, "--port", str(port)), str(port), "--port")


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    env = {"FASTAUTH_ISSUER": "https://auth.example"}
    hosts = ("192.0.2.1", "nowhere.invalid")
    for host, outcome in zip(
        hosts, at_once([partial(serve_once, tmp_path, "--host", host, env=env) for host in hosts]), strict=True
    ):
        assert_refused(outcome, host, "--host")


def test_a_data_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    paths = (tmp_path / "file", tmp_path / "file" / "below")
    for path, outcome in zip(paths, at_once([partial(serve_once, path) for path in paths]), strict=True):
        assert_refused(outcome, str(path), "--data-dir")


def test_a_file_that_is_no_database_of_this_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fastauth.db").write_bytes(os.urandom(8_192))
    assert_refused(serve_once(tmp_path), "database")
    (tmp_path / "fastauth.db").unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "fastauth.db")) as database, database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    assert_refused(serve_once(tmp_path), "fastauth.db", "something else")


def test_a_database_of_a_newer_version_is_refused(data_dir: Path) -> None:
    with contextlib.closing(sqlite3.connect(data_dir / "fastauth.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    assert_refused(serve_once(data_dir), "9999")


def test_a_database_that_another_program_holds_locked_is_refused(data_dir: Path) -> None:
    with contextlib.closing(sqlite3.connect(data_dir / "fastauth.db", isolation_level=None)) as database:
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        assert_refused(serve_once(data_dir), "database", "locked")


# ---------------------------------------------------------------- files


def _open_to_others(folder: Path) -> dict[str, str]:
    return {
        path.name: oct(stat.S_IMODE(path.stat().st_mode))
        for path in (folder, *folder.rglob("*"))
        if path.stat().st_mode & 0o077
    }


@pytest.mark.parametrize(
    "arguments",
    [("user", "add", "bob"), ("migrate",)],
    ids=["user add", "migrate"],
)
def test_what_a_command_makes_is_for_its_owner_alone_whatever_the_umask(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    subprocess.run(
        [FASTAUTH, *arguments, "--data-dir", str(tmp_path / "data")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(**CHEAP),
        umask=0,
        timeout=60,
        check=True,
    )
    assert (tmp_path / "data" / "fastauth.db").exists()
    assert _open_to_others(tmp_path / "data") == {}


def test_what_a_server_makes_is_for_its_owner_alone(tmp_path: Path) -> None:
    env = {**CHEAP, "FASTAUTH_DATA_DIR": str(tmp_path / "inner" / "data")}
    port = free_port()
    process = subprocess.Popen(
        [FASTAUTH, "serve", "--port", str(port)],
        stdout=subprocess.PIPE,
        env=environment(FASTAUTH_DRAIN_S="0", **env),
        umask=0,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert any("ready on" in line for line in process.stdout)
        made = {path.name for path in (tmp_path / "inner" / "data").iterdir()}
        assert {"fastauth.db", "master.key", "fastauth.pid"} <= made
        assert _open_to_others(tmp_path / "inner" / "data") == {}
        mode = stat.S_IMODE((tmp_path / "inner" / "data" / "master.key").stat().st_mode)
        assert mode == 0o600
        assert stat.S_IMODE((tmp_path / "inner" / "data").stat().st_mode) == 0o700
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_the_master_key_and_the_private_key_are_nowhere_else_on_disk(serving: RunningServer) -> None:
    master = (serving.data_dir / "master.key").read_bytes().strip()
    for path in serving.data_dir.iterdir():
        content = path.read_bytes()
        assert path.name == "master.key" or master not in content
        assert b"PRIVATE KEY" not in content


# ---------------------------------------------------------------- the master key


def test_without_its_master_key_a_server_does_not_start_and_makes_no_new_one(data_dir: Path) -> None:
    (data_dir / "master.key").unlink()
    assert_refused(serve_once(data_dir), "master.key", "missing")
    assert not (data_dir / "master.key").exists()


def test_a_wrong_or_unreadable_master_key_is_one_clear_line(data_dir: Path, tmp_path: Path) -> None:
    good = (data_dir / "master.key").read_text()
    other = "A" * 43 + "="
    kept: dict[str, str] = {}
    cases: dict[str, tuple[bytes, int, dict[str, str], tuple[str, ...]]] = {
        "another": (other.encode(), 0o600, kept, ("master key", "master.key")),
        "garbage": (b"garbage", 0o600, kept, ("master key",)),
        "empty": (b"", 0o600, kept, ("master key",)),
        "not text": (b"\xff\xfe\x00", 0o600, kept, ("master.key",)),
        "open to all": (good.encode(), 0o644, kept, ("master.key", "chmod 600")),
        "another in the environment": (good.encode(), 0o600, {"FASTAUTH_MASTER_KEY": other}, ("master key",)),
        "garbage in the environment": (good.encode(), 0o600, {"FASTAUTH_MASTER_KEY": "x" + good.strip()}, ("master",)),
    }
    starts = []
    for name, (content, mode, env, _) in cases.items():
        folder = tmp_path / name
        folder.mkdir(mode=0o700)
        shutil.copy2(data_dir / "fastauth.db", folder)
        (folder / "master.key").write_bytes(content)
        (folder / "master.key").chmod(mode)
        starts.append(partial(serve_once, folder, env=env))
    for outcome, (_, _, _, words) in zip(at_once(starts), cases.values(), strict=True):
        assert_refused(outcome, *words)
        assert good.strip() not in outcome.stderr


def test_the_master_key_may_come_from_a_file_of_its_own(data_dir: Path, tmp_path: Path) -> None:
    key = (data_dir / "master.key").read_text().strip()
    (data_dir / "master.key").unlink()
    secret = tmp_path / "secret"
    secret.write_text(key + "\n")
    with running_server(data_dir, env={**CHEAP, "FASTAUTH_MASTER_KEY_FILE": str(secret)}) as server:
        assert server.login("alice", PASSWORD).status == 200
        assert key not in server.log
    assert not (data_dir / "master.key").exists()
    both = {"FASTAUTH_MASTER_KEY": key, "FASTAUTH_MASTER_KEY_FILE": str(secret)}
    assert_refused(serve_once(data_dir, env=both), "FASTAUTH_MASTER_KEY_FILE", "twice")


# ---------------------------------------------------------------- stopping


def _connection_is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_turns_readiness_off_while_everything_else_works_and_then_exits_0(data_dir: Path) -> None:
    with running_server(data_dir, env={**CHEAP, "FASTAUTH_DRAIN_S": "1.5"}) as server:
        assert server.request("GET", "/readyz").status == 200
        told_at = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.request("GET", "/readyz").status == 503, timeout_s=1)
        logins = 0
        while time.monotonic() - told_at < 1.0:
            answer = server.login("alice", PASSWORD)
            assert answer.status == 200
            assert server.verify(answer.json["token"]).status == 200
            assert server.request("GET", "/livez").status == 200
            draining = server.request("GET", "/readyz")
            assert (draining.status, draining.json["status"]) == (503, "draining")
            logins += 1
        assert logins >= 5
        assert server.request("GET", "/livez").headers["connection"] == "close"  # whoever has one lets go of it in time
        assert (data_dir / "fastauth.pid").read_text() == f"{server.process.pid}\n"
        assert server.process.wait(10) == 0
        assert not (data_dir / "fastauth.pid").exists()
        assert 1.4 < time.monotonic() - told_at < 5
        assert _connection_is_refused(server.port)


def test_logins_in_flight_are_finished_before_the_end(tmp_path: Path) -> None:
    added = fastauth("user", "add", "alice", "--password-stdin", data_dir=tmp_path, stdin=PASSWORD)
    assert added.returncode == 0, added.stderr

    async def storm(server: RunningServer) -> list[int]:
        connections = [await KeepAlive.open(server.port) for _ in range(12)]
        logins = [asyncio.create_task(connection.send(login_bytes("alice", PASSWORD))) for connection in connections]
        await asyncio.wait(logins, return_when=asyncio.FIRST_COMPLETED)  # the others wait in the queue by now
        server.process.send_signal(signal.SIGTERM)
        statuses = [(await login).status for login in logins]
        for connection in connections:
            await connection.close()
        return statuses

    with running_server(tmp_path) as server:  # the hash of the default profile takes long enough
        assert asyncio.run(storm(server)) == [200] * 12
        assert server.process.wait(10) == 0


def test_the_second_sigterm_skips_the_wait(data_dir: Path) -> None:
    with running_server(data_dir, env={**CHEAP, "FASTAUTH_DRAIN_S": "60"}) as server:
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.request("GET", "/readyz").status == 503, timeout_s=2)
        told_at = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert time.monotonic() - told_at < 3


def test_ctrl_c_reaches_the_whole_process_group_and_still_drains(data_dir: Path) -> None:
    port = free_port()
    out = data_dir / "out.txt"
    with out.open("w") as stdout:
        process = subprocess.Popen(
            [FASTAUTH, "serve", "--port", str(port), "--data-dir", str(data_dir), "--workers", "2"],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            env=environment(FASTAUTH_DRAIN_S="1", **CHEAP),
            start_new_session=True,
        )
    server = RunningServer(process, port, data_dir, out, out)  # type: ignore[arg-type]
    try:
        wait_for(lambda: "ready on" in out.read_text())
        told_at = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        wait_for(lambda: server.request("GET", "/readyz").status == 503, timeout_s=1)
        assert server.login("alice", PASSWORD).status == 200
        assert process.wait(10) == 0
        assert time.monotonic() - told_at > 0.9
        assert "Traceback" not in out.read_text()
        ready, stopping = without_audit(out.read_text())
        assert ready.startswith("fastauth: ready on ")
        assert json.loads(stopping)["event"] == "stopping"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_worker_that_hangs_is_killed_when_the_grace_is_over(data_dir: Path) -> None:
    with running_server(data_dir, env={**CHEAP, "FASTAUTH_GRACE_S": "1"}) as server:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        told_at = time.monotonic()
        assert server.stop(10) == 0
        assert time.monotonic() - told_at < 5
        wait_for(lambda: not is_alive(worker), timeout_s=2)


def test_a_log_that_nobody_reads_keeps_the_server_neither_from_answering_nor_from_stopping(data_dir: Path) -> None:
    port, (ours, theirs) = free_port(), os.pipe()
    os.set_blocking(theirs, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(theirs, bytes(4_096))
    os.set_blocking(theirs, True)  # as a server finds it
    process = subprocess.Popen(
        [FASTAUTH, "serve", "--port", str(port), "--data-dir", str(data_dir)],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        text=True,
        env=environment(FASTAUTH_DRAIN_S="0", **CHEAP),
    )
    try:
        server = RunningServer(process, port, data_dir, data_dir, data_dir)
        wait_for(lambda: not _connection_is_refused(port))
        assert server.login("alice", PASSWORD).status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def test_sigusr2_to_the_parent_writes_its_stacks_and_ends_nothing(data_dir: Path) -> None:
    with running_server(data_dir, env=CHEAP) as server:
        server.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: "most recent call first" in server.log, timeout_s=5)
        assert server.login("alice", PASSWORD).status == 200


def test_the_event_loop_of_a_worker_interrupts_nobody_and_its_parent_is_as_it_was(serving: RunningServer) -> None:
    assert os.sched_getscheduler(serving.workers()[0]) == os.SCHED_BATCH
    assert os.sched_getscheduler(serving.process.pid) == os.sched_getscheduler(0)


def test_sighup_stops_nothing(serving: RunningServer) -> None:
    serving.process.send_signal(signal.SIGHUP)
    for _ in range(20):
        assert serving.login("alice", PASSWORD).status == 200
    assert serving.process.poll() is None


# ---------------------------------------------------------------- dying


def _logs_in(server: RunningServer) -> bool:
    try:
        return server.login("alice", PASSWORD).status == 200
    except (OSError, http.client.HTTPException):
        return False


def _kill_a_worker_and_wait(server: RunningServer) -> float:
    """Seconds until a new worker logs people in."""
    before = server.workers()
    killed_at = time.monotonic()
    os.kill(before[0], signal.SIGKILL)
    wait_for(
        lambda: before[0] not in server.workers() and len(server.workers()) == len(before) and _logs_in(server),
        timeout_s=10,
    )
    return time.monotonic() - killed_at


def test_a_worker_killed_twice_in_two_seconds_is_back_in_under_a_second_each_time(data_dir: Path) -> None:
    with running_server(data_dir, env=CHEAP) as server:
        started = time.monotonic()
        assert _kill_a_worker_and_wait(server) < 1
        assert _kill_a_worker_and_wait(server) < 1
        assert time.monotonic() - started < 2
        assert server.log.count("worker_died") == 2
        assert server.process.poll() is None
        assert server.stop() == 0


def test_while_one_of_two_workers_dies_the_other_keeps_answering(data_dir: Path) -> None:
    with running_server(data_dir, "--workers", "2", env=CHEAP) as server:
        before = server.workers()
        lost = threading.Event()
        answered = 0
        os.kill(before[1], signal.SIGKILL)
        deadline = time.monotonic() + 5
        while not lost.is_set() and time.monotonic() < deadline:
            if _logs_in(server):
                answered += 1
            if len(set(server.workers()) - set(before)) == 1 and answered >= 20:
                lost.set()
        assert answered >= 20
        assert before[0] in server.workers()
        assert len(server.workers()) == 2


def test_a_worker_that_is_told_to_stop_by_itself_is_replaced(data_dir: Path) -> None:
    with running_server(data_dir, env=CHEAP) as server:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGTERM)
        wait_for(lambda: server.workers() not in ([worker], []) and _logs_in(server), timeout_s=10)
        assert server.process.poll() is None


def test_when_the_parent_is_killed_its_workers_leave_and_a_new_server_can_start(data_dir: Path) -> None:
    with running_server(data_dir, "--workers", "2", env=CHEAP) as server:
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        wait_for(lambda: not any(is_alive(worker) for worker in workers), timeout_s=5)
    assert (data_dir / "fastauth.pid").read_text() == f"{server.process.pid}\n"  # stale, and in nobody's way
    with running_server(data_dir, env=CHEAP, port=server.port) as successor:
        assert successor.login("alice", PASSWORD).status == 200
        assert (data_dir / "fastauth.pid").read_text() == f"{successor.process.pid}\n"


def test_the_database_is_whole_after_a_kill_in_the_middle_of_writes(data_dir: Path) -> None:
    lines = [{"username": f"user{i}", "password_hash": cheap_hash("x")} for i in range(3_000)]
    file = data_dir / "many.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    importing = subprocess.Popen(
        [FASTAUTH, "user", "import", str(file), "--data-dir", str(data_dir)],
        env=environment(**CHEAP),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def count() -> int:
        with contextlib.closing(sqlite3.connect(data_dir / "fastauth.db")) as database:
            ((number,),) = database.execute("SELECT count(*) FROM users").fetchall()
        return int(number)

    with running_server(data_dir, env=CHEAP) as server:
        wait_for(lambda: count() > 1 or importing.poll() is not None)
        importing.kill()
        importing.wait()
        assert server.login("alice", PASSWORD).status == 200
        again = fastauth("user", "import", str(file), "--json", data_dir=data_dir, env=CHEAP)
        report = json.loads(again.stdout)
        assert report["added"] + report["existing"] == 3_000
        assert report["existing"] > 0
        assert server.login("user2999", "x").status == 200
    with contextlib.closing(sqlite3.connect(data_dir / "fastauth.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert count() == 3_001


# ---------------------------------------------------------------- changes while it serves


def test_what_a_command_changes_holds_for_the_next_login(serving: RunningServer) -> None:
    def status(password: str) -> set[int]:
        return {serving.login("carol", password).status for _ in range(8)}  # both workers

    def run(*arguments: str, stdin: str = "") -> None:
        outcome = fastauth("user", *arguments, data_dir=serving.data_dir, stdin=stdin, env=CHEAP)
        assert outcome.returncode == 0, outcome.stderr

    assert status("one") == {401}
    run("add", "carol", "--password-stdin", stdin="one")
    assert status("one") == {200}
    run("disable", "carol")
    assert status("one") == {401}
    run("enable", "carol")
    assert status("one") == {200}
    run("set-password", "carol", "--password-stdin", stdin="two")
    assert status("one") == {401}
    assert status("two") == {200}
    run("delete", "carol")
    assert status("two") == {401}


def test_two_workers_sign_with_one_key_from_the_first_start_on(tmp_path: Path) -> None:
    with running_server(tmp_path / "new", env={**CHEAP, "FASTAUTH_WORKERS": "2"}) as server:
        assert len(server.workers()) == 2
        tokens = [server.login("admin", server.first_password).json["token"] for _ in range(24)]
        (key,) = server.request("GET", "/.well-known/jwks.json").json["keys"]
        assert {jwt.get_unverified_header(token)["kid"] for token in tokens} == {key["kid"]}
        assert {server.verify(token).status for token in tokens for _ in range(4)} == {200}


# ---------------------------------------------------------------- addresses and TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return cert, key


def _tls(cert: Path, key: Path) -> dict[str, str]:
    return {**CHEAP, "FASTAUTH_TLS__CERT_FILE": str(cert), "FASTAUTH_TLS__KEY_FILE": str(key)}


def _ask(connection: http.client.HTTPConnection, path: str, body: str | None = None, token: str = "") -> Answer:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        connection.request("POST" if body else "GET", path, body, headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def test_with_a_certificate_the_server_speaks_tls_and_its_issuer_is_https(
    data_dir: Path, certificate: tuple[Path, Path]
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    with running_server(data_dir, env=_tls(*certificate)) as server:
        assert server.out.read_text() == f"fastauth: ready on https://127.0.0.1:{server.port}\n"
        body = json.dumps({"username": "alice", "password": PASSWORD})
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=trusting)
        answer = _ask(connection, "/auth", body)
        assert answer.status == 200
        claims = jwt.decode(answer.json["token"], options={"verify_signature": False})
        assert claims["iss"] == f"https://127.0.0.1:{server.port}"
        assert _ask(connection, "/verify", token=answer.json["token"]).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            _ask(http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10), "/livez")
        assert b"200 OK" not in server.raw(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", timeout_s=2)
        assert _ask(connection, "/livez").status == 200


def test_a_certificate_that_is_none_is_one_clear_line(
    data_dir: Path, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, key = certificate
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate")
    other = tmp_path / "other.pem"
    subprocess.run(["openssl", "genrsa", "-out", str(other), "2048"], check=True, capture_output=True, timeout=60)
    pairs = ((garbage, key), (cert, garbage), (cert, other), (key, cert))
    folders = [shutil.copytree(data_dir, tmp_path / str(number)) for number in range(len(pairs))]
    starts = [partial(serve_once, folder, env=_tls(*pair)) for folder, pair in zip(folders, pairs, strict=True)]
    for outcome in at_once(starts):
        assert_refused(outcome, "tls")


def test_a_certificate_without_its_key_or_that_is_missing_is_refused(
    data_dir: Path, certificate: tuple[Path, Path]
) -> None:
    assert_refused(serve_once(data_dir, env={"FASTAUTH_TLS__CERT_FILE": str(certificate[0])}), "key_file")
    assert_refused(serve_once(data_dir, env=_tls(Path("/nowhere/cert.pem"), certificate[1])), "/nowhere/cert.pem")


def test_an_ipv6_address_works(data_dir: Path) -> None:
    with running_server(data_dir, "--host", "::1", env=CHEAP) as server:
        assert server.out.read_text() == f"fastauth: ready on http://[::1]:{server.port}\n"
        body = json.dumps({"username": "alice", "password": PASSWORD})
        answer = _ask(http.client.HTTPConnection("::1", server.port, timeout=10), "/auth", body)
        claims = jwt.decode(answer.json["token"], options={"verify_signature": False})
        assert claims["iss"] == f"http://[::1]:{server.port}"
        assert _connection_is_refused(server.port)  # nothing listens on 127.0.0.1


def test_a_host_name_of_this_machine_works(data_dir: Path) -> None:
    with running_server(data_dir, "--host", "localhost", env=CHEAP) as server:
        assert f"ready on http://localhost:{server.port}" in server.out.read_text()
        connection = http.client.HTTPConnection("localhost", server.port, timeout=10)
        assert _ask(connection, "/livez").status == 200


def test_a_host_that_is_not_loopback_needs_an_issuer(tmp_path: Path) -> None:
    hosts = (EVERYWHERE, "::", "192.0.2.1")
    for outcome in at_once([partial(serve_once, tmp_path, "--host", host) for host in hosts]):
        assert_refused(outcome, "FASTAUTH_ISSUER")
    assert not (tmp_path / "fastauth.db").exists()


def test_passwords_in_the_clear_beyond_this_machine_are_warned_of_loudly(data_dir: Path) -> None:
    env = {**CHEAP, "FASTAUTH_ISSUER": "https://auth.example"}
    with running_server(data_dir, "--host", EVERYWHERE, env=env) as server:
        assert "WARNING" in server.log
        assert "unencrypted" in server.log
        token = server.login("alice", PASSWORD).json["token"]
        assert jwt.decode(token, options={"verify_signature": False})["iss"] == "https://auth.example"
        assert server.verify(token).status == 200


# ---------------------------------------------------------------- inside another application


class Call:
    """One request through the ASGI interface, as a host application makes it."""

    def __init__(self, root_path: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self._body = body
        sent = {"host": "localhost", "content-type": "application/json", **(headers or {})}
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST" if body else "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": root_path,
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")


def _settings(data_dir: Path) -> Settings:
    return load_settings(None, CHEAP, {"data_dir": str(data_dir), "issuer": "https://app.example/accounts"})


async def _shut_down(app: Any) -> list[str]:
    """The lifespan, from start to end."""
    events = iter(["lifespan.startup", "lifespan.shutdown"])
    told: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(events)}

    async def send(message: Any) -> None:
        told.append(message["type"])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    return told


@pytest.mark.parametrize("root_path", ["", "/accounts", "/deep/er"])
def test_mounted_in_another_application_it_answers_below_its_path(data_dir: Path, root_path: str) -> None:
    app = create_app(_settings(data_dir))
    login = json.dumps({"username": "alice", "password": PASSWORD}).encode()

    async def run() -> None:
        # The first request starts it: a host does not pass the lifespan on to what is mounted.
        for prefix in (root_path, ""):  # hosts differ in whether the path keeps the mount's prefix
            call = Call(root_path, f"{prefix}/auth", login)
            await app(call.scope, call.receive, call.send)
            assert call.status == 200, call.body
            token = json.loads(call.body)["token"]
            verify = Call(root_path, f"{prefix}/verify", headers={"authorization": f"Bearer {token}"})
            await app(verify.scope, verify.receive, verify.send)
            assert verify.status == 200
            assert json.loads(verify.body)["iss"] == "https://app.example/accounts"
            missing = Call(root_path, f"{prefix}/nothing")
            await app(missing.scope, missing.receive, missing.send)
            assert (missing.status, json.loads(missing.body)["code"]) == (404, "path_not_found")
        assert await _shut_down(app) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    asyncio.run(run())


def test_a_path_that_only_begins_like_the_mount_is_another_path(data_dir: Path) -> None:
    app = create_app(_settings(data_dir))

    async def run() -> None:
        call = Call("/acc", "/accounts/livez")
        await app(call.scope, call.receive, call.send)
        assert call.status == 404
        await _shut_down(app)

    asyncio.run(run())


def test_mounted_in_another_application_it_leaves_the_process_as_it_was(data_dir: Path) -> None:
    umask = os.umask(0o022)
    logging = structlog.get_config()
    try:
        app = create_app(_settings(data_dir))

        async def run() -> None:
            call = Call("", "/livez")
            await app(call.scope, call.receive, call.send)
            assert call.status == 200
            await _shut_down(app)

        asyncio.run(run())
        now = os.umask(0o022)
        assert now == 0o022
        assert structlog.get_config() == logging
    finally:
        os.umask(umask)
        structlog.configure(**logging)


def test_a_mounted_application_that_cannot_start_says_so_to_its_host(data_dir: Path) -> None:
    (data_dir / "master.key").unlink()
    app = create_app(_settings(data_dir))
    assert asyncio.run(_shut_down(app)) == ["lifespan.startup.failed"]


def test_create_app_refuses_settings_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FASTAUTH_TEST")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FASTAUTH_NONSENSE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match="FASTAUTH_NONSENSE"):
        create_app()
    assert list(tmp_path.iterdir()) == []
