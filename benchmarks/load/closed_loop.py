"""A closed-loop generator on raw uvloop protocols: each connection sends its next request when the last was answered.

Good for a peak; latency under a given load needs an open loop. Run as a process of its own, so that it can be pinned to
another core than the server: ``python -m benchmarks.load.closed_loop PORT SECONDS CONNECTIONS < REQUESTS`` with the raw
requests as a JSON list on standard input, prints a JSON object.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from itertools import cycle
from typing import Any, cast

import uvloop

GRACE_S = 20.0  # for the answers that are still on their way


class Client(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, requests: Any, deadline: float, statuses: Counter[str]) -> None:
        self._requests = requests
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
        else:
            self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        if len(body) >= length:
            self._received = b""
            self._statuses[head[9:12].decode()] += 1
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None or not self._is_over:  # also one that was closed while a request was under way
            self._statuses["lost"] += 1
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, seconds: float, connections: int, requests: list[bytes]) -> dict[str, Any]:
    """Drive the server; out: seconds, answers by status, answers a second."""
    loop = asyncio.get_running_loop()
    statuses: Counter[str] = Counter()
    started = time.perf_counter()
    source = cycle(requests)
    clients = [Client(source, started + seconds, statuses) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    async with asyncio.timeout(seconds + GRACE_S):
        await asyncio.gather(*(client.done for client in clients))
    elapsed = time.perf_counter() - started
    return {"seconds": elapsed, "statuses": dict(statuses), "per_second": sum(statuses.values()) / elapsed}


if __name__ == "__main__":
    port_, seconds_, connections_ = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    requests_ = [text.encode() for text in json.load(sys.stdin)]
    print(json.dumps(uvloop.run(load(port_, seconds_, connections_, requests_))))
