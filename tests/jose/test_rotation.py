"""The life of a signing key as arithmetic: every boundary, and every history that operators and clocks can make."""

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastauth.jose.rotation import (
    KNOWN_AFTER_MS,
    LONGEST_TOKEN_LIFE_S,
    NODE_SKEW_S,
    REMOVED_AFTER_MS,
    KeyLife,
    RotationRefused,
    State,
    activation_ms,
    active_kid,
    compromise_plan,
    is_rotation_due,
    lives_of,
    next_change_ms,
    removal_ms,
    waiting_key,
)
from tests.cases import each

AHEAD_S = 362
AHEAD_MS = AHEAD_S * 1000
KEPT_MS = (LONGEST_TOKEN_LIFE_S + NODE_SKEW_S) * 1000
ERASED_MS = 2 * NODE_SKEW_S * 1000
T = 1_800_000_000_000


class Key(NamedTuple):
    kid: str
    activates_ms: int
    removes_ms: int | None = None
    alg: str = "RS256"


def states(keys: list[Key], now_ms: int) -> dict[str, State]:
    return {life.kid: life.state_at(now_ms) for life in lives_of(keys, now_ms)}


def due(keys: list[Key], now_ms: int, **changes: Any) -> bool:
    wanted = {"alg": "RS256", "period_s": 1_000, "publish_ahead_s": 100, **changes}
    return is_rotation_due(lives_of(keys, now_ms), now_ms, **wanted)


# ------------------------------------------------------------------ states, to the millisecond


@each(
    ("now_ms", "expected"),
    [
        (T, ("active", "next")),
        (T + AHEAD_MS - 1, ("active", "next")),
        (T + AHEAD_MS, ("retired", "active")),
        (T + AHEAD_MS + KEPT_MS - 1, ("retired", "active")),
        (T + AHEAD_MS + KEPT_MS, ("removed", "active")),
        (T + 10**15, ("removed", "active")),
    ],
)
def test_a_key_waits_signs_verifies_and_goes(now_ms: int, expected: tuple[State, State]) -> None:
    assert states([Key("b", T + AHEAD_MS), Key("a", T - 5)], now_ms) == dict(zip("ab", expected, strict=True))


@each(
    ("now_ms", "expected"),
    [
        (T, ("active", "next")),
        (T + KNOWN_AFTER_MS - 1, ("active", "next")),
        (T + KNOWN_AFTER_MS, ("retired", "active")),
        (T + REMOVED_AFTER_MS - 1, ("retired", "active")),
        (T + REMOVED_AFTER_MS, ("removed", "active")),
    ],
)
def test_a_compromised_key_goes_when_every_worker_signs_with_the_new_one(
    now_ms: int, expected: tuple[State, State]
) -> None:
    keys = [Key("a", T - 5, T + REMOVED_AFTER_MS), Key("b", T + KNOWN_AFTER_MS)]
    assert states(keys, now_ms) == dict(zip("ab", expected, strict=True))


def test_a_key_that_was_removed_before_it_signed_retires_nobody_and_stays_removed_when_the_clock_is_set_back() -> None:
    keys = [Key("a", T), Key("b", T + 1_000, T + 500), Key("c", T + 2_000)]
    for now_ms in (T, T + 499, T + 500, T + 1_000, T + 1_999):
        assert states(keys, now_ms) == {"a": "active", "b": "removed", "c": "next"}
    assert states(keys, T + 2_000) == {"a": "retired", "b": "removed", "c": "active"}


def test_of_two_keys_of_one_moment_the_greater_kid_signs() -> None:
    assert states([Key("b", T), Key("a", T)], T) == {"a": "retired", "b": "active"}


def test_the_first_key_signs_even_if_the_clock_stands_before_it() -> None:
    assert states([Key("a", T), Key("b", T + 1)], T - 10**12) == {"a": "active", "b": "next"}


def test_where_the_signing_key_is_removed_the_one_that_waits_signs_at_once_also_behind_older_keys() -> None:
    """As after two ``rotate --now`` within 750 ms; it once failed when a key had been removed in the usual course."""
    old, compromised, waiting = Key("0", T - 2 * KEPT_MS), Key("1", T - KEPT_MS - 1, T), Key("3", T + 200)
    assert states([old, compromised, Key("2", T + 100, T - 50), waiting], T) == {
        "0": "removed",
        "1": "removed",
        "2": "removed",
        "3": "active",
    }


