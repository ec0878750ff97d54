"""The readable twin of ``_core.pyx``: the same functions, for people and for machines without a compiler.

What a function here answers is the definition; ``tests/twins`` generates
thousands of inputs, the corners of int64 among them, and compares the two.
"""

import base64
import bisect
import contextlib
import fcntl
import math
import mmap
import re
import struct
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any, Final

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


# ------------------------------------------------- rates, decisions, the table


class Rate:
    """A token bucket's two numbers: microseconds per token (1 to one day), and tokens in a full bucket.

    Raises TypeError for anything but int, ValueError out of range (see ``gcra``).
    """

    __slots__ = ("burst", "emission_us")

    def __init__(self, emission_us: int, burst: int) -> None:
        self.emission_us = _int64(emission_us, "emission_us")
        self.burst = _int64(burst, "burst")
        if not 1 <= emission_us <= MAX_EMISSION_US:
            raise ValueError("emission_us is out of range")
        if not 1 <= burst <= MAX_WINDOW_US // emission_us:
            raise ValueError("burst is out of range")

    @property
    def window_us(self) -> int:
        """How long an empty bucket takes to fill."""
        return self.emission_us * self.burst


class Decision:
    """What a bucket said: whether the request is admitted, whole tokens remaining, when to come again."""

    __slots__ = ("allowed", "remaining", "retry_after_us")

    def __init__(self, allowed: bool, remaining: int, retry_after_us: int) -> None:
        self.allowed = allowed
        self.remaining = remaining
        self.retry_after_us = retry_after_us

    @property
    def retry_after_s(self) -> float:
        """Seconds after which the same request is admitted, if nobody else takes tokens; 0.0 when it was."""
        return self.retry_after_us / 1e6

    def __eq__(self, other: object) -> bool:
        if type(other) is not Decision:
            return NotImplemented
        return hash(self) == hash(other) and self._numbers() == other._numbers()

    def __hash__(self) -> int:
        return hash(self._numbers())

    def _numbers(self) -> tuple[bool, int, int]:
        return self.allowed, self.remaining, self.retry_after_us

    def __repr__(self) -> str:
        return f"Decision(allowed={self.allowed}, remaining={self.remaining}, retry_after_s={self.retry_after_s})"


TABLE_HEADER_BYTES: Final = 4096
TABLE_SLOT_BYTES: Final = 16
MAX_KEY_BYTES: Final = 1024
MAX_HELD: Final = 1_000_000

_EVICTIONS_AT: Final = 72
_IN_LINE: Final = 4
_LINES: Final = 8
_SLOT: Final = struct.Struct("=Qq")
_WORD: Final = struct.Struct("=Q")
_WORD_MASK: Final = (1 << 64) - 1


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _WORD_MASK


def _sip_round(a: int, b: int, c: int, d: int) -> tuple[int, int, int, int]:
    a = (a + b) & _WORD_MASK
    b = _rotate(b, 13) ^ a
    a = _rotate(a, 32)
    c = (c + d) & _WORD_MASK
    d = _rotate(d, 16) ^ c
    a = (a + d) & _WORD_MASK
    d = _rotate(d, 21) ^ a
    c = (c + b) & _WORD_MASK
    b = _rotate(b, 17) ^ c
    return a, b, _rotate(c, 32), d


def _siphash(secret: bytes, text: bytes) -> int:
    """SipHash-1-3 (Aumasson and Bernstein, 2012): 64 bits that nobody without the secret can aim at."""
    low: int
    high: int
    low, high = struct.unpack("=QQ", secret)
    a, b = low ^ 0x736F6D6570736575, high ^ 0x646F72616E646F6D
    c, d = low ^ 0x6C7967656E657261, high ^ 0x7465646279746573
    padded = text + bytes(7 - len(text) % 8) + bytes([len(text) & 0xFF])
    for (word,) in _WORD.iter_unpack(padded):
        a, b, c, d = _sip_round(a, b, c, d ^ word)
        a ^= word
    c ^= 0xFF
    for _ in range(3):
        a, b, c, d = _sip_round(a, b, c, d)
    return a ^ b ^ c ^ d


