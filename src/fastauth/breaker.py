"""Calls to a dependency, guarded: the breaker of ``domain/breaker.py`` around them, and a bound on how many at once.

``CircuitBreaker`` says at once that a dependency is down instead of waiting for it; ``Bulkhead`` keeps the calls of one
dependency from taking everything there is, so that a slow one sinks alone.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from fastauth.domain.breaker import Breaker, BreakerRules, Outcome, State
from fastauth.domain.errors import Unavailable

T = TypeVar("T")

BEAT_S: Final = 0.05


class LoopLag:
    """How late the event loop has been: what was waited for because of us, and not because of somebody else."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``start`` it on a running loop; until then the loop is never late."""
        self._clock = clock
        self._late_s = 0.0
        self._due_s = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._due_s = self._clock() + BEAT_S
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def so_far_s(self) -> float:
        """Seconds, all together; the part that has not ended is counted too."""
        return self._late_s + max(0.0, self._clock() - self._due_s)

    def _beat(self) -> None:
        self._late_s = self.so_far_s()
        self.start()


class CircuitBreaker:
    """The breaker of one dependency in one process; to be used on one event loop.

    ``on_change`` is called once a change with the new state and why: with what the last call raised, say.
    """

    def __init__(
        self,
        dependency: str,
        rules: BreakerRules,
        *,
        slow_s: float = math.inf,
        soonest_s: float = 0.0,
        lag: LoopLag | None = None,
        on_change: Callable[[str, State, str], None] = lambda dependency, state, reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """In: a call that takes longer than ``slow_s`` is a failure, whatever it brings; a timeout that comes before
        ``soonest_s`` says nothing: the time was lost here. ``lag`` is what is taken off both.
        """
        self.dependency = dependency
        self._slow_s = slow_s
        self._soonest_s = soonest_s
        self._breaker = Breaker(rules)
        self._lag = lag or LoopLag(clock)
        self._on_change = on_change
        self._clock = clock

    @property
    def state(self) -> State:
        """Of now."""
        return self._breaker.state

    async def call(self, job: Callable[[], Awaitable[T]], is_failure: Callable[[Exception], bool]) -> T:
        """Await ``job()`` unless the circuit is open. In: which exceptions say that the dependency has failed; others
        are answers like any, and all come through. TimeoutError, and an exception caused by one, is a timeout.

        A caller that is cancelled says nothing about the dependency. Raises Unavailable when it is not asked.
        """
        generation = self._admit()
        began_s, late_s = self._clock(), self._lag.so_far_s()
        outcome: Outcome = "neutral"
        reason = "the caller left"
        try:
            result = await job()
            outcome, reason = "success", "it answers again"
            return result
        except Exception as error:
            outcome = _outcome_of(error, is_failure)
            reason = str(error) or type(error).__name__
            raise
        finally:
            if outcome != "neutral":
                took_s = self._clock() - began_s - (self._lag.so_far_s() - late_s)
                if outcome == "timeout" and took_s < self._soonest_s:
                    outcome = "neutral"
                elif outcome == "success" and took_s > self._slow_s:
                    outcome, reason = "failure", f"an answer took {took_s:.1f} s"
            self._settle(generation, outcome, reason)

    def _admit(self) -> int:
        now_s, before = self._clock(), self._breaker.state
        generation = self._breaker.admit(now_s)
        if self._breaker.state != before:
            self._on_change(self.dependency, self._breaker.state, "one call is made to find out")
        if generation is None:
            wait_s = self._breaker.retry_after_s(now_s)
            reason = "it failed a moment ago and is not asked"
            raise Unavailable(self.dependency, reason, max(1, math.ceil(wait_s)), was_asked=False)
        return generation

    def _settle(self, generation: int, outcome: Outcome, reason: str) -> None:
        before = self._breaker.state
        self._breaker.settle(generation, outcome, self._clock())
        if self._breaker.state != before:
            self._on_change(self.dependency, self._breaker.state, reason)


def _outcome_of(error: Exception, is_failure: Callable[[Exception], bool]) -> Outcome:
    if isinstance(error, Unavailable) and not error.was_asked:
        return "neutral"
    if not is_failure(error):
        return "success"
    return "timeout" if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError) else "failure"


class Bulkhead:
    """At most ``most`` calls at a time, and ``waiting`` that wait for their turn, first come first served."""

    def __init__(self, dependency: str, most: int, waiting: int) -> None:
        self._dependency = dependency
        self._free = most
        self._most_waiting = waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    async def call(self, job: Callable[[], Awaitable[T]]) -> T:
        """Await ``job()`` when it is its turn; the caller bounds how long. Raises Unavailable at once when
        too many wait.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait()
        try:
            return await job()
        finally:
            self._leave()

    async def _wait(self) -> None:
        if len(self._queue) >= self._most_waiting:
            raise Unavailable(self._dependency, "too many calls wait for it already", was_asked=False)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given the place as it left
                self._leave()
            else:
                with contextlib.suppress(ValueError):
                    self._queue.remove(turn)
            raise

    def _leave(self) -> None:
        """Hand the place on."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
