"""``fastauth check-config``, ``fastauth migrate`` and ``fastauth doctor``."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from fastauth.cli.options import audit_of, settings_from, with_settings_options
from fastauth.server.settings import Settings, SettingsRefused, is_sqlite, sqlite_file


@click.command("check-config")
@with_settings_options
def check_config(config: Path | None, data_dir: str | None) -> int:
    """Read the whole configuration and report every problem at once."""
    try:
        settings = settings_from(config, data_dir)
    except SettingsRefused as refusal:
        for problem in refusal.problems:
            click.echo(f"fastauth: {problem}", err=True)
        return 1
    click.echo(f"fastauth: the configuration is good; issuer {settings.issuer_url}, data in {settings.data_path}")
    return 0


@click.command()
@click.option("--from", "origin", metavar="URL", help="Copy the installation of sqlite:///PATH into the database.")
@with_settings_options
def migrate(config: Path | None, data_dir: str | None, origin: str | None) -> None:
    """Bring the database to the newest schema (serve does it by itself for SQLite), or move an installation.

    With --from everything of an SQLite installation, whose server is stopped, is copied to an empty PostgreSQL
    database. It may be interrupted and run again.
    """
    settings = settings_from(config, data_dir)
    from fastauth.server.storage import prepare_data_dir

    if origin is not None and (not is_sqlite(origin) or settings.sqlite_path is not None):
        raise click.UsageError(
            "--from takes sqlite:///PATH, and FASTAUTH_DATABASE_URL names the PostgreSQL database that it is copied to"
        )
    prepare_data_dir(settings)
    before, after = _migrate_schema(settings)
    if before == after:
        click.echo(f"fastauth: the schema is {after} already")
    else:
        audit_of(settings).record("schema_migrated", before=before, after=after)
        click.echo(f"fastauth: migrated the schema from {before or 'nothing'} to {after}")
    if origin is not None:
        _move(settings, sqlite_file(origin))


def _migrate_schema(settings: Settings) -> tuple[str | None, str | None]:
    """The schema before and after."""
    from fastauth.backends.migrations import HEAD, is_usable, sqlite_revision, upgrade_postgres, upgrade_sqlite

    path = settings.sqlite_path
    before = sqlite_revision(path) if path is not None else asyncio.run(_stored_revision(settings))
    if is_usable(before):
        return before, before
    if path is not None:
        upgrade_sqlite(path)
    else:
        upgrade_postgres(settings.database_url or "")
    return before, HEAD


async def _stored_revision(settings: Settings) -> str | None:
    from fastauth.backends.migrations import postgres_revision
    from fastauth.server.storage import connect_postgres

    database = await connect_postgres(settings, is_command=True)
    try:
        return await postgres_revision(database)
    finally:
        await database.close()


def _move(settings: Settings, path: Path) -> None:
    from fastauth.server.bootstrap import load_master_key
    from fastauth.server.moving import TABLES, House, move
    from fastauth.server.storage import connect_postgres

    async def run(house: House, progress: Callable[[int], None]) -> dict[str, int]:
        database = await connect_postgres(settings, is_command=True)
        try:
            return await move(house, database, progress)
        finally:
            await database.close()

    with contextlib.closing(House(path)) as house:
        house.check_master_key(load_master_key(settings, may_create=False))
        total = sum(house.count(table) for table in TABLES)
        with click.progressbar(length=total, label="moving", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
            counts = asyncio.run(run(house, bar.update))
    audit_of(settings).record("installation_moved", counts=counts)
    told = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in counts.items())
    click.echo(f"fastauth: moved {told}; the counts are the same on both sides. {path} is unchanged")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@with_settings_options
def doctor(config: Path | None, data_dir: str | None, as_json: bool) -> int:
    """Try everything that this installation depends on, and say what was found and what to do."""
    from fastauth.server.diagnosis import diagnose

    findings = asyncio.run(diagnose(settings_from(config, data_dir)))
    for finding in findings:
        if as_json:
            click.echo(msgspec.json.encode(finding).decode())
        else:
            advice = f"; {finding.advice}" if finding.advice else ""
            click.echo(f"{finding.state:<8} {finding.subject}: {finding.text}{advice}")
    return 1 if any(finding.state == "broken" for finding in findings) else 0
