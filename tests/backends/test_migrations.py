"""The schema: what it holds, that it is the newest, and which files are left alone."""

import ast
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from fastauth.backends import migrations
from fastauth.backends.migrations import HEAD, KNOWN, is_usable, sqlite_revision, upgrade_sqlite
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.keys import SqliteKeyStore
from fastauth.backends.sqlite.users import SqliteUserStore
from fastauth.domain.errors import SchemaRefused, Unavailable
from fastauth.jose.keys import SigningKey
from fastauth.server.bootstrap import load_master_key, open_signing_keys
from fastauth.server.settings import load_settings
from fastauth.server.storage import open_storage
from tests.conformance.user_store import run


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def test_head_is_the_newest_migration_and_every_migration_is_known() -> None:
    """Read from the files: importing Alembic here would take longer than all of this module's tests."""
    before: dict[str, str | None] = {}
    for script in (Path(migrations.__file__).parent / "versions").glob("*.py"):
        names = {
            target.id: ast.literal_eval(node.value)
            for node in ast.parse(script.read_text()).body
            if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name) and target.id != "TEXT"
        }
        before[names["revision"]] = names["down_revision"]
    assert before.keys() == KNOWN
    assert before.keys() - before.values() == {HEAD}
    assert list(before.values()).count(None) == 1


def test_a_migrated_file_is_at_head(migrated_file: Path) -> None:
    assert sqlite_revision(migrated_file) == HEAD


def test_the_tables_hold_what_the_stores_need_and_nothing_may_be_missing_or_twice(migrated_file: Path) -> None:
    connection = connect(migrated_file)
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"users", "signing_keys", "key_ring", "alembic_version"} <= tables
    optional = {
        table: {
            name
            for _, name, _, not_null, _, key in connection.execute(f"PRAGMA table_info({table})")
            if not not_null and not key
        }
        for table in ("users", "signing_keys", "key_ring")
    }
    assert optional == {
        "users": {"scope", "subject"},
        "signing_keys": {"removes_ms"},
        "key_ring": {"alg", "publish_ahead_s"},
    }
    assert connection.execute("SELECT version FROM key_ring").fetchall() == [(1,)]
    unique = {
        connection.execute(f"PRAGMA index_info({index})").fetchall()[0][2]
        for _, index, is_unique, *_ in connection.execute("PRAGMA index_list(users)")
        if is_unique
    }
    assert unique == {"sub", "name", "skeleton", "source"}
    connection.close()


def test_a_file_that_is_missing_or_empty_has_no_revision(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    assert sqlite_revision(path) is None
    path.touch()
    assert sqlite_revision(path) is None


def test_a_schema_of_a_newer_fastauth_is_refused_by_name(database_file: Path) -> None:
    connection = connect(database_file)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(SchemaRefused, match="9999"):
        sqlite_revision(database_file)


def test_a_newer_schema_that_only_adds_to_this_one_is_used_as_it_is(database_file: Path) -> None:
    connection = connect(database_file)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.execute("UPDATE schema_info SET revision = '9999', works_since = '9998'")
    with pytest.raises(SchemaRefused, match="9999"):
        sqlite_revision(database_file)
    connection.execute("UPDATE schema_info SET works_since = ?", (HEAD,))
    connection.close()
    assert sqlite_revision(database_file) == "9999"
    assert is_usable("9999")
    assert not is_usable("0004")
    assert not is_usable(None)


@pytest.fixture
def foreign_file(tmp_path: Path) -> Path:
    """Somebody else's database."""
    path = tmp_path / "theirs.db"
    connection = connect(path)
    connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY)")
    connection.close()
    return path


def test_a_database_of_something_else_is_refused(foreign_file: Path) -> None:
    with pytest.raises(SchemaRefused, match="something else"):
        sqlite_revision(foreign_file)


def test_a_database_of_something_else_is_left_exactly_as_it_was(foreign_file: Path) -> None:
    before = foreign_file.read_bytes()
    with pytest.raises(SchemaRefused):
        sqlite_revision(foreign_file)
    assert foreign_file.read_bytes() == before


def test_a_file_that_is_no_database_is_unavailable_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(b"these are notes" * 1000)
    with pytest.raises(Unavailable):
        sqlite_revision(path)
    assert path.read_bytes() == b"these are notes" * 1000


def test_a_migration_that_fails_says_why_in_one_line_and_leaves_nothing_half_done(foreign_file: Path) -> None:
    with pytest.raises(SchemaRefused, match=r"could not be migrated.*users") as refusal:
        upgrade_sqlite(foreign_file)
    assert "\n" not in str(refusal.value)
    connection = connect(foreign_file)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("users",)]
    connection.close()


# ------------------------------------------------------------------ plans


