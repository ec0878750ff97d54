"""``python -m fastauth.backends.migrations.upgrade``: bring one database to the newest schema; its URL on stdin."""

import asyncio
import sys
from typing import Final

import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import create_async_engine

from fastauth.backends.migrations import HEAD, KNOWN

_LOCK: Final = "SELECT pg_advisory_xact_lock(7236840)"  # one migration at a time
# Whoever waits for a table keeps all who come later from it.
_LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '5s'"
_VERSION: Final = "SELECT version_num FROM alembic_version"


def upgrade_sqlite(path: str) -> None:
    """Run the migrations that the file lacks, all in one transaction. Raises what SQLAlchemy raises."""
    engine = sqlalchemy.create_engine(sqlalchemy.URL.create("sqlite", database=path))
    with engine.connect() as connection:
        # pysqlite would commit before each DDL statement; a migration is all or nothing.
        connection.connection.driver_connection.isolation_level = None  # type: ignore[union-attr]
        connection.exec_driver_sql("PRAGMA busy_timeout=10000")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        _migrate(connection)
        connection.exec_driver_sql("COMMIT")
    engine.dispose()


async def upgrade_postgres(url: str) -> None:
    """The same, raising what asyncpg raises besides."""
    import asyncpg

    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url, timeout=10))
    async with engine.begin() as connection:
        await connection.exec_driver_sql(_LOCK)
        await connection.exec_driver_sql(_LOCK_TIMEOUT)
        await connection.run_sync(_migrate)
    await engine.dispose()


def _migrate(connection: sqlalchemy.Connection) -> None:
    if sqlalchemy.inspect(connection).has_table("alembic_version"):
        row = connection.exec_driver_sql(_VERSION).fetchone()
        if row is not None and row[0] not in KNOWN:  # another was faster, and newer
            return
    config = Config()
    config.set_main_option("script_location", "fastauth.backends:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)


def main(url: str) -> None:
    """Exits with a line about what went wrong; it never repeats the URL."""
    try:
        if url.startswith("sqlite:///"):
            upgrade_sqlite(url.removeprefix("sqlite:///"))
        else:
            asyncio.run(upgrade_postgres(url))
    except sqlalchemy.exc.SQLAlchemyError as error:
        sys.exit(" ".join(str(getattr(error, "orig", None) or error).split()))
    except (OSError, TimeoutError) as error:
        sys.exit(error.strerror or type(error).__name__)
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "asyncpg":
            raise
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main(sys.stdin.read())
