"""The bucket in Lua: the same rule, vectors and strategy as in Cython and Python, in a real Redis."""

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from fastauth import _core_py
from tests.integration.running import FULL, wait_for
from tests.redis_servers import RedisServer, running_cluster, running_redis
from tests.twins.comparing import outcome
from tests.twins.strategies import EXAMPLES, bucket_arguments, built

pytestmark = pytest.mark.integration

TEXT: Final = resources.files("fastauth.limits.shared").joinpath("buckets.lua").read_text()
VECTORS: Final = json.loads((Path(__file__).parent.parent / "vectors" / "gcra.json").read_text())
# The rule alone, for any number of cases in one call; numbers come back as text, exactly.
RULE: Final = (
    TEXT.partition("local arguments = {}")[0]
    + """
local answers = {}
for i = 1, #ARGV, 5 do
  local n = {}
  for j = i, i + 4 do n[#n + 1] = tonumber(ARGV[j]) end
  local allowed, tat, remaining, retry = gcra(unpack(n))
  for _, value in ipairs({allowed, tat, remaining, retry}) do answers[#answers + 1] = string.format('%.0f', value) end
end
return answers
"""
)
NOW_US: Final = 1_800_000_000_000_000
# The whole script, at a moment that is told as its last argument.
AT_A_MOMENT: Final = TEXT.replace(
    "local time = redis.call('TIME')\n  return time[1] * 1000000 + time[2]", "return tonumber(table.remove(ARGV))", 1
).replace(
    "local arguments = {}", "local now_us = clock_us()\nclock_us = function() return now_us end\nlocal arguments = {}"
)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    with server.client() as connected:
        connected.flushall()
        yield connected


def by_lua(client: Any, cases: list[tuple[int, ...]]) -> list[tuple[bool, int, int, int]]:
    flat = [int(value) for value in client.eval(RULE, 0, *(number for case in cases for number in case))]
    return [(flat[at] == 1, *flat[at + 1 : at + 4]) for at in range(0, len(flat), 4)]  # type: ignore[misc]


def test_every_vector_comes_out_as_written(client: Any) -> None:
    for vector in VECTORS["sequences"]:
        tat_us = 0
        for step in vector["steps"]:
            case = (tat_us, step["now_us"], vector["emission_us"], vector["burst"], step["cost"])
            ((allowed, tat_us, remaining, retry_us),) = by_lua(client, [case])
            assert (allowed, remaining, retry_us) == (step["allowed"], step["remaining"], step["retry_after_us"])


