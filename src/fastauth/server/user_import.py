"""``fastauth user import``: many users from a JSON Lines file, in transactions of two thousand."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from fastauth import core
from fastauth.backends.passwords import HashPool, PasswordHasher, hash_threads
from fastauth.domain.errors import FastauthError
from fastauth.domain.password_schemes import parse_scheme
from fastauth.domain.ports import UserStore
from fastauth.domain.users import User, canonical_name, check_new_password, check_scope, skeleton
from fastauth.server.bootstrap import new_user

BATCH: Final = 2_000
MAX_LINE_BYTES: Final = 64 * 1024
MOST_REASONS: Final = 50


class ImportLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One line: a name with either a hash or a password."""

    username: str
    password_hash: str | None = None
    password: str | None = None
    scope: str | None = None
    disabled: bool = False


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
        if len(self.bad) < MOST_REASONS:
            self.bad.append((number, reason))


_decode_line = msgspec.json.Decoder(ImportLine).decode


async def import_file(
    file: Path, users: UserStore, hasher: PasswordHasher, on_progress: Callable[[int], None]
) -> ImportReport:
    """Add the users of a file; those that exist stay as they are, so an interrupted import is simply run again.

    In: ``on_progress`` is told the bytes of each batch. Raises Unavailable when the database fails.
    """
    report = ImportReport()
    pool = HashPool(hash_threads(1))

    async def store(accounts: list[tuple[int, User, str]], size: int) -> None:
        not_added = await users.add_missing([(user, looks) for _, user, looks in accounts])
        report.existing += not_added.existing
        report.added += len(accounts) - not_added.existing - len(not_added.lookalikes)
        if not_added.lookalikes:
            numbers = {user.name: number for number, user, _ in accounts}
            for name in not_added.lookalikes:
                report.refuse(numbers[name], "the user name looks like one that exists already (Unicode TR 39)")
        on_progress(size)

    try:
        async with asyncio.TaskGroup() as storing:
            stored: asyncio.Task[None] | None = None
            for batch, size in _batches(file, report):
                accounts = [account for account in await _accounts(batch, users, hasher, pool, report) if account]
                if stored is not None:
                    await stored
                stored = storing.create_task(store(accounts, size))
                await asyncio.sleep(0)  # the writer thread takes it up while the next batch is read
    except* FastauthError as failures:
        raise failures.exceptions[0] from None
    finally:
        pool.close()
    return report


def _batches(file: Path, report: ImportReport) -> Iterator[tuple[list[tuple[int, ImportLine]], int]]:
    batch: list[tuple[int, ImportLine]] = []
    size = 0
    for number, line in _lines(file):
        size += len(line)
        if line.strip():
            try:
                batch.append((number, _parse(line)))
            except FastauthError as error:
                report.refuse(number, str(error))
        if len(batch) >= BATCH:
            yield batch, size
            batch, size = [], 0
    yield batch, size


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers; of one that is too long only the beginning, so that memory stays bounded."""
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            while not line.endswith(b"\n") and len(line) > MAX_LINE_BYTES:
                rest = stream.readline(MAX_LINE_BYTES)
                if not rest or rest.endswith(b"\n"):
                    break
            yield number, line


def _parse(line: bytes) -> ImportLine:
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(f"longer than {MAX_LINE_BYTES} bytes")
    if core.scan_json(line) != core.JSON_OK:
        raise BadLine("not valid JSON without duplicate members")
    try:
        parsed = _decode_line(line)
    except msgspec.ValidationError as error:
        raise BadLine(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadLine("not valid JSON in UTF-8") from None
    parsed.username = canonical_name(parsed.username)
    if (parsed.password_hash is None) == (parsed.password is None):
        raise BadLine("needs either password_hash or password")
    if parsed.password_hash is not None:
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
    pool: HashPool,
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
