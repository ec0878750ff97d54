"""When a lane is full: how long somebody would wait in it, and for whom that is too long.

Pure: every time is given. ``docs/decisions/0018-admission.md`` compares the rule with others on recorded traces.
"""

import math
from typing import Annotated, Final

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3_600)]

_WEIGHT: Final = 0.1  # of one measurement in a mean


_WINDOW_S: Final = 2.0
_OVERLOAD: Final = 1.3  # more arrivals than this, as a part of what is served, is no mere burst


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
    served, over about two seconds; and once a queue was as long as it may be, until somebody finds nobody waiting.
    """

    __slots__ = ("_came_at_s", "_come_per_s", "_was_full", "rules")

    def __init__(self, rules: LaneRules) -> None:
        self.rules = rules
        self._come_per_s = 0.0
        self._came_at_s = 0.0
        self._was_full = False

    def arrive(self, now_s: float) -> None:
        """Somebody has come, whatever becomes of them."""
        fade = math.exp((self._came_at_s - now_s) / _WINDOW_S) if now_s > self._came_at_s else 1.0
        self._come_per_s = self._come_per_s * fade + 1 / _WINDOW_S
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
            return True
        if wait_s > self.rules.burst_s:
            self._was_full = True
        return wait_s <= max(self.rules.target_s, steady_s) or not self.is_overload(serves_per_s)


class Pace:
    """How fast a lane serves: by Little's law, those who are in it over the time that they spend there.

    What is in the lane is counted by ``enter`` and ``leave``; ``per_s`` is a mean over about the last ten.
    """

    __slots__ = ("inside", "per_s")

    def __init__(self, expected_s: float) -> None:
        """In: what one request takes, until some have been measured."""
        self.inside = 0
        self.per_s = 1 / expected_s

    @property
    def wait_s(self) -> float:
        """How long those inside will take, which is what one more would wait."""
        return self.inside / self.per_s

    def enter(self) -> int:
        """One more is inside; out: how many there are, to be handed to ``leave``."""
        self.inside += 1
        return self.inside

    def leave(self, beside: int, took_s: float) -> None:
        """One is served. In: how many were inside when it came, itself included; how long it was there."""
        self.inside -= 1
        self.per_s += _WEIGHT * (beside / max(took_s, 1e-6) - self.per_s)
