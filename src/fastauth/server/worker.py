"""A worker process from the inside: the application, tied to the life of its parent."""

import asyncio
import faulthandler
import gc
import os
import signal
from typing import Any, Final

from fastauth.server.app import Process, compose
from fastauth.server.asgi import AsgiApp
from fastauth.server.counters import Counters, counters_path
from fastauth.server.instance import DrainFlag, drain_path
from fastauth.server.loop_turns import LoopTurns
from fastauth.server.settings import Settings
from fastauth.server.telemetry import get_log
from fastauth.server.workers import WorkerTable, workers_path

STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
STACKS_SIGNAL: Final = signal.SIGUSR2
"""Upon it a worker writes the stacks of all its threads to standard error, whatever it is doing."""
_ORPHAN_CHECK_S: Final = 1.0
_STARVATION_CHECK_S: Final = 1.0
_MOST_STARVED_CHECKS: Final = 3
_TURNS_OF_A_START: Final = 100


def build_worker_app(settings: Settings, parent: int, row: int) -> AsgiApp:
    """In a worker: the application, tied to its parent's drain flag and life. In: its row of the ``WorkerTable``."""
    faulthandler.register(STACKS_SIGNAL, all_threads=True)  # a worker that was spawned has not inherited it
    # A signal to the terminal's or the parent's group is the parent's affair: only it can stop without losing requests.
    os.setpgid(0, 0)

    async def start() -> Any:
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        loop.call_later(_ORPHAN_CHECK_S, _end_if_orphaned, loop, parent)
        loop.call_later(_STARVATION_CHECK_S, _end_if_starved, loop, 0)
        turns = LoopTurns() if settings.lanes.loop_policy == "batch" else None
        counters = Counters(counters_path(settings.data_path))
        table = WorkerTable(workers_path(settings.data_path), settings.workers)
        is_draining = DrainFlag(drain_path(settings)).is_set
        service = await compose(settings, Process(counters, table, row, is_draining, turns))
        gc.freeze()  # what lives as long as the process is never looked through again
        _let_signals_through(loop, _TURNS_OF_A_START)
        return service

    return AsgiApp(start, settings.lanes.handler_timeout_s)


def _let_signals_through(loop: asyncio.AbstractEventLoop, turns: int) -> None:
    """From the given turn of the loop on.

    granian runs the loop once for the start and again to serve, and a signal that comes between the two is lost by
    uvloop. The first run ends a few turns after the start is done, so that a later turn is one of the second.
    """
    if turns:
        loop.call_soon(_let_signals_through, loop, turns - 1)
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _end_if_orphaned(loop: asyncio.AbstractEventLoop, parent: int) -> None:
    if os.getppid() != parent:  # the parent was killed; nobody would ever stop this worker
        os.kill(os.getpid(), signal.SIGTERM)
        return
    loop.call_later(_ORPHAN_CHECK_S, _end_if_orphaned, loop, parent)


def _end_if_starved(loop: asyncio.AbstractEventLoop, checks: int) -> None:
    """End a worker that has had no descriptor to spare in this many checks and again, so that it is replaced.

    Under TLS, connections that never finish their handshake are not counted by backpressure; once one cannot be
    accepted, granian looks at no handshake any more, not even to end those that have timed out.
    """
    try:
        os.close(os.eventfd(0))
        checks = 0
    except OSError:
        checks += 1
    if checks >= _MOST_STARVED_CHECKS:
        get_log().error("out_of_descriptors", hint="raise the limit of open files, or end TLS in a proxy")
        os._exit(1)  # SIGTERM would wait for connections that never end
    loop.call_later(_STARVATION_CHECK_S, _end_if_starved, loop, checks)
