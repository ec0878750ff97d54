"""Who is hashed when: the threads for password hashes, the lanes before them, and how long one has to wait there.

A job that nobody waits for any more, or that comes too late, is dropped before it is hashed. The permit belongs to the
job: who leaves while it is hashed frees its place only when that is done, so that leaving buys nobody another hash.
"""

import asyncio
import contextlib
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from fastauth.backends.hash_permits import HashPermits
from fastauth.backends.work_pool import Job, JobThreads
from fastauth.domain.admission import Pace
from fastauth.domain.errors import Overloaded
from fastauth.domain.fair_queue import FairQueue, Place

HASHED: Final = "hashed"
LEFT: Final = "left"
EXPIRED: Final = "expired"
FOR_NOBODY: Final = "hashed_for_nobody"
"""The client left while it was hashed; before that moment it would have been ``LEFT``."""
OUTCOMES: Final = (HASHED, LEFT, EXPIRED, FOR_NOBODY)

_LOOK_S: Final = 0.1
_STEADY_JOBS: Final = 2  # for each thread
_USUAL_S: Final = 10.0  # over which a pace is a usual one
_LOWEST_PRIORITY: Final = 19
_LONG_S: Final = 0.01  # longer than a slice of the kernel's scheduler


class HashJob(Job):
    """A hash that waits for its turn."""

    __slots__ = ("came_s", "expires_s", "has_run", "memory_kib", "place")

    def __init__(
        self, work: Callable[[], Any], future: "asyncio.Future[Any]", memory_kib: int, expires_s: float
    ) -> None:
        super().__init__(work, future)
        self.memory_kib = memory_kib
        self.came_s = time.perf_counter()
        self.expires_s = expires_s
        self.has_run = False
        self.place: Place | None = None


