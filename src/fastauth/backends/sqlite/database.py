"""One SQLite file: a connection for keyed reads on the caller's thread, and a writer thread that commits in groups.

A keyed read takes about 10 us, less than handing it to another thread. Writes queue up behind the running
commit and share the next one, so that a full fsync (``synchronous=FULL``: an acknowledged write survives a
power cut) is paid once a group.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from fastauth.domain.errors import Conflict, FastauthError, Unavailable

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

# A reader in WAL mode waits for nobody, but for a recovery after a crash; it must not hold up the event loop.
READ_BUSY_TIMEOUT_MS: Final = 50
WRITE_BUSY_TIMEOUT_MS: Final = 3_000
MAX_GROUP: Final = 256
_SWITCH_RETRY_S: Final = 0.01
_TAKEN: Final = frozenset({sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY})
MAX_QUEUED: Final = 10_000


def connect(path: Path, busy_timeout_ms: int) -> sqlite3.Connection:
    """A connection in autocommit mode with this backend's settings. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    try:
        # The first switch to WAL waits for every reader: several commands may start on a new database at once.
        connection.execute(f"PRAGMA busy_timeout={WRITE_BUSY_TIMEOUT_MS}")
        _switch_to_wal(connection)
        connection.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Two that switch at once would wait for each other, so SQLite refuses one of them without waiting at all."""
    deadline = time.monotonic() + WRITE_BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_SWITCH_RETRY_S)


def as_domain_error(error: sqlite3.Error, path: Path) -> FastauthError:
    """What a driver's error means to the rest of the program; the driver's own never leaves this backend."""
    if getattr(error, "sqlite_errorcode", None) in _TAKEN:
        return Conflict("it exists already")
    return Unavailable("database", f"{error} ({path})")


def _is_own_fault(error: sqlite3.Error) -> bool:
    """Whether a statement, and not the file or the disk, is to blame: its neighbours in the group go on."""
    return isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.InterfaceError)


class _Write:
    """A job on its way through the writer thread, and where its outcome goes."""

    __slots__ = ("error", "future", "job", "loop", "result")

    def __init__(self, job: Job[Any]) -> None:
        self.job = job
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.error: Exception | None = None

    def deliver(self) -> None:
        if self.future.done():  # the caller gave up waiting
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Database:
    """The file, opened by one process after it has forked."""

    def __init__(self, path: Path) -> None:
        """Raises Unavailable when the file cannot be opened."""
        self.path = path
        try:
            self._reader = connect(path, READ_BUSY_TIMEOUT_MS)
            self._connection = connect(path, WRITE_BUSY_TIMEOUT_MS)
        except sqlite3.Error as error:
            raise as_domain_error(error, self.path) from error
        self._is_closed = False
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_groups, name="sqlite-writer", daemon=True)
        self._writer.start()

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a keyed query, at once and on this thread. Raises Unavailable."""
        try:
            return self._reader.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise as_domain_error(error, self.path) from error

    def data_version(self) -> int:
        """Another number after every commit of anybody, this object's own included. Raises Unavailable."""
        version: int = self.read("PRAGMA data_version")[0][0]
        return version

    async def write(self, job: Job[T]) -> T:
        """Run ``job`` inside the next group commit; out: its result once it is durable.

        What the job raises comes back alone, its own changes undone. Raises Conflict for a broken uniqueness,
        Unavailable when the file is locked for longer than the busy timeout, the disk is full, or the queue is.
        """
        if self._is_closed:
            raise Unavailable("database", "it is closed")
        if self._queue.qsize() >= MAX_QUEUED:
            raise Unavailable("database", "too many writes are waiting")
        write = _Write(job)
        self._queue.put(write)
        result: T = await write.future
        return result

    def close(self) -> None:
        """Finish the queued writes and close the file; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._queue.put(None)
        self._writer.join()
        self._reader.close()
        self._connection.close()

    def _write_groups(self) -> None:
        is_open = True
        while is_open:
            group = [self._queue.get()]
            while len(group) < MAX_GROUP and not self._queue.empty():
                group.append(self._queue.get())
            is_open = None not in group
            writes = [write for write in group if write is not None]
            if writes:
                if not self._commit(writes):
                    is_open = self._fail_waiting(writes) and is_open
                for loop in {write.loop for write in writes}:
                    mine = [write for write in writes if write.loop is loop]
                    with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                        loop.call_soon_threadsafe(_deliver_all, mine)

    def _fail_waiting(self, writes: list[_Write]) -> bool:
        """What has waited behind a lock as long as the group did does not wait for as long again; out: still open."""
        error, is_open = writes[0].error, True
        for _ in range(self._queue.qsize()):
            write = self._queue.get()
            if write is None:
                is_open = False
            else:
                write.error = error
                writes.append(write)
        return is_open

    def _commit(self, writes: list[_Write]) -> bool:
        """Out: False when another process held the file locked for too long."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            if len(writes) == 1:  # it has nobody whose changes it could undo
                self._run(writes[0])
            else:
                for write in writes:
                    connection.execute("SAVEPOINT job")
                    self._run(write)
                    if write.error is not None:
                        connection.execute("ROLLBACK TO job")
                    connection.execute("RELEASE job")
            connection.execute("COMMIT" if len(writes) > 1 or writes[0].error is None else "ROLLBACK")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):  # the next group tries again
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            for write in writes:  # nothing of the group is durable, whatever each job thought
                write.error = as_domain_error(error, self.path)
            return getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY
        return True

    def _run(self, write: _Write) -> None:
        try:
            write.result = write.job(self._connection)
        except sqlite3.Error as error:
            if not _is_own_fault(error):
                raise  # disk full, I/O error: SQLite may have rolled the whole group back
            domain_error = as_domain_error(error, self.path)
            write.error = domain_error if isinstance(domain_error, Conflict) else error
        except Exception as error:  # noqa: BLE001 - it belongs to the caller, not to this thread
            write.error = error


def _deliver_all(writes: list[_Write]) -> None:
    for write in writes:
        write.deliver()
