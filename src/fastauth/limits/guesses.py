"""The guess budget of an account: how many attempts may fail, however many are made at once.

An attempt is *reserved* before its password is checked and *settled* afterwards. It fits when the budget would bear
that it fails and that all others under way fail too, so N guesses at the same time never exceed the budget. What holds
the budget may be nothing but attempts that will succeed, and so a further one waits until one of them is settled, and
is refused only once failures themselves have spent the budget.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from hashlib import blake2b
from itertools import count
from typing import Final

from fastauth import core
from fastauth.domain.errors import Overloaded
from fastauth.domain.limits import Limit
from fastauth.limits.local import LocalBuckets
from fastauth.limits.shared.buckets import RedisBuckets
from fastauth.limits.shared.link import Call, Reply
from fastauth.limits.shared.mirror import share_of

MAX_WAITING: Final = 2_000
# An attempt that was never settled, because its process was killed, stops counting after one to two of these.
_EPOCH_US: Final = 10_000_000
_POLL_S: Final = 0.025  # for attempts that another process settles; one of this process wakes us at once

_BUSY: Final = object()


class Attempt:
    """One attempt: ``decision`` says whether it may be made; if so, ``settle`` it, once."""

    __slots__ = ("_settle", "decision")

    def __init__(self, decision: core.Decision, settle: Callable[[bool], None] | None = None) -> None:
        self.decision = decision
        self._settle = settle

    def settle(self, *, failed: bool) -> None:
        """The attempt has ended. In: whether a wrong password ended it, and not a right one or some trouble of ours."""
        settle, self._settle = self._settle, None
        if settle is not None:
            settle(failed)


class _Queue:
    """Those who wait for one account, first come first served."""

    __slots__ = ("ended", "turn", "waiting")

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.ended = asyncio.Event()
        self.waiting = 0


class GuessBudget:
    """Guess budgets under one limit, one a key: held in Redis, and without one in the table of this machine."""

    def __init__(self, limit: Limit, local: LocalBuckets, shared: RedisBuckets | None = None) -> None:
        """In: the rate at which failures are forgiven and how many there may be; a limit of tier ``local`` stays
        on this machine.
        """
        self._limit = limit
        self._local = local
        self._shared = None if limit.tier == "local" else shared
        self._queues: dict[str, _Queue] = {}
        self._waiting = 0
        self._ids = (f"#{secrets.token_hex(8)}:{number}" for number in count())

    async def reserve(self, key: str, wait_s: float) -> Attempt:
        """Make room for one more attempt, waiting at most ``wait_s`` while attempts under way hold the budget.

        Out: an attempt, refused when failures have spent the budget. Raises Overloaded when the wait was in vain or too
        many wait, ValueError for a key of more than 1,000 bytes.
        """
        if key not in self._queues:
            attempt = await self._try(key)
            if isinstance(attempt, Attempt):
                return attempt
        if self._waiting >= MAX_WAITING:
            raise Overloaded(1)
        queue = self._queues.setdefault(key, _Queue())
        queue.waiting += 1
        self._waiting += 1
        try:
            async with asyncio.timeout(wait_s), queue.turn:
                return await self._wait(key, queue)
        except TimeoutError:
            raise Overloaded(1) from None
        finally:
            self._waiting -= 1
            queue.waiting -= 1
            if not queue.waiting:
                del self._queues[key]

    async def _wait(self, key: str, queue: _Queue) -> Attempt:
        while True:
            queue.ended.clear()
            attempt = await self._try(key)
            if isinstance(attempt, Attempt):
                return attempt
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await queue.ended.wait()

    async def _try(self, key: str) -> Attempt | object:
        """An attempt, or ``_BUSY`` when only others under way stand against it."""
        if self._shared is None:
            return self._try_here(key, self._limit)
        if self._shared.link.is_up:
            if (refusal := self._shared.mirror.refusal(key, self._limit, 1)) is not None:
                return Attempt(refusal)
            attempt = await self._try_in_redis(key, self._shared)
            if attempt is not None:
                return attempt
        return self._try_here(key, share_of(self._limit, self._shared.link.nodes))

    def _wake(self, key: str) -> None:
        if queue := self._queues.get(key):
            queue.ended.set()

    # -- on this machine

    def _try_here(self, key: str, rate: core.Rate) -> Attempt | object:
        epoch = time.monotonic_ns() // 1000 // _EPOCH_US
        until_us = (epoch + 2) * _EPOCH_US
        trying = f"{key}:{epoch}"
        # Counted before the failures are read: of two who come together, at least one sees the other.
        under_way = self._local.hold(trying, until_us)
        under_way += self._local.held(f"{key}:{epoch - 1}", until_us - _EPOCH_US)
        next_one = self._local.peek(key, rate)
        budget = next_one.remaining + 1 if next_one.allowed else 0
        if under_way > budget:
            self._local.release(trying, until_us)
            return _BUSY if budget else Attempt(next_one)

        def settle(failed: bool) -> None:
            if failed:  # charged before the hold ends: never is neither counted
                self._local.charge(key, rate)
            self._local.release(trying, until_us)
            self._wake(key)

        return Attempt(core.Decision(True, budget - under_way, 0), settle)

    # -- in Redis

    async def _try_in_redis(self, key: str, shared: RedisBuckets) -> Attempt | object | None:
        """None when Redis does not answer."""
        limit = self._limit
        account = f"{shared.prefix}:guess:{{{blake2b(key.encode(), digest_size=16).hexdigest()}}}"
        keys = (f"{account}:failed", f"{account}:trying")
        name = next(self._ids)
        budget = (limit.emission_us, limit.burst)

        def settle(failed: bool) -> None:
            def then(future: "asyncio.Future[Reply]") -> None:
                if future.cancelled() or (reply := future.result()) is None:
                    if failed:  # Redis went away in between: what it should have counted counts here
                        self._local.charge(key, share_of(limit, shared.link.nodes))
                else:
                    shared.mirror.copy(key, limit, reply[0][3])
                self._wake(key)

            settled = shared.link.call(Call("settle", keys, (*budget, int(failed), name)), hurry=False)
            settled.add_done_callback(then)

        reminder = shared.mirror.reminder(key, limit)
        arguments = (*budget, reminder, 2 * _EPOCH_US, name)
        future = shared.link.call(Call("reserve", keys, arguments, undo=lambda: settle(False)))
        try:
            reply = await future
        except asyncio.CancelledError:
            if not future.cancelled():  # the reply had come already
                settle(False)
            raise
        if reply is None:
            return None
        (verdict, remaining, retry_us, debt_us), _ = reply
        shared.mirror.copy(key, limit, debt_us)
        if verdict < 0:
            return _BUSY
        if verdict == 0:
            return Attempt(core.Decision(False, 0, retry_us))
        return Attempt(core.Decision(True, remaining, 0), settle)
