"""``make bench-load``: start-to-ready time, memory, logins and verifications a second on one core.

The server is pinned to one core and the generator to another; rounds are interleaved and the median is kept. Writes a
dated JSON record to ``benchmarks/results`` and renders ``benchmarks/README.md`` from it.
"""

import argparse
import json
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.load.render import load_table, publish
from benchmarks.machine import ROOT, describe
from fastauth.backends.passwords import PROFILES, check_password, hash_password
from fastauth.jose.issuer import Issuer
from fastauth.server.settings import load_settings
from tests.integration.running import (
    CHEAP,
    RunningServer,
    fastauth,
    free_port,
    running_server,
    signing_key,
    wait_for,
)
from tests.redis_servers import running_redis

SERVER_CORE, LOAD_CORE = "0", "1"
PASSWORD = "correct horse battery staple"
CONNECTIONS = 32
FEWEST_ROUNDS = 3
# So high that nothing is refused: a refusal would be cheaper than a login. A server without any of it is "off".
LIMITED = {
    "FASTAUTH_LIMITS__LOGIN_PER_IP": "1000000/s burst 1000000",
    "FASTAUTH_LIMITS__LOGIN_PER_USER": "1000/s burst 1000",
    "FASTAUTH_LIMITS__LOGIN_GLOBAL": "1000000/s burst 1000000",
    "FASTAUTH_LIMITS__VERIFY_PER_IP": "1000000/s burst 1000000",
}
UNSEEN_TOKENS = 20_000  # the cache and its ghosts hold about 12,000


@contextmanager
def pinned_server(data_dir: Path, **env: str) -> Iterator[RunningServer]:
    """A server on one core; it inherits the pin of this process, which is lifted again at once."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(SERVER_CORE)})
    try:
        context = running_server(data_dir, env=env)
        server = context.__enter__()
    finally:
        os.sched_setaffinity(0, everywhere)
    try:
        yield server
    finally:
        context.__exit__(None, None, None)


def start_to_ready_s(data_dir: Path) -> float:
    """From the process's start to its ready line, on a data directory that exists."""
    started = time.perf_counter()
    with running_server(data_dir):
        return time.perf_counter() - started


def rss_anon_mib(server: RunningServer) -> float:
    """RssAnon of the first worker."""
    status = Path(f"/proc/{server.workers()[0]}/status").read_text()
    match = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert match
    return int(match[1]) / 1024


