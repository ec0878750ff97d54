"""The rehearsal itself: preflight, sessions, ceilings, the plan, the report."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec

from fastauth.rehearsal.asking import Metrics, preflight
from fastauth.rehearsal.ceilings import LONGEST_REST_S, Ceilings
from fastauth.rehearsal.conductor import Conductor, shares
from fastauth.rehearsal.course import Course
from fastauth.rehearsal.display import Display
from fastauth.rehearsal.errors import RehearsalRefused
from fastauth.rehearsal.generator import LaneLoad, Opening, Told
from fastauth.rehearsal.measured import Measured
from fastauth.rehearsal.opening import Granted, open_sessions
from fastauth.rehearsal.people import Person
from fastauth.rehearsal.plan import Lane, Plan
from fastauth.rehearsal.report import MET_SHARE, Ceiling, GeneratorReport, LaneReport, Report
from fastauth.rehearsal.target import Target
from fastauth.rehearsal.verdict import judge
from fastauth.rehearsal.watch import Event, Watch, metrics_now, refused_between


class _Run(NamedTuple):
    """The plan as it was played: the sessions that are left, and what the server had counted before and after."""

    measured: Measured
    ran_s: float
    interrupted: bool
    left: int
    before: Metrics | None
    after: Metrics | None
    events: list[Event]

    @property
    def refused_by_lane(self) -> dict[str, int] | None:
        """None where the server did not say."""
        if self.before is None or self.after is None:
            return None
        past = self.before.refused_by_lane
        return {lane: count - past.get(lane, 0) for lane, count in self.after.refused_by_lane.items()}


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
            ceilings = Ceilings(self.target, self.plan, conductor, display).find() if self.plan.ceiling_s else {}
            run = self._run(conductor, display)
        lanes = [
            _lane_report(lane, rate, run.ran_s, run.measured.courses[lane], ceilings.get(lane))
            for lane, rate in self.plan.rates.items()
        ]
        report = Report(
            target=str(self.target.origin),
            server_version=server_version,
            fastauth_version=version("fastauth"),
            started_at=started_at,
            planned_s=self.plan.seconds,
            ran_s=round(run.ran_s, 1),
            patience_s=self.plan.patience_s,
            p99_bound_ms=self.plan.p99_s * 1e3,
            interrupted=run.interrupted,
            met=not run.interrupted and all(lane.met for lane in lanes),
            preparation=preparation,
            sessions_left=run.left,
            lanes=lanes,
            generator=_generator_report(self._generators(granted), run.measured),
            refused_by_limit=refused_between(run.before, run.after),
            events=run.events,
        )
        report.verdict = judge(report, run.refused_by_lane)
        return report

    def _generators(self, granted: Sequence[Granted]) -> int:
        """Each needs a session of its own to refresh."""
        return min(self.plan.generators, len(granted)) if "refresh" in self.plan.rates else self.plan.generators

    def _check_lives(self, granted: Sequence[Granted]) -> None:
        """Raises RehearsalRefused if access tokens end before the rehearsal does, and no refresh brings others."""
        if "verify" not in self.plan.rates or "refresh" in self.plan.rates:
            return
        needed_s = self.plan.seconds + self.plan.ceiling_s * len(self.plan.rates) + LONGEST_REST_S * 2
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

    def _run(self, conductor: Conductor, display: Display) -> "_Run":
        """The plan, with what the server says of itself before, meanwhile and after."""
        before = metrics_now(self.target)
        watch = Watch(self.target)
        watch.begin()
        try:
            played = self._play(conductor, display)
        finally:
            watch.end()
        return _Run(*played, before, metrics_now(self.target), watch.events)

    def _play(self, conductor: Conductor, display: Display) -> tuple[Measured, float, bool, int]:
        """Out: what was measured, for how long, whether it was interrupted, and the sessions that are left."""
        rates, seconds = self.plan.rates, self.plan.seconds
        display.phase(f"the plan, for {seconds:,.0f} s")
        measured = Measured(list(rates), seconds, self.plan.patience_s)
        began_s = time.monotonic()

        def told(report: Told) -> None:
            measured.add(report)
            latest = {lane: (rates[lane], row) for lane, course in measured.courses.items() if (row := course.latest())}
            display.second(min(seconds, time.monotonic() - began_s), seconds, latest)

        loads = {lane: LaneLoad(rate, *self.plan.connections(rate)) for lane, rate in rates.items()}
        ran_s, interrupted = seconds, False
        try:
            left = conductor.run(seconds, loads, told)
        except KeyboardInterrupt:
            ran_s, interrupted = min(seconds, time.monotonic() - began_s), True
            display.phase("interrupted: waiting for the answers that are on their way")
            conductor.stop()
            left = conductor.finish(told)
        for course in measured.courses.values():
            course.end()
        return measured, max(0.1, ran_s), interrupted, left


def _generator_report(generators: int, measured: Measured) -> GeneratorReport:
    late = measured.late
    return GeneratorReport(
        generators,
        late.quantile_ms(0.5) or 0.0,
        late.quantile_ms(0.99) or 0.0,
        late.most_ms or 0.0,
        round(measured.busy, 3),
        measured.is_punctual,
    )


def _lane_report(lane: Lane, planned: float, ran_s: float, course: Course, ceiling: Ceiling | None) -> LaneReport:
    total = course.total
    good_per_s = round(total.good / ran_s, 2)
    if ceiling is not None and ceiling.cause is None:  # only time ended the search: the plan may have gone higher
        ceiling = msgspec.structs.replace(ceiling, per_s=max(ceiling.per_s, good_per_s))
    share = round(planned / ceiling.per_s, 4) if ceiling is not None and ceiling.per_s else None
    return LaneReport(
        lane=lane,
        planned_per_s=planned,
        offered=total.offered,
        offered_per_s=round(total.offered / ran_s, 2),
        good=total.good,
        good_per_s=good_per_s,
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
