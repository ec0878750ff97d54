"""The hash threads of a worker: whose turn it is, what is dropped before it is hashed, and what leaving frees."""

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from fastauth.backends.hash_permits import HashBounds, HashPermits
from fastauth.backends.hash_scheduler import EXPIRED, FOR_NOBODY, HASHED, LEFT, HashScheduler
from fastauth.domain.errors import Overloaded
from tests.backends.test_work_pool import GATE_TIMEOUT_S, Gate
from tests.cases import each

SHARES = (0.75, 0.25)
KNOWN, OTHERS = 0, 1
EXPECTED_S = 0.05


class Bench:
    """A scheduler, what it has counted, and jobs that tell when they run."""

    def __init__(self, scheduler: HashScheduler, permits: HashPermits, counted: Counter[str]) -> None:
        self.scheduler = scheduler
        self.permits = permits
        self.counted = counted
        self.gate = Gate()
        self.ran: list[object] = []

    def submit(self, what: object, lane: int = OTHERS, since: int = 0, memory_kib: int = 1) -> "asyncio.Future[Any]":
        return self.scheduler.submit(lambda: self.ran.append(what), lane, since, memory_kib)

    async def block(self, count: int = 1, memory_kib: int = 1) -> list["asyncio.Future[Any]"]:
        """As many threads are busy from now on, until the gate is opened."""
        blocking = [self.scheduler.submit(self.gate.job, KNOWN, -1, memory_kib) for _ in range(count)]
        for _ in range(count):
            assert await asyncio.to_thread(self.gate.running.acquire, timeout=GATE_TIMEOUT_S)
        return blocking


async def until(is_so: Callable[[], bool]) -> None:
    """Turns of the loop until it is so: for what a thread does a moment later."""
    for _ in range(5_000):
        if is_so():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never was")


def with_bench(
    work: Callable[[Bench], Awaitable[None]],
    threads: int = 1,
    *,
    deadline_s: float = 60.0,
    expected_s: float = EXPECTED_S,
    nice: int = 0,
    beside_long: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    bounds: HashBounds | None = None,
) -> Counter[str]:
    """Out: what was counted."""
    counted: Counter[str] = Counter()

    async def run() -> None:
        permits = HashPermits(bounds or HashBounds(threads, 1_000))
        scheduler = HashScheduler(
            permits,
            threads,
            SHARES,
            expected_s=expected_s,
            deadline_s=deadline_s,
            nice=nice,
            beside_long=beside_long,
            count=lambda outcome: counted.update([outcome]),
        )
        bench = Bench(scheduler, permits, counted)
        try:
            await asyncio.wait_for(asyncio.ensure_future(work(bench)), GATE_TIMEOUT_S)
        finally:
            bench.gate.open()
            scheduler.close()
            await asyncio.sleep(0)  # what was told last is delivered

    asyncio.run(run())
    return counted


# ------------------------------------------------------------------ turns


def test_a_result_comes_back_and_so_does_an_exception() -> None:
    def fail() -> None:
        raise LookupError("of the job")

    async def work(bench: Bench) -> None:
        assert await bench.scheduler.submit(lambda: 42, OTHERS, 0, 1) == 42
        with pytest.raises(LookupError, match="of the job"):
            await bench.scheduler.submit(fail, OTHERS, 0, 1)
        assert await bench.scheduler.submit(threading.get_ident, OTHERS, 0, 1) != threading.get_ident()
        assert bench.permits.running == bench.scheduler.running == 0

    assert with_bench(work) == {HASHED: 3}


def test_known_devices_go_before_others_by_their_share() -> None:
    async def work(bench: Bench) -> None:
        await bench.block()
        futures = [bench.submit(lane, lane) for lane in [OTHERS] * 40 + [KNOWN] * 40]
        bench.gate.open()
        await asyncio.gather(*futures)
        assert bench.ran[:40].count(KNOWN) == pytest.approx(30, abs=1)
        assert bench.ran[60:] == [OTHERS] * 20  # what the one lane does not use the other gets

    with_bench(work)


def test_in_a_lane_who_has_waited_longest_is_hashed_first() -> None:
    async def work(bench: Bench) -> None:
        await bench.block()
        futures = [bench.submit(since, since=since) for since in (30, 10, 20, 10, 5)]
        bench.gate.open()
        await asyncio.gather(*futures)
        assert bench.ran == [5, 10, 10, 20, 30]

    with_bench(work)


