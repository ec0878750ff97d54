"""What broke first, or would."""

from fastauth.rehearsal.report import GeneratorReport
from fastauth.rehearsal.verdict import judge
from fastauth.rehearsal.watch import GONE, Event
from tests.cases import each
from tests.rehearsal.reports import ceiling, lane, report, row

GOOD = [row(0), row(1), row(2)]
LATE = GeneratorReport(1, 30.0, 400.0, 900.0, 0.99, kept_up=False)
OVERLOADED = [row(0), row(1, 4, codes={"overloaded": 6}, statuses={503: 6}), row(2, 1, codes={"overloaded": 9})]
LIMITED = [row(0), row(1), row(2, 0, codes={"rate_limited": 10}, statuses={429: 10})]
SILENT = [row(0), row(1, 0, codes={"left": 10}, statuses={-1: 10})]
UNAVAILABLE = [row(0), row(1, 0, codes={"unavailable": 10}, statuses={503: 10})]


def test_the_first_second_that_was_not_good_decides() -> None:
    verdict = judge(report(lane("refresh", LIMITED), lane("login", OVERLOADED, retry_after_s=7)), {"login": 15})
    assert (verdict.what, verdict.lane, verdict.at_s) == ("login overloaded", "login", 1)
    assert "up to 7 s" in verdict.sentence
    assert "more cores or more nodes" in verdict.advice


@each(
    ("refused", "what", "setting"),
    [
        ({"login_global": 3, "login_per_ip": 12, "verify_per_ip": 99}, "limit login_per_ip", "LOGIN_PER_IP"),
        ({"login_global": 30, "login_per_ip": 12}, "limit login_global", "LOGIN_GLOBAL"),
        (None, "limit login_per_ip or login_global or login_per_user", "LOGIN_PER_IP"),
    ],
)
def test_the_limit_that_refused_is_named(refused: dict[str, int] | None, what: str, setting: str) -> None:
    verdict = judge(report(lane("login", LIMITED), refused_by_limit=refused), None)
    assert verdict.what == what
    assert verdict.advice.startswith(f"FASTAUTH_LIMITS__{setting}")


def test_one_account_that_logs_in_too_often_at_once_is_not_taken_for_a_lack_of_cores() -> None:
    assert judge(report(lane("login", OVERLOADED)), {"login": 0}).what == "limit login_per_user"
    assert judge(report(lane("login", OVERLOADED)), None).what == "login overloaded"


def test_a_dependency_that_went_before_is_named() -> None:
    events = [Event(0.9, "postgresql", is_trouble=True)]
    assert judge(report(lane("refresh", UNAVAILABLE), events=events), None).what == "dependency postgresql"
    assert judge(report(lane("refresh", UNAVAILABLE)), None).what == "refresh unavailable"
    assert judge(report(lane("login", OVERLOADED), events=events), None).what == "login overloaded"


def test_a_server_that_is_gone_has_reported_nothing() -> None:
    events = [Event(1.2, GONE, is_trouble=True)]
    lost = [row(0), row(1, 0, codes={"lost": 10}, statuses={0: 10})]
    verdict = judge(report(lane("login", lost), events=events), None)
    assert verdict.what == "server gone"
    assert "reported" not in verdict.sentence
    assert "did it end" in verdict.advice
    assert judge(report(lane("login", OVERLOADED), events=events), {"login": 15}).what == "login overloaded"


def test_a_generator_that_was_late_is_blamed_unless_the_server_refused() -> None:
    for seen in (GOOD, SILENT):
        verdict = judge(report(lane("verify", seen), generator=LATE), None)
        assert verdict.what == "generator"
        assert "400 ms late (p99) and computed 99%" in verdict.sentence
    assert judge(report(lane("login", OVERLOADED), generator=LATE), None).what == "login overloaded"
    assert judge(report(lane("verify", SILENT)), None).what == "verify left"


def test_one_bad_second_of_a_plan_that_was_met_broke_nothing() -> None:
    rows = [*map(row, range(200)), row(200, 9, codes={"overloaded": 1}, statuses={503: 1})]
    assert judge(report(lane("login", rows)), None).what == "nothing"


def test_where_nothing_broke_the_lane_that_is_nearest_to_its_ceiling_would() -> None:
    lanes = lane("login", GOOD, ceiling(20.0, "overloaded")), lane("verify", GOOD, ceiling(10.5, None))
    verdict = judge(report(*lanes), None)
    assert (verdict.what, verdict.at_s) == ("login overloaded", None)
    assert "50% of its ceiling (20/s), which a full queue" in verdict.sentence
    limited = judge(report(lane("refresh", GOOD, ceiling(11.0, "limit refresh_per_ip"))), None)
    assert limited.advice.startswith("FASTAUTH_LIMITS__REFRESH_PER_IP")


def test_a_ceiling_that_was_not_found_breaks_nothing() -> None:
    assert judge(report(lane("verify", GOOD, ceiling(900.0, None))), None).what == "nothing"
    assert (
        "the generator could offer no more"
        in judge(report(lane("verify", GOOD, ceiling(9.0, "generator"))), None).advice
    )
    assert judge(report(lane("verify", GOOD)), None).what == "nothing"


def test_refused_tokens_are_told_apart() -> None:
    rows = [row(0, 0, codes={"token_refused": 10}, statuses={401: 10})]
    assert judge(report(lane("verify", rows)), None).what == "token_refused"
