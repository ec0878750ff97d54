"""A real PostgreSQL cluster as processes, in a temporary folder of its own, ended by its own pid.

PostgreSQL refuses to run as root, so root starts it as the user ``postgres`` of the package.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from fastauth.backends.migrations import upgrade_postgres
from tests.integration.running import free_port, wait_for

TABLES: Final = "users, signing_keys, sessions, clients, news, leases"
# A dead parent's children are ended when the thread that started them ends, so one thread that lasts starts them all.
_starter: Final = ThreadPoolExecutor(1, "postgres-starter")


@cache
def programs() -> Path | None:
    """Where initdb and postgres are: Debian keeps each version's out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return None if initdb is None else Path(initdb).resolve().parent


def require_postgres() -> Path:
    """Skip the test where it is missing; with ``CI=true`` fail it."""
    folder = programs()
    if folder is None:
        missing = "PostgreSQL is not installed; run: apt-get install -y postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return folder


class PostgresServer:
    """One cluster on 127.0.0.1, trusting everybody there."""

    def __init__(self, *options: str, durable: bool = False) -> None:
        """In: further ``-c name=value``; whether commits wait for the disk, as they must in earnest."""
        self._programs = require_postgres()
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="fastauth-postgres-"))
        self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        if os.geteuid() != 0:
            self._as_user = []
        else:
            shutil.chown(self.folder, "postgres", "postgres")
        self._options = ["max_connections=200", "shared_buffers=64MB", f"unix_socket_directories={self.folder}"]
        self._options += [] if durable else ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
        self._options += options
        self._process: subprocess.Popen[bytes] | None = None
        initdb = [
            str(self._programs / "initdb"),
            "-D",
            str(self.folder / "data"),
            "-U",
            "fastauth",
            "-A",
            "trust",
            "-N",
        ]
        subprocess.run(
            [*self._as_user, *initdb, "-E", "UTF8", "--locale=C.UTF-8"], check=True, capture_output=True, cwd="/"
        )

    def url(self, database: str = "fastauth") -> str:
        """For ``FASTAUTH_DATABASE_URL``."""
        return f"postgresql://fastauth@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "never started"
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def start(self) -> None:
        """Return when it answers, on the same port every time."""
        self._process = _starter.submit(self._spawn).result()
        wait_for(lambda: self._answers() or not self.is_running)
        assert self.is_running, self.log

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _spawn(self) -> "subprocess.Popen[bytes]":
        command = [str(self._programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += ["-h", "127.0.0.1"]
        for option in self._options:
            command += ["-c", option]
        tied = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        with (self.folder / "log.txt").open("a") as log:
            return subprocess.Popen(
                [*self._as_user, *tied, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )

    def _answers(self) -> bool:
        return subprocess.run(self._psql("SELECT 1", "postgres"), capture_output=True, check=False).returncode == 0

    def _psql(self, sql: str, database: str) -> list[str]:
        client = [str(self._programs / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "fastauth"]
        return [*client, "-h", "127.0.0.1", "-p", str(self.port), "-d", database, "-c", sql]

    def sql(self, sql: str, database: str = "fastauth") -> str:
        """What psql prints."""
        done = subprocess.run(self._psql(sql, database), capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def create(self, database: str = "fastauth", template: str = "template1") -> str:
        """A database; out: its URL."""
        self.sql(f"CREATE DATABASE {database} TEMPLATE {template}", "postgres")
        return self.url(database)

    def processes(self) -> list[int]:
        """The server's and its backends'."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def pause(self) -> None:
        """SIGSTOP to all of it: the kernel accepts connections, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):  # a backend may just have ended
                os.kill(pid, number)

    def kill(self) -> None:
        """SIGKILL to all of it, and wait."""
        if self.is_running:
            for pid in reversed(self.processes()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert self._process is not None
            self._process.wait()

    def stop(self) -> None:
        """A fast shutdown, and wait."""
        if self.is_running:
            self.resume()
            assert self._process is not None
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def close(self) -> None:
        """Stop it and remove its folder."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def running_postgres(*options: str, durable: bool = False) -> Iterator[PostgresServer]:
    """A cluster with a migrated database ``fastauth``, from its first answer to its end."""
    with contextlib.closing(PostgresServer(*options, durable=durable)) as server:
        server.start()
        upgrade_postgres(server.create())
        yield server
