"""Logins that an HTTP service decides: the exchange, whose accounts they make, and what passes into tokens."""

import json
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fastauth.jose import base64url
from tests.cases import each
from tests.identity_servers import IdentityService, identity_service, self_signed
from tests.integration.running import CHEAP, RunningServer, copy_without_users, fastauth, import_lines, running_server

pytestmark = pytest.mark.integration

PASSWORD = "correct horse"


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64url.decode(token.split(".")[1].encode()) or b"")
    return claims


class House:
    """A server, the service that it asks, and its environment."""

    def __init__(self, server: RunningServer, service: IdentityService, env: dict[str, str]) -> None:
        self.server = server
        self.service = service
        self.env = env

    def command(self, *arguments: str, stdin: str | None = None) -> str:
        done = fastauth(*arguments, data_dir=self.server.data_dir, env=self.env, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout


def environment_of(service: IdentityService, **more: str) -> dict[str, str]:
    chosen = {"CHAIN": "local,http", "HTTP_URL": service.url, "HTTP_CLAIMS": "department,scope,roles", **more}
    return {**CHEAP, **{f"FASTAUTH_IDENTITY__{name}": value for name, value in chosen.items()}}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    data_dir = copy_without_users(tmp_path_factory.mktemp("http") / "data")
    import_lines(data_dir, [{"username": "local", "password": PASSWORD}])
    with identity_service() as service:
        env = environment_of(service, HTTP_BEARER="own-bearer-secret", HTTP_TIMEOUT_S="1")
        with running_server(data_dir, env=env) as server:
            yield House(server, service, env)


@pytest.fixture(autouse=True)
def well(house: House) -> None:
    """The service works, and knows nobody."""
    service = house.service
    service.users, service.requests, service.status, service.body = {}, [], None, None
    service.wait_s, service.headers, service.is_endless = 0.0, {}, False
    service.most_under_way = 0


class TestExchange:
    def test_a_user_of_the_service_logs_in_and_gets_an_account_of_his_own_id(self, house: House) -> None:
        house.service.users["ann"] = (PASSWORD, "7001", {"department": "tools"})
        answer = house.server.login("ann", PASSWORD)
        assert answer.status == 200, answer.body
        claims = claims_of(answer.json["token"])
        assert claims["department"] == "tools"
        assert claims["preferred_username"] == "ann"
        assert claims["sub"] != "7001"
        shown = json.loads(house.command("user", "show", "ann", "--json"))
        assert (shown["sub"], shown["source"], shown["subject"]) == (claims["sub"], "http", "7001")
        headers, body = house.service.requests[0]
        assert body == {"username": "ann", "password": PASSWORD}
        assert headers["Authorization"] == "Bearer own-bearer-secret"
        again = house.server.login("ANN", PASSWORD)
        assert claims_of(again.json["token"])["sub"] == claims["sub"]

    def test_its_claims_are_in_refreshed_tokens_too_and_verify_shows_them(self, house: House) -> None:
        house.service.users["eve"] = (PASSWORD, "7002", {"department": "ops", "roles": ["a", "b"]})
        first = house.server.login("eve", PASSWORD).json
        form = f"grant_type=refresh_token&refresh_token={first['refresh_token']}"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        refreshed = house.server.request("POST", "/token", form, headers).json
        assert claims_of(refreshed["access_token"])["roles"] == ["a", "b"]
        assert house.server.verify(refreshed["access_token"]).json["department"] == "ops"

    def test_what_it_says_in_the_names_of_registered_claims_never_passes(self, house: House) -> None:
        said = {"scope": "admin", "exp": 9_000_000_000, "sub": "root", "secret": "x", "department": "d", "aud": "other"}
        house.service.users["mallory"] = (PASSWORD, "7003", said)
        claims = claims_of(house.server.login("mallory", PASSWORD).json["token"])
        assert claims["scope"] == "user"
        assert claims["exp"] < time.time() + 3700
        assert claims["sub"] != "root"
        assert claims["aud"] == house.server.url
        assert "secret" not in claims
        assert "claims_never_pass" in house.server.log

    def test_a_subject_that_is_the_id_of_a_local_account_is_somebody_else(self, house: House) -> None:
        local = json.loads(house.command("user", "show", "local", "--json"))["sub"]
        house.service.users["thief"] = (PASSWORD, local, {})
        assert claims_of(house.server.login("thief", PASSWORD).json["token"])["sub"] != local

    def test_a_name_that_has_an_account_is_not_taken_over(self, house: House) -> None:
        house.service.users["tom"] = (PASSWORD, "8001", {})
        assert house.server.login("tom", PASSWORD).status == 200
        house.service.users["tom"] = (PASSWORD, "8002", {})  # another person at the service
        assert house.server.login("tom", PASSWORD).status == 401
        assert "name_taken" in house.server.log

    def test_a_refusal_and_an_unknown_name_are_401(self, house: House) -> None:
        house.service.users["ann"] = (PASSWORD, "7001", {})
        assert house.server.login("ann", "wrong").status == 401
        assert house.server.login("nobody", PASSWORD).status == 401

    def test_nobody_is_asked_about_an_empty_password_or_a_name_that_nobody_can_have(self, house: House) -> None:
        assert house.server.login("ann", "").status == 401
        assert house.server.login("a b", PASSWORD).status == 401
        assert house.service.requests == []

    def test_a_disabled_account_stays_out_whatever_its_source_says(self, house: House) -> None:
        house.service.users["dan"] = (PASSWORD, "7010", {})
        token = house.server.login("dan", PASSWORD).json["token"]
        house.command("user", "disable", "dan")
        assert house.server.login("dan", PASSWORD).status == 401
        time.sleep(1)
        assert house.server.verify(token).status == 401

    def test_a_user_of_a_source_has_no_password_to_be_set_here(self, house: House) -> None:
        house.service.users["ann"] = (PASSWORD, "7001", {})
        assert house.server.login("ann", PASSWORD).status == 200
        data_dir = house.server.data_dir
        done = fastauth("user", "set-password", "ann", data_dir=data_dir, env=house.env)
        assert done.returncode == 1
        assert "http" in done.stderr

    def test_first_logins_at_the_same_time_make_one_account(self, house: House) -> None:
        house.service.users["twin"] = (PASSWORD, "7020", {})
        house.service.wait_s = 0.05
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda name: house.server.login(name, PASSWORD), ["twin", "Twin", "TWIN"] * 3))
        assert {answer.status for answer in answers} == {200}
        assert len({claims_of(answer.json["token"])["sub"] for answer in answers}) == 1

    def test_a_connection_that_breaks_before_an_answer_is_tried_once_more_for_a_tenth_of_the_calls(
        self, house: House
    ) -> None:
        house.service.users["ann"] = (PASSWORD, "7001", {})
        house.service.hang_ups = 1
        assert house.server.login("ann", PASSWORD).status == 200
        assert len(house.service.requests) == 2
        house.service.requests, house.service.hang_ups = [], 1_000
        statuses = [house.server.login("ann", PASSWORD).status for _ in range(9)]  # ten failures would open the circuit
        assert set(statuses) == {503}
        assert 9 <= len(house.service.requests) <= 9 + 6
        house.service.hang_ups = 0
        for _ in range(10):
            assert house.server.login("ann", PASSWORD).status == 200


