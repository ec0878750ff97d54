"""``python -m fastauth.backends.migrations.upgrade FILE``: bring one SQLite file to the newest schema."""

import sys
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config

from fastauth.backends.migrations import HEAD


def upgrade(path: Path) -> None:
    """Run the migrations that the file lacks, all in one transaction. Raises what SQLAlchemy raises."""
    config = Config()
    config.set_main_option("script_location", "fastauth.backends:migrations")
    config.set_main_option("path_separator", "os")
    engine = sqlalchemy.create_engine(sqlalchemy.URL.create("sqlite", database=str(path)))
    with engine.connect() as connection:
        # pysqlite would commit before each DDL statement; a migration is all or nothing.
        connection.connection.driver_connection.isolation_level = None  # type: ignore[union-attr]
        connection.exec_driver_sql("PRAGMA busy_timeout=10000")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)
        connection.exec_driver_sql("COMMIT")
    engine.dispose()


if __name__ == "__main__":
    try:
        upgrade(Path(sys.argv[1]))
    except sqlalchemy.exc.SQLAlchemyError as error:
        sys.exit(" ".join(str(getattr(error, "orig", None) or error).split()))
