"""The table of buckets: the compiled one does exactly what its twin does, and what the twin does is right."""

import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given, settings

from fastauth import _core, _core_py
from tests.cases import each
from tests.twins.comparing import outcome
from tests.twins.strategies import EXAMPLES, ODD_VALUES, Choices, built

LINES: Final = 8
SIZE: Final = _core_py.TABLE_HEADER_BYTES + LINES * 64
MODULES: Final = (_core, _core_py)
both = pytest.mark.parametrize("core", MODULES, ids=["compiled", "twin"])

# An operation names its key by number, so that a failure can be printed.
_KEYS: Final = ("", "a", b"a", "é", "ip:192.0.2.1", "x" * 1024, *(f"key {number}" for number in range(60)))
_ODD_KEYS: Final = ("x" * 1025, "é" * 513, "\ud800", 1, None, bytearray(b"a"))
_RATES: Final = ((1, 1), (1, 1_000_000), (1_000, 10), (1_000_000, 3), (86_400_000_000, 1), (86_400_000_000, 26_062))
_START_US: Final = 10**12
_ODD_TIMES: Final = tuple(value for value in ODD_VALUES if value is not None)  # None is the real clock

Operation = tuple[str, tuple[Any, ...], int]


class Pair:
    """A compiled table and its twin under one hash key, each on memory of its own."""

    def __init__(self) -> None:
        self.memories = [mmap.mmap(-1, SIZE) for _ in MODULES]
        self.tables = [
            core.BucketTable(memory, -1, bytes(range(16))) for core, memory in zip(MODULES, self.memories, strict=True)
        ]

    def do(self, name: str, arguments: tuple[Any, ...], rate: int) -> list[Any]:
        results = []
        for core, table in zip(MODULES, self.tables, strict=True):
            key, *rest = (core.Rate(*_RATES[rate]) if argument is _RATE else argument for argument in arguments)
            method = getattr(table, name)
            results.append(outcome(lambda *given: plain(method(*given)), (*_KEYS, *_ODD_KEYS)[key], *rest))  # noqa: B023
        return results


_RATE: Final = object()


def plain(result: Any) -> Any:
    """A decision as its numbers, because the two have types of their own."""
    return (result.allowed, result.remaining, result.retry_after_us) if hasattr(result, "allowed") else result


