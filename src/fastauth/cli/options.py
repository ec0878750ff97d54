"""The options that every command takes, and the settings they lead to."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from fastauth.endpoints.audit import Audit
from fastauth.server.audit import open_command_audit
from fastauth.server.settings import Settings, load_settings

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CONFIG: Final = Path("fastauth.toml")


def with_settings_options(command: F) -> F:
    """``--config`` and ``--data-dir``."""
    command = click.option(
        "--data-dir", metavar="DIR", help="Where the database and the master key are. [default: ./var]"
    )(command)
    return click.option(
        "--config",
        metavar="FILE",
        envvar="FASTAUTH_CONFIG",
        type=click.Path(path_type=Path),
        help="A TOML file. [default: ./fastauth.toml if it exists]",
    )(command)


def audit_of(settings: Settings) -> Audit:
    """Where this command says what it has changed, and who runs it."""
    return open_command_audit(settings, lambda problem: click.echo(f"fastauth: {problem}", err=True))


def settings_from(config: Path | None, data_dir: str | None, **flags: object | None) -> Settings:
    """The settings of this command. Raises SettingsRefused."""
    if config is None and DEFAULT_CONFIG.is_file():
        config = DEFAULT_CONFIG
    return load_settings(config, os.environ, {"data_dir": data_dir, **flags})
