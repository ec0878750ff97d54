"""The seen-token cache: the compiled one does exactly as its twin, and floods, crowds and threads get nothing by it."""

import contextlib
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastauth import _core, _core_py
from tests.cases import each
from tests.integration.running import FULL
from tests.twins.comparing import outcome
from tests.twins.strategies import EXAMPLES, HIGH, ODD_VALUES, Choices

Cache = _core.SeenTokens | _core_py.SeenTokens
Make = Callable[[int, Callable[[Any], bool]], Cache]

MAKES: Final[tuple[Make, ...]] = (_core.SeenTokens, _core_py.SeenTokens)
both = pytest.mark.parametrize("make", MAKES, ids=["compiled", "twin"])


def always(_value: Any) -> bool:
    """Nothing was revoked."""
    return True


def noting(asked: list[Any], answer: bool) -> Callable[[Any], bool]:
    """Always the same answer, and a note of what was asked about."""

    def is_still_good(value: Any) -> bool:
        asked.append(value)
        return answer

    return is_still_good


def put(seen: Cache, token: bytes, subject: str = "s", *, exp_s: int = 1_000, size: int = 10, now_s: int = 0) -> None:
    """Store a token, as its own value."""
    seen.put(token, token, subject, exp_s, size, seen.epoch, now_s)


def flood(
    seen: Cache, count: int, *, name: bytes = b"flood", exp_s: int = 1_000, size: int = 10, now_s: int = 0
) -> None:
    """Tokens that come once, each of another subject."""
    for number in range(count):
        put(seen, b"%b-%d" % (name, number), f"{name!r}{number}", exp_s=exp_s, size=size, now_s=now_s)


def held(seen: Cache, tokens: list[bytes], now_s: int = 0) -> list[bytes]:
    """Those of the tokens that are there."""
    return [token for token in tokens if seen.get(token, now_s) == token]


def assert_nothing_is_left(seen: Cache) -> None:
    """Once everything has expired, one put clears both queues: what is accounted for then is that one alone."""
    seen.put(b"the last", 1, "the last", 1 << 40, 1, seen.epoch, 1 << 39)
    assert (len(seen), seen.held_bytes) == (1, 1)


# ------------------------------------------------------------------ one does as the other

_TOKENS: Final = [b"t%d" % number for number in range(24)]
_SIZES: Final = (1, 5, 10, 10, 10, 11, 16, 17, 100)


class _Moody(Exception):
    """The callback failed."""


def _history(make: Make, data: bytes, operations: int) -> list[Any]:
    """What a cache did in a series of operations; every rule that always holds is checked at each step.

    A token that was condemned is refused by whoever verifies it; one whose verification began earlier may come in yet,
    with the epoch of then.
    """
    choices = Choices(data)
    condemned: set[bytes] = set()
    moody = False
    asked: list[Any] = []

    def is_still_good(value: Any) -> bool:
        asked.append(value)
        if moody:
            raise _Moody
        return value[0] not in condemned

    seen = make(choices.pick((0, 9, 100, 160, 320, 1_000, 2_000)), is_still_good)
    under_way: dict[bytes, int] = {}
    now_s, history = 0, []
    for number in range(operations):
        token, value = choices.pick(_TOKENS), None
        match choices.below(10):
            case 0 | 1 | 2 | 3:
                moody = choices.below(16) == 0
                with contextlib.suppress(_Moody):
                    value = seen.get(token, now_s)
                assert value is None or (value[0], value[1] > now_s, token in condemned) == (token, True, False)
            case 4 | 5 | 6 | 7:
                epoch = under_way.pop(token, seen.epoch if token not in condemned else None)
                if epoch is not None:
                    exp_s = now_s + choices.pick((0, 1, 5, 50, 50, 500))
                    seen.put(
                        token, (token, exp_s, number), choices.pick("stu"), exp_s, choices.pick(_SIZES), epoch, now_s
                    )
            case 8 if choices.below(8):
                if token not in condemned:
                    under_way[token] = seen.epoch
            case 8:
                condemned.add(token)
                seen.invalidate()
            case _:
                now_s += choices.pick((0, 0, 1, 1, 5, 50))
        assert 0 <= seen.held_bytes <= seen.capacity_bytes
        assert len(seen) <= seen.held_bytes
        history.append((value, len(seen), seen.held_bytes, seen.epoch, tuple(asked)[-3:], len(asked)))
    if seen.capacity_bytes >= 10:
        assert_nothing_is_left(seen)
    return history


