"""The report as a page, and on a terminal."""

import io
import re
import sys
from html.parser import HTMLParser

import pytest
from rich.console import Console

from fastauth.rehearsal.errors import RehearsalRefused
from fastauth.rehearsal.page import page, require_plots
from fastauth.rehearsal.report import Report, Verdict
from fastauth.rehearsal.text import print_report
from tests.rehearsal.reports import ceiling, lane, report, row


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.fixture
def full() -> Report:
    evil = "<script>alert(1)</script>"
    rows = [row(0), row(1, 3, codes={evil: 7}, statuses={429: 4, 503: 2, -1: 1}), row(2)]
    made = report(
        lane("login", rows, ceiling(20.0, "overloaded")),
        lane("verify", [row(0)], ceiling(900.0, None)),
        server_version=evil,
    )
    made.verdict = Verdict("login", "login", evil, "more", 1)
    return made


def test_the_page_needs_nothing_else_and_runs_nothing(full: Report) -> None:
    text = page(full)
    tags = Tags()
    tags.feed(text)
    names = {name for name, _ in tags.seen}
    assert not names & {"script", "link", "img", "iframe", "object"}
    for _, attributes in tags.seen:
        assert not any(name.startswith("on") for name in attributes)
        assert not any(name in ("src", "href", "xlink:href") for name in attributes)
    assert set(re.findall(r"https?://[^\"'<> ;]+", text)) <= {"http://127.0.0.1:8000", "http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert "<script>" not in text
    assert text.count('role="img"') == 1 + 2 * 3


def test_a_long_run_is_drawn_with_a_bounded_number_of_points() -> None:
    short = len(page(report(lane("verify", [row(number) for number in range(120)]))))
    assert len(page(report(lane("verify", [row(number) for number in range(3_600)])))) < 1.5 * short


def test_without_the_library_for_plots_it_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygal", None)
    with pytest.raises(RehearsalRefused, match=r"pip install 'fastauth\[rehearse\]'"):
        require_plots()


def test_the_terminal_says_the_same(full: Report) -> None:
    console = Console(file=io.StringIO(), width=140)
    print_report(console, full)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"login +10\.0 +10\.0 +7\.7 .* 20/s +50%", text)
    assert re.search(r"verify .* over 900/s +1%", text)
    assert "What breaks first" in text
    assert "Change: more." in text
    assert "The plan was not met by login" in text
