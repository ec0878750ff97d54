"""What all workers of a server count together, and how ``/metrics`` shows it.

A count costs one atomic addition in memory that the workers share; the Prometheus client only renders it.
"""

import mmap
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from fastauth import core
from fastauth.domain.breaker import State
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
DEPENDENCIES: Final = ("database", "http", "ldap")
STATES: Final[tuple[State, ...]] = ("closed", "half_open", "open")

# The place of each counter.
_PLACES: Final = {
    place: index
    for index, place in enumerate(
        [
            *((limit, outcome) for limit in LIMITS for outcome in OUTCOMES),
            ("redis", REDIS_LOST),
            ("redis", REDIS_BACK),
            *((f"breaker {dependency}", state) for dependency in DEPENDENCIES for state in STATES),
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

    def read(self, family: str, outcome: str) -> int:
        """One counter, all workers together."""
        return self._cells.read(_PLACES[family, outcome])

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        decisions = CounterMetricFamily(
            "fastauth_limit_decisions", "Decisions of rate limits, all workers.", labels=["limit", "decision"]
        )
        redis = CounterMetricFamily(
            "fastauth_redis_changes", "How often workers lost Redis and had it back.", labels=["change"]
        )
        changes = CounterMetricFamily(
            "fastauth_breaker_changes",
            "How often circuits of workers came into a state.",
            labels=["dependency", "state"],
        )
        for (family, outcome), place in _PLACES.items():
            if family.startswith("breaker "):
                changes.add_metric([family.removeprefix("breaker "), outcome], self._cells.read(place))
            elif family == "redis":
                redis.add_metric([outcome], self._cells.read(place))
            else:
                decisions.add_metric([family, outcome], self._cells.read(place))
        yield decisions
        yield redis
        yield changes
        states = GaugeMetricFamily(
            "fastauth_breaker_state",
            "The circuits of the worker that answers: 0 closed, 1 half open, 2 open.",
            labels=["dependency"],
        )
        for dependency, state in self.breakers().items():
            states.add_metric([dependency], STATES.index(state))
        yield states
        yield CounterMetricFamily(
            "fastauth_bucket_evictions", "Buckets that were not full and had to make room.", value=self.evictions()
        )
        yield GaugeMetricFamily(
            "fastauth_revocation_staleness_seconds",
            "For how long the worker that answers has not heard of revocations.",
            value=self.staleness_s(),
        )

    def render(self) -> tuple[str, bytes]:
        """The content type and the text of ``/metrics``."""
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry)
