"""``POST /token``: the grants, the clients, and the errors exactly as RFC 6749 has them."""

import base64
import json
import time
from typing import Any

import pytest

from fastauth.jose import base64url
from tests.cases import each
from tests.endpoints.application import FORM, Application, Credentials
from tests.server.asking import HOST, JSON, ask, body_of

CLIENT_CREDENTIALS = {"grant_type": "client_credentials"}


@pytest.fixture
def service(application: Application) -> Credentials:
    return application.add_client("svc", scope="a b")


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64url.decode(token.split(".")[1].encode()) or b"")
    return claims


# ------------------------------------------------------------------ client credentials


def test_a_client_gets_a_token_of_its_own(application: Application, service: Credentials) -> None:
    answer = application.form("/token", CLIENT_CREDENTIALS, service.basic)
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert (answer.header("cache-control"), answer.header("pragma")) == ("no-store", "no-cache")
    body = answer.json
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 3600, "a b")
    claims = claims_of(body["access_token"])
    assert claims.keys() == {"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope"}
    assert claims["sub"] == claims["client_id"] == service.client_id
    assert application.verify(body["access_token"]) == 200


def test_both_ways_of_authenticating_are_taken(application: Application, service: Credentials) -> None:
    assert application.form("/token", {**CLIENT_CREDENTIALS, **service.post}).status == 200
    both_agree = {**CLIENT_CREDENTIALS, "client_id": service.client_id}
    assert application.form("/token", both_agree, service.basic).status == 200


def test_a_client_may_ask_for_less_and_never_for_more(application: Application, service: Credentials) -> None:
    answer = application.form("/token", {**CLIENT_CREDENTIALS, "scope": "b"}, service.basic)
    assert answer.json["scope"] == claims_of(answer.json["access_token"])["scope"] == "b"
    for scope in ("c", "a c", "a  b", "a,b", " ", 'a"'):
        answer = application.form("/token", {**CLIENT_CREDENTIALS, "scope": scope}, service.basic)
        assert (answer.status, answer.json["error"]) == (400, "invalid_scope")


def test_a_client_without_scopes_gets_a_token_without_one(application: Application) -> None:
    bare = application.add_client("bare")
    answer = application.form("/token", CLIENT_CREDENTIALS, bare.basic)
    assert "scope" not in answer.json
    assert "scope" not in claims_of(answer.json["access_token"])


def test_a_client_without_the_grant_is_unauthorized(application: Application) -> None:
    reader = application.add_client("reader", grants=())
    answer = application.form("/token", CLIENT_CREDENTIALS, reader.basic)
    assert (answer.status, answer.json["error"]) == (400, "unauthorized_client")


def test_whoever_is_not_the_client_gets_the_same_401(application: Application, service: Credentials) -> None:
    off = application.add_client("off", disabled=True)
    wrong = Credentials(service.client_id, service.secret[:-1] + "x")
    answers = [
        application.form("/token", CLIENT_CREDENTIALS, credentials.basic)
        for credentials in (
            wrong,
            Credentials("id-nobody", service.secret),
            Credentials(service.client_id, ""),
            Credentials("", ""),
            Credentials("fastauth", service.secret),
            Credentials(service.client_id + "\0", service.secret),
            off,
        )
    ]
    answers += [application.form("/token", {**CLIENT_CREDENTIALS, **wrong.post})]
    answers += [application.form("/token", {**CLIENT_CREDENTIALS, "client_id": service.client_id})]
    answers += [application.form("/token", CLIENT_CREDENTIALS)]
    answers += [application.form("/token", {**CLIENT_CREDENTIALS, "client_id": "fastauth"})]
    answers += [application.form("/token", {**CLIENT_CREDENTIALS, "client_assertion": "x", "client_id": "fastauth"})]
    assert {(answer.status, answer.json["error"], answer.body) for answer in answers} == {
        (401, "invalid_client", answers[0].body)
    }
    assert {answer.header("www-authenticate") for answer in answers} == {'Basic realm="fastauth"'}


@each(
    "header",
    [
        b"Basic",
        b"Basic ",
        b"Basic !!!!",
        b"Basic " + base64.b64encode(b"no-colon"),
        b"Basic " + base64.b64encode(b"\xff:\xff"),
        b"Basic " + base64.b64encode(b"a%zz:b"),
        b"Bearer eyJ",
        b"Digest x",
        b"",
    ],
)
def test_a_broken_authorization_header_is_no_client(application: Application, header: bytes) -> None:
    answer = application.form("/token", CLIENT_CREDENTIALS, (b"authorization", header))
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")


