"""Whether the event loop, when it is woken, waits for its turn or takes the core at once (sched(7))."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TASKS: Final = Path("/proc/self/task")
_GRANIAN: Final = "tokio"  # how the name of its threads begins: they are started after the loop has


class LoopTurns:
    """Of the thread that makes it, an event loop's, and of those that it starts later, granian's among them.

    A loop that runs the moment it is woken takes the core from the thread that has handed it the first of several
    requests, so that each of them costs a change of threads: they wait (``SCHED_BATCH``). But beside a thread that
    computes for long, the turn would come a slice of the scheduler later, several milliseconds: for as long as one
    does, the loop and granian interrupt (``SCHED_OTHER``). ``docs/decisions/0024-request-path.md`` has the figures.
    """

    def __init__(self) -> None:
        self._threads = [threading.get_native_id()]
        self._knows_granian = False
        self._lock = threading.Lock()  # never the loop's: it would wait for threads of a lower priority
        self._long = 0
        self._is_ours = False
        with contextlib.suppress(OSError):  # a sandbox that does not let us, or a C library that cannot (musl)
            self._is_ours = os.sched_getscheduler(0) == os.SCHED_OTHER  # any other is what the operator wants
        self._set(os.SCHED_BATCH)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Meanwhile this thread, one of several perhaps, computes for long."""
        with self._lock:
            self._long += 1
            if self._long == 1:
                self._find_granian()
                self._set(os.SCHED_OTHER)
        try:
            yield
        finally:
            with self._lock:
                self._long -= 1
                if self._long == 0:
                    self._set(os.SCHED_BATCH)

    def _find_granian(self) -> None:
        if self._is_ours and not self._knows_granian:
            found = [int(task.name) for task in _TASKS.iterdir() if (task / "comm").read_text().startswith(_GRANIAN)]
            self._threads += found
            self._knows_granian = bool(found)

    def _set(self, policy: int) -> None:
        if self._is_ours:
            for thread in self._threads:
                with contextlib.suppress(OSError):  # it has ended
                    os.sched_setscheduler(thread, policy, os.sched_param(0))
