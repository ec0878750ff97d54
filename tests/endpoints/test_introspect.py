"""``POST /introspect`` (RFC 7662): the truth, to those who may know it."""

import time

import pytest

from fastauth.domain.clients import Client, Introspection
from fastauth.endpoints.introspect import may_see
from fastauth.jose.claims import Claims
from tests.cases import each
from tests.endpoints.application import Application, Credentials, bearer
from tests.server.asking import Answer

INACTIVE = b'{"active":false}'


@pytest.fixture
def auditor(application: Application) -> Credentials:
    return application.add_client("auditor", grants=(), introspect="any")


def introspect(application: Application, client: Credentials, token: str, **fields: str) -> Answer:
    return application.form("/introspect", {"token": token, **fields}, client.basic)


def client_token(application: Application, client: Credentials) -> str:
    answer = application.form("/token", {"grant_type": "client_credentials"}, client.basic)
    token: str = answer.json["access_token"]
    return token


def test_a_users_token_is_described_with_the_name_of_the_user(application: Application, auditor: Credentials) -> None:
    token = application.login()["token"]
    answer = introspect(application, auditor, token)
    assert answer.status == 200
    assert (answer.header("content-type"), answer.header("cache-control")) == ("application/json", "no-store")
    body = answer.json
    assert body["active"] is True
    assert (body["username"], body["token_type"], body["client_id"]) == ("alice", "Bearer", "fastauth")
    assert (body["iss"], body["aud"], body["scope"]) == ("https://auth.example", "https://auth.example", "user")
    assert body["exp"] - body["iat"] == 3600
    assert {"sub", "jti", "sid", "auth_time"} <= body.keys()
    assert answer.body.count(b'"active"') == 1


def test_a_clients_token_has_no_username(application: Application) -> None:
    service = application.add_client("svc")
    body = introspect(application, service, client_token(application, service)).json
    assert (body["active"], body["sub"]) == (True, service.client_id)
    assert "username" not in body


def test_a_refresh_token_is_active_while_it_is_the_newest(application: Application, auditor: Credentials) -> None:
    first = application.login()["refresh_token"]
    body = introspect(application, auditor, first).json
    assert (body["active"], body["username"], body["client_id"]) == (True, "alice", "fastauth")
    assert body["exp"] > time.time() + 13 * 86_400
    assert "token_type" not in body
    second = application.refresh(first).json["refresh_token"]
    assert introspect(application, auditor, first).body == INACTIVE
    assert introspect(application, auditor, second).json["active"] is True


def test_a_client_sees_its_own_tokens_and_no_others(application: Application) -> None:
    mine, other = application.add_client("mine"), application.add_client("other")
    token = client_token(application, mine)
    assert introspect(application, mine, token).json["active"] is True
    granted = application.login()
    for hidden in (granted["token"], granted["refresh_token"]):
        assert introspect(application, mine, hidden).body == INACTIVE
    assert introspect(application, other, token).body == INACTIVE


@each(
    ("client_id", "introspect", "sees"),
    [
        ("fastauth", "own", True),
        ("api", "own", True),
        ("ap", "own", False),
        ("other", "own", False),
        ("x", "any", True),
    ],
)
def test_whom_a_token_is_for_may_look_at_it(client_id: str, introspect: Introspection, sees: bool) -> None:
    claims = Claims("i", "u", ("web", "api"), 2, 1, None, "j", "s", None, "fastauth", b"{}")
    client = Client(
        client_id=client_id, name="c", secret_hash=b"", introspect=introspect, created_at_s=0, updated_at_s=0
    )
    assert may_see(client, claims) == sees


@each("token", ["x", "a.b.c", "fa_rt_" + "A" * 64, "\0", "é", "A" * 60_000, "." * 60_000])
def test_anything_that_is_no_good_token_is_just_inactive(
    application: Application, auditor: Credentials, token: str
) -> None:
    answer = introspect(application, auditor, token)
    assert (answer.status, answer.body) == (200, INACTIVE)


def test_the_hint_is_not_needed_and_a_wrong_one_is_ignored(application: Application, auditor: Credentials) -> None:
    granted = application.login()
    for token in (granted["token"], granted["refresh_token"]):
        for hint in ("access_token", "refresh_token", "colour"):
            assert introspect(application, auditor, token, token_type_hint=hint).json["active"] is True


def test_nobody_asks_without_being_somebody(application: Application) -> None:
    granted = application.login()
    token = {"token": granted["token"]}
    for fields in (token, {**token, "client_id": "fastauth"}, {**token, "client_id": "x", "client_secret": "y"}):
        answer = application.form("/introspect", fields)
        assert (answer.status, answer.json["error"]) == (401, "invalid_client")
        assert answer.header("www-authenticate") == 'Basic realm="fastauth"'
    answer = application.form("/introspect", token, bearer(granted["token"]))
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")


def test_a_request_without_a_token_is_malformed(application: Application, auditor: Credentials) -> None:
    for fields in ({}, {"token": ""}):
        answer = application.form("/introspect", fields, auditor.basic)
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")


def test_tokens_of_a_disabled_user_are_inactive(application: Application, auditor: Credentials) -> None:
    granted = application.login()
    application.run(application.operator.users.set_disabled("alice", True, 0))
    assert introspect(application, auditor, granted["refresh_token"]).body == INACTIVE
    application.followed()
    assert introspect(application, auditor, granted["token"]).body == INACTIVE


def test_a_name_that_needs_escaping_stays_json(application: Application, auditor: Credentials) -> None:
    application.add_user("émile\"\\'")
    token = application.login("émile\"\\'")["token"]
    assert introspect(application, auditor, token).json["username"] == "émile\"\\'"
