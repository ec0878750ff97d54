"""What each worker says of itself a few times a second: that it lives, and how it is.

The parent sees by it who is wedged, ``/metrics`` and ``fastauth top`` add it up. The state is one file that all map;
each row is written by one worker alone.
"""

import asyncio
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

BEAT_S: Final = 0.25
ABSENT: Final = -1
"""The state of a breaker that there is not."""

_ROWS_EACH: Final = 3  # one may still be leaving while its successor starts, dies and has another
_FRESH_S: Final = 3.0


class WorkerState(msgspec.Struct, kw_only=True):
    """One worker, as of ``beat_us``. Times are on the machine's monotonic clock, which all processes share."""

    pid: int = 0
    born_us: int = 0
    beat_us: int = 0
    loop_delay_us: int = 0
    hashing: int = 0
    waiting_known_device: int = 0
    waiting_login: int = 0
    wait_known_device_us: int = 0
    wait_login_us: int = 0
    hash_us: int = 0
    sent_away: int = 0
    retry_after_s: int = 0
    staleness_ms: int = 0
    breaker_database: int = ABSENT
    breaker_http: int = ABSENT
    breaker_ldap: int = ABSENT
    breaker_redis: int = ABSENT
    is_leaving: int = 0
    """The parent's word: it is to go as soon as nobody uses its connections any more."""


_FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(WorkerState))
_LEAVING: Final = _FIELDS.index("is_leaving")
_WORD_BYTES: Final = 8


def workers_path(data_path: Path) -> Path:
    """Where the workers of a server in this data directory tell how they are."""
    return data_path / "fastauth.workers"


class WorkerTable:
    """The rows of all workers of one server."""

    def __init__(self, path: Path | None, workers: int = 1, *, may_create: bool = True) -> None:
        """In: ``path`` None for a process that is alone. Raises OSError."""
        self.rows = _ROWS_EACH * workers
        size = self.rows * len(_FIELDS) * _WORD_BYTES
        if path is None:
            descriptor = os.memfd_create("fastauth-workers", os.MFD_CLOEXEC)
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if may_create else 0), 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            self._cells = memoryview(mmap.mmap(descriptor, size)).cast("q")
        finally:
            os.close(descriptor)

    @classmethod
    def of_running(cls, path: Path) -> "WorkerTable":
        """The table of a server that runs, whatever number of workers it has. Raises OSError when there is none."""
        size = path.stat().st_size
        return cls(path, max(1, size // (_ROWS_EACH * len(_FIELDS) * _WORD_BYTES)), may_create=False)

    def write(self, row: int, state: WorkerState) -> None:
        """Tell how a worker is. A reader may see a part of it a moment before the rest."""
        at = row * len(_FIELDS)
        for offset, value in enumerate(msgspec.structs.astuple(state)):
            self._cells[at + offset] = value

    def read(self, row: int) -> WorkerState:
        """How a worker was when it told last; all zero when none has."""
        at = row * len(_FIELDS)
        return WorkerState(**dict(zip(_FIELDS, self._cells[at : at + len(_FIELDS)], strict=True)))

    def tell_to_leave(self, row: int) -> None:
        """To be repeated until the worker is gone: it may be writing just now."""
        self._cells[row * len(_FIELDS) + _LEAVING] = 1

    def is_leaving(self, row: int) -> bool:
        """Whether a worker has been told to."""
        return self._cells[row * len(_FIELDS) + _LEAVING] != 0

    def clear(self, row: int) -> None:
        """Forget who had the row."""
        self.write(row, WorkerState())

    def present(self) -> list[WorkerState]:
        """Those whose process is there, however long they have been silent, the eldest first."""
        states = [self.read(row) for row in range(self.rows)]
        there = [state for state in states if state.pid and Path(f"/proc/{state.pid}").exists()]
        return sorted(there, key=lambda state: state.born_us)

    def living(self) -> list[WorkerState]:
        """Those who have told of themselves of late, the eldest first."""
        now_us = monotonic_us()
        states = [self.read(row) for row in range(self.rows)]
        fresh = [state for state in states if state.pid and now_us - state.beat_us < _FRESH_S * 1_000_000]
        return sorted(fresh, key=lambda state: state.born_us)


class Heartbeat:
    """Tells how this worker is, for as long as its event loop turns. To be made on the running loop."""

    def __init__(self, table: WorkerTable, row: int, look: Callable[[WorkerState], None]) -> None:
        """In: ``look`` writes into a state what it knows, and sees in it whether the worker is to leave."""
        self._table = table
        self._row = row
        self._look = look
        self._state = WorkerState(pid=os.getpid(), born_us=monotonic_us())
        self._loop = asyncio.get_running_loop()
        self._beat()

    def _beat(self) -> None:
        self._state.beat_us = monotonic_us()
        self._state.is_leaving = int(self._table.is_leaving(self._row))
        self._look(self._state)
        self._table.write(self._row, self._state)
        self._timer = self._loop.call_later(BEAT_S, self._beat)

    def close(self) -> None:
        """Nothing more is told, and the row is free."""
        self._timer.cancel()
        self._table.clear(self._row)


def monotonic_us() -> int:
    """Now, on the clock of the table."""
    return time.monotonic_ns() // 1_000
