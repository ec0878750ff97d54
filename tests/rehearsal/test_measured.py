"""How a ceiling is counted."""

import pytest

from fastauth.rehearsal.measured import goodput
from fastauth.rehearsal.tally import Second


def served(due_s: list[float], took_s: list[float], seconds: float = 1.0) -> Second:
    """All of these were answered well."""
    second = Second(len(due_s), len(due_s))
    for due, took in zip(due_s, took_s, strict=True):
        second.times.add(took)
        second.done += due + took < seconds
    return second


def test_a_lane_that_keeps_up_has_the_rate_that_was_offered_however_long_an_answer_takes() -> None:
    dues = [number / 100 for number in range(100)]
    for took in (0.001, 0.05, 0.4):
        assert goodput(served(dues, [took] * 100), 1.0) == pytest.approx(100, rel=0.02)


def test_a_burst_that_a_queue_takes_in_whole_counts_as_it_is_served() -> None:
    dues = [number / 100 for number in range(100)]
    queue = [0.025 * (number + 1) - due for number, due in enumerate(dues)]  # one at a time, forty a second
    assert goodput(served(dues, queue), 1.0) == pytest.approx(40, rel=0.1)


def test_nothing_served_is_nothing() -> None:
    assert goodput(Second(100), 1.0) == 0
