"""A closed loop of sessions: each connection refreshes with the token that its last answer gave it.

``python -m benchmarks.load.refresh_loop PORT SECONDS`` with a JSON object on standard input: ``tokens``, one a
connection, and an ``authorization`` header, empty for a client without a secret. Prints a JSON object as
``closed_loop`` does, with the last token of each.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from typing import Any, cast

import uvloop

GRACE_S = 20.0
_TOKEN = re.compile(rb'"refresh_token":"([^"]+)"')


class Session(asyncio.Protocol):
    """One keep-alive connection and one session."""

    def __init__(self, token: bytes, authorization: bytes, deadline: float, statuses: Counter[str]) -> None:
        self.token = token
        self._authorization = b"Authorization: %b\r\n" % authorization if authorization else b""
        self._deadline = deadline
        self._statuses = statuses
        self._received = b""
        self._is_over = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is not a subclass
        self._next()

    def _next(self) -> None:
        if time.perf_counter() >= self._deadline:
            self._is_over = True
            self._transport.close()
            return
        body = b"grant_type=refresh_token&refresh_token=" + self.token
        self._transport.write(
            b"POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"%bContent-Length: %d\r\n\r\n%b" % (self._authorization, len(body), body)
        )

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self._received = b""
        self._statuses[head[9:12].decode()] += 1
        if (found := _TOKEN.search(body)) is not None:
            self.token = found[1]
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None or not self._is_over:  # also one that was closed while a request was under way
            self._statuses["lost"] += 1
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, seconds: float, tokens: list[str], authorization: str) -> dict[str, Any]:
    """Drive the server; out: seconds, answers by status, answers a second, the last token of each session."""
    loop = asyncio.get_running_loop()
    statuses: Counter[str] = Counter()
    started = time.perf_counter()
    deadline = started + seconds
    sessions = [Session(token.encode(), authorization.encode(), deadline, statuses) for token in tokens]
    for session in sessions:
        await loop.create_connection(lambda session=session: session, "127.0.0.1", port)  # type: ignore[misc]
    async with asyncio.timeout(seconds + GRACE_S):
        await asyncio.gather(*(session.done for session in sessions))
    elapsed = time.perf_counter() - started
    return {
        "seconds": elapsed,
        "statuses": dict(statuses),
        "per_second": sum(statuses.values()) / elapsed,
        "tokens": [session.token.decode() for session in sessions],
    }


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print(json.dumps(uvloop.run(load(int(sys.argv[1]), float(sys.argv[2]), **given))))
