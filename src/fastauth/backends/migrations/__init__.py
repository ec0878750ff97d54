"""The schema and its history (Alembic), run from code.

SQLAlchemy and Alembic cost 25 MiB and half a second to import, so this package itself needs neither: a server
compares the stored revision with ``HEAD`` and migrates in a child process only when they differ.
"""

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Final

from fastauth.backends.sqlite.database import WRITE_BUSY_TIMEOUT_MS, as_domain_error
from fastauth.domain.errors import SchemaRefused, Unavailable

HEAD: Final = "0004"
KNOWN: Final = frozenset({"0001", "0002", "0003", HEAD})


def sqlite_revision(path: Path) -> str | None:
    """The schema revision stored in the file, None for an empty one.

    Raises Unavailable when the file cannot be read, SchemaRefused for a revision from a newer fastauth.
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
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise as_domain_error(error, path) from error
    revision = None if row is None else str(row[0])
    if revision is not None and revision not in KNOWN:
        raise SchemaRefused(
            f"the database has schema {revision}, which this version does not know; install the fastauth that made it"
        )
    return revision


def upgrade_sqlite(path: Path) -> None:
    """Bring the file to ``HEAD``, in a child process. Raises SchemaRefused when that fails."""
    # -P: nothing is imported from the directory that the operator happens to stand in.
    command = [sys.executable, "-P", "-m", "fastauth.backends.migrations.upgrade", str(path)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if outcome.returncode != 0:
        reason = (outcome.stderr.strip().splitlines() or ["no output"])[-1]
        raise SchemaRefused(f"the database could not be migrated: {reason}")
