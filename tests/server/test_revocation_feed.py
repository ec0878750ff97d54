"""A worker's view of what was revoked: filled at the start, then followed; what it cannot hear it keeps."""

import asyncio
import json
import time
from collections.abc import Sequence

import pytest

from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.news import SqliteRevocationBus, tell
from fastauth.domain.errors import Unavailable
from fastauth.domain.ports import News
from fastauth.jose.claims import Claims
from fastauth.server import revocation_feed
from fastauth.server.revocation_feed import RevocationFeed
from fastauth.verifier.revocations import Revocations

NOW_S = int(time.time())
END_S = NOW_S + 100_000  # the suite may take a while until it is here


def claims(**changes: str) -> Claims:
    members = {"jti": "j", "sid": "s", "client_id": "c", **changes}
    return Claims(
        "i", "u", ("a",), END_S, NOW_S, None, members["jti"], members["sid"], None, members["client_id"], b"{}"
    )


class Worker:
    """A feed, and what it has led to."""

    def __init__(self, database: Database) -> None:
        self.revocations = Revocations()
        self.forgotten: list[str] = []
        self.bus = SqliteRevocationBus(database)
        forget_user, forget_client = (
            lambda name: self.forgotten.append(f"user {name}"),
            lambda name: self.forgotten.append(f"client {name}"),
        )
        self.feed = RevocationFeed(self.bus, self.revocations, forget_user, forget_client)

    def catch_up(self) -> None:
        asyncio.run(self.feed.catch_up())


def told(database: Database, *news: tuple[str, str, int, int]) -> None:
    async def write() -> None:
        for kind, name, until_s, issued_until_s in news:
            await database.write(lambda c, n=(kind, name, until_s, issued_until_s): tell(c, *n))  # type: ignore[misc]

    asyncio.run(write())


def test_a_worker_that_starts_knows_what_was_revoked_before(database: Database) -> None:
    told(database, ("jti", "j1", END_S, 0), ("sid", "s1", END_S, 0), ("client_id", "c1", END_S, 1 << 62))
    worker = Worker(database)
    worker.catch_up()
    refused = [{"jti": "j1"}, {"sid": "s1"}, {"client_id": "c1"}]
    assert [worker.revocations.is_revoked(claims(**one)) for one in refused] == [True] * 3
    assert not worker.revocations.is_revoked(claims())


def test_more_than_a_page_is_read_to_its_end(database: Database) -> None:
    told(database, *(("jti", f"j{number}", END_S, 0) for number in range(2_500)))
    worker = Worker(database)
    worker.catch_up()
    assert len(worker.revocations) == 2_500
    assert worker.revocations.is_revoked(claims(jti="j2499"))


def test_of_a_client_the_last_word_counts(database: Database) -> None:
    worker = Worker(database)
    told(database, ("client_id", "c", END_S, 1 << 62))
    worker.catch_up()
    assert worker.revocations.is_revoked(claims())
    told(database, ("client_id", "c", END_S, NOW_S - 1))
    worker.catch_up()
    assert not worker.revocations.is_revoked(claims())
    assert worker.forgotten == ["client c", "client c"]


def test_rows_that_have_changed_are_forgotten_even_if_the_news_are_old(database: Database) -> None:
    worker = Worker(database)
    told(database, ("user", "u1", 0, 0), ("client", "c1", END_S, 0))
    worker.catch_up()
    assert worker.forgotten == ["user u1", "client c1"]
    worker.catch_up()
    assert len(worker.forgotten) == 2


def test_what_is_told_while_it_serves_is_known_within_the_bound(database: Database, database_file: object) -> None:
    worker = Worker(database)

    async def follow() -> float:
        following = asyncio.create_task(worker.feed.follow())
        await asyncio.sleep(0.2)
        started = time.monotonic()
        await worker.bus.revoke_token("j", END_S)
        while not worker.revocations.is_revoked(claims()):
            await asyncio.sleep(0.005)
            assert time.monotonic() - started < 1
        following.cancel()
        return time.monotonic() - started

    assert asyncio.run(follow()) < 0.5


class DeafBus(SqliteRevocationBus):
    """A bus whose database does not answer for a while."""

    is_deaf = True

    async def read_after(self, seq: int, limit: int) -> Sequence[News]:
        if self.is_deaf:
            raise Unavailable("database", "it is locked")
        return await super().read_after(seq, limit)


def test_while_the_database_is_away_what_is_known_stays_and_it_is_said_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(revocation_feed, "_RETRY_S", 0.01)
    worker = Worker(database)
    worker.revocations.revoke_session("s", END_S)
    bus = DeafBus(database)
    worker.feed._bus = bus

    async def follow() -> None:
        following = asyncio.create_task(worker.feed.follow())
        await asyncio.sleep(0.5)
        assert worker.revocations.is_revoked(claims())
        await bus.revoke_token("j2", END_S)
        bus.is_deaf = False
        heard = asyncio.Event()
        worker.revocations.watch(heard.set)
        await asyncio.wait_for(heard.wait(), 2)
        assert worker.revocations.is_revoked(claims(jti="j2", sid="other"))
        following.cancel()

    asyncio.run(follow())
    lines = [json.loads(line) for line in capsysbinary.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["revocations_not_followed"]
