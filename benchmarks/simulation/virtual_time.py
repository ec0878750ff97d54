"""An event loop whose clock jumps from event to event: the server's own coroutines as a discrete-event simulation.

asyncio keeps its timers in a heap, which is all that a simulator of events is. With simpy, or a heap of our own, the
queue for logins and the leases would have to be written once more as its processes; on this loop they run as they are.
Whatever runs on it must read time from the loop and wait for nothing outside of it.
"""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

T = TypeVar("T")

_RESOLUTION_S: Final = 1e-9  # what sums of times may be off by


class NothingLeft(Exception):
    """Something waits for what can never happen: a defect of the simulation."""


class _Jump(selectors.BaseSelector):
    """Instead of waiting for files, it moves the clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._keys: dict[int, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingLeft
        self.now_s += max(0.0, timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its ``time()`` is seconds since the simulation began, and moves only when nothing is left to do."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        self._clock_resolution = _RESOLUTION_S

    def time(self) -> float:
        return self._jump.now_s

    def time_ns(self) -> int:
        """The same in whole nanoseconds, rounded: where real clocks are read so."""
        return round(self._jump.now_s * 1e9)


def simulate(work: Coroutine[Any, Any, T]) -> T:
    """What comes of a coroutine in virtual time. Raises NothingLeft when it waits for what can never happen."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
