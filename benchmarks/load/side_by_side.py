"""Part of ``make bench-load``: every journey on one core, beside what a user would pick instead, in one run.

All servers run at once on one core, and one of them at a time is asked, for a second, by a generator on another core. A
round asks for every row that a target is about, every third one for the others too. Those that are divided by one
another follow one another, because a machine that others share is now fast and now slow; every other round goes the
other way. Then all of it again, with servers started anew.
Writes a dated JSON record to ``benchmarks/results`` and renders ``benchmarks/README.md``.
"""

import argparse
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from benchmarks.baseline.go_server import GoMissing, go_server
from benchmarks.baseline.node_server import INTROSPECTION_PATH, TOKEN_PATH, NodeMissing, node_server
from benchmarks.load.journeys import JOURNEYS, Journeys, installed
from benchmarks.load.peaks import Sessions, form, hash_time_s, logins, posts, raw_signatures_per_second, wrk
from benchmarks.load.render import publish
from benchmarks.load.servers import (
    LIMITED,
    LOAD_CORE,
    SEEN,
    SERVER_CORE,
    UNLIMITED,
    baseline_server,
    end_on_sigterm,
    on_core,
    pinned_server,
    require_tools,
    rss_anon_mib,
    start_to_ready_s,
)
from benchmarks.load.targets import figures_of, rows_of_targets, targets_table
from benchmarks.machine import describe
from fastauth.jose.algorithms import Algorithm
from tests.integration.running import CHEAP
from tests.postgres_servers import running_postgres
from tests.redis_servers import running_redis

ALGORITHMS: Final[tuple[Algorithm, ...]] = ("RS256", "ES256", "Ed25519")
STARTS: Final = 5
ROUNDS: Final = 15
OTHERS_EVERY: Final = 3  # rounds: rows that no target is about
QUOTED: Final = frozenset({"form", "hello SCHED_BATCH"})  # beside rows of targets, in docs/performance.md
AWAKE_S: Final = 3.0  # before each second of node's, which begins at half its speed after half a minute of nothing
IDLE_S: Final = 10.0
WARM_UP_S: Final = 10.0  # of what compiles as it runs: after four seconds node is at half its speed

Measure = Callable[[float], float]
"""In: for how long, in seconds. Out: how many a second."""

ORDER: Final[tuple[str, ...]] = (
    # validation
    "go hello",
    "python validate",
    "jwks RS256",
    "verify PostgreSQL",
    "verify ES256",
    "verify limited",
    "verify limited through Redis",
    "hello",
    "verify RS256",
    "go validate",
    "verify_unseen RS256",
    "hello SCHED_BATCH",
    "form",
    "introspect ES256",
    "introspect PostgreSQL",
    "hello beside introspect",
    "introspect RS256",
    "node introspect",
    # issue
    "refresh limited",
    "refresh limited through Redis",
    "refresh PostgreSQL",
    "node refresh ES256",
    "refresh ES256",
    "node refresh RS256",
    "refresh RS256",
    "sign RS256",
    "client_credentials RS256",
    "node client_credentials RS256",
    "client_credentials ES256",
    "node client_credentials ES256",
    "client_credentials Ed25519",
    "client_credentials limited",
    "client_credentials limited through Redis",
    "client_credentials PostgreSQL",
    # login
    "python login",
    "login PostgreSQL",
    "login Ed25519",
    "sign ES256",
    "sign Ed25519",
    "login limited through Redis",
    "login limited",
    "login RS256",
    "sign RS256 beside login",
    "go login",
    "login ES256",
    "hash OWASP s",
    "dear_login OWASP",
)
"""What is divided by one another stands together, so that only seconds lie between; some are measured twice for it."""


