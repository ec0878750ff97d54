"""One bucket decision from Python: our tables, other libraries, and through a real Redis; run by ``make bench``."""

import asyncio
import mmap
import random
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from limits import parse, storage, strategies
from pytest_benchmark.fixture import BenchmarkFixture
from throttled import MemoryStore, RateLimiterType, Throttled, per_sec

from fastauth import _core_py
from fastauth.limits import Limit, LocalBuckets, RedisBuckets
from tests.redis_servers import RedisServer, running_redis

KEY = "ip:192.0.2.1"
# Nothing is refused, because a refusal is another path.
LIMIT = Limit.parse("1000000/s burst 1000000")
LIVE_KEYS = 1 << 20
BATCH = 2_000
CALLERS = 64


def each_of_a_thousand(benchmark: BenchmarkFixture, decide: Callable[..., Any], *arguments: Any) -> None:
    """Time a call as it stands in a program; to look at the clock around each call would add half of that."""

    def thousand() -> None:
        for _ in range(1_000):
            decide(*arguments)

    benchmark.extra_info["calls"] = 1_000
    benchmark(thousand)


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> LocalBuckets:
    folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path_factory.mktemp("table")  # noqa: S108
    path = folder / f"fastauth-bench-{random.randrange(1 << 40):x}"
    try:
        return LocalBuckets(path=path)
    finally:
        path.unlink()


@pytest.mark.benchmark(group="decision")
def test_decision_in_the_shared_table(benchmark: BenchmarkFixture, buckets: LocalBuckets) -> None:
    each_of_a_thousand(benchmark, buckets.take, KEY, LIMIT)
    assert buckets.take(KEY, LIMIT).allowed


@pytest.mark.benchmark(group="decision")
def test_decision_among_a_million_live_keys(benchmark: BenchmarkFixture, buckets: LocalBuckets) -> None:
    """Each slot is somewhere in 32 MiB; the keys come from memory in order, as keys that were just made are at hand."""
    limit = Limit.parse("1/d burst 10000")
    keys = [f"ip:{number}" for number in range(LIVE_KEYS)]
    for key in keys:
        buckets.take(key, limit)
    assert buckets.evictions == 0
    asked = keys[:100_000]
    take = buckets.take

    def take_all() -> None:
        for key in asked:
            take(key, limit)

    benchmark.extra_info["calls"] = len(asked)
    benchmark.pedantic(take_all, rounds=10, warmup_rounds=1)  # type: ignore[no-untyped-call]


@pytest.mark.benchmark(group="decision")
def test_decision_in_the_twin(benchmark: BenchmarkFixture) -> None:
    memory = mmap.mmap(-1, _core_py.TABLE_HEADER_BYTES + (1 << 12))
    table = _core_py.BucketTable(memory, -1, bytes(16))
    each_of_a_thousand(benchmark, table.take, KEY, _core_py.Rate(1, 1_000_000))


@pytest.mark.parametrize("strategy", ["FixedWindowRateLimiter", "MovingWindowRateLimiter"])
@pytest.mark.benchmark(group="decision")
def test_decision_of_limits_in_memory(benchmark: BenchmarkFixture, strategy: str) -> None:
    """``limits`` has no token bucket: its moving window is as exact as one, its fixed window its fastest."""
    limiter = getattr(strategies, strategy)(storage.MemoryStorage())
    each_of_a_thousand(benchmark, limiter.hit, parse("1000000/second"), KEY)


@pytest.mark.benchmark(group="decision")
def test_decision_of_throttled_in_memory(benchmark: BenchmarkFixture) -> None:
    quota = per_sec(1_000_000, burst=1_000_000)
    throttle = Throttled(using=RateLimiterType.GCRA.value, quota=quota, store=MemoryStore())
    each_of_a_thousand(benchmark, throttle.limit, KEY)


# ------------------------------------------------------------------ through Redis


class Node:
    """Buckets on a real Redis, and the event loop that they belong to."""

    def __init__(self, redis: RedisServer) -> None:
        self.loop = uvloop.new_event_loop()
        self.buckets = RedisBuckets(redis.url, LocalBuckets(1024))
        self.run(self.buckets.open())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def take(self, limit: Limit, callers: int) -> None:
        """``BATCH`` decisions by so many callers at the same time; each lets the others on after every one."""

        async def one() -> None:
            for _ in range(BATCH // callers):
                await self.buckets.take(f"{KEY} {limit.tier}", limit)
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(callers)))


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with running_redis() as redis:
        running = Node(redis)
        yield running
        running.run(running.buckets.close())
        running.loop.close()


@pytest.mark.parametrize("callers", [1, CALLERS])
@pytest.mark.parametrize("tier", ["exact", "leased"])
@pytest.mark.benchmark(group="decision through Redis")
def test_decision_through_redis(benchmark: BenchmarkFixture, node: Node, tier: str, callers: int) -> None:
    limit = Limit.parse(f"1000000/s burst 1000000 {tier}")
    benchmark.extra_info["calls"] = BATCH // callers * callers
    before, rounds = node.buckets.link.commands, 10
    benchmark.pedantic(lambda: node.run(node.take(limit, callers)), rounds=rounds, warmup_rounds=0)  # type: ignore[no-untyped-call]
    decisions = rounds * (BATCH // callers * callers)
    benchmark.extra_info["decisions_per_command"] = decisions / (node.buckets.link.commands - before)


@pytest.mark.benchmark(group="decision through Redis")
def test_decision_of_limits_through_redis(benchmark: BenchmarkFixture) -> None:
    with running_redis() as redis:
        limiter = strategies.FixedWindowRateLimiter(storage.RedisStorage(redis.url))
        assert benchmark(limiter.hit, parse("1000000/second"), KEY) is True
