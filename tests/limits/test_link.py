"""What Redis may do to the limits: be slow, dead, flushed, read-only, full, moved. No request ever sees an error."""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fastauth.limits import Decision, Limit, LocalBuckets, RedisBuckets
from tests.integration.running import wait_for
from tests.redis_servers import RedisServer, running_redis, running_sentinel

pytestmark = pytest.mark.integration

T = TypeVar("T")

LIMIT = Limit.parse("1/h burst 100")
LEASED = Limit.parse("1/h burst 1000 leased")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


class Node:
    """A node's buckets, and what it was told of Redis."""

    def __init__(self, url: str) -> None:
        self.changes: list[tuple[bool, str]] = []
        self.buckets = RedisBuckets(url, LocalBuckets(1024), on_change=lambda *change: self.changes.append(change))

    @property
    def is_up(self) -> bool:
        return self.buckets.link.is_up

    async def becomes(self, is_up: bool, timeout_s: float = 5) -> None:
        await asyncio.to_thread(wait_for, lambda: self.is_up == is_up, timeout_s)


@contextlib.asynccontextmanager
async def node(url: str) -> AsyncIterator[Node]:
    one = Node(url)
    async with one.buckets:
        yield one
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


def run(work: Callable[[Node], Awaitable[T]], url: str) -> T:
    async def main() -> T:
        async with node(url) as one:
            return await work(one)

    return asyncio.run(main())


async def timed(decision: Coroutine[Any, Any, Decision]) -> float:
    started = time.perf_counter()
    await decision
    return time.perf_counter() - started


def test_a_script_that_redis_forgot_is_sent_again(redis: RedisServer) -> None:
    async def work(one: Node) -> None:
        for number in range(3):
            redis.client().script_flush()
            assert (await one.buckets.take("key", LIMIT)).remaining == 99 - number
        assert one.changes == [(True, "")]

    run(work, redis.url)


def test_equal_requests_that_come_together_share_a_command_and_get_what_they_would_get_one_by_one(
    redis: RedisServer,
) -> None:
    async def work(one: Node) -> None:
        before = one.buckets.link.commands
        decisions = await asyncio.gather(*(one.buckets.take("key", LIMIT) for _ in range(150)))
        assert one.buckets.link.commands - before <= 3
        assert sorted(decision.remaining for decision in decisions if decision.allowed) == list(range(100))
        assert all(3_590 < decision.retry_after_s <= 3_600 for decision in decisions if not decision.allowed)

    run(work, redis.url)


def test_somebody_elses_key_hurts_only_itself(redis: RedisServer) -> None:
    async def work(one: Node) -> None:
        await one.buckets.take("key", LIMIT)
        client = redis.client()
        (name,) = client.scan_iter("fastauth:limit:*")
        client.delete(name)
        client.lpush(name, "x")
        assert (await one.buckets.take("key", LIMIT)).remaining == 98
        assert (await one.buckets.take("another", LIMIT)).allowed
        assert one.is_up

    run(work, redis.url)


def test_a_redis_that_hangs_is_waited_for_once_and_for_fifty_milliseconds(redis: RedisServer) -> None:
    async def work(one: Node) -> None:
        assert (await one.buckets.take("key", LIMIT, 60)).allowed
        redis.pause()
        waits = await asyncio.gather(*(timed(one.buckets.take("key", LIMIT)) for _ in range(50)))
        assert 0.03 < max(waits) < 0.15
        assert not one.is_up
        assert max([await timed(one.buckets.take("key", LIMIT)) for _ in range(100)]) < 0.02
        assert not (await one.buckets.take("key", LIMIT)).allowed  # 60 were gone before, as the table here knew
        redis.resume()
        await one.becomes(True, 1.5)
        assert [is_up for is_up, _ in one.changes] == [True, False, True]
        assert one.changes[1][1] == "no answer within 50 ms"
        assert not (await one.buckets.take("key", LIMIT)).allowed  # and Redis is told

    run(work, redis.url)


def fill(redis: RedisServer) -> None:
    redis.set(maxmemory="2mb", maxmemory_policy="noeviction")
    client = redis.client()
    with contextlib.suppress(Exception):
        for number in range(1_000):
            client.set(f"fill {number}", "x" * 10_000)
    redis.set(maxmemory="1mb")


def read_only(redis: RedisServer) -> None:
    redis.command("REPLICAOF", "127.0.0.1", "1")


def change_password(redis: RedisServer) -> None:
    redis.command("CONFIG", "SET", "requirepass", "x")
    redis.password = "x"
    redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def forget_password(redis: RedisServer) -> None:
    redis.command("CONFIG", "SET", "requirepass", "")
    redis.password = None


