"""Plots of records, as SVG beside ``benchmarks/README.md``; every point comes from the record."""

from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.machine import ROOT

PLOTS: Final = ROOT / "benchmarks" / "plots"
_COLOURS: Final = {"fastauth": "#2563eb", "Go": "#d97706"}


def _style() -> None:
    mpl.use("svg")
    plt.rcParams.update(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "svg.hashsalt": "fastauth",  # the same record gives the same file
            "figure.facecolor": "white",
        }
    )


def _save(figure: Any, name: str) -> None:
    PLOTS.mkdir(exist_ok=True)
    figure.savefig(PLOTS / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def plot_overload(record: dict[str, Any]) -> None:
    """Offered load against goodput, p50 and p99, for each pair of servers."""
    _style()
    pairs = (("OWASP hash", "Go, OWASP hash"), ("cheapest hash", "Go, no hash"))
    figure, axes = plt.subplots(2, 2, figsize=(11, 7))
    for column, (kind, rival) in enumerate(pairs):
        for name in (f"fastauth, {kind}", rival):
            curve = record["curves"][name]
            colour = _COLOURS[name.partition(",")[0]]
            points = curve["points"]
            factors = [point["offered_per_s"] / curve["capacity_per_s"] for point in points]
            peak = max(point["goodput_per_s"] for point in points)
            goodput, times = axes[0][column], axes[1][column]
            goodput.plot(factors, [point["goodput_per_s"] / peak for point in points], "o-", color=colour, label=name)
            times.plot(factors, [point["p99_ms"] for point in points], "o-", color=colour, label=f"{name}: p99")
            times.plot(factors, [point["p50_ms"] for point in points], "o:", color=colour, label=f"{name}: p50")
        goodput.set_ylabel("answered in 3 s, part of own peak")
        goodput.set_ylim(0, 1.08)
        times.set_ylabel("time of 200 answers, ms")
        times.set_yscale("log")
        for axis in (goodput, times):
            axis.set_xlabel("offered load, times own capacity")
            axis.set_xscale("log", base=2)
            axis.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
            axis.legend(fontsize=8)
        goodput.set_title(f"POST /auth: {kind}")
    figure.tight_layout()
    _save(figure, "overload")


def plot_side_by_side(record: dict[str, Any]) -> None:
    """Requests a second of each journey, ours and what others do in its place."""
    _style()
    figures = record["figures"]
    groups = {
        "validate a token": (("fastauth, seen", "verify RS256"), ("fastauth, unseen", "verify_unseen RS256"),
                             ("Go", "go validate"), ("plain Python", "python validate"), ("bare granian", "hello")),
        "log in": (("fastauth, ES256", "login ES256"), ("fastauth, RS256", "login RS256"), ("Go, RS256", "go login"),
                   ("plain Python, RS256", "python login"), ("raw RS256", "sign RS256")),
        "client credentials": (("fastauth, ES256", "client_credentials ES256"),
                               ("fastauth, RS256", "client_credentials RS256"),
                               ("node, ES256", "node client_credentials ES256"),
                               ("node, RS256", "node client_credentials RS256"), ("raw RS256", "sign RS256")),
        "introspect": (("fastauth", "introspect RS256"), ("node, opaque", "node introspect"),
                       ("bare granian, form", "form")),
    }  # fmt: skip
    figure, axes = plt.subplots(1, len(groups), figsize=(13, 3.4))
    for axis, (title, bars) in zip(axes, groups.items(), strict=True):
        shown = [(name, figures[row]) for name, row in bars if row in figures][::-1]
        colours = ["#2563eb" if name.startswith("fastauth") else "#9ca3af" for name, _ in shown]
        drawn = axis.barh([name for name, _ in shown], [value for _, value in shown], color=colours)
        axis.bar_label(drawn, [f"{value:,.0f}" for _, value in shown], padding=3, fontsize=8)
        axis.set_title(title)
        axis.set_xlim(0, 1.25 * max(value for _, value in shown))
        axis.set_xticks([])
        axis.grid(visible=False)
    figure.suptitle("requests a second on one core", y=1.02)
    figure.tight_layout()
    _save(figure, "side-by-side")


def plot_storm(record: dict[str, Any]) -> None:
    """The login storm second by second, and who was served when by when they came."""
    _style()
    figure, (storm, line) = plt.subplots(1, 2, figsize=(11, 3.8))
    series = record["storm"]["series"]
    for name, colour in (("login", "#d97706"), ("refresh", "#16a34a")):
        buckets = series[name]
        seconds = [bucket["at_s"] for bucket in buckets]
        storm.plot(seconds, [2 * bucket["requests"] for bucket in buckets], ":", color=colour, label=f"{name}: offered")
        storm.plot(seconds, [2 * bucket["good"] for bucket in buckets], "-", color=colour, label=f"{name}: in 3 s")
    storm.set_xlabel("seconds")
    storm.set_ylabel("a second")
    storm.set_ylim(0)
    storm.set_title("logins at 5 x, /verify saturated beside them")
    storm.legend(fontsize=8)
    line.plot(record["line"]["came_s"], record["line"]["served_s"], ".", markersize=3, color="#2563eb")
    line.set_xlabel("first asked, s")
    line.set_ylabel("served, s")
    line.set_title("3 x for ten seconds, all come back with their tickets")
    figure.tight_layout()
    _save(figure, "storm")
