"""Who is let into a lane: a burst is, lasting overload is not; and how fast a lane serves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastauth.domain.admission import Gate, LaneRules, Pace
from tests.cases import each

RULES = LaneRules(burst_s=2.0, target_s=0.02)
PER_S = 100.0  # what the lane of these tests serves
START_S = 5_000.0


class Lane:
    """A queue behind a gate that is served at one pace, one after the other."""

    def __init__(self, rules: LaneRules = RULES) -> None:
        self.gate = Gate(rules)
        self.now_s = START_S
        self.free_s = START_S  # when all who are inside will have been served

    @property
    def wait_s(self) -> float:
        return max(0.0, self.free_s - self.now_s)

    def comes(self, steady_s: float = 0.0) -> bool:
        """Whether one who comes now is let in."""
        self.gate.arrive(self.now_s)
        is_in = self.gate.allows(self.wait_s, PER_S, steady_s)
        if is_in:
            self.free_s = max(self.free_s, self.now_s) + 1 / PER_S
        return is_in

    def overloaded(self, seconds: float, per_s: float = 3 * PER_S) -> list[tuple[float, bool]]:
        """So many come for a while; out: how long each would have waited, and whether it was let in."""
        seen = []
        for _ in range(int(seconds * per_s)):
            self.now_s += 1 / per_s
            wait_s = self.wait_s
            seen.append((wait_s, self.comes()))
        return seen


@pytest.fixture
def lane() -> Lane:
    return Lane()


# ------------------------------------------------------------------ the gate


def test_a_burst_is_taken_whole_up_to_a_queue_that_is_as_long_as_it_may_be(lane: Lane) -> None:
    most = int(RULES.burst_s * PER_S)
    assert all(lane.comes() for _ in range(most))
    assert not any(lane.comes() for _ in range(most) if lane.wait_s > RULES.burst_s)
    assert lane.wait_s == pytest.approx(RULES.burst_s, abs=2 / PER_S)


def test_a_burst_that_has_been_served_may_be_followed_by_another(lane: Lane) -> None:
    for _ in range(3):
        assert all(lane.comes() for _ in range(150))
        lane.now_s += 20.0


def test_a_lane_that_keeps_up_refuses_nobody(lane: Lane) -> None:
    assert all(is_in for _, is_in in lane.overloaded(30.0, per_s=0.95 * PER_S))


def test_in_lasting_overload_the_queue_is_kept_short_and_nobody_is_served_the_later_for_it(lane: Lane) -> None:
    lane.overloaded(10.0)
    began_s, seen = lane.now_s, lane.overloaded(10.0)
    assert max(wait_s for wait_s, is_in in seen if is_in) <= RULES.target_s
    assert max(wait_s for wait_s, _ in seen) <= RULES.target_s + 1 / PER_S
    assert min(wait_s for wait_s, _ in seen) > 0  # whoever serves has always had somebody to serve
    assert sum(is_in for _, is_in in seen) == pytest.approx(PER_S * (lane.now_s - began_s), abs=3)


def test_in_overload_a_queue_may_be_as_long_as_those_need_it_who_serve_it(lane: Lane) -> None:
    lane.overloaded(10.0)
    steady_s = 0.3
    assert lane.wait_s < steady_s
    while lane.wait_s <= steady_s:
        assert lane.comes(steady_s)
    assert not lane.comes(steady_s)


def test_a_steady_queue_that_is_shorter_than_the_target_shortens_nothing(lane: Lane) -> None:
    lane.overloaded(10.0)
    lane.now_s = lane.free_s - RULES.target_s / 2
    assert lane.comes(RULES.target_s / 10)


def test_a_queue_that_was_full_is_kept_short_until_somebody_finds_nobody_waiting(lane: Lane) -> None:
    while lane.comes():
        pass
    lane.now_s += 1.0  # half of the queue has been served, and nobody has come
    assert not lane.comes()
    lane.now_s = lane.free_s - 0.1
    assert not lane.comes()
    lane.now_s = lane.free_s + 60.0
    assert all(lane.comes() for _ in range(50))  # the first one found nobody


def test_a_queue_that_was_full_stays_short_however_few_come_until_it_has_been_empty(lane: Lane) -> None:
    while lane.comes():
        pass
    for _ in range(100):
        lane.now_s += 60.0
        assert not lane.gate.allows(0.5, PER_S)
    assert lane.gate.allows(0.0, PER_S)
    assert lane.gate.allows(0.5, PER_S)


def test_after_a_storm_a_moment_without_anybody_ends_it_and_the_next_burst_is_taken_whole(lane: Lane) -> None:
    for _ in range(1_000):  # all at once, most of whom are refused
        lane.comes()
    lane.now_s = lane.free_s + 0.1
    assert lane.gate.is_overload(PER_S)
    assert all(lane.comes() for _ in range(150))


def test_a_gap_between_two_of_a_storm_does_not_end_it(lane: Lane) -> None:
    lane.overloaded(10.0)
    lane.now_s += 0.4
    lane.comes()
    assert lane.gate.is_overload(PER_S)


def test_overload_that_never_filled_the_queue_ends_with_those_who_come(lane: Lane) -> None:
    lane.overloaded(10.0)
    assert lane.gate.is_overload(PER_S)
    lane.now_s += 5.0
    assert lane.comes()
    assert not lane.gate.is_overload(PER_S)
    assert lane.gate.allows(1.0, PER_S)


def test_overload_is_measured_by_what_can_be_served(lane: Lane) -> None:
    lane.overloaded(10.0, per_s=PER_S)
    assert not lane.gate.is_overload(PER_S)
    assert lane.gate.is_overload(PER_S / 2)


@each("jump_s", [-3_600.0, -1.0, 0.0])
def test_a_clock_that_goes_back_or_stands_still_forgets_nobody_and_locks_nobody_out(jump_s: float) -> None:
    lane = Lane()
    for _ in range(150):
        lane.gate.arrive(lane.now_s)
    lane.gate.arrive(lane.now_s + jump_s)
    assert lane.gate.is_overload(PER_S / 2)
    lane.gate.arrive(lane.now_s + jump_s + 60.0)
    assert not lane.gate.is_overload(PER_S / 2)


_waits = st.floats(min_value=0, max_value=10)


@given(
    st.lists(st.tuples(st.floats(min_value=0, max_value=1), st.integers(0, 400), _waits), max_size=30),
    st.floats(min_value=0.001, max_value=3.0),
)
def test_whatever_came_before_a_short_queue_takes_in_and_one_that_is_too_long_does_not(
    past: list[tuple[float, int, float]], steady_s: float
) -> None:
    gate, now_s = Gate(RULES), START_S
    for pause_s, many, wait_s in past:
        now_s += pause_s
        for _ in range(many):
            gate.arrive(now_s)
        is_in = gate.allows(wait_s, PER_S, steady_s)
        if wait_s <= max(RULES.target_s, steady_s):
            assert is_in
        elif wait_s > RULES.burst_s:
            assert not is_in
    assert gate.allows(0.0, PER_S)


# ------------------------------------------------------------------ the pace


def test_a_pace_is_what_was_expected_until_it_has_been_measured() -> None:
    assert Pace(0.25).per_s == pytest.approx(4)


@each("took_s", [0.0005, 0.01, 0.2, 4.0])
def test_the_pace_is_how_many_are_served_in_the_time_that_they_take(took_s: float) -> None:
    pace = Pace(0.02)
    for _ in range(5 + int(8 / took_s)):
        pace.served(took_s)
    assert pace.per_s == pytest.approx(1 / took_s, rel=0.01)


@each(("inside", "stay_s"), [(1, 0.01), (10, 0.1), (200, 0.5), (30, 3.0)])
def test_of_those_who_are_served_side_by_side_each_takes_its_part(inside: int, stay_s: float) -> None:
    """Little's law: as many a second as are inside, over how long each of them is, however they are served."""
    pace = Pace(0.02)
    for _ in range(int(8 * inside / stay_s)):
        pace.served(stay_s / inside)
    assert pace.per_s == pytest.approx(inside / stay_s, rel=0.01)


