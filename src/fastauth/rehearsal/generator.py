"""``python -m fastauth.rehearsal.generator``: an open loop in a process of its own, so that nothing that is drawn or
computed elsewhere makes its requests late.

It reads an ``Opening`` and then ``Run`` and ``Stop`` from standard input, a JSON object a line, and writes ``Told``
once a second and ``Ended`` after each run. Tokens and passwords go in and come out nowhere. It ends with its input.
"""

import asyncio
import contextlib
import gc
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from fastauth.endpoints.problems import PROBLEMS
from fastauth.rehearsal.arrivals import Segment
from fastauth.rehearsal.clients import Behaviour
from fastauth.rehearsal.connections import Endpoint
from fastauth.rehearsal.lanes import LoginLane, RefreshLane, VerifyLane
from fastauth.rehearsal.open_loop import Stream, drive
from fastauth.rehearsal.plan import LANES, Lane
from fastauth.rehearsal.tally import LaneTally, Tally
from fastauth.rehearsal.target import tls_context

_TELL_EVERY_S: Final = 1.0


class Opening(msgspec.Struct, tag="opening"):
    """Where requests go and what they are made of."""

    address: str
    port: int
    name: str
    authority: str
    is_https: bool
    ca_file: str | None
    patience_s: float
    users: list[tuple[str, str]]
    refresh_tokens: list[str]
    access_tokens: list[str]

    def __repr__(self) -> str:  # holds passwords and tokens
        return "Opening(...)"


class LaneLoad(msgspec.Struct):
    """So many requests a second after a first pause, over so many connections."""

    per_s: float
    connections: int
    most_connections: int
    pause_s: float = 0.0


class Run(msgspec.Struct, tag="run"):
    """Lanes that run at the same time, for so long."""

    seconds: float
    lanes: dict[Lane, LaneLoad]


class Stop(msgspec.Struct, tag="stop"):
    """Offer nothing more; what is on its way comes to its end."""


class Told(msgspec.Struct, tag="told"):
    """What happened since it was told last. ``busy_s`` of ``wall_s`` the generator computed."""

    lanes: dict[Lane, LaneTally]
    busy_s: float
    wall_s: float


class Ended(msgspec.Struct, tag="ended"):
    """A run is over; ``error`` is why it could not be held."""

    error: str | None
    sessions_left: int


Order = Opening | Run | Stop
Report = Told | Ended


class _Generator:
    def __init__(self, opening: Opening) -> None:
        tls = tls_context(None if opening.ca_file is None else Path(opening.ca_file)) if opening.is_https else None
        self._endpoint = Endpoint(opening.address, opening.port, tls, opening.name)
        self._patience_s = opening.patience_s
        details = {problem.detail: code for code, problem in PROBLEMS.items() if problem.detail is not None}
        self._tallies: dict[Lane, Tally] = {lane: Tally(details) for lane in LANES}
        host, self._behaviours = opening.authority.encode(), dict[Lane, Behaviour]()
        self._refreshes: RefreshLane | None = None
        verify = None
        if opening.users:
            self._behaviours["login"] = LoginLane(opening.users, host, self._tallies["login"])
        if opening.access_tokens:
            verify = self._behaviours["verify"] = VerifyLane(opening.access_tokens, host, self._tallies["verify"])
        if opening.refresh_tokens:
            self._refreshes = RefreshLane(opening.refresh_tokens, host, self._tallies["refresh"], verify)
            self._behaviours["refresh"] = self._refreshes

    async def run(self, order: Run, stopped: "asyncio.Future[None]") -> None:
        streams = [
            Stream(
                lane,
                self._behaviours[lane],
                [Segment(load.pause_s, 0.0, 0.0), Segment(order.seconds, load.per_s, load.per_s)],
                connections=load.connections,
                most_connections=load.most_connections,
                patience_s=self._patience_s,
                recorder=self._tallies[lane],
            )
            for lane, load in order.lanes.items()
        ]
        telling = asyncio.create_task(self._tell_each_second(list(order.lanes)))
        try:
            # It was there a moment ago: that it takes no connection any more is what a rehearsal is to find out.
            await drive(self._endpoint, streams, stopped, must_connect=False)
        finally:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling
        _write(Ended(None, 0 if self._refreshes is None else self._refreshes.left))

    async def _tell_each_second(self, lanes: list[Lane]) -> None:
        wall_s, busy_s = time.monotonic(), time.thread_time()
        try:
            while True:
                await asyncio.sleep(_TELL_EVERY_S)
                wall_s, busy_s = self._tell(lanes, wall_s, busy_s)
        finally:
            self._tell(lanes, wall_s, busy_s)

    def _tell(self, lanes: list[Lane], wall_s: float, busy_s: float) -> tuple[float, float]:
        now_s, now_busy_s = time.monotonic(), time.thread_time()
        tallies = {lane: self._tallies[lane].taken() for lane in lanes}
        _write(Told(tallies, now_busy_s - busy_s, now_s - wall_s))
        return now_s, now_busy_s


async def _obey(orders: "asyncio.Queue[Order | None]") -> None:
    opening = await orders.get()
    if not isinstance(opening, Opening):
        return
    generator = _Generator(opening)
    while (order := await orders.get()) is not None:
        if isinstance(order, Run) and not await _run(generator, order, orders):
            return


async def _run(generator: _Generator, order: Run, orders: "asyncio.Queue[Order | None]") -> bool:
    """Out: whether there may be another; not once the input has ended."""
    stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(generator.run(order, stopped))
    while not running.done():
        listening = asyncio.ensure_future(orders.get())
        await asyncio.wait({running, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            listening.cancel()
        elif listening.result() is None:
            running.cancel()
            return False
        elif not stopped.done():
            stopped.set_result(None)
    await running
    return True


async def _serve() -> None:
    loop, orders = asyncio.get_running_loop(), asyncio.Queue[Order | None]()

    def listen() -> None:
        decode = msgspec.json.Decoder(Order).decode
        for line in sys.stdin.buffer:
            loop.call_soon_threadsafe(orders.put_nowait, decode(line))
        loop.call_soon_threadsafe(orders.put_nowait, None)

    threading.Thread(target=listen, daemon=True).start()
    await _obey(orders)


def _write(report: Report) -> None:
    left = memoryview(msgspec.json.encode(report) + b"\n")
    while left:
        left = left[os.write(1, left) :]


def main() -> None:
    """From standard input to standard output."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else 65_536, hard))
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)  # what a request leaves is freed by counting; a collection is a pause
    with contextlib.suppress(BrokenPipeError):  # whoever listened is gone
        uvloop.run(_serve())


if __name__ == "__main__":
    main()
