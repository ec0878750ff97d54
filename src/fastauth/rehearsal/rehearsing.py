"""The rehearsal itself: preflight, sessions, ceilings, the plan, the report."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from fastauth.rehearsal.asking import preflight
from fastauth.rehearsal.conductor import Conductor, shares
from fastauth.rehearsal.course import Course, Row
from fastauth.rehearsal.errors import RehearsalRefused
from fastauth.rehearsal.generator import LaneLoad, Opening, Told
from fastauth.rehearsal.opening import Granted, open_sessions
from fastauth.rehearsal.people import Person
from fastauth.rehearsal.plan import LANES, MAX_PER_S, Lane, Plan
from fastauth.rehearsal.report import MET_SHARE, Ceiling, GeneratorReport, LaneReport, Report, Step
from fastauth.rehearsal.tally import Histogram, Second
from fastauth.rehearsal.target import Target
from fastauth.rehearsal.verdict import judge
from fastauth.rehearsal.watch import Watch, metrics_now, refused_between

_STEP_S: Final = 1.0
_FIRST_PART: Final = 0.25  # of the planned rate, where a ramp begins
_FACTOR: Final = 1.6
_MOST_REFRESHES: Final = 4.0  # times the planned rate: sessions may not be refreshed any faster (plan.py)
_KEPT_UP: Final = 0.95
_SERVED: Final = 0.85  # while the step lasts; less leaves a queue behind, or is the chance of few requests
_FEW_REFUSED: Final = 0.01
_LONGEST_REST_S: Final = 5.0
_LATE_MS: Final = 20.0  # at the median: it is behind; at the p99: it is to blame if that is ...
_LATE_SHARE: Final = 0.5  # ... so much of the p99 that was measured
_NO_TIME_LEFT: Final = 0.9
_MANY_QUEUED: Final = 0.01


class Display(Protocol):
    """Who watches."""

    def phase(self, text: str) -> None:
        """What begins now."""

    def second(self, ran_s: float, planned_s: float, lanes: dict[Lane, tuple[float, Row]]) -> None:
        """The plan goes on: the planned rate and the last whole second of each lane."""


class _Measured:
    """The courses of a run, and what the generators did meanwhile."""

    def __init__(self, lanes: Sequence[Lane], seconds: float, patience_s: float) -> None:
        self.courses = {lane: Course(seconds, patience_s) for lane in lanes}
        self._busy_s = 0.0
        self._wall_s = 0.0

    def add(self, told: Told) -> None:
        for lane, tally in told.lanes.items():
            self.courses[lane].add(tally)
        self._busy_s += told.busy_s
        self._wall_s += told.wall_s

    @property
    def busy(self) -> float:
        return self._busy_s / self._wall_s if self._wall_s else 0.0

    @property
    def late(self) -> Histogram:
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


class Rehearsal(NamedTuple):
    """What is rehearsed, with whom; ``hold`` does it."""

    target: Target
    plan: Plan
    people: Sequence[Person]
    ca_file: Path | None

    def hold(self, display: Display) -> Report:
        """Ctrl-C ends the plan early, and there is a report all the same; before the plan it is a KeyboardInterrupt.

        Raises RehearsalRefused.
        """
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        display.phase(f"asking {self.target.origin} whether it is ready")
        server_version = preflight(self.target)
        wanted = self.plan.sessions_wanted
        if wanted:
            display.phase(f"opening {wanted:,} sessions")
        granted, preparation = open_sessions(
            self.target, self.people, wanted, lambda done, of: display.phase(f"opening sessions: {done:,} of {of:,}")
        )
        self._check_lives(granted)
        opening = self._opening(granted)
        with Conductor(shares(opening, self._generators(granted))) as conductor:
            ceilings = self._ceilings(conductor, display) if self.plan.ceiling_s else {}
            before = metrics_now(self.target)
            watch = Watch(self.target)
            watch.begin()
            try:
                measured, ran_s, interrupted, left = self._play(conductor, display)
            finally:
                watch.end()
            after = metrics_now(self.target)
        lanes = [
            _lane_report(lane, rate, ran_s, measured.courses[lane], ceilings.get(lane))
            for lane, rate in self.plan.rates.items()
        ]
        late = measured.late
        report = Report(
            target=str(self.target.origin),
            server_version=server_version,
            fastauth_version=version("fastauth"),
            started_at=started_at,
            planned_s=self.plan.seconds,
            ran_s=round(ran_s, 1),
            patience_s=self.plan.patience_s,
            p99_bound_ms=self.plan.p99_s * 1e3,
            interrupted=interrupted,
            met=not interrupted and all(lane.met for lane in lanes),
            preparation=preparation,
            sessions_left=left,
            lanes=lanes,
            generator=GeneratorReport(
                self._generators(granted),
                late.quantile_ms(0.5) or 0.0,
                late.quantile_ms(0.99) or 0.0,
                late.most_ms or 0.0,
                round(measured.busy, 3),
                measured.is_punctual,
            ),
            refused_by_limit=refused_between(before, after),
            events=watch.events,
        )
        refused_by_lane = None
        if before is not None and after is not None:
            refused_by_lane = {
                lane: count - before.refused_by_lane.get(lane, 0) for lane, count in after.refused_by_lane.items()
            }
        report.verdict = judge(report, refused_by_lane)
        return report

    def _generators(self, granted: Sequence[Granted]) -> int:
        """Each needs a session of its own to refresh."""
        return min(self.plan.generators, len(granted)) if "refresh" in self.plan.rates else self.plan.generators

    def _check_lives(self, granted: Sequence[Granted]) -> None:
        """Raises RehearsalRefused if access tokens end before the rehearsal does, and no refresh brings others."""
        if "verify" not in self.plan.rates or "refresh" in self.plan.rates:
            return
        needed_s = self.plan.seconds + self.plan.ceiling_s * len(self.plan.rates) + _LONGEST_REST_S * 2
        shortest_s = min(session.expires_in for session in granted)
        if shortest_s < needed_s:
            raise RehearsalRefused(
                f"access tokens live {shortest_s} s here and the rehearsal takes up to {needed_s:.0f} s: "
                "shorten --for, or add --refresh, which brings new ones"
            )

    def _opening(self, granted: Sequence[Granted]) -> Opening:
        rates, endpoint = self.plan.rates, self.target.endpoint
        return Opening(
            address=endpoint.address,
            port=endpoint.port,
            name=self.target.origin.host,
            authority=self.target.origin.authority,
            is_https=self.target.origin.is_https,
            ca_file=None if self.ca_file is None else str(self.ca_file.absolute()),
            patience_s=self.plan.patience_s,
            users=[(one.username, one.password) for one in self.people] if "login" in rates else [],
            refresh_tokens=[one.refresh_token for one in granted] if "refresh" in rates else [],
            access_tokens=[one.token for one in granted] if "verify" in rates else [],
        )

    def _load(self, per_s: float) -> LaneLoad:
        return LaneLoad(per_s, *self.plan.connections(per_s))

    # Ceilings

    def _ceilings(self, conductor: Conductor, display: Display) -> dict[Lane, Ceiling]:
        """Of each lane alone. Logins last: what they leave behind in a queue takes longest."""
        ceilings = {}
        for lane in sorted(self.plan.rates, key=LANES.index, reverse=True):
            ceilings[lane] = self._ceiling(conductor, display, lane)
        return ceilings

    def _ceiling(self, conductor: Conductor, display: Display, lane: Lane) -> Ceiling:
        planned = self.plan.rates[lane]
        per_s, highest = planned * _FIRST_PART, MAX_PER_S
        if lane == "refresh":
            highest = planned * _MOST_REFRESHES
        ends_s = time.monotonic() + self.plan.ceiling_s
        steps: list[Step] = []
        cause = None
        while True:
            display.phase(f"ceiling of {lane}: {per_s:,.1f}/s")
            step, rest_s = self._step(conductor, lane, per_s)
            steps.append(step)
            cause = step.cause or cause
            is_first_failure = step.cause is not None and len(steps) == 1
            if step.cause is not None and not (is_first_failure and _may_be_slower(step)):
                time.sleep(rest_s)
                break
            if is_first_failure:  # begin anew below what it managed
                time.sleep(rest_s)
                per_s = step.good_per_s / 2
            else:
                per_s *= _FACTOR
            if per_s > highest or time.monotonic() + _STEP_S > ends_s:
                break
        return Ceiling(max(step.good_per_s for step in steps), cause, steps)

    def _step(self, conductor: Conductor, lane: Lane, per_s: float) -> tuple[Step, float]:
        """A second at this rate (longer for the rarest), and for how long the server should rest after it."""
        seconds = max(_STEP_S, min(5.0, 3 / per_s))
        before = metrics_now(self.target)
        measured = _Measured([lane], seconds, self.plan.patience_s)
        conductor.run(seconds, {lane: self._load(per_s)}, measured.add)
        course = measured.courses[lane]
        course.end()
        total = course.total
        offered_per_s, p99_ms = total.offered / seconds, total.times.quantile_ms(0.99)
        cause = None
        if total.good < total.offered * _KEPT_UP or sum(total.codes.values()) > _FEW_REFUSED * total.offered:
            cause = max(total.codes, key=lambda code: total.codes[code], default="lost")
            if total.statuses.get(429):
                refused = refused_between(before, metrics_now(self.target)) or {}
                cause = f"limit {max(refused, key=lambda one: refused[one])}" if refused else "rate_limited"
        elif (p99_ms or 0.0) > self.plan.p99_s * 1e3:
            cause = "too_slow"
        elif goodput(total, seconds) < total.offered / seconds * _SERVED:
            cause = "growing_queue"
        if cause in ("left", "lost", "too_slow", "growing_queue", None) and not measured.is_punctual:
            cause = "generator"
        rest_s = min(_LONGEST_REST_S, max(1.0, float(total.retry_after_s)))
        return Step(round(offered_per_s, 2), round(goodput(total, seconds), 2), p99_ms, cause), rest_s

    # The plan

    def _play(self, conductor: Conductor, display: Display) -> tuple[_Measured, float, bool, int]:
        """Out: what was measured, for how long, whether it was interrupted, and the sessions that are left."""
        rates, seconds = self.plan.rates, self.plan.seconds
        display.phase(f"the plan, for {seconds:,.0f} s")
        measured = _Measured(list(rates), seconds, self.plan.patience_s)
        began_s = time.monotonic()

        def told(report: Told) -> None:
            measured.add(report)
            latest = {lane: (rates[lane], row) for lane, course in measured.courses.items() if (row := course.latest())}
            display.second(min(seconds, time.monotonic() - began_s), seconds, latest)

        ran_s, interrupted = seconds, False
        try:
            left = conductor.run(seconds, {lane: self._load(rate) for lane, rate in rates.items()}, told)
        except KeyboardInterrupt:
            ran_s, interrupted = min(seconds, time.monotonic() - began_s), True
            display.phase("interrupted: waiting for the answers that are on their way")
            conductor.stop()
            left = conductor.finish(told)
        for course in measured.courses.values():
            course.end()
        return measured, max(0.1, ran_s), interrupted, left


def goodput(total: Second, seconds: float) -> float:
    """Answers 2xx a second while requests were due. A queue takes a burst in whole: what it serves only afterwards was
    taken in faster than it can be done, and does not count; nor does the time before anything could be answered.
    """
    first_s = min((total.times.quantile_ms(0.05) or 0.0) / 1e3, seconds / 2)
    return min(total.good / seconds, total.done / (seconds - first_s))


def _may_be_slower(step: Step) -> bool:
    """Whether a lower rate says more: not where a limit or the generator decides."""
    return step.good_per_s > 0 and not (step.cause or "").startswith(("limit", "rate_limited", "generator"))


def _lane_report(lane: Lane, planned: float, ran_s: float, course: Course, ceiling: Ceiling | None) -> LaneReport:
    total = course.total
    share = round(planned / ceiling.per_s, 4) if ceiling is not None and ceiling.per_s else None
    return LaneReport(
        lane=lane,
        planned_per_s=planned,
        offered=total.offered,
        offered_per_s=round(total.offered / ran_s, 2),
        good=total.good,
        good_per_s=round(total.good / ran_s, 2),
        p50_ms=total.times.quantile_ms(0.5),
        p99_ms=total.times.quantile_ms(0.99),
        max_ms=total.times.most_ms,
        statuses=dict(sorted(total.statuses.items())),
        codes=total.codes,
        retry_after_s=total.retry_after_s,
        queued=course.queued,
        ceiling=ceiling,
        share=share,
        met=total.offered > 0 and total.good >= MET_SHARE * total.offered,
        rows=course.rows,
    )
