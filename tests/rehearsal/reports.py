"""Reports as a rehearsal could have made them."""

from typing import Any

from fastauth.rehearsal.course import Row
from fastauth.rehearsal.opening import Preparation
from fastauth.rehearsal.plan import Lane
from fastauth.rehearsal.report import Ceiling, GeneratorReport, LaneReport, Report, Step


def row(
    at_s: int, good: int = 10, *, codes: dict[str, int] | None = None, statuses: dict[int, int] | None = None
) -> Row:
    """A second in which ten were offered."""
    return Row(at_s, 10, good, 5.0, 9.0, {200: good, **(statuses or {})}, codes or {})


def ceiling(per_s: float, cause: str | None) -> Ceiling:
    """Found in one step."""
    return Ceiling(per_s, cause, [Step(per_s, per_s, 9.0, cause)])


def lane(name: Lane, rows: list[Row], found: Ceiling | None = None, retry_after_s: int = 0) -> LaneReport:
    """Of these seconds."""
    statuses: dict[int, int] = {}
    codes: dict[str, int] = {}
    for one in rows:
        for status, count in one.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
        for code, count in one.codes.items():
            codes[code] = codes.get(code, 0) + count
    good = sum(one.good for one in rows)
    return LaneReport(
        lane=name,
        planned_per_s=10.0,
        offered=10 * len(rows),
        offered_per_s=10.0,
        good=good,
        good_per_s=good / len(rows),
        p50_ms=5.0,
        p99_ms=9.0,
        max_ms=12.0,
        statuses=statuses,
        codes=codes,
        retry_after_s=retry_after_s,
        queued=0,
        ceiling=found,
        share=None if found is None else 10.0 / found.per_s,
        met=good >= 9.9 * len(rows),
        rows=rows,
    )


def report(*lanes: LaneReport, **changes: Any) -> Report:
    """Of these lanes, by a generator that kept up."""
    fields: dict[str, Any] = {
        "target": "http://127.0.0.1:8000",
        "server_version": "0.1.0",
        "fastauth_version": "0.1.0",
        "started_at": "2026-01-01T00:00:00+00:00",
        "planned_s": 3.0,
        "ran_s": 3.0,
        "patience_s": 3.0,
        "p99_bound_ms": 1_000.0,
        "interrupted": False,
        "met": all(one.met for one in lanes),
        "preparation": Preparation(8, 8, 0, 0.5),
        "sessions_left": 8,
        "lanes": list(lanes),
        "generator": GeneratorReport(1, 0.1, 1.0, 4.0, 0.2, kept_up=True),
        "refused_by_limit": {},
        "events": [],
    }
    return Report(**{**fields, **changes})
