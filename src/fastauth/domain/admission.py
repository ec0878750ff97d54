"""When a lane is full: how long somebody would wait in it, and for whom that is too long.

Pure: every time is given. ``docs/decisions/0018-admission.md`` compares the rule with others on recorded traces.
"""

import math
from typing import Annotated, Final

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3_600)]

_PACE_WINDOW_S: Final = 1.0
_EXPECTED_COUNT: Final = 4.0  # what an expectation weighs, as so many measurements

_WINDOW_S: Final = 2.0
_OVERLOAD: Final = 1.2  # more arrivals than this, as a part of what is served, is no mere burst
# After such a silence a storm is over, however many came before it: in one they come far closer to each other.
_SILENCE_S: Final = 0.5
_SILENT_TURNS: Final = 5.0


class LaneRules(msgspec.Struct, frozen=True, kw_only=True):
    """How long one may wait in a lane, in seconds: ``burst_s`` as long as it keeps up with those who come, ``target_s``
    while it does not.
    """

    burst_s: Seconds
    target_s: Seconds


class Gate:
    """Who is let into a lane.

    A burst is taken in whole, up to a queue of ``burst_s``. In lasting overload, in which a long queue would make
    everybody wait and serve nobody sooner, the queue is kept at ``target_s``. It is overload while more come than are
    served, over about two seconds, until nobody waits and nobody has come for a moment; and once a queue was as long as
    it may be, until somebody finds nobody waiting.
    """

    __slots__ = ("_came_at_s", "_come_per_s", "_silence_s", "_was_full", "rules")

    def __init__(self, rules: LaneRules) -> None:
        self.rules = rules
        self._come_per_s = 0.0
        self._came_at_s = 0.0
        self._silence_s = 0.0  # before the last one came
        self._was_full = False

    def arrive(self, now_s: float) -> None:
        """Somebody has come, whatever becomes of them."""
        fade = math.exp((self._came_at_s - now_s) / _WINDOW_S) if now_s > self._came_at_s else 1.0
        self._come_per_s = self._come_per_s * fade + 1 / _WINDOW_S
        self._silence_s = now_s - self._came_at_s
        self._came_at_s = now_s

    def is_overload(self, serves_per_s: float) -> bool:
        """Whether more come than are served. In: how many can be served a second."""
        return self._was_full or self._come_per_s > _OVERLOAD * serves_per_s

    def allows(self, wait_s: float, serves_per_s: float, steady_s: float = 0.0) -> bool:
        """Whether somebody who has come is let in. In: how long they would wait, 0 when they would be served at once;
        how many can be served a second; how long the queue must be so that nobody who serves it ever runs dry.
        """
        if wait_s <= 0:
            self._was_full = False
            if self._silence_s > max(_SILENCE_S, _SILENT_TURNS / serves_per_s):
                self._come_per_s = 1 / _WINDOW_S
            return True
        if wait_s > self.rules.burst_s:
            self._was_full = True
        return wait_s <= max(self.rules.target_s, steady_s) or not self.is_overload(serves_per_s)


class Pace:
    """How many a lane serves a second while it has something to do, over about the last ``window_s`` of that."""

    __slots__ = ("_count", "_time_s", "_window_s")

    def __init__(
        self, expected_s: float, window_s: float = _PACE_WINDOW_S, expected_count: float = _EXPECTED_COUNT
    ) -> None:
        """In: what one takes of the lane's time, until some have been measured; how many of those it weighs."""
        self._window_s = window_s
        self._count = expected_count
        self._time_s = expected_count * expected_s

    @property
    def per_s(self) -> float:
        """Of now."""
        return self._count / self._time_s

    def served(self, time_s: float) -> None:
        """One has been served. In: what it took of the lane's time; of two that are served side by side for a second
        each takes half of that (Little's law).
        """
        kept = max(0.0, 1 - time_s / self._window_s)
        self._count = self._count * kept + 1
        self._time_s = max(self._time_s * kept + time_s, 1e-9)
