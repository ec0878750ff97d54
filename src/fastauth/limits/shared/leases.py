"""Leased buckets: a process takes some tokens from Redis at once and spends them without asking.

Tokens leave the bucket in Redis before they are spent, so since a bucket was full no more than ``burst + rate * t`` is
ever admitted. Within any shorter time it may be more by what processes held at its start: at most ``lease_bound`` each.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from fastauth import core
from fastauth.domain.limits import Limit
from fastauth.limits.shared.link import Call, RedisLink, Reply
from fastauth.limits.shared.mirror import Mirror

MAX_LEASES: Final = 4_096
IDLE_US: Final = 1_000_000
_SWEEP_S: Final = 0.25
_SHARE_OF_BURST: Final = 10
_SHARE_OF_REMAINING: Final = 4  # the emptier the bucket, the smaller what one process may hold of it


def largest_lease(limit: Limit) -> int:
    """Most tokens that one trip brings beyond those that are waited for."""
    return max(1, limit.burst // _SHARE_OF_BURST)


def lease_bound(limit: Limit) -> int:
    """Most unspent tokens that one process holds: a lease, and the next one fetched before it is used up."""
    return 2 * largest_lease(limit)


class _Lease:
    __slots__ = (
        "asked_us",
        "key",
        "limit",
        "refused_until_us",
        "remaining",
        "size",
        "stock_since_us",
        "tokens",
        "trip",
        "used_us",
        "wanted",
    )

    def __init__(self, key: str, limit: Limit) -> None:
        self.key = key
        self.limit = limit
        self.tokens = 0
        self.size = 1
        self.wanted = 0  # tokens that requests wait for
        self.remaining = 0  # in Redis, when it was asked last
        self.refused_until_us = 0
        self.asked_us = 0
        self.used_us = 0
        self.stock_since_us = 0  # no token in stock is older
        self.trip: asyncio.Task[None] | None = None


class Leases:
    """The leases of one process."""

    def __init__(
        self,
        link: RedisLink,
        mirror: Mirror,
        key_in_redis: Callable[[str], str],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """In: ``clock_ns`` another clock for a simulation, which lets time jump."""
        self._clock_ns = clock_ns
        self._link = link
        self._mirror = mirror
        self._key_in_redis = key_in_redis
        self._leases: dict[str, _Lease] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def take(self, key: str, limit: Limit, cost: int) -> "core.Decision | None":
        """Decide from what is in stock; None when Redis has to be asked (``fetch``)."""
        lease = self._leases.get(key)
        if lease is None:
            return None
        now_us = self._clock_ns() // 1000
        lease.used_us = now_us
        if lease.tokens >= cost and not lease.wanted:  # who waits comes first
            lease.tokens -= cost
            if lease.tokens < lease.size // 4 and lease.trip is None:
                self._start_trip(lease)
            return core.Decision(True, lease.tokens + lease.remaining, 0)
        if lease.refused_until_us > now_us:
            return core.Decision(False, lease.tokens, lease.refused_until_us - now_us + (cost - 1) * limit.emission_us)
        return None

    async def fetch(self, key: str, limit: Limit, cost: int) -> "core.Decision | None":
        """Ask Redis for tokens, with others who want some. Out: None when it does not answer, or for a key too many."""
        lease = self._leases.get(key)
        if lease is None:
            if len(self._leases) >= MAX_LEASES:
                return None
            lease = self._leases[key] = _Lease(key, limit)
            self._sweep_later()
        lease.used_us = self._clock_ns() // 1000
        lease.wanted += cost
        try:
            while True:
                trip = lease.trip or self._start_trip(lease)
                await asyncio.shield(trip)
                if lease.tokens >= cost:
                    lease.tokens -= cost
                    return core.Decision(True, lease.tokens + lease.remaining, 0)
                if not self._link.is_up:
                    return None
                wait_us = lease.refused_until_us - self._clock_ns() // 1000
                if wait_us > 0:
                    return core.Decision(False, lease.tokens, wait_us + (cost - 1) * limit.emission_us)
        finally:
            lease.wanted -= cost

    async def close(self) -> None:
        """Return every token that was not spent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        returns = [self._give_back(lease) for lease in self._leases.values()]
        self._leases.clear()
        await asyncio.gather(*(future for future in returns if future is not None))

    def _start_trip(self, lease: _Lease) -> "asyncio.Task[None]":
        lease.trip = asyncio.get_running_loop().create_task(self._travel(lease))
        return lease.trip

    async def _travel(self, lease: _Lease) -> None:
        limit = lease.limit
        count = min(lease.size + lease.wanted, limit.burst)
        arguments = (limit.emission_us, limit.burst, 1, _SHARE_OF_REMAINING, 0, count)
        try:
            reply = await self._link.call(Call("take", (self._key_in_redis(lease.key),), arguments))
        finally:
            lease.trip = None
        if reply is None:
            lease.tokens = 0  # decided within the node's share from now on
            return
        (granted, lease.remaining, retry_us, debt_us), _ = reply
        self._mirror.copy(lease.key, limit, debt_us)
        now_us = self._clock_ns() // 1000
        if granted == 0:
            lease.refused_until_us = now_us + max(retry_us, 1)
            return
        if lease.tokens == 0:
            lease.stock_since_us = now_us
        lease.tokens += granted
        if granted < count:
            lease.size = max(1, min(lease.size, granted))
        elif now_us - lease.asked_us < IDLE_US:
            lease.size = min(2 * lease.size, largest_lease(limit))
        lease.asked_us = now_us

    def _give_back(self, lease: _Lease) -> "asyncio.Future[Reply] | None":
        # What grew back meanwhile would have grown back all the same: to return it too would fill the bucket twice.
        age_us = self._clock_ns() // 1000 - lease.stock_since_us
        tokens = lease.tokens - -(-age_us // lease.limit.emission_us)
        lease.tokens = 0
        if tokens <= 0:
            return None
        return self._link.call(Call("give_back", (self._key_in_redis(lease.key),), (lease.limit.emission_us, tokens)))

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Return the leases that nobody uses."""
        self._sweeper = None
        before_us = self._clock_ns() // 1000 - IDLE_US
        for lease in [lease for lease in self._leases.values() if lease.used_us < before_us and lease.trip is None]:
            if not lease.wanted:
                del self._leases[lease.key]
                self._give_back(lease)
        if self._leases:
            self._sweep_later()
