"""The Cython core beside its readable twin, and the login body's two steps; run by ``make bench``."""

from types import ModuleType

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.tokens import ISSUER, tokens_of
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


DECODE = msgspec.json.Decoder(dict).decode


@IMPLEMENTATIONS
@pytest.mark.benchmark(group="read_claims")
def test_the_claims_of_a_token(benchmark: BenchmarkFixture, core: ModuleType) -> None:
    payload = _core_py.split_token(tokens_of("ES256")[0], 8192)[1]  # type: ignore[index]
    arguments = (DECODE, 16, ISSUER, ISSUER, 1_700_000_000, 0, 1 << 40)
    assert type(benchmark(core.read_claims, payload, *arguments)) is tuple


@IMPLEMENTATIONS
@pytest.mark.benchmark(group="judge")
def test_claims_that_are_decoded_already(benchmark: BenchmarkFixture, core: ModuleType) -> None:
    members = DECODE(_core_py.split_token(tokens_of("ES256")[0], 8192)[1])  # type: ignore[index]
    arguments = (lambda _: members, 16, ISSUER, ISSUER, 1_700_000_000, 0, 1 << 40)
    assert type(benchmark(core.read_claims, b"{}", *arguments)) is tuple


@IMPLEMENTATIONS
@pytest.mark.benchmark(group="parse")
def test_the_whole_strict_parse_of_a_token(benchmark: BenchmarkFixture, core: ModuleType) -> None:
    token = tokens_of("RS256")[0]

    def parse() -> object:
        _, payload, _, _ = core.split_token(token, 8192)
        return core.read_claims(payload, DECODE, 16, ISSUER, ISSUER, 1_700_000_000, 0, 1 << 40)

    assert type(benchmark(parse)) is tuple


@IMPLEMENTATIONS
@pytest.mark.benchmark(group="seen")
def test_a_token_found_in_the_cache(benchmark: BenchmarkFixture, core: ModuleType) -> None:
    seen = core.SeenTokens(1 << 20, lambda _: True)
    seen.put(b"token", "claims", "subject", 100, 100, 0, 1)
    assert benchmark(seen.get, b"token", 1) == "claims"
