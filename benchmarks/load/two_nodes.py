"""Two real nodes behind HAProxy on one PostgreSQL and one Redis, beside the simulation of the same plan.

The simulation's costs are measured on one node alone, which has a core of its own. Then two nodes have a core each, and
share both with the database, Redis, the balancer and the generator. Writes a dated JSON record to
``benchmarks/results`` and renders ``docs/scaling.md``.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks.load.costs import PASSWORD, spread
from benchmarks.load.overload import hash_jobs, steady
from benchmarks.load.pinned import run_pinned
from benchmarks.load.render import publish
from benchmarks.load.resources import Reading, Rig, processes_s, settled
from benchmarks.load.servers import LOAD_CORE, SEEN, SERVER_CORE, on_core, require_tools
from benchmarks.load.single_costs import hash_beside
from benchmarks.machine import describe
from benchmarks.scaling_page import render_if_possible
from benchmarks.simulation.fleet import LANES, Plan, seed_of, simulated
from benchmarks.simulation.node import Cost, Costs
from fastauth.backends.hash_scheduler import FOR_NOBODY, HASHED
from fastauth.backends.passwords import PROFILES, hash_password
from fastauth.rehearsal.samples import Result, Samples
from tests.integration.running import RunningServer, at_once, import_lines, running_server, verify_bytes
from tests.postgres_servers import running_postgres
from tests.proxy_servers import running_proxy
from tests.redis_servers import running_redis

USERS: Final = 3_000
CHAINS: Final = 16
PATIENCE_S: Final = 3.0
FACTORS: Final = (0.5, 1.0, 2.0, 3.0)
VERIFICATIONS_PER_S: Final = 100.0
REFRESHES_PER_S: Final = 10.0
# Leased buckets that refuse nobody, and two that do.
ROOMY: Final = ("2000/s burst 2000", "5000/s burst 5000")
TIGHT: Final = ("20/s burst 20", "150/s burst 150")
TIGHT_LOGINS_PER_S, TIGHT_VERIFICATIONS_PER_S = 40.0, 400.0
REFUSES: Final = ("1/h burst 1", "1/h burst 1")
_BASIS: Final = {
    **SEEN,
    "FASTAUTH_LIMITS__LOGIN_PER_IP": "100000/s burst 100000",
    "FASTAUTH_LIMITS__LOGIN_PER_USER": "1000/s burst 1000",
    "FASTAUTH_LIMITS__REFRESH_PER_IP": "100000/s burst 100000",
}
_WHOLE_SECONDS: Final = 8.0
_LATE_S: Final = 0.1  # the generator shares its cores on purpose: what it is late by is part of the run, up to this
_FEW: Final = 0.02  # of the requests of a lane: of fewer a relative difference means nothing


class Fleet(NamedTuple):
    """Where nodes can be started: their database and Redis, and what both need to know."""

    rig: Rig
    folder: Path
    env: dict[str, str]

    @contextlib.contextmanager
    def node(self, core: str, limits: tuple[str, str], number: int = 0) -> Iterator[RunningServer]:
        """A node on one core. In: the leased limits of all logins together, and of validations."""
        env = {
            **self.env,
            "FASTAUTH_LIMITS__LOGIN_GLOBAL": f"{limits[0]} leased",
            "FASTAUTH_LIMITS__VERIFY_PER_IP": f"{limits[1]} leased",
        }
        with contextlib.ExitStack() as stack:
            with on_core(core):
                server = stack.enter_context(running_server(self.folder / f"node{number}", env=env))
            yield server

    @contextlib.contextmanager
    def balancer(self, nodes: list[RunningServer]) -> Iterator[tuple[int, int]]:
        """HAProxy's port and process id; each request goes to the next node in turn."""
        edits = {"balance leastconn": "balance roundrobin"}
        if len(nodes) == 1:
            edits['    server node-2 "${NODE_2}"\n'] = ""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        ports = [nodes[0].port, nodes[-1].port]
        with running_proxy("haproxy", ports, ports[0], folder, edits) as proxy:
            yield proxy.port, proxy.process.pid


def users() -> list[list[str]]:
    """Who logs in."""
    return [[f"user{number}", PASSWORD] for number in range(USERS)]


def one_stream(lane: str, behaviour: dict[str, Any], seconds: float, per_s: float) -> dict[str, Any]:
    """A stream of the generator, with the arrivals that the simulation has."""
    return {
        "name": lane,
        "behaviour": behaviour,
        "segments": steady(seconds, per_s),
        "poisson_seed": seed_of(lane, 1),
        "connections": 32,
        "most_connections": 1_500,
        "patience_s": PATIENCE_S,
    }


def logins(seconds: float, per_s: float, *, returns: bool) -> dict[str, Any]:
    return one_stream("login", {"kind": "logins", "users": users(), "returns_with_ticket": returns}, seconds, per_s)