class TestSharedChecks:
    def test_equal_checks_at_the_same_time_are_one_and_who_leaves_ends_nothing(self, house: House) -> None:
        house.service.users["one"] = (PASSWORD, "7030", {})
        house.service.wait_s = 0.4
        body = json.dumps({"username": "one", "password": PASSWORD}).encode()
        head = b"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        leader = socket.create_connection(("127.0.0.1", house.server.port))
        leader.sendall(head % len(body) + body)
        time.sleep(0.1)
        with ThreadPoolExecutor(8) as threads:
            followers = [threads.submit(house.server.login, "one", PASSWORD) for _ in range(8)]
            time.sleep(0.1)
            leader.close()
            assert {follower.result().status for follower in followers} == {200}
        assert len(house.service.requests) == 1

    def test_a_client_that_leaves_takes_its_call_along(self, house: House) -> None:
        house.service.wait_s, left = 5.0, house.service.left
        body = json.dumps({"username": "gone", "password": PASSWORD}).encode()
        head = b"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        with socket.create_connection(("127.0.0.1", house.server.port)) as client:
            client.sendall(head % len(body) + body)
            while not house.service.requests:
                time.sleep(0.01)
        began = time.monotonic()
        while house.service.left == left:
            assert time.monotonic() - began < 0.7, "the call went on without its client"
            time.sleep(0.01)

    def test_no_more_calls_than_the_pool_has_are_made_at_once(self, house: House) -> None:
        house.service.users = {f"u{number}": (PASSWORD, f"s{number}", {}) for number in range(40)}
        house.service.wait_s = 0.05
        with ThreadPoolExecutor(40) as threads:
            statuses = list(threads.map(lambda name: house.server.login(name, PASSWORD).status, house.service.users))
        assert set(statuses) == {200}
        assert house.service.most_under_way <= 16