def test_no_more_are_hashed_at_once_than_there_are_threads() -> None:
    async def work(bench: Bench) -> None:
        await bench.block(3)
        future = bench.submit("one more")
        assert (bench.scheduler.running, bench.scheduler.length(OTHERS), bench.permits.running) == (3, 1, 3)
        assert not future.done()
        bench.gate.open()
        await future
        assert bench.ran == ["one more"]

    with_bench(work, threads=3)


def test_no_more_are_hashed_at_once_than_there_are_permits() -> None:
    async def work(bench: Bench) -> None:
        await bench.block()
        future = bench.submit("one more")
        await until(lambda: bench.scheduler.running == 2)  # it has left the queue, and waits for a permit
        assert bench.permits.running == 1
        assert not future.done()
        bench.gate.open()
        await future
        assert bench.ran == ["one more"]

    assert with_bench(work, threads=2, bounds=HashBounds(1, 1_000)) == {HASHED: 2}


def test_a_hash_that_needs_much_memory_waits_until_there_is_enough_and_nobody_overtakes_it() -> None:
    async def work(bench: Bench) -> None:
        await bench.block(memory_kib=600)
        large = bench.submit("large", since=1, memory_kib=500)
        await until(lambda: bench.scheduler.running == 2)
        small = bench.submit("small", since=2, memory_kib=400)
        await until(lambda: bench.scheduler.running == 3)
        assert not large.done()
        assert not small.done()
        bench.gate.open()
        await asyncio.gather(large, small)
        assert bench.ran == ["large", "small"]
        assert bench.permits.running == 0

    with_bench(work, threads=3, bounds=HashBounds(3, 1_000))


# ------------------------------------------------------------------ who leaves


def test_who_leaves_the_queue_is_never_hashed_and_is_counted_once() -> None:
    async def work(bench: Bench) -> None:
        blocking = await bench.block()
        futures = [bench.submit(number) for number in range(10)]
        for future in futures[::2]:
            future.cancel()
        await asyncio.sleep(0)
        assert bench.scheduler.length(OTHERS) == 5
        assert bench.counted == {LEFT: 5}
        bench.gate.open()
        await asyncio.gather(*blocking, *futures[1::2])
        assert bench.ran == [1, 3, 5, 7, 9]

    assert with_bench(work) == {LEFT: 5, HASHED: 6}


def test_one_whose_turn_comes_in_the_moment_in_which_it_leaves_is_counted_once_as_what_became_of_it() -> None:
    async def work(bench: Bench) -> None:
        for number in range(300):
            bench.submit("left", number % 2).cancel()
            if number % 3 == 0:
                await asyncio.sleep(0)
        await until(lambda: bench.counted.total() == 300)
        assert bench.counted[FOR_NOBODY] == len(bench.ran)
        assert bench.scheduler.running == bench.permits.running == 0

    assert with_bench(work, threads=2).keys() <= {LEFT, FOR_NOBODY}


def test_who_leaves_while_waiting_for_a_permit_is_never_hashed() -> None:
    async def work(bench: Bench) -> None:
        assert bench.permits.take(1, lambda: False)
        future = bench.submit("left")
        await until(lambda: bench.scheduler.running == 1)
        future.cancel()
        await until(lambda: bench.scheduler.running == 0)
        bench.permits.give_back(1)
        await bench.submit("next")
        assert bench.ran == ["next"]

    assert with_bench(work) == {LEFT: 1, HASHED: 1}


def test_who_leaves_while_it_is_hashed_keeps_the_permit_until_that_is_done() -> None:
    async def work(bench: Bench) -> None:
        (future,) = await bench.block()
        future.cancel()
        next_one = bench.submit("next")
        await asyncio.sleep(0)
        assert (bench.permits.running, bench.scheduler.running, bench.scheduler.length(OTHERS)) == (1, 1, 1)
        assert bench.counted == {}
        bench.gate.open()
        await next_one
        assert bench.gate.done == 1
        assert bench.permits.running == 0

    assert with_bench(work) == {FOR_NOBODY: 1, HASHED: 1}


