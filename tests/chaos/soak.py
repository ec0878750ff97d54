"""``make soak``: mixed load for twenty minutes; private memory and descriptors of the workers stay as they were."""

import argparse
import asyncio
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import RESULTS, describe
from fastauth.rehearsal.arrivals import steady
from fastauth.rehearsal.clients import Behaviour, FixedRequests, Logins, RefreshChains
from fastauth.rehearsal.open_loop import Stream, drive
from fastauth.server.watchdog import private_memory_kib
from tests.chaos.scenarios import USERS, filled
from tests.integration.running import CHEAP, RunningServer, running_server, verify_bytes

WARM_UP: Final = 0.15  # of the time: caches fill
FLAT: Final = 0.05
_LOOK_S: Final = 5.0


def streams(server: RunningServer, seconds: float) -> list[Stream]:
    """Verifications of good and of bad tokens, logins that succeed and that fail, sessions that refresh."""
    granted = [server.login(*user).json for user in USERS]
    good = [verify_bytes(one["token"]) for one in granted]
    bad = [verify_bytes(one["token"][:-4] + "AAAA") for one in granted]
    wrong = [[name, "wrong"] for name, _ in USERS]

    def stream(name: str, behaviour: Behaviour, per_s: float) -> Stream:
        # Never more connections than at first: they are descriptors of the server too.
        return Stream(name, behaviour, steady(seconds, per_s), connections=32, most_connections=32)

    return [
        stream("verify", FixedRequests([*good, *bad]), 150),
        stream("login", Logins(USERS), 15),
        stream("wrong", Logins(wrong), 5),
        stream("refresh", RefreshChains([one["refresh_token"] for one in granted]), 10),
    ]


def look(pid: int) -> dict[str, int]:
    """What a worker holds."""
    return {"kib": private_memory_kib(pid) or 0, "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir()))}


def soak(folder: Path, seconds: float) -> dict[str, Any]:
    """Out: by worker what it held, every few seconds; what was answered."""
    env = {**CHEAP, "FASTAUTH_LIMITS__REFRESH_PER_IP": "off", "FASTAUTH_LIMITS__REFRESH_PER_FAMILY": "off"}
    with running_server(filled(folder), "--workers", "2", env=env) as server:
        load = streams(server, seconds)
        workers = server.workers()
        seen: dict[int, list[dict[str, int]]] = {pid: [] for pid in workers}
        done = threading.Event()

        def watch() -> None:
            while not done.wait(min(_LOOK_S, seconds / 20)):
                for pid in workers:
                    seen[pid].append(look(pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        result = asyncio.run(drive(server.port, load))
        done.set()
        watcher.join()
        assert server.workers() == workers  # none was replaced
    answers = {stream.name: result[stream.name].counts() for stream in load}
    return {
        "seconds": round(time.monotonic() - began),
        "answers": answers,
        "workers": [{"looks": looks, **growth(looks)} for looks in seen.values()],
    }


def growth(looks: list[dict[str, int]]) -> dict[str, float]:
    """How much more the last quarter holds than the first one after the warm-up, as a part of it."""
    warm = looks[int(len(looks) * WARM_UP) :]
    quarter = max(1, len(warm) // 4)

    def mean(part: list[dict[str, int]], what: str) -> float:
        return sum(one[what] for one in part) / len(part)

    return {
        what: round(mean(warm[-quarter:], what) / mean(warm[:quarter], what) - 1, 4) for what in ("kib", "descriptors")
    }


def main() -> None:
    """Run and record. Exit 1 when something grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = {**describe(), **soak(Path(folder), options.minutes * 60)}
    growths = [{what: worker[what] for what in ("kib", "descriptors")} for worker in record["workers"]]
    print(record["answers"], growths)
    path = RESULTS / f"{record['date'][:10]}-soak.json"
    path.write_text(json.dumps(record) + "\n")
    print(f"recorded in {path.name}")
    if any(abs(value) > FLAT for one in growths for value in one.values()):
        raise SystemExit("a worker did not stay as it was")


if __name__ == "__main__":
    main()