class _Exclusive:
    """One thread of one process at a time: the twin's stand-in for atomic instructions."""

    __slots__ = ("_descriptor", "_lock")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._descriptor < 0:
                yield
                return
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


class BucketTable:
    """Token buckets by key, shared by every process that maps the same memory.

    In: ``memory`` writable, ``TABLE_HEADER_BYTES`` and then a power of two of cache lines with four slots each;
    ``descriptor`` the file behind it, on which the twin locks (the compiled table needs no lock), or -1; ``hash_key``
    16 secret bytes, the same for all processes, so that nobody can aim keys at one place.

    A slot holds the key's hash and a time on the machine's monotonic clock: when the bucket will be full. A bucket that
    is full is as good as an empty slot, so what is idle expires by itself. A key may lie in one of 32 slots; when all
    hold buckets that are not full, the one nearest to full makes room and is counted in ``evictions``.

    ``cost`` is in tokens, 1 to the rate's burst. ``now_us`` replaces the clock, for tests. Keys are str or bytes (a str
    is its UTF-8) of at most ``MAX_KEY_BYTES``; a bucket is its key's alone, so keys of two limits must differ. Methods
    raise TypeError for wrong types and ValueError out of range; the bucket is then unchanged.
    """

    def __init__(self, memory: mmap.mmap, descriptor: int, hash_key: bytes) -> None:
        if type(hash_key) is not bytes or len(hash_key) != 16:
            raise ValueError("hash_key must be 16 bytes")
        lines = (len(memory) - TABLE_HEADER_BYTES) // (_IN_LINE * _SLOT.size)
        if lines < _LINES or lines & (lines - 1) or TABLE_HEADER_BYTES + lines * _IN_LINE * _SLOT.size != len(memory):
            raise ValueError("memory is not a header and a power of two of cache lines")
        self._exclusive = _Exclusive(_int64(descriptor, "descriptor"))
        self._memory = memory
        self._lines = lines
        self._hash_key = hash_key

    def take(self, key: str | bytes, rate: Rate, cost: int = 1, now_us: int | None = None) -> Decision:
        """Take tokens if there are enough; a refusal changes nothing."""
        _check_cost(cost, rate, now_us)
        window = self._window(key)
        with self._exclusive():
            now = _clock_us(now_us)
            at, when = self._place(window, now)
            allowed, tat, remaining, retry_us = gcra(when, now, rate.emission_us, rate.burst, cost)
            if allowed:
                self._write(at, window[0], tat)
            return Decision(allowed, remaining, retry_us)

    def peek(self, key: str | bytes, rate: Rate, cost: int = 1, now_us: int | None = None) -> Decision:
        """What ``take`` would say; nothing changes."""
        _check_cost(cost, rate, now_us)
        window = self._window(key)
        with self._exclusive():
            now = _clock_us(now_us)
            allowed, _, remaining, retry_us = gcra(self._find(window)[1], now, rate.emission_us, rate.burst, cost)
            return Decision(allowed, remaining, retry_us)

    def charge(self, key: str | bytes, rate: Rate, cost: int = 1, now_us: int | None = None) -> int:
        """Take tokens even if there are not enough: an empty bucket stays empty, never below. Out: as ``debt``."""
        _check_cost(cost, rate, now_us)
        return self._shift(key, rate, cost * rate.emission_us, 0, now_us)

    def raise_debt(self, key: str | bytes, rate: Rate, debt_us: int, now_us: int | None = None) -> int:
        """Empty the bucket as far as another copy of it, which had ``debt_us`` to go until full. Out: as ``debt``."""
        if _int64(debt_us, "debt_us") < 0:
            raise ValueError("debt_us is out of range")
        _check_now(now_us)
        return self._shift(key, rate, 0, debt_us, now_us)

    def debt(self, key: str | bytes, rate: Rate, now_us: int | None = None) -> int:
        """Microseconds until the bucket is full, 0 for one that is or was never used."""
        _check_now(now_us)
        window = self._window(key)
        with self._exclusive():
            return min(max(self._find(window)[1] - _clock_us(now_us), 0), rate.window_us)

    def hold(self, key: str | bytes, until_us: int, now_us: int | None = None) -> int:
        """Count one more under a key that is no bucket's and belongs to this one ``until_us``.

        Out: the count. Beyond ``MAX_HELD`` it is answered but no longer counted. After ``until_us`` on the monotonic
        clock, in microseconds, the counter is as good as an empty slot: what a killed process held ends with it.
        """
        _check_until(until_us)
        _check_now(now_us)
        window = self._window(key)
        with self._exclusive():
            at, when = self._place(window, _clock_us(now_us))
            count = max(when - until_us, 0) + 1
            if count <= MAX_HELD:
                self._write(at, window[0], until_us + count)
            return count

    def release(self, key: str | bytes, until_us: int) -> int:
        """Count one less, never below 0. Out: the count."""
        _check_until(until_us)
        window = self._window(key)
        with self._exclusive():
            at, when = self._find(window)
            if when <= until_us:
                return 0
            self._write(at, window[0], when - 1)
            return when - 1 - until_us

    def held(self, key: str | bytes, until_us: int) -> int:
        """The count."""
        _check_until(until_us)
        window = self._window(key)
        with self._exclusive():
            return max(self._find(window)[1] - until_us, 0)

    @property
    def evictions(self) -> int:
        """Buckets that were not full and had to make room, in all processes."""
        evictions: int = _WORD.unpack_from(self._memory, _EVICTIONS_AT)[0]
        return evictions

    def _window(self, key: str | bytes) -> tuple[int, list[int]]:
        """The key's hash, and the offsets of the slots in which it may lie, in probe order."""
        if type(key) not in (str, bytes):
            raise TypeError("key must be str or bytes")
        text = key.encode() if isinstance(key, str) else key
        if len(text) > MAX_KEY_BYTES:
            raise ValueError("key is longer than 1024 bytes")
        hashed = _siphash(self._hash_key, text) or 1  # 0 is an empty slot's
        step = hashed >> 32 | 1  # odd, so the lines of a window are distinct
        lines = [(hashed + i * step) % self._lines for i in range(_LINES)]
        slots = [line * _IN_LINE + i for line in lines for i in range(_IN_LINE)]
        return hashed, [TABLE_HEADER_BYTES + slot * _SLOT.size for slot in slots]

    def _find(self, window: tuple[int, list[int]]) -> tuple[int, int]:
        """The offset of the key's slot, -1 for none, and its time, 0 for none."""
        hashed, offsets = window
        for offset in offsets:
            key, when = _SLOT.unpack_from(self._memory, offset)
            if key == hashed:
                return offset, when
        return -1, 0

    def _place(self, window: tuple[int, list[int]], now_us: int) -> tuple[int, int]:
        """The key's slot, else the one it should get: the first free, else the bucket nearest to full."""
        offset, when = self._find(window)
        if offset >= 0:
            return offset, when
        best, best_when = -1, _INT64_HIGH
        for offset in window[1]:
            key, when = _SLOT.unpack_from(self._memory, offset)
            if key == 0 or when <= now_us:
                self._write(offset, window[0], 0)
                return offset, 0
            if when < best_when:
                best, best_when = offset, when
        _WORD.pack_into(self._memory, _EVICTIONS_AT, self.evictions + 1)
        self._write(best, window[0], 0)
        return best, 0

    def _write(self, offset: int, hashed: int, when: int) -> None:
        _SLOT.pack_into(self._memory, offset, hashed, when)

    def _shift(self, key: str | bytes, rate: Rate, more_us: int, least_us: int, now_us: int | None) -> int:
        window = self._window(key)
        with self._exclusive():
            if more_us == least_us == 0 and self._find(window)[0] < 0:
                return 0
            now = _clock_us(now_us)
            at, when = self._place(window, now)
            debt_us = min(max(when - now, 0), rate.window_us)
            debt_us = min(max(debt_us + more_us, least_us), rate.window_us)
            self._write(at, window[0], now + debt_us)
            return debt_us


