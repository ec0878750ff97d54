"""What an open loop saw, in columns, and the figures that are made of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final, NamedTuple

_NO_TIME_LEFT: Final = 0.9
_MANY: Final = 0.01  # of the requests


class GeneratorLateError(Exception):
    """The generator itself was behind: the figures of this run say nothing about the server."""


class Bucket(NamedTuple):
    """The requests that were due in a stretch of time that begins ``at_s`` after the start."""

    at_s: float
    requests: int
    good: int
    p50_ms: float
    p99_ms: float


class Sample(NamedTuple):
    """One row, as ``Samples`` describes its columns."""

    due_s: float
    took_s: float
    status: int
    attempt: int
    client: int


@dataclass
class Samples:
    """Columns, a row for each request, in the order in which the generator took them up.

    ``due_s``: when it should have left, since the start; ``took_s``: from then until it was over; ``status``: 0 never
    answered, -1 the client had left; ``attempt``: 0, or the how-manieth come-back of this client; ``client``: its
    number in the schedule. ``seconds`` is how long the schedule, or the cut, is.
    """

    seconds: float
    due_s: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    attempt: list[int] = field(default_factory=list)
    client: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.due_s)

    def rows(self) -> list[Sample]:
        """The same by row."""
        return list(map(Sample, self.due_s, self.took_s, self.status, self.attempt, self.client))

    def between(self, from_s: float, to_s: float) -> "Samples":
        """Those that were due from one moment until just before another."""
        return self._picked([from_s <= due_s < to_s for due_s in self.due_s], to_s - from_s)

    def over_between(self, from_s: float, to_s: float) -> "Samples":
        """Those that were over from one moment until just before another."""
        ends_s = map(float.__add__, self.due_s, self.took_s)
        return self._picked([from_s <= end_s < to_s for end_s in ends_s], to_s - from_s)

    def answered(self) -> "Samples":
        """Those that have an answer of whatever status."""
        return self._picked([status > 0 for status in self.status], self.seconds)

    def by_client(self) -> "Samples":
        """One row for each client: due when it first came, over with its last attempt, of which it has the status."""
        last: dict[int, Sample] = {}
        for row in self.rows():
            first = last.get(row.client, row)
            last[row.client] = row._replace(due_s=first.due_s, took_s=row.due_s + row.took_s - first.due_s)
        return _of_rows(list(last.values()), self.seconds)

    def quantile_ms(self, part: float) -> float:
        """A quantile of the times, in milliseconds; those without an answer count until they were given up."""
        return quantile_ms(self.took_s, part)

    def counts(self) -> dict[int, int]:
        """How many of each status."""
        return dict(sorted(Counter(self.status).items()))

    def good(self, deadline_s: float) -> int:
        """How many were answered 2xx within the deadline."""
        pairs = zip(self.status, self.took_s, strict=True)
        return sum(200 <= status < 300 and took_s <= deadline_s for status, took_s in pairs)

    def goodput_per_second(self, deadline_s: float) -> float:
        """Requests a second of the schedule that were answered 2xx within the deadline."""
        return self.good(deadline_s) / self.seconds

    def series(self, width_ms: float, deadline_s: float = float("inf")) -> list[Bucket]:
        """Figures of one stretch after another, by when requests were due; ``good`` as in ``good``."""
        groups: dict[int, list[Sample]] = {}
        for row in self.rows():
            groups.setdefault(int(row.due_s * 1e3 / width_ms), []).append(row)
        width_s = width_ms / 1e3
        return [
            _of_rows(groups.get(number, []), width_s)._bucket(number * width_s, deadline_s)
            for number in range(max(groups, default=-1) + 1)
        ]

    def _bucket(self, at_s: float, deadline_s: float) -> Bucket:
        return Bucket(at_s, len(self), self.good(deadline_s), self.quantile_ms(0.5), self.quantile_ms(0.99))

    def _picked(self, chosen: list[bool], seconds: float) -> "Samples":
        columns = (self.due_s, self.took_s, self.status, self.attempt, self.client)
        return Samples(seconds, *(list(compress(column, chosen)) for column in columns))  # type: ignore[arg-type]


class Order(NamedTuple):
    """Of so many pairs of clients that waited for the same time: how often who first came later was served first."""

    pairs: int
    overtaken: int


def served_order(samples: Samples, blur_s: float = 0.3) -> Order:
    """Whether those who waited in one queue were served in the order in which they first came.

    Two waited together when the request of the one that was served came while that of the other was still waiting,
    more than ``blur_s`` before its end: what is served in several threads ends in a slightly different order.
    """
    first = {row.client: row.due_s for row in reversed(samples.rows())}
    served = sorted((row for row in samples.rows() if row.status == 200), key=lambda row: first[row.client])
    pairs = overtaken = 0
    for number, earlier in enumerate(served):
        ends_s = earlier.due_s + earlier.took_s
        for later in served[number + 1 :]:
            over_s = later.due_s + later.took_s
            if later.due_s < ends_s - blur_s and earlier.due_s < over_s - blur_s:
                pairs += 1
                overtaken += over_s < ends_s - blur_s
    return Order(pairs, overtaken)


def joined(parts: Sequence[Samples]) -> Samples:
    """Streams that ran at the same time as one; their clients' numbers are no longer their own."""
    rows = sorted(row for part in parts for row in part.rows())
    return _of_rows(rows, max(part.seconds for part in parts))


def _of_rows(rows: list[Sample], seconds: float) -> Samples:
    return Samples(seconds, *map(list, zip(*rows, strict=True)))


def quantile_ms(times_s: Sequence[float], part: float) -> float:
    """A quantile of times in seconds, in milliseconds; NaN of none."""
    ordered = sorted(times_s)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1e3 if ordered else float("nan")


class Lateness(NamedTuple):
    """How long after they were due the generator got round to its requests, in seconds."""

    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, late_s: Sequence[float]) -> "Lateness":
        """In: that of each request."""
        ordered = sorted(late_s) or [0.0]
        return cls(ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1])


@dataclass
class StreamResult:
    """What a stream saw, and how the generator fared with it.

    ``queued``: requests that found no free connection, or no free client, when they were due. ``most_open``: the
    connections that were open at the worst moment.
    """

    samples: Samples
    late_s: Lateness
    queued: int
    most_open: int


@dataclass
class Result:
    """A run: when its clock started, in seconds of the machine's monotonic clock, and its streams by name.

    ``busy`` is the share of the time that the generator computed; under little load it computes more for each request,
    so a large share alone is no harm.
    """

    started_s: float
    busy: float
    streams: dict[str, StreamResult]

    def __getitem__(self, name: str) -> Samples:
        return self.streams[name].samples

    def require_punctual(self, late_p99_s: float = 0.005) -> None:
        """Raises GeneratorLateError if this measured the generator.

        It did if a stream's requests left later than this at the 99th percentile, or if they queued for connections
        while the generator had no time left: who reads answers late is late to have free connections.
        """
        for name, stream in self.streams.items():
            if stream.late_s.p99 > late_p99_s:
                raise GeneratorLateError(f"{name}: requests left late, in seconds: {stream.late_s}")
            if self.busy > _NO_TIME_LEFT and stream.queued > _MANY * len(stream.samples):
                raise GeneratorLateError(
                    f"{name}: {stream.queued} requests queued, the generator was {self.busy:.0%} busy"
                )
