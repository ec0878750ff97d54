"""``SessionStore`` on SQLite."""

import sqlite3
from typing import Final

from fastauth.backends.rows import SESSION, row_of_session, session_of
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.news import tell
from fastauth.domain.sessions import Session

# Of the same moment: a user who was disabled, or got another password, since the login began gets no session.
ADD: Final = (
    f"INSERT INTO sessions ({SESSION}) SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? "  # noqa: S608 - constants only
    "FROM users WHERE sub = ? AND NOT disabled AND credential_generation = ?"
)
FIND: Final = f"SELECT {SESSION} FROM sessions WHERE sid = ?"  # noqa: S608 - constants only
ROTATE: Final = (
    "UPDATE sessions SET ends_at = ?, tokens_until = ?, token_hash = ?, parent_hash = ?, sealed_successor = ?, "
    "rotated_at_ms = ?, pace_us = ? WHERE sid = ? AND token_hash = ?"
)
END: Final = "DELETE FROM sessions WHERE sid = ? RETURNING tokens_until"
END_ALL: Final = "DELETE FROM sessions WHERE sub = ?"
# Within SQLite, and so without the GIL: somebody may have a hundred thousand sessions.
_TELL_ALL: Final = (
    "INSERT INTO news (kind, name, issued_until, until) "
    "SELECT 'sid', sid, 0, tokens_until FROM sessions WHERE sub = ? AND tokens_until > ?"
)
PURGE: Final = (
    "DELETE FROM sessions WHERE sid IN (SELECT sid FROM sessions WHERE ends_at < ? AND tokens_until < ? LIMIT ?)"
)
WIPE: Final = (
    "UPDATE sessions SET sealed_successor = NULL WHERE sid IN (SELECT sid FROM sessions "
    "WHERE sealed_successor IS NOT NULL AND rotated_at_ms < ? LIMIT ?)"
)


def end_all(connection: sqlite3.Connection, sub: str, now_s: int) -> int:
    """End every session of a user, as part of a transaction that may do more; out: how many."""
    connection.execute(_TELL_ALL, (sub, now_s))
    return connection.execute(END_ALL, (sub,)).rowcount


class SqliteSessionStore:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, session: Session, credential_generation: int) -> bool:
        parameters = (*row_of_session(session), session.sub, credential_generation)
        return await self._database.write(lambda connection: connection.execute(ADD, parameters).rowcount) == 1

    async def find(self, sid: str) -> Session | None:
        rows = self._database.read(FIND, (sid,))
        return session_of(rows[0]) if rows else None

    async def rotate(self, session: Session, token_hash: bytes) -> bool:
        parameters = (
            session.ends_at_s,
            session.tokens_until_s,
            session.token_hash,
            session.parent_hash,
            session.sealed_successor,
            session.rotated_at_ms,
            session.pace_us,
            session.sid,
            token_hash,
        )
        return await self._database.write(lambda connection: connection.execute(ROTATE, parameters).rowcount) == 1

    async def end(self, sid: str, now_s: int, tokens_until_s: int = 0) -> bool:
        def end(connection: sqlite3.Connection) -> bool:
            ended = connection.execute(END, (sid,)).fetchone()
            until_s = max(tokens_until_s, ended[0] if ended else 0)
            if until_s > now_s:
                tell(connection, "sid", sid, until_s)
            return ended is not None

        return await self._database.write(end)

    async def end_all(self, sub: str, now_s: int) -> int:
        return await self._database.write(lambda connection: end_all(connection, sub, now_s))

    async def purge(self, now_s: int, limit: int) -> int:
        parameters = (now_s, now_s, limit)
        return await self._database.write(lambda connection: connection.execute(PURGE, parameters).rowcount)

    async def wipe_successors(self, rotated_before_ms: int, limit: int) -> int:
        parameters = (rotated_before_ms, limit)
        return await self._database.write(lambda connection: connection.execute(WIPE, parameters).rowcount)
