"""``/openapi.json`` against the server that serves it: schemathesis finds no 5xx and nothing that is not documented."""

import base64
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.running import (
    CHEAP,
    FULL,
    RunningServer,
    cheap_hash,
    copy_without_users,
    fastauth,
    import_lines,
    running_server,
)

pytestmark = pytest.mark.integration

PASSWORD = "correct horse battery staple"
EXAMPLES = 500 if FULL else 20
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class Described(NamedTuple):
    """A server, and somebody who may use it."""

    server: RunningServer
    bearer: str
    basic: str


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    data_dir = copy_without_users(tmp_path_factory.mktemp("openapi") / "data")
    import_lines(data_dir, [{"username": "alice", "password_hash": cheap_hash(PASSWORD)}])
    added = fastauth(
        "client", "add", "app", "--grant", "client_credentials", "--introspect", "any", "--json", data_dir=data_dir
    )
    made = json.loads(added.stdout)
    basic = base64.b64encode(f"{made['client_id']}:{made['client_secret']}".encode()).decode()
    env = {**CHEAP, "FASTAUTH_LIMITS__REFRESH_PER_IP": "off", "FASTAUTH_LIMITS__TOKEN_PER_CLIENT": "off"}
    with running_server(data_dir, env=env) as server:
        bearer = server.login("alice", PASSWORD).json["token"]
        yield Described(server, f"Bearer {bearer}", f"Basic {basic}")
        assert server.stop() == 0
        assert "request_failed" not in server.log


def authorization_for(operation: Any, described: Described) -> str | None:
    """What lets a request of this operation pass."""
    schemes = {name for scheme in operation.definition.raw.get("security", []) for name in scheme}
    if "bearer" in schemes:
        return described.bearer
    return described.basic if "client" in schemes else None


def test_whatever_the_document_allows_is_answered_as_it_says(described: Described) -> None:
    schema = schemathesis.openapi.from_url(f"{described.server.url}/openapi.json")
    count = 0
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation: Any = found.ok()  # type: ignore[union-attr]  # an invalid operation raises
            fuzz(operation, authorization_for(operation, described), session)
            count += 1
    assert count >= 16


def fuzz(operation: Any, authorization: str | None, session: requests.Session) -> None:
    """Many requests to one operation, with and without what lets them pass."""
    credentials = [None] if authorization is None or operation.path == "/logout" else [None, authorization]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        for sent in credentials:
            headers = {} if sent is None else {"Authorization": sent}
            case.call_and_validate(headers=headers, checks=CHECKS, session=session)

    ask()


def test_the_answers_that_people_get_are_those_of_the_document(described: Described) -> None:
    schema = schemathesis.openapi.from_url(f"{described.server.url}/openapi.json")
    form = {"media_type": "application/x-www-form-urlencoded"}
    with requests.Session() as session:

        def ask(path: str, method: str, authorization: str | None = None, **case: Any) -> Any:
            headers = {} if authorization is None else {"Authorization": authorization}
            made = schema[path][method].Case(**case)
            return made.call_and_validate(headers=headers, checks=CHECKS, session=session)

        granted = ask("/auth", "POST", body={"username": "alice", "password": PASSWORD}).json()
        order = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"]}
        tokens = ask("/token", "POST", body=order, **form).json()
        for token in (tokens["access_token"], tokens["refresh_token"]):
            answer = ask("/introspect", "POST", described.basic, body={"token": token}, **form)
            assert answer.json()["active"] is True
        bearer = f"Bearer {tokens['access_token']}"
        assert ask("/verify", "GET", bearer).status_code == 200
        assert ask("/logout", "POST", bearer).status_code == 204
