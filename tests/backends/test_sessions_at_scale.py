"""A million sessions (``make test-full``; fewer otherwise): each step takes as long as with few, and all of it goes."""

import asyncio
import os
import secrets
import time
from collections.abc import Callable

import pytest

from fastauth.backends.rows import row_of_session
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.leases import SqliteLeaseStore
from fastauth.backends.sqlite.news import SqliteRevocationBus
from fastauth.backends.sqlite.sessions import ADD, SqliteSessionStore
from fastauth.backends.sqlite.users import SqliteUserStore
from fastauth.domain.refresh_tokens import RefreshToken
from fastauth.domain.sessions import Rotation, SessionRules
from fastauth.server import housekeeping
from fastauth.server.housekeeping import Housekeeping
from tests.conformance.user_store import user

FULL = os.environ.get("FASTAUTH_TEST_FULL") == "1"
COUNT, PEOPLE = (1_000_000, 50_000) if FULL else (10_000, 500)
NOW_S = 1_800_000_000
RULES = SessionRules(idle_s=1_000, max_s=5_000, grace_s=10, access_ttl_s=300, per_family=None)
SAMPLE = 500


@pytest.mark.timeout(1_800)
def test_many_sessions_are_found_rotated_ended_and_forgotten(
    database: Database, record_property: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_PAUSE_S", 0.0)
    sessions, bus = SqliteSessionStore(database), SqliteRevocationBus(database)
    kept: list[RefreshToken] = []

    async def fill() -> None:
        people = [(user(f"u{number}"), f"u{number}") for number in range(PEOPLE)]
        await SqliteUserStore(database).add_missing(people)
        for start in range(0, COUNT, 5_000):
            rows = []
            for number in range(start, start + 5_000):
                session, token = RULES.begin(f"sub-u{number % PEOPLE}", "fastauth", "user", NOW_S, secrets.token_bytes)
                rows.append((*row_of_session(session), session.sub, 0))
                if number % (COUNT // SAMPLE) == 0:
                    kept.append(token)
            await database.write(lambda connection, rows=rows: connection.executemany(ADD, rows))  # type: ignore[misc]

    async def find() -> None:
        for token in kept:
            assert await sessions.find(token.sid) is not None

    async def rotate() -> None:
        for token in kept:
            session = await sessions.find(token.sid)
            assert session is not None
            outcome = RULES.refresh(session, token, NOW_S * 1_000_000, secrets.token_bytes)
            assert isinstance(outcome, Rotation)
            assert await sessions.rotate(outcome.session, session.token_hash)

    async def end_all() -> None:
        assert await sessions.end_all("sub-u1", NOW_S) == COUNT // PEOPLE

    async def sweep() -> None:
        await Housekeeping(sessions, bus, SqliteLeaseStore(database), 10, lambda: NOW_S + 2_000).sweep()

    def timed(name: str, work: Callable[[], object], per: int) -> None:
        started = time.perf_counter()
        asyncio.run(work())  # type: ignore[arg-type]
        record_property(f"{name}_us_each", round((time.perf_counter() - started) / per * 1e6, 1))

    timed("fill", fill, COUNT)
    record_property("sessions", COUNT)
    pages, size = database.read("PRAGMA page_count")[0][0], database.read("PRAGMA page_size")[0][0]
    record_property("bytes_a_session", round(pages * size / COUNT))
    timed("find", find, len(kept))
    timed("rotate_one_after_another", rotate, len(kept))
    timed("end_all_of_one_user", end_all, 1)
    timed("purge", sweep, COUNT)
    assert database.read("SELECT count(*) FROM sessions") == [(0,)]
    assert database.read("SELECT count(*) FROM news") == [(0,)]