class HashScheduler(JobThreads[HashJob]):
    """The hash threads of one worker. To be made, used and closed on one running event loop.

    The threads run at a lower priority than the event loop (``nice`` steps lower), so that a storm of logins leaves it
    the processor; the kernel still gives them their part of a busy core.
    """

    def __init__(
        self,
        permits: HashPermits,
        threads: int,
        shares: Sequence[float],
        *,
        expected_s: float,
        deadline_s: float,
        nice: int = 0,
        beside_long: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        count: Callable[[str], None] = lambda outcome: None,
        count_time: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """In: ``shares`` of the lanes, one together; ``expected_s`` what a hash takes, until some have been measured;
        ``deadline_s`` after which nobody waits any more; a hash that takes long is made within ``beside_long``;
        ``count`` is told each of ``OUTCOMES``,
        ``count_time`` what a hash took its thread, in seconds.
        """
        super().__init__(threads, "hash")
        self._permits = permits
        self._shares = tuple(shares)
        self._pace = Pace(expected_s / threads)
        self._usual_pace = Pace(expected_s / threads, _USUAL_S, _USUAL_S * threads / expected_s)
        self._deadline_s = deadline_s
        self._nice = nice
        self._beside_long = beside_long if expected_s >= _LONG_S else contextlib.nullcontext
        self._count = count
        self._count_time = count_time
        self._waiting = FairQueue[HashJob](shares)
        self._running = 0
        self._lock = threading.Lock()  # among the threads; the event loop never waits for one of lower priority
        self._wakes: queue.SimpleQueue[bool] = queue.SimpleQueue()  # one for each job; False: no more
        self._is_closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._free_since = threading.local()
        self._start()

    # -- what is known of the queue

    def length(self, lane: int) -> int:
        """How many wait in a lane."""
        return self._waiting.length(lane)

    @property
    def running(self) -> int:
        """How many have left the queue and are not done."""
        return self._running

    def wait_s(self, lane: int, since: int) -> float:
        """How long somebody who joins now would wait for the first turn of a thread. In: as ``submit``."""
        before = self._waiting.before(lane, since) + self._running
        return max(0.0, before - len(self._threads) + 1) / self._pace.per_s

    def each_s(self, lane: int) -> float:
        """What one more in a lane will cost those behind it, on the whole: somebody who is sent away for a while waits
        at another pace than that of the moment.
        """
        others = len(self._waiting) - self._waiting.length(lane)
        return 1 / self._usual_pace.per_s / (self._shares[lane] if others else 1.0)

    @property
    def pace_per_s(self) -> float:
        """How many this worker hashes a second while it has something to hash."""
        return self._pace.per_s

    @property
    def each_thread_s(self) -> float:
        """What a hash takes a thread at the moment."""
        return len(self._threads) / self._pace.per_s

    @property
    def steady_s(self) -> float:
        """How long a queue must be for no thread ever to run out of work between two looks."""
        return _STEADY_JOBS * self.each_thread_s

    # -- jobs

    def submit(self, work: Callable[[], Any], lane: int, since: int, memory_kib: int) -> "asyncio.Future[Any]":
        """Hand in a job. In: its lane, since when whoever wants it has been waiting (microseconds since 1970 UTC), the
        memory it takes. Out: a future; cancelled, it takes the job out of the queue. Overloaded comes through it when
        the deadline has passed.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._is_closing:  # no thread would find it
            future.set_exception(Overloaded(1))
            return future
        patience_s = max(self._deadline_s - self.each_thread_s, self._deadline_s / 2)
        job = HashJob(work, future, memory_kib, time.monotonic() + patience_s)
        future.add_done_callback(lambda future: self._withdraw(job) if future.cancelled() else None)
        job.place = self._waiting.push(lane, since, job)
        self._wakes.put(True)
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_S, self._drop_expired)
        return future

    def _withdraw(self, job: HashJob) -> None:
        if self._take_out(job):
            self._count(LEFT)

    def _take_out(self, job: HashJob) -> bool:
        if job.place is None or not self._waiting.remove(job.place):
            return False
        with contextlib.suppress(queue.Empty):  # one job less, one wake-up less
            if not self._wakes.get_nowait():
                self._wakes.put(False)
        return True

    def _drop_expired(self) -> None:
        """Whoever comes first in line may always be somebody else: the others hear of it when their time is up."""
        now = time.monotonic()
        for _, job in self._waiting.items():
            if job.expires_s <= now and self._take_out(job):
                self._count(EXPIRED)
                _refuse(job, self._too_late())
        self._timer = self._loop.call_later(_LOOK_S, self._drop_expired) if self._waiting else None

    def _too_late(self) -> Overloaded:
        return Overloaded(max(1, math.ceil(self.each_thread_s)))

    # -- in the threads

    def _work(self) -> None:
        with contextlib.suppress(OSError):  # a kernel that does not let us
            mine = os.getpriority(os.PRIO_PROCESS, 0)
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, min(_LOWEST_PRIORITY, mine + self._nice))
        self._free_since.done_s = 0.0
        super()._work()

    def _next(self) -> HashJob | None:
        while self._wakes.get():
            with self._lock, contextlib.suppress(IndexError):  # it has been taken out meanwhile
                job = self._waiting.pop()
                self._running += 1
                return job
        return None

    def _is_wanted(self, job: HashJob) -> bool:
        return not (self._is_closing or job.future.cancelled()) and time.monotonic() < job.expires_s

    def _do(self, job: HashJob) -> None:
        try:
            self._hash(job)
        finally:
            with self._lock:
                self._running -= 1

    def _hash(self, job: HashJob) -> None:
        if self._is_wanted(job) and self._permits.take(job.memory_kib, lambda: self._is_wanted(job)):
            try:
                job.has_run = True
                with self._beside_long():
                    super()._do(job)
            finally:
                self._permits.give_back(job.memory_kib)
        now = time.perf_counter()
        if job.has_run:
            # From when this thread could have begun: what it waits for in between, a permit, the processor or
            # Python's own lock, is a part of the pace.
            job.seconds = now - max(job.came_s, self._free_since.done_s)
        else:
            job.error = self._too_late()
        self._free_since.done_s = now

    # -- on the event loop

    def _settled(self, job: HashJob) -> None:
        if job.has_run and job.error is None:
            self._pace.served(job.seconds / len(self._threads))
            self._usual_pace.served(job.seconds / len(self._threads))
        is_alone = job.future.cancelled()
        if job.has_run:
            self._count(FOR_NOBODY if is_alone else HASHED)
            self._count_time(job.seconds)
        else:
            self._count(LEFT if is_alone else EXPIRED)

    def close(self) -> None:
        """Refuse what has not started and wait for what has."""
        self._is_closing = True
        with self._lock:
            dropped = self._waiting.drain()
        for job in dropped:
            self._loop.call_soon_threadsafe(_refuse, job, Overloaded(1))
        if self._timer is not None:
            self._timer.cancel()
        for _ in self._threads:
            self._wakes.put(False)
        self._join()
        self._permits.close()


def _refuse(job: HashJob, refusal: Overloaded) -> None:
    if not job.future.done():
        job.future.set_exception(refusal)
        job.future.exception()  # it is no defect if nobody asks any more
