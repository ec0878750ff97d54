"""The queue of several lanes: shares between them, and in each of them first come, first served."""

import contextlib
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastauth.domain.fair_queue import FairQueue, Place
from tests.cases import each

SHARES = (0.75, 0.25)
SLACK = 1e-6  # of sums of strides

Item = tuple[int, int, int]  # lane, since, number


class Queue(FairQueue[Item]):
    """With items that say where they belong."""

    def __init__(self, shares: tuple[float, ...] = SHARES) -> None:
        super().__init__(shares)
        self.pushed = 0

    def join(self, lane: int, since: int) -> Place:
        self.pushed += 1
        return self.push(lane, since, (lane, since, self.pushed))

    def fill(self, lane: int, many: int) -> None:
        for since in range(many):
            self.join(lane, since)

    def lanes(self, many: int) -> list[int]:
        """Whose turns the next ones are."""
        return [self.pop()[0] for _ in range(many)]


@pytest.fixture
def queue() -> Queue:
    return Queue()


_lane = st.integers(0, 1)
_since = st.integers(0, 20)
_joins = st.lists(st.tuples(_lane, _since), max_size=60)
# As lists of (lane, since), or None for a turn: what has happened before.
_past = st.lists(st.one_of(st.tuples(_lane, _since), st.none()), max_size=80)
_shares = st.sampled_from([SHARES, (0.5, 0.5), (0.9, 0.1), (0.2, 0.8)])


def with_past(past: list[tuple[int, int] | None], shares: tuple[float, ...] = SHARES) -> Queue:
    queue = Queue(shares)
    for event in past:
        if event is not None:
            queue.join(*event)
        elif queue:
            queue.pop()
    return queue


def test_nobody_waits_at_first(queue: Queue) -> None:
    assert (len(queue), queue.length(0), queue.length(1), queue.drain()) == (0, 0, 0, [])
    with pytest.raises(IndexError):
        queue.pop()


@given(_joins)
def test_in_a_lane_goes_first_who_came_first_whenever_they_join(joins: list[tuple[int, int]]) -> None:
    queue = with_past(list(joins))
    assert len(queue) == len(joins)
    popped = [queue.pop() for _ in range(len(queue))]
    for lane in (0, 1):
        turns = [item[1:] for item in popped if item[0] == lane]
        assert turns == sorted(turns)
        assert len(turns) == sum(1 for join in joins if join[0] == lane)


def test_one_who_came_earlier_goes_before_those_who_joined_earlier(queue: Queue) -> None:
    for since in (50, 10, 40, 10, 60):
        queue.join(1, since)
    assert [queue.pop()[1:] for _ in range(2)] == [(10, 2), (10, 4)]
    queue.join(1, 5)
    assert [queue.pop()[1] for _ in range(4)] == [5, 40, 50, 60]


# ------------------------------------------------------------------ shares


@given(_past, _shares)
def test_over_any_time_in_which_both_lanes_wait_each_has_its_share(
    past: list[tuple[int, int] | None], shares: tuple[float, float]
) -> None:
    """Start-time fair queueing (Goyal, Vin and Cheng, 1996): never more than one turn of each apart."""
    queue = with_past(past, shares)
    for lane in (0, 1):
        queue.fill(lane, 45)
    turns = queue.lanes(40)
    strides = [1 / share for share in shares]
    for start in range(len(turns)):
        ahead = 0.0
        for lane in turns[start:]:
            ahead += strides[lane] if lane == 0 else -strides[lane]
            assert abs(ahead) <= sum(strides) + SLACK


def test_three_turns_of_four_are_the_first_lanes_which_goes_first(queue: Queue) -> None:
    queue.fill(0, 30)
    queue.fill(1, 30)
    turns = queue.lanes(24)
    assert turns[0] == 0
    assert turns.count(0) == 18
    assert all(turns[at : at + 4].count(1) == 1 for at in range(20))


def test_what_one_lane_does_not_use_the_others_get(queue: Queue) -> None:
    queue.fill(1, 20)
    assert queue.lanes(10) == [1] * 10
    queue.join(0, 0)
    assert sorted(queue.lanes(2)) == [0, 1]
    assert queue.lanes(9) == [1] * 9


