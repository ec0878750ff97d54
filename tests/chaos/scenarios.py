"""What is done to a real server under load, and the account of every request.

A scenario runs for so many seconds and gives a ``Report``; ``test_chaos.py`` runs each for a moment and demands what it
promises, ``make chaos`` runs them for longer and keeps the record.
"""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from fastauth.rehearsal.arrivals import steady
from fastauth.rehearsal.clients import FixedRequests, Logins, RefreshChains
from fastauth.rehearsal.open_loop import Stream, drive
from fastauth.rehearsal.samples import Result, Samples
from tests.fault_proxy import fault_proxy
from tests.integration.running import (
    CHEAP,
    RunningServer,
    cheap_hash,
    copy_without_users,
    import_lines,
    is_alive,
    login_bytes,
    running_server,
    verify_bytes,
    wait_for,
)
from tests.postgres_servers import running_postgres
from tests.redis_servers import running_redis

USERS: Final = [[f"user{number}", "pw"] for number in range(50)]
VERIFY_PER_S, LOGIN_PER_S, REFRESH_PER_S = 200, 20, 10
CONNECTIONS: Final = 16  # of each kind
LONGEST_ANSWER_S: Final = 10.0


class Account(msgspec.Struct, kw_only=True):
    """What became of the requests of one kind: ``refused`` is 429 and 503, ``failed`` any other 5xx, ``lost`` no answer
    at all.
    """

    sent: int
    answered: int
    refused: int
    failed: int
    lost: int


class Report(msgspec.Struct, kw_only=True):
    """A scenario: what happened to whom, how much might be lost and why, and how long until all was as before."""

    scenario: str
    requests: dict[str, Account]
    may_lose: int = 0
    because: str = ""
    may_refuse: tuple[str, ...] = ()
    back_s: float | None = None

    @property
    def lost(self) -> int:
        """Of all kinds."""
        return sum(account.lost for account in self.requests.values())


