"""Logs: one event is one line of JSON, whatever is in it."""

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastauth.server.telemetry import GranianLog, get_log, where

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
