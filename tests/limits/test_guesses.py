"""The guess budget, on this machine and in Redis: no more failures than it allows, and no right password refused."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from fastauth.domain.errors import Overloaded
from fastauth.limits import Attempt, GuessBudget, Limit, LocalBuckets, RedisBuckets
from fastauth.limits import guesses as module
from tests.integration.running import wait_for
from tests.redis_servers import RedisServer, running_redis

Work = Callable[[list[GuessBudget]], Awaitable[None]]


@pytest.fixture(params=["here", pytest.param("redis", marks=pytest.mark.integration)])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Runs something with two budgets that are one: of two processes on one table, or of two nodes on one Redis."""
    if request.param == "here":

        def on_one_table(work: Work, text: str = "1/h burst 10") -> None:
            local = LocalBuckets(1024)
            asyncio.run(_run(work, [GuessBudget(Limit.parse(text), local) for _ in range(2)]))

        yield on_one_table
        return
    with running_redis() as redis:

        def on_one_redis(work: Work, text: str = "1/h burst 10") -> None:
            async def main() -> None:
                nodes = [RedisBuckets(redis.url, LocalBuckets(1024)) for _ in range(2)]
                for node in nodes:
                    await node.open()
                await work([GuessBudget(Limit.parse(text), node.local, node) for node in nodes])
                for node in nodes:
                    await node.close()

            asyncio.run(main())

        yield on_one_redis


async def _run(work: Work, budgets: list[GuessBudget]) -> None:
    await work(budgets)


async def attempt(budget: GuessBudget, *, fails: bool, key: str = "account", wait_s: float = 5) -> str:
    """What becomes of one login whose hash takes a while."""
    try:
        reserved = await budget.reserve(key, wait_s)
    except Overloaded:
        return "overloaded"
    if not reserved.decision.allowed:
        return "refused"
    await asyncio.sleep(0.002)
    reserved.settle(failed=fails)
    return "failed" if fails else "passed"


def test_of_two_hundred_wrong_guesses_at_once_ten_are_tried(run: Callable[..., None]) -> None:
    async def work(budgets: list[GuessBudget]) -> None:
        outcomes = Counter(await asyncio.gather(*(attempt(budgets[n % 2], fails=True) for n in range(200))))
        assert outcomes == {"failed": 10, "refused": 190}

    run(work)


def test_two_hundred_right_logins_at_once_all_pass_a_budget_of_three(run: Callable[..., None]) -> None:
    async def work(budgets: list[GuessBudget]) -> None:
        outcomes = Counter(await asyncio.gather(*(attempt(budgets[n % 2], fails=False) for n in range(200))))
        assert outcomes == {"passed": 200}

    run(work, "1/h burst 3")


def test_right_and_wrong_mixed_never_fail_more_than_the_budget(run: Callable[..., None]) -> None:
    async def work(budgets: list[GuessBudget]) -> None:
        mixed = (attempt(budgets[n % 2], fails=n % 7 == 0) for n in range(140))
        outcomes = Counter(await asyncio.gather(*mixed))
        assert outcomes["failed"] <= 5
        assert outcomes["overloaded"] == 0
        assert outcomes["failed"] == 5 or outcomes["refused"] == 0

    run(work, "1/h burst 5")


def test_who_waits_is_served_in_turn_and_no_longer_than_it_wants(run: Callable[..., None]) -> None:
    async def work(budgets: list[GuessBudget]) -> None:
        holder = await budgets[0].reserve("account", 1)
        order: list[int] = []

        async def wait(number: int) -> None:
            assert await attempt(budgets[0], fails=False) == "passed"
            order.append(number)

        waiting = [asyncio.create_task(wait(number)) for number in range(5)]
        started = time.monotonic()
        assert await attempt(budgets[1], fails=False, wait_s=0.1) == "overloaded"
        assert 0.08 < time.monotonic() - started < 0.4
        assert await attempt(budgets[0], fails=False, key="another account", wait_s=0.5) == "passed"
        holder.settle(failed=False)
        await asyncio.gather(*waiting)
        assert order == [0, 1, 2, 3, 4]

    run(work, "1/h burst 1")


