"""A request and a response as the endpoints see them."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote_from_bytes

from fastauth.domain.traces import Trace, trace_of

T = TypeVar("T")

MAX_BODY_BYTES: Final = 64 * 1024
CALLED_OFF: Final = "called off"
"""With this the server itself cancels the work for a request that has taken too long."""

Headers = tuple[tuple[bytes, bytes], ...]

JSON: Final = (b"content-type", b"application/json")
NO_STORE: Final = (b"cache-control", b"no-store")
NO_CACHE: Final = (b"pragma", b"no-cache")  # RFC 6749 section 5.1 wants both


class Request(ABC):
    """One HTTP request.

    Header names are lower case; no header of ``UNIQUE_HEADERS`` stands twice, the lines of others are joined. ``peer``
    is the address at the other end of the connection, None where there is none. ``answer_fields`` are headers that its
    answer gets whatever it is, an error too. ``query`` is what stands behind the ``?``, as it was sent. ``on_body`` is
    called once the whole body is here. ``span`` is set while the request is traced, and only then.
    """

    __slots__ = ("_trace", "answer_fields", "headers", "method", "on_body", "path", "peer", "query", "span")

    span: Any
    _trace: Trace

    def __init__(
        self, method: str, path: str, headers: Mapping[bytes, bytes], peer: str | None = None, query: bytes = b""
    ) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.peer = peer
        self.query = query
        self.answer_fields: Headers = ()
        self.on_body: Callable[[], None] | None = None

    @property
    def trace(self) -> Trace:
        """The trace it belongs to: found when somebody asks, because most requests are never spoken of."""
        try:
            return self._trace
        except AttributeError:
            self._trace = trace = new_trace(self.headers.get(b"traceparent"))
            return trace

    @property
    def id(self) -> str:
        """32 hexadecimal digits: in every log line about this request, and in an answer that asks to report it."""
        return self.trace.trace_id

    @abstractmethod
    async def read_body(self) -> bytes:
        """The whole body. Raises the errors of ``endpoints/errors.py``: too large, too slow, broken off."""

    async def unless_left(self, outcome: "asyncio.Future[T]") -> T:
        """What comes of ``outcome``, which is cancelled when the client leaves. Raises ClientLeft."""
        return await outcome

    async def while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of ``work``, which is cancelled when the client leaves. Raises ClientLeft."""
        return await work


def new_trace(traceparent: bytes | None) -> Trace:
    """The trace that a request names, else one of our own. Its number is no secret; each process has its own series."""
    return trace_of(traceparent, random.getrandbits)


class Response:
    """One HTTP answer; immutable once made, so that it can be made once and sent often."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        # Neither has a body of its own to measure (RFC 9110 section 8.6).
        self.headers = headers if status in (204, 304) else (*headers, (b"content-length", b"%d" % len(body)))
        self.body = body


def header_value(text: str) -> bytes:
    """``text`` as a header field value: anything but visible ASCII and inner spaces is percent-encoded, ``%`` too.

    So a CR, an LF or another script never breaks the header (RFC 9110 section 5.5), and two texts never look the same.
    """
    if text.isascii() and text.isprintable() and "%" not in text and text == text.strip():
        return text.encode()
    inner = text.strip(" ")
    encoded = quote_from_bytes(inner.encode("utf-8", "surrogatepass"), safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}~")
    lead, trail = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return ("%20" * lead + encoded + "%20" * (trail if inner else 0)).encode()
