"""Before and after: this tree against another revision of it, both running at once on one core and asked in turn.

``python -m benchmarks.load.against REVISION``; the revision is checked out and built in a temporary worktree. Prints a
table: requests a second of both, and the ratio. With ``--record`` it also writes a dated JSON record to
``benchmarks/results`` and renders ``benchmarks/README.md``.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.load.journeys import Journeys, installed
from benchmarks.load.render import publish
from benchmarks.load.servers import UNLIMITED, end_on_sigterm, pinned_server, require_tools
from benchmarks.load.targets import against_table
from benchmarks.machine import ROOT, describe
from fastauth.jose.algorithms import Algorithm
from tests.integration.running import CHEAP

JOURNEYS: Final[dict[Algorithm, tuple[str, ...]]] = {
    "RS256": ("verify", "verify_unseen", "introspect", "client_credentials", "login", "refresh"),
    "ES256": ("client_credentials", "login", "refresh"),
}
ROUNDS: Final = 9


class BuildFailed(RuntimeError):
    """The core of a revision did not compile."""


@contextmanager
def built(revision: str) -> Iterator[Path]:
    """The sources of a revision, with its core. Raises BuildFailed, with what was said."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), revision], cwd=ROOT, check=True)
        try:
            build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
            done = subprocess.run(build, cwd=tree, check=False, capture_output=True, text=True)
            if done.returncode != 0:
                raise BuildFailed(done.stderr.strip())
            yield tree / "src"
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


@contextmanager
def importing(sources: Path) -> Iterator[None]:
    """Servers and commands that are started meanwhile are of these sources."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(sources)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def measure(revision: str, rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Each row of both, by round."""
    rows: dict[str, dict[str, list[float]]] = {}
    with built(revision) as old, tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides = []
        for side, sources in (("before", old), ("after", ROOT / "src")):
            (place := Path(folder) / side).mkdir()
            with importing(sources):
                sides.append((side, {alg: _start(alg, place, stack) for alg in JOURNEYS}))
        for number in range(-1, rounds):  # nobody's first second counts
            for alg, journeys in JOURNEYS.items():
                for journey in journeys:
                    for side, running in sides if number % 2 == 0 else sides[::-1]:  # nobody is always first
                        row, value = running[alg].measure(journey, seconds)
                        if number >= 0:
                            rows.setdefault(row, {}).setdefault(side, []).append(float(f"{value:.6g}"))
    return rows


def _start(alg: Algorithm, folder: Path, stack: ExitStack) -> Journeys:
    installation = installed(alg, folder, {**CHEAP, "FASTAUTH_TOKENS__ALG": alg})
    server = stack.enter_context(pinned_server(installation.data_dir, **installation.env, **UNLIMITED))
    journeys = Journeys(server, installation)
    if "verify_unseen" in JOURNEYS[alg]:
        journeys.many_tokens()
    return journeys


def main() -> None:
    """Measure and print, or record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("revision")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, choices=range(1, 11), default=1)  # whole ones, as wrk has them
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    end_on_sigterm()
    require_tools()
    if shutil.which("git") is None:
        sys.exit("this needs git")
    name = ["git", "rev-parse", "--short", f"{options.revision}^{{commit}}"]
    named = subprocess.run(name, cwd=ROOT, capture_output=True, text=True, check=False)
    if named.returncode != 0:
        sys.exit(f"{options.revision} is no revision of this tree")
    before = named.stdout.strip()
    try:
        rows = measure(before, options.rounds, options.seconds)
    except BuildFailed as failed:
        sys.exit(f"{before} cannot be built: {failed}")
    record = {**describe(), "before": before, "seconds": options.seconds, "rows": rows}
    print(against_table(record))
    if options.record:
        publish("against", record, is_whole=options.rounds >= ROUNDS)


if __name__ == "__main__":
    main()
