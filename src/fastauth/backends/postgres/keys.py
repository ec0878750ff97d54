"""``KeyStore`` on PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from fastauth.backends.postgres.database import Database, changed
from fastauth.domain.ports import RingPolicy, StoredKey

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_COLUMNS: Final = "kid, alg, public_jwk, wrapped_private, published_ms, activates_ms, removes_ms"
# One statement, so that keys and version are of the same moment.
_KEY_COLUMNS: Final = ", ".join(f"signing_keys.{name}" for name in _COLUMNS.split(", "))
_LOAD: Final = f"SELECT version, {_KEY_COLUMNS} FROM key_ring LEFT JOIN signing_keys ON true ORDER BY activates_ms, kid"  # noqa: S608 - constants only
_VERSION: Final = "SELECT version FROM key_ring"
_NEXT_VERSION: Final = "UPDATE key_ring SET version = version + 1 WHERE version = $1"
_ADD: Final = f"INSERT INTO signing_keys ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)"  # noqa: S608 - constants only
_REMOVE: Final = "UPDATE signing_keys SET removes_ms = $1 WHERE kid = $2"
_FIND_POLICY: Final = "SELECT alg, publish_ahead_s FROM key_ring"
_SAVE_POLICY: Final = "UPDATE key_ring SET alg = $1, publish_ahead_s = $2"
_ERASE: Final = "UPDATE signing_keys SET wrapped_private = '' WHERE kid = ANY($1::text[])"


class PostgresKeyStore:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_keys(self) -> tuple[int, Sequence[StoredKey]]:
        rows = await self._database.read(_LOAD)
        keys = [
            StoredKey(
                kid=kid,
                alg=alg,
                public_jwk=public_jwk,
                wrapped_private=wrapped,
                published_ms=published_ms,
                activates_ms=activates_ms,
                removes_ms=removes_ms,
            )
            for _, kid, alg, public_jwk, wrapped, published_ms, activates_ms, removes_ms in rows
            if kid is not None
        ]
        return rows[0][0], keys

    async def ring_version(self) -> int:
        version: int = (await self._database.read(_VERSION))[0][0]
        return version

    async def change_ring(self, version: int, new_key: StoredKey | None, removals: Mapping[str, int]) -> bool:
        async def change(connection: "PoolConnectionProxy") -> bool:
            if changed(await connection.execute(_NEXT_VERSION, version)) != 1:
                return False
            if new_key is not None:
                await connection.execute(_ADD, *_row(new_key))
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
