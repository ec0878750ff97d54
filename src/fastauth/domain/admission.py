"""When a lane is full: how long somebody would wait in it, and for whom that is too long.

Pure: every time is given. ``docs/decisions/0018-admission.md`` compares the rule with others on recorded traces.
"""

from typing import Annotated, Final

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3_600)]

_WEIGHT: Final = 0.1  # of one measurement in a mean


class LaneRules(msgspec.Struct, frozen=True, kw_only=True):
    """How long one may wait in a lane, in seconds.

    ``burst_s``: a queue that would take longer is overload and no mere burst; ``target_s``: how long it may be while
    that lasts.
    """

    burst_s: Seconds
    target_s: Seconds


class Gate:
    """Who is let into a lane. A queue may grow as long as ``burst_s`` once; when it gets there, it is kept short, at
    ``target_s``, until somebody finds nobody waiting.

    So a burst is taken in whole, and lasting overload, in which a long queue would make everybody wait and serve nobody
    sooner, does not keep one.
    """

    __slots__ = ("is_shedding", "rules")

    def __init__(self, rules: LaneRules) -> None:
        self.rules = rules
        self.is_shedding = False

    def allows(self, wait_s: float, target_s: float = 0.0) -> bool:
        """Whether somebody new is let in. In: how long they would wait, 0 when they would be served at once; what the
        queue needs so that nobody who serves it ever runs dry, if that is more than the rules' target.
        """
        if wait_s <= 0:
            self.is_shedding = False
            return True
        if wait_s > self.rules.burst_s:
            self.is_shedding = True
        return not self.is_shedding or wait_s <= min(max(self.rules.target_s, target_s), self.rules.burst_s)


class Pace:
    """How fast a lane serves: by Little's law, those who are in it over the time that they spend there.

    What is in the lane is counted by ``enter`` and ``leave``; the pace is a mean over about the last ten.
    """

    __slots__ = ("_per_s", "inside")

    def __init__(self, expected_s: float) -> None:
        """In: what one request takes, until some have been measured."""
        self.inside = 0
        self._per_s = 1 / expected_s

    @property
    def wait_s(self) -> float:
        """How long those inside will take, which is what one more would wait."""
        return self.inside / self._per_s

    def enter(self) -> int:
        """One more is inside; out: how many there are, to be handed to ``leave``."""
        self.inside += 1
        return self.inside

    def leave(self, beside: int, took_s: float) -> None:
        """One is served. In: how many were inside when it came, itself included; how long it was there."""
        self.inside -= 1
        self._per_s += _WEIGHT * (beside / max(took_s, 1e-6) - self._per_s)
