"""Where the audit stream goes: files that are moved away, disks that are full, storms, commands."""

import asyncio
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastauth.endpoints.audit import SILENT
from fastauth.server.audit import (
    MOST_AT_ONCE,
    AuditFile,
    AuditLog,
    AuditSettings,
    AuditStream,
    SystemLog,
    open_audit,
    open_command_audit,
    tell_limits,
)
from fastauth.server.diagnosis import diagnose
from fastauth.server.settings import SettingsRefused, load_settings


class Complaints(list[tuple[str, int]]):
    def __call__(self, reason: str, missing: int) -> None:
        self.append((reason, missing))


def events_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    before = os.umask(0)
    try:
        AuditStream(AuditFile(file, Complaints())).record("an_event", number=1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (event,) = events_in(file)
    assert (event["stream"], event["event"], event["number"]) == ("audit", "an_event", 1)


def test_the_mode_that_an_administrator_gave_it_stays(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    file.touch(0o640)
    AuditStream(AuditFile(file, Complaints())).record("an_event")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_after_a_rename_not_one_line_goes_to_the_old_file(tmp_path: Path) -> None:
    file, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    streams = [AuditStream(AuditFile(file, Complaints())) for _ in range(2)]
    for stream in streams:
        stream.record("before")
    file.rename(old)
    for stream in streams:
        stream.record("after")
    assert [event["event"] for event in events_in(old)] == ["before"] * 2
    assert [event["event"] for event in events_in(file)] == ["after"] * 2


def test_a_stream_that_is_closed_lets_go_of_its_file_and_may_go_on(tmp_path: Path) -> None:
    """Whoever writes no more must not keep the disk space of a file that was rotated away and deleted."""
    file = tmp_path / "audit.log"
    write = AuditFile(file, Complaints())
    stream = AuditStream(write)
    stream.record("before")
    stream.close()
    assert write._descriptor is None
    stream.record("after")
    assert [event["event"] for event in events_in(file)] == ["before", "after"]


@pytest.mark.parametrize(
    ("mode", "state"), [(None, "good"), (0o600, "good"), (0o640, "good"), (0o644, "doubtful"), ("folder", "broken")]
)
def test_the_doctor_looks_at_the_file(tmp_path: Path, mode: int | str | None, state: str) -> None:
    file = tmp_path / "audit.log"
    if isinstance(mode, int):
        file.touch()
        file.chmod(mode)
    settings = settings_of(tmp_path, FASTAUTH_AUDIT__FILE=str(file))
    if mode == "folder":  # it was there when the settings were read
        settings = msgspec.structs.replace(settings, audit=AuditSettings(file=str(tmp_path / "gone" / "audit.log")))
    found = [finding for finding in asyncio.run(diagnose(settings)) if finding.subject == "audit stream"]
    assert [finding.state for finding in found] == [state]


def test_the_doctor_tries_the_collector(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        settings = settings_of(tmp_path, FASTAUTH_OTEL__ENDPOINT=f"http://127.0.0.1:{port}")
        good = [finding.state for finding in asyncio.run(diagnose(settings)) if finding.subject == "otel"]
    bad = [finding for finding in asyncio.run(diagnose(settings)) if finding.subject == "otel"]
    assert good == ["good"]
    assert [finding.state for finding in bad] == ["broken"]
    assert "FASTAUTH_OTEL__ENDPOINT" in bad[0].advice


def test_a_file_that_is_truncated_is_written_from_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    stream = AuditStream(AuditFile(file, Complaints()))
    stream.record("before")
    os.truncate(file, 0)
    stream.record("after")
    assert [event["event"] for event in events_in(file)] == ["after"]


def test_what_cannot_be_written_is_counted_and_told_when_it_can_again(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    file, complaints = folder / "audit.log", Complaints()
    stream = AuditStream(AuditFile(file, complaints))
    stream.record("first")
    folder.rename(tmp_path / "elsewhere")
    stream.record("lost")
    stream.record("lost")
    assert complaints == [("No such file or directory", 1), ("No such file or directory", 2)]
    folder.mkdir()
    stream.record("next")
    assert [(event["event"], event.get("lines")) for event in events_in(file)] == [("audit_gap", 2), ("next", None)]


def test_a_full_disk_raises_nothing() -> None:
    complaints = Complaints()
    AuditStream(AuditFile(Path("/dev/full"), complaints)).record("an_event")
    assert complaints == [("No space left on device", 1)]


def test_after_a_line_of_which_only_a_part_could_be_written_the_next_begins_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, complaints = tmp_path / "audit.log", Complaints()
    stream = AuditStream(AuditFile(file, complaints))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
        stream.record("torn")
    stream.record("whole")
    torn, gap, whole = file.read_text().splitlines()
    assert len(torn) == 10
    assert (json.loads(gap)["event"], json.loads(gap)["lines"]) == ("audit_gap", 1)
    assert json.loads(whole)["event"] == "whole"


def test_a_pipe_that_nobody_reads_holds_up_nobody(tmp_path: Path) -> None:
    pipe, complaints = tmp_path / "pipe", Complaints()
    os.mkfifo(pipe)
    stream = AuditStream(AuditFile(pipe, complaints))
    stream.record("an_event")
    assert [missing for _, missing in complaints] == [1]
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for _ in range(1_000):
            stream.record("an_event", text="x" * 1_000)
    finally:
        os.close(reader)
    assert complaints[-1][1] > 100


def test_of_what_strangers_can_cause_each_kind_has_a_bounded_rate_and_the_rest_is_counted() -> None:
    lines: list[bytes] = []
    now = [100.0]

    async def work() -> None:
        stream = AuditStream(lines.append, monotonic=lambda: now[0])
        most = int(MOST_AT_ONCE)
        for _ in range(most + 7):
            stream.record_some("refused")
        stream.record_some("limited")
        for _ in range(3):
            stream.count("sent_away")
        for _ in range(most):
            stream.record("succeeded")
        assert len(lines) == most + 1 + most
        now[0] += 0.625  # six more
        for _ in range(8):
            stream.record_some("refused")
        await asyncio.sleep(1.1)
        told = [json.loads(line) for line in lines[2 * most + 7 :]]
        assert [(event["event"], event.get("of"), event["count"]) for event in told] == [
            ("sent_away", None, 3),
            ("events_left_out", "refused", 9),
        ]

    asyncio.run(work())


def settings_of(tmp_path: Path, **more: str) -> Any:
    return load_settings(None, {"FASTAUTH_DATA_DIR": str(tmp_path), **more}, {})


def test_a_command_says_who_runs_it_in_the_file_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ann\n")
    file = tmp_path / "audit.log"
    said: list[str] = []
    open_command_audit(settings_of(tmp_path, FASTAUTH_AUDIT__FILE=str(file)), said.append).record("user_added")
    (event,) = events_in(file)
    assert event["by"] == {
        "uid": os.getuid(),
        "user": "root" if os.getuid() == 0 else event["by"]["user"],
        "sudo_user": "ann\n",
    }
    assert said == []


def test_without_a_file_a_command_tells_the_log_of_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(path))
        open_command_audit(settings_of(tmp_path), lambda _text: None, SystemLog(path)).record("user_added")
        received = log.recv(4_096)
    assert received.startswith(b"<85>fastauth[%d]: {" % os.getpid())
    assert json.loads(received.partition(b": ")[2])["event"] == "user_added"


def test_a_machine_without_a_log_is_no_error(tmp_path: Path) -> None:
    open_command_audit(settings_of(tmp_path), lambda _text: None, SystemLog(tmp_path / "none")).record("user_added")


def test_a_command_whose_event_cannot_be_written_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    open_command_audit(settings_of(tmp_path, FASTAUTH_AUDIT__FILE="/dev/full"), said.append).record("user_added")
    assert said == ["it is done, but not in the audit stream: /dev/full: No space left on device"]


def test_off_is_silent_for_servers_and_commands(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, FASTAUTH_AUDIT__FILE="off")
    assert open_audit(settings) is SILENT
    assert open_command_audit(settings, lambda _text: None) is SILENT
    SILENT.record("an_event")
    SILENT.record_some("an_event")
    SILENT.count("an_event")
    SILENT.close()


def test_the_limits_of_a_start_are_told_with_their_values(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    settings = settings_of(tmp_path, FASTAUTH_AUDIT__FILE=str(file), FASTAUTH_LIMITS__LOGIN_PER_IP="7/m")
    tell_limits(settings, open_audit(settings))
    (event,) = events_in(file)
    assert event["event"] == "limits_configured"
    assert "login_per_ip: 7/m" in event["limits"]
    assert "token_per_client: 100/s burst 200" in event["limits"]


@pytest.mark.parametrize("name", [".", "missing/audit.log"])
def test_a_file_that_cannot_be_is_a_problem_of_the_configuration(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsRefused, match=r"audit\.file"):
        settings_of(tmp_path, FASTAUTH_AUDIT__FILE=str(tmp_path / name))


def test_a_relative_file_is_one_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert AuditSettings(file="audit.log").path == tmp_path / "audit.log"


def test_lines_that_the_log_had_no_room_for_are_told_of_once_there_is_room() -> None:
    written: list[bytes] = []
    has_room = True

    def write(line: bytes) -> bool:
        if has_room:
            written.append(line)
        return has_room

    log = AuditLog(write)
    log(b"first")
    has_room = False
    log(b"lost")
    log(b"lost too")
    has_room = True
    log(b"next")
    log(b"last")
    first, gap, *rest = written
    assert (first, rest) == (b"first", [b"next", b"last"])
    assert (json.loads(gap)["event"], json.loads(gap)["lines"]) == ("audit_gap", 2)
