"""Every query of the request path and of the housekeeping is answered from an index."""

from fastauth.backends.sqlite import clients, news, sessions, users
from fastauth.backends.sqlite.database import Database
from tests.cases import each

QUERIES = {
    "find a user by name": users._FIND_BY_NAME,
    "find a user by sub": users._FIND_BY_SUB,
    "list users": users._LIST,
    "the slowest scheme": users._SLOWEST,
    "change a password": users._SET_HASH,
    "disable a user": users._SET_DISABLED,
    "delete a user": users._DELETE,
    "add a session": sessions.ADD,
    "find a session": sessions.FIND,
    "rotate": sessions.ROTATE,
    "end a session": sessions.END,
    "end all sessions": sessions.END_ALL,
    "purge sessions": sessions.PURGE,
    "wipe successors": sessions.WIPE,
    "find a client": clients.FIND,
    "find a client by name": clients.FIND_BY_NAME,
    "list clients": clients.LIST,
    "read news": news._READ,
    "purge news": news._PURGE,
}


@each("name", QUERIES)
def test_a_query_looks_through_no_table(database: Database, name: str) -> None:
    sql = QUERIES[name]
    plan = [row[3] for row in database.read(f"EXPLAIN QUERY PLAN {sql}", ("0",) * sql.count("?"))]
    assert plan
    scans = [step for step in plan if step.startswith("SCAN") and "USING" not in step and "CONSTANT ROW" not in step]
    assert not scans, plan
    assert not [step for step in plan if "TEMP B-TREE" in step], plan


def test_the_wipe_uses_the_index_of_those_that_have_something_to_wipe(database: Database) -> None:
    plan = " ".join(row[3] for row in database.read(f"EXPLAIN QUERY PLAN {sessions.WIPE}", (0, 1)))
    assert "ix_sessions_to_wipe" in plan
