"""The schema and its history (Alembic), run from code.

SQLAlchemy and Alembic cost 25 MiB and half a second to import, so this package itself needs neither: a server
compares the stored revision with ``HEAD`` and migrates in a child process only when they differ.

Migrations expand first and contract one version later: each says in ``schema_info`` since which schema programs work
with it, so that the nodes of version N-1 go on, and can be restarted, while those of version N come up.
"""

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastauth.backends.sqlite.database import WRITE_BUSY_TIMEOUT_MS, as_domain_error
from fastauth.domain.errors import SchemaRefused, Unavailable

if TYPE_CHECKING:
    from fastauth.backends.postgres.database import Database

HEAD: Final = "0006"
KNOWN: Final = frozenset({"0001", "0002", "0003", "0004", "0005", HEAD})

# Of this very revision: what changes the one without the other is not a migration of ours.
_WORKS_SINCE: Final = (
    "SELECT works_since FROM schema_info WHERE revision = (SELECT version_num FROM alembic_version LIMIT 1)"
)


def is_usable(revision: str | None) -> bool:
    """Whether this version works with a stored revision that was not refused: the newest known one, or a newer one
    that says so.
    """
    return revision is not None and (revision == HEAD or revision not in KNOWN)


def sqlite_revision(path: Path) -> str | None:
    """The schema revision stored in the file, None for an empty one.

    Raises Unavailable when the file cannot be read, SchemaRefused for a revision that this version cannot work with.
    """
    if not path.parent.is_dir():
        raise Unavailable("database", f"{path.parent} is no directory")
    if not path.exists():  # connecting would make it
        return None
    try:
        # Not this backend's connect(), which would turn somebody else's database into WAL mode.
        connection = sqlite3.connect(path, timeout=WRITE_BUSY_TIMEOUT_MS / 1000)
        try:
            names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "alembic_version" not in names:
                if names:
                    raise SchemaRefused(f"{path} is a database of something else; name another file")
                return None
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            about = connection.execute(_WORKS_SINCE).fetchone() if "schema_info" in names else None
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise as_domain_error(error, path) from error
    return _checked(None if row is None else str(row[0]), None if about is None else str(about[0]))


async def postgres_revision(database: "Database") -> str | None:
    """The same of an opened PostgreSQL database."""
    rows = await database.read("SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()")
    names = {row[0] for row in rows}
    if "alembic_version" not in names:
        if names & {"users", "signing_keys", "sessions", "clients", "news", "key_ring"}:
            raise SchemaRefused("the database holds tables of something else; name another database")
        return None
    row = await database.find("SELECT version_num FROM alembic_version")
    about = await database.find(_WORKS_SINCE) if "schema_info" in names else None
    return _checked(None if row is None else str(row[0]), None if about is None else str(about[0]))


def _checked(revision: str | None, works_since: str | None) -> str | None:
    if revision is None or revision in KNOWN or (works_since is not None and works_since in KNOWN):
        return revision
    raise SchemaRefused(
        f"the database has schema {revision}, which this version does not know; install the fastauth that made it"
    )


def upgrade_sqlite(path: Path) -> None:
    """Bring the file to ``HEAD``, in a child process. Raises SchemaRefused when that fails."""
    _upgrade(f"sqlite:///{path}")


def upgrade_postgres(url: str) -> None:
    """The same of a PostgreSQL database; of several at once one migrates and the others wait for it."""
    _upgrade(url)


def _upgrade(url: str) -> None:
    # -P: nothing is imported from the directory that the operator happens to stand in. The URL may hold a password, and
    # arguments can be seen by everybody.
    command = [sys.executable, "-P", "-m", "fastauth.backends.migrations.upgrade"]
    outcome = subprocess.run(command, input=url, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if outcome.returncode != 0:
        reason = (outcome.stderr.strip().splitlines() or ["no output"])[-1]
        raise SchemaRefused(f"the database could not be migrated: {reason}")
