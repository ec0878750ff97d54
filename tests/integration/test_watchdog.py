"""Workers that live and have to be replaced all the same: real ones, made to hang or to grow by a signal."""

import asyncio
import http.client
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from fastauth.rehearsal.arrivals import steady
from fastauth.rehearsal.clients import FixedRequests
from fastauth.rehearsal.open_loop import Stream, drive
from tests.integration.running import (
    CHEAP,
    RunningServer,
    cheap_hash,
    copy_without_users,
    import_lines,
    is_alive,
    running_server,
    verify_bytes,
    wait_for,
)

pytestmark = pytest.mark.integration

# What a worker does upon SIGUSR1. Python runs this file in every process that finds it on its path.
SPINS = "while True: pass"
GROWS = "global hog; hog = bytearray(b'x') * (200 << 20)"
MISBEHAVIOUR = """
import signal

def misbehave(_number, _frame):
    {what}

signal.signal(signal.SIGUSR1, misbehave)
"""


def misbehaving(path: Path, what: str) -> dict[str, str]:
    """Settings of a server whose workers do that when they are told to."""
    folder = path / "python"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(MISBEHAVIOUR.format(what=what))
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**CHEAP, "PYTHONPATH": ":".join(paths), "FASTAUTH_SILENT_WORKER_S": "2"}


def filled(path: Path) -> Path:
    import_lines(copy_without_users(path), [{"username": "alice", "password_hash": cheap_hash("pw")}])
    return path


def logs_in(server: RunningServer) -> bool:
    try:
        return server.login("alice", "pw").status == 200
    except (OSError, http.client.HTTPException):
        return False


def replaced_within(server: RunningServer, worker: int, seconds: float) -> float:
    """How long it takes until that worker is gone and another one answers."""
    began = time.monotonic()
    wait_for(lambda: not is_alive(worker), timeout_s=seconds)
    wait_for(lambda: logs_in(server), timeout_s=5)
    return time.monotonic() - began


def events(server: RunningServer) -> list[str]:
    return [json.loads(line)["event"] for line in server.complaints.splitlines() if line.startswith("{")]


def test_a_worker_whose_loop_is_caught_in_a_circle_tells_where_and_is_replaced(tmp_path: Path) -> None:
    with running_server(filled(tmp_path), env=misbehaving(tmp_path, SPINS)) as server:
        token = server.login("alice", "pw").json["token"]
        (worker,) = server.workers_that_work(1)
        os.kill(worker, signal.SIGUSR1)
        assert replaced_within(server, worker, 8) < 8
        assert server.verify(token).status == 200
        assert events(server).count("worker_wedged") == 1
        stack = server.log.partition('"worker_wedged"')[2]
        assert re.search(r"sitecustomize\.py\", line \d+ in misbehave", stack)
        assert "pw" not in stack.split()
        metrics = server.request("GET", "/metrics").body.decode()
        assert 'fastauth_workers_replaced_total{reason="wedged"} 1.0' in metrics
        assert 'fastauth_workers_replaced_total{reason="died"} 0.0' in metrics


def test_a_stopped_worker_is_replaced_while_the_other_one_serves(tmp_path: Path) -> None:
    with running_server(filled(tmp_path), "--workers", "2", env=misbehaving(tmp_path, SPINS)) as server:
        stopped, other = server.workers_that_work(2)
        os.kill(stopped, signal.SIGSTOP)
        wait_for(lambda: not is_alive(stopped), timeout_s=8)
        wait_for(lambda: len(server.workers()) == 2)
        assert other in server.workers()
        assert events(server).count("worker_wedged") == 1


def test_a_worker_that_is_silent_for_a_moment_is_left_alone(tmp_path: Path) -> None:
    with running_server(filled(tmp_path), env=misbehaving(tmp_path, SPINS)) as server:
        (worker,) = server.workers_that_work(1)
        os.kill(worker, signal.SIGSTOP)
        time.sleep(1)  # half of what it may
        os.kill(worker, signal.SIGCONT)
        assert server.login("alice", "pw").status == 200
        assert server.workers() == [worker]
        assert events(server) == []


def test_a_worker_that_has_grown_too_large_makes_room_for_another_and_no_request_is_lost(tmp_path: Path) -> None:
    env = {**misbehaving(tmp_path, GROWS), "FASTAUTH_WORKER_MEMORY_MIB": "150"}
    with running_server(filled(tmp_path), env=env) as server:
        token = server.login("alice", "pw").json["token"]
        (worker,) = server.workers_that_work(1)

        async def grow_in_the_middle() -> dict[int, int]:
            stream = Stream("verify", FixedRequests([verify_bytes(token)]), steady(6, 200), connections=20)
            load = asyncio.create_task(drive(server.port, [stream]))
            await asyncio.sleep(0.5)
            os.kill(worker, signal.SIGUSR1)
            return (await load)["verify"].counts()

        counts = asyncio.run(grow_in_the_middle())
        wait_for(lambda: not is_alive(worker))
        assert set(counts) == {200}
        assert events(server) == ["worker_too_large"]
        (successor,) = server.workers()
        assert successor != worker
        assert server.stop() == 0


def test_a_server_stops_in_time_while_one_worker_takes_the_place_of_another(tmp_path: Path) -> None:
    env = {**misbehaving(tmp_path, GROWS), "FASTAUTH_WORKER_MEMORY_MIB": "150", "FASTAUTH_GRACE_S": "2"}
    with running_server(filled(tmp_path), env=env) as server:
        (worker,) = server.workers_that_work(1)
        os.kill(worker, signal.SIGUSR1)
        wait_for(lambda: "worker_too_large" in server.log)
        workers = server.workers()
        assert server.stop(10) == 0
        wait_for(lambda: not any(is_alive(one) for one in workers), timeout_s=2)


def test_upon_a_signal_a_worker_tells_where_it_is_and_goes_on(tmp_path: Path) -> None:
    with running_server(filled(tmp_path), env=CHEAP) as server:
        (worker,) = server.workers_that_work(1)
        os.kill(worker, signal.SIGUSR2)
        wait_for(lambda: "most recent call first" in server.log, timeout_s=5)
        assert server.login("alice", "pw").status == 200
        assert server.workers() == [worker]
