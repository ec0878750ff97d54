"""What is reported of a lane."""

from fastauth.rehearsal.course import Course
from fastauth.rehearsal.rehearsing import _lane_report
from fastauth.rehearsal.tally import Tally
from tests.cases import each
from tests.rehearsal.reports import ceiling
from tests.rehearsal.test_tally import ended


@each(
    ("found", "per_s"),
    [(ceiling(1.2, None), 5.0), (ceiling(9.0, None), 9.0), (ceiling(1.2, "overloaded"), 1.2)],
)
def test_the_plan_may_have_gone_higher_than_a_search_that_ran_out_of_time(found: object, per_s: float) -> None:
    course, tally = Course(2.0, patience_s=3.0), Tally({})
    for number in range(10):
        ended(tally, number / 5, 0.01, 200)
    course.add(tally.taken())
    course.end()
    reported = _lane_report("login", 5.0, 2.0, course, found)  # type: ignore[arg-type]
    assert reported.ceiling is not None
    assert reported.ceiling.per_s == per_s
    assert reported.share == round(5.0 / per_s, 4)
