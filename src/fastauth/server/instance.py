"""One server a data directory: the lock that says so, its pid, and the word to stop that its workers hear."""

import fcntl
import mmap
import os
from pathlib import Path

from fastauth.server.settings import Settings
from fastauth.server.storage import StartRefused


def drain_path(settings: Settings) -> Path:
    """The file of the ``DrainFlag``."""
    return settings.data_path / "fastauth.drain"


class DrainFlag:
    """One byte that the parent sets and every worker reads: the server has been told to stop."""

    def __init__(self, path: Path) -> None:
        """In: the file that carries the byte; the holder of the directory's lock makes it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, 1)
            self._byte = mmap.mmap(descriptor, 1)
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Forget the stop of an earlier server."""
        self._byte[0] = 0

    def set(self) -> None:
        """From now on every worker answers ``/readyz`` with 503."""
        self._byte[0] = 1

    def is_set(self) -> bool:
        """Whether the server has been told to stop."""
        return self._byte[0] != 0


class InstanceLock:
    """One server a data directory, and one a SQLite file: the kernel drops the locks with the last holder."""

    def __init__(self, settings: Settings) -> None:
        """Raises StartRefused when another server holds one of them."""
        database = settings.sqlite_path
        self._descriptors: list[int] = []
        self._pid_file = settings.data_path / "fastauth.pid"
        self._lock(settings.data_path / "fastauth.lock", f"runs in {settings.data_path}")
        if database is not None and database.parent != settings.data_path:
            self._lock(database.with_name(database.name + ".lock"), f"serves {database}")
        self._pid_file.write_text(f"{os.getpid()}\n")

    def _lock(self, path: Path, what: str) -> None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._let_go()
            raise StartRefused(f"{path}: {error.strerror}") from None
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._let_go()
            raise StartRefused(f"another fastauth {what}; stop it, or name another directory with --data-dir") from None

    def _let_go(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def release(self) -> None:
        """Remove the pid file and let go."""
        self._pid_file.unlink(missing_ok=True)
        self._let_go()
