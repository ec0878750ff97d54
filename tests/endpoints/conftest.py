"""An application for the tests that need all of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastauth.jose.keys import SigningKey
from fastauth.server.settings import load_settings
from tests.endpoints.application import Application


@pytest.fixture
def application(tmp_path: Path, migrated_file: Path, signing_key: SigningKey) -> Iterator[Application]:
    """With the user ``alice``, and without the limits of a single address."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    shutil.copy(migrated_file, data_dir / "fastauth.db")
    environment = {
        "FASTAUTH_DATA_DIR": str(data_dir),
        "FASTAUTH_ISSUER": "https://auth.example",
        "FASTAUTH_PASSWORDS__PROFILE": "cheapest-for-tests",
        "FASTAUTH_ALLOW_INSECURE": "1",
    }
    made = Application(load_settings(None, environment, {}), signing_key)
    yield made
    made.close()
