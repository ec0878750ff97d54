"""Part of ``make bench-load``: every journey on one core, beside what a user would pick instead, in one run.

Servers follow one another in interleaved rounds, each on one core with the generator on another; the median is kept.
Then all of it again: a ratio that is another the second time is told as such. Writes a dated JSON record to
``benchmarks/results`` and renders ``benchmarks/README.md``.
"""

import argparse
import statistics
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from benchmarks.baseline.go_server import GoMissing, go_server
from benchmarks.baseline.node_server import INTROSPECTION_PATH, TOKEN_PATH, NodeMissing, node_server
from benchmarks.load.peaks import (
    form,
    hash_time_s,
    logins,
    own_refreshes,
    posts,
    raw_signatures_per_second,
    refreshes,
    wrk,
)
from benchmarks.load.plots import plot_side_by_side
from benchmarks.load.render import publish
from benchmarks.load.servers import (
    FEWEST_ROUNDS,
    LIMITED,
    LOAD_CORE,
    PASSWORD,
    SEEN,
    SERVER_CORE,
    UNLIMITED,
    add_admin,
    add_client,
    baseline_server,
    on_core,
    pinned_server,
    require_tools,
    rss_anon_mib,
    start_to_ready_s,
    write_tokens,
)
from benchmarks.load.targets import targets_table
from benchmarks.machine import describe
from fastauth.jose.algorithms import Algorithm
from tests.integration.running import CHEAP, RunningServer
from tests.postgres_servers import running_postgres
from tests.redis_servers import running_redis

ALGORITHMS: Final[tuple[Algorithm, ...]] = ("RS256", "ES256", "Ed25519")
STARTS: Final = 5
DEAR_CONNECTIONS: Final = 8  # of a hash of 40 ms: a third of a second, which the queue allows
DEAR_S: Final = 3.0  # a hundred hashes or so
_RAW: Final = 0.25  # of the time of a journey: in one process a figure settles sooner

Note = Callable[[str, float], None]


class Installation(NamedTuple):
    """A fastauth that is measured: where its data are, its settings, and the Authorization header of its client."""

    name: str
    data_dir: Path
    env: dict[str, str]
    basic: str


def installed(name: str, folder: Path, env: dict[str, str]) -> Installation:
    """With a user and a client."""
    data_dir = folder / name.replace(" ", "-")
    data_dir.mkdir(mode=0o700)
    add_admin(data_dir, env)
    return Installation(name, data_dir, env, add_client(data_dir, env))


class Journeys:
    """The journeys of one fastauth that runs; each notes its requests a second."""

    def __init__(self, server: RunningServer, installation: Installation, seconds: float, note: Note) -> None:
        self._server = server
        self._installation = installation
        self._seconds = seconds
        self._note_row = note
        self._token: str = server.login("admin", PASSWORD).json["token"]
        self._tokens: Path | None = None

    def run(self, *journeys: str) -> None:
        """In: names of methods."""
        for journey in journeys:
            self._note_row(f"{journey} {self._installation.name}", getattr(self, journey)())

    def login(self) -> float:
        return logins(self._server.port, self._seconds)

    def dear_login(self) -> float:
        """As many at a time as are not sent away, though each waits for all the others."""
        return logins(self._server.port, max(DEAR_S, self._seconds), DEAR_CONNECTIONS)

    def refresh(self) -> float:
        return own_refreshes(self._server, self._seconds)

    def client_credentials(self) -> float:
        fields = {"grant_type": "client_credentials"}
        return posts(self._server.port, self._seconds, form("/token", fields, self._installation.basic))

    def introspect(self) -> float:
        asked = (urlencode({"token": self._token}), self._installation.basic)
        return wrk(f"{self._server.url}/introspect", self._seconds, form=asked)

    def verify(self) -> float:
        return wrk(f"{self._server.url}/verify", self._seconds, self._token)

    def verify_unseen(self) -> float:
        return wrk(f"{self._server.url}/verify", self._seconds, tokens=self.many_tokens())

    def many_tokens(self) -> Path:
        """A file of them, which takes a while to write."""
        if self._tokens is None:
            self._tokens = write_tokens(self._server, self._installation.data_dir / "tokens")
        return self._tokens

    def jwks(self) -> float:
        return wrk(f"{self._server.url}/.well-known/jwks.json", self._seconds)


@contextmanager
def running(installation: Installation, seconds: float, note: Note, **env: str) -> Iterator[Journeys]:
    """The server of an installation on its core."""
    with pinned_server(installation.data_dir, **{**installation.env, **env}) as server:
        yield Journeys(server, installation, seconds, note)


def measure_python(seconds: float, note: Note) -> None:
    """Bare granian, and what most people would write on it."""
    with baseline_server() as (url, token):
        note("hello", wrk(f"{url}/hello", seconds))
        note("form", wrk(f"{url}/form", seconds, form=(urlencode({"token": "a" * 700}), "Basic " + "a" * 80)))
        note("python validate", wrk(f"{url}/validate", seconds, token))
        note("python login", logins(urlsplit(url).port or 0, seconds))


