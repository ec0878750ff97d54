"""Starting, replacing and stopping the worker processes: granian from code, with fastauth's manners.

granian forks its workers (on Python 3.14 it spawns them); the parent never serves. See
``docs/decisions/0003-granian.md`` for each option and override.
"""

import asyncio
import contextlib
import fcntl
import gc
import mmap
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from fastauth.server.app import compose
from fastauth.server.asgi import AsgiApp
from fastauth.server.bootstrap import StartRefused
from fastauth.server.settings import Settings
from fastauth.server.telemetry import GRANIAN_LOGS, get_log

HEADER_BUFFER_BYTES: Final = 16_384
# It also closes idle keep-alive connections, so it is longer than the idle timeout of common proxies' pools (FACTS).
HEADER_TIMEOUT_MS: Final = 30_000
BACKLOG: Final = 4_096
START_TIMEOUT_S: Final = 60.0
_RESERVED_DESCRIPTORS: Final = 256
_ORPHAN_CHECK_S: Final = 1.0
_STEADY_AFTER_S: Final = 10.0
_FIRST_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 5.0
_MOST_FAILED_STARTS: Final = 3


class DrainFlag:
    """One byte that the parent sets and every worker reads: the server has been told to stop."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """In: the file that carries the byte; ``create`` in the parent, before any worker."""
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
        try:
            if create:
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, 1)
            self._byte = mmap.mmap(descriptor, 1)
        finally:
            os.close(descriptor)

    def set(self) -> None:
        """From now on every worker answers ``/readyz`` with 503."""
        self._byte[0] = 1

    def is_set(self) -> bool:
        """Whether the server has been told to stop."""
        return self._byte[0] != 0


class InstanceLock:
    """One server a database: an advisory lock that the kernel drops with the last process that holds it."""

    def __init__(self, database: Path, data_dir: Path) -> None:
        """Raises StartRefused when another server holds it."""
        path = database.with_name(database.name + ".lock")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise StartRefused(
                f"another fastauth serves {database}; stop it, or name another directory with --data-dir"
            ) from None
        self._pid_file = data_dir / "fastauth.pid"
        self._pid_file.write_text(f"{os.getpid()}\n")

    def release(self) -> None:
        """Remove the pid file and let go."""
        self._pid_file.unlink(missing_ok=True)
        os.close(self._descriptor)


class Backoff:
    """When to start a worker again: at once after a long life, then ever later while it keeps dying young."""

    def __init__(self) -> None:
        self._delay_s = 0.0

    def delay_s(self, lived_s: float) -> float:
        """In: how long the worker lived. Out: how long to wait before the next one, 0 to 5 s."""
        if lived_s >= _STEADY_AFTER_S:
            self._delay_s = 0.0
        delay_s = self._delay_s
        self._delay_s = min(max(2 * delay_s, _FIRST_RETRY_S), _LONGEST_RETRY_S)
        return delay_s


class Server(MPServer):
    """granian with a drain before the stop, and with respawns that never give up a server that has worked."""

    def __init__(self, settings: Settings, address: str, drain: DrainFlag) -> None:
        """Raises StartRefused for a certificate or a key that cannot be used."""
        try:
            self._configure(settings, address)
        except (OSError, ssl.SSLError):  # an SSLError's text is OpenSSL's, and of no use to a person
            raise StartRefused(
                f"tls: {settings.tls.cert_file} and {settings.tls.key_file} are not a PEM certificate and its key"
            ) from None
        self._drain = drain
        self._drain_s = settings.drain_s
        self._backoffs = [Backoff() for _ in range(settings.workers)]
        self._failed_starts = 0
        self.is_ready = False
        self.has_given_up = False

    def _configure(self, settings: Settings, address: str) -> None:
        tls = settings.tls
        open_files = _raise_descriptor_limit()
        super().__init__(
            "fastauth",
            address=address,
            port=settings.port,
            interface=Interfaces.ASGI,
            workers=settings.workers,
            loop=Loops.uvloop,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=max(128, open_files - _RESERVED_DESCRIPTORS),
            http1_settings=HTTP1Settings(
                header_read_timeout=HEADER_TIMEOUT_MS,
                max_buffer_size=HEADER_BUFFER_BYTES,
                pipeline_flush=False,
            ),
            log_level=LogLevels.warning,
            log_dictconfig=GRANIAN_LOGS,
            ssl_cert=Path(tls.cert_file) if tls.cert_file else None,
            ssl_key=Path(tls.key_file) if tls.key_file else None,
            respawn_failed_workers=True,
            workers_kill_timeout=max(1, round(settings.grace_s)),
        )

    def signal_handler_interrupt(self, *_args: Any, **_kwargs: Any) -> None:
        """First signal: not ready, but serving, for DRAIN_S. Second: stop now."""
        if self._drain.is_set() or not self.is_ready or self._drain_s == 0:
            self._drain.set()
            self._stop()
            return
        self._drain.set()
        timer = threading.Timer(self._drain_s, self._stop)
        timer.daemon = True
        timer.start()

    def _stop(self) -> None:
        self.interrupt_signal = True
        self.main_loop_interrupt.set()

    def give_up(self) -> None:
        """Stop because the workers never came up."""
        self.has_given_up = True
        self._stop()

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        """Replace workers that die. granian's own loop ends the whole server when one dies twice in 5.5 s."""
        due: dict[int, float] = {}
        while not self.interrupt_signal:
            self.main_loop_interrupt.wait(self._until_next(due))
            self.main_loop_interrupt.clear()
            if self.reload_signal:  # SIGHUP: nothing to reload, and nothing to die of
                self.reload_signal = False
            for index in self._take_dead():
                due[index] = time.monotonic() + self._backoff(index)
            for index in [index for index, at in due.items() if at <= time.monotonic()]:
                del due[index]
                if not self.interrupt_signal:
                    self._respawn_workers([index], spawn_target, target_loader)

    @staticmethod
    def _until_next(due: dict[int, float]) -> float | None:
        return max(0.0, min(due.values()) - time.monotonic()) if due else None

    def _take_dead(self) -> list[int]:
        count = len(self.interrupt_children)
        dead, self.interrupt_children[:count] = self.interrupt_children[:count], []
        return sorted(set(dead))

    def _backoff(self, index: int) -> float:
        lived_s = time.monotonic() - self.wrks[index].birth
        delay_s = self._backoffs[index].delay_s(lived_s)
        get_log().error("worker_died", worker=index + 1, lived_s=round(lived_s, 3), respawn_in_s=delay_s)
        if not self.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS * self.workers:
                self.give_up()
        return delay_s


