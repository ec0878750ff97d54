"""What the compiled core and its twin are fed: mostly corners, where a 64-bit integer and Python's int part ways.

An example is one draw of bytes, read as choices: several times faster than a draw for each choice, and it
shrinks as well.
"""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from hypothesis import strategies as st

from fastauth._core_py import MAX_EMISSION_US, MAX_NOW_US, MAX_WINDOW_US

T = TypeVar("T")

EXAMPLES: Final = 50_000 if os.environ.get("FASTAUTH_TEST_FULL") == "1" else 2_000


class Choices:
    """Decisions read from a string of bytes; zeros once it is used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def below(self, bound: int) -> int:
        """0 to ``bound`` - 1."""
        size = (bound.bit_length() + 7) // 8
        chosen, self._data = self._data[:size], self._data[size:]
        return int.from_bytes(chosen) % bound

    def pick(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self.below(len(options))]


def built(build: Callable[[Choices], T], size: int) -> st.SearchStrategy[T]:
    """What ``build`` makes of ``size`` bytes of choices."""
    return st.binary(min_size=size, max_size=size).map(lambda data: build(Choices(data)))


# ------------------------------------------------------------------ numbers

LOW: Final = -(1 << 63)
HIGH: Final = (1 << 63) - 1
BEYOND_INT64: Final = (LOW - 1, HIGH + 1, 1 << 64, -(1 << 64), 10**30)
INT64_CORNERS: Final = (
    *(LOW, LOW + 1, -(1 << 62), -(1 << 32), -2, -1, 0, 1, 2, 1 << 31, 1 << 32, (1 << 53) - 1, 1 << 53, 1 << 62),
    *(HIGH - 1, HIGH),
)
NOT_INTEGERS: Final = (True, False, 0.0, 1.0, 1.5, float("nan"), float("inf"), None, "1", b"1", [1])
ODD_VALUES: Final[tuple[Any, ...]] = (*INT64_CORNERS, *BEYOND_INT64, *NOT_INTEGERS)

# ------------------------------------------------------------------ buckets

_TIMES: Final = (0, 1, MAX_NOW_US - 1, MAX_NOW_US, MAX_NOW_US + 1, 2 * MAX_NOW_US)
_EMISSIONS: Final = (1, 2, 1000, 1_000_000, MAX_EMISSION_US - 1, MAX_EMISSION_US)
_SIZES: Final = (1, 2, 3, 100, 26062, 26063, MAX_WINDOW_US - 1, MAX_WINDOW_US, MAX_WINDOW_US + 1)


def bucket_arguments(choices: Choices) -> tuple[Any, ...]:
    """For ``gcra``: odd values, corners of what is allowed, or times around which the decision changes."""
    match choices.below(3):
        case 0:
            return tuple(choices.pick(ODD_VALUES) for _ in range(5))
        case 1:
            times = (
                choices.pick((choices.below(2 * MAX_NOW_US), *_TIMES)),
                choices.pick((choices.below(MAX_NOW_US), *_TIMES)),
            )
            return *times, choices.pick(_EMISSIONS), choices.pick(_SIZES), choices.pick(_SIZES)
        case _:
            emission_us, burst = 1 + choices.below(5000), 1 + choices.below(50)
            now_us = choices.pick((0, 1, 10**15, MAX_NOW_US))
            ahead_us = (choices.below(burst + 5) - 2) * emission_us + choices.below(3) - 1
            return max(0, now_us + ahead_us), now_us, emission_us, burst, 1 + choices.below(burst)


# ------------------------------------------------------------------ JSON

_FRAGMENTS: Final = (
    *("{", "}", "[", "]", ",", ":", " ", "\n", "1", "-1e5", "true", "null", '"', "\\", "x", "\x00", "\x1f", "\x7f"),
    *('"a"', '"\\u0061"', '"\\u0041"', '"A"', '""', '"é"', '"\\u00e9"', '"\\u00E9"', '"e\\u0301"', '"/"', '"\\/"'),
    *('"\\n"', '"\\u000a"', '"\\b"', '"\\u0008"', '"\\t"', '"\\f"', '"\\r"', '"\\""', '"\\u0022"', '"\\\\"'),
    *('"\\u005c"', '"😀"', '"\\ud83d\\ude00"', '"\\uD83D\\uDE00"', '"\\ud83d"', '"\\ude00"', '"\\ud83dx"'),
    *('"\\ud83d\\u0061"', '"\\ud83d\\\\ude00"', '"\\\\u0061"', '"\\u006"', '"\\u00g1"', '"\\x"', '"\\u', '"\\'),
    *('{"a":', '{"a":1,', '{"\\u0061":[', '"b":{', "],", "},", '"a":1', '"{"', '"["', '","', "\ud800"),
)
NAMES: Final = (
    *("a", "b", "A", "é", "e\u0301", "\b", "\f", "\n", "\r", "\t", '"', "\\", "/", "", "u0061"),
    *("😀", "\U00010000", "\U0010ffff", "\ud83d", "\ude00", "\u2028", "\u07ff", "\uffff"),
)
_LEAVES: Final = ("a", "a", "a", "😀", "{", '"a":1,"a":1', "\\", "", None, True, 0, -1.5)
_CUTS: Final = (b"", b'"', b"\\", b"{", b"}", b"]", b",", b"\x1f", b"\xff", b"u", b"d83d", b'"a":1,', b'{"a":')


def json_soup(choices: Choices) -> bytes:
    """Pieces of JSON in any order."""
    pieces = (choices.pick(_FRAGMENTS) for _ in range(choices.below(25)))
    return "".join(pieces).encode("utf-8", "surrogatepass")


def json_text(choices: Choices, depth: int = 4) -> str:
    """Valid JSON in which names often stand twice, in different spellings."""
    kind = choices.below(256)
    if depth == 0 or kind < 64:
        return json.dumps(choices.pick(_LEAVES))
    items = [json_text(choices, depth - 1) for _ in range(kind % 5)]
    if kind < 112:
        return "[" + ",".join(items) + "]"
    names = [choices.pick(NAMES) for _ in range(5)]
    return "{" + ", ".join(f"{spelled(choices.pick(names), choices.below(4))}: {item}" for item in items) + "}"


def broken_json(choices: Choices) -> bytes:
    """Valid JSON with a few bytes replaced, cut out or put in."""
    data = json_text(choices).encode("utf-8", "surrogatepass")
    for _ in range(1 + choices.below(3)):
        start = choices.below(len(data) + 1)
        data = data[:start] + choices.pick(_CUTS) + data[start + choices.below(3) :]
    return data


def spelled(name: str, style: int) -> str:
    """A JSON string for ``name``: as it is, escaped where it must be, or all ``\\uXXXX`` in small or capital digits."""
    if style == 0 and not any("\ud800" <= char <= "\udfff" for char in name):
        return json.dumps(name, ensure_ascii=False)
    if style <= 1:
        return json.dumps(name)
    units = name.encode("utf-16-be", "surrogatepass").hex()
    units = units.upper() if style == 3 else units
    return '"' + "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4)) + '"'
