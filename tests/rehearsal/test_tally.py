"""Counts and histograms of a lane."""

import random

import pytest

from fastauth.rehearsal.clients import Answer
from fastauth.rehearsal.connections import Flight
from fastauth.rehearsal.course import Course
from fastauth.rehearsal.samples import quantile_ms
from fastauth.rehearsal.tally import Histogram, Tally


def ended(tally: Tally, due_s: float, took_s: float, status: int) -> None:
    flight = Flight(0, 0, due_s, None)
    flight.took_s, flight.status = took_s, status
    tally.departed(due_s, 0.0001)
    tally.ended(flight)


def test_a_quantile_is_off_by_no_more_than_half_a_bucket() -> None:
    times = [random.lognormvariate(-5, 1.5) for _ in range(5_000)]
    histogram = Histogram()
    for seconds in times:
        histogram.add(seconds)
    for part in (0.1, 0.5, 0.9, 0.99, 0.999):
        assert histogram.quantile_ms(part) == pytest.approx(quantile_ms(times, part), rel=0.025)
    assert histogram.most_ms == pytest.approx(max(times) * 1e3, abs=0.001)
    assert Histogram().quantile_ms(0.5) is None


def test_histograms_add_up() -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for number in range(1_000):
        (one if number % 3 else other).add(number / 1e4)
        both.add(number / 1e4)
    one.merge(other)
    assert one == both


def test_requests_count_in_the_second_in_which_they_were_due() -> None:
    tally = Tally({})
    ended(tally, 0.5, 0.1, 200)
    ended(tally, 0.9, 0.2, 200)
    ended(tally, 1.5, 3.0, -1)
    taken = tally.taken()
    assert {number: (one.offered, one.good, one.done) for number, one in taken.seconds.items()} == {
        0: (2, 2, 1),
        1: (1, 0, 1),
    }
    assert tally.taken().seconds == {}


def test_a_lost_connection_has_no_time_and_a_client_that_left_has_the_time_until_then() -> None:
    tally = Tally({})
    ended(tally, 0.1, 0.0005, 0)  # refused at once: no answer was ever that fast
    lost = tally.taken().seconds[0]
    assert (lost.offered, lost.statuses, lost.times.quantile_ms(0.5), lost.times.most_ms) == (1, {0: 1}, None, None)
    ended(tally, 0.2, 3.0, -1)
    assert tally.taken().seconds[0].times.quantile_ms(0.5) == pytest.approx(3_000, rel=0.03)


def test_an_answer_that_is_no_2xx_is_explained() -> None:
    tally = Tally({"More is waiting.": "overloaded"})
    for status, head, body in (
        (429, b"HTTP/1.1 429 x\r\nretry-after: 7", b'{"code": "rate_limited"}'),
        (503, b"", b'{"error": "temporarily_unavailable", "error_description": "More is waiting."}'),
        (400, b"", b'{"error": "invalid_grant", "error_description": "x"}'),
        (400, b"", b"<html>"),
        (500, b"", b'{"code": "\\u001b[31mred"}'),
        (0, b"", b""),
        (-1, b"", b""),
    ):
        ended(tally, 2.0, 0.1, status)
        tally.explain(Answer(status, head, body))
    second = tally.taken().seconds[2]
    assert second.codes == dict.fromkeys(
        ("rate_limited", "overloaded", "invalid_grant", "http_400", "??31mred", "lost", "left"), 1
    )
    assert second.retry_after_s == 7


def test_a_server_cannot_make_codes_without_end() -> None:
    tally = Tally({})
    for number in range(100):
        ended(tally, 0.0, 0.1, 500)
        tally.explain(Answer(500, b"", b'{"code": "c%d"}' % number))
    codes = tally.taken().seconds[0].codes
    assert len(codes) == 21
    assert codes["other"] == 80


def test_a_course_closes_its_seconds_and_keeps_a_row_of_each() -> None:
    course = Course(100.0, patience_s=1.0)
    tally = Tally({})
    for second in range(100):
        ended(tally, second + 0.5, 0.01, 200)
        ended(tally, second + 0.6, 0.02, 503)
        course.add(tally.taken())
        assert len(course._open) <= 5
    latest = course.latest()
    assert latest is not None
    assert latest.at_s == 98
    course.end()
    assert [row.at_s for row in course.rows] == list(range(100))
    assert {(row.offered, row.good) for row in course.rows} == {(2, 1)}
    assert course.total.statuses == {200: 100, 503: 100}


def test_what_is_done_after_the_end_is_not_done_in_the_time_that_was_asked_for() -> None:
    course, tally = Course(1.0, patience_s=3.0), Tally({})
    ended(tally, 0.1, 0.5, 200)
    ended(tally, 0.9, 0.5, 200)
    ended(tally, 1.001, 0.1, 200)  # a generator that began a little later than the others
    course.add(tally.taken())
    course.end()
    assert (course.total.offered, course.total.good, course.total.done) == (3, 3, 1)
    assert [row.offered for row in course.rows] == [3]
