"""SECURITY 94 on a whole installation: what the log and the audit stream say, and that no secret is ever in them."""

import base64
import json
import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.integration.running import (
    CHEAP,
    RunningServer,
    copy_without_users,
    fastauth,
    running_server,
    wait_for,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Installation:
    """A server, its commands, and every secret that was used with them."""

    def __init__(self, data_dir: Path, env: dict[str, str]) -> None:
        self.data_dir = data_dir
        self.env = env
        self.secrets: set[str] = {(data_dir / "master.key").read_text().strip()}
        self.said: list[str] = []

    def secret(self, text: str) -> str:
        self.secrets.add(text)
        return text

    def command(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        done = fastauth(*arguments, data_dir=self.data_dir, stdin=stdin, env=self.env)
        assert done.returncode == code, done.stderr
        self.said.append(done.stderr)
        return done.stdout


def form(server: RunningServer, path: str, fields: dict[str, str], **headers: str) -> Any:
    return server.request("POST", path, urlencode(fields), {**FORM, **headers})


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module", params=["file", "stderr"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole life: accounts, clients, logins, refusals, refreshes, incidents, revocations, errors, keys, defects."""
    data_dir = copy_without_users(tmp_path_factory.mktemp("audit") / "data")
    file = data_dir / "audit.log"
    env = {**CHEAP, **({"FASTAUTH_AUDIT__FILE": str(file)} if request.param == "file" else {})}
    env["FASTAUTH_LIMITS__LOGIN_PER_USER"] = "100/m burst 100"  # devices are known only where it matters
    house = Installation(data_dir, env)
    right, new = house.secret("r1ght-Correct-horse"), house.secret("n3w-battery-staple")
    house.command("user", "add", "ann", "--password-stdin", stdin=right)
    house.command("user", "add", "bob", "--password-stdin", stdin=house.secret("b0bs-own-passphrase"))
    made = json.loads(house.command("client", "add", "robot", "--grant", "client_credentials", "--json"))
    house.secret(made["client_secret"])
    wrong = house.secret("wr0ng-Tr0ub4dor")
    with running_server(data_dir, env=env) as server:
        _use(server, house, right, wrong, made)
        house.command("user", "set-password", "ann", "--password-stdin", stdin=new)
        house.command("user", "disable", "bob")
        house.command("user", "enable", "bob")
        house.command("client", "rotate-secret", "robot")
        house.command("client", "disable", "robot")
        house.command("client", "enable", "robot")
        house.command("client", "delete", "robot")
        house.command("keys", "rotate", "--now")
        house.command("user", "delete", "bob")
        house.command("token", "verify", stdin=house.secret("eyJhbGciOiJub25lIn0.e30."), code=1)
        with sqlite3.connect(data_dir / "fastauth.db") as database:
            database.execute("UPDATE users SET password_hash = '$argon2id$s3cr3t-broken-hash' WHERE name = 'ann'")
        house.secret("s3cr3t-broken-hash")
        house.command("user", "add", "carol", "--password-stdin", stdin=house.secret("c4rols-passphrase"))
        server.request(
            "POST",
            "/auth",
            json.dumps({"username": "ann", "password": new}),
            {"Content-Type": "application/json", "traceparent": TRACEPARENT},
        )
    audit = file.read_text() if request.param == "file" else ""
    return {"log": server.log, "audit": audit, "house": house, "where": request.param}


def _use(server: RunningServer, house: Installation, right: str, wrong: str, client: dict[str, str]) -> None:
    secret = house.secret
    granted = [server.login("ann", right).json for _ in range(3)]
    for answer in granted:
        secret(answer["token"])
        secret(answer["refresh_token"])
    for name in ("ann", "nobody", secret("typed-p4ssword-as-name"), "bob\r\n\x1b[2J\u2028"):
        assert server.login(name, wrong).status == 401
    oldest = refreshed = granted[0]["refresh_token"]
    for _ in range(2):
        answer = form(server, "/token", {"grant_type": "refresh_token", "refresh_token": refreshed}).json
        refreshed = secret(answer["refresh_token"])
        secret(answer["access_token"])
    reused = {"grant_type": "refresh_token", "refresh_token": oldest}
    assert form(server, "/token", reused, traceparent=TRACEPARENT).status == 400
    basic = base64.b64encode(f"{client['client_id']}:{client['client_secret']}".encode()).decode()
    secret(basic)
    own = form(server, "/token", {"grant_type": "client_credentials"}, Authorization=f"Basic {basic}").json
    secret(own["access_token"])
    for token in (granted[1]["token"], own["access_token"]):
        assert form(server, "/introspect", {"token": token}, Authorization=f"Basic {basic}").status == 200
    assert form(server, "/revoke", {"token": own["access_token"]}, Authorization=f"Basic {basic}").status == 200
    refused = {"client_id": client["client_id"], "client_secret": secret("fa_cs_wr0ng" + "x" * 40)}
    assert form(server, "/token", {"grant_type": "client_credentials", **refused}).status == 401
    revoked = {"token": granted[1]["refresh_token"], "client_id": "fastauth"}
    assert form(server, "/revoke", revoked).status == 200
    bearer = {"Authorization": f"Bearer {granted[2]['token']}", "User-Agent": secret("ag3nt\x9b31m-smuggled")}
    assert server.request("GET", "/verify", headers=bearer).status == 200
    assert (
        server.request("GET", "/verify", headers={"Authorization": "Bearer " + secret("eyJ.broken.t0ken")}).status
        == 401
    )
    assert server.request("POST", "/logout", headers=bearer).status == 204
    assert server.request("POST", "/auth", "{" + wrong, {"Content-Type": "application/json"}).status == 400
    cookies = {"Content-Type": "application/json", "Cookie": "__Host-fastauth-device=" + secret("d3vice-cookie-value")}
    body = json.dumps({"username": "ann", "password": right})
    answer = server.request("POST", "/auth", body, cookies)
    assert answer.status == 200
    secret(answer.headers["set-cookie"].partition("=")[2].partition(";")[0])


def pieces(secret: str) -> Iterator[str]:
    """The secret and every larger part of it: a line may quote one."""
    yield secret
    yield from (secret[at : at + 12] for at in range(8, len(secret) - 12, 12))


def test_no_secret_that_was_used_is_in_any_line(run: dict[str, Any]) -> None:
    text = run["log"] + run["audit"] + "".join(run["house"].said)
    assert len(run["house"].secrets) > 20
    # The header of every token of ours is the same, and no secret.
    found = {secret for secret in run["house"].secrets if any(piece in text for piece in pieces(secret))}
    assert not found


def test_every_line_of_a_whole_life_is_one_printable_json_object(run: dict[str, Any]) -> None:
    for text in (run["log"], run["audit"]):
        assert text.isascii() or all(line.isprintable() for line in text.split("\n"))
        for line in lines_of(text):
            assert list(line)[:2] == ["time", "level"]


def test_the_stream_tells_the_life_of_the_installation_and_who_changed_it(run: dict[str, Any]) -> None:
    text = run["audit"] if run["where"] == "file" else run["log"]
    events = [line for line in lines_of(text) if line.get("stream") == "audit"]
    told = {event["event"] for event in events}
    of_the_server = {
        "limits_configured",
        "login_succeeded",
        "login_refused",
        "refresh_token_reused",
        "session_ended",
        "token_revoked",
        "client_refused",
    }
    of_commands = {
        "user_added",
        "user_password_set",
        "user_disabled",
        "user_enabled",
        "user_deleted",
        "client_added",
        "client_secret_rotated",
        "client_disabled",
        "client_enabled",
        "client_deleted",
        "key_rotated",
    }
    assert of_the_server <= told
    if run["where"] == "file":
        assert of_commands <= told
        assert all(event["by"]["uid"] == os.getuid() for event in events if event["event"] in of_commands)
    else:  # a command's standard error is not the server's
        assert not of_commands & told
    assert all(event["client"] == "127.0.0.1" for event in events if event["event"].startswith("login_"))
    (incident,) = [event for event in events if event["event"] == "refresh_token_reused"]
    assert incident["request_id"] == TRACE
    assert all(re.fullmatch("[0-9a-f]{32}", event["request_id"]) for event in events if "client" in event)


def test_a_defect_has_the_id_of_the_trace(run: dict[str, Any]) -> None:
    (defect,) = [line for line in lines_of(run["log"]) if line["event"] == "request_failed"]
    assert defect["request_id"] == TRACE
    assert "stream" not in defect


def test_commands_leave_standard_error_alone(run: dict[str, Any]) -> None:
    said = [text for text in run["house"].said if text]
    assert len(said) == 1
    assert said[0].startswith("fastauth: ")


def test_a_rename_while_two_workers_write_loses_no_line(tmp_path: Path) -> None:
    """As logrotate does it without ``copytruncate``; the signal that it likes to send does no harm."""
    data_dir = copy_without_users(tmp_path / "data")
    file, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    env = {**CHEAP, "FASTAUTH_AUDIT__FILE": str(file)}
    added = fastauth("user", "add", "ann", "--password-stdin", data_dir=data_dir, stdin="p4ss", env=env)
    assert added.returncode == 0
    with running_server(data_dir, "--workers", "2", env=env) as server, ThreadPoolExecutor(4) as threads:
        logins = [threads.submit(server.login, "ann", "p4ss") for _ in range(80)]
        wait_for(lambda: file.read_text().count("login_succeeded") > 10)
        file.rename(old)
        server.process.send_signal(signal.SIGHUP)
        assert [login.result().status for login in logins] == [200] * 80
    after = [line["event"] for line in lines_of(file.read_text())]
    before = [line["event"] for line in lines_of(old.read_text())]
    assert before.count("login_succeeded") + after.count("login_succeeded") == 80
    assert "login_succeeded" in after


def test_a_disk_that_is_full_under_log_and_stream_takes_nothing_down(tmp_path: Path) -> None:
    data_dir = copy_without_users(tmp_path / "data")
    added = fastauth("user", "add", "ann", "--password-stdin", data_dir=data_dir, stdin="p4ss", env=CHEAP)
    assert added.returncode == 0
    with running_server(data_dir, env={**CHEAP, "FASTAUTH_AUDIT__FILE": "/dev/full"}) as server:
        assert server.login("ann", "p4ss").status == 200
        assert server.login("ann", "wrong").status == 401
    (told,) = [line for line in lines_of(server.log) if line["event"] == "audit_not_written" and line["lines"] == 1][
        -1:
    ]
    assert told["file"] == "/dev/full"
