"""An open-loop generator: requests leave at their times whatever the answers do: a slow server cannot slow it down."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.integration.running import KeepAlive

_MOST_CONNECTIONS = 400


class Sample(NamedTuple):
    """One request: when it was due and how long its answer took since then, in seconds on the monotonic clock.

    ``status`` 0 is an answer that never came.
    """

    due_s: float
    took_s: float
    status: int


class OpenLoop:
    """Sends to one server at a steady rate."""

    def __init__(self, port: int, per_second: float, request: Callable[[int], bytes]) -> None:
        """In: ``request`` makes the bytes of the n-th request."""
        self.samples: list[Sample] = []
        self._port = port
        self._per_second = per_second
        self._request = request
        self._idle: list[KeepAlive] = []
        self._open = 0

    async def run(self, seconds: float) -> list[Sample]:
        """Out: the samples, once every answer is there or has failed."""
        started = time.monotonic()
        tasks = []
        for number in range(int(seconds * self._per_second)):
            due = started + number / self._per_second
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(self._send(number, due)))
        await asyncio.gather(*tasks)
        for connection in self._idle:
            await connection.close()
        return self.samples

    async def _send(self, number: int, due: float) -> None:
        status = 0
        try:
            async with asyncio.timeout(10):
                connection = await self._connection()
                status = (await connection.send(self._request(number))).status
            self._idle.append(connection)
        except (OSError, EOFError, TimeoutError, ValueError):
            self._open -= 1
        self.samples.append(Sample(due, time.monotonic() - due, status))

    async def _connection(self) -> KeepAlive:
        if self._idle:
            return self._idle.pop()
        if self._open >= _MOST_CONNECTIONS:
            raise TimeoutError("the server holds every connection")
        self._open += 1
        return await KeepAlive.open(self._port)


def quantile_ms(samples: list[Sample], part: float) -> float:
    """A quantile of the times, in milliseconds."""
    times = sorted(sample.took_s for sample in samples)
    return times[min(len(times) - 1, int(part * len(times)))] * 1e3 if times else float("nan")
