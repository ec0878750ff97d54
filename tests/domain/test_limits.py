"""How a limit is written, and that what is written is never exceeded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastauth import core
from fastauth.domain.limits import Limit, LimitRefused, RateLimited
from tests.cases import each


@each(
    ("text", "emission_us", "burst", "tier", "is_shadow"),
    [
        ("20/m burst 40", 3_000_000, 40, None, False),
        ("1000/s", 1_000, 1_000, None, False),
        ("1/d", 86_400_000_000, 1, None, False),
        ("1000000/s burst 5", 1, 5, None, False),
        ("1/10s", 10_000_000, 1, None, False),
        ("90/30m burst 9 shadow", 20_000_000, 9, None, True),
        ("5/hour burst 6 exact", 720_000_000, 6, "exact", False),
        ("  5/minute   burst  6 leased   shadow ", 12_000_000, 6, "leased", True),
        ("7/s shadow local", 142_858, 7, "local", True),
    ],
)
def test_a_limit_is_read_as_it_is_written(
    text: str, emission_us: int, burst: int, tier: str | None, is_shadow: bool
) -> None:
    limit = Limit.parse(text)
    assert (limit.emission_us, limit.burst, limit.tier, limit.is_shadow) == (emission_us, burst, tier, is_shadow)
    assert limit.window_us == emission_us * burst


@each(
    ("text", "reason"),
    [
        ("", "not a limit"),
        ("off", "not a limit"),
        ("20", "not a limit"),
        ("20/m40", "not a limit"),
        ("-1/s", "not a limit"),
        ("1.5/s", "not a limit"),
        ("nan/s", "not a limit"),
        ("1e308/s", "not a limit"),
        ("٣/s", "not a limit"),
        ("9999999999/s", "not a limit"),
        ("1/s burst -1", "not a limit"),
        ("1/s burst 1 burst 2", "not a limit"),
        ("1/s quick", "not a limit"),
        ("1/week", "no such unit"),
        ("0/s", "nothing"),
        ("1/0s", "nothing"),
        ("1/s burst 0", "never admit"),
        ("1/2d", "slowest"),
        ("2000000/s", "fastest"),
        ("300000/s", "250000/s"),
        ("1/d burst 999999", "burst is out of range"),
        ("1/s burst 999999999999999999", "burst is out of range"),
        ("1/s exact exact", "enough"),
        ("1/s exact leased", "enough"),
        ("1/s shadow shadow", "enough"),
        ("1/s " + "x" * 200, "not a limit"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(LimitRefused, match=reason):
        Limit.parse(text)


@each(("emission_us", "burst"), [(0, 1), (1, 0), (1.5, 1), (1, True), (2**63, 1), (1, 2**63), (86_400_000_001, 1)])
def test_numbers_out_of_range_are_refused_too(emission_us: int, burst: int) -> None:
    with pytest.raises(LimitRefused):
        Limit(emission_us, burst)


@given(st.integers(1, 1_000_000), st.sampled_from("smhd"))
def test_no_limit_admits_more_than_is_written_nor_one_percent_less(count: int, unit: str) -> None:
    period_us = {"s": 1, "m": 60, "h": 3600, "d": 86_400}[unit] * 1_000_000
    try:
        limit = Limit.parse(f"{count}/{unit} burst 1")
    except LimitRefused:
        assert count > 9_000
        return
    assert period_us <= limit.emission_us * count <= period_us * 1.01 + count / 100


@given(st.integers(1, 10**9), st.integers(1, 10_000), st.integers(1, 64))
def test_shares_together_are_no_more_than_the_whole_and_none_is_nothing(
    emission_us: int, burst: int, nodes: int
) -> None:
    limit = Limit(emission_us, burst)
    share = limit.share(nodes)
    assert share.burst >= 1
    assert share.burst * nodes <= burst or share.burst == 1
    assert share.emission_us >= min(emission_us * nodes, core.MAX_EMISSION_US)
    assert share.emission_us * share.burst <= limit.window_us or share.burst == 1
    assert limit.share(1).emission_us == emission_us


@each(("retry_us", "retry_s"), [(0, 1), (1, 1), (1_000_000, 1), (1_000_001, 2), (59_999_999, 60)])
def test_the_time_to_come_back_is_in_whole_seconds_and_never_too_short(retry_us: int, retry_s: int) -> None:
    assert RateLimited("x", retry_us).retry_after_s == retry_s
