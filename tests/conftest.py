"""What is dear to make, made once: RSA keys and an empty database of the newest schema."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from fastauth.backends.sqlite.database import Database
from fastauth.jose.keys import SigningKey
from fastauth.server import limiting
from fastauth.server.settings import load_settings
from fastauth.server.storage import open_storage

EXAMPLES: Final = 1_000 if os.environ.get("FASTAUTH_TEST_FULL") == "1" else 50  # unless a test says otherwise
settings.register_profile("suite", max_examples=EXAMPLES, deadline=None, database=None)
settings.load_profile("suite")


# These measure time under load, so nothing else may run meanwhile; ``make test`` runs all others two at a time.
ALONE: Final = frozenset(
    {
        "backends/test_hash_permits.py",
        "backends/test_hash_scheduler.py",
        "rehearsal/test_open_loop.py",
        "chaos/test_chaos.py",
        "integration/test_fleet.py",
        "integration/test_hostile_logins.py",
        "integration/test_identity_faults.py",
        "integration/test_load_balancers.py",
        "integration/test_overload.py",
        "integration/test_rate_limits.py",
        "integration/test_slow_clients.py",
        "integration/test_waiting_page.py",
        "integration/test_watchdog.py",
        "server/test_lanes.py",
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark those that have to be alone."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and str(item.path.relative_to(here)) in ALONE:
            item.add_marker("alone")


@pytest.fixture(scope="session", autouse=True)
def tables_of_this_process(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Applications that are composed in this process keep their bucket tables where they are removed."""
    limiting._SHARED_MEMORY = tmp_path_factory.mktemp("tables")  # type: ignore[misc]


@pytest.fixture(scope="session")
def signing_key() -> SigningKey:
    """The issuer's key."""
    return SigningKey.generate()


@pytest.fixture(scope="session")
def other_key() -> SigningKey:
    """Somebody else's key, as good as the issuer's."""
    return SigningKey.generate()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of the newest schema; not to be written to."""
    settings = load_settings(None, {"FASTAUTH_DATA_DIR": str(tmp_path_factory.mktemp("first") / "data")}, {})

    async def make() -> None:
        await (await open_storage(settings)).close()

    asyncio.run(make())
    assert settings.sqlite_path is not None
    return settings.sqlite_path


@pytest.fixture
def database_file(migrated_file: Path, tmp_path: Path) -> Path:
    """A copy of that database, for one test."""
    return Path(shutil.copy(migrated_file, tmp_path / "fastauth.db"))


@pytest.fixture
def database(database_file: Path) -> Iterator[Database]:
    """The opened copy."""
    opened = Database(database_file)
    yield opened
    opened.close()
