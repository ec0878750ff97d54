"""Logs: one JSON object a line on standard error, so that no value can forge a line of its own."""

import contextlib
import logging
import re
import select
import sys
import traceback
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, BinaryIO, Final

import msgspec
import structlog

HIDDEN: Final = "(hidden)"
_MOST_CHARACTERS: Final = 2_048  # a line stays below what a pipe takes at once, or nearly
_DEEPEST: Final = 4

# A field whose name has one of these words in it is not shown, whatever it holds.
_SECRET_WORDS: Final = frozenset(
    {
        "authorization", "bearer", "cookie", "cookies", "credential", "credentials", "hash", "key", "keys",
        "passphrase", "passwd", "password", "passwords", "private", "secret", "secrets", "ticket", "tickets", "token",
        "tokens",
    }
)  # fmt: skip
_SECRET_PARTS: Final = ("token", "password", "passphrase", "secret", "masterkey", "apikey", "credential")
_WORD: Final = re.compile(r"[a-z]+")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# What looks like one of these is not shown wherever it stands: the net below, for the text of somebody else's errors.
_SECRET_TEXT: Final = re.compile(
    r"""
      fa_(?:rt|cs)_[\w-]*                                   # our refresh tokens and client secrets
    | (?<![\w-])eyJ[\w-]*(?:\.[\w-]*)*                     # a JWT; not in the middle of an id that is random
    | \b1\.[\w-]{60,}                                      # our tickets and proofs of known devices
    | \$(?:argon2\w*|2[abxy]|scrypt|pbkdf2[\w-]*)\$\S*    # password hashes
    | (?<=://)[^\s/@]{0,256}:\S{0,256}(?=@)                             # user and password of a URL
    | (?i:(?:bearer|basic)\ +[\w.~+/=-]{8,})               # an Authorization header
    | -----BEGIN[^-]*PRIVATE\ KEY-----.*                    # PEM
    """,
    re.VERBOSE | re.DOTALL,
)
_PLAIN_KINDS: Final = frozenset({type(None), bool, int, float})
_encode: Final = msgspec.json.Encoder().encode


def _render(_logger: object, _method: str, event: structlog.typing.EventDict) -> bytes:
    return render({name: event.pop(name) for name in ("time", "level", "event")} | dict(event))


def render(fields: Mapping[str, object]) -> bytes:
    """One line of JSON, without its end. No secret passes: see ``shown``."""
    # msgspec leaves U+2028, ESC's C1 cousins and the like readable; a terminal must not act on them.
    ordered = fields if _is_plain(fields) else {_shown_name(name): shown(name, value) for name, value in fields.items()}
    try:
        text = _encode(ordered).decode()
    except (UnicodeEncodeError, OverflowError):  # a lone surrogate: a file name, say, that is not UTF-8
        text = _encode({_plain(name): _plain(value) for name, value in ordered.items()}).decode()
    if text.isascii() and text.isprintable():
        return text.encode()
    return "".join(char if char.isprintable() else _escape(char) for char in text).encode()


def _is_plain(fields: Mapping[str, object]) -> bool:
    """Whether ``shown`` would change nothing: one look at all texts together, where it has a look at each."""
    texts = []
    for value in fields.values():
        kind = type(value)
        if kind is str:
            texts.append(value)
        elif kind not in _PLAIN_KINDS:
            return False
    return _are_plain_names(tuple(fields)) and _has_no_sign("\n".join(texts))  # type: ignore[arg-type]


@lru_cache(512)
def _are_plain_names(names: tuple[str, ...]) -> bool:
    return not any(_says_secret(name) or _shown_name(name) != name for name in names)


def _has_no_sign(text: str) -> bool:
    # An audit event has a dozen texts, and the pattern costs ten times what these look-ups do. Each alternative needs
    # one of these; a space stands in an Authorization header and in PEM.
    has_sign = " " in text or "fa_" in text or "eyJ" in text or "$" in text or "://" in text or "1." in text
    return not has_sign and len(text) <= _MOST_CHARACTERS


def shown(name: str, value: object, depth: int = 0) -> Any:
    """What a line may show of a value: numbers, and text without what looks like a secret.

    Of anything else only its type is shown, so an object that holds a secret never needs a careful ``repr``; of bytes
    their number. Nothing is shown where the name of the field says that it holds a secret.
    """
    if isinstance(value, str):
        return HIDDEN if _says_secret(name) else _shown_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if _says_secret(name):
        return HIDDEN
    if depth == _DEEPEST:
        return "(more)"
    if isinstance(value, Mapping):
        return {_shown_text(str(inner)): shown(f"{name} {inner}", item, depth + 1) for inner, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [shown(name, item, depth + 1) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"({len(value)} bytes)"
    return f"({type(value).__name__})"


def _shown_text(text: str) -> str:
    if _has_no_sign(text):
        return text
    text = _SECRET_TEXT.sub(HIDDEN, text[: 2 * _MOST_CHARACTERS])  # one that is cut is recognised all the same
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} (cut)"


_shown_name: Final = lru_cache(512)(_shown_text)


@lru_cache(512)
def _says_secret(name: str) -> bool:
    words = _WORD.findall(_CAMEL.sub("_", name).lower())
    return not _SECRET_WORDS.isdisjoint(words) or any(part in name.lower() for part in _SECRET_PARTS)


def _plain(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def _escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


class GranianLog(logging.Handler):
    """Takes what granian and other libraries have to say into the same stream, a warning at least."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line; a logging handler must not raise."""
        try:
            get_log().warning(
                "granian" if record.name == "_granian" else "library",
                logger=record.name,
                level_name=record.levelname,
                message=record.getMessage(),
            )
        except Exception:  # noqa: BLE001 - as logging.Handler.emit demands
            self.handleError(record)


GRANIAN_LOGS: Final[dict[str, Any]] = {
    "handlers": {"fastauth": {"class": f"{__name__}.GranianLog"}},
    "root": {"handlers": ["fastauth"], "level": "WARNING"},
    "loggers": {"_granian": {"handlers": ["fastauth"], "level": "WARNING", "propagate": False}},
}


class StandardError:
    """Where lines go. One that cannot be written, because a disk is full, say, is lost: no request fails of it."""

    def msg(self, line: bytes) -> bool:
        """Whether the line was written."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, never there
            stream = sys.stderr.buffer
            # A pipe that nobody reads must not hold up the server, least of all its parent, which has signals to heed.
            if not _has_room(stream):
                return False
            stream.write(line + b"\n")
            stream.flush()
            return True
        return False

    debug = info = warning = error = msg


def _has_room(stream: BinaryIO) -> bool:
    try:
        return bool(select.select([], [stream], [], 0)[1])
    except (OSError, ValueError):  # no file of the system's
        return True


def get_log() -> Any:
    """A structlog logger of fastauth's own; an application that mounts fastauth keeps its configuration."""
    return structlog.wrap_logger(
        StandardError(),
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
