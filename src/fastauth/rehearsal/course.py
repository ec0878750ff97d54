"""A lane over the time of a run: each second as one row, and everything together."""

from typing import Final

import msgspec

from fastauth.rehearsal.tally import Histogram, LaneTally, Second

_SETTLED_S: Final = 3  # beyond the patience of clients: nothing can come any more of what was due before


class Row(msgspec.Struct, frozen=True):
    """A second, by when requests were due. Times in milliseconds; None when there was none."""

    at_s: int
    offered: int
    good: int
    p50_ms: float | None
    p99_ms: float | None
    statuses: dict[int, int]
    codes: dict[str, int]


class Course:
    """Adds up what generators tell of a lane. ``total`` and ``late`` are of all seconds."""

    def __init__(self, seconds: float, patience_s: float) -> None:
        self.rows: list[Row] = []
        self.total = Second()
        self.late = Histogram()
        self.queued = 0
        self._last = max(0, -int(-seconds // 1) - 1)
        self._keeps = int(patience_s) + _SETTLED_S
        self._open: dict[int, Second] = {}
        self._closed_until = 0

    def add(self, tally: LaneTally) -> None:
        self.late.merge(tally.late)
        self.queued += tally.queued
        for number, second in tally.seconds.items():
            if number > self._last:  # what ends later is not of the time that was asked for
                second.done = 0
            self.total.merge(second)
            at = min(number, self._last)
            if at >= self._closed_until:
                self._open.setdefault(at, Second()).merge(second)
        self._close(max(self._open, default=0) - self._keeps)

    def end(self) -> None:
        """Every second is complete."""
        self._close(max(self._open, default=-1) + 1)

    def latest(self) -> Row | None:
        """The last second in which everything was due that belongs to it."""
        begun = sorted(number for number, second in self._open.items() if second.offered)
        if len(begun) > 1:
            return _row(begun[-2], self._open[begun[-2]])
        return self.rows[-1] if self.rows else None

    def _close(self, until: int) -> None:
        while self._closed_until < until:
            second = self._open.pop(self._closed_until, None)
            if second is not None and second.offered:
                self.rows.append(_row(self._closed_until, second))
            self._closed_until += 1


def _row(number: int, second: Second) -> Row:
    times = second.times
    return Row(
        number,
        second.offered,
        second.good,
        times.quantile_ms(0.5),
        times.quantile_ms(0.99),
        dict(second.statuses),
        dict(second.codes),
    )
