"""What each journey costs a node, its Redis and its PostgreSQL: the measurements behind ``docs/scaling.md``.

One node on one core, all else on the other. Each journey runs at a moderate rate, in an open loop, and as fast as it
goes, because what comes together is done together and costs less. Then the same with two workers on both cores. Writes
a dated JSON record to ``benchmarks/results`` and renders ``docs/scaling.md``.
"""

import argparse
import contextlib
import json
import os
import re
import resource
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from benchmarks.load.overload import steady, stream
from benchmarks.load.peaks import form
from benchmarks.load.pinned import run_pinned
from benchmarks.load.render import publish
from benchmarks.load.resources import Reading, Rig, settled
from benchmarks.load.servers import (
    CONNECTIONS,
    LIMITED,
    LOAD_CORE,
    SEEN,
    SERVER_CORE,
    add_client,
    end_on_sigterm,
    on_core,
    pinned_server,
    require_tools,
)
from benchmarks.load.single_costs import bucket_bytes, single_costs
from benchmarks.machine import ROOT, describe
from benchmarks.scaling_page import render_if_possible
from fastauth.backends.passwords import PROFILES, hash_password
from fastauth.jose.issuer import Issuer
from fastauth.jose.keys import SigningKey
from fastauth.jose.wrapping import MasterKey
from fastauth.rehearsal.clients import Logins, post
from fastauth.server.settings import load_settings
from tests.integration.running import (
    CHEAP,
    RunningServer,
    answers_in,
    at_once,
    cheap_hash,
    import_lines,
    running_server,
    verify_bytes,
)
from tests.postgres_servers import running_postgres
from tests.redis_servers import running_redis

PASSWORD: Final = "pw"
USERS: Final = 500
# So high that nothing is refused, and all of them ask: exact ones Redis each time, leased ones now and then.
LIMITS: Final = {**LIMITED, "FASTAUTH_LIMITS__VERIFY_PER_IP": "1000000/s burst 1000000 leased"}
UNSEEN_TOKENS: Final = 13_500  # the cache and its ghosts hold about 12,000
CHAINS: Final = 64
LOGINS_AT_ONCE: Final = 8  # of a hash that takes long: no server sends these few away
_WHOLE_SECONDS: Final = 3.0


class Asked(NamedTuple):
    """What a journey needs: who logs in, whose secrets are known, tokens."""

    cheap_users: list[list[str]]
    owasp_users: list[list[str]]
    basic: str
    token: str
    unseen: Path
    chains: list[str]


class Journey(NamedTuple):
    """One kind of request: ``per_s`` moderate, as behaviour of the open loop, and as the command of a closed loop with
    its standard input; ``one`` is a request to count the bytes of.
    """

    name: str
    env: dict[str, str]
    per_s: float
    behaviour: dict[str, Any]
    closed: Callable[[RunningServer, float], tuple[list[str], str]]
    one: bytes


def closed_loop(requests: list[str], connections: int = CONNECTIONS) -> Callable[..., tuple[list[str], str]]:
    """As ``Journey.closed``: these in turn."""

    def command(server: RunningServer, seconds: float) -> tuple[list[str], str]:
        module = [sys.executable, "-m", "benchmarks.load.closed_loop"]
        return [*module, str(server.port), str(seconds), str(connections)], json.dumps(requests)

    return command


def wrk(path: str, *arguments: str, script: tuple[str, ...] = ()) -> Callable[..., tuple[list[str], str]]:
    """As ``Journey.closed``: by ``wrk``."""

    def command(server: RunningServer, seconds: float) -> tuple[list[str], str]:
        url = f"{server.url}{path}"
        more = ["-s", str(Path(__file__).with_name(script[0])), url, "--", *script[1:]] if script else [url]
        return ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", *arguments, *more], ""

    return command