def verifications(token: str, seconds: float, per_s: float) -> dict[str, Any]:
    return one_stream("verify", {"kind": "requests", "requests": [verify_bytes(token).decode()]}, seconds, per_s)


def refreshes(tokens: list[str], seconds: float, per_s: float) -> dict[str, Any]:
    return one_stream("refresh", {"kind": "refreshes", "tokens": tokens}, seconds, per_s)


def granted(server: RunningServer, count: int) -> list[dict[str, str]]:
    """So many sessions."""
    return at_once([lambda number=number: server.login(f"user{number}", PASSWORD).json for number in range(count)])  # type: ignore[misc]


# One node alone


class Used(NamedTuple):
    """Of one run on one node: its samples; seconds of a core that the node's loop and its hashes had, and all else."""

    samples: Samples
    loop_s: float
    hash_s: float
    others_s: float
    redis_s: float
    redis_commands: float


def used(fleet: Fleet, node: RunningServer, balancer: tuple[int, int], idle: Reading, stream: dict[str, Any]) -> Used:
    """One stream, from the other core; evenly spaced, so that no request waits for another."""
    stream = {**stream, "poisson_seed": None}
    workers = settled(node)
    port, balancing = balancer
    before, balanced_s, began_s = fleet.rig.read(workers), processes_s([balancing]), time.monotonic()
    result = run_pinned({"port": port, "streams": [stream]}, LOAD_CORE)
    ran_s = time.monotonic() - result.started_s
    spent = fleet.rig.read(workers, is_end=True).since(before).less(idle, time.monotonic() - began_s)
    others_s = spent.postgres_s + spent.redis_s + processes_s([balancing]) - balanced_s + result.busy * ran_s
    (samples,) = (one.samples for one in result.streams.values())
    return Used(samples, spent.loop_s, spent.hash_s, others_s, spent.redis_s, spent.redis_commands)


def only(samples: Samples, status: int, part: float = 0.99) -> int:
    """How many there are, nearly all of which must have this status."""
    counts = samples.counts()
    assert counts.get(status, 0) >= part * len(samples), counts
    return len(samples)


def cost(run: Used, status: int) -> Cost:
    """Of one request, when all got the same answer."""
    count = only(run.samples, status)
    loop_s, hash_s = max(0.0, run.loop_s) / count, max(0.0, run.hash_s) / count
    wait_s = run.samples.quantile_ms(0.5) / 1e3 - loop_s - hash_s
    return Cost(loop_s, max(0.0, run.others_s) / count, max(0.0, wait_s))


def calibrated(fleet: Fleet, seconds: float) -> Costs:
    """What requests cost one node that has a core of its own, all else being on the other."""
    with fleet.node(SERVER_CORE, ROOMY) as node, on_core(LOAD_CORE), fleet.balancer([node]) as balancer:
        workers = settled(node)
        sessions = granted(node, CHAINS)
        token, chains = sessions[0]["token"], [one["refresh_token"] for one in sessions]
        before = fleet.rig.read(workers)
        time.sleep(seconds / 2)
        idle = Reading(*(value / (seconds / 2) for value in fleet.rig.read(workers, is_end=True).since(before)))

        def run(stream: dict[str, Any]) -> Used:
            return used(fleet, node, balancer, idle, stream)

        calm = run(logins(seconds, 10.0, returns=False))
        login = cost(calm, 200)
        calm_hash_s = calm.hash_s / len(calm.samples)
        verify = cost(run(verifications(token, seconds / 2, VERIFICATIONS_PER_S)), 200)
        refresh = cost(run(refreshes(chains, seconds / 2, 2 * REFRESHES_PER_S)), 200)
        hashed = hash_jobs(node)
        storm = run(logins(seconds, 3 / calm_hash_s, returns=False))
        answers = storm.samples.counts()
        # As it is while there is always one to make: after a pause a hash finds the caches cold, and takes longer.
        made = hash_jobs(node)
        hash_s = storm.hash_s / sum(made.get(end, 0) - hashed.get(end, 0) for end in (HASHED, FOR_NOBODY))
    fleet.rig.redis.command("FLUSHALL")  # a bucket of other limits would be read wrongly
    with fleet.node(SERVER_CORE, REFUSES) as node, on_core(LOAD_CORE), fleet.balancer([node]) as balancer:
        granted(node, 1)
        node.verify(token)
        login_limited = cost(used(fleet, node, balancer, idle, logins(seconds / 2, 60.0, returns=False)), 429)
        verify_limited = cost(used(fleet, node, balancer, idle, verifications(token, seconds / 2, 300.0)), 429)
    away = answers[503]
    busy_s = storm.loop_s - answers.get(200, 0) * login.loop_s
    beside_s = storm.others_s - answers.get(200, 0) * login.others_s
    # In a storm much is done together: to be sent away then may cost less than to be refused by a limit in a calm.
    sent_away = Cost(max(0.0, busy_s / away), max(0.0, beside_s / away))
    return Costs(
        login=login,
        sent_away=sent_away,
        login_limited=Cost(
            min(login_limited.loop_s, sent_away.loop_s),
            min(login_limited.others_s, sent_away.others_s),
            min(login_limited.wait_s, login.wait_s),
        ),
        refresh=refresh,
        verify=verify,
        verify_limited=Cost(*map(min, msgspec.structs.astuple(verify_limited), msgspec.structs.astuple(verify))),
        hash_s=hash_s,
        hash_beside=max(1.0, hash_beside()),
        trip_s=trip_s(fleet.rig),
        command_s=max(0.0, calm.redis_s / max(1.0, calm.redis_commands)),
        idle=idle.loop_s,
        others_idle=idle.postgres_s + idle.redis_s,
    )


