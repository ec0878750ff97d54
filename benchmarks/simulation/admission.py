"""Which way to bound the login queue is best: recorded traces, replayed against each.

A trace (``benchmarks/results/*-traces.json``, made by ``python -m benchmarks.load.traces``) says when logins came and
how long a hash took at that time, on a real server. Here one thread serves them first come first served; a client
leaves after its patience. An answer is worth what is left of the patience: 1 at once, 0 when it comes too late.

``python -m benchmarks.simulation.admission`` writes ``benchmarks/results/DATE-admission.json``.
"""

import json
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from benchmarks.load.overload_tables import admission_table
from benchmarks.load.render import newest, publish
from benchmarks.machine import describe
from benchmarks.simulation.policies import Aimd, CoDel, Fixed, Gradient, Ours, Policy
from fastauth.domain.admission import LaneRules
from fastauth.server.settings import LaneSettings

PATIENCE_S: Final = 3.0
FIXED_LIMITS: Final = (*range(1, 33), *range(34, 65, 2), *range(68, 129, 4), *range(136, 257, 8))


class Trace(NamedTuple):
    """When logins came, and how long a hash took, as ``(from when on, seconds)``; in order, in seconds."""

    arrivals: list[float]
    services: list[tuple[float, float]]

    def service_s(self, now_s: float) -> float:
        """How long a hash that begins now takes."""
        return self.services[max(0, bisect_right(self.services, (now_s, float("inf"))) - 1)][1]


class Outcome(NamedTuple):
    """Of one trace under one policy: logins in time, what they were worth, 99 % of them took less, hashes in vain."""

    answered: int
    worth: float
    p99_s: float
    wasted: int


def replay(trace: Trace, policy: Policy) -> Outcome:
    """What becomes of a trace."""
    queue: deque[float] = deque()
    times: list[float] = []
    wasted, free_at = 0, 0.0

    def serve_until(now_s: float) -> None:
        nonlocal free_at, wasted
        while queue and max(free_at, queue[0]) <= now_s:
            came = queue.popleft()
            begins = max(free_at, came)
            if begins - came >= PATIENCE_S:  # who has left is not hashed
                continue
            service_s = trace.service_s(begins)
            free_at = begins + service_s
            sojourn_s = free_at - came
            policy.served(sojourn_s, service_s, len(queue), free_at)
            if sojourn_s < PATIENCE_S:
                times.append(sojourn_s)
            else:
                wasted += 1

    for came in trace.arrivals:
        serve_until(came)
        if policy.allows(len(queue) + (free_at > came), came):
            queue.append(came)
    serve_until(float("inf"))
    times.sort()
    worth = sum(1 - took / PATIENCE_S for took in times)
    return Outcome(len(times), worth, times[int(0.99 * len(times))] if times else 0.0, wasted)


def policies(expected_s: float) -> dict[str, Callable[[], Policy]]:
    """The candidates. In: what a hash takes when nothing else runs."""
    lanes = LaneSettings()
    rules = LaneRules(burst_s=lanes.login_burst_s, target_s=lanes.login_target_s)
    return {
        "gate": lambda: Ours(rules, expected_s),
        "codel": lambda: CoDel(8 * expected_s, 1.0),
        "gradient": Gradient,
        "aimd": lambda: Aimd(PATIENCE_S / 3),
        **{f"fixed {limit}": lambda limit=limit: Fixed(limit) for limit in FIXED_LIMITS},  # type: ignore[misc]
    }


def compare(traces: dict[str, Trace]) -> dict[str, dict[str, Any]]:
    """Every candidate on each trace; and of the fixed limits the one that is best for just this trace, and the one that
    is best for all of them.
    """
    outcomes: dict[str, dict[str, Outcome]] = {}
    for name, trace in traces.items():
        expected_s = min(service_s for _, service_s in trace.services)
        outcomes[name] = {policy: replay(trace, make()) for policy, make in policies(expected_s).items()}
    fixed = [policy for policy in next(iter(outcomes.values())) if policy.startswith("fixed")]
    best = {name: max(fixed, key=lambda policy: row[policy].worth) for name, row in outcomes.items()}
    for_all = max(
        fixed, key=lambda policy: sum(row[policy].worth / row[best[name]].worth for name, row in outcomes.items())
    )

    def told(row: dict[str, Outcome], policy: str) -> dict[str, Any]:
        return {"limit": int(policy.split()[1]), **row[policy]._asdict()}

    return {
        name: {
            "logins": len(traces[name].arrivals),
            **{policy: outcome._asdict() for policy, outcome in row.items() if policy not in fixed},
            "best fixed": told(row, best[name]),
            "one fixed for all": told(row, for_all),
        }
        for name, row in outcomes.items()
    }


def newest_traces() -> dict[str, Trace]:
    """The traces that were recorded last."""
    record = json.loads(newest("*-traces.json").read_text())
    return {
        name: Trace(trace["arrivals"], [tuple(pair) for pair in trace["services"]])
        for name, trace in record["traces"].items()
    }


def main() -> None:
    """Compare, record, render."""
    record: dict[str, Any] = {**describe(), "patience_s": PATIENCE_S, "traces": compare(newest_traces())}
    print(admission_table(record))
    publish("admission", record, is_whole=True)


if __name__ == "__main__":
    main()
