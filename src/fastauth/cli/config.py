"""``fastauth check-config`` and ``fastauth migrate``."""

from pathlib import Path

import click

from fastauth.cli.options import settings_from, with_settings_options
from fastauth.server.settings import SettingsRefused


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
@with_settings_options
def migrate(config: Path | None, data_dir: str | None) -> None:
    """Bring the database to the newest schema (serve does it by itself for SQLite)."""
    settings = settings_from(config, data_dir)
    from fastauth.backends.migrations import HEAD, sqlite_revision, upgrade_sqlite
    from fastauth.server.bootstrap import prepare_data_dir

    prepare_data_dir(settings)
    before = sqlite_revision(settings.sqlite_path)
    if before == HEAD:
        click.echo(f"fastauth: the schema is {HEAD} already")
        return
    upgrade_sqlite(settings.sqlite_path)
    click.echo(f"fastauth: migrated the schema from {before or 'nothing'} to {HEAD}")