@settings(max_examples=max(20, EXAMPLES // 50))
@given(cases=st.lists(built(bucket_arguments, 24), min_size=50, max_size=50))
def test_lua_answers_exactly_as_the_twin(server: RedisServer, cases: list[tuple[Any, ...]]) -> None:
    possible = [case for case in cases if outcome(_core_py.gcra, *case)[0] == "returned"]
    if possible:
        with server.client() as client:
            assert by_lua(client, possible) == [_core_py.gcra(*case) for case in possible]


def test_the_largest_numbers_are_exact(client: Any) -> None:
    most_now, most_window = _core_py.MAX_NOW_US, _core_py.MAX_WINDOW_US
    cases: list[tuple[int, ...]] = [
        (0, most_now, 1, most_window, most_window),
        (most_now + most_window, most_now, 1, most_window, most_window),
        (most_now + most_window - 1, most_now, 1, most_window, 1),
        (2 * most_now, 0, 86_400_000_000, 26_062, 1),
    ]
    assert by_lua(client, cases) == [_core_py.gcra(*case) for case in cases]


def do(client: Any, op: str, keys: list[str], *arguments: Any, now_us: int = NOW_US) -> list[int]:
    answer: list[int] = client.eval(AT_A_MOMENT, len(keys), *keys, op, *arguments, now_us)
    return answer


@settings(max_examples=max(20, EXAMPLES // 50))
@given(
    bucket=st.tuples(st.integers(1, 10_000), st.integers(1, 20)),
    calls=st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 5), st.integers(1, 8)), min_size=1, max_size=12),
)
def test_a_call_for_many_is_as_many_calls_for_one(
    server: RedisServer, bucket: tuple[int, int], calls: list[tuple[int, int, int]]
) -> None:
    emission_us, burst = bucket
    with server.client() as client:
        client.delete("bucket")
        tat_us, now_us = 0, NOW_US
        for wait_us, cost, count in calls:
            now_us, cost = now_us + wait_us, min(cost, burst)
            admitted, remaining, retry_us, debt_us = do(
                client, "take", ["bucket"], emission_us, burst, cost, 0, 0, count, now_us=now_us
            )
            expected = 0
            for _ in range(count):
                allowed, tat_us, _, _ = _core_py.gcra(tat_us, now_us, emission_us, burst, cost)
                expected += allowed
            *_, retry = _core_py.gcra(tat_us, now_us, emission_us, burst, cost)
            assert admitted == expected
            assert debt_us == max(0, tat_us - now_us)
            assert retry_us == retry
            assert remaining == (emission_us * burst - debt_us) // emission_us


def test_a_part_of_what_remains_is_one_at_least_until_nothing_does(client: Any) -> None:
    granted = [do(client, "take", ["bucket"], 1_000_000, 100, 1, 4, 0, 40)[0] for _ in range(20)]
    assert granted[:5] == [25, 18, 14, 10, 8]
    assert granted[-2:] == [0, 0]
    assert sum(granted) == 100


def test_what_is_given_back_never_makes_a_bucket_more_than_full(client: Any) -> None:
    do(client, "take", ["bucket"], 1_000_000, 100, 1, 0, 0, 10)
    assert do(client, "give_back", ["bucket"], 1_000_000, 4)[3] == 6_000_000
    assert do(client, "give_back", ["bucket"], 1_000_000, 40)[3] == 0
    assert client.exists("bucket") == 0
    assert do(client, "take", ["bucket"], 1_000_000, 100, 1, 0, 0, 200)[0] == 100


def test_a_bucket_that_was_forgotten_is_as_empty_as_it_is_told(client: Any) -> None:
    assert do(client, "take", ["bucket"], 1_000_000, 10, 1, 0, 7_500_000, 5) == [2, 0, 500_000, 9_500_000]
    assert do(client, "take", ["other"], 1_000_000, 10, 1, 0, 10**15, 5) == [0, 0, 1_000_000, 10_000_000]
    assert do(client, "take", ["bucket"], 1_000_000, 10, 1, 0, 100, 1)[3] == 9_500_000


def test_a_clock_that_jumps_back_locks_nobody_out_for_longer_than_a_window(client: Any) -> None:
    do(client, "take", ["bucket"], 1_000_000, 10, 1, 0, 0, 10)
    answer = do(client, "take", ["bucket"], 1_000_000, 10, 1, 0, 0, 1, now_us=NOW_US - 10**12)
    assert answer == [0, 0, 1_000_000, 10_000_000]
    assert do(client, "take", ["bucket"], 1_000_000, 10, 1, 0, 0, 1, now_us=NOW_US - 10**12 + 10**6)[0] == 1


OPS: Final[list[tuple[str, list[str], tuple[Any, ...]]]] = [
    ("take", ["p:limit:00"], (1_000, 100, 1, 0, 0, 3)),
    ("give_back", ["p:limit:00"], (1_000, 1)),
    ("reserve", ["p:guess:{00}:failed", "p:guess:{00}:trying"], (1_000_000, 3, 500_000, 10**7, "#a")),
    ("settle", ["p:guess:{00}:failed", "p:guess:{00}:trying"], (1_000_000, 3, 1, "#a")),
    ("beat", ["p:nodes"], (10**7, "#node")),
]


def test_every_key_that_is_written_goes_by_itself(client: Any) -> None:
    for op, keys, arguments in OPS:
        client.eval(TEXT, len(keys), *keys, op, *arguments)
        for key in client.scan_iter():
            assert 0 < client.pttl(key) <= 11_000, (op, key)


def test_ten_thousand_buckets_take_memory_only_while_they_are_less_than_full(client: Any) -> None:
    count = 1_000_000 if FULL else 10_000
    before = client.info("memory")["used_memory"]
    pipe = client.pipeline(transaction=False)
    sha = client.script_load(TEXT)
    for number in range(count):
        pipe.evalsha(sha, 1, f"p:limit:{number:032x}", "take", 1, 1, 1, 0, 0, 1)
        if number % 10_000 == 9_999:
            pipe.execute()
    wait_for(lambda: client.dbsize() == 0, 60)
    assert client.info("memory")["used_memory"] - before < 1_000_000 + count


def test_every_operation_keeps_to_one_slot_of_a_cluster() -> None:
    with running_cluster() as nodes:
        cluster = redis.RedisCluster.from_url(nodes[0].url)
        try:
            for op, keys, arguments in OPS:
                assert len(cluster.eval(TEXT, len(keys), *keys, op, *arguments)) == 4
        finally:
            cluster.close()