class Field:
    """All that are compared, running, and how each row is measured. To be used within ``with``."""

    def __init__(self, folder: Path) -> None:
        self.measures: dict[str, Measure] = {}
        self.absent: dict[str, str] = {}
        """Baselines that cannot run here, and why."""
        self.versions: dict[str, str] = {}
        """Of those that run on a toolchain of their own."""
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> "Field":
        try:
            self._add_raw()
            self._add_python()
            for name, add in (("go", self._add_go), ("node", self._add_node)):
                try:
                    add()
                except (GoMissing, NodeMissing) as missing:
                    self.absent[name] = str(missing)
            self._add_fastauth()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def _add_raw(self) -> None:
        for alg in ALGORITHMS:
            self.measures[f"sign {alg}"] = partial(raw_signatures_per_second, alg)
        self.measures["sign RS256 beside login"] = self.measures["sign RS256"]
        self.measures["hash OWASP s"] = lambda seconds: hash_time_s("owasp")

    def _add_python(self) -> None:
        """Bare granian, and what most people would write on it."""
        url, token = self._stack.enter_context(baseline_server())
        asked = (urlencode({"token": "a" * 700}), "Basic " + "a" * 80)
        self.measures["hello"] = self.measures["hello beside introspect"] = partial(wrk, f"{url}/hello")
        self.measures["form"] = partial(wrk, f"{url}/form", form=asked)
        self.measures["python validate"] = partial(wrk, f"{url}/validate", token=token)
        self.measures["python login"] = partial(logins, urlsplit(url).port or 0)
        url, _ = self._stack.enter_context(baseline_server("chrt", "-b", "0"))
        self.measures["hello SCHED_BATCH"] = partial(wrk, f"{url}/hello")

    def _add_go(self) -> None:
        """The server in Go, which hashes and stores nothing."""
        url = self._stack.enter_context(go_server(SERVER_CORE))
        with urllib.request.urlopen(f"{url}/token") as answer:  # noqa: S310 - our own server on this machine
            token = answer.read().decode().strip()
        self.measures["go hello"] = partial(wrk, f"{url}/hello")
        self.measures["go validate"] = partial(wrk, f"{url}/validate", token=token)
        self.measures["go login"] = partial(logins, urlsplit(url).port or 0)

    def _add_node(self) -> None:
        """node's oidc-provider."""
        for alg in ("RS256", "ES256"):
            server = self._stack.enter_context(node_server(SERVER_CORE, "--alg", alg))
            self.versions["node"] = server.node_version
            port, basic = urlsplit(server.url).port or 0, server.authorization
            request = form(TOKEN_PATH, {"grant_type": "client_credentials"}, basic)
            self.measures[f"node client_credentials {alg}"] = partial(posts, port, request=request)
            self.measures[f"node refresh {alg}"] = Sessions(port, list(server.refresh_tokens), basic).refresh
            if alg == "RS256":
                asked = (urlencode({"token": server.opaque_token}), basic)
                self.measures["node introspect"] = partial(wrk, f"{server.url}{INTROSPECTION_PATH}", form=asked)
        for row in [row for row in self.measures if row.startswith("node ")]:
            self.measures[row] = _awake(self.measures[row])

    def _add_fastauth(self) -> None:
        with on_core(LOAD_CORE):
            postgres = self._stack.enter_context(running_postgres(durable=True))
            redis = self._stack.enter_context(running_redis())
        through_redis = {"FASTAUTH_REDIS_URL": redis.url}
        for alg in ALGORITHMS:
            journeys = self._serve(alg, {**CHEAP, "FASTAUTH_TOKENS__ALG": alg}, UNLIMITED)
            if alg == "RS256":
                journeys.many_tokens()
        self._serve("limited", CHEAP, LIMITED)
        self._serve("limited through Redis", CHEAP, {**LIMITED, **through_redis})
        fleet = {**CHEAP, **SEEN, **through_redis, "FASTAUTH_DATABASE_URL": postgres.url()}
        self._serve("PostgreSQL", fleet, UNLIMITED)
        self.owasp = self._serve("OWASP", {}, UNLIMITED)

    def _serve(self, name: str, env: dict[str, str], limits: dict[str, str]) -> Journeys:
        installation = installed(name, self._folder, env)
        server = self._stack.enter_context(pinned_server(installation.data_dir, **installation.env, **limits))
        journeys = Journeys(server, installation)
        for journey in JOURNEYS:
            self.measures[f"{journey} {name}"] = getattr(journeys, journey)
        return journeys

    def rows(self) -> list[str]:
        """Those of ``ORDER``, without those of baselines that are absent."""
        rows = [row for row in ORDER if row.partition(" ")[0] not in self.absent]
        assert not (unknown := [row for row in rows if row not in self.measures]), unknown
        return rows


def _awake(measure: Measure) -> Measure:
    """The same, of a server that has just been busy."""

    def awake(seconds: float) -> float:
        measure(AWAKE_S)
        return measure(seconds)

    return awake


def busy_part(core: str, seconds: float) -> float:
    """Of a core over some time, by whomever."""

    def read() -> tuple[int, int]:
        line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
        ticks = [int(word) for word in line.split()[1:9]]  # user nice system idle iowait irq softirq steal
        return sum(ticks) - ticks[3] - ticks[4] - ticks[7], sum(ticks)

    before = read()
    time.sleep(seconds)
    after = read()
    return (after[0] - before[0]) / (after[1] - before[1])


def measure(rounds: int, seconds: float) -> dict[str, Any]:
    """Every row of every round; and what is measured once."""
    once: dict[str, list[float]] = {}
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        with Field(Path(folder)) as field:
            once["worker MiB"] = [rss_anon_mib(field.owasp.server)]
            once["idle part of the core"] = [busy_part(SERVER_CORE, IDLE_S)]
            rows, compared = field.rows(), rows_of_targets() | QUOTED
            for row in rows:  # nobody's first seconds count: what compiles as it runs, or opens its connections
                field.measures[row](WARM_UP_S if row.startswith("node ") else seconds)
            for number in range(rounds):
                asked = [row for row in rows if row in compared or number % OTHERS_EVERY == 0]
                for row in asked if number % 2 == 0 else asked[::-1]:
                    measured.setdefault(row, []).append(float(f"{field.measures[row](seconds):.6g}"))
            once["worker MiB after logins"] = [rss_anon_mib(field.owasp.server)]
        data_dir = field.owasp.installation.data_dir
        once["start to ready s"] = [start_to_ready_s(data_dir) for _ in range(STARTS)]
    run = {"rounds": {**measured, **once}, "absent": field.absent, "versions": field.versions}
    return {"figures": figures_of(run), **run}


def main() -> None:
    """Measure twice, record, render."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, choices=range(1, 11), default=1)  # whole ones, as wrk has them
    options = parser.parse_args()
    end_on_sigterm()
    require_tools()
    runs = [measure(options.rounds, options.seconds) for _ in range(2)]
    record = {**describe(), "seconds": options.seconds, **runs[0], "again": runs[1]}
    print(targets_table(record))
    publish("side-by-side", record, is_whole=options.rounds >= ROUNDS)


if __name__ == "__main__":
    main()
