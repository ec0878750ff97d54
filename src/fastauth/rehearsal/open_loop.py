"""An open-loop generator: requests leave at their times whatever the answers do, so a slow server cannot slow it down.

A time is counted from the moment a request was due, so what it waited in the generator, for a connection or because
the server stalled, is in it.
"""

import asyncio
import contextlib
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, Protocol, cast

from fastauth.rehearsal.arrivals import Alarm, Segment, due_times
from fastauth.rehearsal.clients import LEFT, NEVER_ANSWERED, Again, Answer, Behaviour
from fastauth.rehearsal.connections import Endpoint, Flight, Pool, local
from fastauth.rehearsal.samples import Lateness, Result, Samples, StreamResult

_NEVER: Final = float("inf")
_LEAD_S: Final = 0.01  # from the last connection that was opened beforehand to the start of the clock

_monotonic = time.monotonic


class Recorder(Protocol):
    """Is told of each request twice, and keeps what it wants to."""

    def departed(self, due_s: float, late_s: float) -> None:
        """It was due then; so much later the generator got round to it."""

    def ended(self, flight: Flight) -> None:
        """It is over, in whatever way."""

    def queued(self) -> None:
        """It found no free connection, or no free client, when it was due."""


@dataclass
class Stream:
    """A kind of request, at its own times, over its own connections.

    ``connections`` are open before the clock starts; there are never more than ``most_connections``. A client without
    an answer leaves after ``patience_s``. With a ``recorder`` no sample is kept: the memory of a run does not grow.
    """

    name: str
    behaviour: Behaviour
    segments: Sequence[Segment]
    poisson_seed: int | None = None
    connections: int = 32
    most_connections: int = 400
    patience_s: float = 10.0
    recorder: Recorder | None = None


class _Kept:
    """Every request, for ``samples.Samples``."""

    def __init__(self) -> None:
        self.late_s = array("d")
        self.flights: list[Flight] = []
        self.count_queued = 0

    def departed(self, due_s: float, late_s: float) -> None:
        self.late_s.append(late_s)

    def ended(self, flight: Flight) -> None:
        self.flights.append(flight)

    def queued(self) -> None:
        self.count_queued += 1


