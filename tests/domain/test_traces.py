"""The request id: the trace of a well-formed ``traceparent`` (W3C Trace Context, level 1), else one of our own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastauth.domain.traces import Trace, parse_traceparent, trace_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{PARENT}-01"

REFUSED = {
    "nothing": "",
    "three fields": f"00-{TRACE}-{PARENT}",
    "upper case": GOOD.upper(),
    "a short trace": f"00-{TRACE[1:]}-{PARENT}-01",
    "a long trace": f"00-{TRACE}a-{PARENT}-01",
    "a trace of zeros": f"00-{'0' * 32}-{PARENT}-01",
    "a parent of zeros": f"00-{TRACE}-{'0' * 16}-01",
    "the forbidden version": f"ff-{TRACE}-{PARENT}-01",
    "more fields in version 00": f"{GOOD}-more",
    "more characters without a hyphen": f"01-{TRACE}-{PARENT}-01more",
    "a space in front": f" {GOOD}",
    "a line feed behind": f"{GOOD}\n",
    "two of them": f"{GOOD}, {GOOD}",
    "no hexadecimal digit": GOOD.replace("b7", "g7"),
    "full-width digits": GOOD.replace("0af7", "０af7"),
    "flags of one digit": GOOD[:-1],
    "a line feed in a later version": f"01-{TRACE}-{PARENT}-01-a\nb",
    "far too much": f"01-{TRACE}-{PARENT}-01-{'a' * 500}",
}


@pytest.mark.parametrize(("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)])
def test_a_good_field_names_the_trace_its_parent_and_whether_it_is_recorded(flags: str, is_sampled: bool) -> None:
    assert parse_traceparent(f"00-{TRACE}-{PARENT}-{flags}".encode()) == Trace(TRACE, PARENT, is_sampled)


@pytest.mark.parametrize("more", ["", "-", "-what a later version adds"])
def test_a_later_version_is_read_as_far_as_it_is_known(more: str) -> None:
    assert parse_traceparent(f"01-{TRACE}-{PARENT}-01{more}".encode()) == Trace(TRACE, PARENT, True)


@pytest.mark.parametrize("kind", REFUSED)
def test_anything_else_is_ignored_and_the_request_gets_a_trace_of_its_own(kind: str) -> None:
    assert parse_traceparent(REFUSED[kind].encode()) is None
    assert trace_of(REFUSED[kind].encode(), lambda bits: bits) == Trace(f"{128:032x}", None, False)


def test_without_the_field_the_trace_is_our_own_and_never_zero() -> None:
    assert trace_of(None, lambda _bits: 0) == Trace(f"{1:032x}", None, False)


@given(st.binary(max_size=80))
def test_whatever_stands_there_nothing_is_raised_and_only_hexadecimal_digits_come_out(value: bytes) -> None:
    trace = trace_of(value, lambda _bits: 7)
    assert len(trace.trace_id) == 32
    assert int(trace.trace_id, 16) > 0