def _check_cost(cost: int, rate: Rate, now_us: int | None) -> None:
    if not isinstance(rate, Rate):
        raise TypeError("rate must be a Rate")
    _int64(cost, "cost")
    _check_now(now_us)
    if not 1 <= cost <= rate.burst:
        raise ValueError("cost is out of range")


def _check_now(now_us: int | None) -> None:
    if now_us is not None and not 0 <= _int64(now_us, "now_us") <= MAX_NOW_US:
        raise ValueError("now_us is out of range")


def _clock_us(now_us: int | None) -> int:
    return time.monotonic_ns() // 1000 if now_us is None else now_us


def _check_until(until_us: int) -> None:
    if not 1 <= _int64(until_us, "until_us") <= MAX_NOW_US:
        raise ValueError("until_us is out of range")


_MOST_OBSERVED_S: Final = 1e6


class SharedCounters:
    """64-bit counters, shared by every process that maps the same memory.

    In: ``memory`` writable, eight bytes a counter; ``descriptor`` the file behind it, on which the twin locks, or -1.
    """

    def __init__(self, memory: mmap.mmap, descriptor: int) -> None:
        self._exclusive = _Exclusive(_int64(descriptor, "descriptor"))
        # Not struct.pack_into, which writes a zero first: others read while this writes.
        self._cells = memoryview(memory)[: len(memory) // _WORD.size * _WORD.size].cast("q")

    @property
    def count(self) -> int:
        """How many counters there are."""
        return len(self._cells)

    def add(self, index: int, amount: int = 1) -> None:
        """Count. Raises IndexError for a counter that there is not, ValueError for a negative amount."""
        if not 0 <= _int64(index, "index") < self.count:
            raise IndexError("there is no such counter")
        if _int64(amount, "amount") < 0:
            raise ValueError("amount must not be negative")
        with self._exclusive():
            self._cells[index] = self.read(index) + amount

    def observe(self, first: int, bounds_s: tuple[float, ...], seconds: float) -> None:
        """Count a time in a histogram, whose counters are in a row: one for each bound in seconds, in order, that tells
        what took up to it, one for what took longer, and the sum in microseconds.

        A time below 0 counts as 0, one beyond a million seconds as that. Raises IndexError for one that is not
        there.
        """
        if not 0 <= _int64(first, "first") < self.count - len(bounds_s) - 1:
            raise IndexError("there is no such histogram")
        seconds = min(seconds, _MOST_OBSERVED_S) if seconds >= 0 else 0.0
        self.add(first + bisect.bisect_left(bounds_s, seconds))
        self.add(first + len(bounds_s) + 1, int(seconds * 1e6))

    def read(self, index: int) -> int:
        """What was counted so far. Raises IndexError."""
        if not 0 <= _int64(index, "index") < self.count:
            raise IndexError("there is no such counter")
        return self._cells[index]


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

    msgspec keeps the last of two equal names; RFC 7493 section 2.3 forbids them, RFC 7515 section 4 and RFC 7519
    section 4 let a token be refused for them, and this is why: two parsers that choose differently disagree about who
    logged in. Names are compared with their escapes resolved, so ``"a"`` equals ``"\u0061"``. The whole document must
    be UTF-8 (RFC 8259 section 8.1): the decoder does not look into members that it skips. The scan looks only at
    strings, brackets and commas; whether the rest is JSON is the decoder's word.

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


# ------------------------------------------------------- strict compact form

TOKEN_TOO_LARGE: Final = 1
TOKEN_MALFORMED: Final = 2

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def decode_base64url(text: bytes) -> bytes | None:
    """base64url without padding, strictly (RFC 7515 section 2, RFC 4648 section 3.5).

    Out: the bytes, or None for padding, a foreign character, an impossible length or spare bits that are not zero.
    Anything looser would give one token several spellings, and a revocation or a cache keyed on its text could
    be stepped around.

    Raises TypeError for anything but bytes.
    """
    if type(text) is not bytes:
        raise TypeError("text must be bytes")
    if text.translate(None, _ALPHABET) or len(text) % 4 == 1:
        return None
    data = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if len(text) % 4 and base64.urlsafe_b64encode(data).rstrip(b"=") != text:
        return None
    return data


def split_token(token: bytes, max_bytes: int) -> tuple[bytes, bytes, bytes, bytes] | int:
    """Take a compact JWS apart (RFC 7515 section 7.1). Its size is judged before anything is split or copied.

    In: ``token``, and how many bytes it may have.

    Out: ``(header, payload, signature, signed)``: the protected header still in base64url, because its text is what
    a table of known headers is asked for; payload and signature decoded; and the part that the signature covers.
    Or ``TOKEN_TOO_LARGE``, or ``TOKEN_MALFORMED`` for anything but three parts, the last two in strict base64url.

    Raises TypeError for anything but bytes and int.
    """
    max_bytes = _int64(max_bytes, "max_bytes")
    if type(token) is not bytes:
        raise TypeError("token must be bytes")
    if len(token) > max_bytes:
        return TOKEN_TOO_LARGE
    if token.count(b".") != 2:
        return TOKEN_MALFORMED
    signed, _, signature_text = token.rpartition(b".")
    header, _, payload_text = signed.partition(b".")
    payload = decode_base64url(payload_text)
    signature = decode_base64url(signature_text)
    if payload is None or signature is None:
        return TOKEN_MALFORMED
    return header, payload, signature, signed


# ------------------------------------------------------------------- claims

CLAIMS_MALFORMED: Final = 4
CLAIMS_ISSUER: Final = 5
CLAIMS_AUDIENCE: Final = 6

MAX_SUBJECT_BYTES: Final = 255
MAX_DATE_S: Final = 1 << 53


def read_claims(
    payload: bytes,
    decode: Callable[[bytes], Any],
    max_depth: int,
    issuer: str,
    audience: str,
    now_s: int,
    leeway_s: int,
    skew_s: int,
) -> tuple[Any, ...] | int:
    """Decode the claims of an access token strictly and judge them (RFC 7519 section 4.1, RFC 9068 section 4).

    In: ``payload`` the JSON text; ``decode`` that makes Python objects of it, after ``scan_json`` found it without
    surprises; the exact ``issuer``; the ``audience`` that must be named; the time and the two allowances as in
    ``check_times``.

    Out: ``(iss, sub, aud, exp, iat, nbf, jti, sid, scope, client_id, payload)`` with ``aud`` as a tuple and whole
    seconds, or the first of ``CLAIMS_MALFORMED`` (no object; a claim is missing or of another type, a date is negative
    or beyond 2**53, the subject is empty, longer than ``MAX_SUBJECT_BYTES`` in UTF-8 or has a NUL), ``CLAIMS_ISSUER``,
    ``CLAIMS_AUDIENCE``, then a ``TIMES_`` code. A fraction of a second, which only foreign issuers send, is rounded to
    the stricter side: that of ``iat`` up to be judged, and down to be compared with a revocation.

    Raises what ``decode`` raises; TypeError, OverflowError and ValueError for wrong arguments, never for wrong claims.
    """
    now_s = _int64(now_s, "now_s")
    leeway_s = _int64(leeway_s, "leeway_s")
    skew_s = _int64(skew_s, "skew_s")
    if type(issuer) is not str or type(audience) is not str:
        raise TypeError("issuer and audience must be str")
    if leeway_s < 0 or skew_s < 0:
        raise ValueError("leeway_s and skew_s must not be negative")
    if scan_json(payload, max_depth) != JSON_OK:
        return CLAIMS_MALFORMED
    members = decode(payload)
    if type(members) is not dict:
        return CLAIMS_MALFORMED

    iss, sub, aud = members.get("iss"), members.get("sub"), members.get("aud")
    optional = [members.get(name, _ABSENT) for name in ("jti", "sid", "scope", "client_id")]
    if type(iss) is not str or type(sub) is not str:
        return CLAIMS_MALFORMED
    if any(text is not _ABSENT and type(text) is not str for text in optional):
        return CLAIMS_MALFORMED
    audiences = [aud] if type(aud) is str else aud
    if type(audiences) is not list or any(type(one) is not str for one in audiences):
        return CLAIMS_MALFORMED
    exp_s = _whole_date(members.get("exp", _ABSENT), math.floor)
    iat_s = _whole_date(members.get("iat", _ABSENT), math.ceil)
    nbf_s = _whole_date(members.get("nbf", _ABSENT), math.ceil)
    if exp_s is None or _BAD_DATE in (exp_s, iat_s, nbf_s) or not _is_subject(sub):
        return CLAIMS_MALFORMED
    if iss != issuer:
        return CLAIMS_ISSUER
    if audience not in audiences:
        return CLAIMS_AUDIENCE
    verdict = check_times(now_s, exp_s, nbf_s, iat_s, leeway_s, skew_s)
    if verdict != TIMES_OK:
        return verdict
    texts = [None if text is _ABSENT else text for text in optional]
    issued_s = None if iat_s is None else math.floor(members["iat"])
    return issuer, sub, tuple(audiences), exp_s, issued_s, nbf_s, *texts, payload


# A claim may be absent, but not null (RFC 7519 sections 4.1.1 to 4.1.7 want a text or a number).
_ABSENT: Final = object()
_BAD_DATE: Final = -2


def _whole_date(value: object, rounded: Callable[[float], int]) -> int | None:
    """None for no date, ``_BAD_DATE`` for anything but a plausible number; ``true`` is none (bool is an int)."""
    if value is _ABSENT:
        return None
    if type(value) not in (int, float) or not 0 <= value <= MAX_DATE_S:  # type: ignore[operator]
        return _BAD_DATE
    return rounded(value)  # type: ignore[arg-type]


def _is_subject(sub: str) -> bool:
    return bool(sub) and len(sub.encode("utf-8", "surrogatepass")) <= MAX_SUBJECT_BYTES and "\0" not in sub


# --------------------------------------------------------- seen-token cache

MAX_CAPACITY_BYTES: Final = 1 << 50
_MOST_HITS: Final = 3
_PROBATION_SHARE: Final = 10
_SUBJECT_SHARE: Final = 16


class _Seen:
    """One accepted token in the cache; ``token`` is None once it is gone."""

    __slots__ = ("epoch", "exp_s", "hits", "is_settled", "size", "subject", "token", "value")

    def __init__(self, token: bytes, value: object, subject: str, exp_s: int, size: int, epoch: int) -> None:
        self.token: bytes | None = token
        self.value = value
        self.subject = subject
        self.exp_s = exp_s
        self.size = size
        self.epoch = epoch
        self.hits = 0
        self.is_settled = False


class SeenTokens:
    """Accepted tokens, bounded in bytes and scan-resistant.

    S3-FIFO (Yang et al., SOSP 2023): a new token is on probation in a queue that has a tenth of the room. One that was
    used again there, or comes back soon after it was pushed out (its hash is kept as a ghost), is settled; the settled
    are pushed out in turn, those in use last. So a flood of tokens that come once pushes out only each other. One
    subject settles in at most a sixteenth of the room: a crowd of tokens of one user cannot push out those of others.

    A token is found by its very bytes. What is found has not expired, and has been looked at since the last
    ``invalidate()``; whoever uses this stores only what was accepted. Safe to use from several threads.
    """

    def __init__(self, capacity_bytes: int, is_still_good: Callable[[Any], bool]) -> None:
        """In: how many bytes all entries may have together (0: nothing is kept); ``is_still_good`` is asked about a
        stored value the first time it would be served after an ``invalidate()``.
        """
        capacity_bytes = _int64(capacity_bytes, "capacity_bytes")
        if not 0 <= capacity_bytes <= MAX_CAPACITY_BYTES:
            raise ValueError("capacity_bytes is out of range")
        self.capacity_bytes = capacity_bytes
        self.held_bytes = 0
        self.epoch = 0
        self._is_still_good = is_still_good
        self._lock = threading.RLock()
        self._entries: dict[bytes, _Seen] = {}
        self._probation: deque[_Seen] = deque()
        self._settled: deque[_Seen] = deque()
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._held: dict[str, int] = {}  # settled bytes by subject
        self._probation_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, token: bytes, now_s: int) -> Any:
        """What was stored for ``token``, or None when it is not here, has expired, or is no longer good."""
        now_s = _int64(now_s, "now_s")
        entry = self._entries.get(token)
        if entry is None:
            return None
        value = entry.value
        if entry.token is None:  # another thread has dropped it meanwhile, and perhaps the value was gone already
            return None
        if entry.exp_s <= now_s:
            self._drop(entry)
            return None
        if entry.epoch != self.epoch:
            epoch = self.epoch
            if not self._is_still_good(value):
                self._drop(entry)
                return None
            entry.epoch = epoch
        entry.hits = min(entry.hits + 1, _MOST_HITS)
        return value

    def put(self, token: bytes, value: object, subject: str, exp_s: int, size: int, epoch: int, now_s: int) -> None:
        """Store an accepted token.

        In: ``subject`` whose share it counts against; ``exp_s`` when it ends, on the clock of ``now_s``; ``size`` bytes
        that the entry occupies, all told; ``epoch`` as it was before anything was checked, so that a change made
        meanwhile is not missed. Raises TypeError, OverflowError or ValueError for wrong arguments.
        """
        now_s, size = _int64(now_s, "now_s"), _int64(size, "size")
        if type(token) is not bytes or type(subject) is not str:
            raise TypeError("token must be bytes and subject str")
        if size < 1:
            raise ValueError("size must be positive")
        entry = _Seen(token, value, subject, _int64(exp_s, "exp_s"), size, _int64(epoch, "epoch"))
        with self._lock:
            if token in self._entries or size > self.capacity_bytes // _PROBATION_SHARE:
                return
            self._forget_expired(self._probation, now_s)
            self._forget_expired(self._settled, now_s)
            while self.held_bytes + size > self.capacity_bytes:
                self._evict_one()
            self._entries[token] = entry
            self.held_bytes += size
            if hash(token) in self._ghosts and self._settle(entry):
                del self._ghosts[hash(token)]
                return
            self._probation.append(entry)
            self._probation_bytes += size

    def invalidate(self) -> None:
        """From now on every token is asked about again before it is served: the keys or the revocations changed."""
        self.epoch += 1

    def _drop(self, entry: _Seen) -> None:
        """Never serve it again.

        It stays in its queue, and is paid for, until it comes to the front; its subject is free of it at once.
        """
        with self._lock:
            if entry.token is None:
                return
            if self._entries.get(entry.token) is entry:
                del self._entries[entry.token]
            entry.token = None
            entry.value = None
            if entry.is_settled:
                self._held[entry.subject] -= entry.size
                if not self._held[entry.subject]:
                    del self._held[entry.subject]

    def _forget_expired(self, queue: "deque[_Seen]", now_s: int) -> None:
        while queue and (queue[0].token is None or queue[0].exp_s <= now_s):
            self._release(queue.popleft())

    def _settle(self, entry: _Seen) -> bool:
        """Move to the settled queue, unless the subject has its share of it already."""
        held = self._held.get(entry.subject, 0)
        if held + entry.size > self.capacity_bytes // _SUBJECT_SHARE:
            return False
        self._held[entry.subject] = held + entry.size
        entry.is_settled = True
        entry.hits = 0
        self._settled.append(entry)
        return True

    def _release(self, entry: _Seen) -> None:
        """Account for an entry that has left its queue for good."""
        self.held_bytes -= entry.size
        if not entry.is_settled:
            self._probation_bytes -= entry.size
        self._drop(entry)

    def _evict_one(self) -> None:
        """One step: an entry leaves, moves from probation to the settled, or loses a hit."""
        if self._probation_bytes > self.capacity_bytes // _PROBATION_SHARE or not self._settled:
            entry = self._probation.popleft()
            if entry.token is not None and entry.hits > 0:
                if self._settle(entry):
                    self._probation_bytes -= entry.size
                    return
            elif entry.token is not None:
                self._ghosts[hash(entry.token)] = None
                while len(self._ghosts) > len(self._entries):
                    self._ghosts.popitem(last=False)
            self._release(entry)
            return
        entry = self._settled.popleft()
        if entry.token is not None and entry.hits > 0:
            entry.hits -= 1
            self._settled.append(entry)
        else:
            self._release(entry)
