"""The circuit breaker against a model that remembers everything."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastauth.domain.breaker import Breaker, BreakerRules, Outcome, RetryBudget

RULES = BreakerRules(window_s=10, min_calls=4, failure_rate=0.5, timeouts_in_a_row=3, open_s=5)


def opened(now_s: float = 100.0) -> Breaker:
    breaker = Breaker(RULES)
    for _ in range(4):
        generation = breaker.admit(now_s)
        assert generation is not None
        breaker.settle(generation, "failure", now_s)
    assert breaker.state == "open"
    return breaker


class TestClosed:
    def test_it_opens_at_the_rate_and_not_before_the_least_number_of_calls(self) -> None:
        breaker = Breaker(RULES)
        for outcome in ("failure", "success", "failure"):
            breaker.settle(breaker.generation, outcome, 1.0)
        assert str(breaker.state) == "closed"
        breaker.settle(breaker.generation, "failure", 1.0)
        assert breaker.state == "open"

    def test_a_success_never_opens_it(self) -> None:
        breaker = Breaker(RULES)
        for outcome in ("failure", "failure", "failure", "success"):
            breaker.settle(breaker.generation, outcome, 1.0)
        assert breaker.state == "closed"

    def test_failures_are_forgotten_with_the_window(self) -> None:
        breaker = Breaker(RULES)
        for now_s in (1.0, 1.0, 1.0, 12.1):
            breaker.settle(breaker.generation, "failure", now_s)
        assert breaker.state == "closed"

    def test_timeouts_in_a_row_open_it_however_far_apart_they_are(self) -> None:
        breaker = Breaker(RULES)
        for now_s in (0.0, 1000.0, 2000.0):
            assert breaker.state == "closed"
            breaker.settle(breaker.generation, "timeout", now_s)
        assert breaker.state == "open"

    def test_an_answer_between_two_timeouts_ends_the_row(self) -> None:
        breaker = Breaker(RULES)
        for number, outcome in enumerate(("timeout", "timeout", "success", "timeout", "timeout")):
            breaker.settle(breaker.generation, outcome, number * 100.0)  # type: ignore[arg-type]
        assert breaker.state == "closed"

    def test_who_leaves_says_nothing(self) -> None:
        breaker = Breaker(RULES)
        for _ in range(100):
            breaker.settle(breaker.generation, "neutral", 1.0)
        assert breaker.state == "closed"


class TestOpen:
    def test_nothing_is_admitted_until_its_time_is_over(self) -> None:
        breaker = opened(100.0)
        assert breaker.admit(104.9) is None
        assert 0 < breaker.retry_after_s(104.9) < 0.2
        assert breaker.admit(105.0) is not None

    def test_outcomes_of_calls_from_before_count_for_nothing(self) -> None:
        breaker = Breaker(RULES)
        old = breaker.generation
        for _ in range(4):
            breaker.settle(old, "failure", 100.0)
        breaker.settle(old, "success", 101.0)
        assert str(breaker.state) == "open"
        breaker.admit(105.0)
        breaker.settle(old, "success", 105.0)
        assert breaker.state == "half_open"


class TestHalfOpen:
    def test_one_of_twenty_is_admitted(self) -> None:
        breaker = opened(100.0)
        assert [breaker.admit(105.0) is not None for _ in range(20)] == [True] + [False] * 19

    def test_its_success_closes_and_its_failure_opens_for_as_long_again(self) -> None:
        breaker = opened(100.0)
        probe = breaker.admit(105.0)
        assert probe is not None
        breaker.settle(probe, "timeout", 106.0)
        assert breaker.admit(110.9) is None
        probe = breaker.admit(111.0)
        assert probe is not None
        breaker.settle(probe, "success", 111.0)
        assert breaker.state == "closed"

    def test_a_probe_whose_caller_leaves_hands_its_place_on(self) -> None:
        breaker = opened(100.0)
        probe = breaker.admit(105.0)
        assert probe is not None
        breaker.settle(probe, "neutral", 105.0)
        assert breaker.state == "half_open"
        assert breaker.admit(105.0) is not None
        assert breaker.admit(105.0) is None


class AgainstTheModel(RuleBasedStateMachine):
    """The model keeps every outcome with its time and counts them anew each time."""

    @initialize()
    def begin(self) -> None:
        self.breaker = Breaker(RULES)
        self.now = 0
        self.calls: list[int] = []
        self.state, self.opened, self.probing, self.generation = "closed", 0, False, 1
        self.outcomes: list[tuple[int, Outcome]] = []

    @rule(seconds=st.integers(0, 12))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        if self.state == "open" and self.now - self.opened >= RULES.open_s:
            self.enter("half_open")
        may = self.state == "closed" or (self.state == "half_open" and not self.probing)
        self.probing = self.probing or (may and self.state == "half_open")
        generation = self.breaker.admit(self.now)
        assert (generation is not None) == may
        if generation is not None:
            assert generation == self.generation
            self.calls.append(generation)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), outcome=st.sampled_from(["success", "failure", "timeout", "neutral"]))
    def end(self, data: st.DataObject, outcome: Outcome) -> None:
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        self.breaker.settle(call, outcome, self.now)
        if call != self.generation:
            return
        if self.state == "half_open":
            self.probing = False
            if outcome != "neutral":
                self.enter("closed" if outcome == "success" else "open")
        elif self.state == "closed" and outcome != "neutral":
            self.outcomes.append((self.now, outcome))
            recent = [one for when, one in self.outcomes if when > self.now - 10]
            failures = sum(one != "success" for one in recent)
            row = [one for _, one in self.outcomes[-3:]] == ["timeout"] * 3
            if row or (outcome != "success" and len(recent) >= 4 and failures >= len(recent) / 2):
                self.enter("open")

    def enter(self, state: str) -> None:
        self.state, self.opened, self.probing, self.outcomes = state, self.now, False, []
        self.generation += 1

    @invariant()
    def they_agree(self) -> None:
        if hasattr(self, "breaker"):
            assert self.breaker.state == self.state
            assert self.breaker.generation == self.generation


AgainstTheModel.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestAgainstTheModel = AgainstTheModel.TestCase


def test_retries_are_a_tenth_of_the_calls_and_a_few_at_once() -> None:
    budget = RetryBudget()
    assert [budget.spend() for _ in range(7)] == [True] * 5 + [False] * 2
    spent = 0
    for _ in range(1_000):
        budget.earn()
        spent += budget.spend()
    assert spent == 100