@pytest.mark.parametrize(
    ("harm", "mend", "reason"),
    [
        (RedisServer.kill, RedisServer.start, ""),
        (read_only, RedisServer.become_master, "You can't write against a read only replica."),
        (fill, lambda redis: redis.set(maxmemory="0"), "command not allowed when used memory > 'maxmemory'."),
        (
            lambda redis: redis.set(min_replicas_to_write=1),
            lambda redis: redis.set(min_replicas_to_write=0),
            "NOREPLICAS",
        ),
        (lambda redis: redis.command("CLIENT", "KILL", "TYPE", "normal"), lambda _: None, ""),
        (change_password, forget_password, ""),
    ],
    ids=["killed", "read-only", "out of memory", "without replicas", "connections cut", "another password"],
)
def test_whatever_befalls_redis_decisions_go_on_and_come_back_to_it(
    redis: RedisServer, harm: Any, mend: Any, reason: str
) -> None:
    async def work(one: Node) -> None:
        assert (await one.buckets.take("key", LIMIT, 90)).allowed
        harm(redis)
        decisions = [await one.buckets.take("key", LIMIT) for _ in range(20)]
        assert [decision.allowed for decision in decisions] == [True] * 10 + [False] * 10
        assert (await one.buckets.take("leased", LEASED)).allowed
        mend(redis)
        await one.becomes(True)
        assert not (await one.buckets.take("key", LIMIT)).allowed
        assert [is_up for is_up, _ in one.changes] == [True, False, True]
        assert one.changes[1][1].startswith(reason)

    run(work, redis.url)


def test_a_flushed_redis_is_told_again_what_it_knew(redis: RedisServer) -> None:
    async def work(one: Node) -> None:
        await one.buckets.take("key", LIMIT, 97)
        redis.client().flushall()
        decisions = [await one.buckets.take("key", LIMIT) for _ in range(5)]
        assert [decision.allowed for decision in decisions] == [True] * 3 + [False] * 2
        another = Node(redis.url)  # with a table of its own, which knows nothing
        async with another.buckets:
            assert not (await another.buckets.take("key", LIMIT)).allowed

    run(work, redis.url)


def test_a_failover_moves_the_limits_to_the_new_master() -> None:
    with running_sentinel() as sentinels:

        async def work(one: Node) -> None:
            assert (await one.buckets.take("key", LIMIT, 90)).allowed
            sentinels.master.kill()
            taking = asyncio.create_task(keep_taking(one))
            await asyncio.to_thread(sentinels.wait_for_failover)
            await one.becomes(True, 10)
            admitted = await stop(taking)
            assert admitted <= 10
            assert not (await one.buckets.take("key", LIMIT)).allowed
            assert (await one.buckets.take("another", LIMIT)).allowed
            assert any(True for _ in sentinels.master.client().scan_iter("fastauth:limit:*"))

        run(work, sentinels.url)


async def keep_taking(one: Node) -> int:
    admitted = 0
    while not stopping.is_set():
        admitted += (await one.buckets.take("key", LIMIT)).allowed
        await asyncio.sleep(0.005)
    return admitted


stopping = asyncio.Event()


async def stop(taking: "asyncio.Task[int]") -> int:
    stopping.set()
    try:
        return await taking
    finally:
        stopping.clear()


def test_a_busy_event_loop_does_not_take_a_healthy_redis_down(redis: RedisServer) -> None:
    async def work(one: Node) -> None:
        for _ in range(5):
            waiting = [asyncio.ensure_future(one.buckets.take("key", LIMIT)) for _ in range(10)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(0.2)  # noqa: ASYNC251 - that is the point
            await asyncio.gather(*waiting)
        assert one.changes == [(True, "")]

    run(work, redis.url)


def test_callers_that_go_away_disturb_nobody(redis: RedisServer) -> None:
    async def work(one: Node) -> None:
        for tier in (LIMIT, LEASED):
            for _ in range(20):
                waiting = [asyncio.ensure_future(one.buckets.take(f"key {tier}", tier)) for _ in range(10)]
                await asyncio.sleep(0)
                for number in range(0, 10, 2):
                    waiting[number].cancel()
                done = await asyncio.gather(*waiting, return_exceptions=True)
                assert sum(isinstance(one, Decision) for one in done) >= 5
        assert one.changes == [(True, "")]

    run(work, redis.url)


def test_opening_and_closing_leaks_nothing_and_does_not_wait_for_a_redis_that_hangs(redis: RedisServer) -> None:
    async def cycle() -> None:
        async with node(redis.url) as one:
            await asyncio.gather(*(one.buckets.take("key", LEASED) for _ in range(10)))

    def descriptors() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    asyncio.run(cycle())
    before = descriptors()
    for _ in range(5):
        asyncio.run(cycle())
    assert descriptors() <= before
    redis.pause()
    started = time.monotonic()
    asyncio.run(cycle())
    assert time.monotonic() - started < 3
