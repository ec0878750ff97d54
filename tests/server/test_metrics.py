"""``/metrics``: one text for all workers, which Prometheus can read."""

import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from fastauth import core
from fastauth.server.counters import BOUNDS_S, HASH, LOOP_DELAY, ROUTES, STATUSES, Counters
from fastauth.server.metrics import Metrics
from fastauth.server.workers import WorkerState, WorkerTable, monotonic_us
from tests.cases import each


class Page:
    """What the metrics say, by name and labels."""

    def __init__(self, counters: Counters, table: WorkerTable | None = None, evictions: int = 0) -> None:
        kind, text = Metrics(counters, table or WorkerTable(None), lambda: evictions).render()
        assert kind.startswith("text/plain; version=0.0.4")
        self.families = {family.name: family for family in text_string_to_metric_families(text.decode())}

    def value(self, name: str, **labels: str) -> float:
        (sample,) = [sample for sample in self.samples(name) if sample.labels == labels]
        return float(sample.value)

    def samples(self, name: str) -> list[Sample]:
        return [sample for family in self.families.values() for sample in family.samples if sample.name == name]


def test_a_request_counts_by_route_and_status_and_by_how_long_it_took() -> None:
    counters = Counters(None)
    count = counters.of_requests()
    for seconds in (0.0001, 0.0003, 0.0003, 2.0, 60.0):
        count("/verify", 200, seconds)
    count("/verify", 401, 0.0001)
    page = Page(counters)
    assert page.value("fastauth_requests_total", route="/verify", status="2xx") == 5
    assert page.value("fastauth_requests_total", route="/verify", status="4xx") == 1
    assert page.value("fastauth_requests_total", route="/auth", status="2xx") == 0
    buckets = {
        sample.labels["le"]: sample.value
        for sample in page.samples("fastauth_request_seconds_bucket")
        if sample.labels["route"] == "/verify"
    }
    assert (buckets["0.00025"], buckets["0.0005"], buckets["1.0"], buckets["2.5"], buckets["10.0"]) == (2, 4, 4, 5, 5)
    assert buckets["+Inf"] == page.value("fastauth_request_seconds_count", route="/verify") == 6
    assert page.value("fastauth_request_seconds_sum", route="/verify") == pytest.approx(62.0008, abs=1e-4)


@each(
    ("status", "column"),
    [(200, "2xx"), (204, "2xx"), (304, "3xx"), (400, "4xx"), (429, "429"), (431, "4xx"), (500, "5xx"), (503, "503")],
)
def test_refusals_that_are_no_mistakes_have_columns_of_their_own(status: int, column: str) -> None:
    counters = Counters(None)
    counters.of_requests()("/auth", status, 0.0)
    page = Page(counters)
    for other in STATUSES:
        assert page.value("fastauth_requests_total", route="/auth", status=other) == (other == column)


def test_a_bound_belongs_to_the_bucket_below_it() -> None:
    counters = Counters(None)
    for bound_s in BOUNDS_S:
        counters.of_time(HASH)(bound_s)
    counts, sum_s = counters.histogram(HASH)
    assert counts == [1] * len(BOUNDS_S) + [0]
    assert sum_s == pytest.approx(sum(BOUNDS_S), abs=1e-4)


def test_every_route_has_its_own_counters() -> None:
    counters = Counters(None)
    count = counters.of_requests()
    for number, route in enumerate(ROUTES, 1):
        for _ in range(number):
            count(route, 200, 0.001)
    page = Page(counters)
    for number, route in enumerate(ROUTES, 1):
        assert page.value("fastauth_request_seconds_count", route=route) == number
        assert page.value("fastauth_requests_total", route=route, status="2xx") == number


def test_workers_count_together_and_lose_nothing(tmp_path: Path) -> None:
    workers = [Counters(tmp_path / "counters") for _ in range(2)]
    counts = [worker.of_requests() for worker in workers]

    def serve(number: int) -> None:
        for _ in range(2_000):
            counts[number]("/verify", 200, 0.001)

    threads = [threading.Thread(target=serve, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in workers:
        assert Page(worker).value("fastauth_requests_total", route="/verify", status="2xx") == 4_000


def test_times_of_hashes_and_of_the_loop_and_tokens_that_were_checked() -> None:
    counters = Counters(None)
    counters.of_time(HASH)(0.03)
    counters.of_time(LOOP_DELAY)(0.0001)
    counters.count_checked(3)
    counters.count_checked(4)
    counters.count_worker("wedged")
    page = Page(counters, evictions=11)
    assert page.value("fastauth_hash_seconds_sum") == pytest.approx(0.03)
    assert page.value("fastauth_event_loop_delay_seconds_count") == 1
    assert page.value("fastauth_tokens_checked_total") == 7
    assert page.value("fastauth_workers_replaced_total", reason="wedged") == 1
    assert page.value("fastauth_workers_replaced_total", reason="died") == 0
    assert page.value("fastauth_bucket_evictions_total") == 11


def test_what_workers_tell_of_themselves_is_added_up_or_the_worst_of_it() -> None:
    table = WorkerTable(None, 2)
    now_us = monotonic_us()
    more = {"pid": 1 << 30, "beat_us": now_us}
    table.write(
        0,
        WorkerState(
            **more, waiting_login=3, wait_login_us=500_000, sent_away=5, retry_after_s=7, hashing=1, breaker_redis=0
        ),
    )
    table.write(
        3,
        WorkerState(
            **more, waiting_login=4, wait_login_us=200_000, sent_away=6, retry_after_s=2, hashing=2, breaker_redis=2
        ),
    )
    table.write(5, WorkerState(pid=1 << 30, beat_us=now_us - 10_000_000, waiting_login=100))  # it is no more
    page = Page(Counters(None), table)
    assert page.value("fastauth_workers") == 2
    assert page.value("fastauth_queue_length", lane="login") == 7
    assert page.value("fastauth_queue_length", lane="known_device") == 0
    assert page.value("fastauth_queue_wait_seconds", lane="login") == 0.5
    assert page.value("fastauth_tickets_outstanding") == 11
    assert page.value("fastauth_retry_after_seconds") == 7
    assert page.value("fastauth_hashes_running") == 3
    assert page.value("fastauth_breaker_state", dependency="redis") == 2
    assert [sample.labels for sample in page.samples("fastauth_breaker_state")] == [{"dependency": "redis"}]
    assert page.value("fastauth_core", implementation=core.IMPLEMENTATION) == 1


def test_labels_are_few_and_no_client_can_make_one() -> None:
    page = Page(Counters(None))
    assert sum(len(family.samples) for family in page.families.values()) < 600
    assert {sample.labels["route"] for sample in page.samples("fastauth_requests_total")} == set(ROUTES)
