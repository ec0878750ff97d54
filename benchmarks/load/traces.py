"""Records the traces that ``benchmarks.simulation.admission`` replays: when logins came, and how long a hash took then.

A real server on one core checks OWASP hashes, and whoever logs in also validates tokens, so that the hash threads have
less of the core the more people there are. How long a hash took is read off the answers: they leave the one hash thread
in order, so an answer's hash began when the answer before it left, or when its request came.
"""

import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.load.overload import PATIENCE_S, Segments, logins, run, stream, users_of
from benchmarks.load.peaks import hash_time_s
from benchmarks.load.render import publish
from benchmarks.load.servers import end_on_sigterm, pinned_server
from benchmarks.machine import describe
from fastauth.rehearsal.samples import Samples
from tests.integration.running import verify_bytes

VALIDATIONS: Final = 60  # for each login


def shapes(per_s: float) -> dict[str, Segments]:
    """In: what can be hashed a second when nothing else runs."""
    calm, burst_s = 0.5 * per_s, 0.1
    bursts: Segments = []
    for seconds_of_work in (0.7, 1.4, 1.0, 1.8, 0.5):
        bursts += [(5.0, calm, calm), (burst_s, seconds_of_work * per_s / burst_s, seconds_of_work * per_s / burst_s)]
    return {
        "step": [(8, 0.6 * per_s, 0.6 * per_s), (12, 3 * per_s, 3 * per_s), (10, 0.6 * per_s, 0.6 * per_s)],
        "ramp": [(20, 0.1 * per_s, 4 * per_s), (8, 4 * per_s, 0.1 * per_s), (2, 0.1 * per_s, 0.1 * per_s)],
        "burst": [*bursts, (5.0, calm, calm)],
    }


def services(samples: Samples, fastest_s: float) -> list[tuple[float, float]]:
    """How long hashes took, by when they began."""
    done = sorted(
        (due + took, due)
        for due, took, status in zip(samples.due_s, samples.took_s, samples.status, strict=True)
        if status == 200
    )
    found, free_s = [], 0.0
    for left_s, due_s in done:
        began_s = max(free_s, due_s)
        if left_s - began_s >= 0.5 * fastest_s:  # two answers that left together say nothing
            found.append((round(began_s, 4), round(left_s - began_s, 5)))
        free_s = left_s
    return found


def main() -> None:
    """Record the three."""
    end_on_sigterm()
    record: dict[str, Any] = {**describe(), "patience_s": PATIENCE_S, "traces": {}}
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "owasp"
        users = users_of(data_dir, "owasp")
        fastest_s = hash_time_s("owasp")
        for name, segments in shapes(0.9 / fastest_s).items():
            with pinned_server(data_dir) as server:
                token = server.login(*users[0]).json["token"]
                crowd = [(seconds, VALIDATIONS * begins, VALIDATIONS * ends) for seconds, begins, ends in segments]
                validations = {"kind": "requests", "requests": [verify_bytes(token).decode()]}
                result = run(server.port, logins(segments, users), stream("verify", validations, crowd, connections=64))
            samples = result["login"]
            arrivals = sorted(round(due, 4) for due in samples.due_s)
            record["traces"][name] = {"arrivals": arrivals, "services": services(samples, fastest_s)}
            print(name, len(arrivals), samples.counts(), result["verify"].counts(), flush=True)
    publish("traces", record, is_whole=True)


if __name__ == "__main__":
    main()
