"""Limits of real servers: two nodes on one bucket, and what Redis's faults cost requests; part of ``make bench-load``.

Writes a dated JSON record to ``benchmarks/results`` and renders ``benchmarks/README.md`` from it.
"""

import argparse
import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.load.render import publish
from benchmarks.load.servers import end_on_sigterm
from benchmarks.machine import describe
from fastauth.limits import Limit, lease_bound
from fastauth.rehearsal.arrivals import steady
from fastauth.rehearsal.clients import FixedRequests
from fastauth.rehearsal.open_loop import Stream, drive
from fastauth.rehearsal.samples import Result, joined
from tests.integration.running import (
    CHEAP,
    RunningServer,
    cheap_hash,
    copy_without_users,
    import_lines,
    login_bytes,
    running_server,
    verify_bytes,
)
from tests.redis_servers import RedisServer, running_redis, running_sentinel

PASSWORD = "correct horse battery staple"
USERS = 200
NODE_RATE = 1_000.0
SHARED = "500/s burst 500"
LOGINS_PER_S, VERIFICATIONS_PER_S = 100.0, 300.0
FAULT_AT_S, MENDED_AFTER_S = 3.0, 3.0


def data_in(folder: Path) -> Path:
    """A data directory with users whose hashes are cheap."""
    copy_without_users(folder)
    stored = cheap_hash(PASSWORD)
    import_lines(folder, [{"username": f"user{number}", "password_hash": stored} for number in range(USERS)])
    return folder


def token_of(server: RunningServer) -> str:
    """A token that the server accepts."""
    return str(server.login("user0", PASSWORD).json["token"])


def verifications(request: bytes, seconds: float) -> list[Stream]:
    """One request, as often as a node is asked."""
    return [Stream("verify", FixedRequests([request]), steady(seconds, NODE_RATE))]


def two_nodes(folder: Path, tier: str, seconds: float) -> dict[str, Any]:
    """Two nodes, one bucket in Redis, each asked more than the bucket has for both."""
    limit = Limit.parse(f"{SHARED} {tier}")
    with running_redis() as redis:
        env = {**CHEAP, "FASTAUTH_REDIS_URL": redis.url, "FASTAUTH_LIMITS__VERIFY_PER_IP": f"{SHARED} {tier}"}
        with (
            running_server(data_in(folder / f"{tier}-one"), env=env) as one,
            running_server(data_in(folder / f"{tier}-two"), env=env) as two,
        ):
            nodes = [(server.port, verify_bytes(token_of(server))) for server in (one, two)]

            async def load() -> list[Result]:
                return await asyncio.gather(*(drive(port, verifications(request, seconds)) for port, request in nodes))

            results = uvloop.run(load())
    everything = joined([result["verify"] for result in results])
    until_s = max(result.started_s + row.due_s + row.took_s for result in results for row in result["verify"].rows())
    elapsed_s = until_s - min(result.started_s for result in results)
    admitted = everything.counts()[200]
    most = limit.burst + int(elapsed_s * 1e6) // limit.emission_us
    assert set(everything.counts()) == {200, 429}
    assert admitted <= most
    return {
        "mode": tier,
        "requests": len(everything),
        "per_second": round(len(everything) / elapsed_s),
        "admitted_by_node": [result["verify"].counts()[200] for result in results],
        "admitted": admitted,
        "most": most,
        "most_in_any_window": most + (2 * lease_bound(limit) if tier == "leased" else 0),
        "p99_ms": round(everything.quantile_ms(0.99), 2),
    }


