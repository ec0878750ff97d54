"""Two real nodes behind HAProxy on one PostgreSQL and one Redis, beside the simulation of the same plan.

The simulation's costs are measured on one node alone (``calibration``). Then two nodes have a core each, and share both
with the database, Redis, the balancer and the generator. Every plan runs in several rounds with other arrivals in each,
and is simulated by the mean of the calibrations before and after the round, because a machine that others use too is
not equally fast for minutes; figures are means of the rounds. Writes a dated JSON record to ``benchmarks/results`` and
renders ``docs/scaling.md``.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks.load.calibration import CHAINS, calibrated, mean, mean_of
from benchmarks.load.costs import PASSWORD, spread
from benchmarks.load.nodes import (
    BASIS,
    PATIENCE_S,
    ROOMY,
    USERS,
    Fleet,
    granted,
    logins,
    refreshes,
    users,
    verifications,
)
from benchmarks.load.pinned import run_pinned
from benchmarks.load.render import publish
from benchmarks.load.resources import Rig, processes_s, settled
from benchmarks.load.servers import LOAD_CORE, SERVER_CORE, end_on_sigterm, on_core, require_tools
from benchmarks.machine import describe
from benchmarks.scaling_page import render_if_possible
from benchmarks.simulation.fleet import LANES, Plan, simulated
from benchmarks.simulation.node import Costs
from fastauth.backends.passwords import PROFILES, hash_password
from fastauth.rehearsal.samples import Result, Samples
from fastauth.server.diagnosis import has_autogroups
from tests.integration.running import import_lines
from tests.postgres_servers import running_postgres
from tests.redis_servers import running_redis

ROUNDS: Final = 5
FACTORS: Final = (0.5, 1.0, 2.0, 3.0)
VERIFICATIONS_PER_S: Final = 100.0
REFRESHES_PER_S: Final = 10.0
# Leased buckets that refuse somebody.
TIGHT: Final = ("20/s burst 20", "150/s burst 150")
TIGHT_LOGINS_PER_S, TIGHT_VERIFICATIONS_PER_S = 40.0, 400.0
_WHOLE_SECONDS: Final = 8.0
_LATE_S: Final = 0.1  # the generator shares its cores on purpose: what it is late by is part of the run, up to this
_FEW: Final = 0.02  # of the requests of a lane: of fewer a relative difference means nothing


class Real(NamedTuple):
    """What two real nodes made of a plan: samples by lane; of the time until all were through, the part of a core that
    both event loops had, that both hash threads had, and that all else had.
    """

    samples: dict[str, Samples]
    busy: dict[str, float]


def really(fleet: Fleet, plan: Plan) -> Real:
    """Run a plan on two real nodes."""
    fleet.rig.redis.command("FLUSHALL")
    limits = (str(plan.login_limit), str(plan.verify_limit))
    with (
        spread(fleet.rig),
        fleet.node(SERVER_CORE, limits) as one,
        fleet.node(LOAD_CORE, limits, 1) as two,
        fleet.balancer([one, two]) as (port, balancing),
    ):
        sessions = [*granted(one, CHAINS // 2), *granted(two, CHAINS // 2)]
        chains = [session["refresh_token"] for session in sessions]
        streams = [
            logins(plan.seconds, plan.logins_per_s, returns=plan.returns, seed=plan.seed),
            verifications(sessions[0]["token"], plan.seconds, plan.verifications_per_s, plan.seed),
            refreshes(chains, plan.seconds, plan.refreshes_per_s, plan.seed),
        ]
        workers = [*settled(one), *settled(two)]
        time.sleep(2.0)  # until both are calm and the buckets are full
        before, balanced_s = fleet.rig.read(workers), processes_s([balancing])
        result: Result = run_pinned({"port": port, "streams": streams}, None)
        ran_s = time.monotonic() - result.started_s
        spent = fleet.rig.read(workers, is_end=True).since(before)
        others_s = spent.postgres_s + spent.redis_s + processes_s([balancing]) - balanced_s + result.busy * ran_s
    result.require_punctual(_LATE_S)
    busy = {"loops": spent.loop_s / ran_s, "hashes": spent.hash_s / ran_s, "others": others_s / ran_s}
    return Real({name: stream.samples for name, stream in result.streams.items()}, busy)


def figures_of(samples: Mapping[str, Samples], seconds: float) -> dict[str, Any]:
    """By lane, of a real run as of a simulated one."""
    told: dict[str, Any] = {}
    for lane in LANES:
        if lane not in samples or not len(samples[lane]):
            continue
        rows = samples[lane]
        counts = rows.counts()
        good = Samples(rows.seconds)
        good.took_s = [took_s for took_s, status in zip(rows.took_s, rows.status, strict=True) if status == 200]
        ended_s = max(due_s + took_s for due_s, took_s in zip(rows.due_s, rows.took_s, strict=True))
        told[lane] = {
            "requests": len(rows),
            "goodput_per_s": rows.over_between(0.0, seconds).good(PATIENCE_S) / seconds,
            "admitted": counts.get(200, 0),
            "sent_away": counts.get(503, 0),
            "limited": counts.get(429, 0),
            "lost": counts.get(0, 0) + counts.get(-1, 0),
            "p50_ms": good.quantile_ms(0.5) if good.took_s else None,
            "p99_ms": good.quantile_ms(0.99) if good.took_s else None,
            "ended_s": ended_s,
        }
    return told


def difference(measured: Mapping[str, Any], simulated: Mapping[str, Any], name: str) -> float | None:
    """How far the simulation is off, as a part of what was measured; None where that is too few to say."""
    have, got = measured[name], simulated[name]
    if have is None or got is None:
        return None
    if name in ("admitted", "sent_away", "limited", "lost") and max(have, got) < _FEW * measured["requests"]:
        return None
    return float((got - have) / have) if have else None


COMPARED: Final = ("goodput_per_s", "admitted", "sent_away", "limited", "p50_ms", "ended_s")


def guessed(plan: Plan, costs: Sequence[Costs]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """What the simulation says: figures of each round, and busy cores. In: by which costs it does the rounds with seeds
    1, 2, ...
    """
    outcomes = [simulated(msgspec.structs.replace(plan, seed=seed), each) for seed, each in enumerate(costs, 1)]
    kinds = ("loops", "hashes", "others")
    busy = [dict(zip(kinds, map(sum, zip(*one.busy, strict=True)), strict=True)) for one in outcomes]
    return [figures_of(outcome.samples, plan.seconds) for outcome in outcomes], mean_of(busy)


def compared(name: str, reals: Sequence[Real], plan: Plan, calibrations: Sequence[Costs]) -> dict[str, Any]:
    """One point: the plan, both outcomes, the differences by lane, and how far apart the simulation is from itself when
    it goes by single calibrations. In: the real outcomes with seeds 1, 2, ... and the calibrations around them.
    """
    rounds = [figures_of(real.samples, plan.seconds) for real in reals]
    told, busy = guessed(plan, [mean(around) for around in pairwise(calibrations)])
    measured, means = mean_of(rounds), mean_of(told)
    singly = [mean_of(guessed(plan, [mean([one])] * len(reals))[0]) for one in calibrations]

    def span(lane: str, what: str) -> list[float] | None:
        values = [one[lane][what] for one in singly]
        return None if None in values else [min(values), max(values)]

    return {
        "name": name,
        "plan": msgspec.to_builtins(plan),
        "measured": measured,
        "simulated": means,
        "rounds": {"measured": rounds, "simulated": told},
        "busy": {"measured": mean_of([real.busy for real in reals]), "simulated": busy},
        "difference": {
            lane: {what: difference(measured[lane], means[lane], what) for what in COMPARED} for lane in measured
        },
        "by_single_calibrations": {lane: {what: span(lane, what) for what in COMPARED} for lane in measured},
    }


def plans(costs: Costs, seconds: float) -> dict[str, Plan]:
    """The points, by name. The capacity of both nodes is what their cores could hash if they did nothing else."""
    capacity_per_s = 2 / costs.hash_s

    def plan(per_s: float, verify_per_s: float, limits: tuple[str, str]) -> Plan:
        return Plan(
            nodes=2,
            seconds=seconds,
            logins_per_s=per_s,
            refreshes_per_s=REFRESHES_PER_S,
            verifications_per_s=verify_per_s,
            login_limit=limits[0],
            verify_limit=limits[1],
            patience_s=PATIENCE_S,
            users=USERS,
            is_one_machine=True,
        )

    points = {
        f"{factor:g} x what can be hashed": plan(factor * capacity_per_s, VERIFICATIONS_PER_S, ROOMY)
        for factor in FACTORS
    }
    points["leased buckets that refuse"] = plan(TIGHT_LOGINS_PER_S, TIGHT_VERIFICATIONS_PER_S, TIGHT)
    return points


def measure(folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Calibrate, run every point, calibrate, and so on; then simulate."""
    with contextlib.ExitStack() as stack:
        with on_core(LOAD_CORE):
            postgres = stack.enter_context(running_postgres(durable=True))
            redis = stack.enter_context(running_redis())
        env = {**BASIS, "FASTAUTH_DATABASE_URL": postgres.url(), "FASTAUTH_REDIS_URL": redis.url}
        fleet = Fleet(Rig(postgres, redis), folder, env)
        stored = hash_password(PASSWORD, PROFILES["owasp"])
        import_lines(folder / "node0", [{"username": name, "password_hash": stored} for name, _ in users()], env)
        calibrations = [calibrated(fleet, seconds / 2)]
        known = plans(calibrations[0], seconds)
        real: dict[str, list[Real]] = {name: [] for name in known}
        for seed in range(1, rounds + 1):
            for name, plan in known.items():
                run = really(fleet, msgspec.structs.replace(plan, seed=seed))
                real[name].append(run)
                print(name, run.busy, run.samples["login"].counts(), flush=True)
            calibrations.append(calibrated(fleet, seconds / 2))
        points = [compared(name, real[name], plan, calibrations) for name, plan in known.items()]
    return {
        "costs": msgspec.to_builtins(mean(calibrations)),
        "calibrations": msgspec.to_builtins(calibrations),
        "patience_s": PATIENCE_S,
        "points": points,
    }


def main() -> None:
    """Measure, record, render."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=_WHOLE_SECONDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", type=Path, help="also to this file, whatever the revision")
    options = parser.parse_args()
    end_on_sigterm()
    require_tools()
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two nodes need a core each")
    if has_autogroups():
        print(
            "autogroups are on: PostgreSQL will wait behind hashes as no simulation does; "
            "better: sysctl -w kernel.sched_autogroup_enabled=0",
            file=sys.stderr,
        )
    with tempfile.TemporaryDirectory() as folder:
        record = {**describe(), **measure(Path(folder), options.seconds, options.rounds)}
    if options.write is not None:
        options.write.write_text(json.dumps(record, indent=2) + "\n")
    publish("two-nodes", record, is_whole=options.seconds >= _WHOLE_SECONDS and options.rounds >= ROUNDS)
    render_if_possible()


if __name__ == "__main__":
    main()
