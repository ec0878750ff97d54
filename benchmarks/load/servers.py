"""The servers that are measured, each on one core, and what they need to be asked: users, clients, tokens."""

import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.machine import ROOT
from fastauth.jose.issuer import Issuer
from fastauth.server.settings import load_settings
from tests.integration.running import RunningServer, fastauth, free_port, running_server, signing_key, wait_for

SERVER_CORE, LOAD_CORE = "0", "1"
PASSWORD = "correct horse battery staple"
CONNECTIONS = 32
# So high that nothing is refused: a refusal would be cheaper than a login. A server without any of it is "off".
LIMITED: Final = {
    "FASTAUTH_LIMITS__LOGIN_PER_IP": "1000000/s burst 1000000",
    "FASTAUTH_LIMITS__LOGIN_PER_USER": "1000/s burst 1000",
    "FASTAUTH_LIMITS__LOGIN_GLOBAL": "1000000/s burst 1000000",
    "FASTAUTH_LIMITS__VERIFY_PER_IP": "100000/s burst 100000",  # a lease of a part of it lasts no longer than usual
    "FASTAUTH_LIMITS__TOKEN_PER_CLIENT": "1000000/s burst 1000000",
    "FASTAUTH_LIMITS__REFRESH_PER_IP": "1000000/s burst 1000000",
    "FASTAUTH_LIMITS__REFRESH_PER_FAMILY": "1000000/s burst 1000000",
}
UNLIMITED: Final = dict.fromkeys(LIMITED, "off")
ISSUER: Final = {"FASTAUTH_ISSUER": "https://auth.example"}  # on whatever port: tokens outlive a restart
# Nodes that share a database have one issuer and one master key.
SEEN: Final = {**ISSUER, "FASTAUTH_MASTER_KEY": "A" * 43}
UNSEEN_TOKENS: Final = 20_000  # the cache and its ghosts hold about 12,000


@contextmanager
def on_core(core: str) -> Iterator[None]:
    """What runs, or is started, meanwhile has one core."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(core)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)


@contextmanager
def pinned_server(data_dir: Path, **env: str) -> Iterator[RunningServer]:
    """A server on one core; it inherits the pin of this process, which is lifted again at once."""
    with contextlib.ExitStack() as stack:
        with on_core(SERVER_CORE):
            server = stack.enter_context(running_server(data_dir, env=env))
        yield server


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


def write_tokens(data_dir: Path, env: dict[str, str], path: Path) -> Path:
    """So many tokens of a server that has run once that each is forgotten before it comes again."""
    settings = load_settings(None, env, {})
    issuer = Issuer(signing_key(data_dir), settings.issuer_url, settings.tokens, secrets.token_bytes)
    now_s = int(time.time())
    path.write_text(
        "".join(f"{issuer.issue_client_token('0' * 32, 'user', now_s).text}\n" for _ in range(UNSEEN_TOKENS))
    )
    return path


@contextmanager
def baseline_server(*before: str) -> Iterator[tuple[str, str]]:
    """The plain Python baseline on the server's core; its address and a token that it accepts. In: words before its
    command, such as ``chrt -b 0``.
    """
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
    command = ["taskset", "-c", SERVER_CORE, *before, *granian, "--no-ws", "--no-log", "--port", str(port)]
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


def end_on_sigterm() -> None:
    """From now on SIGTERM is an exception in this program, once, so that it stops the servers that it has started."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)


def require_tools() -> None:
    """Ends the program, with what to install, where a tool is missing: better now than after minutes of measuring."""
    for tool in ("wrk", "taskset", "chrt", "curl"):
        if shutil.which(tool) is None:
            sys.exit(f"bench-load needs {tool}: apt-get install wrk util-linux curl")


def add_client(data_dir: Path, env: dict[str, str] | None = None) -> str:
    """A client that may do everything; out: its Authorization header."""
    added = fastauth(
        "client", "add", "bench", "--grant", "client_credentials", "--scope", "a b", "--introspect", "any", "--json",
        data_dir=data_dir, env=env,
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    made = json.loads(added.stdout)
    return "Basic " + base64.b64encode(f"{made['client_id']}:{made['client_secret']}".encode()).decode()
