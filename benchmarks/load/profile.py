"""Part of ``make bench-load``: where a worker's time goes on each journey, by whose code runs; needs Linux's ``perf``.

Each journey saturates a server on one core while ``perf`` samples it 2,000 times a second. Writes a dated JSON record
to ``benchmarks/results`` and renders ``benchmarks/README.md``.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from benchmarks.load.journeys import Journeys, installed
from benchmarks.load.render import publish
from benchmarks.load.servers import UNLIMITED, end_on_sigterm, pinned_server, require_tools
from benchmarks.machine import describe
from tests.integration.running import CHEAP

JOURNEYS: Final = (
    ("RS256", ("login", "client_credentials", "refresh", "introspect", "verify", "verify_unseen")),
    ("ES256", ("login", "client_credentials", "refresh")),
)
WARM_UP_S: Final = 1.0
_HERTZ: Final = 2_000
_SECONDS: Final = 3.0  # a shorter one is not recorded
_BUSY: Final = 0.7  # of its core, or it is not what the worker does under load
# Whose code it is, by the file that it is in; the first that matches.
OWNERS: Final = (
    ("signature", re.compile(r"_rust\.abi3")),
    ("hash", re.compile(r"_argon2|_ffi\.abi3")),
    ("SQLite", re.compile(r"sqlite")),
    ("granian", re.compile(r"_granian")),
    ("kernel", re.compile(r"kernel|unknown")),
    ("the core", re.compile(r"fastauth/_core")),
    ("uvloop", re.compile(r"uvloop|_asyncio")),
    ("Python", re.compile(r"libpython|/python3|msgspec|lib-dynload")),
    ("libraries", re.compile(r"")),
)


def owner_of(file: str) -> str:
    """One of ``OWNERS``."""
    return next(name for name, pattern in OWNERS if pattern.search(file))


def parts_of(script: str, fewest: int) -> dict[str, float]:
    """In: ``perf script -F ip,dso``, one sample a line; out: each owner's part of all samples.

    Raises RuntimeError for fewer than ``fewest``.
    """
    files = re.findall(r"\(([^()]*)\)\s*$", script, re.MULTILINE)
    counted = Counter(map(owner_of, files))
    if len(files) < fewest:
        raise RuntimeError(f"{len(files)} samples: the server was not busy")
    return {name: round(counted[name] / len(files), 4) for name, _ in OWNERS}


def profile(pid: int, seconds: float, folder: Path) -> dict[str, float]:
    """What a process does while somebody else keeps it busy."""
    data = folder / "perf.data"
    record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(_HERTZ), "-p", str(pid), "-o", str(data)]
    subprocess.run([*record, "--", "sleep", f"{seconds:g}"], check=True, capture_output=True)
    script = ["perf", "script", "-i", str(data), "-F", "ip,dso"]
    output = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    return parts_of(output, int(_BUSY * _HERTZ * seconds))


def measure(folder: Path, seconds: float) -> dict[str, dict[str, float]]:
    """By journey and algorithm."""
    found = {}
    for alg, journeys in JOURNEYS:
        installation = installed(alg, folder, {**CHEAP, "FASTAUTH_TOKENS__ALG": alg})
        with pinned_server(installation.data_dir, **installation.env, **UNLIMITED) as server:
            running = Journeys(server, installation)
            for journey in journeys:
                if journey == "verify_unseen":
                    running.many_tokens()
                with ThreadPoolExecutor(1) as generator:
                    load = generator.submit(running.measure, journey, WARM_UP_S + seconds + 1)
                    time.sleep(WARM_UP_S)
                    found[f"{journey} {alg}"] = profile(server.workers()[0], seconds, folder)
                    load.result()
    return found


def main() -> None:
    """Measure, record, render."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=_SECONDS)
    options = parser.parse_args()
    end_on_sigterm()
    require_tools()
    if shutil.which("perf") is None:
        sys.exit("the profile needs perf: apt-get install linux-perf")
    with tempfile.TemporaryDirectory() as folder:
        record: dict[str, Any] = {**describe(), "profiles": measure(Path(folder), options.seconds)}
    publish("profile", record, is_whole=options.seconds >= _SECONDS)


if __name__ == "__main__":
    main()
