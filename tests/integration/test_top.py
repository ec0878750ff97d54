"""``fastauth top`` beside a real server."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.running import (
    CHEAP,
    FASTAUTH,
    RunningServer,
    cheap_hash,
    copy_without_users,
    environment,
    fastauth,
    import_lines,
    running_server,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data_dir = copy_without_users(tmp_path_factory.mktemp("top"))
    import_lines(data_dir, [{"username": "alice", "password_hash": cheap_hash("pw")}])
    with running_server(data_dir, "--workers", "2", env=CHEAP) as server:
        yield server


@pytest.fixture
def traffic(server: RunningServer) -> Iterator[None]:
    """Logins and verifications until the end of the test."""
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            server.verify(server.login("alice", "pw").json["token"])

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.mark.usefixtures("traffic")
def test_once_it_prints_what_happened_in_one_interval(server: RunningServer) -> None:
    outcome = fastauth("top", "--once", "--interval", "0.5", data_dir=server.data_dir)
    assert outcome.returncode == 0, outcome.stderr
    text = outcome.stdout
    assert re.search(r"/auth +[\d.]+ +0\.0 +0\.0 +[\d.]+ m?s", text)
    assert re.search(r"/verify +[\d.]+", text)
    for worker in server.workers():
        assert re.search(rf"{worker} +\d+ s +\d+ MiB", text)
    assert "nobody in line" in text


@pytest.mark.usefixtures("traffic")
def test_as_json_it_says_the_same(server: RunningServer) -> None:
    outcome = fastauth("top", "--once", "--json", "--interval", "0.5", data_dir=server.data_dir)
    assert outcome.returncode == 0, outcome.stderr
    seen = json.loads(outcome.stdout)
    routes = {route["route"]: route for route in seen["routes"]}
    assert routes["/auth"]["per_s"] > 0
    assert routes["/auth"]["p99_ms"] > 0
    assert routes["/verify"]["failed_per_s"] == 0
    assert {worker["pid"] for worker in seen["workers"]} == set(server.workers())
    assert seen["hashes_per_s"] > 0
    assert not seen["is_draining"]


def test_without_a_server_it_is_one_clear_line(tmp_path: Path) -> None:
    outcome = fastauth("top", data_dir=tmp_path)
    assert outcome.returncode == 1
    assert outcome.stdout == ""
    assert outcome.stderr == (f"fastauth: no server runs in {tmp_path}; name its directory with --data-dir\n")


@pytest.mark.usefixtures("traffic")
def test_on_a_terminal_it_is_live_until_it_is_interrupted(server: RunningServer) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [FASTAUTH, "top", "--interval", "0.2", "--data-dir", str(server.data_dir)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm-256color", COLUMNS="140", LINES="50"),
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        deadline = time.monotonic() + 10
        while shown.count(b"journeys") < 3 and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 65536)
        assert shown.count(b"journeys") >= 3
        process.send_signal(signal.SIGINT)
        while select.select([ours], [], [], 2)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the terminal's other end is closed
                break
        assert process.wait(5) == 0
        assert b"\x1b[?1049l" in shown  # the screen of before is back
        assert b"Traceback" not in shown
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
