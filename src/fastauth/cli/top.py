"""``fastauth top``: a server on this machine, live."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from fastauth.cli.options import settings_from, with_settings_options
from fastauth.server.overview import Overview, Reading, RunningServer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_ALARM = "bold red"
_WARN = "yellow"
_QUIET = "dim"


@click.command()
@click.option("--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds a look.")
@click.option(
    "--once", is_flag=True, help="Look for one interval, print, and end; so it is where there is no terminal."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a look.")
@with_settings_options
def top(config: Path | None, data_dir: str | None, interval: float, once: bool, as_json: bool) -> None:
    """Watch the server in the data directory: rates, times, queue, limits, breakers, workers. Ctrl-C ends it."""
    server = RunningServer(settings_from(config, data_dir))
    if as_json:
        _print_json(server, interval, once=once)
    elif once or not sys.stdout.isatty():
        from rich.console import Console

        before = server.read()
        time.sleep(interval)
        Console().print(view(server.overview(before, server.read())))
    else:
        _watch(server, interval)


def _print_json(server: RunningServer, interval: float, *, once: bool) -> None:
    before = server.read()
    while True:
        time.sleep(interval)
        after = server.read()
        click.echo(msgspec.json.encode(server.overview(before, after)))
        if once:
            return
        before = after


def _watch(server: RunningServer, interval: float) -> None:
    from rich.live import Live

    before: Reading = server.read()
    try:
        with Live(screen=True, auto_refresh=False) as live:
            live.update("a moment ...", refresh=True)
            while True:
                time.sleep(interval)
                after = server.read()
                live.update(view(server.overview(before, after)), refresh=True)
                before = after
    except KeyboardInterrupt:
        return


def view(seen: Overview) -> "RenderableType":
    """The screen."""
    from rich.columns import Columns
    from rich.console import Group

    return Group(
        _head(seen), _routes(seen), Columns([_lanes(seen), _workers(seen)]), Columns([_limits(seen), _rest(seen)])
    )


def _table(title: str, *columns: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _head(seen: Overview) -> "RenderableType":
    from rich.text import Text

    text = Text("fastauth", style="bold")
    state, style = ("draining", _WARN) if seen.is_draining else ("serving", "green")
    text.append(f"  {state}", style=style)
    requests = sum(route.per_s for route in seen.routes)
    text.append(f"   {requests:,.0f} requests/s   {len(seen.workers)} workers   ", style="not bold")
    if seen.tickets_outstanding:
        text.append(f"{seen.tickets_outstanding:,} in line, Retry-After {seen.retry_after_s} s", style=_WARN)
    else:
        text.append("nobody in line", style=_QUIET)
    return text


def _routes(seen: Overview) -> "Table":
    table = _table("journeys", "route", "requests/s", "refused/s", "failed/s", "p50", "p99")
    for route in seen.routes:
        if route.per_s or route.route in ("/auth", "/verify", "/token"):
            table.add_row(
                route.route,
                f"{route.per_s:,.1f}",
                _marked(route.refused_per_s, _WARN),
                _marked(route.failed_per_s, _ALARM),
                _time(route.p50_ms),
                _time(route.p99_ms),
            )
    return table


def _lanes(seen: Overview) -> "Table":
    table = _table("logins", "lane", "waiting", "wait", "admitted/s", "by ticket/s", "sent away/s")
    for lane in seen.lanes:
        table.add_row(
            lane.lane.replace("_", " "),
            f"{lane.waiting:,}",
            _time(lane.wait_s * 1e3),
            f"{lane.admitted_per_s:,.1f}",
            f"{lane.with_ticket_per_s:,.1f}",
            _marked(lane.sent_away_per_s, _WARN),
        )
    return table


def _workers(seen: Overview) -> "Table":
    table = _table("workers", "pid", "up", "private", "loop delay", "hashing", "silent")
    for worker in seen.workers:
        table.add_row(
            str(worker.pid),
            f"{worker.up_s:,} s",
            "gone" if worker.memory_mib is None else f"{worker.memory_mib:,.0f} MiB",
            _time(worker.loop_delay_ms),
            str(worker.hashing),
            _marked(worker.silent_s, _ALARM if worker.silent_s > 1 else "", " s"),
        )
    return table


def _limits(seen: Overview) -> "Table":
    table = _table("limits", "limit", "admitted/s", "refused/s")
    for limit in seen.limits:
        if limit.admitted_per_s or limit.refused_per_s:
            table.add_row(limit.limit, f"{limit.admitted_per_s:,.1f}", _marked(limit.refused_per_s, _WARN))
    if not table.row_count:
        table.add_row("no decisions", "", "")
    return table


def _rest(seen: Overview) -> "Table":
    table = _table("inside", "what", "now")
    table.add_row("password checks/s", f"{seen.hashes_per_s:,.1f}")
    table.add_row("a password check", _time(seen.hash_ms))
    table.add_row("tokens from the cache", "-" if seen.cache_hit_share is None else f"{seen.cache_hit_share:.1%}")
    table.add_row("renewals refused/s", _marked(seen.renewals_refused_per_s, _WARN))
    table.add_row("revocations heard of", f"{seen.revocation_staleness_s:.1f} s ago")
    for dependency, state in seen.breakers.items():
        style = {"open": _ALARM, "half_open": _WARN}.get(state, "green")
        table.add_row(f"circuit of {dependency}", f"[{style}]{state.replace('_', ' ')}[/]")
    return table


def _time(ms: float | None) -> str:
    if ms is None:
        return "-"
    return f"{ms / 1e3:.2f} s" if ms >= 1_000 else f"{ms:.2f} ms" if ms < 10 else f"{ms:.0f} ms"


def _marked(value: float, style: str, unit: str = "") -> str:
    text = f"{value:,.1f}{unit}"
    return f"[{style}]{text}[/]" if value and style else text
