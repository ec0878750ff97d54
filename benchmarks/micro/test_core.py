"""The Cython core beside its readable twin, and the login body's two steps; run by ``make bench``."""

from types import ModuleType

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastauth import _core, _core_py

BODY = b'{"username": "somebody@example.org", "password": "correct horse battery staple"}'
IMPLEMENTATIONS = pytest.mark.parametrize("core", [_core, _core_py], ids=["cython", "python"])


@IMPLEMENTATIONS
@pytest.mark.benchmark(group="gcra")
def test_a_bucket_decision(benchmark: BenchmarkFixture, core: ModuleType) -> None:
    assert benchmark(core.gcra, 1_000_500, 1_000_000, 1_000, 100, 1)[0] is True


@IMPLEMENTATIONS
@pytest.mark.benchmark(group="check_times")
def test_the_times_of_a_token(benchmark: BenchmarkFixture, core: ModuleType) -> None:
    assert benchmark(core.check_times, 1_800_000_000, 1_800_003_600, None, 1_800_000_000, 0, 60) == core.TIMES_OK


@IMPLEMENTATIONS
@pytest.mark.benchmark(group="scan_json")
def test_the_member_scan_of_a_login_body(benchmark: BenchmarkFixture, core: ModuleType) -> None:
    assert benchmark(core.scan_json, BODY) == core.JSON_OK