def measure_go(seconds: float, note: Note) -> None:
    """The server in Go, which hashes and stores nothing."""
    with go_server(SERVER_CORE) as url:
        note("go hello", wrk(f"{url}/hello", seconds))
        note("go login", logins(urlsplit(url).port or 0, seconds))
        with_token = _token_of(url)
        note("go validate", wrk(f"{url}/validate", seconds, with_token))


def _token_of(url: str) -> str:
    with urllib.request.urlopen(f"{url}/token") as answer:  # noqa: S310 - our own server on this machine
        return str(answer.read().decode().strip())


def measure_node(seconds: float, note: Note) -> None:
    """node's oidc-provider."""
    for alg in ("RS256", "ES256"):
        with node_server(SERVER_CORE, "--alg", alg) as server:
            port = urlsplit(server.url).port or 0
            fields = {"grant_type": "client_credentials"}
            note(f"node client_credentials {alg}", posts(port, seconds, form(TOKEN_PATH, fields, server.authorization)))
            tokens = list(server.refresh_tokens)
            note(f"node refresh {alg}", refreshes(port, seconds, tokens, server.authorization))
            if alg == "RS256":
                asked = (urlencode({"token": server.opaque_token}), server.authorization)
                note("node introspect", wrk(f"{server.url}{INTROSPECTION_PATH}", seconds, form=asked))


class Absent:
    """Baselines that cannot run here, and why; each is tried once."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def unless(self, name: str, measure: Callable[[float, Note], None], seconds: float, note: Note) -> None:
        if name not in self.reasons:
            try:
                measure(seconds, note)
            except (GoMissing, NodeMissing) as missing:
                self.reasons[name] = str(missing)


def measure(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Every row: the median of its rounds, and the rounds."""
    rows: dict[str, list[float]] = {}
    absent = Absent()

    def note(row: str, value: float) -> None:
        rows.setdefault(row, []).append(round(value, 3))

    with ExitStack() as stack:
        with on_core(LOAD_CORE):
            postgres = stack.enter_context(running_postgres(durable=True))
            redis = stack.enter_context(running_redis())
        shared = {**CHEAP, **SEEN, "FASTAUTH_DATABASE_URL": postgres.url(), "FASTAUTH_REDIS_URL": redis.url}
        by_alg = {alg: installed(alg, folder, {**CHEAP, "FASTAUTH_TOKENS__ALG": alg}) for alg in ALGORITHMS}
        fleet = installed("PostgreSQL", folder, shared)
        owasp = installed("OWASP", folder, {})
        for _ in range(STARTS):
            note("start to ready s", start_to_ready_s(owasp.data_dir))
        for _ in range(rounds):
            measure_python(seconds, note)
            for alg in ALGORITHMS:
                note(f"sign {alg}", raw_signatures_per_second(alg, seconds * _RAW))
            with running(by_alg["RS256"], seconds, note, **UNLIMITED) as journeys:
                journeys.run("login", "client_credentials", "refresh", "introspect", "verify", "verify_unseen", "jwks")
            absent.unless("go", measure_go, seconds, note)
            with running(by_alg["ES256"], seconds, note, **UNLIMITED) as journeys:
                journeys.run("login", "client_credentials", "refresh", "introspect", "verify")
            with running(by_alg["Ed25519"], seconds, note, **UNLIMITED) as journeys:
                journeys.run("login", "client_credentials")
            absent.unless("node", measure_node, seconds, note)
            limited = by_alg["RS256"]._replace(name="limited")
            with running(limited, seconds, note, **LIMITED) as journeys:
                journeys.run("login", "client_credentials", "refresh", "verify")
            through_redis = by_alg["RS256"]._replace(name="limited through Redis")
            with running(through_redis, seconds, note, **LIMITED, FASTAUTH_REDIS_URL=redis.url) as journeys:
                journeys.run("login", "client_credentials", "refresh", "verify")
            with running(fleet, seconds, note, **UNLIMITED) as journeys:
                journeys.run("login", "client_credentials", "refresh", "introspect", "verify")
            note("hash OWASP s", hash_time_s("owasp"))
            with pinned_server(owasp.data_dir, **UNLIMITED) as server:
                note("worker MiB", rss_anon_mib(server))
                Journeys(server, owasp, seconds, note).run("dear_login")
                note("worker MiB after logins", rss_anon_mib(server))
    figures = {row: statistics.median(values) for row, values in rows.items()}
    return {"figures": figures, "rounds": rows, "absent": absent.reasons}


def main() -> None:
    """Measure twice, record, render."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)  # whole ones, as wrk has them
    options = parser.parse_args()
    require_tools()
    runs = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(Path(folder), options.rounds, options.seconds))
    record = {**describe(), "seconds": options.seconds, **runs[0], "again": runs[1]}
    print(targets_table(record))
    plot_side_by_side(record)
    publish("side-by-side", record, is_whole=options.rounds >= FEWEST_ROUNDS)


if __name__ == "__main__":
    main()