def test_those_who_find_a_long_queue_and_those_who_find_none_tell_the_same_pace() -> None:
    """Served one by one, ten a second: who finds four there and is the fifth is inside for half a second."""
    pace = Pace(0.02)
    for beside in (1, 2, 3, 4, 5) * 20:
        pace.served(beside / 10.0 / beside)
    assert pace.per_s == pytest.approx(10, rel=0.01)


def test_many_that_take_no_time_do_not_hide_those_that_do() -> None:
    """As if every second request were refused for its form: a pace is that of all of them together."""
    pace = Pace(0.02)
    for _ in range(1_000):
        pace.served(0.02)
        pace.served(0.000_001)
    assert pace.per_s == pytest.approx(2 / 0.02, rel=0.05)


@each(("before_s", "after_s"), [(0.01, 0.1), (0.1, 0.001), (0.01, 0.02)])
def test_a_pace_that_changes_is_followed_within_a_few_seconds_of_work(before_s: float, after_s: float) -> None:
    pace = Pace(before_s)
    for _ in range(int(5 / before_s)):
        pace.served(before_s)
    for _ in range(int(5 / after_s)):
        pace.served(after_s)
    assert pace.per_s == pytest.approx(1 / after_s, rel=0.1)


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=50), st.floats(min_value=1e-6, max_value=10))
def test_whatever_has_been_measured_a_pace_is_a_pace(times_s: list[float], expected_s: float) -> None:
    pace = Pace(expected_s)
    for time_s in times_s:
        pace.served(time_s)
        assert 0 < pace.per_s <= 1e12
    fastest, slowest = min([*times_s, expected_s]), max([*times_s, expected_s])
    assert pace.per_s >= 0.99 / slowest
    assert pace.per_s * fastest <= 1.01
