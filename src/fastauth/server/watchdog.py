"""Which workers have to be replaced though they live: those whose event loop stands still, those that are too large.

Pure of processes: it is told how workers are and says what to do. ``lifecycle.py`` does it.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from fastauth.server.workers import WorkerState

Verdict = Literal["well", "wedged", "hopeless", "large"]

_LATE_S: Final = 2.0  # whoever looks so much too late has been stopped itself, and with it perhaps everybody
_RESIDENT: Final = "RssAnon:"
_LARGE_LOOKS: Final = 3  # in a row: memory that is given back at once is no growth


class Watchdog:
    """Looks at workers, about once a second."""

    def __init__(
        self,
        silent_s: float | None,
        most_kib: int | None,
        start_s: float,
        memory_kib: Callable[[int], int | None] | None = None,
    ) -> None:
        """In: how long a worker may be silent, how much private memory it may have, None for as long or as much as it
        likes; how long a start may take; how the memory of a process is found out.
        """
        self._silent_s = silent_s
        self._most_kib = most_kib
        self._start_s = start_s
        self._memory_kib = memory_kib or private_memory_kib
        self._looked_s: float | None = None
        self._fresh_from_s = 0.0
        self._wedged: set[int] = set()
        self._large: Counter[int] = Counter()

    def begin(self, now_s: float, every_s: float) -> None:
        """Before a round of looks. When it comes far too late, silence is counted from now on: a suspended machine or a
        stopped group wakes up all at once.
        """
        if self._looked_s is None or now_s - self._looked_s > every_s + _LATE_S:
            self._fresh_from_s = now_s
        self._looked_s = now_s

    def judge(self, pid: int, born_s: float, state: WorkerState, now_s: float) -> Verdict:
        """In: the worker's process, its birth, what stands in its row. ``hopeless``: it was found wedged before."""
        has_told = state.pid == pid
        silent_s = now_s - max(state.beat_us / 1e6 if has_told else born_s, self._fresh_from_s)
        patience_s = self._silent_s if has_told else self._start_s
        if self._silent_s is not None and patience_s is not None and silent_s > patience_s:
            if pid in self._wedged:
                return "hopeless"
            self._wedged.add(pid)
            return "wedged"
        self._wedged.discard(pid)
        if self._most_kib is None or not has_told or (self._memory_kib(pid) or 0) <= self._most_kib:
            del self._large[pid]
            return "well"
        self._large[pid] += 1
        return "large" if self._large[pid] >= _LARGE_LOOKS else "well"

    def forget(self, pid: int) -> bool:
        """The process is no more; out: whether it had been found wedged."""
        was_wedged = pid in self._wedged
        self._wedged.discard(pid)
        del self._large[pid]
        return was_wedged


def private_memory_kib(pid: int) -> int | None:
    """The memory that a process has for itself (RssAnon), None when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith(_RESIDENT)), None)
    return None if line is None else int(line.split()[1])
