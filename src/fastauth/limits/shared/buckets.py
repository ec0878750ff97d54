"""Token buckets that a fleet shares: decided in Redis while it answers, in this node's share while it does not."""

from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Final

from fastauth import core
from fastauth.domain.limits import Limit
from fastauth.limits.local import LocalBuckets
from fastauth.limits.shared.leases import Leases
from fastauth.limits.shared.link import ANSWER_TIMEOUT_S, Call, RedisLink
from fastauth.limits.shared.mirror import Mirror

_KEY_BYTES: Final = 16


class RedisBuckets:
    """Token buckets in Redis, with the local table behind them.

    In: ``url`` (``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB``);
    ``local`` the table that all processes of this machine share; ``prefix`` of every key in Redis; ``on_change(is_up,
    reason)`` called when Redis is lost, or away from the start, and when it is back; ``timeout_s`` how long a decision
    may wait for it, once: after that Redis is away until it has answered a write again.

    A limit's ``tier`` says how it is held: ``exact`` (also for None) decides each request in Redis, many a command;
    ``leased`` takes some tokens at a time, see ``lease_bound`` for what that costs in precision; ``local`` never asks.
    While Redis is away this node admits its share, one part for each node that was seen last, in buckets that went on
    being emptied with those in Redis; and what Redis forgot it is told again, leased buckets excepted.

    Belongs to one event loop: ``await open()`` first, ``await close()`` at the end, or ``async with``.

    Raises RedisRefused for a URL that cannot be meant.
    """

    def __init__(
        self,
        url: str,
        local: LocalBuckets,
        *,
        prefix: str = "fastauth",
        on_change: Callable[[bool, str], None] = lambda is_up, reason: None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self.local = local
        self.prefix = prefix
        self.link = RedisLink(url, prefix, local.id, on_change, timeout_s)
        self.mirror = Mirror(local, self.link)
        self._leases = Leases(self.link, self.mirror, self._key_in_redis)

    async def open(self) -> None:
        """Connect. It takes a second at most; without Redis it goes on trying while decisions are made locally."""
        await self.link.open()

    async def close(self) -> None:
        """Return leased tokens and disconnect."""
        await self._leases.close()
        await self.link.close()

    async def __aenter__(self) -> "RedisBuckets":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def take(self, key: str, limit: Limit, cost: int = 1) -> core.Decision:
        """Take tokens if there are enough.

        In: a key that is this limit's alone; ``cost`` 1 to the limit's burst. Raises ValueError for a key of more than
        1,024 bytes or a cost out of range. Redis never makes it raise.
        """
        decision = self.decide(key, limit, cost)
        return decision if isinstance(decision, core.Decision) else await decision

    def decide(self, key: str, limit: Limit, cost: int = 1) -> core.Decision | Awaitable[core.Decision]:
        """As ``take``, without a coroutine where nothing has to be waited for."""
        if limit.tier == "local":
            return self.local.take(key, limit, cost)
        _check(key, limit, cost)
        if not self.link.is_up:
            return self.mirror.take(key, limit, cost)
        if limit.tier == "leased":
            return self._leases.take(key, limit, cost) or self._take_leased(key, limit, cost)
        return self.mirror.refusal(key, limit, cost) or self._take_exact(key, limit, cost)

    async def _take_leased(self, key: str, limit: Limit, cost: int) -> core.Decision:
        return await self._leases.fetch(key, limit, cost) or await self._take_exact(key, limit, cost)

    async def _take_exact(self, key: str, limit: Limit, cost: int) -> core.Decision:
        emission_us, burst = limit.emission_us, limit.burst
        reminder = self.mirror.reminder(key, limit)
        arguments = (emission_us, burst, cost, 0, reminder)
        call = Call("take", (self._key_in_redis(key),), arguments, group=(key, emission_us, burst, cost))
        reply = await self.link.call(call)
        if reply is None:
            return self.mirror.take(key, limit, cost)
        (admitted, remaining, retry_us, debt_us), place = reply
        if place == 0:
            self.mirror.copy(key, limit, debt_us)
        if place < admitted:
            return core.Decision(True, remaining + (admitted - 1 - place) * cost, 0)
        return core.Decision(False, remaining, retry_us)

    def _key_in_redis(self, key: str) -> str:
        """Of one length, without a hash tag of its own, and no list of user names for whoever reads Redis."""
        return f"{self.prefix}:limit:{blake2b(key.encode(), digest_size=_KEY_BYTES).hexdigest()}"


def _check(key: str, limit: Limit, cost: int) -> None:
    if type(key) is not str or len(key) > core.MAX_KEY_BYTES:
        raise ValueError(f"the key must be text of at most {core.MAX_KEY_BYTES} bytes")
    if type(cost) is not int or not 1 <= cost <= limit.burst:
        raise ValueError("cost is out of range")
