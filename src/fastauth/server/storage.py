"""The database of the settings: SQLite for one machine, PostgreSQL for any number of nodes, the same stores on both."""

import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from fastauth.backends.migrations import HEAD, is_usable, postgres_revision, sqlite_revision, upgrade_sqlite
from fastauth.backends.postgres import DatabaseSettings
from fastauth.backends.sqlite.clients import SqliteClientStore
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.keys import SqliteKeyStore
from fastauth.backends.sqlite.leases import SqliteLeaseStore
from fastauth.backends.sqlite.news import SqliteRevocationBus
from fastauth.backends.sqlite.sessions import SqliteSessionStore
from fastauth.backends.sqlite.users import SqliteUserStore
from fastauth.breaker import CircuitBreaker
from fastauth.domain.errors import FastauthError, SchemaRefused
from fastauth.domain.ports import ClientStore, KeyStore, LeaseStore, RevocationBus, SessionStore, UserStore
from fastauth.server.settings import Settings
from fastauth.server.telemetry import get_log

if TYPE_CHECKING:
    from fastauth.backends.postgres.database import Database as PostgresDatabase

CONNECT_PATIENCE_S: Final = 5.0
# A command is run by a person, who waits: a user with a hundred thousand sessions may be disabled, say.
_OF_A_COMMAND: Final = {"pool_size": 2, "acquire_timeout_s": 10.0, "statement_timeout_s": 30.0}


class StartRefused(FastauthError):
    """The server cannot start; the text says why and what to do."""

    code = "start_refused"


class Storage:
    """The opened database: a store a capability, and how to close it."""

    def __init__(
        self,
        users: UserStore,
        keys: KeyStore,
        sessions: SessionStore,
        clients: ClientStore,
        bus: RevocationBus,
        leases: LeaseStore,
        close: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.users = users
        self.keys = keys
        self.sessions = sessions
        self.clients = clients
        self.bus = bus
        self.leases = leases
        self.close = close


def on_sqlite(database: Database) -> Storage:
    """The stores on one SQLite file; closing it finishes the queued writes."""

    async def close() -> None:
        database.close()

    return Storage(
        SqliteUserStore(database),
        SqliteKeyStore(database),
        SqliteSessionStore(database),
        SqliteClientStore(database),
        SqliteRevocationBus(database),
        SqliteLeaseStore(database),
        close,
    )


def on_postgres(database: "PostgresDatabase") -> Storage:
    """The stores on one PostgreSQL database; the driver is an extra, and is imported only here."""
    from fastauth.backends.postgres.clients import PostgresClientStore
    from fastauth.backends.postgres.keys import PostgresKeyStore
    from fastauth.backends.postgres.leases import PostgresLeaseStore
    from fastauth.backends.postgres.news import PostgresRevocationBus
    from fastauth.backends.postgres.sessions import PostgresSessionStore
    from fastauth.backends.postgres.users import PostgresUserStore

    bus = PostgresRevocationBus(database)

    async def close() -> None:
        await bus.close()
        await database.close()

    return Storage(
        PostgresUserStore(database),
        PostgresKeyStore(database),
        PostgresSessionStore(database),
        PostgresClientStore(database),
        bus,
        PostgresLeaseStore(database),
        close,
    )


async def open_existing_storage(settings: Settings) -> Storage:
    """Open the database as it is, for commands that only look or change what is there.

    Raises Unavailable, SchemaRefused, or StartRefused when there is no database.
    """
    path = settings.sqlite_path
    if path is not None and not path.is_file():
        raise StartRefused(f"there is no database at {path}; name the data directory of a server with --data-dir")
    return await open_storage(settings, is_command=True)


async def open_storage(
    settings: Settings, *, is_command: bool = False, breaker: CircuitBreaker | None = None
) -> Storage:
    """Open the database. An embedded one is made if need be and brought to the newest schema first; PostgreSQL is
    migrated by ``fastauth migrate`` alone. In: whether a person waits, and not a request; what guards PostgreSQL.

    Raises Unavailable, SchemaRefused or StartRefused.
    """
    prepare_data_dir(settings)
    if settings.sqlite_path is None:
        return await _open_postgres(settings, is_command=is_command, breaker=breaker)
    path = settings.sqlite_path
    try:  # before SQLite does: its WAL and shared memory get the mode that the file has
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StartRefused(f"{path}: {error.strerror}; name another database or another --data-dir") from None
    if not is_usable(sqlite_revision(path)):
        upgrade_sqlite(path)
    return on_sqlite(Database(path))


async def connect_postgres(
    settings: Settings, *, is_command: bool, breaker: CircuitBreaker | None = None
) -> "PostgresDatabase":
    """A pool on the database of the settings, whatever its schema is. Raises Unavailable."""
    from fastauth.backends.postgres.database import Database as PostgresDatabase

    options = settings.database
    if is_command:
        options = DatabaseSettings(
            **_OF_A_COMMAND,  # type: ignore[arg-type]
            prepared_statements=options.prepared_statements,
            pgbouncer=options.pgbouncer,
        )
    database = PostgresDatabase(settings.database_url or "", options, breaker)
    await database.open(CONNECT_PATIENCE_S)
    if not is_command:
        await database.fill()
    return database


async def _open_postgres(settings: Settings, *, is_command: bool, breaker: CircuitBreaker | None) -> Storage:
    database = await connect_postgres(settings, is_command=is_command, breaker=breaker)
    try:
        revision = await postgres_revision(database)
        if not is_usable(revision):
            raise SchemaRefused(
                f"the database has {'no schema' if revision is None else f'schema {revision}'}, and this version needs "
                f"{HEAD}; run: fastauth migrate"
            )
        row = await database.find("SELECT moving_from FROM schema_info")
        if row is not None and row[0] is not None:
            raise SchemaRefused(
                "an installation is being moved into this database, and is not complete; run fastauth migrate --from "
                "again"
            )
    except BaseException:
        await database.close()
        raise
    return on_postgres(database)


def prepare_data_dir(settings: Settings) -> None:
    """Make the data directory, for its owner alone. Raises StartRefused."""
    path = settings.data_path
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartRefused(f"{path}: {error.strerror}; name another directory with --data-dir") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise StartRefused(f"{path}: not writable; name another directory with --data-dir")
    state = path.stat()
    if not state.st_mode & 0o077:
        return
    is_ours = (path / "fastauth.db").exists() or (path / "master.key").exists() or not any(path.iterdir())
    if is_ours and state.st_uid == os.geteuid():
        path.chmod(0o700)
    else:  # somebody's directory with other things in it is not ours to close
        get_log().warning("data_dir_open_to_others", path=str(path), advice=f"chmod 700 {path}")
