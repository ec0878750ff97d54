"""One core as a simulation has it: kinds of work that each go first come first served, and share the core by weight.

The kernel's fair scheduler gives threads that both want a core parts of it by their weights, which ``nice`` sets.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from benchmarks.simulation.virtual_time import VirtualLoop

LOOP: Final = 0
"""The event loop of the node, with the threads that sign for it."""
HASHES: Final = 1
"""The thread for password hashes, which is nicer."""
OTHERS: Final = 2
"""Whatever else has to run on this core: a database, say, in a run on one machine."""

_WEIGHT: Final = 1024.0  # of nice 0 in the kernel; a step of nice is a factor of 1.25 (sched-nice-design.rst)
_STEP: Final = 1.25
_NONE: Final = 1e-11


def weights(hash_nice: int) -> tuple[float, float, float]:
    """Of the three kinds."""
    return _WEIGHT, _WEIGHT / _STEP**hash_nice, _WEIGHT


class Processor:
    """The core. ``busy_s`` is what each kind of work has had of it."""

    def __init__(self, loop: VirtualLoop, shares: tuple[float, float, float]) -> None:
        self.busy_s = [0.0, 0.0, 0.0]
        self._loop = loop
        self._shares = shares
        self._work: tuple[deque[list[float]], ...] = (deque(), deque(), deque())
        self._done: tuple[deque[Callable[[], None]], ...] = (deque(), deque(), deque())
        self._at_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def is_busy(self, kind: int) -> bool:
        """Whether it does, or has waiting, work of a kind."""
        return bool(self._work[kind])

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return not any(self._work)

    def do(self, kind: int, cost_s: float, done: Callable[[], None]) -> None:
        """Work that takes so much of a whole core; ``done`` is called at its end. Raises ValueError for less than 0."""
        if cost_s < 0:
            raise ValueError(f"work that takes {cost_s} s")
        self._progress()
        self._work[kind].append([cost_s])
        self._done[kind].append(done)
        self._sleep()

    async def run(self, kind: int, cost_s: float) -> None:
        """The same, awaited."""
        future: asyncio.Future[None] = self._loop.create_future()
        self.do(kind, cost_s, lambda: None if future.done() else future.set_result(None))
        await future

    def _active(self) -> float:
        return sum(share for share, work in zip(self._shares, self._work, strict=True) if work)

    def _progress(self) -> None:
        now_s = self._loop.time()
        if elapsed_s := now_s - self._at_s:
            whole = self._active()
            for kind, work in enumerate(self._work):
                if work:
                    done_s = elapsed_s * self._shares[kind] / whole
                    work[0][0] -= done_s
                    self.busy_s[kind] += done_s
            self._at_s = now_s

    def _sleep(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        whole = self._active()
        ends_s = [
            max(0.0, work[0][0]) * whole / share for share, work in zip(self._shares, self._work, strict=True) if work
        ]
        if ends_s:
            self._timer = self._loop.call_at(self._loop.time() + min(ends_s), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._progress()
        for work, done in zip(self._work, self._done, strict=True):
            if work and work[0][0] <= _NONE:
                work.popleft()
                self._loop.call_soon(done.popleft())
        self._sleep()
