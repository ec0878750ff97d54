"""``SessionStore`` on PostgreSQL.

When a session was refreshed last, and its bucket, are stored by the database's clock and handed out by the caller's:
nodes whose clocks differ judge the grace of a refresh token alike.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fastauth.backends.postgres.database import Database
from fastauth.backends.postgres.news import begin_telling, tell
from fastauth.backends.rows import SESSION, Row, row_of_session, session_of
from fastauth.domain.sessions import Session

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_NOW_US: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_NOW_MS: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
# Without the two that are translated.
_TIMELESS: Final = SESSION.removesuffix(", rotated_at_ms, pace_us")
# FOR SHARE: a user who is being disabled, or gets another password, gets no session that this would not end. Whoever
# changes the user waits for this one and then sees its session.
ADD: Final = (
    f"INSERT INTO sessions ({SESSION}) "  # noqa: S608 - constants only
    "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, 0 FROM users "
    "WHERE sub = $2 AND NOT disabled AND credential_generation = $13 FOR SHARE"
)
FIND: Final = (
    f"SELECT {_TIMELESS}, CASE WHEN rotated_at_ms <> 0 THEN {_NOW_MS} - rotated_at_ms END, "  # noqa: S608 - constants only
    f"CASE WHEN pace_us <> 0 THEN pace_us - {_NOW_US} END FROM sessions WHERE sid = $1"
)
ROTATE: Final = (
    "UPDATE sessions SET ends_at = $1, tokens_until = $2, token_hash = $3, parent_hash = $4, sealed_successor = $5, "  # noqa: S608 - constants only
    f"rotated_at_ms = coalesce({_NOW_MS} - $6::bigint, 0), pace_us = coalesce({_NOW_US} + $7::bigint, 0) "
    "WHERE sid = $8 AND token_hash = $9"
)
END: Final = "DELETE FROM sessions WHERE sid = $1 RETURNING tokens_until"
END_ALL: Final = (
    "WITH ended AS (DELETE FROM sessions WHERE sub = $1 RETURNING sid, tokens_until), told AS ("
    "INSERT INTO news (kind, name, issued_until, until) "
    "SELECT 'sid', sid, 0, tokens_until FROM ended WHERE tokens_until > $2) SELECT count(*) FROM ended"
)
PURGE: Final = (
    "DELETE FROM sessions WHERE sid IN (SELECT sid FROM sessions WHERE ends_at < $1 AND tokens_until < $1 "
    "ORDER BY ends_at LIMIT $2 FOR UPDATE SKIP LOCKED)"
)
WIPE: Final = (
    "UPDATE sessions SET sealed_successor = NULL WHERE sid IN (SELECT sid FROM sessions "  # noqa: S608 - constants only
    f"WHERE sealed_successor IS NOT NULL AND rotated_at_ms < {_NOW_MS.replace('clock_timestamp', 'now')} - $1::bigint "
    "ORDER BY rotated_at_ms LIMIT $2 FOR UPDATE SKIP LOCKED)"
)


async def end_all(connection: "PoolConnectionProxy", sub: str, now_s: int) -> int:
    """End every session of a user, as part of a transaction that has begun to tell; out: how many."""
    count: int = await connection.fetchval(END_ALL, sub, now_s)
    return count


class PostgresSessionStore:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """In: the clock of those who call, in seconds since 1970 UTC."""
        self._database = database
        self._clock = clock

    async def add(self, session: Session, credential_generation: int) -> bool:
        *timeless, _, _ = row_of_session(session)
        return await self._database.execute(ADD, *timeless, credential_generation) == 1

    async def find(self, sid: str) -> Session | None:
        row = await self._database.find(FIND, sid)
        return None if row is None else self._session(row)

    async def rotate(self, session: Session, token_hash: bytes) -> bool:
        now_us = int(self._clock() * 1_000_000)
        parameters = (
            session.ends_at_s,
            session.tokens_until_s,
            session.token_hash,
            session.parent_hash,
            session.sealed_successor,
            now_us // 1000 - session.rotated_at_ms if session.rotated_at_ms else None,
            session.pace_us - now_us if session.pace_us else None,
            session.sid,
            token_hash,
        )
        return await self._database.execute(ROTATE, *parameters) == 1

    async def end(self, sid: str, now_s: int, tokens_until_s: int = 0) -> bool:
        async def end(connection: "PoolConnectionProxy") -> bool:
            await begin_telling(connection)
            ended = await connection.fetchval(END, sid)
            until_s = max(tokens_until_s, ended or 0)
            if until_s > now_s:
                await tell(connection, "sid", sid, until_s)
            return ended is not None

        return await self._database.transact(end)

    async def end_all(self, sub: str, now_s: int) -> int:
        async def end(connection: "PoolConnectionProxy") -> int:
            await begin_telling(connection)
            return await end_all(connection, sub, now_s)

        return await self._database.transact(end)

    async def purge(self, now_s: int, limit: int) -> int:
        return await self._database.execute(PURGE, now_s, limit)

    async def wipe_successors(self, rotated_before_ms: int, limit: int) -> int:
        age_ms = int(self._clock() * 1000) - rotated_before_ms
        return await self._database.execute(WIPE, age_ms, limit)

    def _session(self, row: Row) -> Session:
        *timeless, age_ms, pace_ahead_us = row
        now_us = int(self._clock() * 1_000_000)
        rotated_at_ms = 0 if age_ms is None else now_us // 1000 - age_ms
        return session_of((*timeless, rotated_at_ms, 0 if pace_ahead_us is None else now_us + pace_ahead_us))