def test_without_any_key_that_may_sign_the_refusal_says_what_to_run() -> None:
    for keys in ([], [Key("a", T, T + 1)]):
        with pytest.raises(RotationRefused, match="keys rotate --now"):
            active_kid(lives_of(keys, T + 1), T + 1)


def test_a_private_half_is_erased_when_no_node_however_late_its_clock_uses_it() -> None:
    life = KeyLife("a", "RS256", T, T + 1, T + 10)
    assert [life.is_erasable_at(T + 10 + ERASED_MS + offset) for offset in (-1, 0)] == [False, True]
    assert not KeyLife("a", "RS256", T, None, None).is_erasable_at(T + 10**15)


# ------------------------------------------------------------------ when to rotate


@each(
    ("at_ms", "is_due"),
    [(0, False), (899_999, False), (900_000, True), (10**12, True)],
)
def test_the_next_key_is_published_so_early_that_it_signs_when_the_period_is_over(at_ms: int, is_due: bool) -> None:
    assert due([Key("a", T)], T + at_ms) is is_due
    assert due([Key("a", T)], T + at_ms, period_s=None) is False


def test_another_algorithm_is_due_at_once_and_a_period_not_while_a_key_waits() -> None:
    assert due([Key("a", T)], T, alg="ES256")
    assert due([Key("a", T)], T, alg="ES256", period_s=None)
    for alg in ("RS256", "ES256", None):
        for other in ("RS256", "ES256"):
            waiting = [Key("a", T), Key("b", T + 950_000, alg=other)]
            assert due(waiting, T + 949_999, alg=alg) == (alg is not None and alg != other)
    assert due([Key("a", T), Key("b", T + 5)], T + 5, alg="ES256")
    assert not due([Key("a", T), Key("b", T + 5, alg="ES256")], T + 5, alg=None)
    assert due([], T)


def test_only_the_newest_key_that_waits_with_the_wanted_algorithm_counts_as_the_next() -> None:
    def waiting(keys: list[Key], now_ms: int, alg: str = "RS256") -> str | None:
        life = waiting_key(lives_of(keys, now_ms), now_ms, alg)
        return None if life is None else life.kid

    keys = [Key("a", T), Key("b", T + 100), Key("c", T + 200, alg="ES256")]
    assert waiting(keys, T) is None
    assert waiting(keys, T, "ES256") == "c"
    assert waiting(keys[:2], T) == "b"
    assert waiting(keys[:2], T + 100) is None
    assert waiting([Key("a", T), Key("b", T + 100, T + 50)], T) is None
    assert waiting([], T) is None


def test_a_new_key_signs_after_all_that_wait() -> None:
    assert activation_ms([Key("a", T)], T, AHEAD_S) == T + AHEAD_MS
    assert activation_ms([Key("a", T), Key("b", T + 10 * AHEAD_MS)], T, AHEAD_S) == T + 10 * AHEAD_MS + 1
    assert activation_ms([Key("a", T), Key("b", T + 10 * AHEAD_MS, T)], T, AHEAD_S) == T + AHEAD_MS
    assert activation_ms([], T, AHEAD_S) == T + AHEAD_MS


def test_the_compromise_plan_removes_every_key_and_leaves_earlier_removals_alone() -> None:
    keys = [
        Key("gone", T - 3 * KEPT_MS),
        Key("going", T - KEPT_MS - 100, T + 200),
        Key("retired", T - 50),
        Key("active", T - 10),
        Key("next", T + 10),
    ]
    activates_ms, removals = compromise_plan(keys, T)
    assert activates_ms == T + KNOWN_AFTER_MS
    assert removals == {"retired": T + REMOVED_AFTER_MS, "active": T + REMOVED_AFTER_MS, "next": T}


# ------------------------------------------------------------------ what may be removed


RETIRED_ACTIVE_NEXT = [Key("gone", 0), Key("old", T - KEPT_MS), Key("now", T), Key("new", T + 100)]


@each(
    ("kid", "at_once", "words"),
    [
        ("", False, "no key of this kid; fastauth keys list"),
        ("NOW", True, "no key of this kid"),
        ("now", False, "this key signs; run fastauth keys rotate"),
        ("now", True, "this key signs; run fastauth keys rotate"),
        ("old", False, "may still be alive.*fastauth keys retire KID --now"),
    ],
)
def test_a_key_in_use_is_not_removed_and_the_refusal_says_what_to_do(kid: str, at_once: bool, words: str) -> None:
    with pytest.raises(RotationRefused, match=words) as refusal:
        removal_ms(RETIRED_ACTIVE_NEXT, kid, T + 1, at_once=at_once)
    assert refusal.value.code == "rotation_refused"