class _Run:
    """A stream under way. All times are seconds since the clock started."""

    def __init__(self, stream: Stream, endpoint: Endpoint) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.name = stream.name
        self.pool = Pool(endpoint, stream.connections, stream.most_connections, self)
        self._stream = stream
        self._told: Callable[[int, Answer], Again | None] | None = getattr(stream.behaviour, "answered", None)
        self._started_s = 0.0
        self._dues = due_times(stream.segments, stream.poisson_seed)
        self._next_due_s = next(self._dues, _NEVER)
        self._next = 0
        self._departures = 0
        self._returns: list[Flight] = []
        self._flights: deque[Flight] = deque()  # in the order in which they were due, so that in which patience ends
        self._under_way = 0
        self._waiting: deque[Flight] = deque()
        self._kept = _Kept()
        self._recorder: Recorder = stream.recorder or self._kept
        self._alarm = Alarm()

    def begin(self, started_s: float) -> None:
        """In: when the clock starts, on the monotonic clock."""
        self._started_s = started_s
        asyncio.get_running_loop().add_reader(self._alarm.fd, self._pump)
        self._finish_if_over()
        self._sleep()

    def cut_short(self) -> None:
        """Nothing more is due; what is on its way comes to its end."""
        self._next_due_s = _NEVER
        self._returns.clear()
        self._finish_if_over()

    async def close(self) -> None:
        """Whether finished or not."""
        asyncio.get_running_loop().remove_reader(self._alarm.fd)
        self._alarm.close()
        self.finished.cancel()
        await self.pool.close()

    def _now_s(self) -> float:
        return _monotonic() - self._started_s

    # What is due

    def _pump(self) -> None:
        """Everything that is due by now, then sleep until there is more."""
        self._alarm.clear()
        if self.finished.done():
            return
        now_s = self._now_s()
        self._end_patience(now_s)
        while self._returns and self._returns[0].due_s <= now_s:
            self._depart(heappop(self._returns))
        while self._next_due_s <= now_s:
            flight = Flight(self._next, 0, self._next_due_s, None)
            self._next += 1
            self._next_due_s = next(self._dues, _NEVER)
            self._depart(flight)
        self._sleep()

    def _end_patience(self, now_s: float) -> None:
        since_s = now_s - self._stream.patience_s
        while (flight := self._oldest_flight()) is not None and flight.due_s <= since_s:
            connection = flight.connection
            if connection is not None:
                connection.leave()
            self._end(flight, NEVER_ANSWERED if connection is None else LEFT)

    def _oldest_flight(self) -> Flight | None:
        flights = self._flights
        while flights and flights[0].status is not None:
            flights.popleft()
        return flights[0] if flights else None

    def _sleep(self) -> None:
        if not self.finished.done():
            self._alarm.set(self._started_s + self._next_s())

    def _next_s(self) -> float:
        """When there is something to do."""
        next_s = self._next_due_s
        if self._returns:
            next_s = min(next_s, self._returns[0].due_s)
        oldest = self._oldest_flight()
        return next_s if oldest is None else min(next_s, oldest.due_s + self._stream.patience_s)

    # What is on its way

    def _depart(self, flight: Flight) -> None:
        self._recorder.departed(flight.due_s, self._now_s() - flight.due_s)
        flight.number = self._departures
        self._departures += 1
        self._flights.append(flight)
        self._under_way += 1
        self._waiting.append(flight)
        self.serve()
        if flight.connection is None:
            self._recorder.queued()
            self.pool.grow()

    def serve(self) -> None:
        """Send what waits, as long as there are connections and clients for it."""
        idle, waiting = self.pool.idle, self._waiting
        while waiting and idle:
            flight = waiting[0]
            if flight.status is None:
                request = flight.request or self._ask(flight.client)
                if request is None:
                    return
                flight.request = None
                idle.popleft().send(flight, request)
            waiting.popleft()

    def waiting(self) -> int:
        self._first_waiting()
        return len(self._waiting)

    def _first_waiting(self) -> Flight | None:
        """Of those that nobody has given up; those were due before."""
        while self._waiting and self._waiting[0].status is not None:
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def answered(self, flight: Flight, status: int, data: bytes, end: int) -> None:
        self._end(flight, status, data, end)

    def lost(self, flight: Flight) -> None:
        self._end(flight, NEVER_ANSWERED)

    def refused(self) -> None:
        if (flight := self._first_waiting()) is not None:
            self._end(flight, NEVER_ANSWERED)

    def _end(self, flight: Flight, status: int, data: bytes = b"", end: int = 0) -> None:
        flight.took_s = self._now_s() - flight.due_s
        flight.status = status
        flight.connection = None
        self._under_way -= 1
        self._recorder.ended(flight)
        if self._told is not None:
            again = self._tell(self._told, flight.client, Answer(status, data[:end], data[end + 4 :]))
            if again is not None:
                due_s = self._now_s() + again.delay_s
                heappush(self._returns, Flight(flight.client, flight.attempt + 1, due_s, again.request))
                self._sleep()
            self.serve()  # a client may be free that something waits for
        if not self._under_way:
            self._finish_if_over()

    def _finish_if_over(self) -> None:
        is_over = not (self._under_way or self._returns) and self._next_due_s == _NEVER
        if is_over and not self.finished.done():
            self.finished.set_result(None)

    # What the behaviour says

    def _ask(self, client: int) -> bytes | None:
        try:
            return self._stream.behaviour.request(client)
        except Exception as error:  # noqa: BLE001 - ``drive`` raises it
            self._fail(error)
            return None

    def _tell(self, told: Callable[[int, Answer], Again | None], client: int, answer: Answer) -> Again | None:
        try:
            return told(client, answer)
        except Exception as error:  # noqa: BLE001 - ``drive`` raises it
            self._fail(error)
            return None

    def _fail(self, error: Exception) -> None:
        if not self.finished.done():
            self.finished.set_exception(error)

    def result(self) -> StreamResult:
        """Once it is finished."""
        flights = sorted(self._kept.flights, key=_in_order)
        samples = Samples(
            sum(segment.seconds for segment in self._stream.segments),
            [round(flight.due_s, 6) for flight in flights],
            [round(flight.took_s, 6) for flight in flights],
            [cast("int", flight.status) for flight in flights],
            [flight.attempt for flight in flights],
            [flight.client for flight in flights],
        )
        return StreamResult(samples, Lateness.of(self._kept.late_s), self._kept.count_queued, self.pool.most_open)


def _in_order(flight: Flight) -> int:
    return flight.number


def _cut_short(runs: Sequence[_Run]) -> None:
    for run in runs:
        run.cut_short()


async def drive(
    where: int | Endpoint,
    streams: Sequence[Stream],
    until: "asyncio.Future[None] | None" = None,
    *,
    must_connect: bool = True,
) -> Result:
    """Run the streams, all by one clock; out: what they saw, once every client is through.

    In: an endpoint, or a port of 127.0.0.1; a future that ends the schedule early when it is done. Raises ValueError
    for two streams of one name, OSError if the server is not there at the start and ``must_connect``, and whatever a
    behaviour raises.
    """
    if len({stream.name for stream in streams}) < len(streams):
        raise ValueError("two streams have one name")
    endpoint = where if isinstance(where, Endpoint) else local(where)
    runs = [_Run(stream, endpoint) for stream in streams]
    try:
        for run in runs:
            with contextlib.suppress(*(() if must_connect else (OSError,))):
                await run.pool.warm()
        started_s, cpu_s = _monotonic() + _LEAD_S, time.thread_time()
        for run in runs:
            run.begin(started_s)
        if until is not None:
            until.add_done_callback(lambda _: _cut_short(runs))
        await asyncio.gather(*(run.finished for run in runs))
        busy = (time.thread_time() - cpu_s) / (_monotonic() - started_s)
    finally:
        for run in runs:
            await run.close()
    return Result(started_s, round(busy, 3), {run.name: run.result() for run in runs})
