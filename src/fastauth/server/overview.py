"""A running server as somebody on its machine sees it: what happened between two readings of its counters, and how its
workers are. It asks no worker anything, so it works however busy they are.
"""

import time
from typing import Final

import msgspec

from fastauth.domain.errors import FastauthError
from fastauth.endpoints.login_queue import ADMITTED, TOO_LONG, UNREAD, WITH_TICKET
from fastauth.server.counters import (
    BOUNDS_S,
    CHECKED,
    DEPENDENCIES,
    HASH,
    LANE_DECISIONS,
    LIMITS,
    LOGIN_LANES,
    ROUTES,
    STATES,
    STATUSES,
    Counters,
    counters_path,
)
from fastauth.server.instance import DrainFlag, drain_path
from fastauth.server.settings import Settings
from fastauth.server.watchdog import private_memory_kib
from fastauth.server.workers import ABSENT, WorkerState, WorkerTable, monotonic_us, workers_path

_REFUSED: Final = ("refused", "would_refuse")


class NotRunning(FastauthError):
    """There is no server on this data directory."""

    code = "not_running"


class RouteView(msgspec.Struct, kw_only=True):
    """A route: answers a second, by kind; milliseconds, None when there was no request."""

    route: str
    per_s: float
    refused_per_s: float
    failed_per_s: float
    p50_ms: float | None
    p99_ms: float | None


class LaneView(msgspec.Struct, kw_only=True):
    """A lane of logins."""

    lane: str
    waiting: int
    wait_s: float
    admitted_per_s: float
    with_ticket_per_s: float
    sent_away_per_s: float


class LimitView(msgspec.Struct, kw_only=True):
    """Decisions of a limit a second."""

    limit: str
    admitted_per_s: float
    refused_per_s: float


class WorkerView(msgspec.Struct, kw_only=True):
    """A worker."""

    pid: int
    up_s: int
    memory_mib: float | None
    loop_delay_ms: float
    hashing: int
    silent_s: float


class Overview(msgspec.Struct, kw_only=True):
    """Everything, over ``seconds``."""

    seconds: float
    is_draining: bool
    routes: list[RouteView]
    lanes: list[LaneView]
    limits: list[LimitView]
    workers: list[WorkerView]
    breakers: dict[str, str]
    hashes_per_s: float
    hash_ms: float | None
    hashing: int
    cache_hit_share: float | None
    tickets_outstanding: int
    retry_after_s: int
    renewals_refused_per_s: float
    revocation_staleness_s: float


class Reading(msgspec.Struct, frozen=True):
    """The counters at one moment."""

    at_s: float
    counts: dict[str, dict[str, int]]
    times: dict[str, tuple[list[int], float]]


class RunningServer:
    """A server that runs on the data directory of the settings."""

    def __init__(self, settings: Settings) -> None:
        """Raises NotRunning."""
        try:
            counters_path(settings.data_path).stat()
            self._table = WorkerTable.of_running(workers_path(settings.data_path))
            self._counters = Counters(counters_path(settings.data_path))
            self._drain = DrainFlag(drain_path(settings))
        except PermissionError:
            raise NotRunning(
                f"{settings.data_path}: belongs to somebody else; run this as the user of the server"
            ) from None
        except OSError:
            raise NotRunning(f"no server runs in {settings.data_path}; name its directory with --data-dir") from None
        self._data_path = settings.data_path
        self._living()

    def _living(self) -> list[WorkerState]:
        workers = self._table.present()
        if not workers:
            raise NotRunning(f"no worker of a server in {self._data_path} is there")
        return workers

    def read(self) -> Reading:
        """The counters as they are."""
        families = [
            *(f"requests {route}" for route in ROUTES),
            *(f"lane {lane}" for lane in (*LOGIN_LANES, "renew")),
            *LIMITS,
            "tokens",
        ]
        counts = {family: self._counters.family(family) for family in families}
        times = {name: self._counters.histogram(name) for name in (*ROUTES, HASH)}
        return Reading(time.monotonic(), counts, times)

    def overview(self, before: Reading, after: Reading) -> Overview:
        """What happened between two readings, and how the workers are now. Raises NotRunning."""
        workers = self._living()
        change = _Change(before, after)
        return Overview(
            seconds=round(change.seconds, 6),
            is_draining=self._drain.is_set(),
            routes=[change.route(route) for route in ROUTES],
            lanes=[_lane(lane, change, workers) for lane in LOGIN_LANES],
            limits=[change.limit(limit) for limit in LIMITS],
            workers=[_worker(state) for state in workers],
            breakers=_breakers(workers),
            hashes_per_s=change.rate(sum(change.times(HASH)[0])),
            hash_ms=change.mean_ms(HASH),
            hashing=sum(worker.hashing for worker in workers),
            cache_hit_share=change.cache_hit_share(),
            tickets_outstanding=sum(worker.sent_away for worker in workers),
            retry_after_s=max((worker.retry_after_s for worker in workers), default=0),
            renewals_refused_per_s=change.rate(change.grown("lane renew", LANE_DECISIONS[1])),
            revocation_staleness_s=max((worker.staleness_ms for worker in workers), default=0) / 1e3,
        )


