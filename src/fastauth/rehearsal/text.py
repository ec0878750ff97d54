"""A rehearsal on a terminal: the progress, live or as plain lines, and the report."""

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from fastauth.rehearsal.course import Row
from fastauth.rehearsal.plan import Lane
from fastauth.rehearsal.report import LaneReport, Report, rate_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ALARM: Final = "bold red"
_WARN: Final = "yellow"
_GOOD: Final = "green"
_WORDS: Final = {"0": "no answer", "-1": "left"}


class PlainProgress:
    """A line for each phase and each second."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = ""
        self._told_at_s = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def phase(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(text)

    def second(self, ran_s: float, planned_s: float, lanes: dict[Lane, tuple[float, Row]]) -> None:
        at_s = max((row.at_s for _, row in lanes.values()), default=-1)
        if at_s == self._told_at_s:
            return
        self._told_at_s = at_s
        parts = [
            f"{lane} {row.good:,} of {row.offered:,} p99 {time_text(row.p99_ms)}" for lane, (_, row) in lanes.items()
        ]
        if parts:
            self._say(f"{ran_s:.0f} s of {planned_s:.0f}: {'; '.join(parts)}")


class LiveProgress:
    """A table that is drawn anew each second, and is gone at the end."""

    def __init__(self, console: "Console") -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def phase(self, text: str) -> None:
        from rich.text import Text

        self._live.update(Text.assemble(("rehearsal", "bold"), f"  {text} ..."), refresh=True)

    def second(self, ran_s: float, planned_s: float, lanes: dict[Lane, tuple[float, Row]]) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar

        table = _table(
            f"{ran_s:.0f} s of {planned_s:.0f} s",
            "lane",
            "planned/s",
            "offered/s",
            "2xx/s",
            "p50",
            "p99",
            "other answers",
        )
        for lane, (planned, row) in lanes.items():
            table.add_row(
                lane,
                f"{planned:,.0f}",
                f"{row.offered:,}",
                f"[{_GOOD if row.good >= row.offered * 0.99 else _ALARM}]{row.good:,}[/]",
                time_text(row.p50_ms),
                time_text(row.p99_ms),
                f"[{_WARN}]{_counts(row.codes)}[/]" if row.codes else "-",
            )
        bar = ProgressBar(total=planned_s, completed=ran_s, width=60)
        self._live.update(Group(table, bar), refresh=True)


def print_report(console: "Console", report: Report) -> None:
    """The report, a table of lanes and then sentences."""
    console.print(_lanes(report))
    for lane in report.lanes:
        others = {text: count for text, count in status_texts(lane).items() if not text.startswith("2")}
        if others:
            console.print(f"{lane.lane}: {_counts(others)}; {_counts(lane.codes)}", style=_WARN, highlight=False)
    for line in sentences(report):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    verdict = report.verdict
    if verdict is not None:
        console.print("\nWhat breaks first", style="bold")
        when = "" if verdict.at_s is None else f" (in second {verdict.at_s})"
        console.print(f"{capitalised(verdict.sentence)}{when}.", highlight=False, soft_wrap=True, markup=False)
        console.print(f"Change: {verdict.advice}.", highlight=False, soft_wrap=True, markup=False)
    style = _GOOD if report.met else _ALARM
    console.print(f"\n{outcome(report)}", style=style, highlight=False)


def outcome(report: Report) -> str:
    """Whether the plan was met, in one sentence."""
    if report.interrupted:
        return f"Interrupted after {report.ran_s:,.0f} s of {report.planned_s:,.0f} s: the plan was not met."
    if report.met:
        return "The plan was met: 99 % of every lane were answered 2xx in time."
    missed = ", ".join(lane.lane for lane in report.lanes if not lane.met)
    return f"The plan was not met by {missed}: fewer than 99 % were answered 2xx in time."


def sentences(report: Report) -> list[str]:
    """What has to be said beside the figures of the lanes."""
    generator, preparation = report.generator, report.preparation
    lines = [
        f"The generator was {time_text(generator.late_p50_ms)} late (p50), {time_text(generator.late_p99_ms)} (p99), "
        f"{time_text(generator.late_max_ms)} at most, and computed {generator.busy:.0%} of its time"
        + ("." if generator.kept_up else ": it could not keep up, and what it saw is not the server alone.")
    ]
    if preparation.wanted:
        lines.append(
            f"{preparation.opened:,} of {preparation.wanted:,} sessions were opened beforehand, in "
            f"{preparation.seconds:.1f} s; the server told {preparation.told_to_wait:,} of these logins to wait."
        )
    queued = sum(lane.queued for lane in report.lanes)
    if queued:
        lines.append(f"{queued:,} requests waited for a connection or a session to be free; their times include it.")
    for event in report.events:
        lines.append(
            f"At {event.at_s:.0f} s the server {'reported' if event.is_trouble else 'was rid of'}: {event.what}."
        )
    if report.refused_by_limit:
        lines.append(f"Refused by limits meanwhile: {_counts(report.refused_by_limit)}.")
    return lines


def capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def ceiling_text(lane: LaneReport) -> str:
    """``1,200/s``, or ``over 1,200/s`` where it was not found."""
    if lane.ceiling is None:
        return "-"
    rate = rate_text(lane.ceiling.per_s)
    return rate if lane.ceiling.is_found else f"over {rate}"


def status_texts(lane: LaneReport) -> dict[str, int]:
    """Counts by status as a person calls it."""
    return {_WORDS.get(str(status), str(status)): count for status, count in lane.statuses.items()}


def time_text(ms: float | None) -> str:
    if ms is None:
        return "-"
    return f"{ms / 1e3:.2f} s" if ms >= 1_000 else f"{ms:.2f} ms" if ms < 10 else f"{ms:.0f} ms"


def _lanes(report: Report) -> "Table":
    table = _table(
        f"rehearsal of {report.target}, {report.ran_s:,.0f} s",
        *("lane", "planned/s", "offered/s", "2xx in time/s", "p50", "p99", "max", "ceiling", "of ceiling"),
    )
    for lane in report.lanes:
        table.add_row(
            lane.lane,
            f"{lane.planned_per_s:,.1f}",
            f"{lane.offered_per_s:,.1f}",
            f"[{_GOOD if lane.met else _ALARM}]{lane.good_per_s:,.1f}[/]",
            time_text(lane.p50_ms),
            time_text(lane.p99_ms),
            time_text(lane.max_ms),
            ceiling_text(lane),
            "-" if lane.share is None else f"{lane.share:.0%}",
        )
    return table


def _table(title: str, *columns: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda one: -one[1])) or "-"
