"""SQLite keeps the promises of every store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastauth.backends.sqlite.clients import SqliteClientStore
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.keys import SqliteKeyStore
from fastauth.backends.sqlite.leases import SqliteLeaseStore
from fastauth.backends.sqlite.news import SqliteRevocationBus
from fastauth.backends.sqlite.sessions import SqliteSessionStore
from fastauth.backends.sqlite.users import SqliteUserStore
from fastauth.domain.ports import ClientStore, KeyStore, LeaseStore, RevocationBus, SessionStore, UserStore
from tests.conformance.client_store import ClientStoreSuite
from tests.conformance.key_store import KeyStoreSuite
from tests.conformance.lease_store import LeaseStoreSuite
from tests.conformance.revocation_bus import RevocationBusSuite
from tests.conformance.session_store import SessionStoreSuite
from tests.conformance.user_store import UserStoreSuite


class OnSqlite:
    @pytest.fixture
    def users(self, database: Database) -> UserStore:
        return SqliteUserStore(database)

    @pytest.fixture
    def sessions(self, database: Database) -> SessionStore:
        return SqliteSessionStore(database)

    @pytest.fixture
    def clients(self, database: Database) -> ClientStore:
        return SqliteClientStore(database)

    @pytest.fixture
    def bus(self, database: Database) -> RevocationBus:
        return SqliteRevocationBus(database)

    @pytest.fixture
    def other_bus(self, database_file: Path) -> Iterator[RevocationBus]:
        another = Database(database_file)
        yield SqliteRevocationBus(another)
        another.close()

    @pytest.fixture
    def leases(self, database: Database) -> LeaseStore:
        return SqliteLeaseStore(database)

    @pytest.fixture
    def keys(self, database: Database) -> KeyStore:
        return SqliteKeyStore(database)


class TestSqliteUsers(OnSqlite, UserStoreSuite):
    pass


class TestSqliteKeys(OnSqlite, KeyStoreSuite):
    pass


class TestSqliteSessions(OnSqlite, SessionStoreSuite):
    pass


class TestSqliteClients(OnSqlite, ClientStoreSuite):
    pass


class TestSqliteLeases(OnSqlite, LeaseStoreSuite):
    pass


class TestSqliteRevocationBus(OnSqlite, RevocationBusSuite):
    pass
