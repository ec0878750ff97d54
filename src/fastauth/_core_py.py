"""The readable twin of ``_core.pyx``: the same functions, for people and for machines without a compiler.

What a function here answers is the definition; ``tests/twins`` generates
thousands of inputs, the corners of int64 among them, and compares the two.
"""

import re
from typing import Final

IMPLEMENTATION: Final = "python"

_INT64_LOW: Final = -(1 << 63)
_INT64_HIGH: Final = (1 << 63) - 1


def _int64(value: int, name: str) -> int:
    if type(value) is not int:  # bool is an int to isinstance, and 1.5 must not become 1
        raise TypeError(f"{name} must be an int")
    if not _INT64_LOW <= value <= _INT64_HIGH:
        raise OverflowError(f"{name} does not fit 64 bits")
    return value


# ------------------------------------------------------------- token bucket

# now + two windows stays at or below 2**53, where Lua's doubles are still exact.
MAX_NOW_US: Final = 1 << 52
MAX_WINDOW_US: Final = 1 << 51
MAX_EMISSION_US: Final = 86_400_000_000


def gcra(tat_us: int, now_us: int, emission_us: int, burst: int, cost: int) -> tuple[bool, int, int, int]:
    """Decide one request against a token bucket kept as one arrival time.

    The generic cell rate algorithm (ITU-T I.371, virtual scheduling form): a bucket
    of ``burst`` tokens that regains one token each ``emission_us`` is fully described by
    its theoretical arrival time, the moment at which it will be full again.

    In: ``tat_us`` the stored arrival time (0 for a bucket never seen), ``now_us`` the time on
    the same clock, ``emission_us`` microseconds per token (1 to one day), ``burst`` tokens in a
    full bucket (``emission_us * burst`` at most ``MAX_WINDOW_US``), ``cost`` tokens wanted
    (1 to ``burst``: more could never be admitted).

    Out: ``(allowed, tat_us to store, whole tokens remaining, retry_after_us)``. A refusal leaves the
    bucket as it was; waiting ``retry_after_us`` admits the same request if nobody else takes tokens.
    An arrival time further ahead than one full window, which only a clock that jumped back can
    leave behind, counts as one window: nobody is locked out for longer.

    Raises TypeError for anything but int, OverflowError beyond int64, ValueError out of range.
    """
    tat_us = _int64(tat_us, "tat_us")
    now_us = _int64(now_us, "now_us")
    emission_us = _int64(emission_us, "emission_us")
    burst = _int64(burst, "burst")
    cost = _int64(cost, "cost")
    if not 0 <= now_us <= MAX_NOW_US:
        raise ValueError("now_us is out of range")
    if not 0 <= tat_us <= 2 * MAX_NOW_US:
        raise ValueError("tat_us is out of range")
    if not 1 <= emission_us <= MAX_EMISSION_US:
        raise ValueError("emission_us is out of range")
    if not 1 <= burst <= MAX_WINDOW_US // emission_us:
        raise ValueError("burst is out of range")
    if not 1 <= cost <= burst:
        raise ValueError("cost is out of range")

    window_us = emission_us * burst
    tat_us = min(max(tat_us, now_us), now_us + window_us)
    after_us = tat_us + emission_us * cost
    retry_after_us = max(0, after_us - window_us - now_us)
    allowed = retry_after_us == 0
    if allowed:
        tat_us = after_us
    return allowed, tat_us, (now_us + window_us - tat_us) // emission_us, retry_after_us


# -------------------------------------------------------------- claim times

TIMES_OK: Final = 0
TIMES_EXPIRED: Final = 1
TIMES_NOT_YET_VALID: Final = 2
TIMES_ISSUED_IN_FUTURE: Final = 3


def check_times(now_s: int, exp_s: int, nbf_s: int | None, iat_s: int | None, leeway_s: int, skew_s: int) -> int:
    """Judge a token's times (RFC 7519 sections 4.1.4 to 4.1.6).

    In: whole seconds since 1970 UTC; None for a claim that is absent. ``leeway_s`` lengthens the life
    after ``exp`` ("on or after which the JWT MUST NOT be accepted": 0 is strict); ``skew_s`` is how far
    ``nbf`` and ``iat`` may lie ahead, because clocks differ. Neither is negative.

    Out: ``TIMES_OK``, or the first of ``TIMES_EXPIRED``, ``TIMES_NOT_YET_VALID``, ``TIMES_ISSUED_IN_FUTURE``.

    Raises TypeError for anything but int, OverflowError beyond int64, ValueError for a negative allowance.
    """
    now_s = _int64(now_s, "now_s")
    exp_s = _int64(exp_s, "exp_s")
    nbf_s = _INT64_LOW if nbf_s is None else _int64(nbf_s, "nbf_s")
    iat_s = _INT64_LOW if iat_s is None else _int64(iat_s, "iat_s")
    leeway_s = _int64(leeway_s, "leeway_s")
    skew_s = _int64(skew_s, "skew_s")
    if leeway_s < 0 or skew_s < 0:
        raise ValueError("leeway_s and skew_s must not be negative")

    latest_start_s = min(now_s + skew_s, _INT64_HIGH)
    if exp_s <= max(now_s - leeway_s, _INT64_LOW):
        return TIMES_EXPIRED
    if nbf_s > latest_start_s:
        return TIMES_NOT_YET_VALID
    if iat_s > latest_start_s:
        return TIMES_ISSUED_IN_FUTURE
    return TIMES_OK