def mean(before: Costs, after: Costs) -> Costs:
    """Of two calibrations: a machine that others use too is not equally fast for minutes."""

    def halfway(one: Any, other: Any) -> Any:
        if isinstance(one, dict):
            return {name: halfway(one[name], other[name]) for name in one}
        return (one + other) / 2

    return msgspec.convert(halfway(msgspec.to_builtins(before), msgspec.to_builtins(after)), Costs)


def trip_s(rig: Rig) -> float:
    """To Redis and back: the median of many."""
    times = []
    with rig.redis.client() as client:
        for _ in range(300):
            began_s = time.perf_counter()
            client.ping()
            times.append(time.perf_counter() - began_s)
    return statistics.median(times)


# Two nodes


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
        streams = [logins(plan.seconds, plan.logins_per_s, returns=plan.returns)]
        if plan.verifications_per_s:
            streams.append(verifications(sessions[0]["token"], plan.seconds, plan.verifications_per_s))
        if plan.refreshes_per_s:
            chains = [session["refresh_token"] for session in sessions]
            streams.append(refreshes(chains, plan.seconds, plan.refreshes_per_s))
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


def compared(name: str, real: Real, plan: Plan, costs: Costs) -> dict[str, Any]:
    """One point: the plan, both outcomes, and the differences by lane."""
    outcome = simulated(plan, costs)
    measured, guessed = figures_of(real.samples, plan.seconds), figures_of(outcome.samples, plan.seconds)
    loops, hashes, others = (sum(parts) for parts in zip(*outcome.busy, strict=True))
    return {
        "name": name,
        "plan": msgspec.to_builtins(plan),
        "measured": measured,
        "simulated": guessed,
        "busy": {"measured": real.busy, "simulated": {"loops": loops, "hashes": hashes, "others": others}},
        "difference": {
            lane: {what: difference(measured[lane], guessed[lane], what) for what in COMPARED} for lane in measured
        },
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


def measure(folder: Path, seconds: float) -> dict[str, Any]:
    """Calibrate, then run and simulate every point."""
    with contextlib.ExitStack() as stack:
        with on_core(LOAD_CORE):
            postgres = stack.enter_context(running_postgres(durable=True))
            redis = stack.enter_context(running_redis())
        env = {**_BASIS, "FASTAUTH_DATABASE_URL": postgres.url(), "FASTAUTH_REDIS_URL": redis.url}
        fleet = Fleet(Rig(postgres, redis), folder, env)
        stored = hash_password(PASSWORD, PROFILES["owasp"])
        import_lines(folder / "node0", [{"username": name, "password_hash": stored} for name, _ in users()], env)
        before = calibrated(fleet, seconds / 2)
        known = plans(before, seconds)
        real = {}
        for name, plan in known.items():
            real[name] = really(fleet, plan)
            print(name, real[name].busy, real[name].samples["login"].counts(), flush=True)
        costs = mean(before, calibrated(fleet, seconds / 2))
        print(json.dumps(msgspec.to_builtins(costs)), flush=True)
        points = [compared(name, real[name], plan, costs) for name, plan in known.items()]
    return {"costs": msgspec.to_builtins(costs), "patience_s": PATIENCE_S, "points": points}


def main() -> None:
    """Measure, record, render."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=_WHOLE_SECONDS)
    parser.add_argument("--write", type=Path, help="also to this file, whatever the revision")
    options = parser.parse_args()
    require_tools()
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two nodes need a core each")
    with tempfile.TemporaryDirectory() as folder:
        record = {**describe(), **measure(Path(folder), options.seconds)}
    if options.write is not None:
        options.write.write_text(json.dumps(record, indent=2) + "\n")
    publish("two-nodes", record, is_whole=options.seconds >= _WHOLE_SECONDS)
    render_if_possible()


if __name__ == "__main__":
    main()