@settings(max_examples=EXAMPLES // 40)
@given(st.binary(min_size=400, max_size=400))
def test_after_every_operation_the_compiled_cache_is_as_the_twin(data: bytes) -> None:
    assert _history(_core.SeenTokens, data, 90) == _history(_core_py.SeenTokens, data, 90)


def test_after_thousands_of_operations_too() -> None:
    for seed in range(200 if FULL else 4):
        data = random.Random(seed).randbytes(6_000)
        assert _history(_core.SeenTokens, data, 1_000) == _history(_core_py.SeenTokens, data, 1_000), seed


# ------------------------------------------------------------------ what is served


@both
def test_a_token_is_served_until_it_expires_and_not_in_that_second(make: Make) -> None:
    seen = make(1_000, always)
    put(seen, b"t", exp_s=100)
    assert (seen.get(b"t", 99), seen.get(b"t", 100), len(seen)) == (b"t", None, 0)
    put(seen, b"t", exp_s=100, now_s=99)
    assert seen.get(b"t", 101) is None
    put(seen, b"u", exp_s=HIGH, now_s=HIGH - 1)
    assert (seen.get(b"u", HIGH - 1), seen.get(b"u", HIGH)) == (b"u", None)


@both
def test_a_token_is_found_by_its_very_bytes(make: Make) -> None:
    seen = make(1_000, always)
    put(seen, b"token")
    for other in (b"", b"toke", b"token ", b"Token", b"token\0", "token", 5, None):
        assert seen.get(other, 0) is None  # type: ignore[arg-type]
    for unhashable in (bytearray(b"token"), [b"token"]):
        with pytest.raises(TypeError, match="unhashable"):
            seen.get(unhashable, 0)  # type: ignore[arg-type]


@both
def test_the_first_value_of_a_token_stays(make: Make) -> None:
    seen = make(1_000, always)
    for value in (1, 2):
        seen.put(b"t", value, "s", 100, 10, 0, 0)
    assert (seen.get(b"t", 0), seen.held_bytes) == (1, 10)


@both
def test_each_token_is_asked_about_exactly_once_after_something_changed(make: Make) -> None:
    asked: list[Any] = []
    seen = make(1_000, noting(asked, True))
    for token in (b"t", b"u"):
        put(seen, token)
    for _ in range(3):
        seen.get(b"t", 0)
    assert asked == []
    for _ in range(2):
        asked.clear()
        seen.invalidate()
        assert held(seen, [b"t", b"t", b"u", b"u"]) == [b"t", b"t", b"u", b"u"]
        assert asked == [b"t", b"u"]


@both
def test_a_token_whose_verification_began_before_the_change_is_asked_about(make: Make) -> None:
    asked: list[Any] = []
    seen = make(1_000, noting(asked, False))
    epoch = seen.epoch
    seen.invalidate()
    seen.put(b"t", b"t", "s", 100, 10, epoch, 0)
    assert (seen.get(b"t", 0), asked) == (None, [b"t"])


@both
def test_a_change_while_the_question_is_answered_leads_to_another_question(make: Make) -> None:
    asked: list[Any] = []

    def is_still_good(value: Any) -> bool:
        asked.append(value)
        if len(asked) < 3:
            seen.invalidate()
        return True

    seen = make(1_000, is_still_good)
    put(seen, b"t")
    seen.invalidate()
    for _ in range(5):
        assert seen.get(b"t", 0) == b"t"
    assert len(asked) == 3


@both
def test_a_token_that_is_no_longer_good_is_dropped_for_good(make: Make) -> None:
    asked: list[Any] = []
    seen = make(1_000, noting(asked, False))
    put(seen, b"t")
    seen.invalidate()
    assert [seen.get(b"t", 0) for _ in range(3)] == [None] * 3
    assert (asked, len(seen)) == ([b"t"], 0)


@both
def test_an_exception_of_the_question_comes_out_and_the_token_is_asked_about_again(make: Make) -> None:
    answers: Iterator[Any] = iter([ZeroDivisionError, KeyboardInterrupt, True])

    def is_still_good(_value: Any) -> bool:
        answer = next(answers)
        if answer is not True:
            raise answer
        return True

    seen = make(1_000, is_still_good)
    put(seen, b"t")
    seen.invalidate()
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error):
            seen.get(b"t", 0)
        assert (len(seen), seen.held_bytes) == (1, 10)
    assert [seen.get(b"t", 0) for _ in range(2)] == [b"t"] * 2
    assert_nothing_is_left(seen)