class Crowd:
    """The clients: verifications, logins, and sessions that refresh, on connections that stay open."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        granted = [server.login(*user).json for user in USERS[:20]]
        self.token: str = granted[0]["token"]
        self._refresh = [one["refresh_token"] for one in granted]

    def drive(self, seconds: float, *happenings: tuple[float, Callable[[], Any]]) -> Result:
        """In: what happens when, in seconds from the start; a happening runs in a thread."""

        async def run() -> Result:
            load = asyncio.create_task(drive(self._server.port, self._streams(seconds)))
            began = time.monotonic()
            for at_s, happen in happenings:
                await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
                await asyncio.to_thread(happen)
            return await load

        return asyncio.run(run())

    def _streams(self, seconds: float) -> list[Stream]:
        def stream(name: str, behaviour: Any, per_s: float) -> Stream:
            return Stream(
                name,
                behaviour,
                steady(seconds, per_s),
                connections=CONNECTIONS,
                patience_s=LONGEST_ANSWER_S,
            )

        return [
            stream("verify", FixedRequests([verify_bytes(self.token)]), VERIFY_PER_S),
            stream("login", Logins(USERS), LOGIN_PER_S),
            stream("refresh", RefreshChains(self._refresh), REFRESH_PER_S),
        ]


def account_of(samples: Samples) -> Account:
    counts = samples.counts()
    refused = counts.get(429, 0) + counts.get(503, 0)
    failed = sum(count for status, count in counts.items() if status >= 500 and status != 503)
    lost = sum(count for status, count in counts.items() if status <= 0)
    return Account(
        sent=len(samples), answered=len(samples) - refused - failed - lost, refused=refused, failed=failed, lost=lost
    )


def accounts_of(result: Result, until_s: float = float("inf")) -> dict[str, Account]:
    return {name: account_of(result[name].between(0, until_s)) for name in ("verify", "login", "refresh")}


def user_lines() -> list[dict[str, str]]:
    hashed = cheap_hash("pw")
    return [{"username": name, "password_hash": hashed} for name, _ in USERS]


def filled(data_dir: Path) -> Path:
    import_lines(copy_without_users(data_dir), user_lines())
    return data_dir


def seconds_until(condition: Callable[[], bool], timeout_s: float = 20) -> float:
    began = time.monotonic()
    wait_for(condition, timeout_s=timeout_s)
    return round(time.monotonic() - began, 2)


# ------------------------------------------------------------------ workers


def a_worker_is_killed(path: Path, seconds: float) -> Report:
    """SIGKILL to one of two workers, twice."""
    with running_server(filled(path), "--workers", "2", env=CHEAP) as server:
        back: list[float] = []

        def kill() -> None:
            worker = server.workers()[0]
            os.kill(worker, signal.SIGKILL)
            back.append(seconds_until(lambda: len(server.workers()) == 2 and worker not in server.workers()))

        result = Crowd(server).drive(seconds, (seconds / 4, kill), (seconds / 2, kill))
    return Report(
        scenario="kill -9 of one of two workers, twice",
        requests=accounts_of(result),
        may_lose=2 * CONNECTIONS,
        because="what was under way in that worker",
        back_s=max(back),
    )


def a_worker_is_stopped(path: Path, seconds: float) -> Report:
    """SIGSTOP of one of two workers: it holds its connections, and new ones are given to it, until it is replaced."""
    env = {**CHEAP, "FASTAUTH_SILENT_WORKER_S": "2"}
    with running_server(filled(path), "--workers", "2", env=env) as server:
        back: list[float] = []

        def stop() -> None:
            worker = server.workers_that_work(2)[0]
            os.kill(worker, signal.SIGSTOP)
            back.append(seconds_until(lambda: not is_alive(worker) and len(server.workers()) == 2))

        result = Crowd(server).drive(max(6.0, seconds), (1.0, stop))
    accounts = accounts_of(result)
    silent_s = back[0]
    return Report(
        scenario="SIGSTOP of one of two workers",
        requests=accounts,
        may_lose=round(silent_s * (VERIFY_PER_S + LOGIN_PER_S + REFRESH_PER_S) * 0.75),
        because="what was sent to that worker before it was replaced",
        back_s=silent_s,
    )


def the_server_is_told_to_stop(path: Path, seconds: float) -> Report:
    """SIGTERM under load: everything that is sent before the drain is over is answered."""
    drain_s = max(1.5, seconds / 3)
    with running_server(filled(path), env={**CHEAP, "FASTAUTH_DRAIN_S": str(drain_s)}) as server:
        crowd = Crowd(server)
        began = time.monotonic()
        codes: list[int] = []

        def stop() -> None:
            codes.append(server.stop())

        told_s = 1.0
        result = crowd.drive(told_s + drain_s - 0.2, (told_s, stop))
        took_s = time.monotonic() - began - told_s
        assert codes == [0]
    return Report(
        scenario="SIGTERM under load",
        requests=accounts_of(result),
        back_s=round(took_s, 2),
    )


# ------------------------------------------------------------------ dependencies


REDIS_FAULTS: Final = ("delay", "drop", "reset", "half_open", "garbage")


def redis_fails(path: Path, seconds: float) -> Report:
    """Each fault of Redis in turn, then none."""
    with running_redis() as redis, fault_proxy(redis.port) as proxy:
        env = {**CHEAP, "FASTAUTH_REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0", **LIMITS_ON}
        with running_server(filled(path), "--workers", "2", env=env) as server:
            each_s = max(1.0, seconds / len(REDIS_FAULTS))
            happenings = [
                (number * each_s, lambda fault=fault: proxy.set(fault)) for number, fault in enumerate(REDIS_FAULTS)
            ]
            whole_s = (len(REDIS_FAULTS) + 1) * each_s
            result = Crowd(server).drive(whole_s, *happenings, (whole_s - each_s, lambda: proxy.set("none")))
            back_s = seconds_until(lambda: _degraded(server) == [])
    return Report(scenario="faults of Redis", requests=accounts_of(result), back_s=back_s)


LIMITS_ON: Final = {
    "FASTAUTH_LIMITS__LOGIN_PER_IP": "10000/s burst 10000",
    "FASTAUTH_LIMITS__LOGIN_PER_USER": "10000/s burst 10000",
    "FASTAUTH_LIMITS__REFRESH_PER_IP": "10000/s burst 10000",
    "FASTAUTH_LIMITS__VERIFY_PER_IP": "10000/s burst 10000 leased",
}
POSTGRES_FAULTS: Final = ("drop", "reset", "half_open", "garbage")


def postgres_fails(path: Path, seconds: float) -> Report:
    """Each fault of PostgreSQL in turn, then none: tokens are verified, all else is refused in time."""
    with running_postgres() as postgres, fault_proxy(postgres.port) as proxy:
        direct = {**CHEAP, "FASTAUTH_DATABASE_URL": postgres.url(), "FASTAUTH_ISSUER": "https://auth.example"}
        path.mkdir(exist_ok=True)
        import_lines(path / "node", user_lines(), env=direct)
        proxied = postgres.url().replace(f":{postgres.port}/", f":{proxy.port}/")
        with running_server(path / "node", env={**direct, "FASTAUTH_DATABASE_URL": proxied}) as server:
            each_s = max(1.0, seconds / len(POSTGRES_FAULTS))
            happenings = [
                (number * each_s + 0.5, lambda fault=fault: proxy.set(fault))
                for number, fault in enumerate(POSTGRES_FAULTS)
            ]
            whole_s = (len(POSTGRES_FAULTS) + 1) * each_s
            result = Crowd(server).drive(whole_s, *happenings, (whole_s - each_s, lambda: proxy.set("none")))
            back_s = seconds_until(lambda: server.login(*USERS[0]).status == 200)
    return Report(
        scenario="faults of PostgreSQL",
        requests=accounts_of(result),
        may_refuse=("login", "refresh"),
        back_s=back_s,
    )


def _degraded(server: RunningServer) -> list[str]:
    degraded: list[str] = server.request("GET", "/readyz").json.get("degraded", [])
    return degraded


# ------------------------------------------------------------------ the machine


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of its own. Skips where it cannot be mounted; with ``CI=true`` root can."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail("a tmpfs could not be mounted")
        pytest.skip("needs root, to mount a small file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def the_disk_is_full(path: Path, seconds: float) -> Report:
    """Everything of the server is on a disk without room, for half of the time; a worker dies meanwhile."""
    with small_disk(path / "disk", "32m") as disk, running_server(filled(disk), env=CHEAP) as server:
        ballast = disk / "ballast"

        def fill() -> None:
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4_096))

        def kill() -> None:
            (worker,) = server.workers()
            os.kill(worker, signal.SIGKILL)

        happenings = ((seconds / 4, fill), (seconds / 2, kill), (seconds * 3 / 4, ballast.unlink))
        result = Crowd(server).drive(seconds, *happenings)
        back_s = seconds_until(lambda: server.login(*USERS[0]).status == 200)
    return Report(
        scenario="the disk is full, and the one worker is killed meanwhile",
        requests=accounts_of(result),
        may_lose=round(2 * VERIFY_PER_S),
        because="what came while there was no worker",
        may_refuse=("login", "refresh"),
        back_s=back_s,
    )


class WallClock:
    """The wall clock of processes that are started with ``env``: as far off as it is set, at any time."""

    def __init__(self, folder: Path) -> None:
        library, self._offset = folder / "wall_clock.so", folder / "offset"
        source = Path(__file__).with_name("wall_clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        self.set(0)
        self.env = {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(self._offset)}

    def set(self, offset_s: int) -> None:
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:  # in place: it is mapped
            file.write(struct.pack("q", offset_s))


def the_clock_jumps(path: Path, seconds: float) -> Report:
    """Two hours ahead, and back again. A token of an hour is refused meanwhile, and good again."""
    clock = WallClock(path)
    with running_server(filled(path / "data"), env={**CHEAP, **clock.env}) as server:
        crowd = Crowd(server)
        seen: list[int] = []

        def jump(to_s: int) -> Callable[[], None]:
            def happen() -> None:
                clock.set(to_s)
                fresh = server.login(*USERS[1])
                seen.extend(
                    [server.verify(crowd.token).status, fresh.status, server.verify(fresh.json["token"]).status]
                )

            return happen

        result = crowd.drive(seconds, (seconds / 4, jump(7_200)), (seconds * 3 / 4, jump(0)))
        assert seen == [401, 200, 200, 200, 200, 200]
    return Report(scenario="the clock jumps two hours ahead and back", requests=accounts_of(result))


def clients_are_slow(path: Path, seconds: float) -> Report:
    """Three hundred connections that never finish their head, their body, or never read."""
    with running_server(filled(path), env=CHEAP) as server:
        crowd = Crowd(server)
        body = login_bytes("user0", "pw")
        beginnings = [b"GET /verify HTTP/1.1\r\nHost: loc", body[: len(body) - 5], b""]
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
        for number, connection in enumerate(held):
            connection.sendall(beginnings[number % 3])
        result = crowd.drive(seconds)
        for connection in held:
            connection.close()
    return Report(scenario="300 clients that never finish", requests=accounts_of(result))


SCENARIOS: Final[tuple[Callable[[Path, float], Report], ...]] = (
    a_worker_is_killed,
    a_worker_is_stopped,
    the_server_is_told_to_stop,
    redis_fails,
    postgres_fails,
    the_disk_is_full,
    the_clock_jumps,
    clients_are_slow,
)
