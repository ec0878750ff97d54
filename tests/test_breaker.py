"""The breaker around awaitables, the loop's own lateness, and the bulkhead."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from fastauth.breaker import Bulkhead, CircuitBreaker, LoopLag
from fastauth.domain.breaker import BreakerRules
from fastauth.domain.errors import Conflict, Unavailable

T = TypeVar("T")
RULES = BreakerRules(min_calls=2, timeouts_in_a_row=2, open_s=5)


def run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner() as runner:
        return runner.run(work)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Guarded:
    """A breaker, its clock, what it told, and calls of a given length and end."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, str, str]] = []
        self.lag = LoopLag(self.clock)
        self.breaker = CircuitBreaker(
            "thing", RULES, clock=self.clock, lag=self.lag, on_change=lambda *told: self.told.append(told), **options
        )

    async def call(self, takes_s: float = 0.0, error: BaseException | None = None) -> str:
        async def job() -> str:
            self.clock.now += takes_s
            if error is not None:
                raise error
            return "done"

        return await self.breaker.call(job, lambda error: isinstance(error, Unavailable))

    def fails(self, error: BaseException, takes_s: float = 0.0) -> None:
        with pytest.raises(type(error)):
            run(self.call(takes_s, error))


def too_late() -> Unavailable:
    error = Unavailable("thing", "no answer in time")
    error.__cause__ = TimeoutError()
    return error


def test_failures_open_it_and_it_says_for_how_long_once() -> None:
    guarded = Guarded()
    for _ in range(2):
        guarded.fails(Unavailable("thing", "down"))
    guarded.clock.now += 2.5
    with pytest.raises(Unavailable) as refused:
        run(guarded.call())
    assert (refused.value.retry_after_s, refused.value.was_asked) == (3, False)
    assert guarded.told == [("thing", "open", "thing is unavailable: down")]
    guarded.clock.now += 2.5
    assert run(guarded.call()) == "done"
    assert [state for _, state, _ in guarded.told] == ["open", "half_open", "closed"]


def test_answers_that_are_errors_are_answers() -> None:
    guarded = Guarded()
    for _ in range(10):
        guarded.fails(Conflict("it exists"))
    assert guarded.breaker.state == "closed"


def test_callers_who_leave_do_not_open_it() -> None:
    guarded = Guarded()
    for _ in range(10):
        guarded.fails(asyncio.CancelledError())
    assert guarded.breaker.state == "closed"


def test_a_call_that_was_spared_is_no_answer_and_closes_nothing() -> None:
    guarded = Guarded()
    for _ in range(2):
        guarded.fails(Unavailable("thing", "down"))
    guarded.clock.now += 5
    guarded.fails(Unavailable("thing", "every place is taken", was_asked=False))
    assert guarded.breaker.state == "half_open"
    assert run(guarded.call()) == "done"
    assert str(guarded.breaker.state) == "closed"


def test_a_slow_answer_is_a_failure() -> None:
    guarded = Guarded(slow_s=1.0)
    for _ in range(2):
        assert run(guarded.call(takes_s=1.1)) == "done"
    assert guarded.breaker.state == "open"


def test_a_timeout_whose_time_was_lost_here_is_none() -> None:
    async def late_loop(guarded: Guarded) -> None:
        guarded.lag.start()
        for _ in range(5):
            with pytest.raises(Unavailable):
                await guarded.call(2.0, too_late())  # the clock jumps and the loop has not turned meanwhile
        guarded.lag.close()

    guarded = Guarded(soonest_s=1.0)
    run(late_loop(guarded))
    assert guarded.breaker.state == "closed"
    in_time = Guarded(soonest_s=1.0)  # the same without a loop that was late
    for _ in range(2):
        in_time.fails(too_late(), takes_s=2.0)
    assert str(in_time.breaker.state) == "open"


def test_one_of_many_finds_out_whether_it_works_again() -> None:
    async def many(guarded: Guarded) -> list[str]:
        entered = []

        async def job() -> str:
            entered.append(1)
            await asyncio.sleep(0)
            return "done"

        calls = [guarded.breaker.call(job, lambda error: True) for _ in range(20)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert len(entered) == 1
        return [type(result).__name__ for result in results]

    guarded = Guarded()
    for _ in range(2):
        guarded.fails(Unavailable("thing", "down"))
    guarded.clock.now += 5
    assert sorted(run(many(guarded))) == ["Unavailable"] * 19 + ["str"]


class TestBulkhead:
    def test_so_many_work_so_many_wait_and_the_others_are_told_at_once(self) -> None:
        async def many() -> tuple[int, list[str]]:
            bulkhead, working, most = Bulkhead("thing", 3, 4), 0, 0

            async def job() -> str:
                nonlocal working, most
                working += 1
                most = max(most, working)
                await asyncio.sleep(0.001)
                working -= 1
                return "done"

            results = await asyncio.gather(*(bulkhead.call(job) for _ in range(10)), return_exceptions=True)
            return most, sorted(type(result).__name__ for result in results)

        assert run(many()) == (3, ["Unavailable"] * 3 + ["str"] * 7)

    def test_whoever_leaves_the_queue_takes_no_place_along(self) -> None:
        async def leaving() -> str:
            bulkhead, go = Bulkhead("thing", 1, 3), asyncio.Event()

            async def job() -> str:
                await go.wait()
                return "done"

            tasks = [asyncio.create_task(bulkhead.call(job)) for _ in range(4)]
            await asyncio.sleep(0)
            tasks[1].cancel()
            tasks[0].cancel()  # its place goes to the third, which is cancelled in the same moment
            await asyncio.sleep(0)
            tasks[2].cancel()
            await asyncio.sleep(0)
            go.set()
            assert await tasks[3] == "done"
            return await bulkhead.call(job)

        assert run(leaving()) == "done"

    def test_a_job_that_fails_gives_its_place_back(self) -> None:
        async def failing() -> None:
            bulkhead = Bulkhead("thing", 1, 0)

            async def job() -> None:
                raise Unavailable("thing", "down")

            for _ in range(3):
                with pytest.raises(Unavailable) as failure:
                    await bulkhead.call(job)
                assert failure.value.was_asked

        run(failing())