def test_the_scheme_has_no_case_and_the_credentials_may_be_form_encoded(
    application: Application, service: Credentials
) -> None:
    encoded = "".join(f"%{ord(char):02X}" for char in f"{service.client_id}")
    header = b"bAsIc " + base64.b64encode(f"{encoded}:{service.secret}".encode())
    assert application.form("/token", CLIENT_CREDENTIALS, (b"authorization", header)).status == 200


def test_credentials_in_two_places_are_a_malformed_request(application: Application, service: Credentials) -> None:
    for more in (service.post, {"client_secret": service.secret}, {"client_id": "another"}):
        answer = application.form("/token", {**CLIENT_CREDENTIALS, **more}, service.basic)
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    answer = application.form("/token", {**CLIENT_CREDENTIALS, "client_secret": service.secret})
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")


# ------------------------------------------------------------------ the request


@each("name", ["password", "implicit", "authorization_code", "Client_Credentials", "x" * 10_000])
def test_any_other_grant_is_unsupported_by_design(application: Application, name: str) -> None:
    fields = {"grant_type": name, "username": "alice", "password": "correct horse battery staple"}
    answer = application.form("/token", fields)
    assert (answer.status, answer.json["error"]) == (400, "unsupported_grant_type")


@each(
    "body",
    [
        b"",
        b"grant_type=",
        b"scope=a",
        b"grant_type=client_credentials&grant_type=client_credentials",
        b"grant_type=refresh_token",
        b"grant_type=refresh_token&refresh_token=",
        b"grant_type=client_credentials&scope=%ff",
    ],
)
def test_a_malformed_request_is_one(application: Application, body: bytes) -> None:
    answer = application.form("/token", body)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert answer.json.keys() == {"error", "error_description"}


def test_unknown_parameters_are_ignored(application: Application, service: Credentials) -> None:
    assert application.form("/token", {**CLIENT_CREDENTIALS, "colour": "blue"}, service.basic).status == 200


def test_get_and_json_and_credentials_in_the_url_are_refused(application: Application, service: Credentials) -> None:
    answer = application.run(ask(application.app, "/token", "GET"))
    assert (answer.status, answer.header("allow"), answer.json["error"]) == (405, "POST", "invalid_request")
    body = body_of(json.dumps(CLIENT_CREDENTIALS).encode())
    answer = application.run(ask(application.app, "/token", "POST", (HOST, JSON, service.basic), body))
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    query = f"client_id={service.client_id}&client_secret={service.secret}".encode()
    answer = application.form("/token", CLIENT_CREDENTIALS, query_string=query)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert service.secret not in answer.body.decode()


def test_a_body_that_is_too_large_is_refused_as_rfc_6749_writes_it(application: Application) -> None:
    headers = (HOST, FORM, (b"content-length", b"65537"))
    answer = application.run(ask(application.app, "/token", "POST", headers))
    assert (answer.status, answer.json["error"]) == (413, "invalid_request")


# ------------------------------------------------------------------ refresh


def test_a_login_begins_a_session_that_is_refreshed_with_its_token_alone(application: Application) -> None:
    granted = application.login()
    answer = application.refresh(granted["refresh_token"])
    assert answer.status == 200
    body = answer.json
    assert body.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
    assert body["refresh_token"] != granted["refresh_token"]
    before, after = claims_of(granted["token"]), claims_of(body["access_token"])
    assert after["jti"] != before["jti"]
    same = ("iss", "sub", "aud", "client_id", "scope", "sid", "auth_time", "preferred_username")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert application.verify(body["access_token"]) == 200
    named = application.refresh(body["refresh_token"], client_id="fastauth")
    assert named.status == 200


