"""PostgreSQL keeps the promises of every store."""

from collections.abc import Iterator

import pytest

from fastauth.backends.postgres import DatabaseSettings
from fastauth.backends.postgres.database import Database
from fastauth.domain.ports import ClientStore, KeyStore, LeaseStore, RevocationBus, SessionStore, UserStore
from fastauth.server.storage import Storage, on_postgres
from tests.conformance.client_store import ClientStoreSuite
from tests.conformance.key_store import KeyStoreSuite
from tests.conformance.lease_store import LeaseStoreSuite
from tests.conformance.revocation_bus import RevocationBusSuite
from tests.conformance.session_store import SessionStoreSuite
from tests.conformance.user_store import UserStoreSuite, run
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
    pass