def journeys(asked: Asked) -> list[Journey]:
    """All of them; those that only write sessions come first."""
    credentials = form("/token", {"grant_type": "client_credentials"}, asked.basic)
    looked_up = urlencode({"token": asked.token})
    introspect = form("/introspect", {"token": asked.token}, asked.basic)
    unseen = [verify_bytes(token).decode() for token in asked.unseen.read_text().split()]
    logins = {
        name: Logins([(user, password) for user, password in users])
        for name, users in (("cheap", asked.cheap_users), ("owasp", asked.owasp_users))
    }
    texts = {name: [known.request(number).decode() for number in range(USERS)] for name, known in logins.items()}
    refresh = urlencode({"grant_type": "refresh_token", "refresh_token": asked.chains[-1]}).encode()

    def fixed(requests: list[str]) -> dict[str, Any]:
        return {"kind": "requests", "requests": requests}

    def refresh_loop(server: RunningServer, seconds: float) -> tuple[list[str], str]:
        module = [sys.executable, "-m", "benchmarks.load.refresh_loop"]
        return [*module, str(server.port), str(seconds)], json.dumps(
            {"tokens": asked.chains[CHAINS // 2 : -1], "authorization": ""}
        )

    header = ("-H", f"Authorization: Bearer {asked.token}")
    return [
        Journey("login, cheapest hash", CHEAP, 100, fixed(texts["cheap"]), closed_loop(texts["cheap"]),
                texts["cheap"][0].encode()),
        Journey("login, OWASP hash", {}, 12, fixed(texts["owasp"]), closed_loop(texts["owasp"], LOGINS_AT_ONCE),
                texts["owasp"][0].encode()),
        Journey("refresh", CHEAP, 150, {"kind": "refreshes", "tokens": asked.chains[: CHAINS // 2]}, refresh_loop,
                post(b"/token", b"application/x-www-form-urlencoded", refresh)),
        Journey("client_credentials", CHEAP, 150, fixed([credentials]), closed_loop([credentials]),
                credentials.encode()),
        Journey("verify, seen", CHEAP, 1_000, fixed([verify_bytes(asked.token).decode()]), wrk("/verify", *header),
                verify_bytes(asked.token)),
        Journey("verify, unseen", CHEAP, 1_000, fixed(unseen), wrk("/verify", script=("tokens.lua", str(asked.unseen))),
                unseen[0].encode()),
        Journey("introspect", CHEAP, 500, fixed([introspect]),
                wrk("/introspect", script=("form.lua", looked_up, asked.basic)), introspect.encode()),
    ]  # fmt: skip


def run_closed(journey: Journey, server: RunningServer, seconds: float, pin: list[str]) -> tuple[int, float]:
    """As fast as it goes. Out: how many were answered, and in how many seconds. Nothing may be refused."""
    command, source = journey.closed(server, seconds)
    told = subprocess.run([*pin, *command], input=source, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    if command[0] == "wrk":
        assert "Non-2xx" not in told, told
        found = re.search(r"(\d+) requests in ([\d.]+)s", told)
        assert found, told
        return int(found[1]), float(found[2])
    result = json.loads(told)
    assert set(result["statuses"]) == {"200"}, result
    return int(result["statuses"]["200"]), float(result["seconds"])


def run_open(journey: Journey, server: RunningServer, seconds: float) -> tuple[int, float]:
    """At its moderate rate; out: as ``run_closed``."""
    one = stream("all", journey.behaviour, steady(seconds, journey.per_s), connections=CONNECTIONS)
    samples = run_pinned({"port": server.port, "streams": [one]}, LOAD_CORE)["all"]
    assert set(samples.status) == {200}, samples.counts()
    return len(samples), seconds


def children_s() -> float:
    """Seconds of a core that ended children of this process used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(
    rig: Rig, workers: list[int], idle: Reading, load: Callable[[], tuple[int, float]]
) -> tuple[dict[str, Any], int]:
    """What a load cost, a request, and how many requests it was."""
    before = rig.read(workers)
    generator_s, began_s = children_s(), time.monotonic()
    requests, seconds = load()
    generator_s, whole_s = children_s() - generator_s, time.monotonic() - began_s
    used = rig.read(workers, is_end=True).since(before).less(idle, whole_s)
    point = {
        "per_s": round(requests / seconds, 1),
        "requests": requests,
        "generator_s": generator_s / requests,
        "node_cores": (used.loop_s + used.hash_s) / seconds,
        **used.per(requests),
    }
    return point, requests


def cost_of(journey: Journey, rig: Rig, folder: Path, env: dict[str, str], idle: Reading, seconds: float) -> Any:
    """One journey, at both loads."""
    before = rig.statistics()
    with pinned_server(folder, **{**env, **journey.env}) as server:
        workers = settled(server)
        answer = answered(server.port, journey.one)
        moderate, some = measured(rig, workers, idle, lambda: run_open(journey, server, seconds + 1))
        pin = ["taskset", "-c", LOAD_CORE]
        saturated, more = measured(rig, workers, idle, lambda: run_closed(journey, server, seconds, pin))
    written = rig.statistics()
    return {
        "moderate": moderate,
        "saturated": saturated,
        "http_in_bytes": len(journey.one),
        "http_out_bytes": len(answer),
        **{name: max(0.0, written[name] - before[name]) / (some + more + 1) for name in written},
    }


def answered(port: int, request: bytes) -> bytes:
    """The bytes of the answer to one request, which must be a 200."""
    data = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        while True:
            more = connection.recv(65536)
            data += more
            with contextlib.suppress(ValueError):  # it is not whole yet
                (answer,) = answers_in(data)
                assert answer.status == 200, answer
                return data
            assert more, "the server closed the connection"


def idle_per_s(rig: Rig, folder: Path, env: dict[str, str], seconds: float) -> Reading:
    """What a node without requests uses, and what is used for it, a second."""
    with pinned_server(folder, **env) as server:
        workers = settled(server)
        time.sleep(0.5)
        before = rig.read(workers)
        time.sleep(seconds)
        return Reading(*(value / seconds for value in rig.read(workers, is_end=True).since(before)))


@contextlib.contextmanager
def spread(rig: Rig) -> Iterator[None]:
    """PostgreSQL and Redis may use both cores meanwhile."""
    pids = [rig.redis.pid, *rig.postgres.processes()]
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(pid, {int(SERVER_CORE), int(LOAD_CORE)})
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(pid, {int(LOAD_CORE)})


def workers_compared(
    chosen: list[Journey], rig: Rig, folder: Path, env: dict[str, str], idle: Reading, seconds: float
) -> dict[str, Any]:
    """One worker on a core of its own, then two workers on both cores, which they share with everything else."""
    told: dict[str, Any] = {}
    for journey in chosen:
        with pinned_server(folder, **{**env, **journey.env}) as server:
            pin = ["taskset", "-c", LOAD_CORE]
            one, _ = measured(rig, settled(server), idle, lambda: run_closed(journey, server, seconds, pin))  # noqa: B023
        with spread(rig), running_server(folder, "--workers", "2", env={**env, **journey.env}) as server:
            two, _ = measured(rig, settled(server, 2), idle, lambda: run_closed(journey, server, seconds, []))  # noqa: B023
        told[journey.name] = {"one": one, "two": two}
    return told


def prepared(rig: Rig, folder: Path, env: dict[str, str]) -> Asked:
    """Accounts, a client, sessions, tokens."""
    folder.mkdir(mode=0o700)
    hashed = {"cheap": cheap_hash(PASSWORD), "owasp": hash_password(PASSWORD, PROFILES["owasp"])}
    lines = [
        {"username": f"{kind}{number}", "password_hash": text}
        for kind, text in hashed.items()
        for number in range(USERS)
    ]
    import_lines(folder, lines, {**env, **CHEAP})
    basic = add_client(folder, {**env, **CHEAP})
    with running_server(folder, env={**env, **CHEAP}) as server:
        granted = at_once([lambda: server.login("cheap0", PASSWORD).json] * CHAINS)
        kid, wrapped = rig.postgres.sql("SELECT kid, encode(wrapped_private, 'hex') FROM signing_keys").split("|")
    key = SigningKey.from_der(MasterKey.from_text(env["FASTAUTH_MASTER_KEY"]).unwrap(bytes.fromhex(wrapped), kid))
    settings = load_settings(None, {name: env[name] for name in SEEN}, {})
    issuer = Issuer(key, settings.issuer_url, settings.tokens, secrets.token_bytes)
    now_s = int(time.time())
    texts = (issuer.issue_client_token("0" * 32, "user", now_s).text for _ in range(UNSEEN_TOKENS))
    unseen = folder / "tokens"
    unseen.write_text("".join(f"{text}\n" for text in texts))
    users = {kind: [[f"{kind}{number}", PASSWORD] for number in range(USERS)] for kind in hashed}
    chains = [one["refresh_token"] for one in granted]
    return Asked(users["cheap"], users["owasp"], basic, granted[0]["token"], unseen, chains)


def measure(folder: Path, seconds: float) -> dict[str, Any]:
    """Everything."""
    with contextlib.ExitStack() as stack:
        with on_core(LOAD_CORE):
            postgres = stack.enter_context(running_postgres(durable=True))
            redis = stack.enter_context(running_redis())
        rig = Rig(postgres, redis)
        env = {**SEEN, **LIMITS, "FASTAUTH_DATABASE_URL": postgres.url(), "FASTAUTH_REDIS_URL": redis.url}
        node = folder / "node"
        known = journeys(prepared(rig, node, env))
        idle = idle_per_s(rig, node, {**env, **CHEAP}, seconds)
        told: dict[str, Any] = {}
        session_bytes = 0.0
        for journey in known:
            told[journey.name] = cost_of(journey, rig, node, env, idle, seconds)
            print(journey.name, json.dumps(told[journey.name]), flush=True)
            if journey.name == "login, OWASP hash":  # no session has been changed so far
                counted = postgres.sql("SELECT pg_total_relation_size('sessions')::float / count(*) FROM sessions")
                session_bytes = float(counted)
        compared = [one for one in known if one.name in ("login, OWASP hash", "verify, seen")]
        return {
            "journeys": told,
            "idle_per_s": idle._asdict(),
            "workers": workers_compared(compared, rig, node, env, idle, seconds),
            **single_costs(rig, folder, seconds),
            "state": {"session_bytes": session_bytes, "bucket_bytes": bucket_bytes(rig)},
        }


def main() -> None:
    """Measure, record, render."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=_WHOLE_SECONDS)
    parser.add_argument("--write", type=Path, help="also to this file, whatever the revision")
    options = parser.parse_args()
    end_on_sigterm()
    require_tools()
    with tempfile.TemporaryDirectory() as folder:
        record = {**describe(), **measure(Path(folder), options.seconds)}
    if options.write is not None:
        options.write.write_text(json.dumps(record, indent=2) + "\n")
    publish("costs", record, is_whole=options.seconds >= _WHOLE_SECONDS)
    render_if_possible()


if __name__ == "__main__":
    main()
