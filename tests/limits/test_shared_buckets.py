"""Buckets that a fleet shares: exact or leased, what a node does alone, and what comes back."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from fastauth.limits import Decision, Limit, LocalBuckets, RedisBuckets, lease_bound
from tests.cases import each
from tests.integration.running import FULL
from tests.redis_servers import RedisServer, running_redis

pytestmark = pytest.mark.integration

T = TypeVar("T")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


def run(work: Callable[[RedisBuckets], Awaitable[T]], redis: RedisServer) -> T:
    async def main() -> T:
        async with RedisBuckets(redis.url, LocalBuckets(1024)) as buckets:
            return await work(buckets)

    return asyncio.run(main())


def debt_s(redis: RedisServer, limit: Limit) -> float:
    """How empty the one bucket in Redis is, in seconds until it is full."""
    client = redis.client()
    (name,) = list(client.scan_iter("fastauth:limit:*"))
    seconds, microseconds = client.time()
    return (int(str(client.get(name))) - seconds * 1_000_000 - microseconds) / 1e6


@pytest.mark.parametrize("tier", ["exact", "leased"])
def test_two_nodes_get_the_burst_and_what_regrew_and_not_a_token_more(redis: RedisServer, tier: str) -> None:
    limit = Limit.parse(f"500/s burst 200 {tier}")
    command = [
        sys.executable,
        "-m",
        "tests.limits.sharing",
        redis.url,
        f"500/s burst 200 {tier}",
        "10" if FULL else "2",
    ]
    nodes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for node in nodes:
            assert node.stdout
            assert node.stdout.readline() == "ready\n"
        for node in nodes:
            assert node.stdin
            node.stdin.write("go\n")
            node.stdin.flush()
        told = [json.loads(node.communicate(timeout=60)[0]) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
            node.communicate()
    elapsed_us = max(one["end_us"] for one in told) - min(one["start_us"] for one in told)
    admitted = sum(one["admitted"] for one in told)
    assert sum(one["taken"] for one in told) > 2 * admitted  # they asked for more than there was
    most = limit.burst + elapsed_us // limit.emission_us
    assert 0.9 * most - 2 * lease_bound(limit) <= admitted <= most


@each("tier", ["exact", "leased"])
def test_a_command_carries_twenty_decisions_when_many_ask_for_one_bucket(redis: RedisServer, tier: str) -> None:
    limit = Limit.parse(f"1000000/s burst 100000 {tier}")

    async def work(buckets: RedisBuckets) -> float:
        before = buckets.link.commands

        async def take() -> None:
            for _ in range(100):
                await buckets.take(f"hot {tier}", limit)
                await asyncio.sleep(0)

        await asyncio.gather(*(take() for _ in range(64)))
        return 6_400 / (buckets.link.commands - before)

    assert run(work, redis) >= 20


def test_leases_grow_with_use_and_shrink_as_the_bucket_empties(redis: RedisServer) -> None:
    limit = Limit.parse("1/h burst 1000 leased")

    async def work(buckets: RedisBuckets) -> None:
        commands, admitted = [], 0
        for _ in range(11):
            before = buckets.link.commands
            for _ in range(100):
                admitted += (await buckets.take("key", limit)).allowed
            commands.append(buckets.link.commands - before)
        assert admitted == 1_000
        assert min(commands) <= 4
        assert commands[9] > 2 * min(commands)

    run(work, redis)


def test_leases_return_when_they_lie_idle_and_when_the_node_stops(redis: RedisServer) -> None:
    limit = Limit.parse("60/h burst 1000 leased")

    async def spend(buckets: RedisBuckets) -> None:
        for _ in range(200):
            await buckets.take("key", limit)

    async def idle(buckets: RedisBuckets) -> float:
        await spend(buckets)
        held = debt_s(redis, limit)
        assert held >= 200 * 60
        await asyncio.sleep(1.6)
        return debt_s(redis, limit)

    assert 199 * 60 <= run(idle, redis) <= 201 * 60
    run(spend, redis)
    assert 399 * 60 <= debt_s(redis, limit) <= 402 * 60


def test_alone_a_node_admits_its_share_from_where_the_bucket_was(redis: RedisServer) -> None:
    limit = Limit.parse("1/h burst 100")

    async def main() -> None:
        nodes = [RedisBuckets(redis.url, LocalBuckets(1024)) for _ in range(2)]
        for node in nodes:
            await node.open()
        for _ in range(60):
            assert (await nodes[0].take("key", limit)).allowed
        await asyncio.sleep(2.2)  # until each has heard of the other
        assert [node.link.nodes for node in nodes] == [2, 2]
        await nodes[0].take("key", limit)
        await nodes[1].take("key", limit)
        redis.kill()
        admitted = [sum([(await node.take("key", limit)).allowed for _ in range(100)]) for node in nodes]
        assert admitted == [19, 19]  # of 38 that were left
        assert sum([(await nodes[0].take("new", limit)).allowed for _ in range(100)]) == 50
        assert (await nodes[0].take("dear", limit, 80)).allowed  # one request costs a share at most
        for node in nodes:
            await node.close()

    asyncio.run(main())


@each("cost", [0, -1, 101, 2**63, float("nan"), 1.0, True, None, "1"])
@each("tier", ["exact", "leased", "local"])
def test_a_cost_that_cannot_be_is_refused_and_nothing_is_taken(redis: RedisServer, cost: Any, tier: str) -> None:
    limit = Limit.parse(f"1/h burst 100 {tier}")

    async def work(buckets: RedisBuckets) -> None:
        with pytest.raises((ValueError, TypeError, OverflowError)):
            await buckets.take("key", limit, cost)
        with pytest.raises(ValueError, match="key"):
            await buckets.take("x" * 1025, limit)
        assert redis.client().keys("fastauth:limit:*") == []

    run(work, redis)


def test_a_dear_request_is_admitted_or_refused_whole(redis: RedisServer) -> None:
    async def work(buckets: RedisBuckets) -> None:
        for tier in ("exact", "leased"):
            limit = Limit.parse(f"1/h burst 100 {tier}")
            decisions = [await buckets.take(f"key {tier}", limit, 30) for _ in range(4)]
            assert [decision.allowed for decision in decisions] == [True, True, True, False]
            assert 19 * 3_600 < decisions[-1].retry_after_s <= 30 * 3_600

    run(work, redis)


def test_keys_that_look_alike_are_different_buckets(redis: RedisServer) -> None:
    keys = ["a:b", "a", "b:a", "{a}", "{a}b", "a\nb", "a b", "é", "e\u0301", ""]
    limit = Limit.parse("1/h burst 1")

    async def work(buckets: RedisBuckets) -> None:
        decisions = [await buckets.take(key, limit) for key in keys]
        assert all(decision.allowed for decision in decisions)
        assert len(redis.client().keys("fastauth:limit:*")) == len(keys)

    run(work, redis)


def test_waiting_as_told_admits(redis: RedisServer) -> None:
    async def work(buckets: RedisBuckets) -> None:
        for tier in ("exact", "leased"):
            limit = Limit.parse(f"5/s burst 2 {tier}")
            for _ in range(3):
                while (decision := await buckets.take(f"key {tier}", limit)).allowed:
                    pass
                await asyncio.sleep(decision.retry_after_s)
                assert (await buckets.take(f"key {tier}", limit)).allowed

    run(work, redis)


def test_a_decision_made_now_needs_no_coroutine(redis: RedisServer) -> None:
    limit = Limit.parse("1000/s burst 1000 leased")

    async def work(buckets: RedisBuckets) -> None:
        for _ in range(50):
            await buckets.take("key", limit)
        waited = 0
        for _ in range(20):
            decision = buckets.decide("key", limit)
            if not isinstance(decision, Decision):
                await decision
                waited += 1
        assert waited <= 2

    run(work, redis)
