"""What is over is forgotten, all of it, and nothing else."""

import asyncio
import secrets
import time

import pytest

from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.leases import SqliteLeaseStore
from fastauth.backends.sqlite.news import SqliteRevocationBus
from fastauth.backends.sqlite.sessions import SqliteSessionStore
from fastauth.backends.sqlite.users import SqliteUserStore
from fastauth.domain.sessions import Rotation, SessionRules
from fastauth.server import housekeeping
from fastauth.server.housekeeping import Housekeeping
from tests.conformance.user_store import user

NOW_S = 1_800_000_000
RULES = SessionRules(idle_s=1_000, max_s=5_000, grace_s=10, access_ttl_s=300, per_family=None)


def counts(database: Database) -> dict[str, int]:
    sql = {
        "sessions": "SELECT count(*) FROM sessions",
        "sealed": "SELECT count(*) FROM sessions WHERE sealed_successor IS NOT NULL",
        "news": "SELECT count(*) FROM news",
    }
    return {name: database.read(text)[0][0] for name, text in sql.items()}


def test_a_sweep_forgets_everything_that_is_over(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "BATCH", 7)
    monkeypatch.setattr(housekeeping, "_PAUSE_S", 0.0)
    sessions, bus = SqliteSessionStore(database), SqliteRevocationBus(database)

    async def fill() -> None:
        await SqliteUserStore(database).add(user("alice"), "alice")
        for number in range(50):
            session, token = RULES.begin("sub-alice", "fastauth", "user", NOW_S, secrets.token_bytes)
            assert await sessions.add(session, 0)
            outcome = RULES.refresh(session, token, (NOW_S + 1) * 1_000_000, secrets.token_bytes)
            assert isinstance(outcome, Rotation)
            assert await sessions.rotate(outcome.session, session.token_hash)
            await bus.revoke_token(f"j{number}", NOW_S + 500)

    clock = [NOW_S]
    keeping = Housekeeping(sessions, bus, SqliteLeaseStore(database), 10, lambda: clock[0])

    async def swept_at(now_s: int) -> dict[str, int]:
        clock[0] = now_s
        await keeping.sweep()
        return counts(database)

    asyncio.run(fill())
    assert counts(database) == {"sessions": 50, "sealed": 50, "news": 50}
    assert asyncio.run(swept_at(NOW_S + 60)) == {"sessions": 50, "sealed": 50, "news": 50}
    assert asyncio.run(swept_at(NOW_S + 100)) == {"sessions": 50, "sealed": 0, "news": 50}
    assert asyncio.run(swept_at(NOW_S + 1_000)) == {"sessions": 50, "sealed": 0, "news": 0}
    assert asyncio.run(swept_at(NOW_S + 1_200)) == {"sessions": 0, "sealed": 0, "news": 0}


def test_of_many_workers_one_keeps_house_and_another_one_when_it_is_gone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "EVERY_S", 0.01)
    monkeypatch.setattr(housekeeping, "LEASE_S", 0.3)
    swept: list[int] = []

    class Counting(Housekeeping):
        async def sweep(self) -> None:
            swept.append(id(self))

    async def run() -> None:
        sessions, bus, leases = SqliteSessionStore(database), SqliteRevocationBus(database), SqliteLeaseStore(database)
        tasks = {}
        for _ in range(3):
            one = Counting(sessions, bus, leases, 10)
            tasks[id(one)] = asyncio.create_task(one.run()), one
        await asyncio.sleep(0.25)
        assert len(set(swept)) == 1
        tasks[swept[0]][0].cancel()
        await asyncio.sleep(0.6)
        assert len(set(swept)) == 2
        for task, _ in tasks.values():
            task.cancel()

    asyncio.run(run())


def test_it_goes_on_after_a_failure(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(housekeeping, "EVERY_S", 0.02)
    sessions, bus = SqliteSessionStore(database), SqliteRevocationBus(database)
    purged: list[float] = []
    went_on = asyncio.Event()

    async def purge(now_s: int, limit: int) -> int:
        purged.append(time.monotonic())
        if len(purged) == 1:
            raise OSError("s3cr3t")
        went_on.set()
        return 0

    bus.purge = purge  # type: ignore[method-assign]

    async def run() -> None:
        running = asyncio.create_task(Housekeeping(sessions, bus, SqliteLeaseStore(database), 10).run())
        await asyncio.wait_for(went_on.wait(), 5)
        running.cancel()

    asyncio.run(run())
    assert capsysbinary.readouterr().err.count(b"housekeeping_failed") == 1
