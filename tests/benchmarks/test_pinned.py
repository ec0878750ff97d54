"""An open loop as a process of its own."""

import os
import time

import pytest

from benchmarks.load.pinned import behaviour_of, run_pinned
from fastauth.rehearsal.arrivals import Segment, arrivals
from tests.rehearsal.test_open_loop import GET, answers_all, small_server


def test_a_spec_runs_in_a_process_of_its_own() -> None:
    streams = [
        {
            "name": "login",
            "segments": [[0.1, 50, 50]],
            "poisson_seed": 7,
            "behaviour": {"kind": "logins", "users": [["ann", "pass"]], "returns_with_ticket": True},
        },
        {
            "name": "get",
            "segments": [[0.1, 100, 100]],
            "connections": 3,
            "most_connections": 5,
            "patience_s": 2.5,
            "behaviour": {"kind": "requests", "requests": [GET.decode()]},
        },
        {"name": "refresh", "segments": [[0.1, 20, 20]], "behaviour": {"kind": "refreshes", "tokens": ["a", "b"]}},
    ]
    before_s = time.monotonic()
    with small_server(answers_all) as server:
        result = run_pinned({"port": server.port, "streams": streams}, core=min(os.sched_getaffinity(0)))
    assert [len(result[name]) for name in ("get", "refresh")] == [10, 2]
    assert result["login"].due_s == pytest.approx(list(arrivals([Segment(0.1, 50, 50)], 7)), abs=1e-6)
    assert set(result["get"].status) == {200}
    assert before_s < result.started_s < time.monotonic()  # the clock of the machine


def test_a_behaviour_that_is_none_is_refused() -> None:
    for spec in ({"kind": "storm"}, {"kind": "logins"}, {}):
        with pytest.raises(ValueError, match="not a behaviour"):
            behaviour_of(spec)
