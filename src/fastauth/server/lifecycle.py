"""Starting, replacing and stopping the worker processes: granian from code, with fastauth's manners.

granian forks its workers (on Python 3.14 it spawns them); the parent never serves. See
``docs/decisions/0003-granian.md`` for each option and override.
"""

import contextlib
import faulthandler
import os
import select
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from fastauth.limits import LocalBuckets
from fastauth.server.counters import Counters, counters_path
from fastauth.server.instance import DrainFlag, drain_path
from fastauth.server.lanes import hash_memory_kib, permits_path
from fastauth.server.limiting import table_path
from fastauth.server.listening import run_worker
from fastauth.server.settings import Settings
from fastauth.server.storage import StartRefused
from fastauth.server.telemetry import GRANIAN_LOGS, get_log
from fastauth.server.watchdog import Watchdog
from fastauth.server.worker import STACKS_SIGNAL, STOP_SIGNALS, build_worker_app
from fastauth.server.workers import WorkerTable, workers_path

HEADER_BUFFER_BYTES: Final = 16_384
# It also closes idle keep-alive connections, so it is longer than the idle timeout of common proxies' pools (FACTS).
HEADER_TIMEOUT_MS: Final = 30_000
BACKLOG: Final = 4_096
START_TIMEOUT_S: Final = 60.0
_RESERVED_DESCRIPTORS: Final = 256
_STEADY_AFTER_S: Final = 10.0
_FIRST_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 5.0
_MOST_FAILED_STARTS: Final = 3
_WATCH_S: Final = 1.0
_GOODBYE_S: Final = 2.0  # in which a worker that leaves asks its clients to close their connections
_STACKS_S: Final = 0.5  # in which a wedged worker has written them


