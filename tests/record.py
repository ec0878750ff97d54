"""The dated record of ``make test-full``: what ran, how long, and what each test measured (``record_property``)."""

import json
import time
from collections import Counter
from typing import Any

import pytest

from benchmarks.machine import RESULTS, describe

_tests: list[dict[str, Any]] = []
_started = time.monotonic()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the call of each test, or the phase that kept it from being called."""
    if report.when == "call" or not report.passed:
        row = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3)}
        _tests.append(row | ({"measured": dict(report.user_properties)} if report.user_properties else {}))


def pytest_sessionfinish() -> None:
    """Write the record."""
    outcomes = Counter(row["outcome"] for row in _tests)
    record = {**describe(), "seconds": round(time.monotonic() - _started, 1), "outcomes": outcomes, "tests": _tests}
    path = RESULTS / f"{record['date'][:10]}-test-full.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