def test_an_attempt_that_ends_elsewhere_is_noticed(run: Callable[..., None]) -> None:
    async def work(budgets: list[GuessBudget]) -> None:
        holder = await budgets[0].reserve("account", 1)
        waiting = asyncio.create_task(attempt(budgets[1], fails=False))
        await asyncio.sleep(0.05)
        started = time.monotonic()
        holder.settle(failed=False)
        assert await waiting == "passed"
        assert time.monotonic() - started < 0.3

    run(work, "1/h burst 1")


def test_a_refusal_says_when_to_come_back_and_coming_back_then_is_admitted(run: Callable[..., None]) -> None:
    async def work(budgets: list[GuessBudget]) -> None:
        for budget in budgets:
            assert await attempt(budget, fails=True) == "failed"
        await asyncio.sleep(0.05)
        refused = await budgets[0].reserve("account", 1)
        assert not refused.decision.allowed
        assert 0 < refused.decision.retry_after_s <= 0.5
        refused.settle(failed=True)  # means nothing
        await asyncio.sleep(refused.decision.retry_after_s)
        assert (await budgets[1].reserve("account", 1)).decision.allowed

    run(work, "2/s burst 2")


def test_settling_twice_counts_once(run: Callable[..., None]) -> None:
    async def work(budgets: list[GuessBudget]) -> None:
        reserved = await budgets[0].reserve("account", 1)
        for _ in range(5):
            reserved.settle(failed=True)
        await asyncio.sleep(0.05)
        assert [await attempt(budgets[1], fails=True) for _ in range(3)] == ["failed", "failed", "refused"]

    run(work, "1/h burst 3")


def test_callers_that_go_away_leave_no_room_taken(run: Callable[..., None]) -> None:
    async def work(budgets: list[GuessBudget]) -> None:
        for delay_s in (0.0, 0.0, 0.0002, 0.0004, 0.001, 0.002):
            waiting = [asyncio.create_task(budgets[0].reserve("account", 5)) for _ in range(6)]
            await asyncio.sleep(delay_s)
            for task in waiting:
                task.cancel()
            for done in await asyncio.gather(*waiting, return_exceptions=True):
                if isinstance(done, Attempt):
                    done.settle(failed=False)
        await asyncio.sleep(0.05)
        assert [await attempt(budgets[1], fails=True, wait_s=0.2) for _ in range(4)] == ["failed"] * 3 + ["refused"]
        assert budgets[0]._queues == {}
        assert budgets[0]._waiting == 0

    run(work, "1/h burst 3")


def test_what_a_killed_process_held_is_free_after_a_while(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EPOCH_US", 200_000)

    async def work(budgets: list[GuessBudget]) -> None:
        await budgets[0].reserve("account", 1)  # never settled
        assert await attempt(budgets[1], fails=False, wait_s=0.1) == "overloaded"
        assert await attempt(budgets[1], fails=False, wait_s=1.0) == "passed"

    run(work, "1/h burst 1")


def test_too_many_who_wait_are_told_so(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)

    async def work(budgets: list[GuessBudget]) -> None:
        holder = await budgets[0].reserve("account", 1)
        waiting = [asyncio.create_task(attempt(budgets[0], fails=False)) for _ in range(5)]
        await asyncio.sleep(0.05)
        holder.settle(failed=False)
        assert Counter(await asyncio.gather(*waiting)) == {"passed": 3, "overloaded": 2}

    run(work, "1/h burst 1")


@pytest.mark.integration
def test_failures_count_here_when_redis_goes_away_in_the_middle_and_are_remembered_when_it_is_back() -> None:
    with running_redis() as redis:
        asyncio.run(_lose_redis_in_the_middle(redis))


async def _lose_redis_in_the_middle(redis: RedisServer) -> None:
    async with RedisBuckets(redis.url, LocalBuckets(1024)) as node:
        budget = GuessBudget(Limit.parse("1/h burst 4"), node.local, node)
        first: Any = [await budget.reserve("account", 1) for _ in range(3)]
        first[0].settle(failed=True)
        await asyncio.sleep(0.05)
        redis.kill()
        for reserved in first[1:]:
            reserved.settle(failed=True)
        await asyncio.sleep(0.1)
        assert [await attempt(budget, fails=True) for _ in range(2)] == ["failed", "refused"]
        redis.start()
        await asyncio.to_thread(wait_for, lambda: node.link.is_up)
        assert await attempt(budget, fails=True) == "refused"
