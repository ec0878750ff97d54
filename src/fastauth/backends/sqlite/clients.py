"""``ClientStore`` on SQLite."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from fastauth.backends.rows import CLIENT, client_of, row_of_client
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.news import CHANGE_TOLD_S, tell
from fastauth.domain.clients import ALL_TOKENS_S, Client
from fastauth.domain.errors import Conflict, NotFound
from fastauth.jose.rotation import LONGEST_TOKEN_LIFE_S, NODE_SKEW_S

FIND: Final = f"SELECT {CLIENT} FROM clients WHERE client_id = ?"  # noqa: S608 - constants only
FIND_BY_NAME: Final = f"SELECT {CLIENT} FROM clients WHERE name = ?"  # noqa: S608 - constants only
LIST: Final = f"SELECT {CLIENT} FROM clients WHERE name > ? ORDER BY name LIMIT ?"  # noqa: S608 - constants only
_ADD: Final = f"INSERT INTO clients ({CLIENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants only
_SET_DISABLED: Final = "UPDATE clients SET disabled = ?, updated_at = ? WHERE client_id = ?"
_SET_SECRET: Final = (
    "UPDATE clients SET old_secret_hash = CASE WHEN ?1 > ?2 THEN secret_hash END, old_secret_until = ?1, "
    "secret_hash = ?3, updated_at = ?2 WHERE client_id = ?4"
)
_DELETE: Final = "DELETE FROM clients WHERE client_id = ?"
_TOKENS_GONE_S: Final = LONGEST_TOKEN_LIFE_S + NODE_SKEW_S


class SqliteClientStore:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, client_id: str) -> Client | None:
        rows = self._database.read(FIND, (client_id,))
        return client_of(rows[0]) if rows else None

    async def find_by_name(self, name: str) -> Client | None:
        rows = self._database.read(FIND_BY_NAME, (name,))
        return client_of(rows[0]) if rows else None

    async def list_clients(self, after: str, limit: int) -> Sequence[Client]:
        return [client_of(row) for row in self._database.read(LIST, (after, limit))]

    async def add(self, client: Client) -> None:
        try:
            await self._database.write(lambda connection: connection.execute(_ADD, row_of_client(client)))
        except Conflict:
            raise Conflict("a client of this name exists already") from None

    async def set_disabled(self, client_id: str, disabled: bool, now_s: int) -> None:
        # Enabled again, it may get new tokens within the same second: those from before are older.
        issued_until_s = ALL_TOKENS_S if disabled else now_s - 1

        def told(connection: sqlite3.Connection) -> None:
            tell(connection, "client_id", client_id, now_s + _TOKENS_GONE_S, issued_until_s)

        await self._change(_SET_DISABLED, (disabled, now_s, client_id), told)

    async def set_secret(self, client_id: str, secret_hash: bytes, old_until_s: int, now_s: int) -> None:
        def told(connection: sqlite3.Connection) -> None:
            tell(connection, "client", client_id, now_s + CHANGE_TOLD_S)

        await self._change(_SET_SECRET, (old_until_s, now_s, secret_hash, client_id), told)

    async def delete(self, client_id: str, now_s: int) -> None:
        def told(connection: sqlite3.Connection) -> None:
            tell(connection, "client_id", client_id, now_s + _TOKENS_GONE_S, ALL_TOKENS_S)

        await self._change(_DELETE, (client_id,), told)

    async def _change(self, sql: str, parameters: Sequence[object], told: Callable[[sqlite3.Connection], None]) -> None:
        def change(connection: sqlite3.Connection) -> int:
            count = connection.execute(sql, parameters).rowcount
            if count:
                told(connection)
            return count

        if await self._database.write(change) == 0:
            raise NotFound("there is no such client")