class RecordingDatabase(Database):
    """A real database that keeps the queries it was asked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.queries: list[tuple[str, Sequence[object]]] = []

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        self.queries.append((sql, parameters))
        return super().read(sql, parameters)


def test_the_reads_on_the_way_of_a_login_seek_in_an_index_and_never_scan(database_file: Path) -> None:
    database = RecordingDatabase(database_file)
    users = SqliteUserStore(database)
    run(users.find_by_name("alice"))
    run(users.list_users("", 10))
    run(users.slowest_scheme())
    plans = {
        sql: [str(step[-1]) for step in Database.read(database, f"EXPLAIN QUERY PLAN {sql}", parameters)]
        for sql, parameters in database.queries
    }
    database.close()
    assert len(plans) == 3
    for sql, steps in plans.items():
        assert all("USING INDEX" in step for step in steps), (sql, steps)
        assert not any("TEMP B-TREE" in step for step in steps), (sql, steps)


def test_the_keys_come_by_activation_and_by_name_within_a_millisecond(database_file: Path) -> None:
    connection = connect(database_file)
    rows = [("b", 1), ("c", 0), ("a", 1)]
    insert = "INSERT INTO signing_keys (kid, activates_ms, alg, public_jwk, wrapped_private) VALUES (?, ?, '', '', x'')"
    connection.executemany(insert, rows)
    connection.close()
    database = Database(database_file)
    assert [key.kid for key in run(SqliteKeyStore(database).load_keys())[1]] == ["c", "a", "b"]
    database.close()


# ------------------------------------------------------------------ from older schemas


_SCHEMA_0001 = """
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
CREATE TABLE users (sub TEXT NOT NULL, name TEXT NOT NULL, skeleton TEXT NOT NULL, password_hash TEXT NOT NULL,
    hash_cost_us BIGINT NOT NULL, scope TEXT, disabled BOOLEAN NOT NULL, created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL, PRIMARY KEY (sub), UNIQUE (name), UNIQUE (skeleton));
CREATE INDEX ix_users_hash_cost_us ON users (hash_cost_us);
CREATE TABLE signing_keys (kid TEXT NOT NULL, alg TEXT NOT NULL, public_jwk TEXT NOT NULL,
    wrapped_private BLOB NOT NULL, created_at BIGINT NOT NULL, PRIMARY KEY (kid));
INSERT INTO alembic_version VALUES ('0001');
INSERT INTO users VALUES ('s1', 'alice', 'alice', 'hash', 7, NULL, 0, 1700000000, 1700000001);
"""


def test_a_database_of_schema_0001_keeps_its_users_and_its_key_signs_and_verifies_on(
    tmp_path: Path, signing_key: SigningKey, migrated_file: Path
) -> None:
    settings = load_settings(None, {"FASTAUTH_DATA_DIR": str(tmp_path)}, {})
    master = load_master_key(settings, may_create=True)
    public = signing_key.public_jwk
    jwk = json.dumps({name: public[name] for name in ("kid", "kty", "use", "alg", "n", "e")})  # the order of then
    wrapped = master.wrap(signing_key.to_der(), signing_key.kid, bytes(12))
    connection = connect(tmp_path / "fastauth.db")
    connection.executescript(_SCHEMA_0001)
    connection.execute(
        "INSERT INTO signing_keys VALUES (?, 'RS256', ?, ?, 1700000002)", (signing_key.kid, jwk, wrapped)
    )
    connection.close()
    storage = run(open_storage(settings))
    assert sqlite_revision(tmp_path / "fastauth.db") == HEAD
    ring = run(open_signing_keys(settings, storage).load())
    (listed,) = run(open_signing_keys(settings, storage).listed())
    alice = run(storage.users.find_by_name("alice"))
    run(storage.close())
    assert alice is not None
    assert (alice.sub, alice.password_hash, alice.updated_at_s) == ("s1", "hash", 1_700_000_001)
    assert (listed.kid, listed.state) == (signing_key.kid, "active")
    assert listed.published_ms == listed.activates_ms == 1_700_000_002_000
    assert (listed.retires_ms, listed.removes_ms) == (None, None)
    key = ring.verifying.by_kid[signing_key.kid]
    assert key.is_signature(ring.active.sign(b"signed"), b"signed")
    assert key.is_signature(signing_key.sign(b"signed"), b"signed")
    assert _columns(tmp_path / "fastauth.db") == _columns(migrated_file)


def _columns(path: Path) -> dict[str, set[tuple[object, ...]]]:
    connection = connect(path)
    columns = {
        table: {tuple(row[1:4]) for row in connection.execute(f"PRAGMA table_info({table})")}
        for table in ("users", "signing_keys", "key_ring")
    }
    connection.close()
    return columns
