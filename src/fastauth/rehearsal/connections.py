"""The connections of an open loop: raw keep-alive protocols with as much HTTP/1.1 as a load generator needs.

An answer needs a ``Content-Length`` (or is a 204 or 304); anything else that a server says ends the connection.
"""

import asyncio
import functools
import ssl
from collections import deque
from typing import Any, Final, NamedTuple, Protocol, cast

_OPENED_AT_ONCE: Final = 64  # less than the backlog of any server
_HANDSHAKE_S: Final = 10.0
_LONGEST_HEAD: Final = 64 * 1024
_LENGTH_DIGITS: Final = 7  # of an answer's body: less than 10 MB


class Endpoint(NamedTuple):
    """Where a server is reached. With ``tls`` the certificate must be one of ``name``."""

    address: str
    port: int
    tls: ssl.SSLContext | None = None
    name: str | None = None


def local(port: int) -> Endpoint:
    """A server of this machine, without TLS."""
    return Endpoint("127.0.0.1", port)


class Flight:
    """A request from the moment it is due until it is over; times are seconds since the clock started.

    ``connection`` is the one that it was sent on, ``status`` is None until it is over; ``number`` is its place in the
    order in which the generator took them up.
    """

    __slots__ = ("attempt", "client", "connection", "due_s", "number", "request", "status", "took_s")

    def __init__(self, client: int, attempt: int, due_s: float, request: bytes | None) -> None:
        self.client = client
        self.attempt = attempt
        self.due_s = due_s
        self.request = request
        self.connection: Connection | None = None
        self.status: int | None = None
        self.took_s = 0.0
        self.number = 0

    def __lt__(self, other: "Flight") -> bool:
        return self.due_s < other.due_s


class Owner(Protocol):
    """Whom a pool tells what happens."""

    def answered(self, flight: Flight, status: int, data: bytes, end: int) -> None:
        """``data`` is the answer, its head is over at ``end``. The connection is free only after this."""

    def lost(self, flight: Flight) -> None:
        """It was sent, and there will be no answer."""

    def refused(self) -> None:
        """A connection for something that waits could not be opened."""

    def serve(self) -> None:
        """A connection is free."""

    def waiting(self) -> int:
        """How many connections more could be used."""


class Connection(asyncio.Protocol):
    """One connection, with at most one request on its way."""

    __slots__ = ("_pool", "_received", "_transport", "flight", "was_used")

    def __init__(self, pool: "Pool") -> None:
        self.flight: Flight | None = None
        self.was_used = False
        self._pool = pool
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is not a subclass

    def send(self, flight: Flight, request: bytes) -> None:
        self.flight = flight
        self.was_used = True
        flight.connection = self
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > _LONGEST_HEAD:
                self._transport.abort()
            self._received = data
            return
        status, length, is_last = _read_head(data[: end + 2])
        missing = end + 4 + length - len(data)
        flight = self.flight
        if missing > 0:
            self._received = data
        elif missing < 0 or flight is None or not status:
            self._transport.abort()  # and so the request is lost
        else:
            self._received = b""
            self.flight = None
            self._pool.owner.answered(flight, status, data, end)
            if is_last:
                self._transport.close()
            else:
                self._pool.freed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        flight, self.flight = self.flight, None
        self._pool.lost(self, flight)

    def leave(self) -> None:
        """Close it, whatever is on its way."""
        self.flight = None
        self._transport.abort()


@functools.lru_cache(256)  # most answers differ in their bodies only
def _read_head(head: bytes) -> tuple[int, int, bool]:
    """Out: status, how long the body is, whether it is the connection's last; status 0 if it cannot be read."""
    head = head.lower()
    status, length = head[9:12], b"0"
    if (at := head.find(b"\r\ncontent-length:")) >= 0:
        length = head[at + 17 : head.find(b"\r\n", at + 17)].strip()
    elif status not in (b"204", b"304"):
        return 0, 0, True
    if not (head.startswith(b"http/1.") and status.isdigit() and length.isdigit() and len(length) <= _LENGTH_DIGITS):
        return 0, 0, True
    return int(status), int(length), b"\r\nconnection: close\r\n" in head


class Pool:
    """Connections to one endpoint, so many from the start, more when all are busy and requests wait.

    ``most_open`` is how many were open at the worst moment.
    """

    def __init__(self, endpoint: Endpoint, first: int, most: int, owner: Owner) -> None:
        self.owner = owner
        self.most_open = 0
        self.idle: deque[Connection] = deque()
        self._endpoint = endpoint
        self._first = first
        self._most = most
        self._open: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self._all_closed = asyncio.Event()

    async def warm(self) -> None:
        """Open the first connections. Raises OSError if the server does not take them."""
        for begin in range(0, self._first, _OPENED_AT_ONCE):
            some = range(begin, min(begin + _OPENED_AT_ONCE, self._first))
            outcomes = await asyncio.gather(*(self._connect() for _ in some), return_exceptions=True)
            for error in filter(None, outcomes):
                raise error

    async def close(self) -> None:
        """Leave by every connection; out: once they are closed."""
        self._is_closing = True
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for connection in list(self._open):
            connection.leave()
        if self._open:
            await self._all_closed.wait()

    def grow(self) -> None:
        """Open as many more as requests wait for, if there may be so many."""
        if self.idle or self._is_closing:
            return
        wanted = min(self.owner.waiting(), self._most - len(self._open))
        for _ in range(wanted - len(self._opening)):
            self._open_one()

    def freed(self, connection: Connection) -> None:
        """The one that was idle longest is used next: then all of them are, and so all workers of a server."""
        self.idle.append(connection)
        self.owner.serve()

    def lost(self, connection: Connection, flight: Flight | None) -> None:
        """Replaced if it was of any use: a server that only ever closes must not keep the generator busy."""
        self._open.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if flight is not None:
            self.owner.lost(flight)
        if self._is_closing:
            if not self._open:
                self._all_closed.set()
            return
        self.grow()
        if connection.was_used and len(self._open) + len(self._opening) < self._first:
            self._open_one()

    def _open_one(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._was_opened)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        address, port, tls, name = self._endpoint
        transport, connection = await loop.create_connection(
            lambda: Connection(self),
            address,
            port,
            ssl=tls,
            server_hostname=None if tls is None else name,
            ssl_handshake_timeout=None if tls is None else _HANDSHAKE_S,
        )
        if transport.is_closing():
            raise ConnectionResetError("closed as soon as it was open")
        self._opened(connection)  # not in connection_made, where uvloop does not bear a transport that is aborted

    def _opened(self, connection: Connection) -> None:
        self._open.add(connection)
        self.most_open = max(self.most_open, len(self._open))
        if self._is_closing:
            connection.leave()
        else:
            self.freed(connection)

    def _was_opened(self, task: "asyncio.Task[Any]") -> None:
        self._opening.discard(task)
        if not task.cancelled():
            if task.exception() is not None:
                self.owner.refused()
            self.grow()
