"""Part of ``make bench-load``: what PostgreSQL and Redis cost beside SQLite, and what each fault does to two nodes.

The figures are of one core a node, in interleaved rounds; the database and Redis share the generator's core. The
faults and the delay of revocations come from ``tests/integration/test_fleet.py`` at its full counts. Writes a dated
JSON record to ``benchmarks/results`` and renders ``benchmarks/README.md``.
"""

import argparse
import ast
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree  # our own tests wrote it

from benchmarks.load.figures import FEWEST_ROUNDS, LOAD_CORE, add_admin, logins_per_second, pinned_server
from benchmarks.load.render import fleet_faults_table, fleet_table, publish
from benchmarks.load.sessions import UNLIMITED, add_client, form, refreshes_per_second, requests_per_second
from benchmarks.machine import ROOT, describe
from tests.integration.running import CHEAP
from tests.postgres_servers import running_postgres
from tests.redis_servers import running_redis

TESTS: Final = "tests/integration/test_fleet.py"
SEEN: Final = {"FASTAUTH_ISSUER": "https://auth.example", "FASTAUTH_MASTER_KEY": "A" * 43}


@contextlib.contextmanager
def on_core(core: str) -> Iterator[None]:
    """What is started meanwhile runs on one core."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(core)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)


def measure(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Every figure, by row and database."""
    rows: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        with on_core(LOAD_CORE):
            postgres = stack.enter_context(running_postgres(durable=True))
            redis = stack.enter_context(running_redis())
        shared = {**SEEN, "FASTAUTH_DATABASE_URL": postgres.url(), "FASTAUTH_REDIS_URL": redis.url}
        kinds = {"sqlite": {**CHEAP, **SEEN}, "postgres": {**CHEAP, **shared}}
        basics = {}
        for name, env in kinds.items():
            (folder / name).mkdir(mode=0o700)
            add_admin(folder / name, env)
            basics[name] = add_client(folder / name, env)
        for _ in range(rounds):
            for name, env in kinds.items():
                credentials = form("/token", {"grant_type": "client_credentials"}, basics[name])
                with pinned_server(folder / name, **env, **UNLIMITED) as server:
                    for row, value in (
                        ("login", logins_per_second(server, seconds)),
                        ("client", requests_per_second(server, seconds, credentials)),
                        ("refresh", refreshes_per_second(server, seconds)),
                    ):
                        rows.setdefault(f"{row}_{name}", []).append(value)
    return {"figures": {row: statistics.median(values) for row, values in rows.items()}, "rounds": rows}


def measured_by_tests(path: str, folder: Path) -> dict[str, Any]:
    """What tests of a file measured at full counts: a list under "faults" for what is measured once a fault.

    Raises CalledProcessError when one of them fails.
    """
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", path, f"--junitxml={report}"]
    command += ["-o", "junit_family=xunit1"]  # the one that has properties
    subprocess.run([*command, "--timeout", "900"], env={**os.environ, "FASTAUTH_TEST_FULL": "1"}, cwd=ROOT, check=True)
    measured: dict[str, Any] = {"faults": []}
    for node in ElementTree.parse(report).iter("property"):  # noqa: S314
        value = ast.literal_eval(node.attrib["value"])
        if node.attrib["name"] in ("fault", "identity_fault"):
            measured["faults"].append(value)
        else:
            measured[node.attrib["name"]] = value
    return measured


def main() -> None:
    """Measure, record, render."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = {
            **describe(),
            **measure(Path(folder), options.rounds, options.seconds),
            **measured_by_tests(TESTS, Path(folder)),
        }
    print(fleet_table(record))
    print(fleet_faults_table(record))
    publish("fleet", record, is_whole=options.rounds >= FEWEST_ROUNDS)


if __name__ == "__main__":
    main()
