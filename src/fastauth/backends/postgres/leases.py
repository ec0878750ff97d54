"""``LeaseStore`` on PostgreSQL, by the database's clock: those of the nodes may differ.

A row and not an advisory lock: that would hold a connection, and a pooler in transaction mode gives it to others.
"""

from typing import Final

from fastauth.backends.postgres.database import Database

_NOW_MS: Final = "(extract(epoch FROM now()) * 1000)::bigint"
_TAKE: Final = (
    f"INSERT INTO leases (name, holder, until_ms) VALUES ($1, $2, {_NOW_MS} + $3) "  # noqa: S608 - constants only
    f"ON CONFLICT (name) DO UPDATE SET holder = $2, until_ms = {_NOW_MS} + $3 "
    f"WHERE leases.holder = $2 OR leases.until_ms <= {_NOW_MS}"
)
_GIVE_BACK: Final = "DELETE FROM leases WHERE name = $1 AND holder = $2"


class PostgresLeaseStore:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, name: str, holder: str, ttl_s: float) -> bool:
        return await self._database.execute(_TAKE, name, holder, int(ttl_s * 1000)) == 1

    async def give_back(self, name: str, holder: str) -> None:
        await self._database.execute(_GIVE_BACK, name, holder)
