"""What requests cost one node that has a core of its own, all else being on the other: what the simulation goes by."""

import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks.load.nodes import ROOMY, Fleet, granted, logins, refreshes, verifications
from benchmarks.load.overload import hash_jobs
from benchmarks.load.pinned import run_pinned
from benchmarks.load.resources import Rig, processes_s, settled
from benchmarks.load.servers import LOAD_CORE, SERVER_CORE, on_core
from benchmarks.load.single_costs import hash_beside, hash_cpu_s
from benchmarks.simulation.node import Cost, Costs
from fastauth.backends.hash_scheduler import FOR_NOBODY, HASHED
from fastauth.rehearsal.samples import Samples
from tests.integration.running import RunningServer

CHAINS: Final = 16
_REFUSES: Final = ("1/h burst 1", "1/h burst 1")
_TRICKLE_PER_S: Final = 1.0
# A part of what the node can hash: busy as it is when it matters, and nobody waits when they come evenly.
_BUSY: Final = 0.6
_STORM: Final = 5.0  # times what it can hash: nearly all are sent away


class Spent(NamedTuple):
    """In so many seconds: those of a core that the node's loop and its hashes had, that all beside the node had, that
    Redis had of those, and its commands.
    """

    seconds: float
    loop_s: float
    hash_s: float
    others_s: float
    redis_s: float
    redis_commands: float

    def less(self, idle: "Spent") -> "Spent":
        """Without what would have been spent all the same."""
        part = self.seconds / idle.seconds
        return Spent(self.seconds, *(mine - part * other for mine, other in zip(self[1:], idle[1:], strict=True)))


def spent(
    fleet: Fleet, node: RunningServer, balancer: tuple[int, int], stream: dict[str, Any]
) -> tuple[Samples, Spent]:
    """One stream, from the other core; evenly spaced, so that no request waits for another."""
    workers = settled(node)
    port, balancing = balancer
    before, balanced_s, began_s = fleet.rig.read(workers), processes_s([balancing]), time.monotonic()
    result = run_pinned({"port": port, "streams": [{**stream, "poisson_seed": None}]}, LOAD_CORE)
    ended_s = time.monotonic()
    used = fleet.rig.read(workers, is_end=True).since(before)
    generator_s = result.busy * (ended_s - result.started_s)
    others_s = used.postgres_s + used.redis_s + processes_s([balancing]) - balanced_s + generator_s
    (stream_result,) = result.streams.values()
    times = (ended_s - began_s, used.loop_s, used.hash_s, others_s, used.redis_s, used.redis_commands)
    return stream_result.samples, Spent(*times)


def only(samples: Samples, status: int, part: float = 0.99) -> int:
    """How many there are, nearly all of which must have this status."""
    counts = samples.counts()
    assert counts.get(status, 0) >= part * len(samples), counts
    return len(samples)


def cost(samples: Samples, used: Spent, status: int) -> Cost:
    """Of one request, when all got the same answer."""
    count = only(samples, status)
    loop_s, hash_s = used.loop_s / count, used.hash_s / count
    wait_s = samples.quantile_ms(0.5) / 1e3 - loop_s - hash_s
    return Cost(loop_s, used.others_s / count, wait_s)


def calibrated(fleet: Fleet, seconds: float) -> Costs:
    """All costs of a node. In: how long each stream lasts; there are seven."""
    alone_s = hash_cpu_s()
    with fleet.node(SERVER_CORE, ROOMY) as node, on_core(LOAD_CORE), fleet.balancer([node]) as balancer:
        settled(node)
        sessions = granted(node, CHAINS)
        token, chains = sessions[0]["token"], [one["refresh_token"] for one in sessions]
        run = partial(spent, fleet, node, balancer)
        _, idle = run(verifications(token, seconds, _TRICKLE_PER_S))
        busy_samples, busy = run(logins(seconds, _BUSY / alone_s, returns=False))
        login = cost(busy_samples, busy.less(idle), 200)
        samples, used = run(verifications(token, seconds, 100.0))
        verify = cost(samples, used.less(idle), 200)
        samples, used = run(refreshes(chains, seconds, 20.0))
        refresh = cost(samples, used.less(idle), 200)
        hashed = hash_jobs(node)
        samples, used = run(logins(seconds, _STORM / alone_s, returns=False))
        storm, answers = used.less(idle), samples.counts()
        # As it is while there is always one to make: after a pause a hash finds the caches cold, and takes longer.
        made = hash_jobs(node)
        hashes = sum(made.get(end, 0) - hashed.get(end, 0) for end in (HASHED, FOR_NOBODY))
        served, away = answers.get(200, 0), answers.get(503, 0)
        assert hashes > 0, made
        assert away > served, answers
    fleet.rig.redis.command("FLUSHALL")  # a bucket of other limits would be read wrongly
    with fleet.node(SERVER_CORE, _REFUSES) as node, on_core(LOAD_CORE), fleet.balancer([node]) as balancer:
        granted(node, 1)
        node.verify(token)
        run = partial(spent, fleet, node, balancer)
        samples, used = run(logins(seconds, 60.0, returns=False))
        login_limited = cost(samples, used.less(idle), 429)
        samples, used = run(verifications(token, seconds, 300.0))
        verify_limited = cost(samples, used.less(idle), 429)
    # In a storm much is done together: who is sent away costs what is left when those who were served are paid for.
    sent_away = Cost((storm.loop_s - served * login.loop_s) / away, (storm.others_s - served * login.others_s) / away)
    return Costs(
        login=login,
        sent_away=sent_away,
        login_limited=login_limited,
        refresh=refresh,
        verify=verify,
        verify_limited=verify_limited,
        hash_s=storm.hash_s / hashes,
        hash_beside=hash_beside(),
        trip_s=trip_s(fleet.rig),
        command_s=busy.redis_s / max(1.0, busy.redis_commands),
        idle=idle.loop_s / idle.seconds,
        others_idle=idle.others_s / idle.seconds,
    )


def mean_of(values: Sequence[Any]) -> Any:
    """The mean of numbers, or of figures of the same shape; None where one has none."""
    if isinstance(values[0], Mapping):
        return {name: mean_of([value[name] for value in values]) for name in values[0]}
    return None if None in values else statistics.fmean(values)


def mean(costs: Sequence[Costs]) -> Costs:
    """Of several calibrations, within what can be: a part costs no more than the whole, and nothing less than nothing.

    They are averaged first: to cut each off at its bound would leave the noise of one side only.
    """
    told = msgspec.convert(mean_of([msgspec.to_builtins(one) for one in costs]), Costs)
    return msgspec.structs.replace(
        told,
        sent_away=_least(told.sent_away, told.login),
        login_limited=_least(told.login_limited, told.login),
        verify_limited=_least(told.verify_limited, told.verify),
        hash_beside=max(1.0, told.hash_beside),
    )


def _least(part: Cost, whole: Cost) -> Cost:
    pairs = zip(msgspec.structs.astuple(part), msgspec.structs.astuple(whole), strict=True)
    return Cost(*(max(0.0, min(pair)) for pair in pairs))


def trip_s(rig: Rig) -> float:
    """To Redis and back: the median of many."""
    times = []
    with rig.redis.client() as client:
        for _ in range(300):
            began_s = time.perf_counter()
            client.ping()
            times.append(time.perf_counter() - began_s)
    return statistics.median(times)
