"""Admission: what each request waits for, for how long at the most, and what is refused before it costs anything.

Validation and the public documents wait for nothing and are never refused here. Renewals (tokens, introspection,
revocation, logout) are bounded by how long they take; logins by the queue before the hash threads, which run at a lower
priority than all the rest.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from fastauth.backends.hash_permits import HashBounds, HashPermits
from fastauth.backends.hash_scheduler import HashScheduler
from fastauth.backends.passwords import PROFILES, hash_time_s
from fastauth.domain.admission import Gate, LaneRules, Pace
from fastauth.domain.errors import Overloaded
from fastauth.domain.tickets import PURPOSE, Tickets
from fastauth.endpoints.http import Request, Response
from fastauth.endpoints.login_queue import SHARES, LoginQueue
from fastauth.jose.wrapping import MasterKey
from fastauth.server.counters import HASH, Counters
from fastauth.server.limiting import Limiting
from fastauth.server.loop_turns import LoopTurns
from fastauth.server.settings import Settings

_EXPECTED_RENEWAL_S: Final = 0.002
_BEAT_S: Final = 0.01
_WEIGHT: Final = 0.1  # of one measurement in what is usual
# A loop that is later has no time to read a request only to refuse it well, and then none for further logins at all.
_BUSY_S: Final = 0.008
_LATE_S: Final = 0.025
_LONGEST_PAUSE_S: Final = 0.1

LAST: Final = 1 << 62  # behind everybody

Handler = Callable[[Request], Awaitable[Response]]


class LoopDelay:
    """How late the event loop is, which is how long everybody waits for a turn on it: ``usual_s``, over about the last
    tenth of a second. One pause, however long, is not usual.
    """

    def __init__(self, count: Callable[[float], None] = lambda late_s: None) -> None:
        """To be made on the running loop. In: ``count`` is told each measurement."""
        self._loop = asyncio.get_running_loop()
        self._count = count
        self.usual_s = 0.0
        self._begin()

    def close(self) -> None:
        """Measure no more."""
        self._timer.cancel()

    def _begin(self) -> None:
        self._due_s = self._loop.time() + _BEAT_S
        self._timer = self._loop.call_at(self._due_s, self._beat)

    def _beat(self) -> None:
        late_s = max(0.0, self._loop.time() - self._due_s)
        self._count(late_s)
        late_s = min(late_s, _LONGEST_PAUSE_S)
        self.usual_s += _WEIGHT * (late_s - self.usual_s)
        self._begin()


class Lane:
    """Bounds what is under way on some routes by how long it takes there, as measured.

    A request counts once its body is here: whoever sends slowly takes nobody's place.
    """

    def __init__(self, rules: LaneRules, expected_s: float, count: Callable[[str], None]) -> None:
        """In: ``count`` is told ``admitted`` or ``refused``."""
        self.inside = 0
        self.pace = Pace(expected_s)
        self._gate = Gate(rules)
        self._count = count

    def __call__(self, handler: Handler) -> Handler:
        """The handler, behind this lane."""
        return lambda request: self._admit(handler, request)

    def _admit(self, handler: Handler, request: Request) -> Awaitable[Response]:
        self._gate.arrive(time.monotonic())
        wait_s = self.inside / self.pace.per_s
        if not self._gate.allows(wait_s, self.pace.per_s):
            self._count("refused")
            raise Overloaded(max(1, math.ceil(wait_s)))
        self._count("admitted")
        return self._serve(handler, request)

    async def _serve(self, handler: Handler, request: Request) -> Response:
        visit = _Visit(self)
        request.on_body = visit.begin
        try:
            return await handler(request)
        finally:
            visit.end()


class _Visit:
    """One request inside a lane, from its body on."""

    __slots__ = ("_began_s", "_beside", "_lane")

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._beside = 0
        self._began_s = 0.0

    def begin(self) -> None:
        if not self._beside:
            self._lane.inside += 1
            self._beside = self._lane.inside
            self._began_s = time.monotonic()

    def end(self) -> None:
        if self._beside:
            self._lane.inside -= 1
            self._lane.pace.served((time.monotonic() - self._began_s) / self._beside)


def renewals(settings: Settings, counters: Counters) -> Lane:
    """The lane of tokens, introspection, revocation and logout."""
    rules = LaneRules(burst_s=settings.lanes.renew_burst_s, target_s=settings.lanes.renew_target_s)
    return Lane(rules, _EXPECTED_RENEWAL_S, counters.of_lane("renew"))


def permits_path(settings: Settings) -> Path:
    """The file by which the workers of a server share their permits; it belongs to one run of one number of them."""
    return settings.data_path / "fastauth.permits"


def hash_memory_kib(settings: Settings) -> int:
    """What all hashes at once take, which a worker has for a moment and gives back."""
    profile = PROFILES[settings.passwords.profile]
    return _hash_bounds(settings).jobs * profile.memory_kib


def _hash_bounds(settings: Settings) -> HashBounds:
    memory_mib = None if isinstance(settings.lanes.hash_memory_mib, str) else settings.lanes.hash_memory_mib
    return HashBounds.of_machine(memory_mib, PROFILES[settings.passwords.profile].memory_kib)


def hash_scheduler(settings: Settings, counters: Counters, turns: LoopTurns | None) -> HashScheduler:
    """The hash threads of this worker: its part of the cores, and as much again for what other workers leave."""
    lanes, profile = settings.lanes, PROFILES[settings.passwords.profile]
    bounds = _hash_bounds(settings)
    path = permits_path(settings) if settings.workers > 1 else None
    permits = HashPermits(bounds, settings.workers, path)
    return HashScheduler(
        permits,
        min(bounds.jobs, 2 * -(-bounds.jobs // settings.workers)),
        SHARES,
        expected_s=hash_time_s(profile),
        deadline_s=lanes.login_deadline_s,
        nice=lanes.hash_nice,
        beside_long=contextlib.nullcontext if turns is None else turns.interrupting,
        count=counters.of_hashes(),
        count_time=counters.of_time(HASH),
    )


def login_queue(
    settings: Settings,
    counters: Counters,
    scheduler: HashScheduler,
    limiting: Limiting,
    master_key: MasterKey,
    delay: LoopDelay,
) -> LoginQueue:
    """The queue before the hash threads."""
    lanes = settings.lanes
    rules = LaneRules(burst_s=lanes.login_burst_s, target_s=lanes.login_target_s)
    has_tickets = limiting.at_most_each_second("tickets", lanes.tickets_per_s)
    return LoginQueue(
        scheduler,
        rules,
        Tickets(master_key.derive(PURPOSE)),
        limiting.places,
        limiting.spend,
        lambda: delay.usual_s < _BUSY_S and has_tickets(),
        lambda: delay.usual_s > _LATE_S,
        limiting.at_most_each_second("devices", lanes.tickets_per_s),
        limiting.addresses,
        counters.of_login_lanes(),
    )
