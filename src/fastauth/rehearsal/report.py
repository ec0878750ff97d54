"""What a rehearsal found out, as ``--json`` writes it and the terminal and the page show it."""

from typing import Final

import msgspec

from fastauth.rehearsal.course import Row
from fastauth.rehearsal.opening import Preparation
from fastauth.rehearsal.plan import Lane
from fastauth.rehearsal.watch import Event

MET_SHARE: Final = 0.99
"""The part of a lane's requests that must be answered 2xx in time for its plan to be met."""


class Step(msgspec.Struct, frozen=True):
    """A second at one rate; ``cause`` is why the lane did not keep up, None if it did."""

    offered_per_s: float
    good_per_s: float
    p99_ms: float | None
    cause: str | None


class Ceiling(msgspec.Struct, frozen=True):
    """The highest goodput that was seen of a lane alone. Without ``cause`` it went no higher: the lane can do more."""

    per_s: float
    cause: str | None
    steps: list[Step]

    @property
    def is_generator(self) -> bool:
        return self.cause == "generator"

    @property
    def is_found(self) -> bool:
        """Whether it is the server's."""
        return self.cause is not None and not self.is_generator


def rate_text(per_s: float) -> str:
    return f"{per_s:,.0f}/s" if per_s >= 10 else f"{per_s:,.1f}/s"


class LaneReport(msgspec.Struct):
    """A lane during the plan; times in milliseconds, of all answers, and of who left until then.

    ``statuses`` has 0 for no answer and -1 for a client that left; ``codes`` says why an answer was no 2xx. ``share``
    is the planned rate as a part of the ceiling.
    """

    lane: Lane
    planned_per_s: float
    offered: int
    offered_per_s: float
    good: int
    good_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    statuses: dict[int, int]
    codes: dict[str, int]
    retry_after_s: int
    queued: int
    ceiling: Ceiling | None
    share: float | None
    met: bool
    rows: list[Row]


class GeneratorReport(msgspec.Struct):
    """How late the generators were themselves, in milliseconds, and which part of their time they computed."""

    processes: int
    late_p50_ms: float
    late_p99_ms: float
    late_max_ms: float
    busy: float
    kept_up: bool


class Verdict(msgspec.Struct):
    """``what`` broke, or would break, first; ``at_s`` when, None if it did not."""

    what: str
    lane: Lane | None
    sentence: str
    advice: str
    at_s: int | None = None


class Report(msgspec.Struct):
    """All of it. ``refused_by_limit`` None: the server does not show its metrics here."""

    target: str
    server_version: str | None
    fastauth_version: str
    started_at: str
    planned_s: float
    ran_s: float
    patience_s: float
    p99_bound_ms: float
    interrupted: bool
    met: bool
    preparation: Preparation
    sessions_left: int
    lanes: list[LaneReport]
    generator: GeneratorReport
    refused_by_limit: dict[str, int] | None
    events: list[Event]
    verdict: Verdict | None = None
