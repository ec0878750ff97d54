"""One shared server for tests that do not change it; tests that stop or break one start their own."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.running import CHEAP, RunningServer, fastauth, running_server

# A suite that was started in the background inherits an ignored SIGINT, and would hand it on to whatever it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ALICE_PASSWORD = "correct horse battery staple"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One worker, the cheapest hash, the users ``alice`` and ``mallory`` (disabled)."""
    data_dir = tmp_path_factory.mktemp("shared")
    for name in ("alice", "mallory"):
        added = fastauth("user", "add", name, "--password-stdin", data_dir=data_dir, stdin=ALICE_PASSWORD, env=CHEAP)
        assert added.returncode == 0, added.stderr
    assert fastauth("user", "disable", "mallory", data_dir=data_dir).returncode == 0
    with running_server(data_dir, env=CHEAP) as running:
        yield running


@pytest.fixture(scope="session")
def token(server: RunningServer) -> str:
    """An access token of alice."""
    answer = server.login("alice", ALICE_PASSWORD)
    assert answer.status == 200, answer.body
    issued: str = answer.json["token"]
    return issued
