"""An open loop as a process of its own, which can be pinned to another core than the server.

``run_pinned(spec, core)``, or ``python -m benchmarks.load.pinned < SPEC > RESULT``; ``streams_of`` says what a spec is,
and the result is a ``samples.Result`` as JSON.
"""

import gc
import json
import os
import subprocess
import sys
from typing import Any

import msgspec
import uvloop

from benchmarks.machine import ROOT
from fastauth.rehearsal.arrivals import Segment
from fastauth.rehearsal.clients import Behaviour, FixedRequests, Logins, RefreshChains, TicketLogins
from fastauth.rehearsal.open_loop import Stream, drive
from fastauth.rehearsal.samples import Result


def streams_of(spec: dict[str, Any]) -> list[Stream]:
    """In: ``{"port": number, "streams": [...]}``, each stream with the fields of ``Stream``, its segments as lists of
    ``[seconds, from_per_second, to_per_second]`` and its behaviour as ``behaviour_of`` takes it.
    """
    return [
        Stream(
            **{
                **stream,
                "segments": [Segment(*segment) for segment in stream["segments"]],
                "behaviour": behaviour_of(stream["behaviour"]),
            }
        )
        for stream in spec["streams"]
    ]


def behaviour_of(spec: dict[str, Any]) -> Behaviour:
    """In: ``{"kind": "requests", "requests": [text]}``, ``{"kind": "logins", "users": [[username, password]],
    "returns_with_ticket": bool}`` or ``{"kind": "refreshes", "tokens": [text]}``. Raises ValueError for another kind.
    """
    match spec:
        case {"kind": "requests", "requests": requests}:
            return FixedRequests(requests)
        case {"kind": "logins", "users": users, "returns_with_ticket": True}:
            return TicketLogins(users)
        case {"kind": "logins", "users": users}:
            return Logins(users)
        case {"kind": "refreshes", "tokens": tokens}:
            return RefreshChains(tokens)
    raise ValueError(f"not a behaviour: {spec.get('kind')!r} with {sorted(spec)}")


def run_pinned(spec: dict[str, Any], core: int | str | None) -> Result:
    """Run a spec in a process of its own, on one core unless that is None.

    Raises CalledProcessError if it fails; what it had to say is on standard error.
    """
    pin = [] if core is None else ["taskset", "-c", str(core)]
    command = [*pin, sys.executable, "-m", "benchmarks.load.pinned"]
    process = subprocess.run(command, input=json.dumps(spec).encode(), stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return msgspec.json.decode(process.stdout, type=Result)


def main() -> None:
    """From standard input to standard output."""
    spec = json.load(sys.stdin)
    streams = streams_of(spec)
    gc.freeze()
    gc.disable()  # a collection among so many samples is a pause of tens of milliseconds
    left = memoryview(msgspec.json.encode(uvloop.run(drive(spec["port"], streams))))
    while left:  # a pipe takes what it has room for
        left = left[os.write(1, left) :]


if __name__ == "__main__":
    main()
