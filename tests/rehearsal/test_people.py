"""Who logs in."""

import io
from pathlib import Path

import pytest

from fastauth.rehearsal.errors import RehearsalRefused
from fastauth.rehearsal.people import Person, people_of_file, people_of_lines
from tests.cases import each


def test_a_line_is_a_name_and_a_password_which_may_have_colons(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("ann:a: b\n\nbob:pässword\r\n", encoding="utf-8")
    file.chmod(0o600)
    people = people_of_file(file)
    assert people == [Person("ann", "a: b"), Person("bob", "pässword")]
    assert "pässword" not in repr(people)


@each("mode", [0o640, 0o604, 0o644, 0o610])
def test_a_file_that_is_open_to_others_is_refused(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("ann:secret\n")
    file.chmod(mode)
    with pytest.raises(RehearsalRefused, match=rf"open to others \(mode {mode:04o}\); run: chmod 600"):
        people_of_file(file)


@each(
    ("data", "says"),
    [
        (b"ann\n", "users line 1: must be username:password"),
        (b"ann:secret\n:secret\n", "users line 2"),
        (b"ann:\n", "users line 1"),
        (b"ann:" + b"x" * 5_000, "users line 1"),
        (b"\n\n", "no users in it; make users"),
        (b"\xff:x", "not UTF-8"),
    ],
)
def test_a_bad_line_is_named_by_number_and_never_quoted(data: bytes, says: str) -> None:
    with pytest.raises(RehearsalRefused, match=says) as refusal:
        people_of_lines(io.BytesIO(data), "users")
    assert "secret" not in str(refusal.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RehearsalRefused, match="No such file"):
        people_of_file(tmp_path / "users")
    with pytest.raises(RehearsalRefused, match="Is a directory"):
        people_of_file(tmp_path)
