"""The bounded pools of threads in which a process does its dear work, off the event loop."""

import asyncio
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from fastauth.domain.errors import Overloaded

T = TypeVar("T")


class WorkPool:
    """A bounded pool of threads for jobs that release the GIL: hashes, signatures.

    The permit belongs to the job and not to the request: a client that leaves frees its place only when its
    job is done, so that disconnecting cannot be used to start more jobs than there are threads.
    """

    LONGEST_WAIT_S: Final = 3.0  # a person's patience; whoever would wait longer is told so at once

    def __init__(self, threads: int, expected_s: float, waiting_per_thread: int = 64, name: str = "work") -> None:
        """In: what a job takes, until jobs have been measured; how many may wait, whatever they take."""
        self._threads = threads
        self._most = threads * (waiting_per_thread + 1)
        self._jobs = 0
        self._mean_s = expected_s
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, job: Callable[[], T]) -> T:
        """Run ``job`` in a thread and return its result; its exceptions come through.

        Raises Overloaded when it would have to wait for too long, with the measured time until half as many do.
        """
        wait_s = self._mean_s * self._jobs / self._threads
        if self._jobs >= self._most or (self._jobs >= self._threads and wait_s > self.LONGEST_WAIT_S):
            raise Overloaded(max(1, math.ceil(max(wait_s - self.LONGEST_WAIT_S / 2, wait_s / 2))))
        self._jobs += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._timed, job)
        future.add_done_callback(self._finished)
        return (await asyncio.shield(future))[0]

    def _timed(self, job: Callable[[], T]) -> tuple[T, float]:
        started = time.perf_counter()
        result = job()
        return result, time.perf_counter() - started

    def _finished(self, future: "asyncio.Future[tuple[Any, float]]") -> None:
        self._jobs -= 1
        if not future.cancelled() and future.exception() is None:
            self._mean_s += 0.1 * (future.result()[1] - self._mean_s)

    def close(self) -> None:
        """Drop what has not started and wait for what has."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def threads_per_worker(workers: int) -> int:
    """Threads for one of ``workers`` processes, so that all of them together fill the cores once."""
    return max(1, len(os.sched_getaffinity(0)) // workers)
