"""Where the audit stream goes: standard error, a file of its own, the system's log of a command, or nowhere.

An event is one line of JSON, written before the request is answered. A line that cannot be written is counted and told
of later; nobody is refused because of it.
"""

import asyncio
import contextlib
import os
import pwd
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from fastauth.endpoints.audit import SILENT, Audit, Level
from fastauth.endpoints.client_address import ClientAddresses
from fastauth.endpoints.http import Request
from fastauth.server.telemetry import StandardError, get_log, render

if TYPE_CHECKING:
    from fastauth.server.settings import Settings

# Of the events that somebody can cause without a password, each worker writes so many a second and of one kind.
MOST_PER_S: Final = 10.0
MOST_AT_ONCE: Final = 100.0
_TELL_COUNTS_S: Final = 1.0
_SAME_FAILURE_LOG_S: Final = 60.0
_SYSTEM_LOG: Final = Path("/dev/log")
_AUTHPRIV_NOTICE: Final = 10 * 8 + 5  # RFC 5424 section 6.2.1

Write = Callable[[bytes], object]


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[audit]``: ``stderr``, ``off``, or the path of a file."""

    file: Annotated[str, msgspec.Meta(min_length=1, max_length=4_096)] = "stderr"

    @property
    def path(self) -> Path | None:
        """The file, absolute; None for none."""
        return None if self.file in ("stderr", "off") else Path(os.path.expanduser(self.file)).absolute()  # noqa: PTH111

    def problems(self) -> Iterator[str]:
        """Why it cannot be used."""
        path = self.path
        if path is None:
            return
        if "\0" in self.file or path.is_dir():
            yield "audit.file: must be stderr, off, or the path of a file"
        elif not path.parent.is_dir():
            yield f"audit.file: {path.parent}: no such directory"


class AuditFile:
    """Appends lines to a file, for its owner alone unless it was there before.

    Whoever moves it away finds no more lines in it: the path is looked at before each one. All processes append to the
    same file, a line in one write.
    """

    def __init__(self, path: Path, complain: Callable[[str, int], None]) -> None:
        """In: is told why a line could not be written, and how many are missing since one could."""
        self._path = path
        self._complain = complain
        self._descriptor: int | None = None
        self._identity = (0, 0)
        self._missing = 0
        self._is_torn = False

    def __call__(self, line: bytes) -> None:
        try:
            self._follow()
            if self._missing:
                self._append(gap(self._missing))
                self._missing = 0
            self._append(line)
        except OSError as error:
            self._missing += 1
            self._complain(error.strerror or "cannot be written", self._missing)

    def _follow(self) -> None:
        try:
            state = self._path.stat()
        except FileNotFoundError:
            state = None
        if self._descriptor is not None and state is not None and (state.st_dev, state.st_ino) == self._identity:
            return
        self.close()
        # Not waited for, should it be a pipe: what its reader does not take is missing, and counted.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._descriptor = os.open(self._path, flags, 0o600)
        state = os.fstat(self._descriptor)
        self._identity = (state.st_dev, state.st_ino)

    def _append(self, line: bytes) -> None:
        if self._descriptor is None:
            raise OSError
        data = (b"\n" if self._is_torn else b"") + line + b"\n"
        written = os.write(self._descriptor, data)
        self._is_torn = written != len(data)
        if self._is_torn:  # the disk was full in the middle of it: the next line begins on a line of its own
            with contextlib.suppress(OSError):  # also that of another process, if there is room for as much as this
                self._is_torn = os.write(self._descriptor, b"\n") != 1
            raise OSError(0, "only a part could be written")

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class AuditLog:
    """Among the lines of the log. What that has no room for is missing, and told of once there is room again."""

    def __init__(self, write: Callable[[bytes], bool]) -> None:
        """In: writes a line, and says whether it could."""
        self._write_line = write
        self._missing = 0

    def __call__(self, line: bytes) -> None:
        if self._missing and self._write_line(gap(self._missing)):
            self._missing = 0
        if self._missing or not self._write_line(line):
            self._missing += 1


class SystemLog:
    """Hands lines to the machine's log as ``authpriv.notice``, as ``useradd`` and ``sudo`` do; where there is none,
    they are lost.
    """

    def __init__(self, path: Path = _SYSTEM_LOG) -> None:
        self._path = path

    def __call__(self, line: bytes) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
            log.setblocking(False)
            log.connect(str(self._path))
            log.send(b"<%d>fastauth[%d]: %b" % (_AUTHPRIV_NOTICE, os.getpid(), line))


class AuditStream:
    """The events of one process."""

    def __init__(
        self,
        write: Write,
        addresses: ClientAddresses | None = None,
        by: Mapping[str, object] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        is_in_log: bool = False,
    ) -> None:
        """In: whose request it is, as the limits see it; who runs the command, None for a server; whether the lines
        stand among those of the log.
        """
        self.is_in_log = is_in_log
        self._write = write
        self._addresses = addresses
        self._by = {} if by is None else {"by": by}
        self._monotonic = monotonic
        self._room: dict[str, tuple[float, float]] = {}
        self._counted: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._is_due = False

    def record(self, event: str, request: Request | None = None, level: Level = "info", **values: Any) -> None:
        """Never left out, however many there are."""
        fields: dict[str, Any] = beginning(event, level)
        if request is not None:
            fields["request_id"] = request.id
            if self._addresses is not None:
                fields["client"] = self._addresses.find(request.peer, request.headers)
        self._write(render({**fields, **self._by, **values}))

    def record_some(self, event: str, request: Request | None = None, **values: Any) -> None:
        """A line each up to a bounded rate; how many more there were is told once a second."""
        now_s = self._monotonic()
        room, since_s = self._room.get(event, (MOST_AT_ONCE, now_s))
        room = min(MOST_AT_ONCE, room + (now_s - since_s) * MOST_PER_S)
        if room >= 1.0:
            self._room[event] = (room - 1.0, now_s)
            self.record(event, request, **values)
        else:
            self._room[event] = (room, now_s)
            self._left_out[event] += 1
            self._tell_soon()

    def count(self, event: str) -> None:
        """Only how many there were, once a second."""
        self._counted[event] += 1
        self._tell_soon()

    def close(self) -> None:
        """Tell what was counted and not told yet, and let go of the file."""
        self._tell_counts()
        if isinstance(self._write, AuditFile):
            self._write.close()

    def _tell_counts(self) -> None:
        self._is_due = False
        counted, self._counted = self._counted, Counter()
        left_out, self._left_out = self._left_out, Counter()
        for event, number in counted.items():
            self.record(event, count=number)
        for event, number in left_out.items():
            self.record("events_left_out", of=event, count=number)

    def _tell_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(_TELL_COUNTS_S, self._tell_counts)


def beginning(event: str, level: Level) -> dict[str, str]:
    """The first members of a line, as log lines have them."""
    second, microsecond = divmod(time.time_ns() // 1_000, 1_000_000)
    return {"time": f"{_second(second)}.{microsecond:06}Z", "level": level, "stream": "audit", "event": event}


@lru_cache(1)  # most lines are of the same second as the one before
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def gap(lines: int) -> bytes:
    """The line that says how many are missing before it."""
    return render({**beginning("audit_gap", "warning"), "lines": lines})


def open_audit(settings: "Settings", addresses: ClientAddresses | None = None) -> Audit:
    """The audit stream of a server."""
    if settings.audit.file == "off":
        return SILENT
    path = settings.audit.path
    if path is None:
        return AuditStream(AuditLog(StandardError().msg), addresses, is_in_log=True)
    return AuditStream(AuditFile(path, _Complaint(path)), addresses)


def open_command_audit(settings: "Settings", say: Callable[[str], None], system_log: Write | None = None) -> Audit:
    """The audit stream of a command: the server's file or, where there is none, the machine's log.

    Not standard error: that of a command is a person's terminal, and never what the server's is. In: who tells the
    person that a line could not be written.
    """
    if settings.audit.file == "off":
        return SILENT
    path = settings.audit.path
    write = system_log or SystemLog()
    if path is not None:
        write = AuditFile(
            path, lambda reason, _missing: say(f"it is done, but not in the audit stream: {path}: {reason}")
        )
    return AuditStream(write, by=_who(os.environ, os.getuid()))


def tell_limits(settings: "Settings", audit: Audit) -> None:
    """The limits as they are from this start on; whoever compares two starts sees what was changed."""
    limits = msgspec.structs.asdict(settings.limits).items()
    audit.record("limits_configured", limits=[f"{name}: {value}" for name, value in limits])


def _who(environment: Mapping[str, str], uid: int) -> dict[str, object]:
    """Who runs this: the user of the process and, where sudo changed it, who was before."""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user often has no name
        user = None
    return {"uid": uid, "user": user, "sudo_user": environment.get("SUDO_USER")}


class _Complaint:
    """A line in the log when the file cannot be written; one a minute says as much as a thousand."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told_s = float("-inf")

    def __call__(self, reason: str, missing: int) -> None:
        if time.monotonic() - self._told_s >= _SAME_FAILURE_LOG_S:
            self._told_s = time.monotonic()
            get_log().error("audit_not_written", file=str(self._path), reason=reason, lines=missing)