class Recovery(threading.Thread):
    """Watches what ``/readyz`` says."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(daemon=True)
        self.degraded: list[tuple[float, bool]] = []
        self._server = server
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            answer = self._server.request("GET", "/readyz")
            self.degraded.append((time.monotonic(), answer.status != 200 or "degraded" in answer.json))

    def end(self) -> None:
        self._ended.set()
        self.join()

    def seconds_after(self, moment_s: float) -> float | None:
        """From the moment until it was no longer degraded; None if it never was."""
        times = [at for at, is_degraded in self.degraded if is_degraded]
        return max(0.0, times[-1] + 0.05 - moment_s) if times else None


def fault(
    folder: Path, url: str, harm: Callable[[], object], mend: Callable[[], object] | None, quiet_s: float
) -> dict[str, Any]:
    """A server of two workers under steady load while something befalls its Redis."""
    env = {
        **CHEAP,
        "FASTAUTH_REDIS_URL": url,
        "FASTAUTH_LIMITS__LOGIN_PER_IP": "1000/s burst 1000",
        "FASTAUTH_LIMITS__LOGIN_PER_USER": "10/m burst 10",
        "FASTAUTH_LIMITS__LOGIN_GLOBAL": "1000/s burst 1000",
        "FASTAUTH_LIMITS__VERIFY_PER_IP": "10000/s burst 10000",
    }
    with running_server(data_in(folder), "--workers", "2", env=env) as server:
        verification = verify_bytes(token_of(server))
        logins = [login_bytes(f"user{number}", PASSWORD) for number in range(USERS)]
        recovery = Recovery(server)
        recovery.start()
        moments: dict[str, float] = {}

        def befall() -> None:
            time.sleep(FAULT_AT_S)
            moments["fault"] = time.monotonic()
            harm()
            if mend is not None:
                time.sleep(MENDED_AFTER_S)
                moments["mended"] = time.monotonic()
                mend()

        async def load() -> Result:
            doing = asyncio.get_running_loop().run_in_executor(None, befall)
            seconds = FAULT_AT_S + (MENDED_AFTER_S if mend else 0) + quiet_s
            result = await drive(
                server.port,
                [
                    Stream("login", FixedRequests(logins), steady(seconds, LOGINS_PER_S)),
                    Stream("verify", FixedRequests([verification]), steady(seconds, VERIFICATIONS_PER_S)),
                ],
            )
            await doing
            return result

        result = uvloop.run(load())
        recovery.end()
        log = server.log
    samples = joined([result["login"], result["verify"]])
    at_s = moments["fault"] - result.started_s
    before = samples.between(0.0, at_s - 0.2)
    struck = samples.between(at_s - 0.2, at_s + 0.5)
    after = samples.between(at_s + 0.5, samples.seconds)
    back_s = recovery.seconds_after(moments.get("mended", moments["fault"]))
    return {
        "requests": len(samples),
        "answers_5xx": sum(status >= 500 for status in samples.status),
        "without_answer": len(samples) - len(samples.answered()),
        "refused": samples.counts().get(429, 0),
        "p50_before_ms": round(before.quantile_ms(0.5), 2),
        "p99_before_ms": round(before.quantile_ms(0.99), 2),
        "longest_before_ms": round(before.quantile_ms(1.0), 1),
        "longest_at_the_fault_ms": round(struck.quantile_ms(1.0), 1),
        "p99_after_ms": round(after.quantile_ms(0.99), 2),
        "shared_again_after_s": None if back_s is None else round(back_s, 2),
        "lost_lines": log.count('"redis_lost"'),
        "back_lines": log.count('"redis_back"'),
    }


# What is done to a Redis, and what ends it.
FAULTS: dict[str, tuple[Callable[[RedisServer], object], Callable[[RedisServer], object] | None]] = {
    "hangs (SIGSTOP), 3 s": (RedisServer.pause, RedisServer.resume),
    "killed, back after 3 s": (RedisServer.kill, RedisServer.start),
    "restarted": (RedisServer.restart, None),
    "FLUSHALL": (lambda redis: redis.command("FLUSHALL"), None),
}


def faults(folder: Path, quiet_s: float) -> dict[str, Any]:
    """Every fault, each on a fresh server and a fresh Redis."""
    told: dict[str, Any] = {}
    for number, (name, (harm, mend)) in enumerate(FAULTS.items()):
        with running_redis() as redis:
            ends = None if mend is None else partial(mend, redis)
            told[name] = fault(folder / f"fault {number}", redis.url, partial(harm, redis), ends, quiet_s)
    with running_sentinel() as sentinels:
        told["master killed, Sentinel"] = fault(folder / "failover", sentinels.url, sentinels.master.kill, None, 6.0)
    return told


def main() -> None:
    """Measure, record, render."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="to see that it works; nothing is recorded")
    options = parser.parse_args()
    end_on_sigterm()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nodes = [two_nodes(folder, tier, 2.0 if options.quick else 10.0) for tier in ("exact", "leased")]
        told = faults(folder, 1.5 if options.quick else 3.0)
    record = {**describe(), "two_nodes": nodes, "faults": told}
    print(json.dumps(record, indent=2))
    publish("limits", record, is_whole=not options.quick)


if __name__ == "__main__":
    main()
