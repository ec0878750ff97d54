"""Those who were sent away: when they are to come back, and how many are believed to."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fastauth.domain.waiting_line import LONGEST_AWAY_S, RETURN_WINDOW_S, WaitingLine
from tests.cases import each

NOW_S = 1_800_000_000.0
EACH_S = 0.5


@pytest.fixture
def line() -> WaitingLine:
    return WaitingLine()


def sent(line: WaitingLine, many: int, now_s: float = NOW_S, each_s: float = EACH_S) -> list[int]:
    """So many are sent away; out: when each is to come back."""
    return [int(now_s) + line.send_away(now_s, 1.0, each_s) for _ in range(many)]


def test_the_first_is_to_come_back_when_the_queue_has_been_served(line: WaitingLine) -> None:
    assert line.estimate_s(NOW_S, 7.2, EACH_S) == 8
    assert line.send_away(NOW_S, 7.2, EACH_S) == 8
    assert line.expected == 1


def test_whoever_is_sent_away_later_comes_after_those_who_are_away(line: WaitingLine) -> None:
    dues = sent(line, 100)
    assert dues == sorted(dues)
    assert dues[-1] - dues[0] == pytest.approx(100 * EACH_S, abs=1)
    assert line.expected == 100


def test_an_estimate_sends_nobody_away(line: WaitingLine) -> None:
    sent(line, 10)
    assert len({line.estimate_s(NOW_S, 1.0, EACH_S) for _ in range(10)}) == 1
    assert line.expected == 10


def test_whoever_is_back_is_waited_for_no_more(line: WaitingLine) -> None:
    dues = sent(line, 40)
    before_s = line.estimate_s(NOW_S, 0.0, EACH_S)
    for due_s in dues[:20]:
        line.come_back(due_s)
    assert line.expected == 20
    assert line.estimate_s(NOW_S, 0.0, EACH_S) == pytest.approx(before_s / 2, abs=1)


def test_the_estimate_shrinks_when_those_who_were_sent_away_do_not_come_back(line: WaitingLine) -> None:
    lost_s = sent(line, 200)[-1] + RETURN_WINDOW_S
    assert line.return_share == 1
    believed_s = WaitingLine().estimate_s(lost_s, 1.0, EACH_S)
    assert line.estimate_s(lost_s, 1.0, EACH_S) == believed_s  # nobody is away any more
    sent(line, 50, lost_s)
    assert line.expected == 50
    assert line.return_share < 0.1
    assert line.estimate_s(lost_s, 0.0, EACH_S) < 0.1 * 50 * EACH_S + 1


def test_the_share_that_comes_back_is_what_was_seen(line: WaitingLine) -> None:
    now_s = NOW_S
    for _ in range(300):  # each second four, of whom three come back in time
        for due_s in sent(line, 4, now_s, each_s=0.0)[:3]:
            line.come_back(due_s)
        now_s += 1
    assert line.return_share == pytest.approx(0.75, abs=0.05)


def test_whoever_comes_after_having_been_missed_was_due_once(line: WaitingLine) -> None:
    now_s = NOW_S
    away: list[list[int]] = []
    for _ in range(300):  # each second four, all of whom come ten seconds late
        away.append(sent(line, 4, now_s, each_s=0.0))
        if len(away) > 10:
            for due_s in away.pop(0):
                line.come_back(due_s)
        now_s += 1
    assert line.return_share > 0.9


def test_the_share_recovers_when_they_come_back_again(line: WaitingLine) -> None:
    now_s = NOW_S
    for _ in range(200):
        sent(line, 5, now_s, each_s=0.0)
        now_s += 1
    assert line.return_share == pytest.approx(0.02)  # never nothing, or nobody would ever be expected again
    for _ in range(200):
        for due_s in sent(line, 5, now_s, each_s=0.0):
            line.come_back(due_s)
        now_s += 1
    assert line.return_share > 0.9


@each(
    ("queue_s", "each_s", "many", "expected_s"),
    [
        (0.0, 0.0, 0, 1),
        (0.0, 1e-9, 3, 1),
        (0.001, 0.0, 1, 1),
        (1e9, 0.0, 0, LONGEST_AWAY_S),
        (0.0, 1e9, 1, LONGEST_AWAY_S),
        (299.5, 1.0, 5, LONGEST_AWAY_S),
        (1e300, 1e300, 2, LONGEST_AWAY_S),
    ],
)
def test_nobody_is_sent_away_for_less_than_a_second_or_longer_than_the_longest(
    queue_s: float, each_s: float, many: int, expected_s: int
) -> None:
    line = WaitingLine()
    for _ in range(many):
        line.send_away(NOW_S, 0.0, 0.0)
    assert line.estimate_s(NOW_S, queue_s, each_s) == expected_s
    assert line.send_away(NOW_S, queue_s, each_s) == expected_s


@each(
    ("queue_s", "due_in_s", "expected_s"),
    [
        (0.0, 5, 5),
        (9.5, 5, 10),
        (0.0, -20, 1),
        (0.0, 0, 1),
        (3.0, -20, 3),
        (0.0, 10_000, LONGEST_AWAY_S),
        (1e9, 0, 300),
    ],
)
def test_one_who_came_too_early_or_to_a_long_queue_is_sent_back_for_as_long_as_that_takes(
    queue_s: float, due_in_s: int, expected_s: int
) -> None:
    line = WaitingLine()
    assert line.send_back(NOW_S + 0.9, queue_s, int(NOW_S) + due_in_s) == expected_s
    assert line.expected == 1


def test_one_who_is_sent_back_does_not_wait_for_those_who_came_later(line: WaitingLine) -> None:
    sent(line, 300)
    assert line.send_back(NOW_S, 2.0, int(NOW_S)) == 2


def test_after_a_thousand_seconds_without_a_call_nothing_is_left_of_a_storm(line: WaitingLine) -> None:
    sent(line, 500)
    later_s = NOW_S + 1_000
    assert line.estimate_s(later_s, 0.0, EACH_S) == 1
    assert line.expected == 0
    assert line.return_share == 1


@each("jump_s", [-1.0, -86_400.0, 86_400.0, 1e9])
def test_a_clock_that_jumps_breaks_no_account(jump_s: float) -> None:
    line = WaitingLine()
    dues = sent(line, 20)
    assert 1 <= line.estimate_s(NOW_S + jump_s, 1.0, EACH_S) <= LONGEST_AWAY_S
    for due_s in dues:
        line.come_back(due_s)
    assert line.expected == 0
    assert 1 <= line.send_away(NOW_S, 1.0, EACH_S) <= LONGEST_AWAY_S


def test_a_ticket_of_another_process_that_was_due_then_counts_as_one_of_ours(line: WaitingLine) -> None:
    due_s = sent(line, 1)[0]
    line.come_back(due_s + 1_000)
    assert line.expected == 1
    line.come_back(due_s)
    line.come_back(due_s)
    assert line.expected == 0


_seconds = st.floats(min_value=0, max_value=1_000)


class Bookkeeping(RuleBasedStateMachine):
    """Random comings and goings; kept beside them, by second, who can be away at the most."""

    def __init__(self) -> None:
        super().__init__()
        self.line = WaitingLine()
        self.now_s = NOW_S
        self.away: Counter[int] = Counter()

    @rule(many=st.integers(1, 30), queue_s=_seconds, each_s=st.floats(min_value=0, max_value=50))
    def send_away(self, many: int, queue_s: float, each_s: float) -> None:
        estimates = []
        for _ in range(many):
            estimates.append(self.line.send_away(self.now_s, queue_s, each_s))
            self.away[int(self.now_s) + estimates[-1]] += 1
        assert estimates == sorted(estimates)
        assert 1 <= estimates[0] <= estimates[-1] <= LONGEST_AWAY_S

    @rule(queue_s=_seconds, due_in_s=st.integers(-RETURN_WINDOW_S, LONGEST_AWAY_S))
    def send_back(self, queue_s: float, due_in_s: int) -> None:
        retry_s = self.line.send_back(self.now_s, queue_s, int(self.now_s) + due_in_s)
        assert 1 <= retry_s <= LONGEST_AWAY_S
        self.away[int(self.now_s) + retry_s] += 1

    @rule(choice=st.integers(0, 10**6))
    def come_back(self, choice: int) -> None:
        dues = sorted(self.away.elements()) or [int(self.now_s)]
        due_s = dues[choice % len(dues)]
        self.line.come_back(due_s)
        self.away[due_s] = max(0, self.away[due_s] - 1)

    @rule(due_in_s=st.integers(-1_000, 1_000))
    def a_stranger_comes(self, due_in_s: int) -> None:
        due_s = int(self.now_s) + due_in_s
        self.line.come_back(due_s)
        self.away[due_s] = max(0, self.away[due_s] - 1)

    @rule(seconds=st.floats(min_value=-10, max_value=400))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def everybody_is_missed(self) -> None:
        self.now_s = max([self.now_s, *self.away]) + RETURN_WINDOW_S + 1
        self.line.estimate_s(self.now_s, 0.0, 1.0)
        assert self.line.expected == 0
        self.away.clear()

    @invariant()
    def the_account_is_right(self) -> None:
        assert 0 <= self.line.expected <= self.away.total()
        assert 0 < self.line.return_share <= 1


Bookkeeping.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestBookkeeping = Bookkeeping.TestCase
