"""``LeaseStore`` on SQLite: for the workers of one machine, and so by its clock."""

import time
from collections.abc import Callable
from typing import Final

from fastauth.backends.sqlite.database import Database

_TAKE: Final = (
    "INSERT INTO leases (name, holder, until_ms) VALUES (?1, ?2, ?3 + ?4) ON CONFLICT (name) DO UPDATE SET "
    "holder = ?2, until_ms = ?3 + ?4 WHERE holder = ?2 OR until_ms <= ?3 OR until_ms > ?3 + ?5"
)
_GIVE_BACK: Final = "DELETE FROM leases WHERE name = ? AND holder = ?"
# A lease that ends later than any is given for was given before the clock was set back.
_LONGEST_MS: Final = 3_600_000


class SqliteLeaseStore:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """In: seconds since 1970 UTC."""
        self._database = database
        self._clock = clock

    async def take(self, name: str, holder: str, ttl_s: float) -> bool:
        parameters = (name, holder, int(self._clock() * 1000), int(ttl_s * 1000), _LONGEST_MS)
        return await self._database.write(lambda connection: connection.execute(_TAKE, parameters).rowcount) == 1

    async def give_back(self, name: str, holder: str) -> None:
        await self._database.write(lambda connection: connection.execute(_GIVE_BACK, (name, holder)))