def test_leaving_buys_nobody_another_hash() -> None:
    async def work(bench: Bench) -> None:
        most = 2
        for future in await bench.block(most):
            future.cancel()
        again = [bench.scheduler.submit(bench.gate.job, OTHERS, 0, 1) for _ in range(10)]
        await asyncio.sleep(0)
        assert not bench.gate.running.acquire(blocking=False)
        assert bench.permits.running == most
        bench.gate.open()
        await asyncio.gather(*again)

    assert with_bench(work, threads=2) == {FOR_NOBODY: 2, HASHED: 10}


def test_a_job_that_fails_after_its_client_left_disturbs_nobody() -> None:
    complaints: list[object] = []

    async def work(bench: Bench) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))

        def fail() -> None:
            bench.gate.job()
            raise LookupError("nobody listens")

        future = bench.scheduler.submit(fail, OTHERS, 0, 1)
        assert await asyncio.to_thread(bench.gate.running.acquire, timeout=GATE_TIMEOUT_S)
        future.cancel()
        bench.gate.open()
        await bench.submit("next")

    assert with_bench(work) == {FOR_NOBODY: 1, HASHED: 1}
    assert complaints == []


# ------------------------------------------------------------------ deadlines


def test_what_comes_too_late_is_never_hashed_and_hears_when_to_come_back() -> None:
    async def work(bench: Bench) -> None:
        for _ in range(5):
            with pytest.raises(Overloaded) as refusal:
                await bench.submit("late")
            assert refusal.value.retry_after_s == 1
            assert refusal.value.ticket is None
        assert bench.ran == []
        assert bench.permits.running == bench.scheduler.running == 0

    assert with_bench(work, deadline_s=1e-9) == {EXPIRED: 5}


def test_what_comes_too_late_for_a_permit_is_never_hashed_either() -> None:
    async def work(bench: Bench) -> None:
        assert bench.permits.take(1, lambda: False)
        with pytest.raises(Overloaded):
            await bench.submit("late")
        bench.permits.give_back(1)
        assert bench.ran == []
        assert bench.permits.running == 0

    assert with_bench(work, deadline_s=0.1) == {EXPIRED: 1}


def test_what_has_come_too_late_hears_of_it_while_others_are_still_hashed() -> None:
    async def work(bench: Bench) -> None:
        blocking = await bench.block()
        bench.scheduler._deadline_s = 1e-9
        late = [bench.submit("late", lane) for lane in (KNOWN, OTHERS, OTHERS)]
        bench.scheduler._deadline_s = 60.0
        in_time = bench.submit("in time")
        for future in late:
            with pytest.raises(Overloaded):
                await future
        assert not blocking[0].done()
        assert (bench.scheduler.length(KNOWN), bench.scheduler.length(OTHERS)) == (0, 1)
        assert bench.counted == {EXPIRED: 3}
        bench.gate.open()
        await in_time
        assert bench.ran == ["in time"]

    assert with_bench(work) == {EXPIRED: 3, HASHED: 2}


def test_one_who_left_and_would_have_come_too_late_has_left() -> None:
    async def work(bench: Bench) -> None:
        for _ in range(20):
            bench.submit("late").cancel()
            await asyncio.sleep(0)
        await until(lambda: bench.counted.total() == 20)
        assert bench.ran == []

    assert with_bench(work, deadline_s=1e-9) == {LEFT: 20}


# ------------------------------------------------------------------ what is known of the queue


def test_nobody_waits_while_a_thread_is_free() -> None:
    async def work(bench: Bench) -> None:
        assert bench.scheduler.wait_s(OTHERS, 0) == 0
        await bench.block(2)
        assert bench.scheduler.wait_s(OTHERS, 0) == 0
        assert bench.scheduler.wait_s(KNOWN, 1 << 62) == 0

    with_bench(work, threads=3)


