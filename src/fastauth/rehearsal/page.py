"""The report as one HTML file that needs nothing else: no network, no script; plots are SVG inside it."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any, Final
from xml.etree import ElementTree

from fastauth.rehearsal.course import Row
from fastauth.rehearsal.errors import RehearsalRefused
from fastauth.rehearsal.report import LaneReport, Report
from fastauth.rehearsal.text import ceiling_text, outcome, sentences, status_texts, time_text

_MOST_POINTS: Final = 120
_SVG: Final = "http://www.w3.org/2000/svg"
# Okabe and Ito's colours, which people tell apart whatever colours they see.
_COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#999999", "#f0e442")
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222;
background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { padding: .25rem .75rem; text-align: right;
border-bottom: 1px solid #ddd } th:first-child, td:first-child { text-align: left }
.outcome { font-weight: 600; padding: .6rem 1rem; border-left: .4rem solid }
.met { border-color: #009e73; background: #e8f5f0 }
.missed { border-color: #d55e00; background: #fbeee6 } figure { margin: 1rem 0 } svg { width: 100%; height: auto }
"""


def require_plots() -> None:
    """Raises RehearsalRefused if what draws plots is not installed."""
    try:
        import pygal  # noqa: F401
    except ImportError:
        raise RehearsalRefused("--html needs a library for plots; run: pip install 'fastauth[rehearse]'") from None


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
            f"<p><strong>{escape(verdict.sentence)}{when}.</strong> Change: {escape(verdict.advice)}.</p>",
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
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _ceilings(lanes: Sequence[LaneReport]) -> str:
    import pygal

    chart = pygal.HorizontalBar(**_options("requests a second", logarithmic=True))
    chart.x_labels = [lane.lane for lane in lanes]
    chart.add("ceiling", [None if lane.ceiling is None else lane.ceiling.per_s or None for lane in lanes])
    chart.add("planned", [lane.planned_per_s for lane in lanes])
    return _figure(chart, "The ceiling of each lane alone, and the planned rate")


def _plots_of(lane: LaneReport) -> list[str]:
    import pygal

    points = _points(lane.rows)
    name = escape(lane.lane)
    rates = pygal.Line(**_options("requests a second", range_from_0=True), show_dots=False)
    rates.add("offered", [sum(row.offered for row in point) / len(point) for point in points])
    rates.add("2xx in time", [sum(row.good for row in point) / len(point) for point in points])
    times = pygal.Line(**_options("milliseconds", logarithmic=True), show_dots=False)
    times.add("p50", [_worst(point, lambda row: row.p50_ms) for point in points])
    times.add("p99", [_worst(point, lambda row: row.p99_ms) for point in points])
    statuses = pygal.StackedBar(**_options("requests a second", range_from_0=True))
    names = {-1: "left", 0: "no answer"}
    for status in sorted({status for row in lane.rows for status in row.statuses}, reverse=True):
        counts = [sum(row.statuses.get(status, 0) for row in point) / len(point) for point in points]
        statuses.add(names.get(status, str(status)), counts)
    figures = []
    for chart, title in (
        (rates, f"{name}: offered and answered"),
        (times, f"{name}: how long it took"),
        (statuses, f"{name}: what was answered"),
    ):
        step = max(1, len(points) // 10)
        chart.x_labels = [str(point[0].at_s) if number % step == 0 else "" for number, point in enumerate(points)]
        chart.x_title = "seconds"
        figures.append(_figure(chart, title))
    return [f"<h2>{name}</h2>", *figures]


def _points(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Seconds that are drawn as one: more would be no wider than a hair."""
    width = -(-len(rows) // _MOST_POINTS)
    return [rows[begin : begin + width] for begin in range(0, len(rows), width)]


def _worst(point: Sequence[Row], time: Callable[[Row], float | None]) -> float | None:
    return max((ms for row in point if (ms := time(row))), default=None)


def _options(y_title: str, *, logarithmic: bool = False, range_from_0: bool = False) -> dict[str, Any]:
    from pygal.style import Style

    style = Style(
        colors=_COLOURS,
        background="white",
        plot_background="white",
        font_family="system-ui, sans-serif",
        opacity=".85",
        title_font_size=20,
    )
    return {
        "style": style,
        "js": [],
        "width": 960,
        "height": 320,
        "y_title": y_title,
        "logarithmic": logarithmic,
        "include_x_axis": range_from_0,
        "legend_at_bottom": False,
        "no_data_text": "nothing",
        "disable_xml_declaration": True,
        "print_values": False,
        "formatter": lambda value: f"{value:,.6g}",
    }


def _figure(chart: Any, title: str) -> str:
    tree = chart.render_tree()
    for parent in tree.iter():
        for child in list(parent):
            if child.tag in ("script", f"{{{_SVG}}}script"):
                parent.remove(child)
    tree.set("role", "img")
    tree.set("aria-label", title)
    svg = ElementTree.tostring(tree, encoding="unicode")
    return f"<figure><figcaption>{title}</figcaption>{svg}</figure>"
