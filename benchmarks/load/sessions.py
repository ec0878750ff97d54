"""Part of ``make bench-load``: the token endpoints on one core, beside what a signature alone and bare HTTP allow.

Interleaved rounds of login, client credentials, refresh and introspection for RS256 and ES256. Writes a dated JSON
record to ``benchmarks/results`` and renders ``benchmarks/README.md``.
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from benchmarks.load.figures import (
    CONNECTIONS,
    FEWEST_ROUNDS,
    LOAD_CORE,
    PASSWORD,
    SERVER_CORE,
    add_admin,
    baseline_server,
    logins_per_second,
    pinned_server,
    wrk,
)
from benchmarks.load.render import publish, sessions_table
from benchmarks.machine import ROOT, describe
from fastauth.jose.algorithms import Algorithm
from fastauth.jose.keys import SigningKey
from tests.integration.running import CHEAP, RunningServer, at_once, fastauth

ALGORITHMS: Final[tuple[Algorithm, ...]] = ("RS256", "ES256")
UNLIMITED: Final = {
    "FASTAUTH_LIMITS__TOKEN_PER_CLIENT": "off",
    "FASTAUTH_LIMITS__REFRESH_PER_IP": "off",
    "FASTAUTH_LIMITS__REFRESH_PER_FAMILY": "off",
}
LIMITED: Final = {
    "FASTAUTH_LIMITS__TOKEN_PER_CLIENT": "1000000/s burst 1000000",
    "FASTAUTH_LIMITS__REFRESH_PER_IP": "1000000/s burst 1000000",
    "FASTAUTH_LIMITS__REFRESH_PER_FAMILY": "1000000/s burst 1000000",
}


def raw_signatures_per_second(alg: Algorithm, seconds: float) -> float:
    """What ``cryptography`` signs on the server's core, as much at a time as a token has."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(SERVER_CORE)})
    try:
        key, data, count = SigningKey.generate(alg), bytes(500), 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            key.sign(data)
            count += 1
        return count / (time.perf_counter() - started)
    finally:
        os.sched_setaffinity(0, everywhere)


def generated(module: str, arguments: list[str], source: object) -> float:
    """Answers a second of a generator on its own core; all of them 200."""
    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-m", module, *arguments]
    output = subprocess.run(
        command, input=json.dumps(source), capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    result = json.loads(output)
    assert set(result["statuses"]) == {"200"}, result
    return float(result["per_second"])


def form(path: str, fields: dict[str, str], basic: str) -> str:
    """A request as text."""
    body = urlencode(fields)
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {basic}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )


def requests_per_second(server: RunningServer, seconds: float, request: str) -> float:
    """The same request again and again."""
    return generated("benchmarks.load.closed_loop", [str(server.port), str(seconds), str(CONNECTIONS)], [request])


def refreshes_per_second(server: RunningServer, seconds: float) -> float:
    """Sessions that each refresh with the token they got last."""
    granted = at_once([lambda: server.login("admin", PASSWORD).json["refresh_token"]] * CONNECTIONS)
    return generated("benchmarks.load.refresh_loop", [str(server.port), str(seconds)], granted)


def add_client(data_dir: Path, env: dict[str, str] | None = None) -> str:
    """A client that may do everything; out: its Authorization header."""
    added = fastauth(
        "client", "add", "bench", "--grant", "client_credentials", "--scope", "a b", "--introspect", "any", "--json",
        data_dir=data_dir, env=env,
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    made = json.loads(added.stdout)
    return "Basic " + base64.b64encode(f"{made['client_id']}:{made['client_secret']}".encode()).decode()


def measure(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Every figure, by row."""
    rows: dict[str, list[float]] = {}
    basics = {}
    for alg in ALGORITHMS:
        add_admin(folder / alg, CHEAP)
        basics[alg] = add_client(folder / alg)

    def note(row: str, value: float) -> None:
        rows.setdefault(row, []).append(value)

    for _ in range(rounds):
        for alg in ALGORITHMS:
            note(f"sign_{alg}", raw_signatures_per_second(alg, seconds / 2))
            credentials = form("/token", {"grant_type": "client_credentials"}, basics[alg])
            env = {**CHEAP, "FASTAUTH_TOKENS__ALG": alg}
            with pinned_server(folder / alg, **env, **UNLIMITED) as server:
                note(f"login_{alg}", logins_per_second(server, seconds))
                note(f"client_{alg}", requests_per_second(server, seconds, credentials))
                note(f"refresh_{alg}", refreshes_per_second(server, seconds))
                token = server.login("admin", PASSWORD).json["token"]
                asked = (urlencode({"token": token}), basics[alg])
                note(f"introspect_{alg}", wrk(f"{server.url}/introspect", seconds, form=asked))
            with pinned_server(folder / alg, **env, **LIMITED) as server:
                note(f"client_limited_{alg}", requests_per_second(server, seconds, credentials))
                note(f"refresh_limited_{alg}", refreshes_per_second(server, seconds))
        with baseline_server() as (url, _):
            note("hello", wrk(f"{url}/hello", seconds))
            note("form", wrk(f"{url}/form", seconds, form=asked))
    return {"figures": {row: statistics.median(values) for row, values in rows.items()}, "rounds": rows}


def main() -> None:
    """Measure, record, render."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = {**describe(), **measure(Path(folder), options.rounds, options.seconds)}
    print(sessions_table(record))
    publish("sessions", record, is_whole=options.rounds >= FEWEST_ROUNDS)


if __name__ == "__main__":
    main()