@each("threads", [1, 2, 4])
def test_a_wait_is_as_long_as_those_before_it_take(threads: int) -> None:
    async def work(bench: Bench) -> None:
        await bench.block(threads)
        each_s = EXPECTED_S / threads
        waits = []
        for number in range(10):
            waits.append(bench.scheduler.wait_s(OTHERS, 1_000))
            bench.submit(number, since=number)
        assert waits == pytest.approx([each_s * (number + 1) for number in range(10)])
        # The tenth of them, and the lane of the others has but one turn of four while both wait.
        assert bench.scheduler.wait_s(OTHERS, 4) == pytest.approx(6 * each_s)
        assert bench.scheduler.wait_s(KNOWN, 1_000) == pytest.approx((1 + 1 / 3) * each_s)
        assert bench.scheduler.each_s(OTHERS) == pytest.approx(each_s)
        bench.submit("known", KNOWN)
        assert bench.scheduler.each_s(OTHERS) == pytest.approx(4 * each_s)
        assert bench.scheduler.wait_s(OTHERS, 1_000) == pytest.approx(12 * each_s)

    with_bench(work, threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_wait_is_what_it_turns_out_to_be(threads: int) -> None:
    """Against the clock, with jobs that take as long as others before: the best of a few, for machines are busy."""

    async def work(bench: Bench) -> None:
        scheduler = bench.scheduler
        ratios: list[float] = []
        await asyncio.gather(*(scheduler.submit(lambda: time.sleep(0.002), OTHERS, 0, 1) for _ in range(30)))
        while len(ratios) < 8 and not any(0.75 < ratio < 1.33 for ratio in ratios):
            jobs = [scheduler.submit(lambda: time.sleep(0.002), OTHERS, number, 1) for number in range(30)]
            began_s, told_s = time.perf_counter(), scheduler.wait_s(OTHERS, 100)
            end_s = await scheduler.submit(time.perf_counter, OTHERS, 100, 1)
            ratios.append(told_s / (end_s - began_s))
            await asyncio.gather(*jobs)
        assert any(0.75 < ratio < 1.33 for ratio in ratios), ratios
        assert scheduler.wait_s(OTHERS, 100) == 0

    with_bench(work, threads, expected_s=0.004)


def test_what_a_job_takes_is_measured() -> None:
    async def work(bench: Bench) -> None:
        before_s, pace_per_s = bench.scheduler.steady_s, bench.scheduler.pace_per_s
        assert pace_per_s == pytest.approx(2 / EXPECTED_S)
        for _ in range(200):
            await bench.submit("quick")
        assert 0 < bench.scheduler.steady_s < before_s / 10
        assert bench.scheduler.pace_per_s > 10 * pace_per_s

    with_bench(work, threads=2)


def test_what_fails_or_never_ran_says_nothing_of_the_pace() -> None:
    def fail() -> None:
        raise LookupError

    async def work(bench: Bench) -> None:
        pace_per_s = bench.scheduler.pace_per_s
        for _ in range(20):
            with pytest.raises(LookupError):
                await bench.scheduler.submit(fail, OTHERS, 0, 1)
        bench.scheduler._deadline_s = 1e-9
        for _ in range(20):
            with pytest.raises(Overloaded):
                await bench.submit("late")
        assert bench.scheduler.pace_per_s == pace_per_s

    with_bench(work)


# ------------------------------------------------------------------ the threads


@each("nice", [0, 5, 19, 100])
def test_the_threads_run_at_a_lower_priority_and_the_loop_does_not(nice: int) -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    ours = priority()

    async def work(bench: Bench) -> None:
        assert await bench.scheduler.submit(priority, OTHERS, 0, 1) == min(19, ours + nice)
        assert priority() == os.getpriority(os.PRIO_PROCESS, os.getpid()) == ours

    with_bench(work, nice=nice)


@each(("expected_s", "is_long"), [(0.001, False), (0.03, True)])
def test_only_a_hash_that_takes_long_is_made_beside_a_loop_that_interrupts(expected_s: float, is_long: bool) -> None:
    told: list[str] = []

    @contextlib.contextmanager
    def beside_long() -> Iterator[None]:
        told.append("begins")
        try:
            yield
        finally:
            told.append("ends")

    async def work(bench: Bench) -> None:
        await bench.scheduler.submit(lambda: told.append("hash"), OTHERS, 0, 1)
        assert told == (["begins", "hash", "ends"] if is_long else ["hash"])
        with pytest.raises(ZeroDivisionError):
            await bench.scheduler.submit(lambda: 1 // 0, OTHERS, 0, 1)
        assert told.count("begins") == told.count("ends")

    with_bench(work, beside_long=beside_long, expected_s=expected_s)


class Password:
    """Something that can be seen to be gone."""


def _hashed(bench: Bench, job: Callable[[], Any]) -> "asyncio.Future[Any]":
    return bench.scheduler.submit(job, OTHERS, 0, 1)


def _left(bench: Bench, job: Callable[[], Any]) -> "asyncio.Future[Any]":
    future = bench.scheduler.submit(job, OTHERS, 0, 1)
    future.cancel()
    return future


def _expired(bench: Bench, job: Callable[[], Any]) -> "asyncio.Future[Any]":
    bench.scheduler._deadline_s = 1e-9
    return bench.scheduler.submit(job, OTHERS, 0, 1)


@each("submit", [_hashed, _left, _expired])
def test_a_thread_without_work_keeps_nothing_of_the_last_job(
    submit: Callable[[Bench, Callable[[], Any]], "asyncio.Future[Any]"],
) -> None:
    async def work(bench: Bench) -> None:
        password = Password()
        kept = weakref.ref(password)
        await asyncio.gather(submit(bench, lambda held=password: held is None), return_exceptions=True)  # type: ignore[misc]
        del password
        await until(lambda: kept() is None)

    with_bench(work)


def test_one_who_left_the_queue_leaves_nothing_in_it() -> None:
    async def work(bench: Bench) -> None:
        await bench.block()
        password = Password()
        kept = weakref.ref(password)
        _left(bench, lambda held=password: held is None)  # type: ignore[misc]
        del password
        await until(lambda: kept() is None)

    with_bench(work)


# ------------------------------------------------------------------ the end


def test_closing_drops_what_waits_and_waits_for_what_runs() -> None:
    async def run() -> None:
        counted: Counter[str] = Counter()
        gate, ran = Gate(), []
        scheduler = HashScheduler(
            HashPermits(HashBounds(1, 100)),
            1,
            SHARES,
            expected_s=EXPECTED_S,
            deadline_s=60.0,
            count=lambda outcome: counted.update([outcome]),
        )
        running = scheduler.submit(gate.job, OTHERS, 0, 1)
        assert await asyncio.to_thread(gate.running.acquire, timeout=GATE_TIMEOUT_S)
        waiting = [scheduler.submit(lambda: ran.append(1), lane, 0, 1) for lane in (KNOWN, OTHERS, OTHERS)]
        closing = asyncio.create_task(asyncio.to_thread(scheduler.close))
        await asyncio.wait(waiting, timeout=GATE_TIMEOUT_S)
        assert all(isinstance(future.exception(), Overloaded) for future in waiting)
        assert not closing.done()
        assert not running.done()
        gate.open()
        await closing
        assert await running == "done"
        with pytest.raises(Overloaded):  # nobody would do it any more
            await scheduler.submit(lambda: ran.append(1), OTHERS, 0, 1)
        assert ran == []
        assert counted[HASHED] == 1
        assert not [thread for thread in threading.enumerate() if thread in scheduler._threads]

    asyncio.run(run())


def test_closing_hashes_nothing_that_has_no_permit_yet() -> None:
    async def run() -> None:
        permits, ran = HashPermits(HashBounds(1, 100)), []
        scheduler = HashScheduler(permits, 1, SHARES, expected_s=EXPECTED_S, deadline_s=60.0)
        assert permits.take(1, lambda: False)
        future = scheduler.submit(lambda: ran.append(1), OTHERS, 0, 1)
        await until(lambda: scheduler.running == 1)
        await asyncio.to_thread(scheduler.close)
        with pytest.raises(Overloaded):
            await future
        assert ran == []

    asyncio.run(run())


def test_closing_one_that_never_had_anything_to_do_takes_no_time() -> None:
    async def work(_bench: Bench) -> None:
        pass

    assert with_bench(work, threads=4) == {}


def test_many_short_jobs_come_back_each_to_its_own_waiter() -> None:
    async def work(bench: Bench) -> None:
        for start in range(0, 2_000, 500):
            numbers = range(start, start + 500)
            futures = [bench.scheduler.submit(lambda n=number: n, number % 2, number, 1) for number in numbers]  # type: ignore[misc]
            assert await asyncio.gather(*futures) == list(numbers)
        assert bench.scheduler.running == len(bench.ran) == 0

    assert with_bench(work, threads=3) == {HASHED: 2_000}