def _operations(choices: Choices) -> list[Operation]:
    """Ordinary calls on few keys while time goes on, and now and then something odd."""
    now_us, operations = _START_US, []
    for _ in range(60):
        now_us = max(0, now_us + choices.pick((0, 0, 1, 999, 10_000, 1_000_000, 10**8, -5_000, -(10**9))))
        rate = choices.below(len(_RATES))
        key = len(_KEYS) + choices.below(len(_ODD_KEYS)) if choices.below(32) == 0 else choices.below(len(_KEYS))
        number = choices.pick(ODD_VALUES) if choices.below(16) == 0 else choices.pick((1, 1, 1, 2, 3, 10))
        at = choices.pick(_ODD_TIMES) if choices.below(32) == 0 else now_us
        name = choices.pick(("take", "take", "take", "peek", "charge", "raise_debt", "debt", "hold", "release", "held"))
        until = (_START_US // 10**7 + 2) * 10**7
        arguments: tuple[Any, ...] = (key, _RATE, number, at)
        if name == "debt":
            arguments = (key, _RATE, at)
        elif name == "raise_debt":
            arguments = (key, _RATE, number if number in ODD_VALUES else number * 700_000, at)
        elif name == "hold":
            arguments = (key, until, at)
        elif name in ("release", "held"):
            arguments = (key, until)
        operations.append((name, arguments, rate))
    return operations


@settings(max_examples=EXAMPLES // 4)
@given(built(_operations, 700))
def test_the_compiled_table_does_exactly_what_its_twin_does(operations: list[Operation]) -> None:
    pair = Pair()
    for operation in operations:
        compiled, twin = pair.do(*operation)
        assert compiled == twin, operation
    assert pair.tables[0].evictions == pair.tables[1].evictions
    compiled_slots, twin_slots = (memory[_core_py.TABLE_HEADER_BYTES :] for memory in pair.memories)
    assert compiled_slots == twin_slots


@both
@each("cost", [0, -1, 4, 2**63 - 1, 2**63, 10**30, float("nan"), 1e308, 1.0, True, None, "1"])
def test_a_cost_that_cannot_be_is_refused_and_leaves_the_bucket_as_it_was(core: Any, cost: Any) -> None:
    memory = mmap.mmap(-1, SIZE)
    table, rate = core.BucketTable(memory, -1, bytes(16)), core.Rate(1_000_000, 3)
    table.take("key", rate, 1, _START_US)
    before = memory[:]
    for call in (table.take, table.peek, table.charge):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            call("key", rate, cost, _START_US)
    assert memory[:] == before


@both
@each("emission_us", [0, -1, 86_400_000_001, 2**63, 1.5, float("nan"), True, "1", None])
def test_a_rate_that_cannot_be_is_refused(core: Any, emission_us: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        core.Rate(emission_us, 1)


@both
@each("burst", [0, -1, 2**51 + 1, 2**63, 1.5, float("inf"), False])
def test_a_burst_that_cannot_be_is_refused(core: Any, burst: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        core.Rate(1, burst)


@both
@each(("per_us", "burst"), [(1, 1_000_000), (86_400_000_000, 1)])
def test_rates_from_one_a_day_to_a_million_a_second_are_kept_exactly(core: Any, per_us: int, burst: int) -> None:
    table, rate = core.BucketTable(mmap.mmap(-1, SIZE), -1, bytes(16)), core.Rate(per_us, burst)
    assert table.take("key", rate, burst, _START_US).allowed
    refusal = table.take("key", rate, 1, _START_US)
    assert (refusal.allowed, refusal.retry_after_us) == (False, per_us)
    assert not table.take("key", rate, 1, _START_US + per_us - 1).allowed
    assert table.take("key", rate, 1, _START_US + per_us).allowed


@both
def test_text_and_its_utf_8_are_one_key(core: Any) -> None:
    table, rate = core.BucketTable(mmap.mmap(-1, SIZE), -1, bytes(16)), core.Rate(1_000_000, 1)
    assert table.take("é", rate, 1, _START_US).allowed
    assert not table.take("é".encode(), rate, 1, _START_US).allowed


@both
def test_a_bucket_that_is_full_again_is_an_empty_slot_and_one_that_is_not_makes_room_last(core: Any) -> None:
    table, rate = core.BucketTable(mmap.mmap(-1, SIZE), -1, bytes(16)), core.Rate(1_000, 100)
    slots = LINES * 4
    for number in range(slots):
        table.take(f"first {number}", rate, 1 + number, _START_US)
    assert table.evictions == 0
    table.take("one more", rate, 100, _START_US)
    assert table.evictions == 1
    assert table.peek("first 0", rate, 100, _START_US).allowed  # it was nearest to full, and is forgotten
    assert not table.peek("first 1", rate, 100, _START_US).allowed
    for number in range(slots):
        table.take(f"second {number}", rate, 1, _START_US + 200_000)
    assert table.evictions == 1


@both
def test_a_charge_is_taken_even_from_an_empty_bucket_and_never_makes_it_worse_than_empty(core: Any) -> None:
    table, rate = core.BucketTable(mmap.mmap(-1, SIZE), -1, bytes(16)), core.Rate(1_000, 3)
    assert [table.charge("key", rate, 1, _START_US) for _ in range(5)] == [1_000, 2_000, 3_000, 3_000, 3_000]
    assert table.raise_debt("key", rate, 10**15, _START_US) == 3_000
    assert table.raise_debt("other", rate, 1_500, _START_US) == 1_500
    assert table.raise_debt("other", rate, 700, _START_US) == 1_500
    assert table.debt("other", rate, _START_US + 500) == 1_000
    assert table.debt("never seen", rate, _START_US) == 0


@both
def test_a_count_ends_with_its_time(core: Any) -> None:
    table = core.BucketTable(mmap.mmap(-1, SIZE), -1, bytes(16))
    until = _START_US + 10**7
    assert [table.hold("key", until, _START_US) for _ in range(3)] == [1, 2, 3]
    assert [table.release("key", until) for _ in range(5)] == [2, 1, 0, 0, 0]
    assert table.hold("key", until, _START_US) == 1
    assert table.held("key", until) == 1
    for number in range(LINES * 4):  # the slot is free for others once its time is over
        table.take(f"other {number}", core.Rate(10**6, 9), 1, until + core.MAX_HELD + 1)
    assert table.evictions == 0
    assert table.held("key", until) == 0


@both
@each(
    ("size", "hash_key"),
    [(SIZE, b"short"), (SIZE, bytearray(16)), (4096, bytes(16)), (SIZE - 64, bytes(16)), (SIZE + 16, bytes(16))],
)
def test_memory_of_another_shape_is_refused(core: Any, size: int, hash_key: Any) -> None:
    with pytest.raises(ValueError, match=r"memory|hash_key"):
        core.BucketTable(mmap.mmap(-1, size), -1, hash_key)


@both
def test_decisions_and_counters_are_what_they_look_like(core: Any) -> None:
    decision = core.Decision(False, 2, 1_500_000)
    assert repr(decision) == "Decision(allowed=False, remaining=2, retry_after_s=1.5)"
    assert decision == core.Decision(False, 2, 1_500_000) != core.Decision(True, 2, 1_500_000)
    assert len({decision, core.Decision(False, 2, 1_500_000)}) == 1
    counters = core.SharedCounters(mmap.mmap(-1, mmap.PAGESIZE), -1)
    counters.add(3)
    counters.add(3, 41)
    assert (counters.read(3), counters.read(2), counters.count) == (42, 0, mmap.PAGESIZE // 8)
    for index in (-1, counters.count, 2**40):
        with pytest.raises(IndexError):
            counters.add(index)
    with pytest.raises(ValueError, match="negative"):
        counters.add(0, -1)


def test_the_hash_is_siphash_as_python_itself_has_it() -> None:
    tell = "print(*(hash(bytes(range(n))) & (1 << 64) - 1 for n in range(1, 100)))"
    told = subprocess.run(
        [sys.executable, "-c", tell],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    siphash: Callable[[bytes, bytes], int] = _core_py._siphash
    assert [siphash(bytes(16), bytes(range(n))) for n in range(1, 100)] == [int(word) for word in told.stdout.split()]