@each(
    ("kid", "at_once", "expected"),
    [
        ("gone", False, None),
        ("gone", True, None),
        ("old", True, T + 1),
        ("new", False, T + 1),
        ("new", True, T + 1),
    ],
)
def test_a_key_that_nobody_needs_is_removed_at_once(kid: str, at_once: bool, expected: int | None) -> None:
    assert removal_ms(RETIRED_ACTIVE_NEXT, kid, T + 1, at_once=at_once) == expected


def test_the_heir_of_a_compromised_key_is_not_removed_because_nothing_could_sign_after_it() -> None:
    keys = [Key("a", T - 5, T + REMOVED_AFTER_MS), Key("b", T + KNOWN_AFTER_MS)]
    for at_once in (False, True):
        with pytest.raises(RotationRefused, match="no other would sign; run fastauth keys rotate --now"):
            removal_ms(keys, "b", T + 1, at_once=at_once)
    assert removal_ms([*keys, Key("c", T + AHEAD_MS)], "b", T + 1, at_once=False) == T + 1


# ------------------------------------------------------------------ every history


class History:
    """A ring and its clock, changed as ``SigningKeys`` changes it, and checked against what was promised."""

    def __init__(self) -> None:
        self.now_ms = T
        self.keys = [Key("k0", T)]
        self.published = {"k0": T}
        self.planned: set[str] = set()  # published ahead of time, by an ordinary rotation
        self.seen: dict[str, State] = {}

    def rotate(self, alg: str, ahead_s: int) -> None:
        if waiting_key(lives_of(self.keys, self.now_ms), self.now_ms, alg) is None:
            self.planned.add(self._add(activation_ms(self.keys, self.now_ms, ahead_s), alg))

    def rotate_now(self) -> None:
        activates_ms, removals = compromise_plan(self.keys, self.now_ms)
        self._remove(dict(removals))
        self._add(activates_ms, "RS256")

    def retire(self, index: int, at_once: bool) -> None:
        kid = f"k{index % len(self.keys)}"
        state = states(self.keys, self.now_ms)[kid]
        try:
            removes_ms = removal_ms(self.keys, kid, self.now_ms, at_once=at_once)
        except RotationRefused:
            assert state != "removed"
            return
        assert state == "next" or (state == "retired" and at_once) or removes_ms is None
        if removes_ms is not None:
            self._remove({kid: removes_ms})

    def _add(self, activates_ms: int, alg: str) -> str:
        kid = f"k{len(self.keys)}"
        self.keys.append(Key(kid, activates_ms, None, alg))
        self.published[kid] = self.now_ms
        return kid

    def _remove(self, removals: dict[str, int]) -> None:
        self.keys = [key._replace(removes_ms=removals.get(key.kid, key.removes_ms)) for key in self.keys]

    def pass_ms(self, passed_ms: int) -> None:
        """Let time pass, from each change that was foretold to the next; no other may happen in between."""
        end_ms = self.now_ms + passed_ms
        if passed_ms < 0:
            self.now_ms, self.seen = end_ms, {}
        while self.now_ms < end_ms:
            change_ms = next_change_ms(lives_of(self.keys, self.now_ms), self.now_ms)
            stop_ms = end_ms if change_ms is None else min(change_ms, end_ms)
            assert stop_ms > self.now_ms
            before = self.check()
            for part in (1, 2, 3):
                self.now_ms += (stop_ms - 1 - self.now_ms) * part // 3
                assert self.check() == before
            self.now_ms = stop_ms
        self.check()

    def check(self) -> list[tuple[str, State, bool]]:
        """What is promised of every moment; out: all that can be seen of the ring at this one."""
        lives = lives_of(self.keys, self.now_ms)
        now = states(self.keys, self.now_ms)
        assert list(now.values()).count("active") == 1, now
        signing = active_kid(lives, self.now_ms)
        assert now[signing] == "active"
        for kid, state in now.items():
            assert ORDER[state] >= ORDER[self.seen.get(kid, "next")], (kid, self.seen, now)
        self.seen = now
        return [(life.kid, now[life.kid], life.is_erasable_at(self.now_ms)) for life in lives]


