"""A node of one worker as a simulation has it: one core, the costs of each journey as measured, and the server's own
code for everything that decides: the login queue with its gates and tickets, the leases, the arithmetic of the queue
for hashes. What is written anew here is what takes time: the core, Redis, and the thread that hashes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from benchmarks.simulation.processor import HASHES, LOOP, OTHERS, Processor, weights
from benchmarks.simulation.redis_store import RedisStore, SimulatedBuckets, SimulatedLink, VirtualTable
from benchmarks.simulation.virtual_time import VirtualLoop
from fastauth import core
from fastauth.backends.hash_permits import HashBounds, HashPermits
from fastauth.backends.hash_scheduler import EXPIRED, HashJob, HashScheduler
from fastauth.domain.admission import Gate, LaneRules, Pace
from fastauth.domain.errors import Overloaded
from fastauth.domain.limits import Limit
from fastauth.domain.tickets import Tickets
from fastauth.endpoints.client_address import ClientAddresses
from fastauth.endpoints.http import Request
from fastauth.endpoints.login_queue import SHARES, TICKET_HEADER, LoginQueue, Turn
from fastauth.endpoints.rate_limit import decided
from fastauth.server.lanes import _BEAT_S, _BUSY_S, _EXPECTED_RENEWAL_S, _LATE_S, LoopDelay
from fastauth.server.settings import LaneSettings

EPOCH_S: Final = 1_800_000_000
"""What the clock on the wall says when a simulation begins."""
_BUCKETS: Final = 1 << 14
_ANY_MEMORY_KIB: Final = 1
_TICK_S: Final = 0.02
_PEER: Final = "192.0.2.1"


class Cost(msgspec.Struct, frozen=True):
    """Of one request, in seconds: of a core for the event loop; of other cores, or of this one when everything runs on
    one machine, for what stands beside the node; and for how long it waits for those.
    """

    loop_s: float
    others_s: float = 0.0
    wait_s: float = 0.0


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's requests cost, as measured on one node alone.

    ``hash_s`` of a core is a hash with its signature, ``hash_beside`` how many times that while a hash is made on
    another core of the same machine, ``trip_s`` the way to Redis and back, ``command_s`` a command there; ``idle`` is
    the part of a core that a node without requests needs, ``others_idle`` what stands beside it.
    """

    login: Cost
    sent_away: Cost
    login_limited: Cost
    refresh: Cost
    verify: Cost
    verify_limited: Cost
    hash_s: float
    hash_beside: float = 1.0
    trip_s: float = 0.0005
    command_s: float = 0.00002
    idle: float = 0.0
    others_idle: float = 0.0


class Answered(msgspec.Struct, frozen=True):
    """What a client gets: a status, and with a 503 when to come back, and with what."""

    status: int
    retry_after_s: int = 0
    ticket: str | None = None


class _Login(Request):
    """A login as the queue sees it."""

    async def read_body(self) -> bytes:
        return b""


