"""``fastauth user import``: many users from a JSON Lines file, in transactions of two thousand."""

import asyncio
import bisect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from fastauth import core
from fastauth.backends.passwords import EXPECTED_HASH_S, PasswordHasher
from fastauth.backends.work_pool import WorkPool, threads_per_worker
from fastauth.domain.errors import FastauthError
from fastauth.domain.foreign_hashes import KeycloakCredential, from_django, from_keycloak
from fastauth.domain.password_schemes import parse_scheme
from fastauth.domain.ports import UserStore
from fastauth.domain.scopes import check_scope
from fastauth.domain.users import User, canonical_name, check_new_password, skeleton
from fastauth.server.bootstrap import new_user

BATCH: Final = 2_000
MAX_LINE_BYTES: Final = 64 * 1024
MOST_REASONS: Final = 50


class ImportLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One line: a name with a hash, a password, or a credential of a Keycloak export."""

    username: str
    password_hash: str | None = None
    password: str | None = None
    keycloak: KeycloakCredential | None = None
    scope: str | None = None
    disabled: bool = False

    def __repr__(self) -> str:  # the password never reaches a log or a traceback
        return "ImportLine(...)"


class BadLine(FastauthError):
    """A line that cannot be imported; the text says why and never quotes it."""

    code = "bad_line"


class ImportReport(msgspec.Struct):
    """What an import did. ``bad`` names the first lines that were refused, by number and reason."""

    added: int = 0
    existing: int = 0
    bad_count: int = 0
    bad: list[tuple[int, str]] = []

    def refuse(self, number: int, reason: str) -> None:
        """Count a bad line."""
        self.bad_count += 1
        bisect.insort(self.bad, (number, reason))  # look-alikes are known only after their batch was written
        del self.bad[MOST_REASONS:]


_SCAN_PROBLEMS: Final = {
    core.JSON_DUPLICATE: "a member name stands twice",
    core.JSON_TOO_DEEP: "nested too deeply",
    core.JSON_TOO_MANY: "too many members",
    core.JSON_MALFORMED: "not valid JSON in UTF-8",
}
_decode_line = msgspec.json.Decoder(ImportLine).decode


async def import_file(
    file: Path, users: UserStore, hasher: PasswordHasher, on_progress: Callable[[int], None]
) -> ImportReport:
    """Add the users of a file; those that exist stay as they are, so an interrupted import is simply run again.

    In: ``on_progress`` is told the bytes of each batch. Raises Unavailable when the database fails.
    """
    report = ImportReport()
    pool = WorkPool(threads_per_worker(1), EXPECTED_HASH_S)

    async def store(accounts: list[tuple[int, User, str]], size: int) -> None:
        not_added = await users.add_missing([(user, looks) for _, user, looks in accounts])
        report.existing += not_added.existing
        report.added += len(accounts) - not_added.existing - len(not_added.lookalikes)
        if not_added.lookalikes:
            for number, user, _ in accounts:
                if user.name in not_added.lookalikes:
                    report.refuse(number, "the user name looks like one that exists already (Unicode TR 39)")
        on_progress(size)

    storing: asyncio.Task[None] | None = None
    try:
        for batch, size in _batches(file, report):
            accounts = [account for account in await _accounts(batch, users, hasher, pool, report) if account]
            if storing is not None:
                await storing
            storing = asyncio.create_task(store(accounts, size))
            await asyncio.sleep(0)  # the writer thread takes it up while the next batch is read
        if storing is not None:
            await storing
    finally:
        if storing is not None:
            await asyncio.gather(storing, return_exceptions=True)
        pool.close()
    return report


def _batches(file: Path, report: ImportReport) -> Iterator[tuple[list[tuple[int, ImportLine]], int]]:
    batch: list[tuple[int, ImportLine]] = []
    size = 0
    for number, line, line_size in _lines(file):
        size += line_size
        if line.strip():
            try:
                batch.append((number, _parse(line)))
            except FastauthError as error:
                report.refuse(number, str(error))
        if len(batch) >= BATCH:
            yield batch, size
            batch, size = [], 0
    yield batch, size


def _lines(file: Path) -> Iterator[tuple[int, bytes, int]]:
    """The lines with their numbers and sizes; of a too long one only the beginning: memory stays bounded."""
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            size, end = len(line), line
            while end and not end.endswith(b"\n"):
                end = stream.readline(MAX_LINE_BYTES)
                size += len(end)
            yield number, line, size


def _parse(line: bytes) -> ImportLine:
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(f"longer than {MAX_LINE_BYTES} bytes")
    problem = core.scan_json(line)
    if problem != core.JSON_OK:
        raise BadLine(_SCAN_PROBLEMS[problem])
    try:
        parsed = _decode_line(line)
    except msgspec.ValidationError as error:  # names a member and a type, never a value; the member may be anything
        raise BadLine(ascii(str(error))[1:-1]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadLine("not valid JSON in UTF-8") from None
    parsed.username = canonical_name(parsed.username)
    if sum(one is not None for one in (parsed.password_hash, parsed.password, parsed.keycloak)) != 1:
        raise BadLine("needs one of password_hash, password and keycloak")
    if parsed.keycloak is not None:
        parsed.password_hash = from_keycloak(parsed.keycloak)
    if parsed.password_hash is not None:
        parsed.password_hash = from_django(parsed.password_hash)
        parse_scheme(parsed.password_hash)
    if parsed.password is not None:
        check_new_password(parsed.password)
    if parsed.scope is not None:
        check_scope(parsed.scope)
    return parsed


async def _accounts(
    batch: list[tuple[int, ImportLine]],
    users: UserStore,
    hasher: PasswordHasher,
    pool: WorkPool,
    report: ImportReport,
) -> list[tuple[int, User, str] | None]:
    limit = asyncio.Semaphore(16)

    async def account(number: int, line: ImportLine) -> tuple[int, User, str] | None:
        password_hash, password = line.password_hash, line.password
        if password is not None:
            async with limit:
                # A hash is dear; on a second run most names exist already.
                if await users.find_by_name(line.username) is not None:
                    report.existing += 1
                    return None
                password_hash = await pool.run(lambda: hasher.hash(password))
        assert password_hash is not None  # noqa: S101 - _parse saw to it
        new = new_user(line.username, password_hash, line.scope, disabled=line.disabled)
        return number, new, skeleton(line.username)

    if any(line.password is not None for _, line in batch):
        return await asyncio.gather(*(account(number, line) for number, line in batch))
    return [await account(number, line) for number, line in batch]
