"""``RevocationBus`` on SQLite: a table that grows at its end, and the file's data version to tell when it may have."""

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import Final, cast

from fastauth.backends.sqlite.database import Database
from fastauth.domain.ports import News, NewsKind

POLL_S: Final = 0.1
_LONGEST_WAIT_S: Final = 0.8
# A change of a row has to reach the caches only, which do not keep anything for that long.
CHANGE_TOLD_S: Final = 600

_TELL: Final = "INSERT INTO news (kind, name, issued_until, until) VALUES (?, ?, ?, ?)"
_READ: Final = "SELECT seq, kind, name, issued_until, until FROM news WHERE seq > ? ORDER BY seq LIMIT ?"
_PURGE: Final = "DELETE FROM news WHERE seq IN (SELECT seq FROM news WHERE until < ? LIMIT ?)"


def tell(connection: sqlite3.Connection, kind: NewsKind, name: str, until_s: int, issued_until_s: int = 0) -> None:
    """One piece of news, as part of the transaction that makes it true."""
    connection.execute(_TELL, (kind, name, issued_until_s, until_s))


class SqliteRevocationBus:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version: int | None = None

    async def revoke_token(self, jti: str, until_s: int) -> None:
        await self._database.write(lambda connection: tell(connection, "jti", jti, until_s))

    async def read_after(self, seq: int, limit: int) -> Sequence[News]:
        rows = self._database.read(_READ, (seq, limit))
        return [News(seq, cast("NewsKind", kind), name, issued, until) for seq, kind, name, issued, until in rows]

    async def wait(self) -> None:
        waited_s = 0.0
        while waited_s < _LONGEST_WAIT_S:
            await asyncio.sleep(POLL_S)
            waited_s += POLL_S
            version = self._database.data_version()
            if version != self._version:
                self._version = version
                return

    async def purge(self, now_s: int, limit: int) -> int:
        parameters = (now_s, limit)
        return await self._database.write(lambda connection: connection.execute(_PURGE, parameters).rowcount)
