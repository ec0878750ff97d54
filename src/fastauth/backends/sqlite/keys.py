"""``KeyStore`` on SQLite."""

import sqlite3
from collections.abc import Sequence

from fastauth.backends.sqlite.database import Database
from fastauth.domain.ports import StoredKey

_LOAD = "SELECT kid, alg, public_jwk, wrapped_private, created_at FROM signing_keys ORDER BY created_at, kid"
_ADD_FIRST = (
    "INSERT INTO signing_keys (kid, alg, public_jwk, wrapped_private, created_at) "
    "SELECT ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM signing_keys)"
)


class SqliteKeyStore:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_keys(self) -> Sequence[StoredKey]:
        return [
            StoredKey(kid=kid, alg=alg, public_jwk=public_jwk, wrapped_private=wrapped, created_at_s=created_at_s)
            for kid, alg, public_jwk, wrapped, created_at_s in self._database.read(_LOAD)
        ]

    async def add_first_key(self, key: StoredKey) -> bool:
        def insert(connection: sqlite3.Connection) -> int:
            return connection.execute(
                _ADD_FIRST, (key.kid, key.alg, key.public_jwk, key.wrapped_private, key.created_at_s)
            ).rowcount

        return await self._database.write(insert) == 1
