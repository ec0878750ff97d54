"""``POST /revoke`` (RFC 7009) and ``POST /logout``: what is ended stays ended."""

import pytest

from tests.cases import each
from tests.endpoints.application import Application, Credentials, bearer
from tests.server.asking import HOST, Answer, ask


@pytest.fixture
def service(application: Application) -> Credentials:
    return application.add_client("svc")


def client_token(application: Application, client: Credentials) -> str:
    token: str = application.form("/token", {"grant_type": "client_credentials"}, client.basic).json["access_token"]
    return token


def revoke_public(application: Application, token: str, **fields: str) -> Answer:
    return application.form("/revoke", {"token": token, "client_id": "fastauth", **fields})


def logout(application: Application, token: str, order: object = None) -> Answer:
    if order is None:
        return application.run(ask(application.app, "/logout", "POST", (HOST, bearer(token)), EMPTY()))
    return application.post_json("/logout", order, bearer(token))


class EMPTY:
    """No body."""

    async def __call__(self) -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}


# ------------------------------------------------------------------ revoke


def test_a_client_revokes_its_own_access_token_and_no_other(application: Application, service: Credentials) -> None:
    first, second = client_token(application, service), client_token(application, service)
    answer = application.form("/revoke", {"token": first}, service.basic)
    assert (answer.status, answer.body, answer.header("cache-control")) == (200, b"", "no-store")
    assert [application.verify(token) for token in (first, second)] == [401, 200]
    assert application.form("/revoke", {"token": first}, service.basic).status == 200


def test_a_refresh_token_takes_its_session_with_it(application: Application) -> None:
    granted = application.login()
    refreshed = application.refresh(granted["refresh_token"]).json
    assert revoke_public(application, refreshed["refresh_token"]).status == 200
    assert [application.verify(token) for token in (granted["token"], refreshed["access_token"])] == [401, 401]
    for token in (granted["refresh_token"], refreshed["refresh_token"]):
        assert application.refresh(token).json["error"] == "invalid_grant"


def test_an_old_refresh_token_ends_the_session_too(application: Application) -> None:
    granted = application.login()
    newest = application.refresh(granted["refresh_token"]).json["refresh_token"]
    assert revoke_public(application, granted["refresh_token"]).status == 200
    assert application.refresh(newest).json["error"] == "invalid_grant"


def test_an_access_token_of_a_person_is_revoked_alone(application: Application) -> None:
    granted = application.login()
    assert revoke_public(application, granted["token"]).status == 200
    assert application.verify(granted["token"]) == 401
    assert application.refresh(granted["refresh_token"]).status == 200


@each("token", ["x", "a.b.c", "fa_rt_" + "A" * 64, "é", "A" * 60_000])
def test_a_token_that_is_not_good_is_revoked_already(
    application: Application, service: Credentials, token: str
) -> None:
    assert application.form("/revoke", {"token": token}, service.basic).status == 200


def test_another_clients_token_is_refused_and_stays_good(application: Application, service: Credentials) -> None:
    other = application.add_client("other")
    token, granted = client_token(application, other), application.login()
    for foreign in (token, granted["token"], granted["refresh_token"]):
        answer = application.form("/revoke", {"token": foreign}, service.basic)
        assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    assert revoke_public(application, token).status == 400
    assert [application.verify(good) for good in (token, granted["token"])] == [200, 200]
    assert application.refresh(granted["refresh_token"]).status == 200


def test_a_wrong_hint_is_ignored(application: Application) -> None:
    granted = application.login()
    assert revoke_public(application, granted["refresh_token"], token_type_hint="access_token").status == 200
    assert application.verify(granted["token"]) == 401


def test_whoever_does_not_say_who_they_are_revokes_nothing(application: Application) -> None:
    granted = application.login()
    for fields in ({}, {"client_id": "x"}, {"client_id": "fastauth", "client_secret": "x"}):
        answer = application.form("/revoke", {"token": granted["refresh_token"], **fields})
        assert (answer.status, answer.json["error"]) == (401, "invalid_client")
    assert application.verify(granted["token"]) == 200


def test_a_request_without_a_token_is_malformed(application: Application, service: Credentials) -> None:
    answer = application.form("/revoke", {}, service.basic)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")


# ------------------------------------------------------------------ logout


def test_a_logout_ends_this_session_and_leaves_the_others(application: Application) -> None:
    here, elsewhere = application.login(), application.login()
    answer = logout(application, here["token"])
    assert (answer.status, answer.body) == (204, b"")
    assert answer.header("content-length") is None
    assert [application.verify(granted["token"]) for granted in (here, elsewhere)] == [401, 200]
    assert application.refresh(here["refresh_token"]).json["error"] == "invalid_grant"
    assert application.refresh(elsewhere["refresh_token"]).status == 200
    assert logout(application, here["token"]).status == 401


def test_all_sessions_of_a_person_end_together_and_nobody_elses(application: Application) -> None:
    application.add_user("bob")
    mine, others = [application.login() for _ in range(3)], application.login("bob")
    assert logout(application, mine[0]["token"], {"all": True}).status == 204
    assert [application.verify(granted["token"]) for granted in mine] == [401] * 3
    assert {application.refresh(granted["refresh_token"]).status for granted in mine} == {400}
    assert application.verify(others["token"]) == 200
    assert application.verify(application.login()["token"]) == 200


def test_an_order_that_does_not_say_all_is_for_this_session(application: Application) -> None:
    here, elsewhere = application.login(), application.login()
    assert logout(application, here["token"], {"all": False, "colour": "blue"}).status == 204
    assert application.verify(elsewhere["token"]) == 200


@each("order", [[], {"all": 1}, {"all": "true"}, {"all": None}, "x"])
def test_an_order_that_is_malformed_ends_nothing(application: Application, order: object) -> None:
    granted = application.login()
    answer = logout(application, granted["token"], order)
    assert (answer.status, answer.json["code"]) == (400, "malformed_body")
    assert application.verify(granted["token"]) == 200


def test_a_body_that_is_no_json_ends_nothing(application: Application) -> None:
    granted = application.login()
    answer = application.form("/logout", {"all": "true"}, bearer(granted["token"]))
    assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")
    assert application.verify(granted["token"]) == 200


def test_a_clients_own_token_has_no_session_to_end(application: Application, service: Credentials) -> None:
    answer = logout(application, client_token(application, service))
    assert (answer.status, answer.json["code"]) == (400, "no_session")


def test_without_a_good_token_nobody_logs_out(application: Application) -> None:
    answer = application.run(ask(application.app, "/logout", "POST"))
    assert (answer.status, answer.json["code"]) == (401, "token_missing")
    assert logout(application, "x").status == 401
    assert logout(application, application.login()["refresh_token"]).status == 401


def test_a_token_in_the_header_and_in_the_url_is_refused(application: Application) -> None:
    token = application.login()["token"]
    for path, method in (("/verify", "GET"), ("/logout", "POST")):
        query = f"access_token={token}".encode()
        answer = application.run(ask(application.app, path, method, (HOST, bearer(token)), query_string=query))
        assert (answer.status, answer.json["code"]) == (400, "bearer_twice")
        assert answer.header("www-authenticate") == 'Bearer realm="fastauth", error="invalid_request"'
        assert token not in answer.body.decode()
        assert application.run(ask(application.app, path, method, query_string=query)).status == 401
    assert application.verify(token) == 200
