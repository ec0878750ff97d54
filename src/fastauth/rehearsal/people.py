"""Who logs in: names and passwords from a file or standard input, never from the command line."""

import os
import stat
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from fastauth.domain.users import MAX_PASSWORD_BYTES
from fastauth.rehearsal.errors import RehearsalRefused

_MOST_USERS: Final = 100_000
_LONGEST_FILE: Final = 16 * 1024 * 1024
HOW_TO_MAKE: Final = (
    "make users for rehearsals with: fastauth user add NAME --password-stdin, or many with fastauth user import"
)


class Person(NamedTuple):
    """Who logs in; the password is shown nowhere."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Person({self.username!r})"


def people_of_file(path: Path) -> list[Person]:
    """Lines ``username:password``. Raises RehearsalRefused, as for a file that others than its owner may read."""
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise RehearsalRefused(f"{path}: not a file")
            if state.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise RehearsalRefused(
                    f"{path}: holds passwords and is open to others (mode {stat.S_IMODE(state.st_mode):04o}); "
                    f"run: chmod 600 {path}"
                )
            return people_of_lines(file, str(path))
    except OSError as error:
        raise RehearsalRefused(f"{path}: {error.strerror or 'cannot be read'}") from None


def people_of_lines(stream: BinaryIO, name: str) -> list[Person]:
    """In: the stream, and what it is called in an error. Empty lines are left out. Raises RehearsalRefused."""
    data = stream.read(_LONGEST_FILE + 1)
    if len(data) > _LONGEST_FILE:
        raise RehearsalRefused(f"{name}: more than {_LONGEST_FILE >> 20} MiB of users")
    try:
        lines = [line.removesuffix("\r") for line in data.decode().split("\n")]  # a password may hold any other end
    except UnicodeDecodeError:
        raise RehearsalRefused(f"{name}: not UTF-8") from None
    people = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        username, colon, password = line.partition(":")
        if not (username and colon and password) or len(password.encode()) > MAX_PASSWORD_BYTES:
            raise RehearsalRefused(f"{name} line {number}: must be username:password")
        people.append(Person(username, password))
    if not people:
        raise RehearsalRefused(f"{name}: no users in it; {HOW_TO_MAKE}")
    if len(people) > _MOST_USERS:
        raise RehearsalRefused(f"{name}: more than {_MOST_USERS:,} users")
    return people
