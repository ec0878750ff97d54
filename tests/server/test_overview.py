"""A running server as it looks from outside, between two readings."""

import os
from pathlib import Path

import pytest

from fastauth.server.counters import BOUNDS_S, HASH, Counters, counters_path
from fastauth.server.instance import DrainFlag, drain_path
from fastauth.server.overview import NotRunning, Overview, RunningServer, quantile_ms
from fastauth.server.settings import Settings
from fastauth.server.workers import WorkerState, WorkerTable, monotonic_us, workers_path
from tests.cases import each


class Installation:
    """The files of a server with one worker."""

    def __init__(self, data_dir: Path) -> None:
        self.settings = Settings(data_dir=str(data_dir))
        self.counters = Counters(counters_path(data_dir))
        self.table = WorkerTable(workers_path(data_dir), 1)
        self.drain = DrainFlag(drain_path(self.settings))
        self.tells()

    def tells(self, **more: int) -> None:
        now_us = monotonic_us()
        self.table.write(0, WorkerState(pid=os.getpid(), born_us=now_us - 5_000_000, beat_us=now_us, **more))


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def seen(server: RunningServer, *events: object) -> Overview:
    before = server.read()
    for event in events:
        event()  # type: ignore[operator]
    return server.overview(before, server.read())


def test_what_happened_between_two_readings(installation: Installation) -> None:
    count = installation.counters.of_requests()
    login = installation.counters.of_login_lanes()

    def traffic() -> None:
        for _ in range(90):
            count("/verify", 200, 0.001)
        for _ in range(10):
            count("/verify", 401, 0.2)
        count("/auth", 503, 0.001)
        login(1, "unread")
        login(1, "admitted")
        login(0, "admitted_with_ticket")
        installation.counters.of_time(HASH)(0.05)
        installation.counters.count_checked(9)
        installation.counters.of_limit("login_per_ip")("refused")

    traffic()  # before the first reading, which is nobody's business
    overview = seen(RunningServer(installation.settings), traffic)
    routes = {route.route: route for route in overview.routes}
    per_s = 1 / overview.seconds
    assert routes["/verify"].per_s == pytest.approx(100 * per_s, rel=0.01)
    assert routes["/verify"].p50_ms == pytest.approx(0.8, abs=0.3)
    assert routes["/verify"].p99_ms == pytest.approx(250, abs=60)
    assert routes["/auth"].refused_per_s == pytest.approx(per_s, rel=0.01)
    assert routes["/token"].p99_ms is None
    known, other = overview.lanes
    assert (known.with_ticket_per_s > 0, known.sent_away_per_s) == (True, 0)
    assert other.admitted_per_s == other.sent_away_per_s > 0
    assert overview.hash_ms == pytest.approx(50)
    assert overview.cache_hit_share == pytest.approx(0.9)
    assert next(one for one in overview.limits if one.limit == "login_per_ip").refused_per_s > 0


def test_how_the_workers_are(installation: Installation) -> None:
    server = RunningServer(installation.settings)
    installation.tells(loop_delay_us=1_500, hashing=2, sent_away=40, retry_after_s=9, breaker_database=2)
    installation.drain.set()
    overview = seen(server)
    (worker,) = overview.workers
    assert (worker.pid, worker.up_s, worker.loop_delay_ms, worker.hashing) == (os.getpid(), 5, 1.5, 2)
    assert worker.memory_mib is not None
    assert worker.memory_mib > 5
    assert overview.breakers == {"database": "open"}
    assert (overview.tickets_outstanding, overview.retry_after_s, overview.is_draining) == (40, 9, True)


def test_where_no_server_runs_it_says_so_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no server runs in"):
        RunningServer(Settings(data_dir=str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_a_server_whose_workers_are_all_gone_does_not_run(installation: Installation) -> None:
    server = RunningServer(installation.settings)
    installation.table.clear(0)
    with pytest.raises(NotRunning):
        seen(server)
    with pytest.raises(NotRunning, match="is there"):
        RunningServer(installation.settings)


@each(
    ("counts", "part", "ms"),
    [
        ({0: 1}, 0.5, 0.125),
        ({0: 1}, 1.0, 0.25),
        ({0: 50, 14: 50}, 0.5, 0.25),
        ({0: 50, 14: 50}, 0.75, 7_500),
        ({15: 1}, 0.5, 10_000),
        ({}, 0.5, None),
    ],
)
def test_a_quantile_of_a_histogram(counts: dict[int, int], part: float, ms: float | None) -> None:
    cells = [counts.get(place, 0) for place in range(len(BOUNDS_S) + 1)]
    assert quantile_ms(cells, part) == (ms if ms is None else pytest.approx(ms))