class _Change:
    def __init__(self, before: Reading, after: Reading) -> None:
        self._before = before
        self._after = after
        self.seconds = max(1e-3, after.at_s - before.at_s)

    def grown(self, family: str, *outcomes: str) -> int:
        before, after = self._before.counts[family], self._after.counts[family]
        return sum(after[outcome] - before[outcome] for outcome in outcomes)

    def rate(self, count: int) -> float:
        return round(count / self.seconds, 2)

    def times(self, name: str) -> tuple[list[int], float]:
        (before, before_s), (after, after_s) = self._before.times[name], self._after.times[name]
        return [more - less for more, less in zip(after, before, strict=True)], after_s - before_s

    def mean_ms(self, name: str) -> float | None:
        counts, sum_s = self.times(name)
        return round(sum_s / sum(counts) * 1e3, 3) if sum(counts) else None

    def route(self, route: str) -> RouteView:
        counts, _ = self.times(route)
        family = f"requests {route}"
        return RouteView(
            route=route,
            per_s=self.rate(self.grown(family, *STATUSES)),
            refused_per_s=self.rate(self.grown(family, "429", "503")),
            failed_per_s=self.rate(self.grown(family, "5xx")),
            p50_ms=quantile_ms(counts, 0.5),
            p99_ms=quantile_ms(counts, 0.99),
        )

    def limit(self, limit: str) -> LimitView:
        refused = self.grown(limit, *(outcome for outcome in self._after.counts[limit] if outcome in _REFUSED))
        return LimitView(
            limit=limit,
            admitted_per_s=self.rate(self.grown(limit, "admitted")),
            refused_per_s=self.rate(refused),
        )

    def cache_hit_share(self) -> float | None:
        asked = self.grown("requests /verify", "2xx")
        return round(max(0.0, 1 - self.grown("tokens", CHECKED) / asked), 4) if asked else None


def _lane(lane: str, change: _Change, workers: list[WorkerState]) -> LaneView:
    family = f"lane {lane}"
    return LaneView(
        lane=lane,
        waiting=sum(getattr(worker, f"waiting_{lane}") for worker in workers),
        wait_s=max((getattr(worker, f"wait_{lane}_us") for worker in workers), default=0) / 1e6,
        admitted_per_s=change.rate(change.grown(family, ADMITTED, WITH_TICKET)),
        with_ticket_per_s=change.rate(change.grown(family, WITH_TICKET)),
        sent_away_per_s=change.rate(change.grown(family, TOO_LONG, UNREAD)),
    )


def _worker(state: WorkerState) -> WorkerView:
    now_us, memory_kib = monotonic_us(), private_memory_kib(state.pid)
    return WorkerView(
        pid=state.pid,
        up_s=(now_us - state.born_us) // 1_000_000,
        memory_mib=None if memory_kib is None else round(memory_kib / 1_024, 1),
        loop_delay_ms=round(state.loop_delay_us / 1e3, 2),
        hashing=state.hashing,
        silent_s=round((now_us - state.beat_us) / 1e6, 2),
    )


def _breakers(workers: list[WorkerState]) -> dict[str, str]:
    worst = {
        dependency: max((getattr(worker, f"breaker_{dependency}") for worker in workers), default=ABSENT)
        for dependency in (*DEPENDENCIES, "redis")
    }
    return {dependency: STATES[state] for dependency, state in worst.items() if state != ABSENT}


def quantile_ms(counts: list[int], part: float) -> float | None:
    """A quantile of a histogram over ``BOUNDS_S``, in milliseconds, as if times were spread evenly in a bucket; None of
    nothing, the last bound for what is beyond it.
    """
    wanted = part * sum(counts)
    if not wanted:
        return None
    low_s = 0.0
    for bound_s, count in zip(BOUNDS_S, counts, strict=False):
        if wanted <= count:
            return round((low_s + (bound_s - low_s) * wanted / count) * 1e3, 3)
        wanted -= count
        low_s = bound_s
    return BOUNDS_S[-1] * 1e3