ORDER: dict[State, int] = {"next": 0, "active": 1, "retired": 2, "removed": 3}
PASSAGES = st.one_of(
    st.integers(0, 3 * KNOWN_AFTER_MS),
    st.integers(0, 3 * AHEAD_MS),
    st.integers(0, 2 * KEPT_MS),
    st.sampled_from([1, KNOWN_AFTER_MS, REMOVED_AFTER_MS, AHEAD_MS - 1, AHEAD_MS, KEPT_MS, ERASED_MS]),
)
CHANGES = st.one_of(
    st.tuples(st.just("rotate"), st.sampled_from(["RS256", "ES256"]), st.sampled_from([1, AHEAD_S, 30 * 86_400])),
    st.tuples(st.just("rotate_now")),
    st.tuples(st.just("retire"), st.integers(0, 9), st.booleans()),
)
FORWARDS = st.lists(st.one_of(CHANGES, st.tuples(st.just("pass_ms"), PASSAGES)), max_size=14)
BOTH_WAYS = st.lists(
    st.one_of(
        CHANGES,
        st.tuples(st.just("pass_ms"), PASSAGES),
        st.tuples(st.just("pass_ms"), PASSAGES.map(lambda passed_ms: -passed_ms)),
    ),
    max_size=14,
)


@given(steps=FORWARDS)
def test_whatever_operators_do_one_key_signs_it_was_published_long_enough_and_its_tokens_outlive_it(
    steps: list[tuple[Any, ...]],
) -> None:
    history = History()
    signed_until: dict[str, int] = {}
    removed_by_hand: set[str] = set()
    for name, *arguments in [*steps, ("pass_ms", AHEAD_MS), ("pass_ms", 3 * KEPT_MS)]:
        before = {key.kid: key.removes_ms for key in history.keys}
        getattr(history, name)(*arguments)
        after = {life.kid: life for life in lives_of(history.keys, history.now_ms)}
        now = history.check()
        removed_by_hand |= {key.kid for key in history.keys if key.removes_ms != before.get(key.kid)}
        for kid, state, _ in now:
            life = after[kid]
            if state == "active" and kid in history.planned:
                # also behind a compromise: that one removes every key that waits
                assert history.published[kid] + 1_000 <= life.activates_ms <= history.now_ms
            if state == "retired" and life.retires_ms is not None:
                signed_until[kid] = life.retires_ms
            if state == "removed" and kid not in removed_by_hand:
                assert history.now_ms >= signed_until.get(kid, 0) + LONGEST_TOKEN_LIFE_S * 1000
    for kid, life in after.items():
        if kid in signed_until and kid not in removed_by_hand:
            assert life.retires_ms is not None
            assert life.removes_ms == life.retires_ms + KEPT_MS


@given(steps=BOTH_WAYS)
def test_also_where_the_clock_is_set_back_one_key_signs_and_no_change_goes_unforetold(
    steps: list[tuple[Any, ...]],
) -> None:
    history = History()
    for name, *arguments in steps:
        getattr(history, name)(*arguments)
        history.check()
    history.pass_ms(3 * KEPT_MS)


@given(steps=BOTH_WAYS, ahead_s=st.sampled_from([1, AHEAD_S]))
def test_a_planned_key_never_signs_before_its_time_by_any_clock_unless_the_one_before_it_was_removed(
    steps: list[tuple[Any, ...]], ahead_s: int
) -> None:
    history = History()
    for name, *arguments in [*steps, ("rotate", "RS256", ahead_s)]:
        getattr(history, name)(*arguments)
        kid = active_kid(lives_of(history.keys, history.now_ms), history.now_ms)
        key = next(key for key in history.keys if key.kid == kid)
        if kid in history.planned and all(other.removes_ms is None for other in history.keys):
            assert history.now_ms >= key.activates_ms >= history.published[kid] + 1_000


@given(steps=BOTH_WAYS)
def test_rotations_by_the_schedule_add_at_most_one_key_at_a_time(steps: list[tuple[Any, ...]]) -> None:
    history = History()
    for name, *arguments in steps:
        getattr(history, name)(*arguments)
    for alg in ("RS256", "ES256"):  # two nodes that want different ones
        added = 0
        while due(history.keys, history.now_ms, alg=alg):
            history.rotate(alg, 100)
            added += 1
        assert added <= 1


def test_a_life_compares_by_value_and_cannot_be_changed() -> None:
    life = KeyLife("a", "RS256", T, None, None)
    assert life == msgspec.structs.replace(life)
    with pytest.raises(AttributeError):
        life.kid = "b"  # type: ignore[misc]
