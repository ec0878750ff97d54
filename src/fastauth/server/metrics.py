"""``/metrics``: the counters of all workers, and how each of them is, as Prometheus wants to read it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from fastauth import core
from fastauth.server.counters import (
    BOUNDS_S,
    CHECKED,
    DEPENDENCIES,
    HASH,
    LIMITS,
    LOGIN_LANES,
    LOOP_DELAY,
    ROUTES,
    STATES,
    Counters,
)
from fastauth.server.watchdog import private_memory_kib
from fastauth.server.workers import ABSENT, WorkerState, WorkerTable

_KIB: Final = 1024


class Metrics(Collector):
    """What ``/metrics`` shows. Any worker answers for all of them."""

    def __init__(self, counters: Counters, table: WorkerTable, evictions: Callable[[], int]) -> None:
        self._counters = counters
        self._table = table
        self._evictions = evictions
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self) -> tuple[str, bytes]:
        """The content type and the text of ``/metrics``."""
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        yield self._counted(
            "fastauth_requests", "Answers by route and status.", ("route", "status"), "requests", ROUTES
        )
        yield self._timed("fastauth_request_seconds", "From the head of a request to its answer.", "route", ROUTES)
        yield self._timed("fastauth_hash_seconds", "What a password check took a thread.", None, (HASH,))
        yield self._timed("fastauth_event_loop_delay_seconds", "How late the event loop was.", None, (LOOP_DELAY,))
        yield CounterMetricFamily(
            "fastauth_tokens_checked",
            "Tokens that were looked at whole; any other answer of /verify came from the cache of good ones.",
            value=self._counters.read("tokens", CHECKED),
        )
        yield self._counted(
            "fastauth_limit_decisions", "Decisions of rate limits.", ("limit", "decision"), None, LIMITS
        )
        yield self._counted(
            "fastauth_redis_changes",
            "How often workers lost Redis and had it back.",
            (None, "change"),
            None,
            ("redis",),
        )
        yield self._counted(
            "fastauth_breaker_changes",
            "How often circuits of workers came into a state.",
            ("dependency", "state"),
            "breaker",
            DEPENDENCIES,
        )
        yield self._counted(
            "fastauth_lane_decisions",
            "Who was let into which lane.",
            ("lane", "decision"),
            "lane",
            (*LOGIN_LANES, "renew"),
        )
        yield self._counted(
            "fastauth_hash_jobs", "What became of password checks.", (None, "outcome"), None, ("hashes",)
        )
        yield self._counted(
            "fastauth_workers_replaced", "Workers that had to be replaced.", (None, "reason"), None, ("workers",)
        )
        yield CounterMetricFamily(
            "fastauth_bucket_evictions", "Buckets that were not full and had to make room.", value=self._evictions()
        )
        yield from _of_workers(self._table.living())

    def _counted(
        self, name: str, text: str, labels: tuple[str | None, str], kind: str | None, families: Sequence[str]
    ) -> Metric:
        """In: the labels of a family, None for none, and of an outcome; what stands before a family's name."""
        metric = CounterMetricFamily(
            name, f"{text} All workers.", labels=[label for label in labels if label is not None]
        )
        for family in families:
            for outcome, count in self._counters.family(family if kind is None else f"{kind} {family}").items():
                metric.add_metric([outcome] if labels[0] is None else [family, outcome], count)
        return metric

    def _timed(self, name: str, text: str, label: str | None, families: Sequence[str]) -> Metric:
        metric = HistogramMetricFamily(name, f"{text} All workers.", labels=[] if label is None else [label])
        for family in families:
            counts, sum_s = self._counters.histogram(family)
            buckets, total = [], 0
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), counts, strict=True):
                total += count
                buckets.append((bound, total))
            metric.add_metric([] if label is None else [family], buckets, sum_s)
        return metric


def _of_workers(workers: Sequence[WorkerState]) -> Iterable[Metric]:
    implementation = GaugeMetricFamily("fastauth_core", "Which core runs: always 1.", labels=["implementation"])
    implementation.add_metric([core.IMPLEMENTATION], 1)
    yield implementation
    yield GaugeMetricFamily("fastauth_workers", "Workers that live.", value=len(workers))
    memory = GaugeMetricFamily("fastauth_worker_private_bytes", "Memory that is a worker's own.", labels=["worker"])
    delay = GaugeMetricFamily(
        "fastauth_event_loop_usual_delay_seconds", "How late its event loop usually is.", labels=["worker"]
    )
    for number, worker in enumerate(workers, 1):  # a pid would be a new label with each restart
        memory.add_metric([str(number)], (private_memory_kib(worker.pid) or 0) * _KIB)
        delay.add_metric([str(number)], worker.loop_delay_us / 1e6)
    yield from (memory, delay)
    length = GaugeMetricFamily("fastauth_queue_length", "Logins that wait, all workers.", labels=["lane"])
    wait = GaugeMetricFamily(
        "fastauth_queue_wait_seconds", "How long one more would wait, the longest.", labels=["lane"]
    )
    for lane in LOGIN_LANES:
        length.add_metric([lane], sum(getattr(worker, f"waiting_{lane}") for worker in workers))
        wait.add_metric([lane], max((getattr(worker, f"wait_{lane}_us") for worker in workers), default=0) / 1e6)
    yield from (length, wait)
    yield GaugeMetricFamily(
        "fastauth_hashes_running", "Password checks under way, all workers.", value=sum(one.hashing for one in workers)
    )
    yield GaugeMetricFamily(
        "fastauth_tickets_outstanding",
        "Places in line that were given and are expected to be claimed, all workers.",
        value=sum(worker.sent_away for worker in workers),
    )
    yield GaugeMetricFamily(
        "fastauth_retry_after_seconds",
        "What somebody would be told who is sent away now, the longest.",
        value=max((worker.retry_after_s for worker in workers), default=0),
    )
    yield GaugeMetricFamily(
        "fastauth_revocation_staleness_seconds",
        "For how long a worker has not heard of revocations, the longest.",
        value=max((worker.staleness_ms for worker in workers), default=0) / 1e3,
    )
    breakers = GaugeMetricFamily(
        "fastauth_breaker_state",
        f"The worst state of a circuit of any worker: {', '.join(f'{n} {state}' for n, state in enumerate(STATES))}.",
        labels=["dependency"],
    )
    for dependency in (*DEPENDENCIES, "redis"):
        state = max((getattr(worker, f"breaker_{dependency}") for worker in workers), default=ABSENT)
        if state != ABSENT:
            breakers.add_metric([dependency], state)
    yield breakers
