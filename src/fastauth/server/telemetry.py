"""Logs: one JSON object a line on standard error, so that no value can forge a line of its own."""

import contextlib
import logging
import sys
import traceback
from typing import Any, BinaryIO, Final, cast

import msgspec
import structlog

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def _render(_logger: object, _method: str, event: structlog.typing.EventDict) -> bytes:
    # msgspec leaves U+2028, ESC's C1 cousins and the like readable; a terminal must not act on them.
    ordered = {name: event.pop(name) for name in ("time", "level", "event")} | dict(event)
    try:
        text = _encode(ordered).decode()
    except UnicodeEncodeError:  # a lone surrogate: a file name, say, that is not UTF-8
        text = _encode({name: _plain(value) for name, value in ordered.items()}).decode()
    if text.isascii() and text.isprintable():
        return text.encode()
    return "".join(char if char.isprintable() else _escape(char) for char in text).encode()


def _plain(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def _escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


class GranianLog(logging.Handler):
    """Takes what granian itself has to say into the same stream, a warning at least."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line; a logging handler must not raise."""
        try:
            get_log().warning("granian", level_name=record.levelname, message=record.getMessage())
        except Exception:  # noqa: BLE001 - as logging.Handler.emit demands
            self.handleError(record)


GRANIAN_LOGS: Final[dict[str, Any]] = {
    "handlers": {"fastauth": {"class": f"{__name__}.GranianLog"}},
    "loggers": {"_granian": {"handlers": ["fastauth"], "level": "WARNING", "propagate": False}},
}


class _LogStream:
    """Standard error, which may be a file on a full disk: a line that cannot be written must not cost an answer."""

    def write(self, data: bytes) -> int:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.buffer.write(data)
        return len(data)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.buffer.flush()


def get_log() -> Any:
    """A structlog logger of fastauth's own; an application that mounts fastauth keeps its configuration."""
    return structlog.wrap_logger(
        structlog.BytesLogger(cast("BinaryIO", _LogStream())),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )


def where(error: BaseException) -> list[str]:
    """The places an exception passed through, newest last, without its text: that may quote what it choked on."""
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
