"""The command ``fastauth`` as a person and as a script meet it: answers, exit codes, prompts, secrets."""

import contextlib
import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import jwt
import pytest

from fastauth.backends.passwords import check_password
from fastauth.cli import cli
from tests.integration.running import (
    CHEAP,
    FASTAUTH,
    at_once,
    cheap_hash,
    copy_without_users,
    environment,
    fastauth,
    import_lines,
    running_server,
    wait_for,
)

SECRET = "a password that nobody must see"


def run(*arguments: str, data_dir: Path, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """A command to its end, with the cheapest hash."""
    return fastauth(*arguments, data_dir=data_dir, stdin=stdin, env={**CHEAP, **env})


def assert_done(outcome: subprocess.CompletedProcess[str]) -> str:
    """Exit 0 and nothing on standard error; out: standard output."""
    assert (outcome.returncode, outcome.stderr) == (0, "")
    return outcome.stdout


def assert_failed(outcome: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """This exit code, nothing on standard output, and one line on standard error with these words in it."""
    assert (outcome.returncode, outcome.stdout) == (code, "")
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("fastauth: ")
    for word in words:
        assert word in line


def shown(data_dir: Path, name: str) -> dict[str, Any]:
    account: dict[str, Any] = json.loads(assert_done(run("user", "show", name, "--json", data_dir=data_dir)))
    return account


def accepts(data_dir: Path, name: str, password: str) -> bool:
    """Whether this is the stored password of a user."""
    with contextlib.closing(sqlite3.connect(data_dir / "fastauth.db")) as database:
        ((stored,),) = database.execute("SELECT password_hash FROM users WHERE name = ?", (name,))
    return check_password(password, stored)


def count_users(data_dir: Path) -> int:
    with contextlib.closing(sqlite3.connect(data_dir / "fastauth.db")) as database:
        ((count,),) = database.execute("SELECT count(*) FROM users")
    return int(count)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory without users."""
    return copy_without_users(tmp_path / "data")


@pytest.fixture(scope="module")
def populated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with alice and 2,499 others; tests leave them as they are."""
    data_dir = copy_without_users(tmp_path_factory.mktemp("populated"))
    hashed = cheap_hash(SECRET)
    lines: list[dict[str, Any]] = [{"username": f"user{i}", "password_hash": hashed} for i in range(2_499)]
    import_lines(data_dir, [*lines, {"username": "alice", "password_hash": hashed, "scope": "read write"}])
    return data_dir


# ---------------------------------------------------------------- wrong usage is 2, refused is 1, and one line each


Outcomes = dict[tuple[str, ...], subprocess.CompletedProcess[str]]


def _all_at_once(commands: list[tuple[str, ...]], folder: Path, *more: str) -> Outcomes:
    """Every command in this folder, a few at a time: most of a command's life is starting Python."""

    def outcome(arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FASTAUTH, *arguments, *more],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(**CHEAP),
            cwd=folder,
            timeout=60,
            check=False,
        )

    return dict(zip(commands, at_once([partial(outcome, command) for command in commands]), strict=True))


def _written(arguments: object) -> str:
    return " ".join(arguments)[:40].encode("unicode_escape").decode() if isinstance(arguments, tuple) else ""


WRONG_USAGE = [
    (("frobnicate",), ("frobnicate", "fastauth --help")),
    (("user", "frobnicate"), ("frobnicate", "fastauth user --help")),
    (("user", "add"), ("NAME", "fastauth user add --help")),
    (("user", "add", "a", "b"), ("b", "fastauth user add --help")),
    (("user", "show"), ("NAME",)),
    (("user", "list", "--jsno"), ("--jsno", "--json")),
    (("user", "add", "bob", "--password", SECRET), ("--password-stdin",)),
    (("user", "add", "bob", "--scope"), ("--scope",)),
    (("user", "import"), ("FILE",)),
    (("user", "import", "/nowhere/users.jsonl"), ("/nowhere/users.jsonl",)),
    (("user", "import", "/"), ("/",)),
    (("serve", "--port", "eighty"), ("eighty",)),
    (("serve", "--frobnicate"), ("--frobnicate",)),
    (("--frobnicate",), ("--frobnicate",)),
]


@pytest.fixture(scope="module")
def wrongly_used(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("empty")
    outcomes = _all_at_once([arguments for arguments, _ in WRONG_USAGE], folder)
    assert list(folder.iterdir()) == []
    return outcomes


@pytest.mark.parametrize(("arguments", "words"), WRONG_USAGE, ids=_written)
def test_wrong_usage_exits_2_with_one_line_that_names_it(
    wrongly_used: Outcomes, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert_failed(wrongly_used[arguments], 2, *words)
    assert SECRET not in wrongly_used[arguments].stderr


REFUSED = [
    (("user", "show", "nobody"), ("no user",)),
    (("user", "disable", "nobody"), ("no user",)),
    (("user", "enable", "nobody"), ("no user",)),
    (("user", "delete", "nobody"), ("no user",)),
    (("user", "set-password", "nobody"), ("no user",)),
    (("user", "add", "alice"), ("exists",)),
    (("user", "add", "ALICE"), ("exists",)),
    (("user", "add", "\u0430lice"), ("looks like",)),
    (("user", "add", ""), ("user name",)),
    (("user", "add", "a b"), ("user name", "spaces")),
    (("user", "add", "a\nb"), ("user name",)),
    (("user", "add", "x" * 256), ("user name", "255")),
    (("user", "add", "bob", "--scope", "a  b"), ("scope",)),
    (("user", "add", "bob", "--scope", ""), ("scope",)),
    (("user", "add", "bob", "--scope", 'a"b'), ("scope",)),
    (("user", "list", "--config", "/nowhere/fastauth.toml"), ("/nowhere/fastauth.toml",)),
]


@pytest.fixture(scope="module")
def refused(populated: Path) -> Outcomes:
    outcomes = _all_at_once([arguments for arguments, _ in REFUSED], populated, "--data-dir", str(populated))
    assert count_users(populated) == 2_500
    return outcomes


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=_written)
def test_what_is_refused_exits_1_with_one_line_and_changes_nothing(
    refused: Outcomes, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert_failed(refused[arguments], 1, *words)


def test_without_a_command_the_help_is_shown_and_the_exit_code_is_2() -> None:
    for arguments in ((), ("user",)):
        outcome = subprocess.run(
            [FASTAUTH, *arguments], capture_output=True, text=True, env=environment(), timeout=60, check=False
        )
        assert (outcome.returncode, outcome.stdout) == (2, "")
        assert outcome.stderr.startswith("Usage: fastauth")


@pytest.mark.parametrize(
    ("command", "word"),
    [([FASTAUTH, "--help"], "Commands:"), ([sys.executable, "-m", "fastauth", "--version"], "fastauth ")],
    ids=["--help", "python -m fastauth --version"],
)
def test_help_and_version_exit_0_on_standard_output(command: list[str], word: str) -> None:
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert word in assert_done(outcome)


# ---------------------------------------------------------------- no secret in argv, ever


def _commands(group: click.Group, path: str = "fastauth") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_a_token_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9.c2lnbmF0dXJl"
    for arguments in (["token", "verify", token], ["token", "inspect", token], ["token", token], [token]):
        done = subprocess.run([FASTAUTH, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert token not in done.stdout + done.stderr
        assert done.stderr.count("\n") == 1


def test_no_option_and_no_argument_takes_a_secret() -> None:
    commands = dict(_commands(cli))
    assert len(commands) >= 11
    for path, command in commands.items():
        for parameter in command.params:
            takes_a_value = not (isinstance(parameter, click.Option) and parameter.is_flag)
            for word in ("password", "passwd", "secret", "key", "token", "credential"):
                assert not (takes_a_value and word in str(parameter.name).lower()), f"{path}: {parameter.name}"


def test_every_command_has_a_help_text_and_takes_the_common_options() -> None:
    for path, command in _commands(cli):
        assert command.help, path
        assert {"config", "data_dir"} <= {parameter.name for parameter in command.params}, path


# ---------------------------------------------------------------- users


def test_the_life_of_a_user(data_dir: Path) -> None:
    added = run("user", "add", "Bob", "--password-stdin", "--scope", "read write", data_dir=data_dir, stdin=SECRET)
    assert assert_done(added) == "fastauth: added bob\n"
    first = shown(data_dir, "BOB")
    assert first["name"] == "bob"
    assert first["scope"] == "read write"
    assert first["disabled"] is False
    assert len(first["sub"]) >= 16
    assert "bob" not in first["sub"]
    assert "argon2" not in json.dumps(first)

    assert assert_done(run("user", "disable", "bob", data_dir=data_dir)) == "fastauth: disabled bob\n"
    assert shown(data_dir, "bob")["disabled"] is True
    assert assert_done(run("user", "enable", "bob", data_dir=data_dir)) == "fastauth: enabled bob\n"
    changed = run("user", "set-password", "bob", "--password-stdin", data_dir=data_dir, stdin="another")
    assert "bob" in assert_done(changed)
    assert {**shown(data_dir, "bob"), "updated": ""} == {**first, "updated": ""}

    assert "bob" in assert_done(run("user", "delete", "bob", data_dir=data_dir))
    assert_failed(run("user", "show", "bob", data_dir=data_dir), 1)
    assert_done(run("user", "add", "bob", "--password-stdin", data_dir=data_dir, stdin=SECRET))
    second = shown(data_dir, "bob")
    assert second["sub"] != first["sub"]
    assert second["scope"] is None


def test_the_scope_and_the_subject_of_a_user_are_those_in_its_tokens(data_dir: Path) -> None:
    assert_done(run("user", "add", "bob", "--password-stdin", "--scope", "a b", data_dir=data_dir, stdin=SECRET))
    account = shown(data_dir, "bob")
    with running_server(data_dir, env=CHEAP) as server:
        claims = jwt.decode(server.login("bob", SECRET).json["token"], options={"verify_signature": False})
    assert (claims["scope"], claims["sub"]) == ("a b", account["sub"])


def test_show_and_list_never_show_a_hash(populated: Path) -> None:
    shows = (("user", "show", "alice"), ("user", "show", "alice", "--json"), ("user", "list"))
    for outcome in at_once([partial(run, *arguments, data_dir=populated) for arguments in shows]):
        out = assert_done(outcome)
        assert "alice" in out
        assert "read write" in out
        assert "argon2" not in out


def test_list_shows_every_user_once_in_order_over_many_pages(populated: Path) -> None:
    rows = assert_done(run("user", "list", "--json", data_dir=populated)).splitlines()
    names = [json.loads(row)["name"] for row in rows]
    assert names == sorted({"alice", *(f"user{i}" for i in range(2_499))})
    plain = assert_done(run("user", "list", data_dir=populated)).splitlines()
    assert [row.split("\t")[0] for row in plain] == names


def test_a_list_of_nobody_is_empty_for_a_script_and_says_so_to_a_person(data_dir: Path) -> None:
    assert assert_done(run("user", "list", "--json", data_dir=data_dir)) == ""
    outcome = run("user", "list", data_dir=data_dir)
    assert (outcome.returncode, outcome.stdout) == (0, "")
    assert "no users" in outcome.stderr


def test_a_reader_that_goes_away_ends_the_list_quietly(populated: Path) -> None:
    with subprocess.Popen(
        [FASTAUTH, "user", "list", "--json", "--data-dir", str(populated)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**CHEAP),
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "alice" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) in (0, 1, 141)


def test_a_full_disk_for_the_output_is_one_line_and_no_traceback(populated: Path) -> None:
    with Path("/dev/full").open("w") as full:
        outcome = subprocess.run(
            [FASTAUTH, "user", "list", "--data-dir", str(populated)],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(**CHEAP),
            text=True,
            timeout=60,
            check=False,
        )
    assert outcome.returncode == 1
    assert len(outcome.stderr.splitlines()) == 1, outcome.stderr
    assert outcome.stderr.startswith("fastauth: ")


# ---------------------------------------------------------------- where a password comes from


def test_without_a_terminal_a_password_is_made_up_and_printed_once(data_dir: Path) -> None:
    passwords = []
    for arguments in (("user", "add", "bob"), ("user", "set-password", "bob")):
        out = assert_done(run(*arguments, data_dir=data_dir))
        (line,) = [line for line in out.splitlines() if line.startswith("password: ")]
        passwords.append(line.removeprefix("password: "))
        assert out.count(passwords[-1]) == 1
        assert len(passwords[-1]) >= 20
        assert passwords[-1].isalnum()
    assert passwords[0] != passwords[1]
    for path in data_dir.iterdir():
        content = path.read_bytes()
        assert not any(password.encode() in content for password in passwords)
    assert [accepts(data_dir, "bob", password) for password in passwords] == [False, True]


def test_a_password_on_standard_input_is_taken_whole_but_for_one_line_end(data_dir: Path) -> None:
    given = {
        "plain": ("pw", "pw"),
        "crlf": ("pw\r\n", "pw"),
        "two-newlines": ("pw\n\n", "pw\n"),
        "spaces-and-lines": ("  p\nw  \n", "  p\nw  "),
        "unicode": ("pässwörd\n", "pässwörd"),
        "longest": ("x" * 1_024, "x" * 1_024),
    }
    adding = [
        partial(run, "user", "add", name, "--password-stdin", data_dir=data_dir, stdin=typed)
        for name, (typed, _) in given.items()
    ]
    for name, outcome in zip(given, at_once(adding), strict=True):
        assert assert_done(outcome) == f"fastauth: added {name}\n"
    for name, (typed, password) in given.items():
        assert accepts(data_dir, name, password), name
        assert typed == password or not accepts(data_dir, name, typed), name


def test_a_password_that_cannot_be_is_refused_and_nobody_added(data_dir: Path) -> None:
    given = {b"": "empty", b"\n": "empty", b"x" * 1_025: "1024", b"\xff\xfe": "UTF-8", b"y" * 1_000_000: "1024"}

    def add(typed: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [FASTAUTH, "user", "add", "bob", "--password-stdin", "--data-dir", str(data_dir)],
            input=typed,
            capture_output=True,
            env=environment(**CHEAP),
            timeout=60,
            check=False,
        )

    for word, outcome in zip(given.values(), at_once([partial(add, typed) for typed in given]), strict=True):
        assert (outcome.returncode, outcome.stdout) == (1, b"")
        (line,) = outcome.stderr.decode().splitlines()
        assert word in line
    assert count_users(data_dir) == 0


class Terminal:
    """A command whose standard input, output and error are a terminal."""

    def __init__(self, *arguments: str, data_dir: Path, **env: str) -> None:
        self._screen, keyboard = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [FASTAUTH, *arguments, "--data-dir", str(data_dir)],
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
            env=environment(**{**CHEAP, "TERM": "xterm", **env}),
            start_new_session=True,  # without /dev/tty of whoever runs the tests
        )
        os.close(keyboard)

    def _read(self, deadline: float) -> bool:
        """Read what there is; out: whether more may come. Raises TimeoutError."""
        ready, _, _ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(self.seen)
        try:
            data = os.read(self._screen, 65_536)
        except OSError:  # the last process has closed the terminal
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def answer(self, question: str, text: str) -> None:
        """Wait for a question, then type."""
        deadline = time.monotonic() + 20
        while question not in self.seen:
            assert self._read(deadline), self.seen
        self.seen = self.seen.partition(question)[2]
        os.write(self._screen, text.encode())

    def end(self) -> tuple[int, str]:
        """The exit code, and what has been on the screen since the last answer."""
        deadline = time.monotonic() + 20
        while self._read(deadline):
            pass
        os.close(self._screen)
        return self.process.wait(20), self.seen.replace("\r\n", "\n")


def test_on_a_terminal_the_password_is_asked_for_twice_and_never_shown(data_dir: Path) -> None:
    for arguments in (("user", "add", "bob"), ("user", "set-password", "bob")):
        terminal = Terminal(*arguments, data_dir=data_dir)
        terminal.answer("Password: ", f"{SECRET}\n")
        terminal.answer("confirmation: ", f"{SECRET}\n")
        code, screen = terminal.end()
        assert code == 0
        assert "bob" in screen
        assert SECRET not in screen
        assert "password: " not in screen
    assert accepts(data_dir, "bob", SECRET)


def test_two_different_answers_are_asked_for_again(data_dir: Path) -> None:
    terminal = Terminal("user", "add", "bob", data_dir=data_dir)
    terminal.answer("Password: ", f"{SECRET}\n")
    terminal.answer("confirmation: ", "something else\n")
    terminal.answer("Password: ", "agreed\n")
    terminal.answer("confirmation: ", "agreed\n")
    code, screen = terminal.end()
    assert code == 0
    assert SECRET not in screen


def test_ctrl_d_at_the_prompt_is_one_line_and_adds_nobody(data_dir: Path) -> None:
    terminal = Terminal("user", "add", "bob", data_dir=data_dir)
    terminal.answer("Password: ", "\x04")
    code, screen = terminal.end()
    assert code == 1
    assert "Traceback" not in screen
    assert "fastauth: " in screen
    assert count_users(data_dir) == 0


def test_a_signal_at_the_prompt_is_one_line_and_adds_nobody(tmp_path: Path, data_dir: Path) -> None:
    terminal = Terminal("user", "add", "bob", data_dir=data_dir)
    terminal.answer("Password: ", "half")
    terminal.process.send_signal(signal.SIGINT)
    code, screen = terminal.end()
    assert code in (1, 130)
    assert "Traceback" not in screen
    assert "half" not in screen
    assert count_users(data_dir) == 0


# ---------------------------------------------------------------- import


def _line(**members: object) -> str:
    return json.dumps(members)


_SALT, _DIGEST = "a" * 22, "b" * 43
BAD_LINES = {
    2: "this is not JSON",
    3: _line(username="a b", password=SECRET),
    4: _line(username="neither"),
    5: _line(username="both", password=SECRET, password_hash="$2b$04$" + "a" * 53),
    6: _line(username="md5", password_hash=SECRET),
    7: _line(username="extra", password=SECRET, admin=True),
    8: _line(username="twice", password=SECRET)[:-1] + ', "username": "twice2"}',
    9: _line(username="empty", password=""),
    10: _line(username="scope", password=SECRET, scope="a  b"),
    11: '["username", "password"]',
    12: _line(username=5, password=SECRET),
    13: _line(username="long", password="x" * 1_025),
    14: _line(username="huge", password="x" * 100_000),
    15: '{"username": "deep", "password": ' + "[" * 5_000,
    16: _line(username="surrogate", password="\ud800"),
    17: _line(username="argon", password_hash=f"$argon2id$v=19$m=4194304,t=3,p=1${_SALT}${_DIGEST}"),
    18: _line(username="bcrypt", password_hash="$2b$31$" + "a" * 53),
    19: _line(username="pbkdf2", password_hash=f"pbkdf2_sha256$1000000000$salt${_DIGEST}="),
    20: _line(username="scrypt", password_hash=f"$scrypt$ln=30,r=8,p=1${_SALT}${_DIGEST}"),
    21: "{",
    22: "\0",
    23: _line(username="disabled", password="x", disabled="yes"),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a good first line, all the bad ones, an empty line and a good last line without its end."""
    file = tmp_path_factory.mktemp("import") / "users.jsonl"
    good = json.dumps({"username": "first", "password_hash": cheap_hash("one")})
    last = json.dumps({"username": "last", "password": "two", "scope": "read", "disabled": True})
    file.write_text("\n".join([good, *BAD_LINES.values(), "", last]))
    return file


def test_bad_lines_are_counted_and_named_by_number_and_the_good_ones_imported(mixed: Path, data_dir: Path) -> None:
    started = time.monotonic()
    outcome = run("user", "import", str(mixed), data_dir=data_dir)
    assert time.monotonic() - started < 5  # nothing absurd was computed
    assert outcome.returncode == 1
    assert outcome.stdout == f"fastauth: 2 added, 0 existed already, {len(BAD_LINES)} bad lines\n"
    complaints = outcome.stderr.splitlines()
    assert len(complaints) == len(BAD_LINES)
    for number in BAD_LINES:
        assert [line for line in complaints if line.startswith(f"fastauth: {mixed} line {number}: ")], number
    assert SECRET not in outcome.stderr
    assert "xxxx" not in outcome.stderr
    last = shown(data_dir, "last")
    assert (last["name"], last["scope"], last["disabled"]) == ("last", "read", True)

    again = run("user", "import", str(mixed), "--json", data_dir=data_dir)
    assert again.returncode == 1
    report = json.loads(again.stdout)
    assert (report["added"], report["existing"], report["bad_count"]) == (0, 2, len(BAD_LINES))
    assert [number for number, _ in report["bad"]] == list(BAD_LINES)


def test_an_import_leaves_those_who_exist_as_they_are(data_dir: Path) -> None:
    import_lines(data_dir, [{"username": "bob", "password": "old", "scope": "a"}])
    before = shown(data_dir, "bob")
    import_lines(data_dir, [{"username": "BOB", "password": "new", "scope": "b"}, {"username": "eve", "password": "x"}])
    assert shown(data_dir, "bob") == before
    assert [accepts(data_dir, "bob", password) for password in ("old", "new")] == [True, False]


def test_of_two_lines_with_one_name_the_first_wins(tmp_path: Path, data_dir: Path) -> None:
    file = tmp_path / "users.jsonl"
    lines = [{"username": name, "password_hash": cheap_hash(name)} for name in ("bob", "BOB", "\uff22ob")]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = run("user", "import", str(file), data_dir=data_dir)
    assert assert_done(outcome) == "fastauth: 1 added, 2 existed already, 0 bad lines\n"
    assert [accepts(data_dir, "bob", password) for password in ("bob", "BOB")] == [True, False]


def test_more_bad_lines_than_anyone_reads_are_counted(tmp_path: Path, data_dir: Path) -> None:
    file = tmp_path / "users.jsonl"
    file.write_text("x\n" * 5_000)
    outcome = run("user", "import", str(file), data_dir=data_dir)
    assert outcome.returncode == 1
    assert "5000 bad lines" in outcome.stdout
    complaints = outcome.stderr.splitlines()
    assert len(complaints) < 100
    assert f"{5_000 - len(complaints) + 1} more" in complaints[-1]


def test_an_empty_file_imports_nobody(tmp_path: Path, data_dir: Path) -> None:
    file = tmp_path / "users.jsonl"
    for text in ("", "\n\n  \n"):
        file.write_text(text)
        out = assert_done(run("user", "import", str(file), data_dir=data_dir))
        assert out == "fastauth: 0 added, 0 existed already, 0 bad lines\n"


def _many(tmp_path: Path) -> Path:
    hashed = cheap_hash("x")
    file = tmp_path / "many.jsonl"
    lines = [json.dumps({"username": f"user{i}", "password_hash": hashed}) + "\n" for i in range(5_000)]
    file.write_text("".join(lines))
    return file


def test_on_a_terminal_an_import_shows_how_far_it_is(tmp_path: Path, data_dir: Path) -> None:
    terminal = Terminal("user", "import", str(_many(tmp_path)), data_dir=data_dir)
    code, screen = terminal.end()
    assert code == 0
    assert "importing" in screen
    assert "100%" in screen
    assert "5000 added" in screen
    shares = {word.strip("% []") for word in screen.replace("\r", " ").split() if word.endswith("%")}
    assert len(shares) >= 3, shares  # it moves


def test_without_a_terminal_an_import_shows_no_bar(tmp_path: Path, data_dir: Path) -> None:
    out = assert_done(run("user", "import", str(_many(tmp_path)), data_dir=data_dir))
    assert out == "fastauth: 5000 added, 0 existed already, 0 bad lines\n"


def test_an_interrupted_import_ends_with_one_line_and_can_be_run_again(tmp_path: Path, data_dir: Path) -> None:
    file = tmp_path / "slow.jsonl"
    file.write_text("".join(json.dumps({"username": f"user{i}", "password": "x"}) + "\n" for i in range(1_000)))
    terminal = Terminal(
        "user", "import", str(file), data_dir=data_dir, FASTAUTH_PASSWORDS__PROFILE="owasp"
    )  # half a minute of hashing
    wait_for(lambda: len(list(Path(f"/proc/{terminal.process.pid}/task").iterdir())) >= 3)  # it is hashing
    interrupted_at = time.monotonic()
    terminal.process.send_signal(signal.SIGINT)
    code, screen = terminal.end()
    assert code == 1
    assert "fastauth: interrupted" in screen
    assert "Traceback" not in screen
    assert time.monotonic() - interrupted_at < 5
    again = json.loads(run("user", "import", str(file), "--json", data_dir=data_dir).stdout)
    assert again["added"] + again["existing"] == 1_000


# ---------------------------------------------------------------- configuration


def _check(tmp_path: Path, toml: str | bytes | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    arguments = ["check-config"]
    if toml is not None:
        (tmp_path / "settings.toml").write_bytes(toml.encode() if isinstance(toml, str) else toml)
        arguments += ["--config", str(tmp_path / "settings.toml")]
    return fastauth(*arguments, data_dir=tmp_path, env=env)


def test_check_config_reports_every_problem_at_once(tmp_path: Path) -> None:
    toml = """
        prot = 8001
        workers = "many"
        issuer = "not a url"
        [tokens]
        access_ttl = 60
        access_ttl_s = -1
        user_scope = "a  b"
        [passwords]
        profile = "cheapest-for-tests"
        [nonsense]
        x = 1
        [tls]
        cert_file = "/nowhere/cert.pem"
    """
    outcome = _check(tmp_path, toml, FASTAUTH_MASTER_KEY=SECRET, FASTAUTH_TOKENZ__ALG="RS256", FASTAUTH_DRAIN_S="soon")
    assert (outcome.returncode, outcome.stdout) == (1, "")
    problems = outcome.stderr.splitlines()
    assert all(problem.startswith("fastauth: ") for problem in problems)
    for words in (
        ("prot", "port"),
        ("workers",),
        ("issuer",),
        ("tokens.access_ttl:", "tokens.access_ttl_s"),
        ("tokens.access_ttl_s:",),
        ("user_scope",),
        ("cheapest-for-tests", "FASTAUTH_ALLOW_INSECURE"),
        ("nonsense.x",),
        ("cert_file and key_file",),
        ("/nowhere/cert.pem",),
        ("master",),
        ("FASTAUTH_TOKENZ__ALG", "FASTAUTH_TOKENS__ALG"),
        ("FASTAUTH_DRAIN_S",),
    ):
        assert any(all(word in problem for word in words) for problem in problems), words
    assert SECRET not in outcome.stderr


def test_another_command_with_a_wrong_configuration_says_one_line(tmp_path: Path) -> None:
    outcome = fastauth("user", "list", data_dir=tmp_path, env={"FASTAUTH_PROT": "1", "FASTAUTH_HOTS": "x"})
    assert_failed(outcome, 1, "FASTAUTH_PROT", "check-config")
    assert list(tmp_path.iterdir()) == []


def test_toml_that_is_none_is_one_line(tmp_path: Path) -> None:
    texts: list[str | bytes] = [
        "port = ",
        "port = 1\nport = 2\n",
        b"\xff\xfe",
        "[tokens",
        "[tokens]\n[tokens]\n",
        b"\0",
    ]
    folders = [tmp_path / str(number) for number in range(len(texts))]
    for folder in folders:
        folder.mkdir()
    checks = [partial(_check, folder, text) for folder, text in zip(folders, texts, strict=True)]
    for outcome in at_once(checks):
        assert_failed(outcome, 1, "settings.toml", "TOML")


def test_a_configuration_file_that_is_a_directory_or_missing_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.toml"):
        assert_failed(fastauth("check-config", "--config", str(path), data_dir=tmp_path), 1, str(path))


def test_a_good_configuration_says_so_and_makes_nothing(tmp_path: Path) -> None:
    assert "good" in assert_done(_check(tmp_path, 'issuer = "https://auth.example"\n'))
    assert {path.name for path in tmp_path.iterdir()} == {"settings.toml"}


def test_no_secret_of_a_wrong_setting_is_repeated(tmp_path: Path) -> None:
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    environments: list[dict[str, str]] = [
        {"FASTAUTH_MASTER_KEY": SECRET},
        {"FASTAUTH_MASTER_KEY_FILE": str(secret_file)},
        {"FASTAUTH_DATABASE_URL": f"postgresql://user:{SECRET}@db/fastauth"},
        {"FASTAUTH_REDIS_URL": f"redis://:{SECRET}@cache:port"},
        {"FASTAUTH_IDENTITY__HTTP_URL": f"https://user:{SECRET}@identity"},
    ]
    checks = [partial(_check, tmp_path, **env) for env in environments]
    checks.append(partial(_check, tmp_path, f'master_key = "{SECRET}"\n'))
    for outcome in at_once(checks):
        assert outcome.returncode == 1, outcome.args
        assert SECRET not in outcome.stdout + outcome.stderr


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    (tmp_path / "fastauth.toml").write_text('port = 8101\nissuer = "https://file.example"\ndata_dir = "from-file"\n')

    def check(*arguments: str, **env: str) -> str:
        outcome = subprocess.run(
            [FASTAUTH, "check-config", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(**env),
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        return assert_done(outcome)

    (tmp_path / "other.toml").write_text('issuer = "https://other.example"\n')
    environment_issuer = {"FASTAUTH_ISSUER": "https://environment.example"}
    cases = {
        "https://file.example": partial(check),  # ./fastauth.toml is read by itself
        str(tmp_path / "from-file"): partial(check),
        "https://environment.example": partial(check, **environment_issuer),
        str(tmp_path / "from-environment"): partial(check, FASTAUTH_DATA_DIR="from-environment"),
        str(tmp_path / "from-flag"): partial(check, "--data-dir", "from-flag", FASTAUTH_DATA_DIR="from-environment"),
        "https://other.example": partial(check, "--config", "other.toml"),
        "issuer https://other.example": partial(check, FASTAUTH_CONFIG="other.toml"),
    }
    for word, out in zip(cases, at_once(list(cases.values())), strict=True):
        assert word in out


def test_settings_that_kubernetes_makes_up_are_not_ours(tmp_path: Path) -> None:
    assert_done(
        _check(
            tmp_path,
            FASTAUTH_PORT="tcp://10.0.0.1:8000",
            FASTAUTH_PORT_8000_TCP="tcp://10.0.0.1:8000",
            FASTAUTH_PORT_8000_TCP_ADDR="10.0.0.1",
            FASTAUTH_SERVICE_HOST="10.0.0.1",
            FASTAUTH_SERVICE_PORT="8000",
            FASTAUTH_SERVICE_PORT_HTTP="8000",
        )
    )


# ---------------------------------------------------------------- migrate


def test_migrate_makes_the_schema_once(tmp_path: Path) -> None:
    first = assert_done(run("migrate", data_dir=tmp_path / "new"))
    assert "migrated" in first
    second = assert_done(run("migrate", data_dir=tmp_path / "new"))
    assert "already" in second


def test_migrate_refuses_a_schema_that_it_does_not_know(data_dir: Path) -> None:
    with contextlib.closing(sqlite3.connect(data_dir / "fastauth.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    for command in (("migrate",), ("user", "list")):
        assert_failed(run(*command, data_dir=data_dir), 1, "9999")


def test_commands_that_meet_on_a_new_directory_all_work(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [FASTAUTH, "user", "add", f"user{i}", "--data-dir", str(tmp_path / "new")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(**CHEAP),
            text=True,
        )
        for i in range(3)
    ]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert errors == [""] * 3
    assert [process.returncode for process in processes] == [0] * 3
    assert count_users(tmp_path / "new") == 3


def test_a_command_waits_for_another_one_that_reads_the_new_database(data_dir: Path) -> None:
    """As when several start at once: the schema is there, and the switch to WAL has to wait for a reader."""
    with contextlib.closing(sqlite3.connect(data_dir / "fastauth.db", isolation_level=None)) as reader:
        assert reader.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM users").fetchone()
        adding = subprocess.Popen(
            [FASTAUTH, "user", "add", "bob", "--data-dir", str(data_dir)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(**CHEAP),
            text=True,
        )
        with contextlib.suppress(TimeoutError):  # it must still be waiting then
            wait_for(lambda: adding.poll() is not None, timeout_s=1)
        reader.execute("COMMIT")
    errors = adding.communicate(timeout=20)[1]
    assert (adding.returncode, errors) == (0, "")
    assert count_users(data_dir) == 1
