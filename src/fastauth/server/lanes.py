"""Admission: what each request waits for, for how long at the most, and what is refused before it costs anything.

Validation and the public documents wait for nothing and are never refused here. Renewals (tokens, introspection,
revocation, logout) are bounded by how long they take; logins by the queue before the hash threads, which run at a lower
priority than all the rest.
"""

import math
import time
from collections.abc import Awaitable, Callable
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
from fastauth.server.counters import LOGIN_LANES, Counters
from fastauth.server.limiting import Limiting
from fastauth.server.settings import Settings

_EXPECTED_RENEWAL_S: Final = 0.002

_LAST: Final = 1 << 62  # behind everybody

Handler = Callable[[Request], Awaitable[Response]]


class Lane:
    """Bounds what is under way on some routes by how long it takes there, as measured.

    A request counts once its body is here: whoever sends slowly takes nobody's place.
    """

    def __init__(self, rules: LaneRules, expected_s: float, count: Callable[[str], None]) -> None:
        """In: ``count`` is told ``admitted`` or ``refused``."""
        self.pace = Pace(expected_s)
        self._gate = Gate(rules)
        self._count = count

    def __call__(self, handler: Handler) -> Handler:
        """The handler, behind this lane."""
        return lambda request: self._admit(handler, request)

    def _admit(self, handler: Handler, request: Request) -> Awaitable[Response]:
        self._gate.arrive(time.monotonic())
        wait_s = self.pace.wait_s
        if not self._gate.allows(wait_s, self.pace.per_s):
            self._count("refused")
            raise Overloaded(max(1, math.ceil(wait_s)))
        self._count("admitted")
        return self._serve(handler, request)

    async def _serve(self, handler: Handler, request: Request) -> Response:
        visit = _Visit(self.pace)
        request.on_body = visit.begin
        try:
            return await handler(request)
        finally:
            visit.end()


class _Visit:
    """One request inside a lane, from its body on."""

    __slots__ = ("_began_s", "_beside", "_pace")

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._beside = 0
        self._began_s = 0.0

    def begin(self) -> None:
        if not self._beside:
            self._beside = self._pace.enter()
            self._began_s = time.monotonic()

    def end(self) -> None:
        if self._beside:
            self._pace.leave(self._beside, time.monotonic() - self._began_s)


def renewals(settings: Settings, counters: Counters) -> Lane:
    """The lane of tokens, introspection, revocation and logout."""
    rules = LaneRules(burst_s=settings.lanes.renew_burst_s, target_s=settings.lanes.renew_target_s)
    return Lane(rules, _EXPECTED_RENEWAL_S, counters.of_lane("renew"))


def hash_scheduler(settings: Settings, counters: Counters) -> HashScheduler:
    """The hash threads of this worker: its part of the cores, and as much again for what other workers leave."""
    lanes, profile = settings.lanes, PROFILES[settings.passwords.profile]
    memory_mib = None if isinstance(lanes.hash_memory_mib, str) else lanes.hash_memory_mib
    bounds = HashBounds.of_machine(memory_mib, profile.memory_kib)
    path = settings.data_path / "fastauth.permits" if settings.workers > 1 else None
    permits = HashPermits(bounds, settings.workers, path)
    return HashScheduler(
        permits,
        min(bounds.jobs, 2 * -(-bounds.jobs // settings.workers)),
        SHARES,
        expected_s=hash_time_s(profile),
        deadline_s=lanes.login_deadline_s,
        nice=lanes.hash_nice,
        count=counters.of_hashes(),
    )


def login_queue(
    settings: Settings, counters: Counters, scheduler: HashScheduler, limiting: Limiting, master_key: MasterKey
) -> LoginQueue:
    """The queue before the hash threads."""
    lanes = settings.lanes
    rules = LaneRules(burst_s=lanes.login_burst_s, target_s=lanes.login_target_s)
    queue = LoginQueue(
        scheduler,
        rules,
        Tickets(master_key.derive(PURPOSE)),
        limiting.places,
        limiting.spend,
        limiting.at_most_each_second("tickets", lanes.tickets_per_s),
        limiting.addresses,
        counters.of_login_lanes(),
    )
    counters.login_queue = lambda: {
        name: (scheduler.length(lane), scheduler.wait_s(lane, _LAST)) for lane, name in enumerate(LOGIN_LANES)
    }
    counters.sent_away = lambda: queue.line.expected
    return queue
