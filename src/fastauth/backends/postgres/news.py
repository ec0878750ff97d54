"""``RevocationBus`` on PostgreSQL: a table that grows at its end, with a notification for who listens.

Numbers are given in the order of the commits: whoever tells something holds a lock until it is committed, or a reader
that has seen number 8 would never look for a 7 that is committed later. PostgreSQL commits those who notify one after
another in any case.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg

from fastauth.backends.postgres.database import Database
from fastauth.domain.ports import News, NewsKind

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

# Without a notification: the connection that listens is lost, or a pooler is in between.
POLL_S: Final = 0.5
CHANNEL: Final = "fastauth_news"
# A change of a row has to reach the caches only, which do not keep anything for that long.
CHANGE_TOLD_S: Final = 600

_CONNECT_TIMEOUT_S: Final = 1.0
_LISTEN_AGAIN_S: Final = 1.0
_LOCK_NUMBER: Final = 0x6E657773  # "news"; a lock of this database alone
_LOCK: Final = f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})"
_NOTIFY: Final = f"SELECT pg_notify('{CHANNEL}', '')"
_TELL: Final = "INSERT INTO news (kind, name, issued_until, until) VALUES ($1, $2, $3, $4)"
READ: Final = "SELECT seq, kind, name, issued_until, until FROM news WHERE seq > $1 ORDER BY seq LIMIT $2"
PURGE: Final = (
    "DELETE FROM news WHERE seq IN (SELECT seq FROM news WHERE until < $1 ORDER BY until LIMIT $2 "
    "FOR UPDATE SKIP LOCKED)"
)


async def begin_telling(connection: "PoolConnectionProxy") -> None:
    """Before anything is told in a transaction, and before it touches a session: the same order for everybody."""
    await connection.execute(_LOCK)
    await connection.execute(_NOTIFY)


async def tell(
    connection: "PoolConnectionProxy", kind: NewsKind, name: str, until_s: int, issued_until_s: int = 0
) -> None:
    """One piece of news, as part of the transaction that makes it true; after ``begin_telling``."""
    await connection.execute(_TELL, kind, name, issued_until_s, until_s)


class PostgresRevocationBus:
    """See ``domain/ports.py`` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._woken = asyncio.Event()
        self._woken.set()  # the first look always finds something
        self._listener: asyncpg.Connection | None = None
        self._listening: asyncio.Task[None] | None = None
        self._listens_at_s = 0.0
        self._looks_unasked = False

    async def revoke_token(self, jti: str, until_s: int) -> None:
        async def revoke(connection: "PoolConnectionProxy") -> None:
            await begin_telling(connection)
            await tell(connection, "jti", jti, until_s)

        await self._database.transact(revoke)

    async def read_after(self, seq: int, limit: int) -> Sequence[News]:
        rows = await self._database.read(READ, seq, limit)
        if rows and self._looks_unasked and self._listener is not None:
            self._listener.terminate()  # it should have been heard of: a connection may be dead and not know it
        return [News(seq, cast("NewsKind", kind), name, issued, until) for seq, kind, name, issued, until in rows]

    async def wait(self) -> None:
        self._keep_listening()
        self._looks_unasked = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._woken.wait()
        self._looks_unasked = not self._woken.is_set()
        self._woken.clear()

    async def purge(self, now_s: int, limit: int) -> int:
        return await self._database.execute(PURGE, now_s, limit)

    async def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listening
        if self._listener is not None:
            self._listener.terminate()

    def _keep_listening(self) -> None:
        """Beside the caller: a server that does not answer must not keep anybody from looking by himself."""
        if self._database.settings.pgbouncer or (self._listening is not None and not self._listening.done()):
            return
        if self._listener is not None and not self._listener.is_closed():
            return
        if time.monotonic() >= self._listens_at_s:
            self._listens_at_s = time.monotonic() + _LISTEN_AGAIN_S
            self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        connection = None
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                connection = await asyncpg.connect(self._database.url, **self._database.connect_options())
                await connection.add_listener(CHANNEL, self._wake)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            if connection is not None:
                connection.terminate()
            return  # until then looking every POLL_S is enough
        except asyncio.CancelledError:
            if connection is not None:
                connection.terminate()
            raise
        self._listener = connection
        self._woken.set()  # for what was told before anybody listened

    def _wake(self, *_notification: Any) -> None:
        self._woken.set()
