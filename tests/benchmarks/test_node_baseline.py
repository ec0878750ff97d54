"""The baseline in Node does what it is compared for."""

import base64
import http.client
import json
import os
from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit

import pytest

from benchmarks.baseline.node_server import (
    INTROSPECTION_PATH,
    TOKEN_PATH,
    NodeMissing,
    NodeServer,
    installed_server,
    node_server,
)
from tests.integration.running import Answer

# The first run has to install the packages.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=["RS256", "ES256"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[NodeServer, str]]:
    """A server, and the algorithm it signs with; skips where there is no Node to be had, with ``CI=true`` fails."""
    try:
        installed_server()
    except NodeMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    with node_server(None, "--alg", request.param, "--sessions", "2") as running:
        yield running, request.param


def post(server: NodeServer, path: str, **fields: str) -> Answer:
    """One form, with the client's secret, on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    headers = {"Authorization": server.authorization, "Content-Type": "application/x-www-form-urlencoded"}
    try:
        connection.request("POST", path, urlencode(fields), headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def algorithm(token: str) -> str:
    """What the header of a JWT names."""
    return str(json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["alg"])


def test_client_credentials_cost_one_signature(server: tuple[NodeServer, str]) -> None:
    answer = post(server[0], TOKEN_PATH, grant_type="client_credentials", scope="user")
    assert answer.status == 200
    assert algorithm(answer.json["access_token"]) == server[1]


def test_an_opaque_token_is_active_and_a_jwt_cannot_be_introspected(server: tuple[NodeServer, str]) -> None:
    answer = post(server[0], INTROSPECTION_PATH, token=server[0].opaque_token)
    assert (answer.status, answer.json["active"]) == (200, True)
    signed = post(server[0], TOKEN_PATH, grant_type="client_credentials", scope="user").json["access_token"]
    refused = post(server[0], INTROSPECTION_PATH, token=signed)
    assert (refused.status, refused.json["error"]) == (400, "unsupported_token_type")


def test_a_refresh_rotates_and_signs(server: tuple[NodeServer, str]) -> None:
    first = server[0].refresh_tokens[0]
    answer = post(server[0], TOKEN_PATH, grant_type="refresh_token", refresh_token=first)
    assert answer.status == 200
    assert algorithm(answer.json["access_token"]) == server[1]
    second = answer.json["refresh_token"]
    assert second != first
    assert post(server[0], TOKEN_PATH, grant_type="refresh_token", refresh_token=second).status == 200
    assert post(server[0], TOKEN_PATH, grant_type="refresh_token", refresh_token=first).status == 400


def test_without_node_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(NodeMissing, match="there is no `node` on PATH"):
        installed_server()
