"""Nodes behind a balancer, simulated: who is served, refused and sent away, on leased buckets and tickets.

``simulated(plan, costs)`` runs one; ``python -m benchmarks.simulation.fleet --nodes 4 --logins 100/s --verify 2000/s``
prints one, by the costs of the newest two-node record. The same plan and seed give the same outcome. How it compares
with real nodes is measured by ``benchmarks.load.two_nodes``.
"""

import argparse
import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from benchmarks.load.render import newest
from benchmarks.scaling import per_second
from benchmarks.simulation.node import Answered, Costs, Node, Others
from benchmarks.simulation.redis_store import RedisStore, leased
from benchmarks.simulation.virtual_time import VirtualLoop, simulate
from fastauth.rehearsal.arrivals import arrivals, steady
from fastauth.rehearsal.clients import LEFT
from fastauth.rehearsal.samples import Samples

LANES: Final = ("login", "refresh", "verify")
_MOST_RETURNS: Final = 20  # as ``clients.TicketLogins``


def seed_of(lane: str, seed: int) -> int:
    """Of the arrivals of a lane: no two lanes of a plan have the same ones."""
    return zlib.crc32(f"{lane} {seed}".encode())


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What comes to how many nodes: Poisson arrivals at these rates for so many seconds, balanced in turn.

    ``login_limit`` and ``verify_limit`` are leased buckets that all share, ``returns`` whether who is sent away comes
    back when told, ``patience_s`` after which a client leaves, ``users`` how many names log in, ``is_one_machine``
    whether database, Redis and generator take their part of the nodes' cores.
    """

    nodes: int
    seconds: float
    logins_per_s: float = 0.0
    refreshes_per_s: float = 0.0
    verifications_per_s: float = 0.0
    login_limit: str | None = None
    verify_limit: str | None = None
    returns: bool = True
    patience_s: float = 3.0
    users: int = 1_000_000
    is_one_machine: bool = False
    seed: int = 1


class Outcome(msgspec.Struct, frozen=True):
    """What became of a plan: every request as ``Samples`` by lane, what Redis ran, how busy each node was with what (a
    part of its core: event loop, hashes, others), its answers by lane and status.
    """

    samples: dict[str, Samples]
    redis_commands: int
    leases: int
    ended_s: float
    busy: list[tuple[float, float, float]]
    served: list[dict[str, int]]

    def fairness(self, lane: str) -> float:
        """The fewest that a node served 200 as a part of the most; 1 when nobody served any."""
        counts = [one.get(f"{lane} 200", 0) for one in self.served]
        return min(counts) / max(counts) if max(counts) else 1.0


class _Fleet:
    def __init__(self, plan: Plan, costs: Costs) -> None:
        self._loop = asyncio.get_running_loop()
        assert isinstance(self._loop, VirtualLoop)
        self.store = RedisStore(self._loop, costs.trip_s, costs.command_s)
        others = Others()
        self.nodes = [Node(self._loop, self.store, plan.nodes, costs, others) for _ in range(plan.nodes)]
        others.processors = [node.processor for node in self.nodes]
        others.are_here = plan.is_one_machine
        self._plan = plan
        self._login_limit = None if plan.login_limit is None else leased(plan.login_limit)
        self._verify_limit = None if plan.verify_limit is None else leased(plan.verify_limit)
        self._turn = -1
        self.samples = {lane: Samples(plan.seconds) for lane in LANES}

    def _next(self) -> Node:
        self._turn = (self._turn + 1) % len(self.nodes)
        return self.nodes[self._turn]

    async def run(self) -> None:
        plan = self._plan
        rates = (plan.logins_per_s, plan.refreshes_per_s, plan.verifications_per_s)
        asks = (self._login, self._refresh, self._verify)
        await asyncio.gather(
            *(self._stream(lane, rate, ask) for lane, rate, ask in zip(LANES, rates, asks, strict=True) if rate)
        )

    async def _stream(self, lane: str, per_s: float, ask: Callable[[int], Awaitable[None]]) -> None:
        seed = seed_of(lane, self._plan.seed)
        clients = []
        for number, due_s in enumerate(arrivals(steady(self._plan.seconds, per_s), seed)):
            if (wait_s := due_s - self._loop.time()) > 0:
                await asyncio.sleep(wait_s)
            clients.append(asyncio.ensure_future(ask(number)))
        await asyncio.gather(*clients)

    async def _login(self, number: int) -> None:
        name, ticket = f"user{number % self._plan.users}", None
        for attempt in range(_MOST_RETURNS + 1):
            answered = await self._timed("login", number, attempt, self._next().login(name, ticket, self._login_limit))
            if not self._plan.returns or answered.status != 503 or answered.ticket is None:
                return
            ticket = answered.ticket
            await asyncio.sleep(answered.retry_after_s)

    async def _refresh(self, number: int) -> None:
        await self._timed("refresh", number, 0, self._next().refresh())

    async def _verify(self, number: int) -> None:
        await self._timed("verify", number, 0, self._next().verify(self._verify_limit))

    async def _timed(self, lane: str, client: int, attempt: int, asked: Awaitable[Answered]) -> Answered:
        samples, began_s = self.samples[lane], self._loop.time()
        row = len(samples)
        for column, value in (
            (samples.due_s, began_s),
            (samples.took_s, 0.0),
            (samples.status, LEFT),
            (samples.attempt, attempt),
            (samples.client, client),
        ):
            column.append(value)  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(self._plan.patience_s):
                answered = await asked
        except TimeoutError:
            answered = Answered(LEFT)
        samples.status[row] = answered.status
        samples.took_s[row] = self._loop.time() - began_s
        return answered


async def _run(plan: Plan, costs: Costs) -> Outcome:
    fleet = _Fleet(plan, costs)
    await fleet.run()
    ended_s = asyncio.get_running_loop().time()
    commands, leases = fleet.store.commands, fleet.store.leases
    for node in fleet.nodes:
        await node.close()
    return Outcome(
        fleet.samples,
        commands,
        leases,
        ended_s,
        [tuple(busy_s / ended_s for busy_s in node.processor.busy_s) for node in fleet.nodes],  # type: ignore[misc]
        [{f"{lane} {status}": count for (lane, status), count in sorted(node.served.items())} for node in fleet.nodes],
    )


def simulated(plan: Plan, costs: Costs) -> Outcome:
    """What becomes of a plan on nodes of such costs; it ends when every client is through."""
    return simulate(_run(plan, costs))


def figures(outcome: Outcome, plan: Plan) -> dict[str, Any]:
    """For a record, or to read: by lane what was offered, served and refused, and the times of what was served."""
    lanes = {}
    for lane, samples in outcome.samples.items():
        if not len(samples):
            continue
        good = Samples(samples.seconds)
        good.took_s = [took for took, status in zip(samples.took_s, samples.status, strict=True) if status == 200]
        lanes[lane] = {
            "requests": len(samples),
            "clients": len({*samples.client}),
            "goodput_per_s": round(samples.over_between(0, plan.seconds).good(plan.patience_s) / plan.seconds, 2),
            "answers": {str(status): count for status, count in samples.counts().items()},
            "p50_ms": round(good.quantile_ms(0.5), 2),
            "p99_ms": round(good.quantile_ms(0.99), 2),
            "fairness": round(outcome.fairness(lane), 3),
        }
    return {
        "lanes": lanes,
        "redis_commands_per_s": round(outcome.redis_commands / outcome.ended_s, 1),
        "leases": outcome.leases,
        "ended_s": round(outcome.ended_s, 2),
        "busy": [[round(part, 3) for part in node] for node in outcome.busy],
    }


def main() -> None:
    """Print what becomes of a plan."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=2, help="each of one core")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--logins", type=per_second, default=0.0)
    parser.add_argument("--refreshes", type=per_second, default=0.0)
    parser.add_argument("--verify", type=per_second, default=0.0)
    parser.add_argument("--login-limit", help="a leased bucket for all: 100/s burst 100")
    parser.add_argument("--verify-limit")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    costs = msgspec.convert(json.loads(newest("*-two-nodes.json").read_text())["costs"], Costs)
    plan = Plan(
        nodes=options.nodes,
        seconds=options.seconds,
        logins_per_s=options.logins,
        refreshes_per_s=options.refreshes,
        verifications_per_s=options.verify,
        login_limit=options.login_limit,
        verify_limit=options.verify_limit,
        seed=options.seed,
    )
    print(json.dumps(figures(simulated(plan, costs), plan), indent=2))


if __name__ == "__main__":
    main()
