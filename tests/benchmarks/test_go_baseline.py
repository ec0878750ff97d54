"""The baseline in Go does what it is compared for, and ends as it should."""

import http.client
import json
import os
import signal
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from benchmarks.baseline.go_server import PASSWORD, USERNAME, GoMissing, built_server, go_process, go_server
from tests.integration.running import Answer, is_alive

# The first run may have to install Go before it builds.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """Skip where there is no Go to be had; with ``CI=true`` fail."""
    try:
        built_server()
    except GoMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that refuses nobody for coming too often."""
    with go_server(None) as url:
        yield url


def ask(url: str, method: str, path: str, body: str | None = None, token: str | None = None) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {token}"} if token else {})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def login(url: str, password: str = PASSWORD, username: str = USERNAME) -> Answer:
    """``POST /auth``."""
    return ask(url, "POST", "/auth", json.dumps({"username": username, "password": password}))


def tampered(token: str) -> str:
    """The token with another claim under the old signature."""
    head, payload, signature = token.split(".")
    middle = len(payload) // 2
    changed = "A" if payload[middle] != "A" else "B"
    return f"{head}.{payload[:middle]}{changed}{payload[middle + 1 :]}.{signature}"


def test_a_login_gives_a_token_that_validates(server: str) -> None:
    answer = login(server)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    valid = ask(server, "GET", "/validate", token=answer.json["token"])
    assert (valid.status, valid.headers["content-type"]) == (200, "application/json")
    assert valid.json["sub"] == USERNAME
    assert valid.json["exp"] - valid.json["iat"] == 3600


def test_the_printed_token_validates(server: str) -> None:
    token = ask(server, "GET", "/token").body.decode()
    assert ask(server, "GET", "/validate", token=token).status == 200


def test_a_tampered_token_is_refused(server: str) -> None:
    token = login(server).json["token"]
    assert ask(server, "GET", "/validate", token=tampered(token)).status == 401
    assert ask(server, "GET", "/validate", token=token[:-8]).status == 401
    assert ask(server, "GET", "/validate").status == 401


def test_a_wrong_password_and_an_unknown_user_are_refused(server: str) -> None:
    assert login(server, "wrong").status == 401
    assert login(server, username="nobody").status == 401


def test_what_is_no_login_is_a_bad_request(server: str) -> None:
    assert ask(server, "POST", "/auth", "{").status == 400


def test_hello(server: str) -> None:
    answer = ask(server, "GET", "/hello")
    assert (answer.status, answer.body) == (200, b"hello")


def test_an_empty_bucket_refuses() -> None:
    with go_server(None, "-rate", "0.001", "-burst", "2") as url:
        assert [login(url).status for _ in range(3)] == [200, 200, 429]
        assert ask(url, "GET", "/hello").status == 200


def test_argon2_checks_a_hash() -> None:
    with go_server(None, "-argon2") as url:
        assert login(url).status == 200
        assert login(url, "wrong").status == 401


def test_sigterm_ends_it_well() -> None:
    with go_process(None) as (process, url):
        assert login(url).status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert not is_alive(process.pid)


def test_flags_that_make_no_sense_end_it_at_once() -> None:
    with pytest.raises(RuntimeError, match="did not become ready"), go_server(None, "-burst", "0"):
        pass
