"""``UserStore`` on PostgreSQL."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fastauth.backends.postgres.database import Database, changed
from fastauth.backends.postgres.news import CHANGE_TOLD_S, begin_telling, tell
from fastauth.backends.postgres.sessions import end_all
from fastauth.backends.rows import NEW_USER, USER, row_of_user, user_of
from fastauth.domain.errors import Conflict, NotFound, PasswordHashRefused
from fastauth.domain.password_schemes import cost_us, parse_scheme
from fastauth.domain.ports import NotAdded
from fastauth.domain.users import User

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

FIND_BY_NAME: Final = f"SELECT {USER} FROM users WHERE name = $1"  # noqa: S608 - constants only
FIND_BY_SUB: Final = f"SELECT {USER} FROM users WHERE sub = $1"  # noqa: S608 - constants only
_FIND_BY_IDENTITY: Final = f"SELECT {USER} FROM users WHERE source = $1 AND subject = $2"  # noqa: S608 - constants only
_EXISTS: Final = "SELECT 1 FROM users WHERE name = $1"
LIST: Final = f"SELECT {USER} FROM users WHERE name > $1 ORDER BY name LIMIT $2"  # noqa: S608 - constants only
_INSERT: Final = f"INSERT INTO users ({NEW_USER}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"  # noqa: S608 - constants only
_INSERT_MISSING: Final = f"{_INSERT} ON CONFLICT DO NOTHING"
_SET_HASH: Final = (
    "UPDATE users SET password_hash = $1, hash_cost_us = $2, updated_at = $3, "
    "credential_generation = credential_generation + 1 WHERE name = $4 RETURNING sub"
)
_SET_DISABLED: Final = "UPDATE users SET disabled = $1, updated_at = $2 WHERE name = $3 RETURNING sub"
_DELETE: Final = "DELETE FROM users WHERE name = $1 RETURNING sub"
_REPLACE_HASH: Final = (
    "UPDATE users SET password_hash = $1, hash_cost_us = $2, updated_at = $3 WHERE sub = $4 AND password_hash = $5"
)
SLOWEST: Final = "SELECT password_hash FROM users ORDER BY hash_cost_us DESC LIMIT 1"


class PostgresUserStore:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_by_name(self, name: str) -> User | None:
        row = await self._database.find(FIND_BY_NAME, name)
        return None if row is None else user_of(row)

    async def find_by_sub(self, sub: str) -> User | None:
        row = await self._database.find(FIND_BY_SUB, sub)
        return None if row is None else user_of(row)

    async def find_by_identity(self, source: str, subject: str) -> User | None:
        row = await self._database.find(_FIND_BY_IDENTITY, source, subject)
        return None if row is None else user_of(row)

    async def list_users(self, after: str, limit: int) -> Sequence[User]:
        return [user_of(row) for row in await self._database.read(LIST, after, limit)]

    async def count(self) -> int:
        count: int = (await self._database.read("SELECT count(*) FROM users"))[0][0]
        return count

    async def add(self, user: User, skeleton: str) -> None:
        try:
            await self._database.execute(_INSERT, *row_of_user(user, skeleton))
        except Conflict:
            raise Conflict("a user of this name, or of one that looks like it, exists already") from None

    async def add_missing(self, users: Sequence[tuple[User, str]]) -> NotAdded:
        async def insert(connection: "PoolConnectionProxy") -> NotAdded:
            existing, lookalikes = 0, []
            for user, skeleton in users:
                if changed(await connection.execute(_INSERT_MISSING, *row_of_user(user, skeleton))) == 1:
                    continue
                if await connection.fetchval(_EXISTS, user.name):
                    existing += 1
                else:
                    lookalikes.append(user.name)
            return NotAdded(existing, lookalikes)

        return await self._database.transact(insert)

    async def set_disabled(self, name: str, disabled: bool, now_s: int) -> None:
        await self._change(_SET_DISABLED, (disabled, now_s, name), now_s, ends_sessions=disabled)

    async def set_password_hash(self, name: str, password_hash: str, now_s: int) -> None:
        parameters = (password_hash, cost_us(password_hash), now_s, name)
        await self._change(_SET_HASH, parameters, now_s, ends_sessions=True)

    async def replace_password_hash(self, sub: str, old: str, new: str, now_s: int) -> bool:
        async def replace(connection: "PoolConnectionProxy") -> bool:
            if changed(await connection.execute(_REPLACE_HASH, new, cost_us(new), now_s, sub, old)) == 0:
                return False
            await begin_telling(connection)
            await tell(connection, "user", sub, now_s + CHANGE_TOLD_S)
            return True

        return await self._database.transact(replace)

    async def delete(self, name: str, now_s: int) -> None:
        await self._change(_DELETE, (name,), now_s, ends_sessions=True)

    async def slowest_scheme(self) -> str | None:
        row = await self._database.find(SLOWEST)
        try:
            return None if row is None else parse_scheme(row[0]).identifier
        except PasswordHashRefused:  # a damaged row must not lock everybody out; its own login will say so
            return None

    async def _change(self, sql: str, parameters: Sequence[object], now_s: int, *, ends_sessions: bool) -> None:
        async def change(connection: "PoolConnectionProxy") -> bool:
            sub = await connection.fetchval(sql, *parameters)
            if sub is None:
                return False
            await begin_telling(connection)
            if ends_sessions:
                await end_all(connection, sub, now_s)
            await tell(connection, "user", sub, now_s + CHANGE_TOLD_S)
            return True

        if not await self._database.transact(change):
            raise NotFound("there is no user of this name")
