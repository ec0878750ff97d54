"""The ceilings: how much each lane takes alone, found in steps of a second at rates that rise."""

import time
from typing import Final, NamedTuple

from fastauth.rehearsal.conductor import Conductor
from fastauth.rehearsal.display import Display
from fastauth.rehearsal.generator import LaneLoad
from fastauth.rehearsal.measured import Measured, goodput
from fastauth.rehearsal.plan import LANES, MAX_PER_S, Lane, Plan
from fastauth.rehearsal.report import Ceiling, Step
from fastauth.rehearsal.target import Target
from fastauth.rehearsal.watch import metrics_now, refused_between

_STEP_S: Final = 1.0
_FIRST_PART: Final = 0.25  # of the planned rate, where a ramp begins
_FACTOR: Final = 1.6
_MOST_REFRESHES: Final = 4.0  # times the planned rate: sessions may not be refreshed any faster (plan.py)
_KEPT_UP: Final = 0.95
_SERVED: Final = 0.85  # while the step lasts; less leaves a queue behind, or is the chance of few requests
_FEW_REFUSED: Final = 0.01
LONGEST_REST_S: Final = 5.0  # after a step that was too much


class Ceilings(NamedTuple):
    """Of which plan, at whom, with which generators; ``find`` looks for them."""

    target: Target
    plan: Plan
    conductor: Conductor
    display: Display

    def find(self) -> dict[Lane, Ceiling]:
        """Of each lane alone. Logins last: what they leave behind in a queue takes longest."""
        return {lane: self._ceiling(lane) for lane in sorted(self.plan.rates, key=LANES.index, reverse=True)}

    def _ceiling(self, lane: Lane) -> Ceiling:
        planned = self.plan.rates[lane]
        per_s, highest = planned * _FIRST_PART, MAX_PER_S
        if lane == "refresh":
            highest = planned * _MOST_REFRESHES
        ends_s = time.monotonic() + self.plan.ceiling_s
        steps: list[Step] = []
        cause = None
        while True:
            self.display.phase(f"ceiling of {lane}: {per_s:,.1f}/s")
            step, rest_s = self._step(lane, per_s)
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

    def _step(self, lane: Lane, per_s: float) -> tuple[Step, float]:
        """A second at this rate (longer for the rarest), and for how long the server should rest after it."""
        seconds = max(_STEP_S, min(5.0, 3 / per_s))
        before = metrics_now(self.target)
        measured = Measured([lane], seconds, self.plan.patience_s)
        self.conductor.run(seconds, {lane: LaneLoad(per_s, *self.plan.connections(per_s))}, measured.add)
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
        rest_s = min(LONGEST_REST_S, max(1.0, float(total.retry_after_s)))
        return Step(round(offered_per_s, 2), round(goodput(total, seconds), 2), p99_ms, cause), rest_s


def _may_be_slower(step: Step) -> bool:
    """Whether a lower rate says more: not where a limit or the generator decides."""
    return step.good_per_s > 0 and not (step.cause or "").startswith(("limit", "rate_limited", "generator"))
