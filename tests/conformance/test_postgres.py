"""PostgreSQL keeps the promises of every store."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from fastauth.backends.postgres import DatabaseSettings
from fastauth.backends.postgres.database import Database
from fastauth.backends.postgres.news import POLL_S, PostgresRevocationBus
from fastauth.breaker import CircuitBreaker
from fastauth.domain.breaker import BreakerRules
from fastauth.domain.errors import Unavailable
from fastauth.domain.ports import ClientStore, KeyStore, LeaseStore, RevocationBus, SessionStore, UserStore
from fastauth.server.storage import Storage, on_postgres
from tests.conformance.client_store import ClientStoreSuite
from tests.conformance.key_store import KeyStoreSuite
from tests.conformance.lease_store import LeaseStoreSuite
from tests.conformance.revocation_bus import RevocationBusSuite
from tests.conformance.session_store import SessionStoreSuite
from tests.conformance.user_store import UserStoreSuite, run
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.postgres_servers import TABLES, PostgresServer, running_postgres

pytestmark = pytest.mark.integration

PATIENT = DatabaseSettings(acquire_timeout_s=10, statement_timeout_s=10)
EMPTY = f"TRUNCATE {TABLES} RESTART IDENTITY; UPDATE key_ring SET version = 1, alg = NULL, publish_ahead_s = NULL"  # noqa: S608


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() as running:
        yield running


def opened(server: PostgresServer) -> Storage:
    database = Database(server.url(), PATIENT)
    run(database.open(10))
    return on_postgres(database)


class OnPostgres:
    @pytest.fixture
    def storage(self, server: PostgresServer) -> Iterator[Storage]:
        storage = opened(server)
        yield storage
        run(storage.close())
        server.sql(EMPTY)

    @pytest.fixture
    def users(self, storage: Storage) -> UserStore:
        return storage.users

    @pytest.fixture
    def sessions(self, storage: Storage) -> SessionStore:
        return storage.sessions

    @pytest.fixture
    def clients(self, storage: Storage) -> ClientStore:
        return storage.clients

    @pytest.fixture
    def bus(self, storage: Storage) -> RevocationBus:
        return storage.bus

    @pytest.fixture
    def other_bus(self, server: PostgresServer) -> Iterator[RevocationBus]:
        another = opened(server)
        yield another.bus
        run(another.close())

    @pytest.fixture
    def keys(self, storage: Storage) -> KeyStore:
        return storage.keys

    @pytest.fixture
    def leases(self, storage: Storage) -> LeaseStore:
        return storage.leases


class TestPostgresUsers(OnPostgres, UserStoreSuite):
    pass


class TestPostgresKeys(OnPostgres, KeyStoreSuite):
    pass


class TestPostgresSessions(OnPostgres, SessionStoreSuite):
    pass


class TestPostgresClients(OnPostgres, ClientStoreSuite):
    pass


class TestPostgresLeases(OnPostgres, LeaseStoreSuite):
    pass


class TestPostgresRevocationBus(OnPostgres, RevocationBusSuite):
    def test_a_listener_that_has_missed_something_is_replaced(self, server: PostgresServer, bus: RevocationBus) -> None:
        """The network lost a notification and no connection: nothing tells the listener that it is deaf."""

        async def heard_again(proxy: FaultProxy) -> None:
            url = server.url().replace(str(server.port), str(proxy.port))
            database = Database(url, PATIENT)
            await database.open(10)
            deaf = PostgresRevocationBus(database)
            for _ in range(3):
                await deaf.wait()
            proxy.set("drop")
            await bus.revoke_token("lost", 1 << 40)
            await asyncio.sleep(0.05)
            proxy.set("none", ends=False)
            seq, waits = 0, 0
            while not (news := await deaf.read_after(seq, 10)):
                await deaf.wait()
            seq = news[-1].seq
            while waits < 5:  # until somebody listens again
                await deaf.wait()
                waits += 1
                await deaf.read_after(seq, 10)
            waiting = asyncio.create_task(deaf.wait())
            await asyncio.sleep(0.05)
            began = time.monotonic()
            await bus.revoke_token("heard", 1 << 40)
            await waiting
            assert time.monotonic() - began < POLL_S / 3
            await deaf.close()
            await database.close()

        async def told(proxy: FaultProxy) -> None:
            async with asyncio.timeout(20):
                await heard_again(proxy)

        with fault_proxy(server.port) as proxy:
            run(told(proxy))


def test_a_database_that_does_not_answer_is_not_asked_and_found_again(server: PostgresServer) -> None:
    changes: list[str] = []
    rules = BreakerRules(timeouts_in_a_row=3, open_s=0.3)
    breaker = CircuitBreaker(
        "database", rules, soonest_s=0.05, on_change=lambda name, state, reason: changes.append(state)
    )

    async def told(proxy: FaultProxy) -> None:
        url = server.url().replace(str(server.port), str(proxy.port))
        database = Database(url, DatabaseSettings(acquire_timeout_s=0.2, statement_timeout_s=0.1), breaker)
        await database.open(10)
        with pytest.raises(Unavailable):  # an answer, if not the one that was wanted
            await database.read("SELECT 1 / 0")
        with pytest.raises(Unavailable):
            await database.read("SELECT nothing")
        assert changes == []
        proxy.set("drop")
        while not changes:
            with pytest.raises(Unavailable):
                await database.read("SELECT 1")
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(Unavailable):
                await database.read("SELECT 1")
        assert time.monotonic() - began < 0.1
        proxy.set("none")
        await asyncio.sleep(0.3)
        assert (await database.read("SELECT 1"))[0][0] == 1
        assert changes == ["open", "half_open", "closed"]
        await database.close()

    with fault_proxy(server.port) as proxy:
        run(told(proxy))
