"""``KeyStore`` on SQLite."""

import sqlite3
import time
from collections.abc import Mapping, Sequence

from fastauth.backends.rows import KEY, key_of, row_of_key
from fastauth.backends.sqlite.database import Database
from fastauth.domain.ports import RingPolicy, StoredKey

_KEY_COLUMNS = ", ".join(f"signing_keys.{name}" for name in KEY.split(", "))
# One statement, so that keys and version are of the same moment.
_LOAD = f"SELECT version, {_KEY_COLUMNS} FROM key_ring LEFT JOIN signing_keys ORDER BY activates_ms, kid"  # noqa: S608 - constants only
_VERSION = "SELECT version FROM key_ring"
_NEXT_VERSION = "UPDATE key_ring SET version = version + 1 WHERE version = ?"
_ADD = f"INSERT INTO signing_keys ({KEY}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants only
_REMOVE = "UPDATE signing_keys SET removes_ms = ? WHERE kid = ?"
_FIND_POLICY = "SELECT alg, publish_ahead_s FROM key_ring"
_SAVE_POLICY = "UPDATE key_ring SET alg = ?, publish_ahead_s = ?"
_ERASE = "UPDATE signing_keys SET wrapped_private = x'' WHERE kid = ?"


class SqliteKeyStore:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def load_keys(self) -> tuple[int, Sequence[StoredKey]]:
        rows = self._database.read(_LOAD)
        keys = [key_of(row[1:]) for row in rows if row[1] is not None]
        return rows[0][0], keys

    async def ring_version(self) -> int:
        version: int = self._database.read(_VERSION)[0][0]
        return version

    async def change_ring(self, version: int, new_key: StoredKey | None, removals: Mapping[str, int]) -> bool:
        def change(connection: sqlite3.Connection) -> bool:
            if connection.execute(_NEXT_VERSION, (version,)).rowcount != 1:
                return False
            if new_key is not None:
                connection.execute(_ADD, row_of_key(new_key))
            connection.executemany(_REMOVE, [(removes_ms, kid) for kid, removes_ms in removals.items()])
            return True

        return await self._database.write(change)

    async def find_policy(self) -> RingPolicy | None:
        ((alg, publish_ahead_s),) = self._database.read(_FIND_POLICY)
        return None if alg is None else RingPolicy(alg, publish_ahead_s)

    async def save_policy(self, policy: RingPolicy) -> None:
        parameters = (policy.alg, policy.publish_ahead_s)
        await self._database.write(lambda connection: connection.execute(_SAVE_POLICY, parameters))

    async def erase_private(self, kids: Sequence[str]) -> None:
        await self._database.write(lambda connection: connection.executemany(_ERASE, [(kid,) for kid in kids]))
