"""SQLite keeps the promises of every store."""

import pytest

from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.keys import SqliteKeyStore
from fastauth.backends.sqlite.users import SqliteUserStore
from fastauth.domain.ports import KeyStore, UserStore
from tests.conformance.key_store import KeyStoreSuite
from tests.conformance.user_store import UserStoreSuite


class TestSqliteUsers(UserStoreSuite):
    @pytest.fixture
    def users(self, database: Database) -> UserStore:
        return SqliteUserStore(database)


class TestSqliteKeys(KeyStoreSuite):
    @pytest.fixture
    def keys(self, database: Database) -> KeyStore:
        return SqliteKeyStore(database)