@both
def test_the_question_may_use_the_cache_itself(make: Make) -> None:
    def is_still_good(value: Any) -> bool:
        flood(seen, 300, name=value)
        assert seen.get(b"absent", 0) is None
        return seen.held_bytes <= 1_000

    seen = make(1_000, is_still_good)
    for token in (b"t", b"u"):
        put(seen, token)
    seen.invalidate()
    held(seen, [b"t", b"u", b"t"])
    assert_nothing_is_left(seen)


@both
def test_a_value_that_uses_the_cache_as_it_goes_breaks_nothing(make: Make) -> None:
    class Last:
        def __init__(self, number: int) -> None:
            self.number = number

        def __del__(self) -> None:
            if self.number < 500:
                seen.get(b"%d" % (self.number + 1), 0)
                seen.put(b"d%d" % self.number, None, "d", 100, 10, 0, 0)

    seen = make(1_000, always)
    for number in range(500):
        seen.put(b"%d" % number, Last(number), "s", 100, 10, 0, 0)
        assert seen.held_bytes <= 1_000
    seen.put(b"expired", None, "e", 0, 1, 0, 1 << 38)  # as these go, others come
    assert_nothing_is_left(seen)


# ------------------------------------------------------------------ what is kept


@both
def test_hot_tokens_outlive_a_flood_of_tokens_that_come_once(make: Make) -> None:
    seen = make(10_000, always)
    hot = [b"hot%d" % number for number in range(50)]
    for number, token in enumerate(hot):
        put(seen, token, f"s{number}")
    assert held(seen, hot) == hot
    flood(seen, 100_000 if FULL else 3_000)
    assert (held(seen, hot), seen.held_bytes) == (hot, 10_000)


@both
def test_one_subject_with_a_crowd_of_busy_tokens_pushes_out_nobody_elses(make: Make) -> None:
    """SECURITY case 101."""
    seen = make(16_000, always)
    others = [(b"o%d-%d" % (subject, number), f"o{subject}") for subject in range(40) for number in range(10)]
    for token, subject in others:
        put(seen, token, subject)
    tokens = [token for token, _ in others]
    assert held(seen, tokens) == tokens
    for number in range(50_000 if FULL else 3_000):
        token = b"crowd%d" % number
        put(seen, token, "crowd")
        assert [seen.get(token, 0) for _ in range(3)] == [token] * 3
    assert held(seen, tokens) == tokens
    flood(seen, 1_600, name=b"wave")  # the crowd's tokens on probation go: what stays are those that have settled
    flood(seen, 1_600, name=b"other wave")
    crowd = held(seen, [b"crowd%d" % number for number in range(50_000 if FULL else 3_000)])
    assert len(crowd) * 10 == 16_000 // 16
    assert held(seen, tokens) == tokens


@both
def test_a_token_that_comes_back_soon_after_it_was_pushed_out_settles(make: Make) -> None:
    seen = make(1_000, always)
    for number in range(101):
        put(seen, b"%d" % number, f"s{number}")
    assert seen.get(b"0", 0) is None
    put(seen, b"0")
    flood(seen, 1_000)
    assert seen.get(b"0", 0) == b"0"
    assert seen.get(b"50", 0) is None


@both
def test_a_ghost_is_forgotten_after_as_many_others_as_there_are_entries(make: Make) -> None:
    seen = make(1_000, always)
    put(seen, b"ghost")
    flood(seen, 1_000)
    put(seen, b"ghost")
    flood(seen, 1_000, name=b"more")
    assert seen.get(b"ghost", 0) is None


@both
def test_what_has_expired_makes_room_before_anything_that_lives(make: Make) -> None:
    seen = make(1_000, always)
    for number in range(100):
        put(seen, b"%d" % number, f"s{number}", exp_s=100 + number)
    put(seen, b"new", now_s=149)
    assert (seen.held_bytes, len(seen)) == (510, 51)
    assert len(held(seen, [b"%d" % number for number in range(50, 100)], 149)) == 50


