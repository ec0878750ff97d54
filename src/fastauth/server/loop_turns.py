"""Whether the event loop, when it is woken, waits for its turn or takes the core at once (sched(7))."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TASKS: Final = Path("/proc/self/task")
_GRANIAN: Final = b"tokio"  # how the names of its threads begin; they are started after the loop
_LOOK_S: Final = 1.0  # for those that it has started or ended since


class LoopTurns:
    """Of the thread that makes it, an event loop's, and of granian's.

    A loop that runs the moment it is woken takes the core from the thread that has handed it the first of several
    requests, so that each of them costs a change of threads: they wait (``SCHED_BATCH``), as do threads that the loop
    starts, which inherit it. But beside a thread that computes for long, the turn would come a slice of the scheduler
    later, several milliseconds: for as long as one does, the loop and granian interrupt (``SCHED_OTHER``); a thread
    that the loop starts meanwhile keeps that. ``docs/decisions/0024-request-path.md`` has the figures. Raises nothing:
    where the kernel or the C library (musl) refuses, everything stays as it was.
    """

    def __init__(self) -> None:
        self._loop = threading.get_native_id()
        self._granian: list[int] = []
        self._looks_at_s = 0.0
        self._lock = threading.Lock()  # never the loop's: it would wait for threads of a lower priority
        self._long = 0
        self._is_ours = False
        with contextlib.suppress(OSError):
            self._is_ours = os.sched_getscheduler(0) == os.SCHED_OTHER  # any other is what the operator wants
        if self._is_ours:
            _set(self._loop, os.SCHED_BATCH)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Meanwhile this thread, one of several perhaps, computes for long."""
        with self._lock:
            self._long += 1
            if self._long == 1:
                self._set_all(os.SCHED_OTHER)
        try:
            yield
        finally:
            with self._lock:
                self._long -= 1
                if self._long == 0:
                    self._set_all(os.SCHED_BATCH)

    def _set_all(self, policy: int) -> None:
        if self._is_ours:
            _set(self._loop, policy)
            if time.monotonic() >= self._looks_at_s:
                self._granian = _threads(_GRANIAN)
                self._looks_at_s = time.monotonic() + _LOOK_S
            for thread in self._granian:
                if (_TASKS / str(thread)).exists():  # its number may be that of another process's by now
                    _set(thread, policy)


def _set(thread: int, policy: int) -> None:
    with contextlib.suppress(OSError):  # it has ended, or a sandbox does not let us
        os.sched_setscheduler(thread, policy, os.sched_param(0))


def _threads(name: bytes) -> list[int]:
    """Of this process, those whose names begin so."""
    found = []
    with contextlib.suppress(OSError):  # no /proc
        for task in _TASKS.iterdir():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if (task / "comm").read_bytes().startswith(name):
                    found.append(int(task.name))
    return found
