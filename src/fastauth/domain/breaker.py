"""The circuit breaker: when to stop asking a dependency that fails, and when to try it again.

Closed, every call is made and its outcome counted. Open, none is made: who asks is told at once. Half-open, after a
while, ONE call is made to find out; it closes the circuit or opens it again. Each change of state begins a new
generation, and outcomes of calls that began in an earlier one count for nothing: what a call says that began before the
trouble says nothing about now.
"""

from typing import Annotated, Final, Literal

import msgspec

State = Literal["closed", "half_open", "open"]
# "neutral" says nothing about the dependency: whoever asked has left, or this process was too late itself.
Outcome = Literal["success", "failure", "timeout", "neutral"]

_SLICES: Final = 10


class BreakerRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a circuit opens: at ``failure_rate`` of the calls of the last ``window_s``, if they were ``min_calls`` at
    least, or after ``timeouts_in_a_row``. After ``open_s`` it is half-open. Times in seconds.
    """

    window_s: Annotated[float, msgspec.Meta(ge=1, le=600)] = 10.0
    min_calls: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10
    failure_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    timeouts_in_a_row: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 5
    open_s: Annotated[float, msgspec.Meta(ge=0.1, le=600)] = 5.0


class Breaker:
    """The state machine. Every ``now_s`` is of one monotonic clock."""

    __slots__ = (
        "_failures",
        "_is_probing",
        "_opened_s",
        "_slice",
        "_timeouts",
        "_totals",
        "generation",
        "rules",
        "state",
    )

    def __init__(self, rules: BreakerRules) -> None:
        self.rules = rules
        self.generation = 0
        self._enter("closed")

    def _enter(self, state: State) -> None:
        self.state: State = state
        self.generation += 1
        self._is_probing: bool = False
        self._timeouts: int = 0
        self._slice: int = 0
        self._totals: list[int] = [0] * _SLICES
        self._failures: list[int] = [0] * _SLICES
        self._opened_s: float = 0.0

    def admit(self, now_s: float) -> int | None:
        """Whether a call may be made now. Out: the generation, to be handed to ``settle`` once; None for no."""
        if self.state == "closed":
            return self.generation
        if self.state == "open":
            if self.retry_after_s(now_s) > 0:
                return None
            self._enter("half_open")
        if self._is_probing:
            return None
        self._is_probing = True
        return self.generation

    def settle(self, generation: int, outcome: Outcome, now_s: float) -> None:
        """The call of that generation has ended."""
        if generation != self.generation:
            return
        if self.state == "half_open":
            self._is_probing = False
            if outcome == "success":
                self._enter("closed")
            elif outcome != "neutral":
                self._open(now_s)
        elif outcome != "neutral" and self._is_too_much(outcome, now_s):
            self._open(now_s)

    def retry_after_s(self, now_s: float) -> float:
        """How long until a call may be made; 0 when one may be made now, as far as time is concerned."""
        if self.state != "open":
            return 0.0
        return max(0.0, self._opened_s + self.rules.open_s - now_s)

    def _is_too_much(self, outcome: Outcome, now_s: float) -> bool:
        self._timeouts = self._timeouts + 1 if outcome == "timeout" else 0
        self._advance(now_s)
        self._totals[-1] += 1
        self._failures[-1] += outcome != "success"
        if self._timeouts >= self.rules.timeouts_in_a_row:
            return True
        if outcome == "success":
            return False
        total = sum(self._totals)
        return total >= self.rules.min_calls and sum(self._failures) >= self.rules.failure_rate * total

    def _advance(self, now_s: float) -> None:
        """The window slides by a tenth of itself at a time."""
        current = int(now_s * _SLICES / self.rules.window_s)
        for _ in range(min(current - self._slice, _SLICES)):
            self._totals = [*self._totals[1:], 0]
            self._failures = [*self._failures[1:], 0]
        self._slice = max(current, self._slice)

    def _open(self, now_s: float) -> None:
        self._enter("open")
        self._opened_s = now_s


class RetryBudget:
    """Retries are at most a tenth of the calls, and a few in a burst: they must not become the load themselves."""

    __slots__ = ("_tenths",)

    SHARE: Final = 10  # one retry for so many calls
    BURST: Final = 5

    def __init__(self) -> None:
        self._tenths = self.BURST * self.SHARE

    def earn(self) -> None:
        """A call is made."""
        self._tenths = min(self._tenths + 1, self.BURST * self.SHARE)

    def spend(self) -> bool:
        """Whether one more retry may be made; if so it is counted."""
        if self._tenths < self.SHARE:
            return False
        self._tenths -= self.SHARE
        return True