def logins_per_second(server: RunningServer, seconds: float) -> float:
    """Closed loop, every answer a 200."""
    body = json.dumps({"username": "admin", "password": PASSWORD})
    request = (
        f"POST /auth HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "benchmarks.load.closed_loop"]
    output = subprocess.run(
        [*command, str(server.port), str(seconds), str(CONNECTIONS)],
        input=json.dumps([request]),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    result = json.loads(output.stdout)
    assert set(result["statuses"]) == {"200"}, result
    return float(result["per_second"])


def wrk(
    url: str,
    seconds: float,
    token: str | None = None,
    tokens: Path | None = None,
    form: tuple[str, str] | None = None,
) -> float:
    """Requests a second that wrk gets answered, all of them 2xx: with one token, with those of a file in turn, or of a
    form (its body and its Authorization header).
    """
    header = ["-H", f"Authorization: Bearer {token}"] if token else []
    script = [] if tokens is None else ["-s", str(Path(__file__).with_name("tokens.lua")), url, "--", str(tokens)]
    if form is not None:
        script = ["-s", str(Path(__file__).with_name("form.lua")), url, "--", *form]
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
    output = subprocess.run([*command, *header, *(script or [url])], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in output, output
    match = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert match, output
    return float(match[1])


def hash_time_s(profile: str) -> float:
    """One check of a password, alone on the server's core."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(SERVER_CORE)})
    try:
        stored = hash_password(PASSWORD, PROFILES[profile])  # type: ignore[index]
        times = []
        for _ in range(30):
            started = time.perf_counter()
            assert check_password(PASSWORD, stored)
            times.append(time.perf_counter() - started)
        return statistics.median(times)
    finally:
        os.sched_setaffinity(0, everywhere)


def write_tokens(server: RunningServer, path: Path) -> Path:
    """So many tokens of the server that each is forgotten before it comes again."""
    settings = load_settings(None, {"FASTAUTH_PORT": str(server.port)}, {})
    issuer = Issuer(signing_key(server.data_dir), settings.issuer_url, settings.tokens, secrets.token_bytes)
    now_s = int(time.time())
    path.write_text(
        "".join(f"{issuer.issue_client_token('0' * 32, 'user', now_s).text}\n" for _ in range(UNSEEN_TOKENS))
    )
    return path


@contextmanager
def baseline_server() -> Iterator[tuple[str, str]]:
    """The plain Python baseline on the server's core; its address and a token that it accepts."""
    port = free_port()
    granian = [
        str(Path(sys.executable).with_name("granian")),
        "--interface",
        "asginl",
        "--loop",
        "uvloop",
        "--http",
        "1",
    ]
    command = ["taskset", "-c", SERVER_CORE, *granian, "--no-ws", "--no-log", "--port", str(port)]
    process = subprocess.Popen([*command, "benchmarks.baseline.python.app:app"], cwd=ROOT, stdin=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: subprocess.run(["curl", "-sf", url], capture_output=True, check=False).returncode == 0)
        token = subprocess.run(["curl", "-sf", f"{url}/token"], capture_output=True, text=True, check=True).stdout
        yield url, token
    finally:
        process.terminate()
        process.wait(30)


def add_admin(data_dir: Path, env: dict[str, str]) -> None:
    """The one user whose logins are measured."""
    added = fastauth("user", "add", "admin", "--password-stdin", data_dir=data_dir, stdin=PASSWORD, env=env)
    assert added.returncode == 0, added.stderr


def measure(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Every figure, by row."""
    cheap, owasp = folder / "cheap", folder / "owasp"
    add_admin(cheap, CHEAP)
    add_admin(owasp, {})
    ready = [start_to_ready_s(owasp) for _ in range(max(3, rounds))]
    rows: dict[str, list[float]] = {}

    def note(row: str, value: float) -> None:
        rows.setdefault(row, []).append(value)

    with pinned_server(owasp) as server:
        rss = rss_anon_mib(server)
    for _ in range(rounds):
        with pinned_server(cheap, **CHEAP) as server:
            note("login_cheapest_per_s", logins_per_second(server, seconds))
            token = server.login("admin", PASSWORD).json["token"]
            note("verify_per_s", wrk(f"{server.url}/verify", seconds, token))
            tokens = write_tokens(server, folder / "tokens")
            note("verify_unseen_per_s", wrk(f"{server.url}/verify", seconds, tokens=tokens))
        with running_redis() as redis:
            os.sched_setaffinity(redis.pid, {int(LOAD_CORE)})
            on_redis = {**LIMITED, "FASTAUTH_REDIS_URL": redis.url}
            for limits, login, verify in (
                (LIMITED, "login_limited_per_s", "verify_limited_per_s"),
                (on_redis, "login_limited_redis_per_s", "verify_leased_per_s"),
            ):
                with pinned_server(cheap, **CHEAP, **limits) as server:
                    note(login, logins_per_second(server, seconds))
                    token = server.login("admin", PASSWORD).json["token"]
                    note(verify, wrk(f"{server.url}/verify", seconds, token))
        with pinned_server(owasp) as server:
            note("login_owasp_per_s", logins_per_second(server, seconds))
        note("hash_owasp_s", hash_time_s("owasp"))
        with baseline_server() as (url, token):
            note("hello_per_s", wrk(f"{url}/hello", seconds))
            note("python_validate_per_s", wrk(f"{url}/validate", seconds, token))
    figures = {row: statistics.median(values) for row, values in rows.items()}
    figures |= {"start_to_ready_s": statistics.median(ready), "worker_rss_anon_mib": rss}
    figures["login_owasp_ceiling_per_s"] = 1 / figures["hash_owasp_s"]
    return {"figures": figures, "rounds": {**rows, "start_to_ready_s": ready}}


def require_tools() -> None:
    """Ends the program, with what to install, where a tool is missing: better now than after minutes of measuring."""
    for tool in ("wrk", "taskset", "curl"):
        if shutil.which(tool) is None:
            sys.exit(f"bench-load needs {tool}: apt-get install wrk util-linux curl")


def main() -> None:
    """Measure, record, render."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    require_tools()
    with tempfile.TemporaryDirectory() as folder:
        record = {**describe(), **measure(Path(folder), options.rounds, options.seconds)}
    print(load_table(record))
    publish("load", record, is_whole=options.rounds >= FEWEST_ROUNDS)


if __name__ == "__main__":
    main()