@each("lane", [0, 1])
def test_a_lane_that_was_empty_has_saved_nothing_up(lane: int) -> None:
    queue = Queue()
    queue.fill(1 - lane, 500)
    queue.lanes(300)
    queue.fill(lane, 100)
    expected = 40 * SHARES[lane]
    assert queue.lanes(40).count(lane) == pytest.approx(expected, abs=1.5)


@each("lane", [0, 1])
def test_a_lane_that_others_left_alone_owes_them_nothing(lane: int) -> None:
    """What it took while nobody else wanted it is forgotten when they come."""
    queue = Queue()
    queue.fill(lane, 500)
    queue.lanes(300)
    queue.fill(1 - lane, 100)
    assert queue.lanes(40).count(lane) == pytest.approx(40 * SHARES[lane], abs=1.5)


@each("lane", [0, 1])
def test_to_come_one_by_one_gains_nothing(lane: int) -> None:
    """A lane that is empty after each of its turns has used what it got all the same."""
    queue = Queue()
    queue.fill(1 - lane, 200)
    turns = 0
    for _ in range(80):
        if not queue.length(lane):
            queue.join(lane, 0)
        turns += queue.lanes(1) == [lane]
    assert turns <= 80 * SHARES[lane] + 1.5


def test_one_who_comes_now_and_then_is_served_at_the_next_turn_or_the_one_after(queue: Queue) -> None:
    queue.fill(1, 400)
    for _ in range(50):
        queue.join(0, 1_000)
        assert 0 in queue.lanes(2)
        queue.lanes(3)


def test_three_lanes_have_their_shares_too() -> None:
    queue = Queue((0.5, 0.3, 0.2))
    for lane in range(3):
        queue.fill(lane, 100)
    turns = queue.lanes(100)
    assert [turns.count(lane) for lane in range(3)] == pytest.approx([50, 30, 20], abs=1)
    queue.drain()
    queue.fill(0, 100)
    queue.fill(2, 100)
    turns = queue.lanes(70)
    assert [turns.count(0), turns.count(2)] == pytest.approx([50, 20], abs=1)


# ------------------------------------------------------------------ leaving


def test_one_who_leaves_has_left_once_and_is_not_served(queue: Queue) -> None:
    places = [queue.join(0, since) for since in (3, 1, 2, 1)]
    assert queue.remove(places[1])
    assert not queue.remove(places[1])
    assert (len(queue), queue.length(0)) == (3, 3)
    assert [queue.pop()[1:] for _ in range(3)] == [(1, 4), (2, 3), (3, 1)]
    assert not any(queue.remove(place) for place in places)


def test_leaving_costs_a_lane_no_turn(queue: Queue) -> None:
    queue.fill(0, 40)
    for place in [queue.join(1, since) for since in range(20)]:
        queue.remove(place)
    queue.fill(1, 20)
    assert queue.lanes(20).count(1) == 5


def test_a_place_in_one_lane_is_none_in_the_other(queue: Queue) -> None:
    place = queue.join(0, 7)
    assert not queue.remove(Place(1, place.order))
    assert len(queue) == 1


@given(st.lists(st.tuples(st.integers(0, 3), _lane, _since, st.integers(0, 100)), max_size=100))
def test_it_holds_whoever_joined_and_was_neither_served_nor_left(events: list[tuple[int, int, int, int]]) -> None:
    queue = Queue()
    waiting: dict[Place, Item] = {}
    gone: list[Place] = []
    for what, lane, since, choice in events:
        if what < 2:
            place = queue.join(lane, since)
            waiting[place] = (lane, since, queue.pushed)
        elif what == 2 and waiting:
            item = queue.pop()
            assert item == min(other for other in waiting.values() if other[0] == item[0])
            gone += [place for place, other in waiting.items() if other == item]
            del waiting[gone[-1]]
        elif waiting:
            place = list(waiting)[choice % len(waiting)]
            assert queue.remove(place)
            del waiting[place]
            gone.append(place)
        assert not any(queue.remove(place) for place in gone)
        assert [queue.length(lane) for lane in (0, 1)] == [
            sum(item[0] == lane for item in waiting.values()) for lane in (0, 1)
        ]
        assert len(queue) == len(waiting)
    assert sorted(queue.drain()) == sorted(waiting.values())
    assert (len(queue), queue.length(0), queue.length(1)) == (0, 0, 0)


