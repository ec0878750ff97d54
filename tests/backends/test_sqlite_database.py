"""The SQLite file: writes in groups, each job for itself, and errors that are the domain's."""

import asyncio
import contextlib
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fastauth.backends.sqlite.database import MAX_GROUP, MAX_QUEUED, Database, Job, connect
from fastauth.domain.errors import Conflict, Unavailable
from tests.backends.locking import locked

GATE_TIMEOUT_S = 10.0  # never reached in a test that passes


@pytest.fixture
def table(database: Database) -> Database:
    """The database with one table to play with: ``t (id unique, payload)``."""
    run_job(database, "CREATE TABLE t (id INTEGER PRIMARY KEY, payload)")
    return database


def run_job(database: Database, sql: str) -> None:
    asyncio.run(database.write(lambda connection: connection.execute(sql).fetchall()))


def insert(connection: sqlite3.Connection, number: int) -> int:
    connection.execute("INSERT INTO t (id) VALUES (?)", (number,))
    return number


def inserting(number: int) -> Job[int]:
    return lambda connection: insert(connection, number)


def ids(database: Database) -> list[int]:
    return [row[0] for row in database.read("SELECT id FROM t ORDER BY id")]


class Held:
    """A writer thread that is held inside a job, so that what is handed in meanwhile forms one group."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._inside, self._go = threading.Event(), threading.Event()

    async def __aenter__(self) -> None:
        def hold(_connection: sqlite3.Connection) -> None:
            self._inside.set()
            assert self._go.wait(GATE_TIMEOUT_S)

        self._holding = asyncio.create_task(self._database.write(hold))
        assert await asyncio.to_thread(self._inside.wait, GATE_TIMEOUT_S)

    async def __aexit__(self, *_error: object) -> None:
        self._go.set()
        await self._holding


async def as_one_group(database: Database, *jobs: Job[Any]) -> list[Any]:
    """What became of jobs that were committed together."""
    async with Held(database):
        tasks = [asyncio.create_task(database.write(job)) for job in jobs]
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


# ------------------------------------------------------------------ groups


def test_a_write_gives_its_result_and_can_be_read_at_once(table: Database) -> None:
    assert asyncio.run(table.write(inserting(7))) == 7
    assert ids(table) == [7]


def test_writes_that_wait_for_one_commit_share_the_next_one(table: Database) -> None:
    statements: list[str] = []
    asyncio.run(table.write(lambda connection: connection.set_trace_callback(statements.append)))
    jobs = [inserting(number) for number in range(100)]
    statements.clear()
    outcomes = asyncio.run(as_one_group(table, *jobs))
    asyncio.run(table.write(lambda connection: connection.set_trace_callback(None)))
    assert outcomes == list(range(100))
    assert ids(table) == list(range(100))
    commits = [statement for statement in statements if statement.startswith("COMMIT")]
    assert len(commits) == 2  # the held one and the group


def test_a_group_has_a_bound_and_the_rest_follows(table: Database) -> None:
    jobs = [inserting(number) for number in range(MAX_GROUP + 10)]
    assert asyncio.run(as_one_group(table, *jobs)) == list(range(MAX_GROUP + 10))
    assert len(ids(table)) == MAX_GROUP + 10


def test_a_job_that_fails_undoes_itself_and_nothing_of_its_neighbours(table: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        insert(connection, 50)
        raise LookupError("of the job")

    def collide(connection: sqlite3.Connection) -> None:
        insert(connection, 60)
        insert(connection, 1)

    outcomes = asyncio.run(
        as_one_group(
            table,
            inserting(1),
            fail,
            inserting(2),
            collide,
            inserting(3),
        )
    )
    assert [outcomes[0], outcomes[2], outcomes[4]] == [1, 2, 3]
    assert isinstance(outcomes[1], LookupError)
    assert isinstance(outcomes[3], Conflict)
    assert ids(table) == [1, 2, 3]


def test_a_statement_that_is_wrong_is_its_own_jobs_fault(table: Database) -> None:
    def misbound(connection: sqlite3.Connection) -> None:
        insert(connection, 50)
        connection.execute("INSERT INTO t (id) VALUES (?)", ())

    def unbindable(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t (id) VALUES (?)", (object(),))

    outcomes = asyncio.run(as_one_group(table, inserting(1), misbound, unbindable, inserting(2)))
    assert [outcomes[0], outcomes[3]] == [1, 2]
    assert isinstance(outcomes[1], Exception)
    assert isinstance(outcomes[2], Exception)
    assert ids(table) == [1, 2]


def test_a_later_job_of_the_group_sees_what_an_earlier_one_did(table: Database) -> None:
    def count(connection: sqlite3.Connection) -> int:
        number: int = connection.execute("SELECT count(*) FROM t").fetchone()[0]
        return number

    outcomes = asyncio.run(as_one_group(table, count, inserting(1), count))
    assert outcomes == [0, 1, 1]


def test_a_caller_that_leaves_disturbs_nobody(table: Database) -> None:
    complaints: list[object] = []

    async def leave() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        async with Held(table):
            leaving = asyncio.create_task(table.write(inserting(1)))
            staying = asyncio.create_task(table.write(inserting(2)))
            await asyncio.sleep(0)
            leaving.cancel()
        assert await staying == 2
        assert leaving.cancelled()

    asyncio.run(leave())
    assert complaints == []


def test_several_event_loops_share_one_writer(table: Database) -> None:
    def write_some(first: int) -> None:
        async def write_all() -> None:
            await asyncio.gather(*(table.write(inserting(number)) for number in range(first, first + 20)))

        asyncio.run(write_all())

    threads = [threading.Thread(target=write_some, args=(first,)) for first in (0, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GATE_TIMEOUT_S)
    assert ids(table) == list(range(60))


def test_too_many_waiting_writes_are_refused(table: Database) -> None:
    async def fill() -> None:
        async with Held(table):
            waiting = [asyncio.create_task(table.write(lambda _connection: None)) for _ in range(MAX_QUEUED)]
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="too many"):
                await table.write(lambda _connection: None)
        await asyncio.gather(*waiting)

    asyncio.run(fill())


# ------------------------------------------------------------------ what can go wrong


def test_a_file_that_another_locks_is_unavailable_after_the_busy_timeout_and_no_later(table: Database) -> None:
    run_job(table, "PRAGMA busy_timeout=50")
    with locked(table.path):
        started = time.monotonic()
        with pytest.raises(Unavailable) as refusal:
            asyncio.run(table.write(inserting(1)))
        assert 0.04 < time.monotonic() - started < 2
        assert refusal.value.dependency == "database"
        assert ids(table) == []  # reading goes on
    assert asyncio.run(table.write(inserting(2))) == 2
    assert ids(table) == [2]


def test_a_full_disk_makes_the_whole_group_unavailable_and_nothing_of_it_durable(table: Database) -> None:
    run_job(table, "PRAGMA max_page_count=30")

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t (id, payload) VALUES (2, zeroblob(1000000))")

    outcomes = asyncio.run(as_one_group(table, inserting(1), fill, inserting(3)))
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert ids(table) == []
    run_job(table, "PRAGMA max_page_count=100000")
    assert asyncio.run(table.write(inserting(4))) == 4
    assert table.read("PRAGMA integrity_check") == [("ok",)]


def test_a_read_that_fails_is_unavailable(database: Database) -> None:
    with pytest.raises(Unavailable):
        database.read("SELECT * FROM no_such_table")


def test_a_place_where_no_file_can_be_is_unavailable(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "fastauth.db", tmp_path):
        with pytest.raises(Unavailable):
            Database(path)


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "fastauth.db"
    path.write_bytes(b"this is no database, it only has its name" * 100)
    with pytest.raises(Unavailable):
        Database(path)


# ------------------------------------------------------------------ the end


def test_closing_finishes_what_is_queued(migrated_file: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(migrated_file, tmp_path / "closing.db"))
    database = Database(path)
    run_job(database, "CREATE TABLE t (id INTEGER PRIMARY KEY, payload)")

    async def write_and_close() -> list[int]:
        writing = [asyncio.create_task(database.write(inserting(number))) for number in range(50)]
        await asyncio.sleep(0)
        database.close()
        return await asyncio.gather(*writing)

    assert asyncio.run(write_and_close()) == list(range(50))
    reopened = Database(path)
    assert ids(reopened) == list(range(50))
    reopened.close()


def test_a_write_after_the_end_is_unavailable_and_does_not_wait_for_ever(migrated_file: Path, tmp_path: Path) -> None:
    database = Database(Path(shutil.copy(migrated_file, tmp_path / "closed.db")))
    database.close()
    with pytest.raises(Unavailable):
        asyncio.run(asyncio.wait_for(database.write(lambda _connection: None), timeout=0.3))


def test_a_commit_is_a_full_fsync_in_wal_mode(database: Database) -> None:
    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert asyncio.run(database.write(pragmas)) == ["wal", 2, 1]


def test_several_that_open_a_new_file_at_the_same_time_all_get_it(tmp_path: Path) -> None:
    for number in range(25):
        path = tmp_path / f"{number}.db"
        with contextlib.closing(sqlite3.connect(path)) as first:
            first.execute("CREATE TABLE things (thing)")
        start = threading.Barrier(4)

        def open_and_close(path: Path = path, start: threading.Barrier = start) -> str:
            start.wait()
            with contextlib.closing(connect(path, 50)) as connection:
                mode: str = connection.execute("PRAGMA journal_mode").fetchone()[0]
                return mode

        with ThreadPoolExecutor(4) as threads:
            opened = [threads.submit(open_and_close) for _ in range(4)]
        assert [one.result() for one in opened] == ["wal"] * 4
