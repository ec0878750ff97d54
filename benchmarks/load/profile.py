"""Part of ``make bench-load``: where a worker's time goes on each journey, by whose code runs; needs Linux's ``perf``.

Each load saturates a server on one core while ``perf`` samples it 2,000 times a second. Writes a dated JSON record
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
from benchmarks.load.overload import PATIENCE_S, SETTLING_S, logins, run, steady
from benchmarks.load.peaks import hash_time_s
from benchmarks.load.render import publish
from benchmarks.load.servers import (
    LIMITED,
    LOAD_CORE,
    PASSWORD,
    UNLIMITED,
    end_on_sigterm,
    on_core,
    pinned_server,
    require_tools,
)
from benchmarks.machine import describe
from tests.integration.running import CHEAP
from tests.redis_servers import running_redis

OF_EVERY_ALG: Final = ("login", "client_credentials", "refresh")
FLOOD: Final = 10.0
STORM: Final = 5.0
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


class Loads(Journeys):
    """The journeys, and what else a worker may be busy with."""

    def login_flood(self, seconds: float) -> float:
        """``FLOOD`` times as many logins as it answers when nobody is sent away; out: of those served a second."""
        return self._logins(FLOOD * self.login(1.0), seconds)

    def storm(self, seconds: float) -> float:
        """``STORM`` times as many logins as a core can hash, and as many validations as are answered."""
        with ThreadPoolExecutor(1) as other:
            verified = other.submit(self.verify, seconds)
            self._logins(STORM / hash_time_s("owasp"), seconds)
            return verified.result()

    def _logins(self, per_s: float, seconds: float) -> float:
        result = run(self.server.port, logins(steady(seconds, per_s), [["admin", PASSWORD]]))
        return result["login"].goodput_per_second(PATIENCE_S)


def measure(folder: Path, seconds: float) -> dict[str, dict[str, float]]:
    """By load and server."""
    with on_core(LOAD_CORE), running_redis() as redis:
        through_redis = {**LIMITED, "FASTAUTH_REDIS_URL": redis.url}
        servers: tuple[tuple[str, dict[str, str], dict[str, str], tuple[str, ...]], ...] = (
            ("RS256", CHEAP, UNLIMITED, (*OF_EVERY_ALG, "introspect", "verify", "verify_unseen")),
            ("ES256", {**CHEAP, "FASTAUTH_TOKENS__ALG": "ES256"}, UNLIMITED, OF_EVERY_ALG),
            ("limited through Redis", CHEAP, through_redis, ("login",)),
            ("OWASP", {}, UNLIMITED, ("dear_login", "storm")),
            ("RS256 in overload", CHEAP, UNLIMITED, ("login_flood",)),
        )
        found = {}
        for name, env, limits, loads in servers:
            installation = installed(name, folder, env)
            with pinned_server(installation.data_dir, **installation.env, **limits) as server:
                running = Loads(server, installation)
                for load in loads:
                    found[f"{load} {name}"] = profiled(running, load, seconds, folder)
    return found


def profiled(running: Loads, load: str, seconds: float, folder: Path) -> dict[str, float]:
    """What the worker does under a load."""
    warm_up_s = WARM_UP_S
    if load == "verify_unseen":
        running.many_tokens()
    if load in ("login_flood", "storm"):
        warm_up_s += SETTLING_S  # of which the first second is for what can be served
    with ThreadPoolExecutor(1) as generator:
        busy = generator.submit(running.measure, load, warm_up_s + seconds + 1)
        time.sleep(warm_up_s)
        parts = profile(running.server.workers()[0], seconds, folder)
        busy.result()
    return parts


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
