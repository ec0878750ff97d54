"""The command ``fastauth``: one file a command group, no logic of its own.

Exit 0 done, 1 refused or failed, 2 wrong usage; an error is one line on standard error.
"""

import os
import re
import sys
import traceback
from importlib import import_module

import click

# Where rich is installed, structlog imports it for tracebacks on a terminal: 5 MiB and 60 ms of no use to a server.
_RICH = sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None: there is no such module
import structlog  # noqa: E402, F401 - here, where no other program is that might want it otherwise

if _RICH is None:
    del sys.modules["rich"]

from fastauth.domain.errors import FastauthError  # noqa: E402

# Loaded when used: ``user list`` must not pay for importing the server.
_COMMANDS = {
    "serve": "fastauth.cli.serve:serve",
    "user": "fastauth.cli.user:user",
    "client": "fastauth.cli.client:client",
    "keys": "fastauth.cli.keys:keys",
    "token": "fastauth.cli.token:token",
    "check-config": "fastauth.cli.config:check_config",
    "migrate": "fastauth.cli.config:migrate",
    "doctor": "fastauth.cli.config:doctor",
    "top": "fastauth.cli.top:top",
    "rehearse": "fastauth.cli.rehearse:rehearse",
}


_LONG = re.compile(r"[\w.+/=~-]{40,}")


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fastauth", message="fastauth %(version)s")
def cli() -> None:
    """An authentication server for the moment when everyone arrives at once."""


def main() -> None:
    """Run the command line and exit."""
    os.umask(0o077)  # what a command makes (database, key, pid file) is its owner's alone
    try:
        code = cli(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        sys.exit(2)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "fastauth"
        # What was typed may be a token or a password in the wrong place.
        text = _LONG.sub("(left out)", _one_line(error.format_message()))
        _fail(f"{text}; see: {command} --help", 2)
    except click.Abort:
        _fail("interrupted; what was done before stays done", 1)
    except click.ClickException as error:
        _fail(_one_line(error.format_message()), 1)
    except FastauthError as error:
        _fail(_one_line(str(error) or error.code), 1)
    except OSError as error:  # the output: everything else that can fail has an error of its own
        _end_output()
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        _fail(f"{error.filename or 'input or output'}: {error.strerror or 'failed'}", 1)
    except Exception as error:  # noqa: BLE001 - the last resort: a person gets a line to report, not a traceback
        places = traceback.extract_tb(error.__traceback__)
        _fail(
            f"internal error: {type(error).__name__} at {places[-1].name}, line {places[-1].lineno}; please report it",
            1,
        )
    sys.exit(code if isinstance(code, int) else 0)


def _end_output() -> None:
    """Let nothing be written to standard output any more, not even by the interpreter's last flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _fail(text: str, code: int) -> None:
    click.echo(f"fastauth: {text}", err=True)
    sys.exit(code)
