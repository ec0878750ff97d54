"""Before and after: this tree against another revision of it, in interleaved rounds on one core.

``python -m benchmarks.load.against REVISION``; the revision is checked out and built in a temporary worktree. Prints a
table in Markdown: requests a second of both, and the ratio. For ``docs/performance.md`` and decisions; nothing is
recorded.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.load.journeys import Installation, Journeys, installed
from benchmarks.load.peaks import raw_signatures_per_second
from benchmarks.load.servers import UNLIMITED, pinned_server, require_tools
from benchmarks.machine import ROOT
from fastauth.jose.algorithms import Algorithm
from tests.integration.running import CHEAP

JOURNEYS: Final[dict[Algorithm, tuple[str, ...]]] = {
    "RS256": ("verify", "verify_unseen", "introspect", "client_credentials", "login", "refresh"),
    "ES256": ("client_credentials", "login", "refresh"),
}


@contextmanager
def built(revision: str) -> Iterator[Path]:
    """The sources of a revision, with its core. Raises CalledProcessError for one that there is not."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), revision], cwd=ROOT, check=True)
        try:
            build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
            subprocess.run(build, cwd=tree, check=True, capture_output=True)
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


def table(before: dict[str, list[float]], after: dict[str, list[float]], revision: str) -> str:
    """Medians and their ratio; each round's ratio beside it, from the least to the most."""
    lines = []
    for row, values in after.items():
        old, new = statistics.median(before[row]), statistics.median(values)
        each = sorted(now / then for now, then in zip(values, before[row], strict=True))
        lines.append(f"| {row} | {old:,.0f} | {new:,.0f} | {new / old:.2f} | {each[0]:.2f} to {each[-1]:.2f} |")
    head = f"| a second, one core | {revision} | now | ratio | by round |\n|{' --- |' * 5}\n"
    return head + "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("revision")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    require_tools()
    if shutil.which("git") is None:
        sys.exit("this needs git")
    measured: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    with built(options.revision) as old, tempfile.TemporaryDirectory() as temporary:
        sides = []
        for name, sources in (("before", old), ("after", ROOT / "src")):
            (folder := Path(temporary) / name).mkdir()
            with importing(sources):
                sides.append({alg: _installed(alg, folder) for alg in JOURNEYS})
        order = list(zip(measured, sides, (old, ROOT / "src"), strict=True))
        for number in range(options.rounds):
            for rows, installations, sources in order if number % 2 == 0 else order[::-1]:  # nobody is always first
                with importing(sources):
                    _measure(installations, options.seconds, rows)
    print(table(*measured, options.revision))


def _installed(alg: Algorithm, folder: Path) -> Installation:
    return installed(alg, folder, {**CHEAP, "FASTAUTH_TOKENS__ALG": alg})


def _measure(installations: dict[Algorithm, Installation], seconds: float, rows: dict[str, list[float]]) -> None:
    for alg, installation in installations.items():
        with pinned_server(installation.data_dir, **installation.env, **UNLIMITED) as server:
            journeys = Journeys(server, installation)
            for journey in JOURNEYS[alg]:
                row, value = journeys.measure(journey, seconds)
                rows.setdefault(row, []).append(value)
        rows.setdefault(f"raw signatures {alg}", []).append(raw_signatures_per_second(alg, seconds / 4))


if __name__ == "__main__":
    main()
