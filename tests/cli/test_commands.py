"""The commands in one process: what they print, what they return, and that no secret goes through argv."""

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from fastauth.backends.passwords import check_password
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.users import SqliteUserStore
from fastauth.cli import cli
from fastauth.cli.serve import _print_first_login
from fastauth.domain.errors import Conflict, NotFound, PasswordRefused, ScopeRefused, UserNameRefused
from fastauth.domain.password_schemes import decoy_hash
from fastauth.domain.users import User
from fastauth.server.settings import SettingsRefused, load_settings
from tests.conformance.user_store import run

CHEAP = {"FASTAUTH_PASSWORDS__PROFILE": "cheapest-for-tests", "FASTAUTH_ALLOW_INSECURE": "1"}


class CommandLine:
    """``fastauth`` on a data directory whose database has its schema already."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def __call__(self, *arguments: str, stdin: str | bytes = "") -> Result:
        return CliRunner(env=CHEAP).invoke(
            cli, [*arguments, "--data-dir", str(self.data_dir)], input=stdin, standalone_mode=False
        )

    def user(self, name: str) -> User | None:
        database = Database(self.data_dir / "fastauth.db")
        found = run(SqliteUserStore(database).find_by_name(name))
        database.close()
        return found


def done(result: Result) -> str:
    """The standard output of a command that must succeed."""
    if result.exception is not None:
        raise result.exception
    assert result.return_value in (None, 0)
    assert result.stderr == ""
    return result.stdout


@pytest.fixture
def fastauth(tmp_path: Path, migrated_file: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    for name in [name for name in os.environ if name.startswith("FASTAUTH_")]:
        monkeypatch.delenv(name)
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    shutil.copy(migrated_file, data_dir / "fastauth.db")
    monkeypatch.chdir(tmp_path)
    return CommandLine(data_dir)


# ------------------------------------------------------------------ every command


def all_commands(group: click.Group, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    context = click.Context(group)
    found: dict[tuple[str, ...], click.Command] = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            found |= all_commands(command, (*path, name))
        else:
            found[(*path, name)] = command
    return found


def test_every_command_loads_has_a_help_text_and_takes_config_and_data_dir() -> None:
    commands = all_commands(cli)
    assert {("serve",), ("migrate",), ("check-config",), ("user", "add"), ("user", "import")} <= commands.keys()
    for path, command in commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert command.help, path
        assert command.name == path[-1]
        assert {"--config", "--data-dir"} <= options, path
        assert not any("secret" in option or option == "--password" for option in options), path


def test_an_unknown_command_or_option_is_wrong_usage() -> None:
    for arguments in (["nonsense"], ["user", "nonsense"], ["check-config", "--nonsense"], ["user", "add"]):
        result = CliRunner().invoke(cli, arguments, standalone_mode=False)
        assert isinstance(result.exception, click.UsageError)


def test_the_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output.startswith("fastauth ")


# ------------------------------------------------------------------ users


def test_a_user_is_added_with_the_password_on_standard_input(fastauth: CommandLine) -> None:
    assert done(fastauth("user", "add", "Alice", "--password-stdin", stdin="pässword ")) == "fastauth: added alice\n"
    alice = fastauth.user("alice")
    assert alice is not None
    assert check_password("pässword ", alice.password_hash)


@pytest.mark.parametrize(
    ("stdin", "password"),
    [("x\n", "x"), ("x\r\n", "x"), ("x\n\n", "x\n"), ("x", "x"), (" x \n", " x "), ("a\0b\n", "a\0b")],
)
def test_one_line_ending_belongs_to_the_pipe_and_everything_else_to_the_password(
    fastauth: CommandLine, stdin: str, password: str
) -> None:
    done(fastauth("user", "add", "alice", "--password-stdin", stdin=stdin.encode()))
    alice = fastauth.user("alice")
    assert alice is not None
    assert check_password(password, alice.password_hash)


def test_where_nobody_can_be_asked_a_password_is_made_up_and_printed_once(fastauth: CommandLine) -> None:
    added, password_line = done(fastauth("user", "add", "alice", "--scope", "a b")).splitlines()
    assert added == "fastauth: added alice"
    password = password_line.removeprefix("password: ")
    alice = fastauth.user("alice")
    assert alice is not None
    assert alice.scope == "a b"
    assert check_password(password, alice.password_hash)
    assert password not in done(fastauth("user", "show", "alice"))


@pytest.mark.parametrize(
    ("arguments", "stdin", "error"),
    [
        (("al ice", "--password-stdin"), "x", UserNameRefused),
        (("alice", "--password-stdin", "--scope", "a  b"), "x", ScopeRefused),
        (("alice", "--password-stdin"), "", PasswordRefused),
        (("alice", "--password-stdin"), "\n", PasswordRefused),
        (("alice", "--password-stdin"), "x" * 1025, PasswordRefused),
        (("alice", "--password-stdin"), "x" * 100_000, PasswordRefused),
        (("alice", "--password-stdin"), b"\xff", click.ClickException),
    ],
)
def test_what_cannot_be_stored_is_refused_and_nobody_added(
    fastauth: CommandLine, arguments: tuple[str, ...], stdin: str | bytes, error: type[Exception]
) -> None:
    assert isinstance(fastauth("user", "add", *arguments, stdin=stdin).exception, error)
    assert fastauth.user("alice") is None


def test_a_name_is_taken_once_and_so_is_what_looks_like_it(fastauth: CommandLine) -> None:
    done(fastauth("user", "add", "alice"))
    for again in ("alice", "ALICE", "\u0430lice"):
        assert isinstance(fastauth("user", "add", again).exception, Conflict)


def test_users_are_listed_and_shown_without_their_hashes(fastauth: CommandLine) -> None:
    assert fastauth("user", "list").stderr == "fastauth: there are no users\n"
    for name in ("bob", "alice"):
        done(fastauth("user", "add", name))
    done(fastauth("user", "disable", "bob"))
    listed = [line.split("\t") for line in done(fastauth("user", "list")).splitlines()]
    assert [(name, state, scope) for name, _, state, scope in listed] == [
        ("alice", "enabled", "-"),
        ("bob", "disabled", "-"),
    ]
    as_json = [json.loads(line) for line in done(fastauth("user", "list", "--json")).splitlines()]
    assert [account["name"] for account in as_json] == ["alice", "bob"]
    shown = json.loads(done(fastauth("user", "show", "Bob", "--json")))
    assert shown == as_json[1]
    assert shown.keys() == {"name", "sub", "scope", "source", "subject", "disabled", "created", "updated"}
    assert shown["disabled"] is True
    assert "argon2" not in done(fastauth("user", "show", "bob"))


def test_a_user_is_disabled_enabled_and_deleted(fastauth: CommandLine) -> None:
    done(fastauth("user", "add", "alice"))
    before = fastauth.user("alice")
    done(fastauth("user", "disable", "Alice"))
    assert (disabled := fastauth.user("alice")) is not None
    assert disabled.disabled
    done(fastauth("user", "enable", "alice"))
    assert (enabled := fastauth.user("alice")) is not None
    assert not enabled.disabled
    done(fastauth("user", "delete", "alice"))
    assert fastauth.user("alice") is None
    done(fastauth("user", "add", "alice"))
    assert (again := fastauth.user("alice")) is not None
    assert before is not None
    assert again.sub != before.sub


def test_a_new_password_replaces_the_old_one(fastauth: CommandLine) -> None:
    done(fastauth("user", "add", "alice", "--password-stdin", stdin="old"))
    done(fastauth("user", "set-password", "alice", "--password-stdin", stdin="new"))
    alice = fastauth.user("alice")
    assert alice is not None
    assert check_password("new", alice.password_hash)
    assert not check_password("old", alice.password_hash)


@pytest.mark.parametrize("command", ["show", "disable", "enable", "delete", "set-password"])
def test_a_user_that_does_not_exist_is_not_found(fastauth: CommandLine, command: str) -> None:
    more = ("--password-stdin",) if command == "set-password" else ()
    assert isinstance(fastauth("user", command, "nobody", *more, stdin="x").exception, NotFound)


def import_lines(fastauth: CommandLine, *lines: dict[str, Any] | str, as_json: bool = False) -> Result:
    file = fastauth.data_dir / "users.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return fastauth("user", "import", str(file), *(["--json"] if as_json else []))


def test_an_import_counts_and_names_bad_lines_and_returns_one(fastauth: CommandLine) -> None:
    good = {"username": "alice", "password_hash": decoy_hash("$2b$04", bytes(53))}
    result = import_lines(fastauth, good, "{", {"username": "bob"})
    assert result.return_value == 1
    assert result.stdout == "fastauth: 1 added, 0 existed already, 2 bad lines\n"
    first, second = result.stderr.splitlines()
    assert "line 2: " in first
    assert "line 3: " in second
    again = import_lines(fastauth, good, as_json=True)
    assert again.return_value == 0
    assert json.loads(again.stdout) == {"added": 0, "existing": 1, "bad_count": 0, "bad": []}


# ------------------------------------------------------------------ configuration


def test_a_good_configuration_is_told_with_issuer_and_place(fastauth: CommandLine) -> None:
    told = done(fastauth("check-config"))
    assert "http://127.0.0.1:8000" in told
    assert str(fastauth.data_dir) in told


def test_every_problem_of_a_configuration_has_a_line(fastauth: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("port = 0\nworkers = 0\ncolour = 1\n")
    result = fastauth("check-config", "--config", str(tmp_path / "bad.toml"))
    assert result.return_value == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 3
    assert all(line.startswith("fastauth: ") for line in result.stderr.splitlines())


def test_the_configuration_in_the_working_directory_is_read_unless_another_is_named(
    fastauth: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "fastauth.toml").write_text('issuer = "https://here.example"\n')
    (tmp_path / "other.toml").write_text('issuer = "https://other.example"\n')
    other = str(tmp_path / "other.toml")
    assert "https://here.example" in done(fastauth("check-config"))
    assert "https://other.example" in done(fastauth("check-config", "--config", other))
    from_environment = CliRunner(env={**CHEAP, "FASTAUTH_CONFIG": other}).invoke(cli, ["check-config"])
    assert "https://other.example" in from_environment.output


def test_a_configuration_file_that_is_named_must_exist(fastauth: CommandLine) -> None:
    result = fastauth("user", "list", "--config", "missing.toml")
    assert isinstance(result.exception, SettingsRefused)
    assert "missing.toml" in str(result.exception)


def test_a_schema_that_is_new_already_is_told(fastauth: CommandLine) -> None:
    assert "already" in done(fastauth("migrate"))


# ------------------------------------------------------------------ the first start


@pytest.mark.parametrize("environment", [{}, {"FASTAUTH_HOST": "::1", "FASTAUTH_PORT": "8001"}])
def test_the_first_login_is_printed_so_that_it_works_when_pasted(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings(None, environment, {})
    _print_first_login(settings, "Abc123")
    _, password, curl = capsys.readouterr().out.splitlines()
    assert password == "password: Abc123"
    words = shlex.split(curl)
    assert words[0] == "curl"
    assert words[-1] == f"{settings.base_url}/auth"
    assert json.loads(words[words.index("-d") + 1]) == {"username": "admin", "password": "Abc123"}
    assert words[words.index("-H") + 1] == "Content-Type: application/json"
