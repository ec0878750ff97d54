"""Part of ``make bench-load``: ten times the load that can be served, beside a Go server; a storm of logins; the line.

Each server has one core, the open-loop generator the other; arrivals are a Poisson process and every client leaves
after three seconds without an answer. Writes a dated JSON record and plots, and renders ``benchmarks/README.md``.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.baseline.go_server import PASSWORD as GO_PASSWORD
from benchmarks.baseline.go_server import USERNAME as GO_USERNAME
from benchmarks.baseline.go_server import go_server
from benchmarks.load.peaks import hash_time_s, wrk
from benchmarks.load.pinned import run_pinned
from benchmarks.load.render import publish
from benchmarks.load.servers import LOAD_CORE, SERVER_CORE, end_on_sigterm, pinned_server, require_tools
from benchmarks.machine import ROOT, describe
from fastauth.rehearsal.clients import Logins
from fastauth.rehearsal.samples import Result, Samples, quantile_ms, served_order
from tests.integration.running import CHEAP, RunningServer, cheap_hash, copy_without_users, import_lines

FACTORS: Final = (0.5, 0.8, 1.0, 2.0, 4.0, 10.0)
CONNECTIONS: Final = 8  # of the closed loop
PATIENCE_S: Final = 3.0
SETTLING_S: Final = 8.0  # before what is measured: the queue of the beginning is gone by then
MOST_CONNECTIONS: Final = 6_000
USERS: Final = 4_000  # more than come to the line: whoever shares a name with somebody shares the place in it
PASSWORD: Final = "pw"
Segments = list[tuple[float, float, float]]


def steady(seconds: float, per_second: float) -> Segments:
    """One rate, as a spec of the generator has it."""
    return [(seconds, per_second, per_second)]


def stream(name: str, behaviour: dict[str, Any], segments: Segments, **more: Any) -> dict[str, Any]:
    """One stream of the generator; Poisson arrivals, the same ones each time."""
    return {"name": name, "behaviour": behaviour, "segments": segments, "poisson_seed": 1, **more}


def logins(
    segments: Segments, users: list[list[str]], *, returns: bool = False, most: int = MOST_CONNECTIONS
) -> dict[str, Any]:
    """Logins of these users in turn, over so many connections at the most."""
    behaviour = {"kind": "logins", "users": users, "returns_with_ticket": returns}
    return stream(
        "login", behaviour, segments, connections=min(most, 300), most_connections=most, patience_s=PATIENCE_S
    )


def run(port: int, *streams: dict[str, Any]) -> Result:
    """Everything at once, from the other core. Raises GeneratorLateError when it measured the generator."""
    return run_pinned({"port": port, "streams": list(streams)}, LOAD_CORE)


def figures(samples: Samples, seconds: float) -> dict[str, Any]:
    """After the settling time: what was answered 2xx and in time meanwhile; of what was due, the times of what was good
    and who got which answer.
    """
    steady_part = samples.between(SETTLING_S, SETTLING_S + seconds)
    good = [took for took, status in zip(steady_part.took_s, steady_part.status, strict=True) if status == 200]
    quantiles = {part: quantile_ms(good, part) if good else None for part in (0.5, 0.99)}
    return {
        "offered_per_s": round(len(steady_part) / seconds, 1),
        "goodput_per_s": round(samples.over_between(SETTLING_S, SETTLING_S + seconds).good(PATIENCE_S) / seconds, 2),
        "p50_ms": quantiles[0.5],
        "p99_ms": quantiles[0.99],
        "answers": {str(status): count for status, count in steady_part.counts().items()},
    }


def users_of(data_dir: Path, profile: str) -> list[list[str]]:
    """So many accounts with hashes of a profile, as the generator wants them."""
    from fastauth.backends.passwords import PROFILES, hash_password

    hashed = cheap_hash(PASSWORD) if profile == "cheapest-for-tests" else hash_password(PASSWORD, PROFILES["owasp"])
    lines = [{"username": f"user{number}", "password_hash": hashed} for number in range(USERS)]
    import_lines(copy_without_users(data_dir), lines)
    return [[line["username"], PASSWORD] for line in lines]


class Contender:
    """One of the servers that are compared: how it is started, and who logs in."""

    def __init__(self, name: str, users: list[list[str]], data_dir: Path | None, *arguments: str) -> None:
        """In: a data directory of fastauth, or None for the Go server and its arguments."""
        self.name = name
        self.users = users
        self._data_dir = data_dir
        self._arguments = arguments

    @contextmanager
    def running(self) -> Iterator[int]:
        """Its port, on its core."""
        if self._data_dir is None:
            with go_server(SERVER_CORE, *self._arguments) as url:
                yield int(url.rpartition(":")[2])
        else:
            env = CHEAP if "cheapest" in self.name else {}
            with pinned_server(self._data_dir, **env) as server:
                yield server.port


def capacity(contender: Contender, seconds: float) -> float:
    """What it serves a second in a closed loop of a few connections, which no server refuses."""
    username, password = contender.users[0]
    request = Logins([(username, password)]).request(0).decode()
    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "benchmarks.load.closed_loop"]
    with contender.running() as port:
        output = subprocess.run(
            [*command, str(port), str(seconds), str(CONNECTIONS)],
            input=json.dumps([request]),
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
    result = json.loads(output)
    return float(result["statuses"]["200"] / result["seconds"])


def curve(contender: Contender, capacity_per_s: float, seconds: float) -> list[dict[str, Any]]:
    """Offered load against what becomes of it."""
    points = []
    for factor in FACTORS:
        with contender.running() as port:
            # Everybody who waits has a connection: with fewer the generator would be the queue.
            most = min(MOST_CONNECTIONS, int(200 + factor * capacity_per_s * (PATIENCE_S + 1)))
            result = run(
                port, logins(steady(SETTLING_S + seconds, factor * capacity_per_s), contender.users, most=most)
            )
            late = result.streams["login"].late_s
            point = {"factor": factor, **figures(result["login"], seconds), "generator_late_p99_ms": late.p99 * 1e3}
        print(contender.name, point, flush=True)
        points.append(point)
    return points


def hash_jobs(server: RunningServer) -> dict[str, int]:
    """What became of hash jobs so far, as ``/metrics`` says."""
    text = server.request("GET", "/metrics").body.decode()
    found = re.findall(r'fastauth_hash_jobs_total\{outcome="(\w+)"\} ([\d.]+)', text)
    return {outcome: int(float(count)) for outcome, count in found}


def storm(data_dir: Path, users: list[list[str]], ceiling_per_s: float, seconds: float) -> dict[str, Any]:
    """Five times the logins that can be hashed, while ``/verify`` is saturated and sessions are refreshed."""
    with pinned_server(data_dir, FASTAUTH_LIMITS__REFRESH_PER_IP="off") as server:
        granted = [server.login(*user).json for user in users[:50]]
        token, refresh = granted[0]["token"], [one["refresh_token"] for one in granted]
        whole_s = SETTLING_S + seconds + 1
        idle = run(server.port, logins(steady(whole_s, 1.5 * ceiling_per_s), users))
        quiet = wrk(f"{server.url}/verify", seconds, token)
        loaded: list[float] = []
        verify = threading.Thread(target=lambda: loaded.append(wrk(f"{server.url}/verify", whole_s, token)))
        verify.start()
        chains = stream("refresh", {"kind": "refreshes", "tokens": refresh}, steady(whole_s, 10), patience_s=10)
        result = run(server.port, logins(steady(whole_s, 5 * ceiling_per_s), users), chains)
        verify.join()
        series = {name: result[name].series(500, PATIENCE_S) for name in ("login", "refresh")}
        return {
            "ceiling_per_s": ceiling_per_s,
            "idle_login": figures(idle["login"], seconds),
            "verify_quiet_per_s": quiet,
            "verify_in_storm_per_s": loaded[0],
            "login": figures(result["login"], seconds),
            "refresh": {**figures(result["refresh"], seconds), "answers": result["refresh"].counts()},
            "series": {name: [bucket._asdict() for bucket in buckets] for name, buckets in series.items()},
        }


def line(data_dir: Path, users: list[list[str]], ceiling_per_s: float) -> dict[str, Any]:
    """Three times as many as can be served, for ten seconds, who all come back with their tickets until they are in."""
    with pinned_server(data_dir) as server:
        samples = run(server.port, logins(steady(10, 3 * ceiling_per_s), users, returns=True))["login"]
        assert len({*samples.client}) <= len(users), "a faster machine needs more users"
        jobs = hash_jobs(server)
    clients = [row for row in samples.by_client().rows() if row.status == 200]
    finished = sorted(clients, key=lambda row: row.due_s + row.took_s)
    came = sorted(clients, key=lambda row: row.due_s)
    place = {row.client: index for index, row in enumerate(came)}
    moved = sorted(abs(index - place[row.client]) for index, row in enumerate(finished))
    overtaken = _overtaken([place[row.client] for row in finished])
    return {
        "clients": len({*samples.client}),
        "served": len(clients),
        "attempts": len(samples),
        "order": {
            "median_places_moved": moved[len(moved) // 2],
            "overtakings_per_pair": overtaken,
            "waiting_together": served_order(samples)._asdict(),
        },
        "came_s": [round(row.due_s, 2) for row in finished],
        "served_s": [round(row.due_s + row.took_s, 2) for row in finished],
        "hash_jobs": jobs,
    }


def _overtaken(places: list[int]) -> float:
    """The part of all pairs that were served in the other order than they came: 0 in order, 0.5 by chance."""
    pairs = len(places) * (len(places) - 1) / 2
    inversions = sum(places[i] > later for i in range(len(places)) for later in places[i + 1 :])
    return round(inversions / pairs, 4) if pairs else 0.0


def leaving(data_dir: Path, users: list[list[str]], ceiling_per_s: float, seconds: float) -> dict[str, Any]:
    """Twice as many as can be served, who have no more than half a second."""
    with pinned_server(data_dir) as server:
        impatient = {**logins(steady(seconds, 2 * ceiling_per_s), users), "patience_s": 0.5}
        samples = run(server.port, impatient)["login"]
        return {"answers": samples.counts(), "hash_jobs": hash_jobs(server)}


def main() -> None:
    """Measure, record, render."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    end_on_sigterm()
    require_tools()
    seconds = options.seconds
    with tempfile.TemporaryDirectory() as folder:
        cheap, owasp = Path(folder) / "cheap", Path(folder) / "owasp"
        cheap_users, owasp_users = users_of(cheap, "cheapest-for-tests"), users_of(owasp, "owasp")
        go_users = [[GO_USERNAME, GO_PASSWORD]]
        contenders = [
            Contender("fastauth, OWASP hash", owasp_users, owasp),
            Contender("Go, OWASP hash", go_users, None, "-argon2"),
            Contender("fastauth, cheapest hash", cheap_users, cheap),
            Contender("Go, no hash", go_users, None),
        ]
        curves = {}
        for contender in contenders:
            capacity_per_s = capacity(contender, seconds)
            points = curve(contender, capacity_per_s, seconds)
            curves[contender.name] = {"capacity_per_s": capacity_per_s, "points": points}
        ceiling_per_s = 1 / hash_time_s("owasp")
        record: dict[str, Any] = {
            **describe(),
            "curves": curves,
            "storm": storm(owasp, owasp_users, ceiling_per_s, seconds),
            "line": line(owasp, owasp_users, ceiling_per_s),
            "leaving": leaving(owasp, owasp_users, ceiling_per_s, 2 * seconds),
        }
    publish("overload", record, is_whole=True)


if __name__ == "__main__":
    main()