# --------------------------------------------------------- JSON member scan

JSON_OK: Final = 0
JSON_DUPLICATE: Final = 1
JSON_TOO_DEEP: Final = 2
JSON_TOO_MANY: Final = 3
JSON_MALFORMED: Final = 4

MAX_JSON_DEPTH: Final = 64
MAX_JSON_MEMBERS: Final = 512

_STRING = re.compile(rb'"((?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*)"')
_UNIT = rb"\\u([0-9A-Fa-f]{4})"
_ESCAPE = re.compile(rb"\\u([Dd][89ABab]..)\\u([Dd][C-Fc-f]..)|" + _UNIT + rb"|\\(.)", re.DOTALL)
_PLAIN_ESCAPES: Final = {
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b'"': b'"',
    b"\\": b"\\",
    b"/": b"/",
}


def _resolve_escape(match: re.Match[bytes]) -> bytes:
    high, low, unit, plain = match.groups()
    if plain is not None:
        return _PLAIN_ESCAPES[plain]
    if unit is not None:
        point = int(unit, 16)
    else:
        point = 0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00)
    return chr(point).encode("utf-8", "surrogatepass")


def scan_json(data: bytes, max_depth: int = MAX_JSON_DEPTH, max_members: int = MAX_JSON_MEMBERS) -> int:
    r"""Find duplicate member names, excessive depth and excessive members before decoding.

    msgspec keeps the last of two equal names; RFC 7493 section 2.3 forbids them and RFC 8725 section 2.4
    is why: two parsers that choose differently disagree about who logged in. Names are compared with
    their escapes resolved, so ``"a"`` equals ``"\u0061"``. The whole document must be UTF-8 (RFC 8259 section 8.1):
    the decoder does not look into members that it skips. The scan looks only at strings, brackets and commas; whether
    the rest is JSON is the decoder's word.

    In: ``data`` the document; ``max_depth`` open containers at once (1 to ``MAX_JSON_DEPTH``);
    ``max_members`` names in the whole document (1 to ``MAX_JSON_MEMBERS``), which also bounds the
    comparisons.

    Out: ``JSON_MALFORMED`` for anything but UTF-8, else ``JSON_OK`` or the first of ``JSON_DUPLICATE``,
    ``JSON_TOO_DEEP``, ``JSON_TOO_MANY``, ``JSON_MALFORMED`` met from left to right.

    Raises TypeError for anything but bytes and ints, ValueError for a limit out of range.
    """
    max_depth = _int64(max_depth, "max_depth")
    max_members = _int64(max_members, "max_members")
    if type(data) is not bytes:
        raise TypeError("data must be bytes")
    if not 1 <= max_depth <= MAX_JSON_DEPTH:
        raise ValueError("max_depth is out of range")
    if not 1 <= max_members <= MAX_JSON_MEMBERS:
        raise ValueError("max_members is out of range")

    try:
        data.decode()
    except UnicodeDecodeError:
        return JSON_MALFORMED
    closers: list[str] = []  # what closes each open container
    names: list[set[bytes]] = []  # the names seen in each open container
    total = 0
    name_next = False
    position = 0
    while position < len(data):
        char = chr(data[position])
        if char == '"':
            string = _STRING.match(data, position)
            if string is None:
                return JSON_MALFORMED
            if name_next:
                if total >= max_members:
                    return JSON_TOO_MANY
                name = _ESCAPE.sub(_resolve_escape, string[1])
                if name in names[-1]:
                    return JSON_DUPLICATE
                names[-1].add(name)
                total += 1
                name_next = False
            position = string.end() - 1
        elif char in "{[":
            if len(closers) >= max_depth:
                return JSON_TOO_DEEP
            closers.append("}" if char == "{" else "]")
            names.append(set())
            name_next = char == "{"
        elif char in "}]":
            if not closers or closers[-1] != char:
                return JSON_MALFORMED
            closers.pop()
            names.pop()
            name_next = False
        elif char == ",":
            name_next = bool(closers) and closers[-1] == "}"
        position += 1
    return JSON_MALFORMED if closers else JSON_OK
