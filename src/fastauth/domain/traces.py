"""Which request it is: the trace that its sender says it belongs to (W3C Trace Context, level 1), or one of our own."""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

_LONGEST_BYTES: Final = 512
# Lower case only (section 3.2.2). Versions after 00 may add fields behind a hyphen; ff is forbidden.
_TRACEPARENT: Final = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?")
_NO_TRACE: Final = "0" * 32
_NO_PARENT: Final = "0" * 16


class Trace(NamedTuple):
    """A trace id of 32 hexadecimal digits, the span that the request comes from, and whether its sender records it.

    ``parent_id`` is None for a trace that begins here; ``is_sampled`` is then False and says nothing.
    """

    trace_id: str
    parent_id: str | None
    is_sampled: bool


def parse_traceparent(value: bytes | None) -> Trace | None:
    """The trace of a ``traceparent`` field; None for none and for anything that is malformed. Raises nothing."""
    if value is None or len(value) > _LONGEST_BYTES:
        return None
    match = _TRACEPARENT.fullmatch(value)
    if match is None or (match[1] == b"00" and match[5] is not None):
        return None
    trace_id, parent_id = match[2].decode(), match[3].decode()
    if trace_id == _NO_TRACE or parent_id == _NO_PARENT:
        return None
    return Trace(trace_id, parent_id, bool(int(match[4], 16) & 1))


def trace_of(value: bytes | None, random_bits: Callable[[int], int]) -> Trace:
    """The trace of a ``traceparent`` field, else a new one. In: gives a number of so many random bits."""
    return parse_traceparent(value) or Trace(f"{random_bits(128) or 1:032x}", None, False)