class SimulatedThreads(HashScheduler):
    """The hash threads: the server's queue and its arithmetic, but the hashes are work for a simulated core."""

    def __init__(
        self, loop: VirtualLoop, processor: Processor, hash_s: Callable[[], float], expected_s: float, deadline_s: float
    ) -> None:
        """In: ``hash_s`` what a hash that begins now takes of a core."""
        permits = HashPermits(HashBounds(1, 1 << 30))
        super().__init__(permits, 1, SHARES, expected_s=expected_s, deadline_s=deadline_s, count=self._note)
        self.outcomes: dict[str, int] = {}
        self._virtual = loop
        self._processor = processor
        self._hash_s = hash_s
        self._free_s = 0.0

    def _note(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def _start(self) -> None:
        """No real threads."""

    def close(self) -> None:
        """Nothing is left behind."""
        if self._timer is not None:
            self._timer.cancel()
        self._permits.close()

    def submit(self, work: Callable[[], Any], lane: int, since: int, memory_kib: int) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = self._loop.create_future()
        now_s = self._virtual.time()
        patience_s = max(self._deadline_s - self.each_thread_s, self._deadline_s / 2)
        job = HashJob(work, future, memory_kib, now_s + patience_s)
        job.came_s = now_s
        future.add_done_callback(lambda future: self._withdraw(job) if future.cancelled() else None)
        job.place = self._waiting.push(lane, since, job)
        self._wakes.put(True)
        if self._timer is None:
            self._timer = self._loop.call_later(0.1, self._drop_expired)
        self._begin()
        return future

    def _begin(self) -> None:
        """What an idle thread does."""
        while not self._running and self._waiting:
            self._wakes.get_nowait()
            job = self._waiting.pop()
            self._running += 1
            if job.future.cancelled() or job.expires_s <= self._virtual.time():
                job.error = self._too_late()
                self._ended(job)
                continue
            job.has_run = True
            self._processor.do(HASHES, self._hash_s(), lambda job=job: self._hashed(job))  # type: ignore[misc]

    def _hashed(self, job: HashJob) -> None:
        job.seconds = self._virtual.time() - max(job.came_s, self._free_s)
        self._ended(job)
        self._begin()

    def _ended(self, job: HashJob) -> None:
        self._free_s = self._virtual.time()
        self._running -= 1
        self._done.append(job)
        self._deliver()

    def _drop_expired(self) -> None:
        now_s = self._virtual.time()
        for _, job in self._waiting.items():
            if job.expires_s <= now_s and self._take_out(job):
                self._count(EXPIRED)
                if not job.future.done():
                    job.future.set_exception(self._too_late())
        self._timer = self._loop.call_later(0.1, self._drop_expired) if self._waiting else None


class SimulatedDelay(LoopDelay):
    """How late the loop is: until the core gets round to it."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        super().__init__()

    def _begin(self) -> None:
        self._due_s = self._loop.time() + _BEAT_S
        self._timer = self._loop.call_at(self._due_s, self._processor.do, LOOP, 0.0, self._beat)


class Node:
    """One node. ``served`` counts its answers by lane and status."""

    def __init__(self, loop: VirtualLoop, store: RedisStore, nodes: int, costs: Costs, others: "Others") -> None:
        """In: of how many nodes it is one; where the work of what stands beside it goes, and who else hashes."""
        lanes = LaneSettings()
        self.served: dict[tuple[str, int], int] = {}
        self.processor = Processor(loop, weights(lanes.hash_nice))
        self._loop = loop
        self._costs = costs
        self._others = others
        self._now_us: Callable[[], int] = lambda: loop.time_ns() // 1000
        self._table = VirtualTable(_BUCKETS, self._now_us)
        self._buckets = SimulatedBuckets(loop, SimulatedLink(loop, store, nodes), self._table)
        self._delay = SimulatedDelay(self.processor)
        self._threads = SimulatedThreads(loop, self.processor, self._hash_s, costs.hash_s, lanes.login_deadline_s)
        self._ticker: asyncio.Handle = loop.call_soon(self._tick)
        self._renewals = _Renewals(LaneRules(burst_s=lanes.renew_burst_s, target_s=lanes.renew_target_s), loop)
        tickets = Limit(max(1, 1_000_000 // lanes.tickets_per_s), lanes.tickets_per_s)
        self.queue = LoginQueue(
            self._threads,
            LaneRules(burst_s=lanes.login_burst_s, target_s=lanes.login_target_s),
            Tickets(bytes(32)),
            self._table,
            self._buckets.decide,
            lambda: self._delay.usual_s < _BUSY_S and self._table.take("tickets", tickets).allowed,
            lambda: self._delay.usual_s > _LATE_S,
            lambda: True,
            ClientAddresses((), b"x-forwarded-for", lambda event: None),
            clock=lambda: EPOCH_S + loop.time(),
            monotonic=loop.time,
        )

    @property
    def hash_jobs(self) -> dict[str, int]:
        """How many, by outcome."""
        return self._threads.outcomes

    def _tick(self) -> None:
        """What is done whether there are requests or not."""
        if self._costs.idle:
            self.processor.do(LOOP, _TICK_S * self._costs.idle, _nothing)
        if self._costs.others_idle and self._others.are_here:
            self.processor.do(OTHERS, _TICK_S * self._costs.others_idle / len(self._others.processors), _nothing)
        self._ticker = self._loop.call_later(_TICK_S, self._tick)

    async def close(self) -> None:
        """Return what is leased."""
        self._ticker.cancel()
        self._delay.close()
        self._threads.close()
        await self._buckets.close()

    async def login(self, name: str, ticket: str | None, limit: Limit | None) -> Answered:
        """One ``POST /auth``. In: the ticket that is brought along; a limit for everybody together."""
        costs = self._costs
        await self._loop_work(costs.login_limited)
        if limit is not None and not (await decided(self._buckets.decide("login_global", limit))).allowed:
            return self._answer("login", Answered(429))
        headers = {} if ticket is None else {TICKET_HEADER: ticket.encode()}
        request = _Login("POST", "/auth", headers, _PEER)
        if (refusal := self.queue.refuse_unread(request)) is not None:
            return self._answer("login", Answered(503, refusal.retry_after_s))
        try:
            turn = await self.queue.enter(request, name, is_known_device=False)
        except Overloaded as sent:
            await self._loop_work(costs.sent_away, costs.login_limited)
            return self._answer("login", Answered(503, sent.retry_after_s, sent.ticket))
        try:
            return self._answer("login", await self._log_in(request, turn))
        finally:
            self.queue.leave(turn)

    async def _log_in(self, request: Request, turn: Turn) -> Answered:
        whole, begun = self._costs.login, self._costs.login_limited
        half = Cost((whole.loop_s - begun.loop_s) / 2, whole.others_s - begun.others_s, whole.wait_s / 2)
        await self._loop_work(half)
        try:
            await self.queue.run(request, turn, _ANY_MEMORY_KIB, lambda: None)
        except Overloaded as sent:
            return Answered(503, sent.retry_after_s, sent.ticket)
        await self._loop_work(Cost(half.loop_s, 0.0, half.wait_s))
        return Answered(200)

    async def refresh(self) -> Answered:
        """One ``POST /token``."""
        return self._answer("refresh", await self._renewals.admit(lambda: self._loop_work(self._costs.refresh)))

    async def verify(self, limit: Limit | None) -> Answered:
        """One ``GET /verify``. In: a limit of the address that all clients have."""
        costs = self._costs
        await self._loop_work(costs.verify_limited)
        if limit is not None:
            decision = self._buckets.decide("verify_per_ip", limit)
            if not isinstance(decision, core.Decision):
                decision = await decision
            if not decision.allowed:
                return self._answer("verify", Answered(429))
        await self._loop_work(costs.verify, costs.verify_limited)
        return self._answer("verify", Answered(200))

    async def _loop_work(self, cost: Cost, but: Cost | None = None) -> None:
        """In: what has been done of it already."""
        loop_s, others_s, wait_s = cost.loop_s, cost.others_s, cost.wait_s
        if but is not None:
            loop_s, others_s, wait_s = loop_s - but.loop_s, others_s - but.others_s, wait_s - but.wait_s
        if others_s > 0:
            self._others.do(others_s)
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if loop_s > 0:
            await self.processor.run(LOOP, loop_s)

    def _hash_s(self) -> float:
        is_alone = not self._others.is_hashing(self.processor)
        return self._costs.hash_s * (1.0 if is_alone else self._costs.hash_beside)

    def _answer(self, lane: str, answered: Answered) -> Answered:
        key = (lane, answered.status)
        self.served[key] = self.served.get(key, 0) + 1
        return answered


class Others:
    """What stands beside the nodes. On one machine it runs on the nodes' own cores: as the kernel wakes a thread, on
    one that is idle, else in turn. Otherwise it is elsewhere.
    """

    def __init__(self) -> None:
        self.processors: list[Processor] = []  # the next in turn comes first
        self.are_here = False

    def do(self, cost_s: float) -> None:
        """Nobody waits for it."""
        if self.are_here:
            self.processors.append(self.processors.pop(0))
            chosen = next((one for one in self.processors if one.is_idle), self.processors[0])
            chosen.do(OTHERS, cost_s, _nothing)

    def is_hashing(self, mine: Processor) -> bool:
        """Whether another core of the same machine does."""
        return self.are_here and any(one is not mine and one.is_busy(HASHES) for one in self.processors)


def _nothing() -> None:
    pass


class _Renewals:
    """``fastauth.server.lanes.Lane`` by the clock of the simulation."""

    def __init__(self, rules: LaneRules, loop: VirtualLoop) -> None:
        self._gate = Gate(rules)
        self._pace = Pace(_EXPECTED_RENEWAL_S)
        self._loop = loop
        self._inside = 0

    async def admit(self, work: Callable[[], Awaitable[None]]) -> Answered:
        began_s = self._loop.time()
        self._gate.arrive(began_s)
        if not self._gate.allows(self._inside / self._pace.per_s, self._pace.per_s):
            return Answered(503, 1)
        self._inside += 1
        beside = self._inside
        try:
            await work()
        finally:
            self._inside -= 1
            self._pace.served((self._loop.time() - began_s) / beside)
        return Answered(200)
