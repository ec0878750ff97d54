"""``UserStore`` on SQLite."""

import sqlite3
from collections.abc import Sequence

from fastauth.backends.rows import NEW_USER, USER, row_of_user, user_of
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.news import CHANGE_TOLD_S, tell
from fastauth.backends.sqlite.sessions import end_all
from fastauth.domain.errors import Conflict, NotFound, PasswordHashRefused
from fastauth.domain.password_schemes import cost_us, parse_scheme
from fastauth.domain.ports import NotAdded
from fastauth.domain.users import User

_FIND_BY_NAME = f"SELECT {USER} FROM users WHERE name = ?"  # noqa: S608 - constants only
_FIND_BY_SUB = f"SELECT {USER} FROM users WHERE sub = ?"  # noqa: S608 - constants only
_FIND_BY_IDENTITY = f"SELECT {USER} FROM users WHERE source = ? AND subject = ?"  # noqa: S608 - constants only
_EXISTS = "SELECT 1 FROM users WHERE name = ?"
_LIST = f"SELECT {USER} FROM users WHERE name > ? ORDER BY name LIMIT ?"  # noqa: S608 - constants only
_INSERT = f"INSERT INTO users ({NEW_USER}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants only
_INSERT_MISSING = f"{_INSERT} ON CONFLICT DO NOTHING"
_SET_HASH = (
    "UPDATE users SET password_hash = ?, hash_cost_us = ?, updated_at = ?, "
    "credential_generation = credential_generation + 1 WHERE name = ? RETURNING sub"
)
_SET_DISABLED = "UPDATE users SET disabled = ?, updated_at = ? WHERE name = ? RETURNING sub"
_DELETE = "DELETE FROM users WHERE name = ? RETURNING sub"
_REPLACE_HASH = (
    "UPDATE users SET password_hash = ?, hash_cost_us = ?, updated_at = ? WHERE sub = ? AND password_hash = ?"
)
_SLOWEST = "SELECT password_hash FROM users ORDER BY hash_cost_us DESC LIMIT 1"


class SqliteUserStore:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_by_name(self, name: str) -> User | None:
        rows = self._database.read(_FIND_BY_NAME, (name,))
        return user_of(rows[0]) if rows else None

    async def find_by_sub(self, sub: str) -> User | None:
        rows = self._database.read(_FIND_BY_SUB, (sub,))
        return user_of(rows[0]) if rows else None

    async def find_by_identity(self, source: str, subject: str) -> User | None:
        rows = self._database.read(_FIND_BY_IDENTITY, (source, subject))
        return user_of(rows[0]) if rows else None

    async def list_users(self, after: str, limit: int) -> Sequence[User]:
        return [user_of(row) for row in self._database.read(_LIST, (after, limit))]

    async def count(self) -> int:
        count: int = self._database.read("SELECT count(*) FROM users")[0][0]
        return count

    async def add(self, user: User, skeleton: str) -> None:
        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(_INSERT, row_of_user(user, skeleton))

        try:
            await self._database.write(insert)
        except Conflict:
            raise Conflict("a user of this name, or of one that looks like it, exists already") from None

    async def add_missing(self, users: Sequence[tuple[User, str]]) -> NotAdded:
        def insert(connection: sqlite3.Connection) -> NotAdded:
            existing, lookalikes = 0, []
            for user, skeleton in users:
                if connection.execute(_INSERT_MISSING, row_of_user(user, skeleton)).rowcount == 1:
                    continue
                if connection.execute(_EXISTS, (user.name,)).fetchone():
                    existing += 1
                else:
                    lookalikes.append(user.name)
            return NotAdded(existing, lookalikes)

        return await self._database.write(insert)

    async def set_disabled(self, name: str, disabled: bool, now_s: int) -> None:
        await self._change(_SET_DISABLED, (disabled, now_s, name), now_s, ends_sessions=disabled)

    async def set_password_hash(self, name: str, password_hash: str, now_s: int) -> None:
        parameters = (password_hash, cost_us(password_hash), now_s, name)
        await self._change(_SET_HASH, parameters, now_s, ends_sessions=True)

    async def replace_password_hash(self, sub: str, old: str, new: str, now_s: int) -> bool:
        def replace(connection: sqlite3.Connection) -> bool:
            if connection.execute(_REPLACE_HASH, (new, cost_us(new), now_s, sub, old)).rowcount == 0:
                return False
            tell(connection, "user", sub, now_s + CHANGE_TOLD_S)
            return True

        return await self._database.write(replace)

    async def delete(self, name: str, now_s: int) -> None:
        await self._change(_DELETE, (name,), now_s, ends_sessions=True)

    async def slowest_scheme(self) -> str | None:
        rows = self._database.read(_SLOWEST)
        try:
            return parse_scheme(rows[0][0]).identifier if rows else None
        except PasswordHashRefused:  # a damaged row must not lock everybody out; its own login will say so
            return None

    async def _change(self, sql: str, parameters: Sequence[object], now_s: int, *, ends_sessions: bool) -> None:
        def change(connection: sqlite3.Connection) -> bool:
            changed = connection.execute(sql, parameters).fetchone()
            if changed is None:
                return False
            if ends_sessions:
                end_all(connection, changed[0], now_s)
            tell(connection, "user", changed[0], now_s + CHANGE_TOLD_S)
            return True

        if not await self._database.write(change):
            raise NotFound("there is no user of this name")
