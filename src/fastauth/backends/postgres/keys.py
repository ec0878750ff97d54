"""``KeyStore`` on PostgreSQL."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from fastauth.backends.postgres.database import Database, changed
from fastauth.backends.rows import KEY, Row, key_of, row_of_key
from fastauth.domain.ports import RingPolicy, StoredKey

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_NOW_MS: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::float8"
# One statement, so that keys and version are of the same moment.
_KEY_COLUMNS: Final = ", ".join(f"signing_keys.{name}" for name in KEY.split(", "))
_LOAD: Final = (
    f"SELECT {_NOW_MS}, version, {_KEY_COLUMNS} FROM key_ring LEFT JOIN signing_keys ON true ORDER BY activates_ms, kid"  # noqa: S608 - constants only
)
_VERSION: Final = f"SELECT {_NOW_MS}, version FROM key_ring"  # noqa: S608 - constants only
_NEXT_VERSION: Final = "UPDATE key_ring SET version = version + 1 WHERE version = $1"
_ADD: Final = f"INSERT INTO signing_keys ({KEY}) VALUES ($1, $2, $3, $4, $5, $6, $7)"  # noqa: S608 - constants only
_REMOVE: Final = "UPDATE signing_keys SET removes_ms = $1 WHERE kid = $2"
_FIND_POLICY: Final = "SELECT alg, publish_ahead_s FROM key_ring"
_SAVE_POLICY: Final = "UPDATE key_ring SET alg = $1, publish_ahead_s = $2"
_ERASE: Final = "UPDATE signing_keys SET wrapped_private = '' WHERE kid = ANY($1::text[])"


class PostgresKeyStore:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ahead_ms: float | None = None  # the database's clock, of this process's monotonic one

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 if self._ahead_ms is None else int(_monotonic_ms() + self._ahead_ms)

    async def _read_now(self, sql: str) -> Sequence[Row]:
        """Rows that begin with the database's time, which is about that of the middle of the way there and back."""
        began_ms = _monotonic_ms()
        rows = await self._database.read(sql)
        self._ahead_ms = rows[0][0] - (began_ms + _monotonic_ms()) / 2
        return rows

    async def load_keys(self) -> tuple[int, Sequence[StoredKey]]:
        rows = await self._read_now(_LOAD)
        keys = [key_of(row[2:]) for row in rows if row[2] is not None]
        return rows[0][1], keys

    async def ring_version(self) -> int:
        version: int = (await self._read_now(_VERSION))[0][1]
        return version

    async def change_ring(self, version: int, new_key: StoredKey | None, removals: Mapping[str, int]) -> bool:
        async def change(connection: "PoolConnectionProxy") -> bool:
            if changed(await connection.execute(_NEXT_VERSION, version)) != 1:
                return False
            if new_key is not None:
                await connection.execute(_ADD, *row_of_key(new_key))
            await connection.executemany(_REMOVE, [(removes_ms, kid) for kid, removes_ms in removals.items()])
            return True

        return await self._database.transact(change)

    async def find_policy(self) -> RingPolicy | None:
        ((alg, publish_ahead_s),) = await self._database.read(_FIND_POLICY)
        return None if alg is None else RingPolicy(alg, publish_ahead_s)

    async def save_policy(self, policy: RingPolicy) -> None:
        await self._database.execute(_SAVE_POLICY, policy.alg, policy.publish_ahead_s)

    async def erase_private(self, kids: Sequence[str]) -> None:
        await self._database.execute(_ERASE, list(kids))


def _monotonic_ms() -> float:
    return time.monotonic() * 1000


def _row(key: StoredKey) -> tuple[object, ...]:
    return (
        key.kid,
        key.alg,
        key.public_jwk,
        key.wrapped_private,
        key.published_ms,
        key.activates_ms,
        key.removes_ms,
    )