def test_the_predecessor_gives_the_same_successor_for_a_while(application: Application) -> None:
    first = application.login()["refresh_token"]
    answers = [application.refresh(first) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert len({answer.json["refresh_token"] for answer in answers}) == 1
    assert len({answer.json["access_token"] for answer in answers}) == 3


def test_an_older_token_ends_the_session_and_leaves_an_incident(
    application: Application, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    granted = application.login()
    first = granted["refresh_token"]
    second = application.refresh(first).json
    third = application.refresh(second["refresh_token"]).json
    answer = application.refresh(first)
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    for token in (third["refresh_token"], second["refresh_token"], first):
        answer = application.refresh(token)
        assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    assert [application.verify(token) for token in (granted["token"], third["access_token"])] == [401, 401]
    lines = [json.loads(line) for line in capsysbinary.readouterr().err.splitlines()]
    (incident,) = [line for line in lines if line["event"] == "refresh_token_reused"]
    assert (incident["sid"], incident["client_id"]) == (claims_of(granted["token"])["sid"], "fastauth")
    assert "fa_rt_" not in json.dumps(lines)


@each(
    "token",
    [
        "x",
        "fa_rt_",
        "fa_rt_" + "A" * 64,
        "fa_rt_" + "A" * 63,
        "fa_rt_" + "A" * 64 + "=",
        "\0",
        "' OR 1=1 --",
        "é" * 100,
        "A" * 60_000,
    ],
)
def test_what_is_no_refresh_token_is_an_invalid_grant(application: Application, token: str) -> None:
    answer = application.refresh(token)
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")


def test_an_access_token_is_no_refresh_token(application: Application) -> None:
    answer = application.refresh(application.login()["token"])
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")


def test_a_refresh_may_narrow_the_access_token_and_not_widen_it(application: Application) -> None:
    application.add_user("bob", "a b c")
    token = application.login("bob")["refresh_token"]
    answer = application.refresh(token, scope="a d")
    assert (answer.status, answer.json["error"]) == (400, "invalid_scope")
    narrow = application.refresh(token, scope="b")  # the refused request has not consumed the token
    assert narrow.json["scope"] == claims_of(narrow.json["access_token"])["scope"] == "b"
    assert application.refresh(narrow.json["refresh_token"]).json["scope"] == "a b c"


def test_another_clients_refresh_token_is_an_invalid_grant_and_stays_good(
    application: Application, service: Credentials
) -> None:
    token = application.login()["refresh_token"]
    fields = {"grant_type": "refresh_token", "refresh_token": token}
    answer = application.form("/token", fields, service.basic)
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    answer = application.form("/token", {**fields, "client_id": service.client_id})
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")
    assert application.refresh(token).status == 200


@pytest.mark.parametrize("how", ["disable", "delete", "set_password"])
def test_what_happens_to_the_account_ends_its_sessions(application: Application, how: str) -> None:
    granted = application.login()
    users = application.operator.users
    if how == "disable":
        application.run(users.set_disabled("alice", True, 0))
    elif how == "delete":
        application.run(users.delete("alice", 0))
    else:
        found = application.run(users.find_by_name("alice"))
        assert found is not None
        application.run(users.set_password_hash("alice", found.password_hash, 0))
    answer = application.refresh(granted["refresh_token"])
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    application.followed()
    assert application.verify(granted["token"]) == 401


def test_a_user_who_is_enabled_again_logs_in_and_gets_tokens_that_live(application: Application) -> None:
    before = application.login()
    application.run(application.operator.users.set_disabled("alice", True, 0))
    application.run(application.operator.users.set_disabled("alice", False, 0))
    after = application.login()
    application.followed()
    assert (application.verify(before["token"]), application.verify(after["token"])) == (401, 200)
    assert application.refresh(after["refresh_token"]).status == 200


# ------------------------------------------------------------------ clients that change


def test_a_client_that_is_disabled_loses_its_tokens_and_enabled_again_gets_new_ones(
    application: Application, service: Credentials
) -> None:
    old = application.form("/token", CLIENT_CREDENTIALS, service.basic).json["access_token"]
    clients = application.operator.clients
    now_s = claims_of(old)["iat"] + 5
    application.run(clients.set_disabled(service.client_id, True, now_s))
    application.followed()
    assert application.verify(old) == 401
    assert application.form("/token", CLIENT_CREDENTIALS, service.basic).status == 401
    application.run(clients.set_disabled(service.client_id, False, now_s - 4))
    application.followed()
    new = application.form("/token", CLIENT_CREDENTIALS, service.basic).json["access_token"]
    assert application.verify(old) == 401
    assert application.verify(new) == (200 if claims_of(new)["iat"] > claims_of(old)["iat"] else 401)


def test_a_new_secret_is_known_to_every_worker_at_once(application: Application, service: Credentials) -> None:
    assert application.form("/token", CLIENT_CREDENTIALS, service.basic).status == 200
    other = application.add_client("other")
    found = application.run(application.operator.clients.find(other.client_id))
    assert found is not None
    application.run(application.operator.clients.set_secret(service.client_id, found.secret_hash, 0, int(time.time())))
    application.followed()
    assert application.form("/token", CLIENT_CREDENTIALS, service.basic).status == 401
