"""The limits of ``/token`` on a real server of two workers."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.integration.running import (
    CHEAP,
    Answer,
    RunningServer,
    cheap_hash,
    copy_without_users,
    fastauth,
    import_lines,
    running_server,
)

pytestmark = pytest.mark.integration

PASSWORD = "correct horse battery staple"
LIMITS = {
    "FASTAUTH_LIMITS__TOKEN_PER_CLIENT": "1/m burst 5",
    "FASTAUTH_LIMITS__REFRESH_PER_IP": "1/m burst 12",
    "FASTAUTH_LIMITS__REFRESH_PER_FAMILY": "1/m burst 4",
}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    data_dir = copy_without_users(tmp_path / "data")
    import_lines(data_dir, [{"username": "alice", "password_hash": cheap_hash(PASSWORD)}])
    with running_server(data_dir, "--workers", "2", env={**CHEAP, **LIMITS}) as running:
        yield running


def refresh(server: RunningServer, token: str) -> Answer:
    body = urlencode({"grant_type": "refresh_token", "refresh_token": token})
    return server.request("POST", "/token", body, FORM)


def assert_refused(answer: Answer) -> None:
    assert (answer.status, answer.json["error"]) == (429, "temporarily_unavailable")
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_a_session_an_address_and_a_client_each_have_a_limit_of_their_own(server: RunningServer) -> None:
    token = server.login("alice", PASSWORD).json["refresh_token"]
    for _ in range(4):
        refreshed = refresh(server, token)
        assert refreshed.status == 200
        parent, token = token, refreshed.json["refresh_token"]
    for _ in range(3):  # a repetition costs the session nothing, and works when an exchange does not
        assert refresh(server, parent).status == 200
    assert_refused(refresh(server, token))
    other = server.login("alice", PASSWORD).json["refresh_token"]
    for _ in range(4):
        refreshed = refresh(server, other)
        assert refreshed.status == 200
        other = refreshed.json["refresh_token"]
    assert_refused(refresh(server, server.login("alice", PASSWORD).json["refresh_token"]))  # now the address

    clients = [
        json.loads(
            fastauth("client", "add", name, "--grant", "client_credentials", "--json", data_dir=server.data_dir).stdout
        )
        for name in ("one", "two")
    ]
    wrong, right, another = (
        {**FORM, "Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}
        for client_id, secret in (
            (clients[0]["client_id"], "wrong"),
            (clients[0]["client_id"], clients[0]["client_secret"]),
            (clients[1]["client_id"], clients[1]["client_secret"]),
        )
    )
    body = "grant_type=client_credentials"
    for _ in range(10):  # whoever does not know the secret spends nothing
        assert server.request("POST", "/token", body, wrong).status == 401
    assert [server.request("POST", "/token", body, right).status for _ in range(5)] == [200] * 5
    assert_refused(server.request("POST", "/token", body, right))
    assert server.request("POST", "/token", body, another).status == 200

    metrics = server.request("GET", "/metrics").body.decode()
    for limit in ("refresh_per_family", "refresh_per_ip", "token_per_client"):
        assert f'fastauth_limit_decisions_total{{decision="refused",limit="{limit}"}} 1.0' in metrics