def test_what_is_drained_is_handed_over_whole_and_others_may_join_after_it(queue: Queue) -> None:
    places = [queue.join(0, 2), queue.join(1, 3), queue.join(0, 1)]
    assert sorted(queue.drain()) == [(0, 1, 3), (0, 2, 1), (1, 3, 2)]
    assert not any(queue.remove(place) for place in places)
    queue.join(1, 0)
    assert queue.pop() == (1, 0, 4)


def test_everybody_who_waits_can_be_looked_at_and_taken_out_by_the_place(queue: Queue) -> None:
    places = {queue.join(lane, since): (lane, since) for lane, since in [(0, 3), (1, 1), (0, 1), (1, 1)]}
    assert {place: item[:2] for place, item in queue.items()} == places
    assert all(queue.remove(place) for place, _ in queue.items())
    assert queue.items() == []


def test_one_who_is_served_and_leaves_at_the_same_moment_does_either() -> None:
    """One thread takes turns, another joins and leaves, and they change places as often as they can."""
    queue, served, left, is_over = Queue(), [], [], threading.Event()

    def serve() -> None:
        while not is_over.is_set() or queue:
            with contextlib.suppress(IndexError):
                served.append(queue.pop())

    interval_s = sys.getswitchinterval()
    server = threading.Thread(target=serve)
    sys.setswitchinterval(1e-6)
    try:
        server.start()
        for number in range(1, 8_001):
            lane = number % 2
            if queue.remove(queue.join(lane, -number)):
                left.append((lane, -number, number))
    finally:
        is_over.set()
        server.join()
        sys.setswitchinterval(interval_s)
    assert sorted([*served, *left], key=lambda item: item[2]) == [(n % 2, -n, n) for n in range(1, 8_001)]
    assert len(queue) == 0


# ------------------------------------------------------------------ how many go before


def really_before(queue: Queue, lane: int, since: int) -> tuple[int, int]:
    """How many of its own lane and of others are served before one that joins now."""
    queue.join(lane, since)
    own = others = 0
    while (item := queue.pop()) != (lane, since, queue.pushed):
        own += item[0] == lane
        others += item[0] != lane
    return own, others


@given(_past, _shares, _lane, _since, st.sampled_from([0, 3, 200]))
def test_how_many_go_before_is_what_really_happens_to_a_turn_of_each_lane(
    past: list[tuple[int, int] | None], shares: tuple[float, float], lane: int, since: int, others_more: int
) -> None:
    queue = with_past(past, shares)
    queue.fill(1 - lane, others_more)
    told = queue.before(lane, since)
    assert queue.before(lane, since) == told  # asking changes nothing
    others_wait = queue.length(1 - lane)
    own, others = really_before(queue, lane, since)
    each_s = (1 - shares[lane]) / shares[lane]  # turns of the other lane for one of this
    told_others = told - own
    assert -SLACK <= told_others <= others_wait + SLACK
    assert others - 1 - SLACK <= told_others <= others + each_s + 1 + SLACK


@given(_joins, _lane, _since)
def test_in_a_lane_that_is_alone_it_is_exact(joins: list[tuple[int, int]], lane: int, since: int) -> None:
    queue = with_past([(lane, other_since) for _, other_since in joins])
    told = queue.before(lane, since)
    assert really_before(queue, lane, since) == (told, 0)


def test_whoever_came_at_the_same_moment_and_joined_before_goes_before(queue: Queue) -> None:
    for since in (5, 5, 6):
        queue.join(0, since)
    assert [queue.before(0, since) for since in (4, 5, 6, 7)] == [0, 2, 3, 3]


def test_nobody_goes_before_the_only_one(queue: Queue) -> None:
    assert queue.before(0, 0) == queue.before(1, 1 << 62) == 0


def test_items_are_never_compared(queue: Queue) -> None:
    things: FairQueue[Any] = FairQueue(SHARES)
    for _ in range(3):
        things.push(0, 1, object())
    assert things.before(0, 1) == 3
    assert len(things.drain()) == 3
