"""The bounded pools of threads in which a process does its dear work, off the event loop."""

import asyncio
import contextlib
import math
import os
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from fastauth.domain.errors import Overloaded

T = TypeVar("T")
J = TypeVar("J", bound="Job")


class Job:
    """A job on its way through a thread, and where its outcome goes."""

    __slots__ = ("error", "future", "result", "seconds", "work")

    def __init__(self, work: Callable[[], Any], future: "asyncio.Future[Any]") -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None
        self.seconds = 0.0


class JobThreads(ABC, Generic[J]):
    """Threads that do jobs, and the way of the outcomes back to the event loop.

    Outcomes that are ready at the same time come back together: waking the loop is most of what a hand-over costs.
    """

    def __init__(self, threads: int, name: str) -> None:
        """To be made, used and closed on one running event loop. A subclass starts the threads when it is ready."""
        self._loop = asyncio.get_running_loop()
        self._done: deque[J] = deque()
        self._is_waking = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]

    def _start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    @abstractmethod
    def _next(self) -> J | None:
        """In a thread: the next job, waited for; None when there will be none."""

    @abstractmethod
    def _settled(self, job: J) -> None:
        """On the event loop: a job has ended, before whoever waits for it hears of it."""

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._do(job)
            except Exception as error:  # noqa: BLE001 - a thread that dies would be missed for good
                job.error = error
            self._tell(job)
            del job  # a thread without work must not keep the password of the last one

    def _do(self, job: J) -> None:
        started = time.perf_counter()
        try:
            job.result = job.work()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for it
            job.error = error
        job.seconds = time.perf_counter() - started

    def _tell(self, job: J) -> None:
        self._done.append(job)
        if not self._is_waking:  # whoever finds it set will be delivered by the turn that is to come
            self._is_waking = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_waking = False  # before the look: what is done from now on wakes the loop again
        while self._done:
            job = self._done.popleft()
            self._settled(job)
            future, result, error = job.future, job.result, job.error
            del job.future, job.error  # a traceback holds the job: held by it in turn, both would keep the password
            if future.done():  # whoever waited has gone
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


class WorkPool(JobThreads[Job]):
    """A bounded pool of threads for jobs that release the GIL, first come first served: signatures, LDAP.

    The permit belongs to the job and not to the request: a client that leaves frees its place only when its
    job is done, so that disconnecting cannot be used to start more jobs than there are threads.
    """

    LONGEST_WAIT_S: Final = 3.0  # a person's patience; whoever would wait longer is told so at once

    def __init__(self, threads: int, expected_s: float, waiting_per_thread: int = 64, name: str = "work") -> None:
        """In: what a job takes, until jobs have been measured; how many may wait, whatever they take."""
        super().__init__(threads, name)
        self._most = threads * (waiting_per_thread + 1)
        self._jobs = 0
        self._mean_s = expected_s
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._start()

    async def run(self, job: Callable[[], T]) -> T:
        """Run ``job`` in a thread and return its result; its exceptions come through.

        Raises Overloaded when it would have to wait for too long, with the measured time until half as many do.
        """
        threads = len(self._threads)
        wait_s = self._mean_s * self._jobs / threads
        if self._jobs >= self._most or (self._jobs >= threads and wait_s > self.LONGEST_WAIT_S):
            raise Overloaded(max(1, math.ceil(max(wait_s - self.LONGEST_WAIT_S / 2, wait_s / 2))))
        self._jobs += 1
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Job(job, future))
        try:
            return await future
        finally:
            del future  # else an exception, its traceback and this frame hold each other, and what the job holds

    def _next(self) -> Job | None:
        return self._queue.get()

    def _settled(self, job: Job) -> None:
        self._jobs -= 1
        if job.error is None:
            self._mean_s += 0.1 * (job.seconds - self._mean_s)

    def close(self) -> None:
        """Drop what has not started and wait for what has."""
        with contextlib.suppress(queue.Empty):
            while (job := self._queue.get_nowait()) is not None:
                self._jobs -= 1
                self._loop.call_soon_threadsafe(job.future.cancel)
        for _ in self._threads:
            self._queue.put(None)
        self._join()


def threads_per_worker(workers: int) -> int:
    """Threads for one of ``workers`` processes, so that all of them together fill the cores once."""
    return max(1, len(os.sched_getaffinity(0)) // workers)
