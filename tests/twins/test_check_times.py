"""The times of a token: the compiled core answers exactly as its twin, at every corner of 64 bits."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings

from fastauth import _core, _core_py
from tests.cases import each
from tests.twins.comparing import outcome
from tests.twins.strategies import (
    EXAMPLES,
    HIGH,
    INT64_CORNERS,
    LOW,
    ODD_VALUES,
    Choices,
    built,
)

CheckTimes = Callable[[int, int, int | None, int | None, int, int], int]

OK, EXPIRED, NOT_YET, FUTURE = (
    _core_py.TIMES_OK,
    _core_py.TIMES_EXPIRED,
    _core_py.TIMES_NOT_YET_VALID,
    _core_py.TIMES_ISSUED_IN_FUTURE,
)
both = pytest.mark.parametrize("check_times", [_core.check_times, _core_py.check_times], ids=["compiled", "twin"])


def _arguments(choices: Choices) -> tuple[Any, ...]:
    """Times close to each other, the corners of int64, or odd values; ``nbf`` and ``iat`` are absent now and then."""
    kind = choices.below(3)
    if kind == 0:
        return tuple(choices.pick(ODD_VALUES) for _ in range(6))
    times: tuple[int, ...] = tuple(range(-1, 7)) if kind == 1 else INT64_CORNERS
    now_s, exp_s, leeway_s, skew_s = (choices.pick(times) for _ in range(4))
    return now_s, exp_s, choices.pick((None, *times)), choices.pick((None, *times)), leeway_s, skew_s


@settings(max_examples=EXAMPLES)
@given(built(_arguments, 7))
def test_the_compiled_check_answers_exactly_as_the_twin(arguments: tuple[Any, ...]) -> None:
    assert outcome(_core.check_times, *arguments) == outcome(_core_py.check_times, *arguments)


@each("position", range(6))
def test_a_corner_in_any_place_gets_the_same_answer_from_both(position: int) -> None:
    good_ones = ((0, 1, 0, 0, 0, 0), (HIGH, HIGH, None, None, HIGH, HIGH), (LOW, LOW, LOW, LOW, HIGH, HIGH))
    for value, good in itertools.product(ODD_VALUES, good_ones):
        arguments: list[Any] = list(good)
        arguments[position] = value
        assert outcome(_core.check_times, *arguments) == outcome(_core_py.check_times, *arguments)


@both
def test_a_token_expires_in_the_very_second_of_its_exp(check_times: CheckTimes) -> None:
    assert check_times(99, 100, None, None, 0, 60) == OK
    assert check_times(100, 100, None, None, 0, 60) == EXPIRED
    assert check_times(101, 100, None, None, 0, 60) == EXPIRED


@both
def test_leeway_lengthens_the_life_by_exactly_that_much(check_times: CheckTimes) -> None:
    assert check_times(129, 100, None, None, 30, 60) == OK
    assert check_times(130, 100, None, None, 30, 60) == EXPIRED


@both
def test_nbf_and_iat_may_lie_ahead_by_the_skew_and_not_a_second_more(check_times: CheckTimes) -> None:
    assert check_times(100, 999, 160, 160, 0, 60) == OK
    assert check_times(100, 999, 161, None, 0, 60) == NOT_YET
    assert check_times(100, 999, None, 161, 0, 60) == FUTURE


@both
def test_the_first_of_several_reasons_is_given(check_times: CheckTimes) -> None:
    assert check_times(100, 100, 200, 200, 0, 60) == EXPIRED
    assert check_times(100, 101, 200, 200, 0, 60) == NOT_YET


@both
def test_sums_beyond_64_bits_stop_at_the_corner_and_do_not_wrap_around(check_times: CheckTimes) -> None:
    assert check_times(HIGH, HIGH, None, None, 1, 0) == OK
    assert check_times(HIGH, HIGH, HIGH, HIGH, 1, HIGH) == OK
    assert check_times(LOW, LOW + 1, None, None, HIGH, 0) == OK
    assert check_times(LOW, LOW, None, None, HIGH, HIGH) == EXPIRED
    assert check_times(LOW, HIGH, 0, None, 0, HIGH) == NOT_YET


@both
@each(("leeway_s", "skew_s"), [(-1, 0), (0, -1), (LOW, 0), (0, LOW)])
def test_a_negative_allowance_is_refused(check_times: CheckTimes, leeway_s: int, skew_s: int) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        check_times(0, 1, None, None, leeway_s, skew_s)


@both
def test_only_nbf_and_iat_may_be_absent(check_times: Callable[..., int]) -> None:
    for position in (0, 1, 4, 5):
        arguments: list[int | None] = [0, 1, None, None, 0, 0]
        arguments[position] = None
        with pytest.raises(TypeError):
            check_times(*arguments)
