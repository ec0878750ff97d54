"""Moving house: an installation on SQLite is copied to PostgreSQL, a page at a time, and from where it was stopped.

While it is not whole, ``schema_info.moving_from`` names where it comes from and no server starts on it.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastauth.backends.migrations import HEAD, sqlite_revision
from fastauth.backends.rows import CLIENT, KEY, NEW_USER, SESSION
from fastauth.backends.sqlite.database import WRITE_BUSY_TIMEOUT_MS, as_domain_error
from fastauth.domain.errors import FastauthError
from fastauth.jose.wrapping import MasterKey

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    from fastauth.backends.postgres.database import Database

PAGE: Final = 1_000

# The columns of each table, its key first. Leases are of processes that have ended.
TABLES: Final = {
    "users": NEW_USER,
    "clients": CLIENT,
    "signing_keys": KEY,
    "sessions": SESSION,
    "news": "seq, kind, name, issued_until, until",
}
_BOOLEAN: Final = "disabled"


class MoveRefused(FastauthError):
    """The installation cannot be copied; the text says why and what to do."""

    code = "move_refused"


class House:
    """The SQLite file that is left; it is locked, so that no server changes it meanwhile."""

    def __init__(self, path: Path) -> None:
        """Raises MoveRefused, Unavailable or SchemaRefused."""
        if not path.is_file():
            raise MoveRefused(f"there is no database at {path}")
        if sqlite_revision(path) != HEAD:
            raise MoveRefused(f"{path} has an older schema; run fastauth migrate on it first")
        self.path = path
        self._locks = list(_locked(path))
        try:
            # Not read-only: what is still in the WAL has to be seen.
            self._connection = sqlite3.connect(path, timeout=WRITE_BUSY_TIMEOUT_MS / 1000)
        except sqlite3.Error as error:
            self.close()
            raise as_domain_error(error, path) from error

    def count(self, table: str) -> int:
        """How many rows there are."""
        count: int = self._read(f"SELECT count(*) FROM {table}")[0][0]  # noqa: S608 - our own table names
        return count

    def page(self, table: str, after: object) -> list[tuple[Any, ...]]:
        """The next rows by key, behind the key ``after`` (None for the first)."""
        columns = TABLES[table]
        key = columns.partition(",")[0]
        where = "" if after is None else f"WHERE {key} > ?"
        sql = f"SELECT {columns} FROM {table} {where} ORDER BY {key} LIMIT {PAGE}"  # noqa: S608 - our own names
        rows = self._read(sql, () if after is None else (after,))
        names = columns.split(", ")
        if _BOOLEAN not in names:
            return rows
        at = names.index(_BOOLEAN)
        return [(*row[:at], bool(row[at]), *row[at + 1 :]) for row in rows]

    def ring(self) -> tuple[Any, ...]:
        """Version, algorithm and publishing time of the key ring."""
        return self._read("SELECT version, alg, publish_ahead_s FROM key_ring")[0]

    def last_number(self) -> int:
        """The highest number that a piece of news ever had."""
        rows = self._read("SELECT seq FROM sqlite_sequence WHERE name = 'news'")
        return rows[0][0] if rows else 0

    def check_master_key(self, master_key: MasterKey) -> None:
        """Raises MasterKeyRefused unless it is the one of this installation."""
        for kid, wrapped in self._read(
            "SELECT kid, wrapped_private FROM signing_keys WHERE length(wrapped_private) > 0"
        ):
            master_key.unwrap(wrapped, kid)

    def _read(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise as_domain_error(error, self.path) from error

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(AttributeError):
            self._connection.close()
        for descriptor in self._locks:
            os.close(descriptor)


def _locked(path: Path) -> Iterator[int]:
    """The locks that a server holds (``instance.InstanceLock``): in its directory, and beside a file elsewhere."""
    for name in (path.parent / "fastauth.lock", path.with_name(path.name + ".lock")):
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise MoveRefused(f"a fastauth runs on {path}; stop it first: what it writes now would be lost") from None
        yield descriptor


async def move(house: House, database: "Database", progress: Callable[[int], None]) -> dict[str, int]:
    """Copy everything. In: where it goes, migrated; ``progress`` is told of every page how many rows it had.

    Out: how many rows each table has, the same on both sides. Raises MoveRefused or Unavailable.
    """
    await _begin(house, database)
    for table in TABLES:
        await _copy(house, database, table, progress)
    counts = {table: house.count(table) for table in TABLES}
    for table, count in counts.items():
        row = await database.find(f"SELECT count(*) FROM {table}")  # noqa: S608 - our own table names
        copied = 0 if row is None else row[0]
        if copied != count:
            raise MoveRefused(f"{table}: {count} rows there and {copied} here; empty the new database and begin again")
    await _end(house, database)
    return counts


async def _begin(house: House, database: "Database") -> None:
    row = await database.find("SELECT moving_from FROM schema_info")
    origin = None if row is None else row[0]
    if origin == str(house.path):
        return
    if origin is not None:
        raise MoveRefused(f"the new database holds part of {origin}; go on with that, or empty it")
    for table in TABLES:
        if await database.find(f"SELECT 1 FROM {table} LIMIT 1"):  # noqa: S608 - our own table names
            raise MoveRefused(f"the new database is in use: there are {table}; name an empty one")
    await database.execute("UPDATE schema_info SET moving_from = $1", str(house.path))


async def _copy(house: House, database: "Database", table: str, progress: Callable[[int], None]) -> None:
    columns = TABLES[table].split(", ")
    key = columns[0]
    places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    insert = f"INSERT INTO {table} ({TABLES[table]}) VALUES ({places})"  # noqa: S608 - our own names
    # Pages are copied whole and in the order of the key: the highest one says how far an earlier run came.
    row = await database.find(f"SELECT max({key}), count(*) FROM {table}")  # noqa: S608 - our own names
    after, done = (None, 0) if row is None else (row[0], row[1])
    progress(done)
    while rows := house.page(table, after):

        async def write(connection: "PoolConnectionProxy", page: list[tuple[Any, ...]] = rows) -> None:
            await connection.executemany(insert, page)

        await database.transact(write)
        after = rows[-1][0]
        progress(len(rows))


async def _end(house: House, database: "Database") -> None:
    version, alg, ahead_s = house.ring()

    async def finish(connection: "PoolConnectionProxy") -> None:
        await connection.execute(
            "UPDATE key_ring SET version = $1, alg = $2, publish_ahead_s = $3", version, alg, ahead_s
        )
        # No number of before is given again.
        await connection.execute(
            "SELECT setval(pg_get_serial_sequence('news', 'seq'), greatest($1::bigint, 1))", house.last_number() + 1
        )
        await connection.execute("UPDATE schema_info SET moving_from = NULL")

    await database.transact(finish)
