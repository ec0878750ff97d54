"""What is kept of a lane's requests: counts and histograms of each second, so that an hour takes no more memory than a
minute; and all of it adds up over generators.
"""

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from fastauth.rehearsal.clients import Answer, member
from fastauth.rehearsal.connections import Flight
from fastauth.rehearsal.plain import plain

_PARTS: Final = 16  # of a doubling: a bucket is 4.4 % wide
_MOST_CODES: Final = 20  # of a second: whatever else a server invents is "other"


class Histogram(msgspec.Struct):
    """Times in buckets of equal width on a logarithmic scale; ``most_us`` is exact."""

    counts: dict[int, int] = msgspec.field(default_factory=dict)
    most_us: int = 0

    def add(self, seconds: float) -> None:
        us = int(seconds * 1e6)
        bucket = int(math.log2(us) * _PARTS) if us > 1 else 0
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.most_us = max(self.most_us, us)

    def merge(self, other: "Histogram") -> None:
        _add(self.counts, other.counts)
        self.most_us = max(self.most_us, other.most_us)

    def quantile_ms(self, part: float) -> float | None:
        """The middle of the bucket that it is in, 2.2 % off at the most; None of nothing."""
        total = sum(self.counts.values())
        rank, seen = min(total - 1, int(part * total)), 0
        for bucket, count in sorted(self.counts.items()):
            seen += count
            if seen > rank:
                return round(min(2 ** ((bucket + 0.5) / _PARTS), self.most_us) / 1e3, 3)
        return None

    @property
    def most_ms(self) -> float | None:
        return self.most_us / 1e3 if self.counts else None


class Second(msgspec.Struct):
    """Requests by when they were due: ``good`` were answered 2xx in time. ``done`` are those that ended well in this
    second, whenever they were due. A status is 0 for no answer and -1 for a client that had left; ``codes`` says why
    an answer was no 2xx. ``retry_after_s`` is the longest that anybody was told.
    """

    offered: int = 0
    good: int = 0
    done: int = 0
    statuses: dict[int, int] = msgspec.field(default_factory=dict)
    codes: dict[str, int] = msgspec.field(default_factory=dict)
    times: Histogram = msgspec.field(default_factory=Histogram)
    retry_after_s: int = 0

    def merge(self, other: "Second") -> None:
        self.offered += other.offered
        self.good += other.good
        self.done += other.done
        _add(self.statuses, other.statuses)
        _add(self.codes, other.codes)
        self.times.merge(other.times)
        self.retry_after_s = max(self.retry_after_s, other.retry_after_s)


class LaneTally(msgspec.Struct):
    """What a generator has seen of a lane since it told of it last; ``late`` is how late it was itself."""

    seconds: dict[int, Second] = msgspec.field(default_factory=dict)
    late: Histogram = msgspec.field(default_factory=Histogram)
    queued: int = 0


class Tally:
    """Records a lane's requests; ``taken`` hands over what there is and begins anew."""

    def __init__(self, codes_of_details: Mapping[str, str]) -> None:
        """In: which problem an ``error_description`` is the text of."""
        self._details = codes_of_details
        self._now = LaneTally()
        self._last = 0  # in which second the request was due that ended last

    def departed(self, due_s: float, late_s: float) -> None:
        self._second(int(due_s)).offered += 1
        self._now.late.add(late_s)

    def queued(self) -> None:
        self._now.queued += 1

    def ended(self, flight: Flight) -> None:
        status = flight.status or 0
        self._last = int(flight.due_s)
        second = self._second(self._last)
        second.statuses[status] = second.statuses.get(status, 0) + 1
        if status:  # a connection that was refused or lost has taken no time that says anything
            second.times.add(flight.took_s)
        if 200 <= status < 300:
            second.good += 1
            self._second(int(flight.due_s + flight.took_s)).done += 1

    def explain(self, answer: Answer) -> None:
        """Why the request that ended just now has no 2xx."""
        second = self._second(self._last)
        code = self._code(answer)
        if code not in second.codes and len(second.codes) >= _MOST_CODES:
            code = "other"
        second.codes[code] = second.codes.get(code, 0) + 1
        retry_after = answer.header(b"retry-after") or b""
        if retry_after.isdigit() and len(retry_after) < 6:
            second.retry_after_s = max(second.retry_after_s, int(retry_after))

    def _code(self, answer: Answer) -> str:
        if answer.status <= 0:
            return "left" if answer.status < 0 else "lost"
        code = member(answer.body, "code")  # RFC 9457, else RFC 6749 section 5.2
        if code is None and (error := member(answer.body, "error")) is not None:
            code = self._details.get(member(answer.body, "error_description") or "", error)
        return plain(code) if code else f"http_{answer.status}"

    def taken(self) -> LaneTally:
        now, self._now = self._now, LaneTally()
        return now

    def _second(self, number: int) -> Second:
        found = self._now.seconds.get(number)
        if found is None:
            found = self._now.seconds[number] = Second()
        return found


def _add(into: "dict[int, int] | dict[str, int]", more: "dict[int, int] | dict[str, int]") -> None:
    for key, count in more.items():
        into[key] = into.get(key, 0) + count  # type: ignore[index, arg-type]
