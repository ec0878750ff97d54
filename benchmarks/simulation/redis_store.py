"""Redis as a simulation has it: buckets by the rule of ``buckets.lua``, one command at a time, and the way there."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Final

from benchmarks.simulation.virtual_time import VirtualLoop
from fastauth import core
from fastauth.domain.limits import Limit
from fastauth.limits import LocalBuckets, RedisBuckets
from fastauth.limits.shared.leases import Leases
from fastauth.limits.shared.link import MAX_BATCH, Answer, Call, Reply
from fastauth.limits.shared.mirror import Mirror

Numbers = tuple[int, ...]


class RedisStore:
    """The one Redis of a fleet. ``commands`` counts what it ran, ``leases`` those of them for leased tokens."""

    def __init__(self, loop: VirtualLoop, trip_s: float, command_s: float) -> None:
        """In: what the way there and back takes, and each command once there, in seconds."""
        self.commands = 0
        self.leases = 0
        self._loop = loop
        self._trip_s = trip_s
        self._command_s = command_s
        self._free_s = 0.0
        self._arrivals_us: dict[str, int] = {}  # "theoretical arrival time" by key; none for a full bucket

    def run(self, commands: int) -> float:
        """In: how many come together; out: when they are answered."""
        self.commands += commands
        self._free_s = max(self._free_s, self._loop.time()) + commands * self._command_s
        return self._free_s + self._trip_s

    def answer(self, op: str, key: str, numbers: Numbers) -> Answer:
        """Of ``take`` and ``give_back``, as ``buckets.lua`` has them, at this moment."""
        now_us = self._loop.time_ns() // 1000
        if op == "take":
            self.leases += numbers[3] > 0
            return self._take(key, now_us, *numbers)
        if op == "give_back":
            emission_us, tokens = numbers
            self._arrivals_us[key] = self._arrivals_us.get(key, 0) - emission_us * tokens
            return 0, 0, 0, max(0, self._arrivals_us[key] - now_us)
        raise ValueError(f"not simulated: {op}")

    def _take(
        self, key: str, now_us: int, emission_us: int, burst: int, cost: int, part: int, debt_us: int, count: int
    ) -> Answer:
        window_us = emission_us * burst
        recalled_us = max(self._arrivals_us.get(key, 0), now_us + min(debt_us, window_us))
        tat_us = min(max(recalled_us, now_us), now_us + window_us)
        remaining = (now_us + window_us - tat_us) // emission_us
        count = min(count, remaining // cost)
        if part > 0:
            count = min(count, max(1, remaining // part))
        if count > 0:
            _, tat_us, remaining, _ = core.gcra(tat_us, now_us, emission_us, burst, cost * count)
        if tat_us > now_us:
            self._arrivals_us[key] = tat_us
        retry_us = core.gcra(tat_us, now_us, emission_us, burst, cost)[3]
        return count, remaining, retry_us, tat_us - now_us


class SimulatedLink:
    """``RedisLink`` while Redis is well: calls in batches, equal ones as one command, one batch on its way."""

    is_up: Final = True

    def __init__(self, loop: VirtualLoop, store: RedisStore, nodes: int) -> None:
        """In: of how many nodes this is one."""
        self.nodes = nodes
        self._loop = loop
        self._store = store
        self._waiting: list[tuple[Call, asyncio.Future[Reply]]] = []
        self._is_busy = False

    def call(self, call: Call, *, hurry: bool = True) -> "asyncio.Future[Reply]":
        """As ``RedisLink.call``; every call hurries."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting.append((call, future))
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._send)
        return future

    def _send(self) -> None:
        batch: dict[Hashable, list[tuple[Call, asyncio.Future[Reply]]]] = {}
        for call, future in self._waiting[:MAX_BATCH]:
            batch.setdefault(id(future) if call.group is None else call.group, []).append((call, future))
        del self._waiting[:MAX_BATCH]
        self._is_busy = bool(batch)
        if batch:
            at_s = self._store.run(len(batch))
            self._loop.call_at(at_s, self._answered, list(batch.values()))

    def _answered(self, commands: "list[list[tuple[Call, asyncio.Future[Reply]]]]") -> None:
        for waiting in commands:
            call = waiting[0][0]
            numbers = [int(number) for number in call.arguments]
            if call.group is not None:
                numbers.append(len(waiting))
            answer = self._store.answer(call.op, call.keys[0], tuple(numbers))
            for place, (_, future) in enumerate(waiting):
                if not future.done():
                    future.set_result((answer, place))
        self._send()


class VirtualTable(LocalBuckets):
    """A node's own table, by the clock of the simulation."""

    def __init__(self, capacity: int, now_us: Callable[[], int]) -> None:
        super().__init__(capacity)
        self._now_us = now_us

    def take(self, key: str | bytes, rate: core.Rate, cost: int = 1, now_us: int | None = None) -> core.Decision:
        return super().take(key, rate, cost, self._now_us() if now_us is None else now_us)

    def peek(self, key: str | bytes, rate: core.Rate, cost: int = 1, now_us: int | None = None) -> core.Decision:
        return super().peek(key, rate, cost, self._now_us() if now_us is None else now_us)

    def debt(self, key: str | bytes, rate: core.Rate, now_us: int | None = None) -> int:
        return super().debt(key, rate, self._now_us() if now_us is None else now_us)

    def raise_debt(self, key: str | bytes, rate: core.Rate, debt_us: int, now_us: int | None = None) -> int:
        return super().raise_debt(key, rate, debt_us, self._now_us() if now_us is None else now_us)


class SimulatedBuckets(RedisBuckets):
    """The server's own buckets, leases and all, over a simulated link."""

    def __init__(self, loop: VirtualLoop, link: SimulatedLink, local: LocalBuckets) -> None:
        super().__init__("redis://127.0.0.1", local)
        self.link = link  # type: ignore[assignment]
        self.mirror = Mirror(local, link)  # type: ignore[arg-type]
        self._leases = Leases(link, self.mirror, self._key_in_redis, loop.time_ns)  # type: ignore[arg-type]

    async def open(self) -> None:
        """It is open."""

    async def close(self) -> None:
        """Return leased tokens."""
        await self._leases.close()


def leased(text: str) -> Limit:
    """A limit as it is written, leased. Raises LimitRefused."""
    return Limit.parse(text if text.endswith(" leased") else f"{text} leased")