@both
def test_a_token_of_more_than_a_tenth_of_the_room_is_not_kept(make: Make) -> None:
    for capacity in (10, 99, 100, 1_000):
        seen = make(capacity, always)
        put(seen, b"large", size=capacity // 10 + 1)
        put(seen, b"huge", size=HIGH)
        assert (len(seen), seen.held_bytes) == (0, 0)
        put(seen, b"just", size=capacity // 10)
        assert (len(seen), seen.held_bytes) == (1, capacity // 10)


@both
def test_without_room_nothing_is_kept(make: Make) -> None:
    for capacity in (0, 1, 9):
        seen = make(capacity, always)
        put(seen, b"t", size=1)
        assert (seen.get(b"t", 0), len(seen), seen.held_bytes, seen.capacity_bytes) == (None, 0, 0, capacity)


@both
def test_the_largest_room_is_counted_exactly(make: Make) -> None:
    largest = _core_py.MAX_CAPACITY_BYTES
    seen = make(largest, always)
    for number in range(30):
        put(seen, b"%d" % number, f"s{number}", size=largest // 10)
        assert 0 < seen.held_bytes <= largest
    assert len(seen) == 10
    assert_nothing_is_left(seen)


# ------------------------------------------------------------------ a subject's share


@both
def test_a_subject_settles_again_when_what_it_had_settled_has_expired(make: Make) -> None:
    seen = make(1_600, always)
    for round_number, now_s in enumerate((0, 100, 200)):
        busy = [b"%d-%d" % (round_number, number) for number in range(20)]
        for token in busy:
            put(seen, token, "busy", exp_s=now_s + 100, now_s=now_s)
        assert held(seen, busy, now_s) == busy
        flood(seen, 1_000, name=b"%d" % round_number, exp_s=now_s + 100, now_s=now_s)
        assert len(held(seen, busy, now_s)) == 10


@both
def test_a_subject_settles_again_when_what_it_had_settled_was_revoked(make: Make) -> None:
    bad: set[Any] = set()
    seen = make(1_600, lambda value: value not in bad)
    put(seen, b"front", "other")
    before, after = ([b"%b%d" % (name, number) for number in range(10)] for name in (b"before", b"after"))
    for tokens in (before, after):
        for token in tokens:
            put(seen, token, "busy")
        assert held(seen, [*tokens, b"front"]) == [*tokens, b"front"]
        flood(seen, 1_000, name=tokens[0])
        assert held(seen, tokens) == tokens
        bad.update(tokens)
        seen.invalidate()
        assert held(seen, tokens) == []


@both
def test_the_share_is_counted_in_bytes_and_each_subject_has_its_own(make: Make) -> None:
    seen = make(1_600, always)
    sizes = [(b"a", "s", 60), (b"b", "s", 40), (b"c", "s", 1), (b"d", "t", 100), (b"e", "u", 101)]
    for token, subject, size in sizes:
        put(seen, token, subject, size=size)
    assert len(held(seen, [token for token, _, _ in sizes])) == 5
    flood(seen, 1_000)
    assert held(seen, [token for token, _, _ in sizes]) == [b"a", b"b", b"d"]


# ------------------------------------------------------------------ accounts that somebody tries to break


@both
def test_a_token_that_comes_again_while_its_shell_is_in_the_queue_is_another(make: Make) -> None:
    bad: set[Any] = set()
    seen = make(1_000, lambda value: value not in bad)
    for round_number in range(5):  # five shells of one token, then the token
        seen.put(b"t", round_number, "s", 100, 10, seen.epoch, 0)
        bad.add(round_number)
        seen.invalidate()
        assert seen.get(b"t", 0) is None
        assert seen.held_bytes == 10  # the shell before it was at the front, and went
    put(seen, b"front")
    for round_number in range(5, 10):
        seen.put(b"t", round_number, "s", 100, 10, seen.epoch, 0)
        bad.add(round_number)
        seen.invalidate()
        assert seen.get(b"t", 0) is None
    assert (len(seen), seen.held_bytes) == (1, 60)
    seen.put(b"t", 99, "s", 100, 10, seen.epoch, 0)
    assert seen.get(b"t", 0) == 99
    flood(seen, 300)
    assert (seen.get(b"t", 0), seen.held_bytes) == (99, 1_000)
    assert_nothing_is_left(seen)


@both
def test_a_settled_token_that_is_dropped_and_comes_again_is_counted_once(make: Make) -> None:
    bad: set[Any] = set()
    seen = make(1_600, lambda value: value not in bad)
    for round_number in range(300):
        seen.put(b"t", round_number, "s", 1_000, 10, seen.epoch, 0)
        seen.get(b"t", 0)
        flood(seen, 10, name=b"%d" % round_number)
        bad.add(round_number)
        seen.invalidate()
        assert seen.get(b"t", 0) is None
        assert seen.held_bytes <= 1_600
    assert_nothing_is_left(seen)


@both
def test_tokens_dropped_by_a_get_after_their_end_leave_the_accounts_in_order(make: Make) -> None:
    seen = make(1_600, always)
    for now_s in range(0, 400, 2):
        for number in range(8):
            put(seen, b"%d-%d" % (now_s, number), f"s{number}", exp_s=now_s + 1 + number, size=1 + number, now_s=now_s)
            seen.get(b"%d-%d" % (now_s, number), now_s)
            seen.get(b"%d-%d" % (now_s, number), now_s + 1 + number % 3)
        assert seen.held_bytes <= 1_600
    assert_nothing_is_left(seen)


@both
def test_a_clock_that_jumps_changes_nothing_but_what_is_served(make: Make) -> None:
    seen = make(1_000, always)
    rng = random.Random(5)
    for number in range(2_000):
        now_s = rng.choice((0, 10, 1_000_000, -5, HIGH - 1, -HIGH))
        put(seen, b"%d" % (number % 150), f"s{number % 7}", exp_s=now_s + 1, now_s=now_s)
        seen.get(b"%d" % rng.randrange(150), rng.choice((0, 10, 1_000_000)))
        assert seen.held_bytes <= 1_000
    seen.put(b"the end", 1, "s", HIGH, 1, 0, HIGH)
    assert (len(seen), seen.held_bytes) == (1, 1)


# ------------------------------------------------------------------ the time that a put takes


def _ten_thousand_settled(make: Make) -> tuple[Cache, int, int]:
    """A full cache, ten thousand of its tokens settled and used three times each; the gets and puts that made it."""
    seen = make(1_000_000, always)
    tokens = [b"%d" % number for number in range(11_111)]
    for number, token in enumerate(tokens):
        put(seen, token, f"s{number % 100}", size=90)
    assert held(seen, tokens) == tokens
    put(seen, b"the first beyond", size=90)
    for _ in range(3):
        assert len(held(seen, tokens)) > 11_000
    return seen, 4 * len(tokens), len(tokens) + 1


def test_steps_are_paid_for_by_the_gets_and_puts_before_them() -> None:
    steps = 0

    class Counted(_core_py.SeenTokens):
        def _evict_one(self) -> None:
            nonlocal steps
            steps += 1
            super()._evict_one()

    seen, gets, puts = _ten_thousand_settled(Counted)
    flood(seen, 2_000, size=90)
    assert steps <= gets + 2 * (puts + 2_000)
    assert steps > 10_000  # or nothing was put to the test
    before = steps
    flood(seen, 1_000, name=b"more", size=90)
    assert steps - before <= 2_000


@both
def test_a_put_among_ten_thousand_settled_tokens_in_use_ends_soon(make: Make) -> None:
    seen, _, _ = _ten_thousand_settled(make)
    worst_s, started = 0.0, time.perf_counter()
    for number in range(1_000):
        before = time.perf_counter()
        put(seen, b"new%d" % number, f"n{number}", size=90)
        worst_s = max(worst_s, time.perf_counter() - before)
    assert worst_s < 0.25
    assert time.perf_counter() - started < 0.5


# ------------------------------------------------------------------ threads


@pytest.fixture
def hasty_switches() -> Iterator[None]:
    """Threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@both
@pytest.mark.usefixtures("hasty_switches")
def test_eight_threads_at_once_leave_the_accounts_in_order(make: Make) -> None:
    def is_still_good(value: Any) -> bool:
        return bool(value[1] % 3)  # a TypeError for a value that is gone

    seen = make(2_000, is_still_good)

    def work(seed: int) -> int:
        rng, served = random.Random(seed), 0
        for number in range(20_000 if FULL else 1_200):
            token, now_s = b"%d" % rng.randrange(300), number // 50
            kind = rng.random()
            if kind < 0.5:
                value = seen.get(token, now_s)
                assert value is None or value[0] == token
                served += value is not None
            elif kind < 0.95:
                exp_s = now_s + rng.randrange(20)
                value = (token, number)
                seen.put(token, value, f"s{number % 9}", exp_s, rng.randrange(1, 30), seen.epoch, now_s)
            else:
                seen.invalidate()
            assert seen.held_bytes <= 2_000 + 8 * 30  # another thread may stand between its two steps
        return served

    with ThreadPoolExecutor(8) as threads:
        assert min(threads.map(work, range(8))) > 0
    assert seen.held_bytes <= 2_000
    assert_nothing_is_left(seen)


def test_a_token_that_another_thread_drops_at_the_wrong_moment_is_not_there_and_nobody_is_asked_about_nothing() -> None:
    asked: list[Any] = []
    seen = _core_py.SeenTokens(1_000, noting(asked, False))

    class Interrupted(dict[bytes, Any]):
        """Between the look-up and what follows, another thread looks up the same token."""

        def get(self, token: bytes, default: Any = None) -> Any:
            entry = super().get(token, default)
            if seen._entries is self:
                seen._entries = plain
                assert seen.get(token, 0) is None
            return entry

    put(seen, b"t")
    seen.invalidate()
    plain = seen._entries
    seen._entries = Interrupted(plain)
    assert seen.get(b"t", 0) is None
    assert set(asked) == {b"t"}


# ------------------------------------------------------------------ wrong arguments


@both
@each(
    ("capacity", "error"),
    [
        *((value, TypeError) for value in (True, 1.0, None, "1")),
        *((value, ValueError) for value in (-1, -HIGH, _core_py.MAX_CAPACITY_BYTES + 1, HIGH)),
        (HIGH + 1, OverflowError),
    ],
)
def test_a_capacity_that_is_no_number_of_bytes_is_refused(make: Make, capacity: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make(capacity, always)


@both
def test_wrong_arguments_are_refused_and_change_nothing(make: Make) -> None:
    seen = make(1_000, always)
    good: list[Any] = [b"t", 1, "s", 100, 10, 0, 0]
    wrong: list[tuple[int, type[Exception], tuple[Any, ...]]] = [
        (0, TypeError, ("t", bytearray(b"t"), None, type("B", (bytes,), {})(b"t"))),
        (2, TypeError, (b"s", None, 5, type("S", (str,), {})("s"))),
        *((place, TypeError, ("1", 1.0, True, None)) for place in (3, 4, 5, 6)),
        *((place, OverflowError, (HIGH + 1, -HIGH - 2)) for place in (3, 4, 5, 6)),
        (4, ValueError, (0, -1, -HIGH)),
    ]
    for place, error, values in wrong:
        for value in values:
            with pytest.raises(error):
                seen.put(*[*good[:place], value, *good[place + 1 :]])
    odd_times: tuple[Any, ...] = ("1", 1.0, True, None)
    for now_s in odd_times:
        with pytest.raises(TypeError):
            seen.get(b"t", now_s)
    assert (len(seen), seen.held_bytes) == (0, 0)


def test_an_odd_argument_gets_the_same_answer_from_both() -> None:
    good: list[Any] = [b"t", 1, "s", 100, 10, 0, 0]
    for place in range(7):
        for value in (*ODD_VALUES, bytearray(b"t"), type("B", (bytes,), {})(b"t"), "s"):
            arguments = [*good[:place], value, *good[place + 1 :]]
            one, other = (make(1_000, always) for make in MAKES)
            assert outcome(one.put, *arguments) == outcome(other.put, *arguments)
            assert (len(one), one.held_bytes) == (len(other), other.held_bytes)
            assert outcome(one.get, b"t", 0) == outcome(other.get, b"t", 0)
    for capacity in ODD_VALUES:
        made = [outcome(make, capacity, always)[0] for make in MAKES]
        assert made[0] == made[1]
