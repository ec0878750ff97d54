"""A pool of connections to one PostgreSQL database, with an answer within a bound or none at all.

A request waits for a connection for the acquire timeout, and for each statement for the statement timeout, which the
server itself keeps; a server that does not even do that (frozen, or out of reach) loses the connection a moment later.
So nothing piles up behind a database that has stopped, and the next request after its return finds it again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from fastauth.backends.postgres import DatabaseSettings
from fastauth.backends.rows import Row
from fastauth.breaker import CircuitBreaker
from fastauth.domain.errors import Conflict, FastauthError, Unavailable

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

T = TypeVar("T")
Job = Callable[["PoolConnectionProxy"], Awaitable[T]]

# What the server gets beyond its own timeout before the connection is given up.
_OVERDUE_S: Final = 0.2
_IDLE_IN_TRANSACTION_S: Final = 5
_CLOSE_TIMEOUT_S: Final = 1.0
# The connection has gone, and nobody knows what became of the statement; one that only reads can be sent again.
_LOST: Final = (
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    ConnectionError,
)
_DOWN: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, and the statement timeout
    asyncpg.TooManyConnectionsError,
)
_FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


def as_domain_error(error: BaseException) -> FastauthError:
    """What a driver's error means to the rest of the program; its DETAIL, which quotes rows, is left out."""
    if isinstance(error, asyncpg.UniqueViolationError):
        return Conflict("it exists already")
    if isinstance(error, TimeoutError | asyncpg.QueryCanceledError):
        return Unavailable("database", "no answer in time")
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""  # a certificate that the URL names
        return Unavailable("database", f"{where}{error.strerror or type(error).__name__}")
    text = str(error.args[0]) if error.args else type(error).__name__
    return Unavailable("database", " ".join(text.split())[:200])


def has_failed(error: Exception) -> bool:
    """Whether an error of ``Database`` says that the database is down, and not that it could not do just this."""
    cause = error.__cause__
    if isinstance(cause, asyncpg.PostgresError):
        return isinstance(cause, _DOWN)
    return isinstance(error, Unavailable) and not isinstance(cause, asyncpg.DataError)


class Database:
    """The pool of one process; it belongs to the event loop in which it was opened."""

    def __init__(self, url: str, settings: DatabaseSettings, breaker: CircuitBreaker | None = None) -> None:
        """In: what stops asking a database that has failed; None for a command, which a person repeats."""
        self.url = url
        self.settings = settings
        self._breaker = breaker
        self._overdue_s = settings.statement_timeout_s + _OVERDUE_S
        self._pool: asyncpg.Pool | None = None

    async def open(self, patience_s: float) -> None:
        """Connect once, to fail now rather than at the first request. Raises Unavailable."""
        self._pool = await asyncpg.create_pool(
            self.url,
            min_size=0,
            max_size=self.settings.pool_size,
            reset=_nothing_to_reset,
            **self.connect_options(),
        )
        try:
            async with asyncio.timeout(patience_s), self._pool.acquire() as connection:
                await connection.fetchval("SELECT 1")
        except _FAILURES as error:
            self._pool.terminate()
            raise as_domain_error(error) from error

    async def fill(self) -> None:
        """Open every connection now rather than when everybody arrives; what cannot be opened now is opened later."""
        assert self._pool is not None  # noqa: S101 - it has been opened
        size, patience_s = self.settings.pool_size, self.settings.acquire_timeout_s
        held = await asyncio.gather(
            *(self._pool.acquire(timeout=patience_s) for _ in range(size)), return_exceptions=True
        )
        for connection in held:
            if not isinstance(connection, BaseException):
                await self._pool.release(connection)

    def connect_options(self) -> dict[str, Any]:
        """How to connect, for the pool and for who needs a connection of his own."""
        options: dict[str, Any] = {"statement_cache_size": self.settings.prepared_statements}
        if not self.settings.pgbouncer:
            options["server_settings"] = {
                "application_name": "fastauth",
                "statement_timeout": str(round(self.settings.statement_timeout_s * 1000)),
                "idle_in_transaction_session_timeout": str(_IDLE_IN_TRANSACTION_S * 1000),
                "jit": "off",  # compiling takes longer than any statement here
            }
        return options

    async def read(self, sql: str, *parameters: object) -> Sequence[Row]:
        """The rows of a query, which is sent again if its connection was lost. Raises Unavailable."""

        async def fetch(connection: "PoolConnectionProxy") -> Sequence[Row]:
            rows: Sequence[Row] = await connection.fetch(sql, *parameters)
            return rows

        return await self._run(fetch, is_repeatable=True)

    async def find(self, sql: str, *parameters: object) -> Row | None:
        """The first row, None also for a key that no text in PostgreSQL can be (it has a NUL). Raises Unavailable."""
        try:
            rows = await self.read(sql, *parameters)
        except Unavailable as error:
            if isinstance(error.__cause__, asyncpg.DataError):
                return None
            raise
        return rows[0] if rows else None

    async def execute(self, sql: str, *parameters: object) -> int:
        """One statement in a transaction of its own; out: how many rows it changed. Raises Conflict, Unavailable."""

        async def execute(connection: "PoolConnectionProxy") -> int:
            return changed(await connection.execute(sql, *parameters))

        return await self._run(execute)

    async def transact(self, job: Job[T]) -> T:
        """Run ``job`` in a transaction; out: its result once it is committed. Raises Conflict, Unavailable."""

        async def transact(connection: "PoolConnectionProxy") -> T:
            async with connection.transaction():
                return await job(connection)

        return await self._run(transact)

    async def close(self) -> None:
        """End the connections; a second call does nothing."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await pool.close()
        except _FAILURES:
            pool.terminate()

    async def _run(self, job: Job[T], *, is_repeatable: bool = False) -> T:
        if self._pool is None:
            raise Unavailable("database", "it is closed")
        if self._breaker is None:
            return await self._answer(self._pool, job, is_repeatable)
        pool = self._pool
        return await self._breaker.call(lambda: self._answer(pool, job, is_repeatable), has_failed)

    async def _answer(self, pool: "asyncpg.Pool", job: Job[T], is_repeatable: bool) -> T:
        started_s = time.monotonic()
        try:
            return await self._try(pool, job)
        except _FAILURES as error:
            if not (is_repeatable and isinstance(error, _LOST)) or time.monotonic() - started_s >= self._overdue_s / 2:
                raise as_domain_error(error) from error
        try:
            return await self._try(pool, job)
        except _FAILURES as error:
            raise as_domain_error(error) from error

    async def _try(self, pool: "asyncpg.Pool", job: Job[T]) -> T:
        try:
            connection = await pool.acquire(timeout=self.settings.acquire_timeout_s)
        except TimeoutError:
            if pool.get_idle_size() == 0 and pool.get_size() >= self.settings.pool_size:
                raise Unavailable("database", "every connection was in use for too long", was_asked=False) from None
            raise
        # To cancel a statement the driver would open another connection, which a frozen server does not answer either.
        timer = asyncio.get_running_loop().call_later(self._overdue_s, connection.terminate)
        try:
            return await job(connection)
        finally:
            timer.cancel()
            await pool.release(connection, timeout=_CLOSE_TIMEOUT_S)


async def _nothing_to_reset(_connection: object) -> None:
    """No statement here changes its session: the driver's own reset would be a round trip for nothing."""


def changed(status: str) -> int:
    """The number of rows in what PostgreSQL says of a finished command, ``UPDATE 1``."""
    return int(status.rpartition(" ")[2])
