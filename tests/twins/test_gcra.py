"""The token bucket: the compiled core answers exactly as its twin, both as the vectors say, and the rule holds."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastauth import _core, _core_py, core
from tests.cases import each
from tests.twins.comparing import outcome
from tests.twins.strategies import (
    BEYOND_INT64,
    EXAMPLES,
    HIGH,
    LOW,
    NOT_INTEGERS,
    ODD_VALUES,
    bucket_arguments,
    built,
)

Gcra = Callable[[int, int, int, int, int], tuple[bool, int, int, int]]

MAX_NOW = _core_py.MAX_NOW_US
MAX_WINDOW = _core_py.MAX_WINDOW_US
MAX_EMISSION = _core_py.MAX_EMISSION_US
VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "gcra.json").read_text())

both = pytest.mark.parametrize("gcra", [_core.gcra, _core_py.gcra], ids=["compiled", "twin"])


@settings(max_examples=EXAMPLES)
@given(built(bucket_arguments, 24))
def test_the_compiled_bucket_answers_exactly_as_the_twin(arguments: tuple[Any, ...]) -> None:
    assert outcome(_core.gcra, *arguments) == outcome(_core_py.gcra, *arguments)


_GOOD = ((0, 0, 1, 1, 1), (MAX_NOW, MAX_NOW, MAX_EMISSION, 26062, 26062), (HIGH, HIGH, HIGH, HIGH, HIGH))


@each("position", range(5))
def test_a_corner_in_any_place_gets_the_same_answer_from_both(position: int) -> None:
    for value, good in itertools.product(ODD_VALUES, _GOOD):
        arguments: list[Any] = list(good)
        arguments[position] = value
        assert outcome(_core.gcra, *arguments) == outcome(_core_py.gcra, *arguments)


@both
def test_what_is_not_an_int_is_refused_and_never_rounded(gcra: Gcra) -> None:
    for value, position in itertools.product(NOT_INTEGERS, range(5)):
        arguments: list[Any] = [0, 0, 1, 1, 1]
        arguments[position] = value
        with pytest.raises(TypeError):
            gcra(*arguments)


@both
def test_a_number_beyond_64_bits_is_an_overflow_and_never_wraps_around(gcra: Gcra) -> None:
    for value, position in itertools.product(BEYOND_INT64, range(5)):
        arguments = [0, 0, 1, 1, 1]
        arguments[position] = value
        with pytest.raises(OverflowError):
            gcra(*arguments)


@both
@each(
    ("name", "arguments"),
    [
        ("tat_us", (-1, 0, 1, 1, 1)),
        ("tat_us", (2 * MAX_NOW + 1, 0, 1, 1, 1)),
        ("tat_us", (LOW, 0, 1, 1, 1)),
        ("now_us", (0, -1, 1, 1, 1)),
        ("now_us", (0, MAX_NOW + 1, 1, 1, 1)),
        ("now_us", (0, HIGH, 1, 1, 1)),
        ("emission_us", (0, 0, 0, 1, 1)),
        ("emission_us", (0, 0, -1, 1, 1)),
        ("emission_us", (0, 0, MAX_EMISSION + 1, 1, 1)),
        ("burst", (0, 0, 1, 0, 1)),
        ("burst", (0, 0, 1, -1, 1)),
        ("burst", (0, 0, 1, MAX_WINDOW + 1, 1)),
        ("burst", (0, 0, MAX_EMISSION, 26063, 1)),
        ("burst", (0, 0, MAX_EMISSION, HIGH, 1)),
        ("cost", (0, 0, 1, 1, 0)),
        ("cost", (0, 0, 1, 1, -1)),
        ("cost", (0, 0, 1, 1, 2)),
        ("cost", (0, 0, 1, 1, HIGH)),
    ],
)
def test_an_argument_out_of_range_is_refused_by_name(gcra: Gcra, name: str, arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"^{name} is out of range$"):
        gcra(*arguments)


@both
def test_the_largest_bucket_at_the_latest_time_is_decided_exactly(gcra: Gcra) -> None:
    assert gcra(0, MAX_NOW, 1, MAX_WINDOW, 1) == (True, MAX_NOW + 1, MAX_WINDOW - 1, 0)
    assert gcra(0, MAX_NOW, 1, MAX_WINDOW, MAX_WINDOW) == (True, MAX_NOW + MAX_WINDOW, 0, 0)
    full = MAX_NOW + MAX_WINDOW
    assert gcra(full, MAX_NOW, 1, MAX_WINDOW, MAX_WINDOW) == (False, full, 0, MAX_WINDOW)
    assert gcra(2 * MAX_NOW, 0, MAX_EMISSION, 26062, 1) == (False, MAX_EMISSION * 26062, 0, MAX_EMISSION)


@both
@each("vector", VECTORS["sequences"])
def test_a_sequence_worked_out_by_hand_comes_out_as_written(gcra: Gcra, vector: dict[str, Any]) -> None:
    tat_us = 0
    for number, step in enumerate(vector["steps"], start=1):
        allowed, tat_us, remaining, retry_after_us = gcra(
            tat_us, step["now_us"], vector["emission_us"], vector["burst"], step["cost"]
        )
        expected = (step["allowed"], step["remaining"], step["retry_after_us"])
        assert (allowed, remaining, retry_after_us) == expected, f"step {number}"


# ------------------------------------------------------------------ the rule itself, on the implementation in use

_buckets = st.tuples(st.integers(1, 10_000), st.integers(1, 20))
_waits = st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 25)), min_size=1, max_size=30)


@given(bucket=_buckets, start_us=st.integers(0, MAX_NOW // 2), waits=_waits)
def test_over_any_time_no_more_is_admitted_than_the_burst_and_what_regrew(
    bucket: tuple[int, int], start_us: int, waits: list[tuple[int, int]]
) -> None:
    emission_us, burst = bucket
    tat_us, now_us, admitted = 0, start_us, 0
    for wait_us, cost in waits:
        now_us += wait_us
        allowed, tat_us, remaining, _ = core.gcra(tat_us, now_us, emission_us, burst, min(cost, burst))
        admitted += min(cost, burst) if allowed else 0
        assert admitted <= burst + (now_us - start_us) // emission_us
        assert 0 <= remaining <= burst


@given(bucket=_buckets, start_us=st.integers(0, MAX_NOW // 2), waits=_waits)
def test_a_refusal_leaves_the_bucket_as_it_was_and_waiting_as_told_admits(
    bucket: tuple[int, int], start_us: int, waits: list[tuple[int, int]]
) -> None:
    emission_us, burst = bucket
    tat_us, now_us = 0, start_us
    for wait_us, cost in waits:
        now_us += wait_us
        cost = min(cost, burst)
        before_us = max(tat_us, now_us)
        allowed, tat_us, _, retry_after_us = core.gcra(tat_us, now_us, emission_us, burst, cost)
        if allowed:
            assert retry_after_us == 0
            continue
        assert tat_us == before_us
        assert retry_after_us > 0
        assert not core.gcra(tat_us, now_us + retry_after_us - 1, emission_us, burst, cost)[0]
        assert core.gcra(tat_us, now_us + retry_after_us, emission_us, burst, cost)[0]


@given(bucket=_buckets, times=st.lists(st.integers(0, MAX_NOW // 2), min_size=1, max_size=12))
@example(bucket=(1000, 5), times=[MAX_NOW // 2, 0])
def test_a_clock_that_jumps_back_locks_nobody_out_for_longer_than_one_window(
    bucket: tuple[int, int], times: list[int]
) -> None:
    emission_us, burst = bucket
    tat_us = 0
    for now_us in times:
        allowed, tat_us, remaining, retry_after_us = core.gcra(tat_us, now_us, emission_us, burst, burst)
        assert retry_after_us <= emission_us * burst
        assert now_us <= tat_us <= now_us + emission_us * burst
        assert 0 <= remaining <= burst
        if not allowed:
            assert core.gcra(tat_us, now_us + retry_after_us, emission_us, burst, burst)[0]


@given(tat_us=st.integers(0, 2 * MAX_NOW), now_us=st.integers(0, MAX_NOW), bucket=_buckets, cost=st.integers(1, 20))
def test_what_is_to_be_stored_may_be_handed_in_again(
    tat_us: int, now_us: int, bucket: tuple[int, int], cost: int
) -> None:
    emission_us, burst = bucket
    _, stored_us, remaining, _ = core.gcra(tat_us, now_us, emission_us, burst, min(cost, burst))
    allowed, _, after, _ = core.gcra(stored_us, now_us, emission_us, burst, 1)
    assert allowed == (remaining >= 1)
    assert after == max(0, remaining - 1)