DOWN: dict[str, Any] = {
    "a status that is no verdict": {"status": 500},
    "a redirect": {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
    "403": {"status": 403},
    "no JSON": {"body": b"<html>"},
    "a member twice": {"body": b'{"subject": "a", "subject": "b"}'},
    "no subject": {"body": b'{"claims": {}}'},
    "a subject of another type": {"body": b'{"subject": 7}'},
    "an empty subject": {"body": b'{"subject": ""}'},
    "a subject with a line end": {"body": b'{"subject": "a\\r\\nb"}'},
    "claims of another type": {"body": b'{"subject": "a", "claims": []}'},
    "too many claims": {"body": b'{"subject": "a", "claims": {"department": "%s"}}' % (b"x" * 3000)},
    "deep JSON": {"body": b'{"subject": "a", "claims": {"department": %s}}' % (b"[" * 500 + b"]" * 500)},
    "a huge body": {"body": b'{"subject": "a"}' + b" " * 100_000},
    "a compressed body": {"body": b'{"subject": "a"}', "headers": {"Content-Encoding": "gzip"}},
    "an endless body": {"is_endless": True},
    "silence": {"wait_s": 3.0},
}


@each("fault", DOWN)
def test_what_is_no_verdict_is_a_503_for_its_users_alone(house: House, fault: str) -> None:
    house.service.users["ann"] = (PASSWORD, "7001", {})
    for name, value in DOWN[fault].items():
        setattr(house.service, name, value)
    began = time.monotonic()
    answer = house.server.login("ann", PASSWORD)
    took_s = time.monotonic() - began
    assert answer.status == 503, fault
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json["code"] == "unavailable"
    assert took_s < 1.3
    assert house.server.login("local", PASSWORD).status == 200
    for name, value in {"status": None, "body": None, "wait_s": 0.0, "headers": {}, "is_endless": False}.items():
        setattr(house.service, name, value)

    def is_back() -> bool:  # the breaker may have opened after a few of these
        return house.server.login("ann", PASSWORD).status == 200

    ends = time.monotonic() + 8
    while not is_back():
        assert time.monotonic() < ends
        time.sleep(0.2)
    assert PASSWORD not in house.server.log


def test_the_order_of_the_chain_decides_and_a_refusal_is_final(tmp_path: Path) -> None:
    data_dir = copy_without_users(tmp_path / "data")
    import_lines(data_dir, [{"username": "both", "password": "of here"}, {"username": "only", "password": "of here"}])
    with identity_service() as service:
        service.users["both"] = ("of there", "1", {})
        env = environment_of(service, CHAIN="http,local", ROUTES="svc-*=local,*@corp.example=http")
        with running_server(data_dir, env=env) as server:
            assert server.login("both", "of here").status == 401
            assert server.login("only", "of here").status == 200
            asked = len(service.requests)
            assert server.login("svc-robot", "x").status == 401
            assert len(service.requests) == asked
            assert server.login("zoe@corp.example", "x").status == 401
            assert service.requests[-1][1]["username"] == "zoe@corp.example"
            # Whom a source in front might have refused is not let in while it is down, unless the account is from here.
            service.status = 500
            assert server.login("only", "of here").status == 200
            assert server.login("only", "wrong").status == 401
            assert server.login("stranger", "of here").status == 503


def test_without_provisioning_only_those_log_in_who_were_added(tmp_path: Path) -> None:
    data_dir = copy_without_users(tmp_path / "data")
    with identity_service() as service:
        service.users = {"ann": (PASSWORD, "1", {}), "bob": (PASSWORD, "2", {})}
        env = environment_of(service, PROVISION="0", CACHE_TTL_S="60")
        added = fastauth("user", "add", "ann", "--source", "http", "--subject", "1", data_dir=data_dir, env=env)
        assert added.returncode == 0, added.stderr
        assert "password" not in added.stdout
        with running_server(data_dir, env=env) as server:
            assert server.login("bob", PASSWORD).status == 401
            assert server.login("ann", PASSWORD).status == 200
            asked = len(service.requests)
            assert server.login("ann", PASSWORD).status == 200
            assert len(service.requests) == asked, "what was accepted a moment ago is asked again"
            assert server.login("ann", "wrong").status == 401
            assert len(service.requests) == asked + 1, "a refusal is remembered, or a guess is believed"
            assert server.login("ann", PASSWORD).status == 200  # the refusal has dropped it
            asked = len(service.requests)
            assert fastauth("user", "disable", "ann", data_dir=data_dir, env=env).returncode == 0
            time.sleep(1.1)
            assert server.login("ann", PASSWORD).status == 401
            assert len(service.requests) == asked + 1, "an event of the user has not dropped it"


def test_the_service_and_fastauth_know_each_other_by_their_certificates(tmp_path: Path) -> None:
    theirs, their_key = self_signed(tmp_path, "service")
    ours, our_key = self_signed(tmp_path, "fastauth")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(theirs, their_key)
    tls.load_verify_locations(ours)
    tls.verify_mode = ssl.CERT_REQUIRED
    data_dir = copy_without_users(tmp_path / "data")
    trusting = {"CHAIN": "http", "HTTP_CA_FILE": str(theirs)}
    showing = {**trusting, "HTTP_CERT_FILE": str(ours), "HTTP_KEY_FILE": str(our_key)}
    with identity_service(tls) as service:
        states = []
        for chosen in ({"CHAIN": "http"}, trusting, showing):
            text = fastauth("doctor", "--json", data_dir=data_dir, env=environment_of(service, **chosen)).stdout
            states.append(next(one for one in map(json.loads, text.splitlines()) if one["subject"] == "http")["state"])
        assert states == ["broken", "broken", "good"]
        with running_server(data_dir, env=environment_of(service, **showing)) as server:
            service.users["ann"] = (PASSWORD, "1", {})
            assert server.login("ann", PASSWORD).status == 200
            assert "admin" not in (data_dir / "stdout.txt").read_text()  # nobody could log in as it
