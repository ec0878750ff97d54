"""Logs: one event is one line of JSON, whatever is in it."""

import json
import logging
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastauth.server.telemetry import GranianLog, get_log, render, where

HOSTILE = {
    "a line feed": "\n",
    "a carriage return": "\r\n",
    "ESC": "\x1b[31m",
    "NUL": "\0",
    "DEL": "\x7f",
    "a C1 control": "\x9b31m",
    "next line": "\x85",
    "a line separator": "\u2028",
    "a paragraph separator": "\u2029",
    "a bidi override": "\u202e",
    "a zero-width space": "\u200b",
    "a byte order mark": "\ufeff",
    "a quote": '"}\n{"event":"forged"',
}


def lines_of(capture: pytest.CaptureFixture[bytes]) -> list[bytes]:
    captured = capture.readouterr()
    assert captured.out == b""
    assert captured.err.endswith(b"\n")
    return captured.err.split(b"\n")[:-1]


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_value_can_forge_a_line_or_steer_a_terminal(kind: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    text = f"before{HOSTILE[kind]}after"
    get_log().warning("an_event", value=text, nested={"list": [text]}, **{f"name{HOSTILE[kind]}": 1})
    (line,) = lines_of(capsysbinary)
    assert line.decode().isprintable()
    event = json.loads(line)
    assert event["value"] == event["nested"]["list"][0] == text
    assert event[f"name{HOSTILE[kind]}"] == 1


def test_the_name_of_an_event_is_escaped_too(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    get_log().error("line\nfeed\u2028")
    (line,) = lines_of(capsysbinary)
    assert json.loads(line)["event"] == "line\nfeed\u2028"


def test_a_line_begins_with_time_level_and_event(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    get_log().info("started", workers=2)
    (line,) = lines_of(capsysbinary)
    event = json.loads(line)
    assert list(event) == ["time", "level", "event", "workers"]
    assert (event["level"], event["event"], event["workers"]) == ("info", "started", 2)
    assert event["time"].endswith("Z")


def test_every_event_has_a_line_of_its_own_and_debug_has_none(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    log = get_log()
    log.debug("not this")
    for number in range(3):
        log.info("one", number=number)
    assert [json.loads(line)["number"] for line in lines_of(capsysbinary)] == [0, 1, 2]


@pytest.mark.parametrize(
    "value",
    [b"\xff\n", ValueError("x\ny"), object(), {1, 2}, 10**30, 1.5, None, {"a": (1, 2)}],
    ids=lambda value: type(value).__name__,
)
def test_a_value_of_any_type_makes_a_line(value: Any, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    get_log().info("an_event", value=value)
    (line,) = lines_of(capsysbinary)
    assert json.loads(line)["event"] == "an_event"


def test_a_lone_surrogate_makes_a_line(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """A file name that is not UTF-8 reaches Python as such a text, and an error's text quotes it."""
    get_log().info("an_event", value="\udcff\n")
    (line,) = lines_of(capsysbinary)
    assert json.loads(line)["event"] == "an_event"
    assert line.decode().isprintable()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=st.lists(st.integers(0, 0xD7FF) | st.integers(0xE000, 0x10FFFF), max_size=8))
def test_any_text_comes_back_from_its_line(points: list[int], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    text = "".join(map(chr, points))
    get_log().info("an_event", value=text)
    (line,) = lines_of(capsysbinary)
    assert json.loads(line)["value"] == text
    assert line.decode().isprintable()


def test_the_places_of_an_error_are_told_without_its_text() -> None:
    def choke() -> None:
        raise LookupError("s3cr3t")

    with pytest.raises(LookupError) as caught:
        choke()
    places = where(caught.value)
    assert places[-1].endswith(" choke")
    assert "test_telemetry.py" in places[-1]
    assert "s3cr3t" not in str(places)
    assert where(LookupError("never raised")) == []


def test_what_the_server_below_has_to_say_is_an_event_too(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    logger = logging.Logger("below")
    logger.addHandler(GranianLog())
    logger.warning("a line\nand %s", "another")
    (line,) = lines_of(capsysbinary)
    assert json.loads(line)["message"] == "a line\nand another"


SECRETS = {
    "a refresh token": "fa_rt_" + "A1b2" * 12,
    "a client secret": "fa_cs_" + "A1b2" * 12,
    "an access token": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzM2NyM3QifQ.c2ln-bmF0_dXJl",
    "a ticket": "1." + "A1b2_-" * 14,
    "a password hash": "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g",
    "a bcrypt hash": "$2b$12$abcdefghijklmnopqrstuuvwxyz0123456789ABCDEFGHIJKLMNOPQ",
    "an authorization header": "Bearer abcdefgh12345678",
    "basic credentials": "Basic YWxpY2U6czNjcjN0",
    "a private key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----",
}


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("place", ["value", "nested", "name", "a long text"])
def test_what_looks_like_a_secret_is_hidden_wherever_it_stands(
    kind: str, place: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = f"it choked on {SECRETS[kind]} here"
    places: dict[str, dict[str, Any]] = {
        "value": {"reason": text},
        "nested": {"reason": {"list": [(text,)]}},
        "name": {"reason": {text: 1}},
        "a long text": {"reason": "x" * 2_020 + text},
    }
    get_log().error("an_event", **places[place])
    (line,) = lines_of(capsysbinary)
    secret = json.dumps(SECRETS[kind])[1:-1]
    assert all(secret[at : at + 12] not in line.decode() for at in range(4, len(secret) - 12))
    json.loads(line)


@pytest.mark.parametrize("password", ["s3cr3t", "s3/cr3t", "s3@cr3t", ""])
def test_the_user_and_the_password_of_a_url_are_hidden(
    password: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    get_log().error("an_event", reason=f"postgresql://fastauth:{password}@db:5432/x is away")
    (line,) = lines_of(capsysbinary)
    assert json.loads(line)["reason"] == "postgresql://(hidden)@db:5432/x is away"


def test_an_id_that_looks_a_little_like_a_token_is_shown(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    get_log().error("an_event", sid="q3eyJhbGciOi-7", kid="x-eyJ_0", time_of="2026-11-28T22:00:01.123456Z")
    (line,) = lines_of(capsysbinary)
    assert b"hidden" not in line


def test_the_pattern_takes_no_time_that_a_client_could_choose() -> None:
    hostile = [
        "://" * 1_365,
        "://a:" * 819,
        "://:" * 1_000,
        "eyJ." * 1_000,
        "$2b$" * 1_000,
        "Bearer " * 600,
        "1." * 2_000,
    ]
    began_s = time.process_time()
    for text in hostile:
        render({"path": text})
    assert time.process_time() - began_s < 1


@pytest.mark.parametrize(
    "name",
    ["password", "new_password", "Authorization", "set-cookie", "client_secret", "token", "ticket", "master_key"],
)
def test_nothing_is_shown_under_a_name_that_says_it_is_a_secret(
    name: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    get_log().error("an_event", **{name: "hunter2"}, inside={name: ["hunter2"]})
    (line,) = lines_of(capsysbinary)
    assert b"hunter2" not in line
    assert json.loads(line)[name] == json.loads(line)["inside"][name] == "(hidden)"


def test_of_an_object_only_its_type_is_shown_and_of_bytes_their_number(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    """So a type that holds a secret cannot show it, whatever its ``repr`` does."""

    class Careless:
        def __repr__(self) -> str:
            return "hunter2"

    get_log().error(
        "an_event", a=Careless(), b=ValueError("hunter2"), c=b"hunter2", d=[Careless()], e={"f": Careless()}
    )
    (line,) = lines_of(capsysbinary)
    assert b"hunter2" not in line
    event = json.loads(line)
    assert (event["a"], event["b"], event["c"]) == ("(Careless)", "(ValueError)", "(7 bytes)")


def test_a_line_has_a_length_that_a_pipe_takes_at_once_or_nearly(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    deep: Any = "end"
    for _ in range(100):
        deep = [deep]
    get_log().error("an_event", value="x" * 100_000, deep=deep)
    (line,) = lines_of(capsysbinary)
    assert len(line) < 4_096


def test_a_line_that_cannot_be_written_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    get_log().error("an_event")


def test_a_server_does_not_load_what_only_a_terminal_needs() -> None:
    script = (
        "import sys, fastauth.cli, fastauth.server.app; "
        "print([name for name in sys.modules if name.split('.')[0] == 'rich'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
