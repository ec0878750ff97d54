"""What may be rehearsed."""

import pytest

from fastauth.rehearsal.errors import RehearsalRefused
from fastauth.rehearsal.plan import MOST_CONNECTIONS, Plan, check_plan, parse_rate, parse_time
from tests.cases import each


@each(("text", "per_s"), [("500/s", 500.0), ("30/m", 0.5), ("0.5/s", 0.5), ("10,000/s", 10_000.0)])
def test_a_rate_is_requests_a_second(text: str, per_s: float) -> None:
    assert parse_rate(text) == per_s


@each("text", ["500", "0/s", "-1/s", "1/h", "100001/s", "nan/s", "1e9/s", ""])
def test_any_other_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a rate is like"):
        parse_rate(text)


@each(("text", "seconds"), [("500ms", 0.5), ("60s", 60.0), ("5m", 300.0), ("1h", 3600.0)])
def test_a_time_is_seconds(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@each("text", ["60", "1d", "-1s", "s", ""])
def test_any_other_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a time is like"):
        parse_time(text)


@each(
    ("plan", "says"),
    [
        (Plan({}, 60.0), "say what is rehearsed"),
        (Plan({"login": 60_000.0, "verify": 60_000.0}, 60.0), "not be more than 100,000/s"),
        (Plan({"login": 1.0}, 0.5), "--for"),
        (Plan({"login": 1.0}, 3_601.0), "--for"),
        (Plan({"login": 1.0}, 60.0, patience_s=61.0), "--patience"),
        (Plan({"login": 1.0}, 60.0, p99_s=4.0), "--p99"),
        (Plan({"verify": 100_000.0}, 60.0, patience_s=4.0), "times --patience"),
    ],
)
def test_a_plan_out_of_bounds_is_refused(plan: Plan, says: str) -> None:
    with pytest.raises(RehearsalRefused, match=says):
        check_plan(plan)


def test_sessions_are_as_many_as_refreshing_them_needs() -> None:
    assert Plan({"login": 500.0}, 60.0).sessions_wanted == 0
    assert Plan({"verify": 10_000.0}, 60.0).sessions_wanted == 64
    assert Plan({"verify": 10.0}, 60.0).sessions_wanted == 8
    assert Plan({"refresh": 100.0}, 60.0).sessions_wanted == 70  # a hundred refreshes each
    assert Plan({"refresh": 2_000.0}, 60.0).sessions_wanted == 1_000
    assert Plan({"refresh": 2_000.0}, 60.0, sessions=5).sessions_wanted == 5


def test_connections_are_bounded() -> None:
    plan = Plan({"login": 1.0, "verify": 90_000.0}, 60.0)
    assert plan.connections(1.0) == (1, 16)
    assert plan.connections(90_000.0) == (32, MOST_CONNECTIONS // 2)
