"""``UserStore`` on SQLite."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from fastauth.backends.sqlite.database import Database
from fastauth.domain.errors import Conflict, NotFound
from fastauth.domain.password_schemes import parse_scheme
from fastauth.domain.ports import NotAdded
from fastauth.domain.users import User

_COLUMNS = "sub, name, password_hash, scope, disabled, created_at, updated_at"
_FIND_BY_NAME = f"SELECT {_COLUMNS} FROM users WHERE name = ?"  # noqa: S608 - constants only
_EXISTS = "SELECT 1 FROM users WHERE name = ?"
_LIST = f"SELECT {_COLUMNS} FROM users WHERE name > ? ORDER BY name LIMIT ?"  # noqa: S608 - constants only
_INSERT = f"INSERT INTO users ({_COLUMNS}, skeleton) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants only
_INSERT_MISSING = f"{_INSERT} ON CONFLICT DO NOTHING"
_INSERT_SCHEME = "INSERT INTO password_schemes (identifier, cost_ms) VALUES (?, ?) ON CONFLICT DO NOTHING"
_SLOWEST_SCHEME = "SELECT identifier FROM password_schemes ORDER BY cost_ms DESC LIMIT 1"


def _user(row: tuple[Any, ...]) -> User:
    sub, name, password_hash, scope, disabled, created_at_s, updated_at_s = row
    return User(
        sub=sub,
        name=name,
        password_hash=password_hash,
        scope=scope,
        disabled=bool(disabled),
        created_at_s=created_at_s,
        updated_at_s=updated_at_s,
    )


def _row(user: User, skeleton: str) -> tuple[object, ...]:
    return (
        user.sub,
        user.name,
        user.password_hash,
        user.scope,
        user.disabled,
        user.created_at_s,
        user.updated_at_s,
        skeleton,
    )


def _note_scheme(connection: sqlite3.Connection, password_hash: str) -> None:
    scheme = parse_scheme(password_hash)
    connection.execute(_INSERT_SCHEME, (scheme.identifier, scheme.cost_ms))


class SqliteUserStore:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_by_name(self, name: str) -> User | None:
        rows = self._database.read(_FIND_BY_NAME, (name,))
        return _user(rows[0]) if rows else None

    async def list_users(self, after: str, limit: int) -> Sequence[User]:
        return [_user(row) for row in self._database.read(_LIST, (after, limit))]

    async def count(self) -> int:
        count: int = self._database.read("SELECT count(*) FROM users")[0][0]
        return count

    async def add(self, user: User, skeleton: str) -> None:
        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(_INSERT, _row(user, skeleton))
            _note_scheme(connection, user.password_hash)

        try:
            await self._database.write(insert)
        except Conflict:
            raise Conflict("a user of this name, or of one that looks like it, exists already") from None

    async def add_missing(self, users: Sequence[tuple[User, str]]) -> NotAdded:
        def insert(connection: sqlite3.Connection) -> NotAdded:
            schemes = {scheme.identifier: scheme for scheme in (parse_scheme(user.password_hash) for user, _ in users)}
            connection.executemany(_INSERT_SCHEME, [(key, scheme.cost_ms) for key, scheme in schemes.items()])
            existing, lookalikes = 0, []
            for user, skeleton in users:
                if connection.execute(_INSERT_MISSING, _row(user, skeleton)).rowcount == 1:
                    continue
                if connection.execute(_EXISTS, (user.name,)).fetchone():
                    existing += 1
                else:
                    lookalikes.append(user.name)
            return NotAdded(existing, lookalikes)

        return await self._database.write(insert)

    async def set_disabled(self, name: str, disabled: bool, now_s: int) -> None:
        await self._update("UPDATE users SET disabled = ?, updated_at = ? WHERE name = ?", disabled, now_s, name)

    async def set_password_hash(self, name: str, password_hash: str, now_s: int) -> None:
        def update(connection: sqlite3.Connection) -> int:
            _note_scheme(connection, password_hash)
            return connection.execute(
                "UPDATE users SET password_hash = ?, updated_at = ? WHERE name = ?",
                (password_hash, now_s, name),
            ).rowcount

        if await self._database.write(update) == 0:
            raise NotFound("there is no user of this name")

    async def replace_password_hash(self, sub: str, old: str, new: str, now_s: int) -> bool:
        def update(connection: sqlite3.Connection) -> int:
            _note_scheme(connection, new)
            return connection.execute(
                "UPDATE users SET password_hash = ?, updated_at = ? WHERE sub = ? AND password_hash = ?",
                (new, now_s, sub, old),
            ).rowcount

        return await self._database.write(update) == 1

    async def delete(self, name: str) -> None:
        await self._update("DELETE FROM users WHERE name = ?", name)

    async def slowest_scheme(self) -> str | None:
        rows = self._database.read(_SLOWEST_SCHEME)
        return rows[0][0] if rows else None

    async def _update(self, sql: str, *parameters: object) -> None:
        count = await self._database.write(lambda connection: connection.execute(sql, parameters).rowcount)
        if count == 0:
            raise NotFound("there is no user of this name")
