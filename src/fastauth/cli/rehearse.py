"""``fastauth rehearse``: a crowd against a running installation, before the real one comes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from fastauth.cli.options import settings_from, with_settings_options
from fastauth.rehearsal.people import HOW_TO_MAKE, Person, people_of_file, people_of_lines
from fastauth.rehearsal.plan import MAX_SESSIONS, Lane, Plan, check_plan, parse_rate, parse_time
from fastauth.rehearsal.rehearsing import Rehearsal
from fastauth.rehearsal.target import open_target
from fastauth.rehearsal.text import LiveProgress, PlainProgress, print_report

_MOST_GENERATORS = 16


def _written(parse: Callable[[str], float]) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """A callback for what is written in a way of its own."""

    def convert(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float | None:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return convert


_as_rate = _written(parse_rate)
_as_time = _written(parse_time)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("target", metavar="URL")
@click.option("--logins", metavar="RATE", callback=_as_rate, help="Logins, as 50/s or 30/m.")
@click.option("--refresh", metavar="RATE", callback=_as_rate, help="Refreshes of sessions.")
@click.option("--verify", metavar="RATE", callback=_as_rate, help="Verifications of access tokens.")
@click.option(
    "--for",
    "seconds",
    metavar="TIME",
    callback=_as_time,
    default="60s",
    show_default=True,
    help="How long, as 60s or 5m; 1h at most.",
)
@click.option("--users", metavar="FILE", help="Who logs in: lines username:password, mode 0600; - is standard input.")
@click.option("--username", metavar="NAME", help="One user instead; goes with --password-stdin.")
@click.option("--password-stdin", is_flag=True, help="Read the password of --username from standard input.")
@click.option(
    "--patience",
    metavar="TIME",
    callback=_as_time,
    default="3s",
    show_default=True,
    help="How long a client waits for an answer.",
)
@click.option("--no-ceilings", is_flag=True, help="Do not look for the most that each lane can do.")
@click.option(
    "--ceiling-for",
    metavar="TIME",
    callback=_as_time,
    default="10s",
    show_default=True,
    help="How long to look for each.",
)
@click.option(
    "--p99",
    metavar="TIME",
    callback=_as_time,
    default="1s",
    show_default=True,
    help="A ceiling is where the p99 grows beyond.",
)
@click.option(
    "--sessions", type=click.IntRange(1, MAX_SESSIONS), help="How many to open. [default: what the rates need]"
)
@click.option(
    "--generators", type=click.IntRange(1, _MOST_GENERATORS), default=1, show_default=True, help="Processes that ask."
)
@click.option("--ca-file", type=_FILE, help="PEM: who vouches for the server's certificate. [default: the system's]")
@click.option("--html", "html_file", type=_FILE, help="Write the report there as a page with plots.")
@click.option("--json", "json_file", type=_FILE, help="Write the report there as JSON.")
@with_settings_options
def rehearse(
    config: Path | None,
    data_dir: str | None,
    target: str,
    logins: float | None,
    refresh: float | None,
    verify: float | None,
    seconds: float,
    users: str | None,
    username: str | None,
    password_stdin: bool,
    patience: float,
    no_ceilings: bool,
    ceiling_for: float,
    p99: float,
    sessions: int | None,
    generators: int,
    ca_file: Path | None,
    html_file: Path | None,
    json_file: Path | None,
) -> int:
    """Load a running server as a crowd would: what does each lane bear, and what breaks first?

    The server must be on this machine or listed in rehearsal.targets. Its users log in for real, so make some for this.
    Exit 0 if 99 % of every lane were answered 2xx in time, 1 if not. Ctrl-C ends the plan early, with a report; before
    the plan has begun there is none.
    """
    settings = settings_from(config, data_dir)
    given: dict[Lane, float | None] = {"login": logins, "refresh": refresh, "verify": verify}
    rates = {lane: rate for lane, rate in given.items() if rate is not None}
    if not (no_ceilings or 1 <= ceiling_for <= 300):
        raise click.UsageError("--ceiling-for must be from 1s to 5m")
    plan = check_plan(
        Plan(rates, seconds, patience, min(p99, patience), 0.0 if no_ceilings else ceiling_for, sessions, generators)
    )
    _check_outputs(html_file, json_file)
    opened = open_target(target, settings.rehearsal.origins, ca_file)
    rehearsal = Rehearsal(opened, plan, _people(users, username, password_stdin), ca_file)

    from rich.console import Console

    is_live = sys.stdout is not None and sys.stdout.isatty()
    console = Console() if is_live else Console(width=140)
    with LiveProgress(console) if is_live else PlainProgress(lambda line: click.echo(f"fastauth: {line}")) as progress:
        report = rehearsal.hold(progress)
    print_report(console, report)
    if html_file is not None:
        from fastauth.rehearsal.page import page

        html_file.write_text(page(report), encoding="utf-8")
        click.echo(f"fastauth: the page is {html_file}")
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return 0 if report.met else 1


def _people(users: str | None, username: str | None, password_stdin: bool) -> list[Person]:
    if (username is not None) != password_stdin or (users is None) == (username is None):
        raise click.UsageError(f"say who logs in: --users FILE, or --username NAME --password-stdin; {HOW_TO_MAKE}")
    if users is not None and users != "-":
        return people_of_file(Path(users))
    if sys.stdin is None:
        raise click.ClickException("standard input is closed; a password cannot be read")
    if username is None:
        return people_of_lines(sys.stdin.buffer, "standard input")
    from fastauth.domain.users import MAX_PASSWORD_BYTES

    text = sys.stdin.buffer.read(MAX_PASSWORD_BYTES + 3).removesuffix(b"\n").removesuffix(b"\r")
    try:
        password = text.decode()
    except UnicodeDecodeError:
        raise click.ClickException("the password on standard input is not UTF-8") from None
    if not password or len(text) > MAX_PASSWORD_BYTES:
        raise click.ClickException("there is no password on standard input, or it is too long")
    return [Person(username, password)]


def _check_outputs(html_file: Path | None, json_file: Path | None) -> None:
    """Before anything is asked for nothing."""
    if html_file is not None:
        from fastauth.rehearsal.page import require_plots

        require_plots()
    for file in (html_file, json_file):
        if file is not None and not os.access(file if file.exists() else file.parent, os.W_OK):
            raise click.ClickException(f"{file}: cannot be written")
