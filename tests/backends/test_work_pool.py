"""The pool of threads: bounded, and the permit belongs to the job and not to whoever waits for it."""

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator

import pytest

from fastauth.backends.work_pool import WorkPool
from fastauth.domain.errors import Overloaded
from tests.cases import each

MOST = 65
GATE_TIMEOUT_S = 10.0  # never reached in a test that passes


class Gate:
    """Jobs that wait in their thread until the test lets them go."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.running = threading.Semaphore(0)
        self.done = 0

    def job(self) -> str:
        self.running.release()
        assert self._open.wait(GATE_TIMEOUT_S)
        self.done += 1
        return "done"

    def open(self) -> None:
        self._open.set()


def with_pool(threads: int, work: Callable[[WorkPool, Gate], Awaitable[None]], expected_s: float = 0.0) -> None:
    async def run() -> None:
        pool, gate = WorkPool(threads, expected_s), Gate()
        try:
            await asyncio.wait_for(work(pool, gate), GATE_TIMEOUT_S)
        finally:
            gate.open()
            pool.close()

    asyncio.run(run())


async def started(pool: WorkPool, gate: Gate, count: int) -> list["asyncio.Task[str]"]:
    """``count`` jobs, handed in."""
    tasks = [asyncio.ensure_future(pool.run(gate.job)) for _ in range(count)]
    await asyncio.sleep(0)  # each task runs up to where it waits
    return tasks


def test_a_result_comes_back() -> None:
    async def work(pool: WorkPool, _gate: Gate) -> None:
        assert await pool.run(lambda: 42) == 42
        assert await pool.run(lambda: threading.current_thread().name) != threading.current_thread().name

    with_pool(1, work)


def test_an_exception_of_the_job_comes_through_and_frees_its_place() -> None:
    def fail() -> None:
        raise LookupError("of the job")

    async def work(pool: WorkPool, _gate: Gate) -> None:
        for _ in range(MOST + 1):
            with pytest.raises(LookupError, match="of the job"):
                await pool.run(fail)

    with_pool(1, work)


@pytest.mark.parametrize("threads", [1, 2])
def test_beyond_the_bound_a_job_is_refused_with_a_time_to_come_back(threads: int) -> None:
    async def work(pool: WorkPool, gate: Gate) -> None:
        tasks = await started(pool, gate, threads * MOST)
        for _ in range(3):
            with pytest.raises(Overloaded) as refusal:
                await pool.run(gate.job)
            assert refusal.value.retry_after_s >= 1
        gate.open()
        assert await asyncio.gather(*tasks) == ["done"] * (threads * MOST)
        assert await pool.run(lambda: 1) == 1

    with_pool(threads, work)


@pytest.mark.parametrize(("threads", "expected_s", "taken"), [(1, 1.0, 4), (2, 1.0, 7), (1, 100.0, 1), (2, 100.0, 2)])
def test_who_would_have_to_wait_beyond_patience_is_refused_at_once(threads: int, expected_s: float, taken: int) -> None:
    async def work(pool: WorkPool, gate: Gate) -> None:
        tasks = await started(pool, gate, taken)
        with pytest.raises(Overloaded) as refusal:
            await pool.run(gate.job)
        waiting_s = expected_s * taken / threads
        assert waiting_s > WorkPool.LONGEST_WAIT_S or taken == threads
        assert waiting_s / 2 <= refusal.value.retry_after_s <= waiting_s + 1
        gate.open()
        assert await asyncio.gather(*tasks) == ["done"] * taken

    with_pool(threads, work, expected_s)


def test_one_place_that_becomes_free_is_one_that_can_be_had() -> None:
    async def work(pool: WorkPool, gate: Gate) -> None:
        first, second = Gate(), Gate()
        tasks = [asyncio.ensure_future(pool.run(first.job)), asyncio.ensure_future(pool.run(second.job))]
        tasks += await started(pool, gate, MOST - 2)
        first.open()
        assert await tasks[0] == "done"
        tasks += await started(pool, gate, 1)
        with pytest.raises(Overloaded):
            await pool.run(gate.job)
        second.open()
        gate.open()
        await asyncio.gather(*tasks)

    with_pool(1, work)


def test_who_leaves_does_not_free_the_place_before_the_job_is_done() -> None:
    async def work(pool: WorkPool, gate: Gate) -> None:
        tasks = await started(pool, gate, MOST)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        with pytest.raises(Overloaded):
            await pool.run(gate.job)
        gate.open()
        last = Drain(pool)
        await last.wait()
        assert gate.done == MOST

    with_pool(1, work)


class Drain:
    """Waits until every job handed in before has run: one thread takes them in their order."""

    def __init__(self, pool: WorkPool) -> None:
        self._pool = pool

    async def wait(self) -> None:
        while True:
            try:
                await self._pool.run(lambda: None)
            except Overloaded:
                await asyncio.sleep(0)
            else:
                return


def test_a_job_that_fails_after_its_caller_left_disturbs_nobody() -> None:
    complaints: list[object] = []

    async def work(pool: WorkPool, gate: Gate) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))

        def fail() -> None:
            gate.job()
            raise LookupError("nobody listens")

        task = asyncio.ensure_future(pool.run(fail))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gate.open()
        await Drain(pool).wait()

    with_pool(1, work)
    assert complaints == []


def test_no_more_jobs_run_at_once_than_there_are_threads() -> None:
    async def work(pool: WorkPool, gate: Gate) -> None:
        tasks = await started(pool, gate, 10)
        for _ in range(2):
            assert await asyncio.to_thread(gate.running.acquire, timeout=GATE_TIMEOUT_S)
        assert not gate.running.acquire(blocking=False)
        gate.open()
        await asyncio.gather(*tasks)

    with_pool(2, work)


def test_closing_waits_for_what_runs_and_drops_what_has_not_started() -> None:
    async def run() -> None:
        pool, gate = WorkPool(1, 0.0), Gate()
        tasks = await started(pool, gate, 3)
        assert await asyncio.to_thread(gate.running.acquire, timeout=GATE_TIMEOUT_S)
        closing = asyncio.create_task(asyncio.to_thread(pool.close))
        await asyncio.sleep(0)
        gate.open()
        await closing
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes[0] == "done"
        assert gate.done <= 3
        assert all(outcome == "done" or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)

    asyncio.run(run())


def test_many_short_jobs_come_back_each_to_its_own_waiter() -> None:
    async def run() -> None:
        pool = WorkPool(2, 0.0, waiting_per_thread=1_000)
        try:
            for _ in range(20):
                results = await asyncio.gather(*(pool.run(lambda number=number: number) for number in range(500)))  # type: ignore[misc]
                assert results == list(range(500))
        finally:
            pool.close()

    asyncio.run(run())


def test_what_a_job_raises_comes_to_its_waiter_alone_and_the_thread_lives() -> None:
    def fail() -> None:
        raise KeyError("x")

    async def run() -> None:
        pool = WorkPool(1, 0.0)
        try:
            outcomes: list[object] = await asyncio.gather(
                *(pool.run(job) for job in (fail, dict, fail, list)), return_exceptions=True
            )
            assert [type(outcome) for outcome in outcomes] == [KeyError, dict, KeyError, list]
        finally:
            pool.close()

    asyncio.run(run())


class Password:
    pass


def _is_right(_password: Password) -> bool:
    return True


def _fails(_password: Password) -> bool:
    raise LookupError


@pytest.fixture
def without_gc() -> Iterator[None]:
    """What is kept by a cycle stays."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_gc")
@each("work", [_is_right, _fails])
def test_a_thread_without_work_keeps_nothing_of_the_last_job(work: Callable[[Password], bool]) -> None:
    async def run() -> None:
        pool = WorkPool(1, 0.0)
        try:
            password = Password()
            kept = weakref.ref(password)
            with contextlib.suppress(LookupError):
                await pool.run(lambda held=password: work(held))  # type: ignore[misc]
            del password
            for _ in range(1_000):  # the thread lets go a moment after it has told
                if kept() is None:
                    break
                await asyncio.sleep(0.001)
            assert kept() is None
        finally:
            pool.close()

    asyncio.run(run())
