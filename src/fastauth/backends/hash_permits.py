"""How many password hashes all workers of a server compute at once, and in how much memory.

The state is one file that the workers map. Each has a row of counters that it alone writes, so there is nothing to lock
and nothing to repair but the row of a worker that died: the kernel drops the lock on its row, and who waits sees that.
"""

import contextlib
import fcntl
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from fastauth import core
from fastauth.domain.errors import Unavailable

# Columns of the table; a row is a worker's. Each goes up only, and two of them make one number that goes up and down.
_TAKEN, _GIVEN, _TAKEN_KIB, _GIVEN_KIB, _WANTED, _SERVED, _LAST_US = range(7)
_COLUMNS: Final = 7
_WORD_BYTES: Final = 8
_FLOCK: Final = struct.Struct("@hhqqi")  # struct flock of fcntl(2)

_POLL_S: Final = 0.002
_SWEEP_S: Final = 0.1
# How long a permit is left to somebody who has waited longer: it may have been stopped, or have given up.
_COURTESY_S: Final = 0.006
_SHARE_OF_MEMORY: Final = 4
_CGROUP_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class HashBounds(msgspec.Struct, frozen=True):
    """At most ``jobs`` hashes at once, all workers together, in at most ``memory_kib``; one alone may exceed that."""

    jobs: int
    memory_kib: int

    @classmethod
    def of_machine(cls, memory_mib: int | None, each_kib: int) -> "HashBounds":
        """One a core that this process may use, fewer where the memory is short. In: the budget in MiB, None for a
        quarter of what there is; what an ordinary hash takes.
        """
        budget_kib = memory_mib * 1024 if memory_mib is not None else memory_limit_kib() // _SHARE_OF_MEMORY
        return cls(max(1, min(len(os.sched_getaffinity(0)), budget_kib // max(1, each_kib))), budget_kib)


def memory_limit_kib() -> int:
    """The memory of this machine, or of the control group that this process is in."""
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            limit = min(limit, int(path.read_text()))
    return limit // 1024


class HashPermits:
    """The permits of one worker. The threads of a worker share one of these."""

    def __init__(self, bounds: HashBounds, workers: int = 1, path: Path | None = None) -> None:
        """In: ``path`` the file of all ``workers`` of a server, None for a process that is alone.

        Raises Unavailable when more workers have it already.
        """
        self.bounds = bounds
        self._rows = workers + 1  # one may still be dying while its successor starts
        size = _COLUMNS * self._rows * _WORD_BYTES
        self._file = _open(path, size)
        memory = mmap.mmap(self._file, size)
        # To write: an addition that the others see before this one looks at them. Nobody else writes, so -1: no lock.
        self._cells = core.SharedCounters(memory, -1)
        table = memoryview(memory).cast("q")
        self._columns = [table[column * self._rows : (column + 1) * self._rows] for column in range(_COLUMNS)]
        self._mine = threading.Lock()
        self._line: list[object] = []  # the threads of this worker that wait
        self._row = self._claim_row()

    def close(self) -> None:
        """Give the row back."""
        self._lock(self._row, fcntl.F_UNLCK)  # the mapping holds the file open, and with it the lock
        os.close(self._file)

    @property
    def running(self) -> int:
        """How many are taken, all workers together."""
        given = sum(self._columns[_GIVEN])  # read first: never less than none
        return sum(self._columns[_TAKEN]) - given

    def take(self, memory_kib: int, goes_on: Callable[[], bool]) -> bool:
        """Wait for a permit, for as long as ``goes_on()``; out: whether there is one, to be given back."""
        if not self._line and self._try(memory_kib, is_patient=False):
            return True
        return self._wait(memory_kib, goes_on)

    def give_back(self, memory_kib: int) -> None:
        """What ``take`` took."""
        with self._mine:
            self._add(_GIVEN, 1)
            self._add(_GIVEN_KIB, memory_kib)

    def _wait(self, memory_kib: int, goes_on: Callable[[], bool]) -> bool:
        me = object()
        with self._mine:
            self._line.append(me)
            self._add(_WANTED, 1)
        free_since: float | None = None  # for somebody else, who has not taken it
        swept = time.monotonic()
        try:
            while goes_on():
                time.sleep(_POLL_S)
                if self._line[0] is not me:  # of one worker's threads the first to ask is the first to get one
                    continue
                now = time.monotonic()
                if self._try(memory_kib, is_patient=free_since is not None and now - free_since > _COURTESY_S):
                    return True
                free_since = (free_since or now) if self.running < self.bounds.jobs else None
                if now - swept > _SWEEP_S:
                    swept = now
                    self._forget_dead()
            return False
        finally:
            with self._mine:
                self._line.remove(me)
                self._add(_SERVED, 1)

    def _try(self, memory_kib: int, *, is_patient: bool) -> bool:
        with self._mine:
            if not is_patient and self._is_others_turn():
                return False
            # Told first and looked at afterwards: of two at the same time at least one sees the other.
            self._add(_TAKEN, 1)
            self._add(_TAKEN_KIB, memory_kib)
            held, held_kib = self.running, self._held_kib()
            if held > self.bounds.jobs or (held > 1 and held_kib > self.bounds.memory_kib):
                self._add(_GIVEN, 1)
                self._add(_GIVEN_KIB, memory_kib)
                return False
            self._add(_LAST_US, time.monotonic_ns() // 1000 - self._columns[_LAST_US][self._row])
            return True

    def _is_others_turn(self) -> bool:
        """Whether somebody waits who has less than we, or as little and got something less lately."""
        return any(
            self._waiting(row) and (self._held(row), self._columns[_LAST_US][row]) < self._standing()
            for row in range(self._rows)
            if row != self._row
        )

    def _standing(self) -> tuple[int, int]:
        return self._held(self._row), self._columns[_LAST_US][self._row]

    def _held(self, row: int) -> int:
        return self._columns[_TAKEN][row] - self._columns[_GIVEN][row]

    def _waiting(self, row: int) -> int:
        return self._columns[_WANTED][row] - self._columns[_SERVED][row]

    def _held_kib(self) -> int:
        given = sum(self._columns[_GIVEN_KIB])
        return sum(self._columns[_TAKEN_KIB]) - given

    def _add(self, column: int, amount: int) -> None:
        self._cells.add(column * self._rows + self._row, amount)

    # -- rows, and whose they are

    def _claim_row(self) -> int:
        for row in range(self._rows):
            if self._lock(row, fcntl.F_WRLCK):
                self._clear(row)
                return row
        raise Unavailable("hashing", "more workers than there are to be share the permits")

    def _forget_dead(self) -> None:
        """What a worker held that is no more is free again."""
        for row in range(self._rows):
            is_in_use = row != self._row and (self._held(row) or self._waiting(row))
            if is_in_use and self._lock(row, fcntl.F_WRLCK):
                self._clear(row)
                self._lock(row, fcntl.F_UNLCK)

    def _clear(self, row: int) -> None:
        for more, less in ((_TAKEN, _GIVEN), (_TAKEN_KIB, _GIVEN_KIB), (_WANTED, _SERVED)):
            surplus = self._columns[more][row] - self._columns[less][row]
            self._cells.add(less * self._rows + row, max(0, surplus))

    def _lock(self, row: int, kind: int) -> bool:
        """A lock of the open file (F_OFD_SETLK): it ends with the process, however that ends."""
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, row, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        return True


def _open(path: Path | None, size: int) -> int:
    if path is None:
        file = os.memfd_create("fastauth-hash-permits", os.MFD_CLOEXEC)
    else:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.posix_fallocate(file, 0, size)
    return file
