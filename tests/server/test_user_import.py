"""Importing users: bad lines are named and the others are added; running it again adds nothing twice."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from fastauth.backends.passwords import PasswordHasher, PasswordSettings, check_password
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.users import SqliteUserStore
from fastauth.domain.errors import Unavailable
from fastauth.domain.password_schemes import decoy_hash
from fastauth.domain.users import User, skeleton
from fastauth.server.bootstrap import new_user
from fastauth.server.user_import import BATCH, MAX_LINE_BYTES, MOST_REASONS, ImportReport, import_file
from tests.backends.foreign_hashes import MAKERS
from tests.conformance.user_store import run

BCRYPT = decoy_hash("$2b$04", bytes(53))
CHEAPEST = PasswordHasher(PasswordSettings(profile="cheapest-for-tests"))


class Importing:
    """A database, a file, and what its import reported."""

    def __init__(self, database: Database, file: Path) -> None:
        self.database = database
        self.users = SqliteUserStore(database)
        self.file = file
        self.progress: list[int] = []

    def __call__(self, *lines: Any) -> ImportReport:
        """Import these lines: bytes as they are, anything else as JSON."""
        self.file.write_bytes(b"".join(as_line(line) for line in lines))
        return self.again()

    def again(self) -> ImportReport:
        self.progress.clear()
        return asyncio.run(import_file(self.file, self.users, CHEAPEST, self.progress.append))

    def names(self) -> list[str]:
        return [account.name for account in run(self.users.list_users("", 100_000))]

    def found(self, name: str) -> User:
        account = run(self.users.find_by_name(name))
        assert account is not None
        return account


def as_line(line: Any) -> bytes:
    return line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"


def hashed(name: str, **more: Any) -> dict[str, Any]:
    return {"username": name, "password_hash": BCRYPT, **more}


@pytest.fixture
def importing(database: Database, tmp_path: Path) -> Importing:
    return Importing(database, tmp_path / "users.jsonl")


def test_users_with_hashes_and_with_passwords_are_added(importing: Importing) -> None:
    report = importing(hashed("alice"), {"username": "bob", "password": "correct horse"})
    assert (report.added, report.existing, report.bad_count, report.bad) == (2, 0, 0, [])
    assert importing.found("alice").password_hash == BCRYPT
    bob = importing.found("bob").password_hash
    assert bob.startswith(CHEAPEST.profile.identifier)
    assert check_password("correct horse", bob)


def test_a_line_may_say_scope_and_disabled(importing: Importing) -> None:
    importing(hashed("alice", scope="a b", disabled=True), hashed("bob", scope=None))
    alice, bob = importing.found("alice"), importing.found("bob")
    assert (alice.scope, alice.disabled) == ("a b", True)
    assert (bob.scope, bob.disabled) == (None, False)
    assert alice.sub != bob.sub


def test_hashes_of_every_kind_are_taken_as_they_are(importing: Importing) -> None:
    lines = [{"username": f"u{at}", "password_hash": make("x")} for at, make in enumerate(MAKERS.values())]
    report = importing(*lines)
    assert (report.added, report.bad_count) == (len(MAKERS), 0)
    for line in lines:
        assert importing.found(line["username"]).password_hash == line["password_hash"]


def test_hashes_of_keycloak_and_django_are_stored_in_the_common_spelling(importing: Importing) -> None:
    about = {"algorithm": "pbkdf2-sha512", "hashIterations": 210_000, "additionalParameters": {}}
    secret = {"value": base64.b64encode(bytes(64)).decode(), "salt": base64.b64encode(bytes(16)).decode()}
    report = importing(
        {"username": "k", "keycloak": {"credentialData": json.dumps(about), "secretData": json.dumps(secret)}},
        {"username": "d", "password_hash": f"bcrypt${BCRYPT}"},
    )
    assert (report.added, report.bad_count) == (2, 0)
    assert importing.found("k").password_hash.startswith("$pbkdf2-sha512$210000$")
    assert importing.found("d").password_hash == BCRYPT


def test_names_are_stored_in_their_canonical_spelling(importing: Importing) -> None:
    report = importing(hashed("Alice"), hashed("ＢＯＢ"), hashed("E\u0301mile"), hashed("ALICE"))
    assert (report.added, report.existing) == (3, 1)
    assert importing.names() == ["alice", "bob", "émile"]


def test_an_import_can_be_run_again_and_changes_nothing(importing: Importing) -> None:
    lines = [hashed("alice"), {"username": "bob", "password": "x"}, hashed("carol", disabled=True)]
    importing(*lines)
    before = run(importing.users.list_users("", 10))
    report = importing.again()
    assert (report.added, report.existing, report.bad_count) == (0, 3, 0)
    assert run(importing.users.list_users("", 10)) == before
    report = importing(*lines, hashed("dave"))
    assert (report.added, report.existing) == (1, 3)


def test_an_account_that_exists_stays_as_it_is(importing: Importing) -> None:
    alice = new_user("alice", BCRYPT, "admin")
    run(importing.users.add(alice, skeleton("alice")))
    report = importing(
        {"username": "alice", "password": "another", "scope": "user", "disabled": True},
        {"username": "alice", "password_hash": decoy_hash("$2b$05", bytes(53))},
    )
    assert (report.added, report.existing, report.bad_count) == (0, 2, 0)
    assert importing.found("alice") == alice


BAD_LINES: dict[str, Any] = {
    "no JSON": b"alice,hash\n",
    "half a line": b'{"username":"alice","passw\n',
    "a list": [],
    "null": None,
    "a number": 5,
    "no password": {"username": "alice"},
    "no name": {"password": "x"},
    "both": {"username": "alice", "password": "x", "password_hash": BCRYPT},
    "an unknown member": hashed("alice", pasword="x"),
    "a number for a name": hashed(5),  # type: ignore[arg-type]
    "a list for a hash": {"username": "alice", "password_hash": [BCRYPT]},
    "a text for disabled": hashed("alice", disabled="no"),
    "an empty name": hashed(""),
    "a space in the name": hashed("al ice"),
    "a control in the name": hashed("al\nice"),
    "a long name": hashed("x" * 256),
    "a lone surrogate": b'{"username":"\\ud800","password":"x"}\n',
    "an empty password": {"username": "alice", "password": ""},
    "a long password": {"username": "alice", "password": "x" * 1025},
    "a bad scope": hashed("alice", scope="a  b"),
    "an unknown hash": {"username": "alice", "password_hash": "5f4dcc3b5aa765d61d8327deb882cf99"},
    "a plain password as hash": {"username": "alice", "password_hash": "hunter2"},
    "argon2 of 4 GiB": {
        "username": "alice",
        "password_hash": decoy_hash("$argon2id$v=19$m=4194304,t=1,p=1", bytes(53)),
    },
    "bcrypt 31": {"username": "alice", "password_hash": decoy_hash("$2b$31", bytes(53))},
    "a billion rounds": {"username": "alice", "password_hash": decoy_hash("$pbkdf2-sha256$1000000000", bytes(53))},
    "scrypt of 1 TiB": {"username": "alice", "password_hash": decoy_hash("$scrypt$ln=30,r=8,p=1", bytes(53))},
    "an absurd Keycloak credential": {
        "username": "alice",
        "keycloak": {
            "credentialData": '{"algorithm": "pbkdf2-sha256", "hashIterations": 1000000000}',
            "secretData": json.dumps({"value": "A" * 43 + "=", "salt": "AAAA"}),
        },
    },
    "half a Keycloak credential": {"username": "alice", "keycloak": {"credentialData": "{}"}},
    "a scrypt that is not Django's": {"username": "alice", "password_hash": "scrypt$15$salt$8$1$AAAA"},
    "a duplicate member": b'{"username":"alice","username":"bob","password":"x"}\n',
    "Latin-1": '{"username":"é","password":"x"}\n'.encode("latin-1"),
    "Latin-1 in an unknown member": '{"username":"alice","password":"x","é":1}\n'.encode("latin-1"),
    "UTF-16": '{"username":"alice","password":"x"}'.encode("utf-16-le") + b"\n",
    "a byte order mark": b"\xef\xbb\xbf" + as_line(hashed("alice")),
    "a depth bomb": b"[" * 5000 + b"\n",
    "two in one": as_line(hashed("alice")).strip() + as_line(hashed("bob")),
    "NUL": b"\0\n",
}


def test_every_bad_line_is_named_by_its_number_and_the_others_are_added(importing: Importing) -> None:
    kinds = list(BAD_LINES)
    lines = [line for at, kind in enumerate(kinds) for line in (hashed(f"good{at}"), BAD_LINES[kind])]
    report = importing(*lines)
    assert (report.added, report.existing, report.bad_count) == (len(kinds), 0, len(kinds))
    assert [number for number, _ in report.bad] == [2 * (at + 1) for at in range(len(kinds))]
    for kind, (_, reason) in zip(kinds, report.bad, strict=True):
        assert reason, kind
        assert "hunter2" not in reason
        assert BCRYPT not in reason


@pytest.mark.parametrize(
    "kind", ["argon2 of 4 GiB", "bcrypt 31", "a billion rounds", "scrypt of 1 TiB", "an absurd Keycloak credential"]
)
def test_an_absurd_cost_is_refused_in_clear_words(importing: Importing, kind: str) -> None:
    ((number, reason),) = importing(BAD_LINES[kind]).bad
    assert number == 1
    assert "cost" in reason
    assert importing.names() == []


def test_a_reason_is_one_line_that_does_nothing_to_a_terminal(importing: Importing) -> None:
    line = b'{"username":"alice","password":"x","\\u001b[31m\\n\\u202eforged":1}\n'
    ((_, reason),) = importing(line).bad
    assert reason.isprintable()


def test_a_name_that_only_looks_like_another_is_a_bad_line(importing: Importing) -> None:
    run(importing.users.add(new_user("admin", BCRYPT), "admin"))
    report = importing(
        hashed("alice"), hashed("\u0430dmin"), hashed("\u0430lice"), {"username": "b\u043eb", "password": "x"}
    )
    assert (report.added, report.existing, report.bad_count) == (2, 0, 2)
    assert [number for number, _ in report.bad] == [2, 3]
    assert all("looks like" in reason for _, reason in report.bad)
    assert importing.names() == ["admin", "alice", "b\u043eb"]


def test_a_look_alike_that_stands_on_two_lines_is_named_with_both_numbers(importing: Importing) -> None:
    report = importing(hashed("admin"), hashed("\u0430dmin"), hashed("\u0430dmin"))
    assert report.bad_count == 2
    assert [number for number, _ in report.bad] == [2, 3]


def test_bad_lines_come_in_the_order_of_the_file(importing: Importing) -> None:
    report = importing(hashed("admin"), hashed("\u0430dmin"), b"{\n")
    assert [number for number, _ in report.bad] == [2, 3]


def test_blank_lines_and_any_line_ending_are_no_mistake_and_are_counted(importing: Importing) -> None:
    report = importing(
        b"\n", b"  \t\n", as_line(hashed("alice")).replace(b"\n", b"\r\n"), b"{\n", as_line(hashed("bob")).strip()
    )
    assert (report.added, [number for number, _ in report.bad]) == (2, [4])


def test_an_empty_file_imports_nobody(importing: Importing) -> None:
    report = importing()
    assert (report.added, report.existing, report.bad_count) == (0, 0, 0)


@pytest.mark.parametrize(
    "size", [MAX_LINE_BYTES + 2, 2 * MAX_LINE_BYTES, 2 * MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES + 7]
)
@pytest.mark.parametrize("ending", [b"\n", b""])
def test_a_line_that_is_too_long_is_one_bad_line_however_long(importing: Importing, size: int, ending: bytes) -> None:
    lines = [as_line(hashed("alice")), b'{"x":"' + b"x" * (size - 6) + ending]
    if ending:
        lines.append(as_line(hashed("bob")))
    report = importing(*lines)
    assert [number for number, _ in report.bad] == [2]
    assert str(MAX_LINE_BYTES) in report.bad[0][1]
    assert report.added == len(lines) - 1


def test_a_line_of_exactly_the_bound_is_read(importing: Importing) -> None:
    line = as_line(hashed("alice")).strip()
    padded = line + b" " * (MAX_LINE_BYTES - len(line) - 1) + b"\n"
    assert len(padded) == MAX_LINE_BYTES
    assert importing(padded).added == 1


def test_the_progress_adds_up_to_the_file(importing: Importing) -> None:
    importing(hashed("alice"), b"{\n", b"\n", hashed("bob"))
    assert sum(importing.progress) == importing.file.stat().st_size


def test_the_progress_counts_the_whole_of_a_line_that_is_too_long(importing: Importing) -> None:
    importing(hashed("alice"), b"x" * (3 * MAX_LINE_BYTES) + b"\n", hashed("bob"))
    assert sum(importing.progress) == importing.file.stat().st_size


def test_more_than_one_batch_is_added_whole(importing: Importing) -> None:
    count = 2 * BATCH + 10
    report = importing(*(hashed(f"user{number}") for number in range(count)), hashed("user0"))
    assert (report.added, report.existing, report.bad_count) == (count, 1, 0)
    assert run(importing.users.count()) == count
    assert len(importing.progress) == 3
    assert sum(importing.progress) == importing.file.stat().st_size


def test_only_the_first_reasons_are_kept_and_all_are_counted(importing: Importing) -> None:
    report = importing(*[b"{\n"] * (MOST_REASONS + 5), hashed("alice"))
    assert (report.bad_count, len(report.bad), report.added) == (MOST_REASONS + 5, MOST_REASONS, 1)
    assert report.bad[-1][0] == MOST_REASONS


@pytest.mark.parametrize("count", [1, BATCH + 1])
def test_a_database_that_fails_is_unavailable_as_a_plain_error(importing: Importing, count: int) -> None:
    run(importing.database.write(lambda connection: connection.execute("DROP TABLE users").fetchall()))
    with pytest.raises(Unavailable):
        importing(*(hashed(f"user{number}") for number in range(count)))
    with pytest.raises(Unavailable):
        importing({"username": "bob", "password": "x"}, *(hashed(f"user{number}") for number in range(count)))


def test_a_file_that_is_not_there_is_an_error_of_the_system(importing: Importing) -> None:
    with pytest.raises(FileNotFoundError):
        importing.again()
