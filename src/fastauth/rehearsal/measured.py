"""What generators measured in a run, and whether it was the server that they measured."""

from collections.abc import Sequence
from typing import Final

from fastauth.rehearsal.course import Course
from fastauth.rehearsal.generator import Told
from fastauth.rehearsal.plan import Lane
from fastauth.rehearsal.tally import Histogram, Second

_LATE_MS: Final = 20.0  # at the median: it is behind; at the p99: it is to blame if that is ...
_LATE_SHARE: Final = 0.5  # ... so much of the p99 that was measured
_NO_TIME_LEFT: Final = 0.9
_MANY_QUEUED: Final = 0.01


class Measured:
    """The courses of a run, by lane, and what the generators did meanwhile."""

    def __init__(self, lanes: Sequence[Lane], seconds: float, patience_s: float) -> None:
        self.courses = {lane: Course(seconds, patience_s) for lane in lanes}
        self._busy_s = 0.0
        self._wall_s = 0.0

    def add(self, told: Told) -> None:
        """What a generator reports."""
        for lane, tally in told.lanes.items():
            self.courses[lane].add(tally)
        self._busy_s += told.busy_s
        self._wall_s += told.wall_s

    @property
    def busy(self) -> float:
        """The part of their time in which the generators computed."""
        return self._busy_s / self._wall_s if self._wall_s else 0.0

    @property
    def late(self) -> Histogram:
        """How late requests were sent."""
        late = Histogram()
        for course in self.courses.values():
            late.merge(course.late)
        return late

    @property
    def is_punctual(self) -> bool:
        """Whether this measured the server, and not the generators."""
        offered = sum(course.total.offered for course in self.courses.values())
        queued = sum(course.queued for course in self.courses.values())
        is_late = any(
            (course.late.quantile_ms(0.5) or 0.0) > _LATE_MS
            or (course.late.quantile_ms(0.99) or 0.0)
            > max(_LATE_MS, _LATE_SHARE * (course.total.times.quantile_ms(0.99) or 0.0))
            for course in self.courses.values()
        )
        return not (is_late or (self.busy > _NO_TIME_LEFT and queued > _MANY_QUEUED * offered))


def goodput(total: Second, seconds: float) -> float:
    """Answers 2xx a second while requests were due. A queue takes a burst in whole: what it serves only afterwards was
    taken in faster than it can be done, and does not count; nor does the time before anything could be answered.
    """
    first_s = min((total.times.quantile_ms(0.05) or 0.0) / 1e3, seconds / 2)
    return min(total.good / seconds, total.done / (seconds - first_s))