class Wakeup:
    """What granian's main loop waits on, in place of its ``threading.Event``.

    A signal handler may run while the main thread holds an Event's lock, and ``set()`` would wait for it for ever; a
    write to a descriptor cannot block.
    """

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        """Wake the waiter. Safe in a signal handler and in any thread."""
        os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """Forget earlier wake-ups."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def wait(self, timeout_s: float | None = None) -> None:
        """Return when woken, or after the timeout."""
        select.select([self._descriptor], [], [], timeout_s)


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


class _Leaving:
    """A worker that goes when its successor works."""

    def __init__(self, worker: Any, row: int) -> None:
        self.worker = worker
        self.row = row
        self.stops_s: float | None = None  # once its successor works
        self.ends_s: float | None = None  # once it has been told to stop


class Server(MPServer):
    """granian with a drain before the stop, with respawns that never give up a server that has worked, and with
    replacements for workers that hang or have grown too large.
    """

    def __init__(
        self,
        settings: Settings,
        address: str,
        drain: DrainFlag,
        table: WorkerTable,
        counters: Counters,
        say: Callable[[str], None],
    ) -> None:
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
        self._grace_s = settings.grace_s
        self._table = table
        self._counters = counters
        self._rows = [0] * settings.workers
        most_kib = settings.worker_memory_kib
        if most_kib is not None:
            most_kib += hash_memory_kib(settings)
        self._watchdog = Watchdog(settings.silent_s, most_kib, START_TIMEOUT_S)
        self._watch_at = 0.0
        self._leaving: list[_Leaving] = []
        self._stop_at: float | None = None
        self.main_loop_interrupt: Any = Wakeup()
        self.announcer = threading.Thread(target=_announce, args=(self, settings, say), daemon=True)
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
        waits = self.is_ready and not self._drain.is_set()
        self._stop_at = time.monotonic() + (self._drain_s if waits else 0.0)
        self._drain.set()
        self.main_loop_interrupt.set()

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self._stop_at is not None

    def give_up(self) -> None:
        """Stop because the workers never came up."""
        self.has_given_up = True
        self._stop_at = time.monotonic()
        self.main_loop_interrupt.set()

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any) -> Any:  # type: ignore[override]
        each = self._table.rows // self.workers
        # Not that of one which is still leaving: two would write into it.
        taken = {self._rows[idx], *(leaving.row for leaving in self._leaving)}
        row = next(row for row in range(idx * each, (idx + 1) * each) if row not in taken)
        self._rows[idx] = row
        self._table.clear(row)
        return super()._spawn_worker(idx, target, partial(callback_loader, row))

    def _spawn_workers(self, spawn_target: Any, target_loader: Any) -> None:
        with _signals_held():
            super()._spawn_workers(spawn_target, target_loader)  # type: ignore[no-untyped-call]  # granian has no types

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        """Replace workers that die. granian's own loop ends the whole server when one dies twice in 5.5 s."""
        self.announcer.start()  # not earlier: the workers are forked before there is a second thread
        due: dict[int, float] = {}
        is_told = False
        while self._stop_at is None or time.monotonic() < self._stop_at:
            self.main_loop_interrupt.wait(self._until_next(due))
            self.main_loop_interrupt.clear()
            if self._stop_at is not None and not is_told:
                is_told = True
                stop_in_s = round(max(0.0, self._stop_at - time.monotonic()), 1)
                get_log().info("stopping", stop_in_s=stop_in_s, hint="a second signal skips the wait")
            self.reload_signal = False  # SIGHUP: nothing to reload, and nothing to die of
            for index in self._take_dead():
                due[index] = time.monotonic() + self._backoff(index)
            for index in [index for index, at in due.items() if at <= time.monotonic()]:
                del due[index]
                with _signals_held():
                    self._respawn_workers([index], spawn_target, target_loader)
            if self._watch_at <= time.monotonic():
                self._watch(due, spawn_target, target_loader)
        self.interrupt_signal = True

    def _watch(self, due: dict[int, float], spawn_target: Any, target_loader: Any) -> None:
        """Replace those who live and should not."""
        now = time.monotonic()
        self._watch_at = now + _WATCH_S
        self._watchdog.begin(now, _WATCH_S)
        for index, worker in enumerate(self.wrks):
            pid = worker.inner.pid
            if index in due or not worker.inner.is_alive():
                continue
            verdict = self._watchdog.judge(pid, worker.birth, self._table.read(self._rows[index]), now)
            if verdict == "wedged":
                get_log().error(
                    "worker_wedged", worker=index + 1, pid=pid, hint="its stacks follow, then it is replaced"
                )
                self._counters.count_worker("wedged")
                _send(pid, STACKS_SIGNAL)
                self._watch_at = now + _STACKS_S
            elif verdict == "hopeless":
                _send(pid, signal.SIGKILL)
            elif verdict == "large" and not self._leaving:
                self._replace(index, spawn_target, target_loader)
        self._see_off(now)

    def _replace(self, index: int, spawn_target: Any, target_loader: Any) -> None:
        """Another worker in its place, which it leaves once that one works."""
        old = self.wrks[index]
        self._counters.count_worker("too_large")
        get_log().warning("worker_too_large", worker=index + 1, pid=old.inner.pid, hint="another one takes its place")
        old.interrupt_by_parent = True  # nobody need replace it any more, however it ends
        self._leaving.append(_Leaving(old, self._rows[index]))
        with _signals_held():
            worker = self.wrks[index] = self._spawn_worker(index, spawn_target, target_loader)
            worker.start()

    def _see_off(self, now: float) -> None:
        for leaving in list(self._leaving):
            worker = leaving.worker
            if not worker.inner.is_alive():
                self._leaving.remove(leaving)
            elif leaving.ends_s is not None:
                if now > leaving.ends_s:
                    worker.kill()
            elif leaving.stops_s is not None:
                self._table.tell_to_leave(leaving.row)
                if now > leaving.stops_s:
                    leaving.ends_s = now + self._grace_s
                    worker.terminate()
            elif self._table.read(self._rows[worker.idx]).pid == self.wrks[worker.idx].inner.pid:
                leaving.stops_s = now + _GOODBYE_S
                self._table.tell_to_leave(leaving.row)

    def _stop_workers(self) -> None:
        for leaving in self._leaving:
            leaving.worker.terminate()
        super()._stop_workers()  # type: ignore[no-untyped-call]  # granian has no types
        for leaving in self._leaving:
            leaving.worker.kill()
            leaving.worker.join()

    def _until_next(self, due: dict[int, float]) -> float:
        times = [self._watch_at, *due.values(), *([] if self._stop_at is None else [self._stop_at])]
        return max(0.0, min(times) - time.monotonic())

    def _take_dead(self) -> list[int]:
        count = len(self.interrupt_children)
        dead, self.interrupt_children[:count] = self.interrupt_children[:count], []
        # One that was replaced just as it died has a successor already.
        return sorted({index for index in dead if not self.wrks[index].inner.is_alive()})

    def _backoff(self, index: int) -> float:
        lived_s = time.monotonic() - self.wrks[index].birth
        delay_s = self._backoffs[index].delay_s(lived_s)
        if not self._watchdog.forget(self.wrks[index].inner.pid):
            self._counters.count_worker("died")
        get_log().error("worker_died", worker=index + 1, lived_s=round(lived_s, 3), respawn_in_s=delay_s)
        if not self.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS * self.workers:
                self.give_up()
        return delay_s


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back signals while a worker is forked.

    Until the worker has handlers of its own it would run the parent's, and a SIGTERM would be lost on it; it lets them
    through in ``build_worker_app``.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until told to stop. In: where the one ready line goes. The caller holds the ``InstanceLock``.

    Raises StartRefused when the address is taken or no worker comes up, TableRefused.
    """
    faulthandler.register(STACKS_SIGNAL, all_threads=True)  # for the workers too, from their first moment on
    flag_path, counts_path = drain_path(settings), counters_path(settings.data_path)
    drain = DrainFlag(flag_path)
    drain.clear()
    table = LocalBuckets(settings.limits.max_buckets, table_path(settings))  # before the workers: it fails once
    counters = Counters(counts_path)
    counters.clear()
    permits_path(settings).unlink(missing_ok=True)
    workers_path(settings.data_path).unlink(missing_ok=True)
    workers = WorkerTable(workers_path(settings.data_path), settings.workers)
    server = Server(settings, free_address(settings.host, settings.port), drain, workers, counters, say)
    load = partial(build_worker_app, settings, os.getpid())
    server.serve(spawn_target=run_worker, target_loader=load, wrap_loader=False)
    for path in (flag_path, counts_path, permits_path(settings), workers_path(settings.data_path)):
        path.unlink(missing_ok=True)
    table.trim()
    if server.has_given_up:
        raise StartRefused("no worker came up; the log above says why")


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def free_address(host: str, port: int) -> str:
    """The numeric address of ``host``, which granian wants.

    Raises StartRefused when somebody listens there: workers share a port, so the kernel would not object.
    """
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise StartRefused(f"{host}: {reason}; name an address of this machine with --host") from None
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
    while time.monotonic() < deadline and not server.is_stopping:
        if _answers(settings, server.bind_addr):
            server.is_ready = True
            with contextlib.suppress(OSError):  # whoever reads the line may have gone
                say(f"fastauth: ready on {settings.base_url}")
            return
        time.sleep(0.02)
    if not server.is_stopping:
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

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
