"""The report as one HTML file that needs nothing else: no network, no script; plots are SVG inside it."""

import math
import sys
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, Final
from xml.etree import ElementTree

from fastauth.rehearsal.course import Row
from fastauth.rehearsal.errors import RehearsalRefused
from fastauth.rehearsal.report import LaneReport, Report
from fastauth.rehearsal.text import capitalised, ceiling_text, outcome, sentences, status_texts, time_text

_MOST_POINTS: Final = 120
_SVG: Final = "http://www.w3.org/2000/svg"
_NAMES: Final = {-1: "left", 0: "no answer"}
# Okabe and Ito's colours, which people tell apart whatever colours they see.
_COLOURS: Final = ("#0072b2", "#e69f00")
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; color: #222;
background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { padding: .25rem .55rem; text-align: right;
border-bottom: 1px solid #ddd; white-space: nowrap }
td:last-child { white-space: normal; min-width: 9rem } th:first-child, td:first-child { text-align: left }
.outcome { font-weight: 600; padding: .6rem 1rem; border-left: .4rem solid }
.met { border-color: #009e73; background: #e8f5f0 }
.missed { border-color: #d55e00; background: #fbeee6 } figure { margin: 1rem 0 } svg { width: 100%; height: auto }
svg .line { stroke-width: 3px !important }
"""


def require_plots() -> None:
    """Raises RehearsalRefused if what draws plots is not installed."""
    try:
        _library()
    except ImportError:
        raise RehearsalRefused("--html needs a library for plots; run: pip install 'fastauth[rehearse]'") from None


def _library() -> Any:
    """pygal, without the hook for plugins that it leaves among the importers: Python before 3.12 warns of it."""
    import pygal

    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != pygal.__name__]
    return pygal


def page(report: Report) -> str:
    """The page. Whatever came from the network is escaped."""
    verdict = report.verdict
    served_by = escape(report.server_version or "of unknown version")
    parts = [
        f"<h1>Rehearsal of {escape(report.target)}</h1>",
        f"<p>{escape(report.started_at)}, {report.ran_s:,.0f} s; fastauth {served_by}, "
        f"asked by {escape(report.fastauth_version)}.</p>",
        f'<p class="outcome {"met" if report.met else "missed"}">{escape(outcome(report))}</p>',
    ]
    if verdict is not None:
        when = "" if verdict.at_s is None else f" (in second {verdict.at_s})"
        parts += [
            "<h2>What breaks first</h2>",
            f"<p><strong>{escape(capitalised(verdict.sentence))}{when}.</strong> Change: {escape(verdict.advice)}.</p>",
        ]
    parts += ["<h2>Lanes</h2>", _table(report.lanes)]
    parts += [f"<p>{escape(line)}</p>" for line in sentences(report)]
    if any(lane.ceiling is not None for lane in report.lanes):
        parts += ["<h2>Ceilings, and what was planned</h2>", _ceilings(report.lanes)]
    for lane in report.lanes:
        if lane.rows:
            parts += _plots_of(lane)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Rehearsal of {escape(report.target)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _table(lanes: Sequence[LaneReport]) -> str:
    heads = ("lane", "planned/s", "offered/s", "2xx in time/s", "p50", "p99", "max", "ceiling", "of ceiling", "answers")
    rows = [
        (
            lane.lane,
            f"{lane.planned_per_s:,.1f}",
            f"{lane.offered_per_s:,.1f}",
            f"{lane.good_per_s:,.1f}",
            time_text(lane.p50_ms),
            time_text(lane.p99_ms),
            time_text(lane.max_ms),
            ceiling_text(lane),
            "-" if lane.share is None else f"{lane.share:.0%}",
            ", ".join(f"{text}: {count:,}" for text, count in {**status_texts(lane), **lane.codes}.items()),
        )
        for lane in lanes
    ]
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
    return f'<div style="overflow-x: auto"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _ceilings(lanes: Sequence[LaneReport]) -> str:
    pygal = _library()
    ceilings = [None if lane.ceiling is None else lane.ceiling.per_s or None for lane in lanes]
    planned = [lane.planned_per_s for lane in lanes]
    chart = pygal.HorizontalBar(**_options(), **_logarithmic([*ceilings, *planned]))
    chart.x_labels = [lane.lane for lane in lanes]
    chart.x_title = "requests a second"
    chart.add("ceiling", ceilings)
    chart.add("planned", planned)
    return _figure(chart, "The ceiling of each lane alone, and the planned rate")


def _plots_of(lane: LaneReport) -> list[str]:
    return [f"<h2>{escape(lane.lane)}</h2>", *(_over_time(lane, draw) for draw in (_rates, _times, _statuses))]


def _over_time(lane: LaneReport, draw: Callable[[LaneReport, list[Sequence[Row]]], tuple[Any, str]]) -> str:
    points = _points(lane.rows)
    chart, title = draw(lane, points)
    step = -(-len(points) // 10)
    chart.x_labels = [str(point[0].at_s) if number % step == 0 else "" for number, point in enumerate(points)]
    chart.x_title = "seconds"
    return _figure(chart, f"{lane.lane}: {title}")


def _rates(_lane: LaneReport, points: list[Sequence[Row]]) -> tuple[Any, str]:
    pygal = _library()
    chart = pygal.Line(**_options(), show_dots=len(points) == 1, include_x_axis=True)
    chart.add("offered", [sum(row.offered for row in point) / len(point) for point in points])
    chart.add("2xx in time", [sum(row.good for row in point) / len(point) for point in points])
    return chart, "offered and answered, requests a second"


def _times(_lane: LaneReport, points: list[Sequence[Row]]) -> tuple[Any, str]:
    pygal = _library()
    p50 = [_worst(point, lambda row: row.p50_ms) for point in points]
    p99 = [_worst(point, lambda row: row.p99_ms) for point in points]
    chart = pygal.Line(**_options(), **_logarithmic([*p50, *p99]), show_dots=len(points) == 1)
    chart.add("p50", p50)
    chart.add("p99", p99)
    return chart, "how long it took, milliseconds"


def _statuses(lane: LaneReport, points: list[Sequence[Row]]) -> tuple[Any, str]:
    pygal = _library()
    statuses = sorted(lane.statuses, key=lambda status: (status <= 0, status))
    chart = pygal.StackedBar(**_options([_colour(status) for status in statuses]), include_x_axis=True)
    for status in statuses:
        counts = [sum(row.statuses.get(status, 0) for row in point) / len(point) for point in points]
        chart.add(_NAMES.get(status, str(status)), counts)
    return chart, "what was answered, requests a second"


def _colour(status: int) -> str:
    """The same for the same kind of answer in every plot."""
    if status == 429:
        return "#e69f00"
    return {2: "#0072b2", 4: "#cc79a7", 5: "#d55e00", 0: "#666666", -1: "#bbbbbb"}.get(
        status // 100 if status > 0 else status, "#f0e442"
    )


def _points(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Seconds that are drawn as one: more would be no wider than a hair."""
    width = -(-len(rows) // _MOST_POINTS)
    return [rows[begin : begin + width] for begin in range(0, len(rows), width)]


def _worst(point: Sequence[Row], time: Callable[[Row], float | None]) -> float | None:
    return max((ms for row in point if (ms := time(row))), default=None)


def _options(colours: Sequence[str] = _COLOURS) -> dict[str, Any]:
    style = _library().style.Style(
        colors=tuple(colours),
        background="white",
        plot_background="white",
        font_family="system-ui, sans-serif",
        opacity=".9",
        title_font_size=13,
        label_font_size=12,
        major_label_font_size=12,
        legend_font_size=14,
    )
    return {
        "style": style,
        "js": [],
        "width": 960,
        "height": 300,
        "no_data_text": "nothing",
        "formatter": lambda value: f"{value:,.6g}",
    }


def _logarithmic(values: Sequence[float | None]) -> dict[str, Any]:
    """An axis from a power of ten to another."""
    known = [value for value in values if value is not None and value > 0] or [1.0]
    low, high = math.floor(math.log10(min(known)) - 0.01), math.ceil(math.log10(max(known)) + 0.01)
    return {"logarithmic": True, "zero": 10.0**low, "y_labels": [10.0**power for power in range(low, high + 1)]}


def _figure(chart: Any, title: str) -> str:
    ElementTree.register_namespace("", _SVG)
    tree = ElementTree.fromstring(chart.render(is_unicode=True))  # noqa: S314 - what was made here; drops comments
    for parent in list(tree.iter()):
        for child in list(parent):
            if child.tag == f"{{{_SVG}}}script":
                parent.remove(child)
    tree.set("role", "img")
    tree.set("aria-label", title)
    svg = ElementTree.tostring(tree, encoding="unicode")
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"