def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until told to stop. In: where the one ready line goes.

    Raises StartRefused when the address is taken or no worker comes up.
    """
    lock = InstanceLock(settings.sqlite_path, settings.data_path)
    try:
        flag_path = settings.data_path / "fastauth.drain"
        address = free_address(settings.host, settings.port)
        server = Server(settings, address, DrainFlag(flag_path, create=True))
        announcer = threading.Thread(target=_announce, args=(server, settings, say), daemon=True)
        server.on_startup(announcer.start)
        server.serve(target_loader=partial(build_worker_app, settings, flag_path, os.getpid()), wrap_loader=False)
        flag_path.unlink(missing_ok=True)
        if server.has_given_up:
            raise StartRefused("no worker came up; the log above says why")
    finally:
        lock.release()


def build_worker_app(settings: Settings, flag_path: Path, parent: int) -> AsgiApp:
    """In a worker: the application, tied to its parent's drain flag and life."""

    async def start() -> Any:
        loop = asyncio.get_running_loop()
        # Ctrl-C reaches every process of the terminal, but only the parent knows how to stop without losing requests.
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        loop.call_later(_ORPHAN_CHECK_S, _end_if_orphaned, loop, parent)
        service = await compose(settings, DrainFlag(flag_path).is_set)
        gc.freeze()  # what lives as long as the process is never looked through again
        return service

    return AsgiApp(start)


def _end_if_orphaned(loop: asyncio.AbstractEventLoop, parent: int) -> None:
    if os.getppid() != parent:  # the parent was killed; nobody would ever stop this worker
        os.kill(os.getpid(), signal.SIGTERM)
        return
    loop.call_later(_ORPHAN_CHECK_S, _end_if_orphaned, loop, parent)


def free_address(host: str, port: int) -> str:
    """The numeric address of ``host``, which granian wants.

    Raises StartRefused when somebody listens there: workers share a port, so the kernel would not object.
    """
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartRefused(f"{host}: {error.strerror}; name an address of this machine with --host") from None
    family, kind, protocol, _, address = infos[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            raise StartRefused(f"{host} port {port}: {error.strerror}; name another with --host and --port") from None
    return str(address[0])


def _announce(server: Server, settings: Settings, say: Callable[[str], None]) -> None:
    """Wait until the server answers, then say so: the ready line is a promise."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and not server.interrupt_signal:
        if _answers(settings, server.bind_addr):
            server.is_ready = True
            say(f"fastauth: ready on {settings.base_url}")
            return
        time.sleep(0.02)
    if not server.interrupt_signal:
        server.give_up()


def _answers(settings: Settings, address: str) -> bool:
    wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to
    host = wildcards.get(address, address)
    with contextlib.suppress(OSError), socket.create_connection((host, settings.port), timeout=2) as plain:
        connection = plain
        if settings.tls.cert_file:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # it is this very server, asked whether it is up
            connection = context.wrap_socket(plain)
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return connection.recv(16).startswith(b"HTTP/1.1 200")
    return False


def _raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; out: the limit. A connection is a file."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
