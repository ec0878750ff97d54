"""The audit stream of a whole application: what is told of logins, sessions, tokens and clients, and what never is."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastauth.endpoints.audit import LoginAudit
from fastauth.server.audit import MOST_AT_ONCE, AuditSettings
from fastauth.server.settings import Settings
from tests.cases import each
from tests.endpoints.application import PASSWORD, Application, bearer
from tests.server.asking import HOST, JSON, ask, body_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = (b"traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode())
WRONG = "s3cr3t wrong one"


class Audited:
    """An application, and what its audit file says."""

    def __init__(self, application: Application, file: Path) -> None:
        self.application = application
        self.file = file

    @property
    def text(self) -> str:
        return self.file.read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines() if "key_rotated" not in line]

    @property
    def one(self) -> dict[str, Any]:
        (event,) = self.events
        return event

    def attempt(self, name: str, password: str, *headers: tuple[bytes, bytes]) -> int:
        credentials = {"username": name, "password": password}
        return self.application.post_json("/auth", credentials, *headers).status

    def forget(self) -> None:
        self.file.write_text("")


@pytest.fixture
def audited(application: Application, tmp_path: Path) -> Audited:
    file = tmp_path / "audit.log"
    limits = msgspec.structs.replace(application.settings.limits, login_per_user="off", login_per_ip="off")
    application.settings = msgspec.structs.replace(
        application.settings, audit=AuditSettings(file=str(file)), limits=limits
    )
    return Audited(application, file)


def logged_in(capture: pytest.CaptureFixture[bytes]) -> list[dict[str, Any]]:
    """The lines on standard error, but for those that belong to the start and to requests without a peer."""
    lines = [json.loads(line) for line in capture.readouterr().err.splitlines()]
    return [line for line in lines if line["event"] not in ("key_rotated", "peer_without_address")]


def disable(application: Application, name: str) -> None:
    application.run(application.operator.users.set_disabled(name, True, 1))
    application.followed()


def test_a_login_is_one_line_with_whose_it_is_and_the_request(audited: Audited) -> None:
    assert audited.attempt("alice", PASSWORD, TRACEPARENT) == 200
    event = audited.one
    assert list(event)[:4] == ["time", "level", "stream", "event"]
    assert (event["stream"], event["event"], event["request_id"]) == ("audit", "login_succeeded", TRACE)
    alice = audited.application.run(audited.application.operator.users.find_by_name("alice"))
    assert alice is not None
    assert (event["sub"], event["source"], event["device"]) == (alice.sub, "local", "new")
    assert len(event["sid"]) > 10
    assert event["client"] is None  # no peer in this test


def test_every_refusal_has_the_same_fields_and_says_to_the_operator_what_it_was(audited: Audited) -> None:
    audited.application.add_user("bob")
    assert [audited.attempt(name, WRONG) for name in ("alice", "nobody", "\t/no name")] == [401] * 3
    disable(audited.application, "bob")
    assert audited.attempt("bob", PASSWORD) == 401
    assert audited.attempt("alice", "") == 401
    reasons = [event["reason"] for event in audited.events]
    assert reasons == ["wrong_password", "unknown_name", "unknown_name", "disabled", "empty_password"]
    assert len({tuple(event) for event in audited.events}) == 1
    assert [event["sub"] is None for event in audited.events] == [False, True, True, False, True]


def test_a_name_is_told_by_a_digest_that_is_the_same_for_all_its_spellings_and_only_here(audited: Audited) -> None:
    """Whoever types a password into the name field does not find it in the log."""
    for name in ("alice", "ALICE", WRONG, WRONG):
        assert audited.attempt(name, "x") == 401
    digests = [event["name_digest"] for event in audited.events]
    assert digests[0] == digests[1] != digests[2] == digests[3]
    assert WRONG not in audited.text
    assert "alice" not in audited.text

    class Kept:
        def __init__(self) -> None:
            self.digests: list[str] = []

        def record(self, _event: str, _request: Any = None, **values: Any) -> None:
            self.digests.append(values["name_digest"])

        record_some = record
        is_in_log = False

        def count(self, event: str) -> None: ...

        def close(self) -> None: ...

    kept = Kept()
    for key in (bytes(32), b"\1" * 32):
        LoginAudit(kept, key).refused(None, "alice", "alice", None, "unknown_name")  # type: ignore[arg-type]
    assert kept.digests[0] != kept.digests[1]


def test_a_known_device_is_told(audited: Audited) -> None:
    limits = msgspec.structs.replace(audited.application.settings.limits, login_per_user="10/m")
    audited.application.settings = msgspec.structs.replace(audited.application.settings, limits=limits)
    credentials = {"username": "alice", "password": PASSWORD}
    first = audited.application.post_json("/auth", credentials, (b"login-device", b"none"))
    proof = first.header("login-device")
    assert proof is not None
    audited.forget()
    assert audited.attempt("alice", PASSWORD, (b"login-device", proof.encode())) == 200
    assert audited.one["device"] == "known"
    assert proof not in audited.text


def test_a_refresh_token_that_comes_back_is_an_incident(
    audited: Audited, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    application = audited.application
    oldest = application.login()["refresh_token"]
    newest = oldest
    for _ in range(2):
        newest = application.refresh(newest).json["refresh_token"]
    audited.forget()
    fields = {"grant_type": "refresh_token", "refresh_token": oldest}
    assert application.form("/token", fields, TRACEPARENT).status == 400
    event = audited.one
    assert (event["event"], event["session"], event["request_id"]) == ("refresh_token_reused", "ended", TRACE)
    assert event["level"] == "warning"
    assert oldest not in audited.text
    logged = logged_in(capsysbinary)
    assert [(line["event"], line["request_id"]) for line in logged] == [("refresh_token_reused", TRACE)]


def test_what_ends_a_session_or_a_token_is_told_once(audited: Audited) -> None:
    application = audited.application
    client = application.add_client("robot")
    first, second = application.login(), application.login()
    own = application.form("/token", {"grant_type": "client_credentials", **client.post}).json["access_token"]
    audited.forget()
    assert application.post_json("/logout", {"all": True}, bearer(first["token"])).status == 204
    assert application.form("/revoke", {"token": second["refresh_token"], "client_id": "fastauth"}).status == 200
    third = application.login()
    for _ in range(2):
        revoked = {"token": third["refresh_token"], "client_id": "fastauth"}
        assert application.form("/revoke", revoked).status == 200
    assert application.form("/revoke", {"token": own, **client.post}).status == 200
    told = [(event["event"], event.get("reason"), event.get("all_of_user")) for event in audited.events]
    assert told == [
        ("session_ended", "logout", True),
        ("login_succeeded", None, None),
        ("session_ended", "revoked", None),
        ("token_revoked", None, None),
    ]
    assert audited.events[-1]["client_id"] == client.client_id


def test_a_client_that_is_refused_is_told_and_an_id_that_no_client_has_is_not_written(audited: Audited) -> None:
    application = audited.application
    client = application.add_client("robot")
    for client_id, secret in ((client.client_id, "fa_cs_wrong"), ("s3cr3t-in-the-wrong-field", "x")):
        fields = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
        assert application.form("/token", fields).status == 401
    assert [(event["client_id"], event["reason"]) for event in audited.events] == [
        (client.client_id, "wrong_secret"),
        (None, "unknown"),
    ]
    assert "s3cr3t" not in audited.text


def with_limits(settings: Settings, **limits: str) -> Settings:
    return msgspec.structs.replace(settings, limits=msgspec.structs.replace(settings.limits, **limits))


@pytest.mark.parametrize("limit", ["login_per_user", "login_global"])
def test_a_limit_that_refuses_a_login_is_named(audited: Audited, limit: str) -> None:
    audited.application.settings = with_limits(audited.application.settings, **{limit: "1/h"})
    assert [audited.attempt("alice", WRONG) for _ in range(2)] == [401, 429]
    event = audited.events[-1]
    assert (event["event"], event["limit"]) == ("login_limited", limit)
    assert event["retry_after_s"] > 3_000


def test_a_storm_of_refusals_is_bounded_and_what_was_left_out_is_counted(audited: Audited) -> None:
    storm = 2 * int(MOST_AT_ONCE)
    for _ in range(storm):
        assert audited.attempt("alice", "") == 401
    audited.application.run(audited.application.service.close())  # type: ignore[union-attr]
    audited.application.service = None
    written = [event for event in audited.events if event["event"] == "login_refused"]
    assert len(written) < storm
    assert len(written) + sum(event.get("count", 0) for event in audited.events) == storm
    left_out = [event for event in audited.events if event["event"] == "events_left_out"]
    assert {event["of"] for event in left_out} == {"login_refused"}


HOSTILE: dict[str, str] = {
    "a line feed": '\n{"stream":"audit","event":"forged"}\n',
    "a carriage return": "\r\n",
    "ESC": "\x1b[2J",
    "NUL": "\0",
    "a line separator": "\u2028",
    "a paragraph separator": "\u2029",
    "next line": "\x85",
    "a bidi override": "\u202e",
}


@each("kind", HOSTILE)
def test_nothing_that_is_sent_forges_a_line(audited: Audited, kind: str) -> None:
    audited.forget()
    hostile = f"before{HOSTILE[kind]}after"
    header = hostile.encode()
    fields = ((b"user-agent", header), (b"traceparent", header), (b"x-forwarded-for", header))
    assert audited.attempt(hostile, hostile, *fields) == 401
    assert audited.attempt("alice", hostile, *fields, (b"login-device", header), (b"login-ticket", header)) == 401
    assert [event["event"] for event in audited.events] == ["login_refused"] * 2
    assert "before" not in audited.text
    assert all(line.isprintable() for line in audited.text.split("\n"))


def test_a_full_disk_under_the_stream_keeps_nobody_out(
    audited: Audited, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    settings = audited.application.settings
    audited.application.settings = msgspec.structs.replace(settings, audit=AuditSettings(file="/dev/full"))
    assert [audited.attempt("alice", PASSWORD) for _ in range(3)] == [200] * 3
    logged = logged_in(capsysbinary)
    assert [line["event"] for line in logged] == ["audit_not_written"]


@pytest.mark.parametrize("where", ["off", "stderr"])
def test_it_may_be_off_or_on_standard_error(
    audited: Audited, where: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    settings = audited.application.settings
    audited.application.settings = msgspec.structs.replace(settings, audit=AuditSettings(file=where))
    assert audited.attempt("alice", PASSWORD) == 200
    logged = logged_in(capsysbinary)
    assert [line["event"] for line in logged] == ([] if where == "off" else ["login_succeeded"])
    assert all(line["stream"] == "audit" for line in logged)


def test_the_client_is_whom_the_limits_see(audited: Audited) -> None:
    settings = audited.application.settings
    proxy = msgspec.structs.replace(settings.proxy, trusted="10.0.0.0/8")
    audited.application.settings = msgspec.structs.replace(settings, proxy=proxy)
    body = json.dumps({"username": "alice", "password": WRONG}).encode()
    for client in ("192.0.2.1", "2001:db8::1:2"):
        work = ask(
            audited.application.app,
            "/auth",
            "POST",
            (HOST, JSON, (b"x-forwarded-for", client.encode())),
            body_of(body),
            client=("10.0.0.1", 1),
        )
        assert audited.application.run(work).status == 401
    assert [event["client"] for event in audited.events] == ["192.0.2.1", "2001:db8::/64"]
