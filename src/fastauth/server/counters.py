"""What all workers of a server count together, and how ``/metrics`` shows it.

A count costs one atomic addition in memory that the workers share; the Prometheus client only renders it.
"""

import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from fastauth import core
from fastauth.backends.hash_scheduler import OUTCOMES as HASH_OUTCOMES
from fastauth.domain.breaker import State
from fastauth.endpoints.login_queue import DECISIONS as LOGIN_DECISIONS
from fastauth.endpoints.rate_limit import OUTCOMES

LIMITS: Final = (
    "login_per_ip",
    "login_global",
    "login_per_user",
    "login_per_user_device",
    "token_per_client",
    "refresh_per_ip",
    "refresh_per_family",
    "verify_per_ip",
)
REDIS_LOST: Final = "lost"
REDIS_BACK: Final = "back"
LOGIN_LANES: Final = ("known_device", "login")
DEPENDENCIES: Final = ("database", "http", "ldap")
STATES: Final[tuple[State, ...]] = ("closed", "half_open", "open")

LANE_DECISIONS: Final = ("admitted", "refused")

# The place of each counter.
_PLACES: Final = {
    place: index
    for index, place in enumerate(
        [
            *((limit, outcome) for limit in LIMITS for outcome in OUTCOMES),
            ("redis", REDIS_LOST),
            ("redis", REDIS_BACK),
            *((f"breaker {dependency}", state) for dependency in DEPENDENCIES for state in STATES),
            *((f"lane {lane}", decision) for lane in LOGIN_LANES for decision in LOGIN_DECISIONS),
            *(("lane renew", decision) for decision in LANE_DECISIONS),
            *(("hashes", outcome) for outcome in HASH_OUTCOMES),
        ]
    )
}
_SIZE: Final = mmap.PAGESIZE


class Counters(Collector):
    """The counters of one server."""

    def __init__(self, path: Path | None) -> None:
        """In: the file that the workers of a server share; None counts for this process alone."""
        if path is None:
            descriptor = os.memfd_create("fastauth-counters", os.MFD_CLOEXEC)
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(descriptor, 0, _SIZE)
        self._memory = mmap.mmap(descriptor, _SIZE)
        self._cells = core.SharedCounters(self._memory, descriptor)
        self.evictions: Callable[[], int] = lambda: 0  # the bucket table counts them
        self.staleness_s: Callable[[], float] = lambda: 0.0
        # By lane of the worker that answers: how many wait, and how long one more would.
        self.login_queue: Callable[[], dict[str, tuple[int, float]]] = dict
        self.sent_away: Callable[[], int] = lambda: 0
        self.breakers: Callable[[], dict[str, State]] = dict  # of the worker that answers
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def clear(self) -> None:
        """Begin anew; only before there are workers."""
        self._memory[:] = bytes(_SIZE)

    def of_limit(self, limit: str) -> Callable[[str], None]:
        """Counts outcomes of one limit."""
        places = {outcome: _PLACES[limit, outcome] for outcome in OUTCOMES}
        add = self._cells.add
        return lambda outcome: add(places[outcome])

    def of_redis(self) -> Callable[[bool], None]:
        """Counts that Redis was lost (False) or is back."""
        add = self._cells.add
        lost, back = partial(add, _PLACES["redis", REDIS_LOST]), partial(add, _PLACES["redis", REDIS_BACK])
        return lambda is_up: back() if is_up else lost()

    def count_breaker(self, dependency: str, state: State) -> None:
        """A circuit has changed to this state."""
        self._cells.add(_PLACES[f"breaker {dependency}", state])

    def of_lane(self, lane: str) -> Callable[[str], None]:
        """Counts what a lane decides."""
        places = {decision: _PLACES[f"lane {lane}", decision] for decision in LANE_DECISIONS}
        add = self._cells.add
        return lambda decision: add(places[decision])

    def of_login_lanes(self) -> Callable[[int, str], None]:
        """Counts what the login queue decides, by lane."""
        add = self._cells.add
        return lambda lane, decision: add(_PLACES[f"lane {LOGIN_LANES[lane]}", decision])

    def of_hashes(self) -> Callable[[str], None]:
        """Counts what became of hash jobs."""
        add = self._cells.add
        return lambda outcome: add(_PLACES["hashes", outcome])

    def read(self, family: str, outcome: str) -> int:
        """One counter, all workers together."""
        return self._cells.read(_PLACES[family, outcome])

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        yield self._counted(
            "fastauth_limit_decisions", "Decisions of rate limits, all workers.", ("limit", "decision"), LIMITS
        )
        yield self._counted(
            "fastauth_redis_changes", "How often workers lost Redis and had it back.", (None, "change"), ("redis",)
        )
        yield self._counted(
            "fastauth_breaker_changes",
            "How often circuits of workers came into a state.",
            ("dependency", "state"),
            [f"breaker {dependency}" for dependency in DEPENDENCIES],
        )
        yield self._counted(
            "fastauth_lane_decisions",
            "Who was let into which lane, all workers.",
            ("lane", "decision"),
            [f"lane {lane}" for lane in (*LOGIN_LANES, "renew")],
        )
        yield self._counted(
            "fastauth_hash_jobs", "What became of password checks, all workers.", (None, "outcome"), ("hashes",)
        )
        yield CounterMetricFamily(
            "fastauth_bucket_evictions", "Buckets that were not full and had to make room.", value=self.evictions()
        )
        yield from self._of_this_worker()

    def _counted(self, name: str, text: str, labels: tuple[str | None, str], families: Sequence[str]) -> Metric:
        """In: the labels of the family, None for none, and of the outcome."""
        metric = CounterMetricFamily(name, text, labels=[label for label in labels if label is not None])
        for (family, outcome), place in _PLACES.items():
            if family in families:
                values = [outcome] if labels[0] is None else [family.rpartition(" ")[2], outcome]
                metric.add_metric(values, self._cells.read(place))
        return metric

    def _of_this_worker(self) -> Iterable[Metric]:
        states = GaugeMetricFamily(
            "fastauth_breaker_state",
            "The circuits of the worker that answers: 0 closed, 1 half open, 2 open.",
            labels=["dependency"],
        )
        for dependency, state in self.breakers().items():
            states.add_metric([dependency], STATES.index(state))
        yield states
        yield GaugeMetricFamily(
            "fastauth_revocation_staleness_seconds",
            "For how long the worker that answers has not heard of revocations.",
            value=self.staleness_s(),
        )
        waiting = GaugeMetricFamily(
            "fastauth_queue_length", "Logins that wait in the worker that answers.", labels=["lane"]
        )
        wait = GaugeMetricFamily("fastauth_queue_wait_seconds", "How long one more would wait there.", labels=["lane"])
        for lane, (length, wait_s) in self.login_queue().items():
            waiting.add_metric([lane], length)
            wait.add_metric([lane], wait_s)
        yield waiting
        yield wait
        yield GaugeMetricFamily(
            "fastauth_tickets_outstanding",
            "Places in line that the worker that answers has given and that may be claimed.",
            value=self.sent_away(),
        )

    def render(self) -> tuple[str, bytes]:
        """The content type and the text of ``/metrics``."""
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry)
