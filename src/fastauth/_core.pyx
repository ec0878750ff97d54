# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: binding=True, autotestdict=False, embedsignature=False, auto_pickle=False
"""The compiled core: token-bucket arithmetic, the strict token parse, claim validation, the seen-token cache.

Kernels are ``noexcept nogil`` over 64-bit integers, so the compiler proves that
they touch no Python object (the GIL is kept all the same: to let it go costs
more than a kernel takes); the ``def`` shells check types and bounds.  Each
function means exactly what its readable twin in ``_core_py.py`` says, and
``tests/twins`` holds the two together.
"""
from collections import OrderedDict, deque

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport ceil, floor
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

IMPLEMENTATION = "cython"


cdef inline int64_t as_int64(object value, str name) except? -1:
    # An ``int64_t`` argument would silently take 1.5 as 1 and True as 1.
    if type(value) is not int:
        raise TypeError(f"{name} must be an int")
    return value


# ------------------------------------------------------------- token bucket

cdef int64_t _MAX_NOW_US = 1 << 52
cdef int64_t _MAX_WINDOW_US = 1 << 51
cdef int64_t _MAX_EMISSION_US = 86_400_000_000

MAX_NOW_US = _MAX_NOW_US
MAX_WINDOW_US = _MAX_WINDOW_US
MAX_EMISSION_US = _MAX_EMISSION_US

cdef struct BucketVerdict:
    bint allowed
    int64_t tat_us
    int64_t remaining
    int64_t retry_after_us


cdef BucketVerdict decide(
    int64_t tat_us, int64_t now_us, int64_t emission_us, int64_t burst, int64_t cost
) noexcept nogil:
    cdef BucketVerdict verdict
    cdef int64_t window_us = emission_us * burst
    cdef int64_t after_us
    if tat_us < now_us:
        tat_us = now_us
    elif tat_us > now_us + window_us:
        tat_us = now_us + window_us
    after_us = tat_us + emission_us * cost
    verdict.retry_after_us = after_us - window_us - now_us
    verdict.allowed = verdict.retry_after_us <= 0
    if verdict.allowed:
        verdict.retry_after_us = 0
        tat_us = after_us
    verdict.tat_us = tat_us
    verdict.remaining = (now_us + window_us - tat_us) // emission_us
    return verdict


def gcra(tat_us, now_us, emission_us, burst, cost):
    """Decide one request against a token bucket kept as one arrival time (GCRA).

    See the twin in ``_core_py.py`` for arguments, result, errors and source.
    """
    cdef int64_t tat = as_int64(tat_us, "tat_us")
    cdef int64_t now = as_int64(now_us, "now_us")
    cdef int64_t emission = as_int64(emission_us, "emission_us")
    cdef int64_t size = as_int64(burst, "burst")
    cdef int64_t units = as_int64(cost, "cost")
    cdef BucketVerdict verdict
    if not 0 <= now <= _MAX_NOW_US:
        raise ValueError("now_us is out of range")
    if not 0 <= tat <= 2 * _MAX_NOW_US:
        raise ValueError("tat_us is out of range")
    if not 1 <= emission <= _MAX_EMISSION_US:
        raise ValueError("emission_us is out of range")
    if not 1 <= size <= _MAX_WINDOW_US // emission:
        raise ValueError("burst is out of range")
    if not 1 <= units <= size:
        raise ValueError("cost is out of range")
    verdict = decide(tat, now, emission, size, units)
    return (verdict.allowed != 0, verdict.tat_us, verdict.remaining, verdict.retry_after_us)


# ------------------------------------------------- rates, decisions, the table

cdef extern from *:
    """
    #include <stdint.h>
    #include <time.h>

    typedef struct { uint64_t key; int64_t when; } fastauth_slot;

    typedef union { fastauth_slot slot; unsigned __int128 both; } fastauth_pair;

    #if defined(__x86_64__)
    __attribute__((target("cx16")))      /* every x86-64 since 2006; without it gcc would call libatomic */
    #elif !defined(__aarch64__)
    #error "fastauth needs a 128-bit compare-and-swap: x86-64 or AArch64"
    #endif
    static int fastauth_swap(fastauth_slot *at, uint64_t key, int64_t when, uint64_t new_key, int64_t new_when)
    {
        fastauth_pair old = {{key, when}}, new = {{new_key, new_when}};
        return __sync_bool_compare_and_swap((unsigned __int128 *)at, old.both, new.both);
    }

    #define fastauth_key(at) __atomic_load_n(&(at)->key, __ATOMIC_SEQ_CST)
    #define fastauth_when(at) __atomic_load_n(&(at)->when, __ATOMIC_SEQ_CST)
    #define fastauth_add(at, n) __atomic_add_fetch(at, n, __ATOMIC_SEQ_CST)
    #define fastauth_prefetch(at) __builtin_prefetch(at)

    static inline int64_t fastauth_clock_us(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    }
    """
    ctypedef struct Slot "fastauth_slot":
        uint64_t key
        int64_t when
    bint swap "fastauth_swap"(
        Slot *at, uint64_t key, int64_t when, uint64_t new_key, int64_t new_when
    ) noexcept nogil
    uint64_t key_of "fastauth_key"(const Slot *at) noexcept nogil
    int64_t when_of "fastauth_when"(const Slot *at) noexcept nogil
    uint64_t add_atomically "fastauth_add"(uint64_t *at, uint64_t n) noexcept nogil
    void prefetch "fastauth_prefetch"(const Slot *at) noexcept nogil
    int64_t clock_us "fastauth_clock_us"() noexcept nogil


cdef class Rate:
    """A token bucket's two numbers.

    See the twin in ``_core_py.py``.
    """
    cdef readonly int64_t emission_us
    cdef readonly int64_t burst

    def __init__(self, emission_us, burst):
        cdef int64_t emission = as_int64(emission_us, "emission_us")
        cdef int64_t size = as_int64(burst, "burst")
        if not 1 <= emission <= _MAX_EMISSION_US:
            raise ValueError("emission_us is out of range")
        if not 1 <= size <= _MAX_WINDOW_US // emission:
            raise ValueError("burst is out of range")
        self.emission_us = emission
        self.burst = size

    @property
    def window_us(self):
        """How long an empty bucket takes to fill."""
        return self.emission_us * self.burst


@cython.freelist(64)
@cython.no_gc
cdef class Decision:
    """What a bucket said.

    See the twin in ``_core_py.py``.
    """
    cdef readonly bint allowed
    cdef readonly int64_t remaining
    cdef readonly int64_t retry_after_us

    def __init__(self, bint allowed, int64_t remaining, int64_t retry_after_us):
        self.allowed = allowed
        self.remaining = remaining
        self.retry_after_us = retry_after_us

    @property
    def retry_after_s(self):
        """Seconds after which the same request is admitted, if nobody else takes tokens; 0.0 when it was."""
        return self.retry_after_us / 1e6

    def __eq__(self, other):
        if type(other) is not Decision:
            return NotImplemented
        cdef Decision that = <Decision>other
        return (
            self.allowed == that.allowed
            and self.remaining == that.remaining
            and self.retry_after_us == that.retry_after_us
        )

    def __hash__(self):
        return hash((self.allowed, self.remaining, self.retry_after_us))

    def __repr__(self):
        return f"Decision(allowed={self.allowed}, remaining={self.remaining}, retry_after_s={self.retry_after_s})"


cdef inline Decision decision_of(BucketVerdict verdict):
    cdef Decision decision = Decision.__new__(Decision)
    decision.allowed = verdict.allowed
    decision.remaining = verdict.remaining
    decision.retry_after_us = verdict.retry_after_us
    return decision


TABLE_HEADER_BYTES = 4096
TABLE_SLOT_BYTES = 16
MAX_KEY_BYTES = 1024

cdef enum:
    HEADER = 4096
    CLAIMS_AT = 64           # the counters have a cache line of the header for themselves
    EVICTIONS_AT = 72
    IN_LINE = 4              # slots of a cache line
    LINES = 8                # cache lines in which a key may lie
    WINDOW = 32
    KEY_BYTES = 1024


cdef inline uint64_t rotate(uint64_t word, int bits) noexcept nogil:
    return (word << bits) | (word >> (64 - bits))


cdef inline void sip_round(uint64_t *v) noexcept nogil:
    v[0] += v[1]
    v[1] = rotate(v[1], 13) ^ v[0]
    v[0] = rotate(v[0], 32)
    v[2] += v[3]
    v[3] = rotate(v[3], 16) ^ v[2]
    v[0] += v[3]
    v[3] = rotate(v[3], 21) ^ v[0]
    v[2] += v[1]
    v[1] = rotate(v[1], 17) ^ v[2]
    v[2] = rotate(v[2], 32)


cdef uint64_t siphash(const uint64_t *secret, const uint8_t *text, Py_ssize_t size) noexcept nogil:
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef Py_ssize_t position = 0
    v[0] = secret[0] ^ <uint64_t>0x736F6D6570736575
    v[1] = secret[1] ^ <uint64_t>0x646F72616E646F6D
    v[2] = secret[0] ^ <uint64_t>0x6C7967656E657261
    v[3] = secret[1] ^ <uint64_t>0x7465646279746573
    while position + 8 <= size:
        memcpy(&word, text + position, 8)
        v[3] ^= word
        sip_round(v)
        v[0] ^= word
        position += 8
    word = 0
    memcpy(&word, text + position, <size_t>(size - position))
    word |= (<uint64_t>size & 0xFF) << 56
    v[3] ^= word
    sip_round(v)
    v[0] ^= word
    v[2] ^= 0xFF
    sip_round(v)
    sip_round(v)
    sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef struct Window:
    uint64_t key             # the hash that is looked for, never 0
    Slot *lines[LINES]       # in probe order


cdef inline Slot *slot_at(Window *window, int position) noexcept nogil:
    return window.lines[position // IN_LINE] + position % IN_LINE


cdef inline int find_key(Window *window, int64_t *when) noexcept nogil:
    """The position of the key, and the time beside it; -1 when it is nowhere."""
    cdef int position, line
    cdef Slot *slot
    for position in range(WINDOW):
        if position == IN_LINE:      # most keys lie in their first line; who has to see all waits for all together
            for line in range(1, LINES):
                prefetch(window.lines[line])
        slot = slot_at(window, position)
        if key_of(slot) == window.key:
            when[0] = when_of(slot)
            return position
    return -1


cdef class BucketTable:
    """Buckets of all processes that share the memory, without a lock.

    See the twin in ``_core_py.py`` for arguments, results, errors and what the methods mean.  A slot is (hash, arrival
    time) and changes only by a 128-bit compare-and-swap over both, so a process that dies at any instruction leaves a
    whole slot.  What a lock would make easy is that a key stands in one slot only.  Here a key that is absent is
    first *claimed*: a free slot gets (hash, negative number that was never used before).  Whoever then looks through
    the whole window, the claimant or anybody who came upon the claim, and meets no other copy, may turn the claim
    into a bucket.  Of two claims the lower position stays; of a claim and a bucket, the bucket.  Two processes that
    claim at the same time each look after they have written, so at least one of them sees the other.
    """
    cdef Py_buffer _view
    cdef bint _has_view
    cdef Slot *_slots
    cdef uint64_t *_claims
    cdef uint64_t *_evictions
    cdef uint64_t _line_mask
    cdef uint64_t _secret[2]

    def __cinit__(self):
        self._has_view = False

    def __init__(self, memory, descriptor, hash_key):
        cdef int64_t lines
        if type(hash_key) is not bytes or len(hash_key) != 16:
            raise ValueError("hash_key must be 16 bytes")
        as_int64(descriptor, "descriptor")
        if self._has_view:
            raise ValueError("the table is open already")
        PyObject_GetBuffer(memory, &self._view, PyBUF_WRITABLE)
        self._has_view = True
        lines = (self._view.len - HEADER) // (IN_LINE * <int64_t>sizeof(Slot))
        if lines < LINES or lines & (lines - 1) or HEADER + lines * IN_LINE * <int64_t>sizeof(Slot) != self._view.len:
            raise ValueError("memory is not a header and a power of two of cache lines")
        if <size_t>self._view.buf % 64:
            raise ValueError("memory must begin at a cache line")
        memcpy(self._secret, PyBytes_AS_STRING(hash_key), 16)
        self._slots = <Slot *>(<char *>self._view.buf + HEADER)
        self._claims = <uint64_t *>(<char *>self._view.buf + CLAIMS_AT)
        self._evictions = <uint64_t *>(<char *>self._view.buf + EVICTIONS_AT)
        self._line_mask = <uint64_t>lines - 1

    def __dealloc__(self):
        if self._has_view:
            PyBuffer_Release(&self._view)

    cdef int open_window(self, object key, Window *window) except -1:
        cdef const char *text
        cdef Py_ssize_t size
        cdef uint64_t line, step
        cdef int i
        if type(key) is str:
            text = PyUnicode_AsUTF8AndSize(key, &size)
        elif type(key) is bytes:
            text = PyBytes_AS_STRING(key)
            size = PyBytes_GET_SIZE(key)
        else:
            raise TypeError("key must be str or bytes")
        if size > KEY_BYTES:
            raise ValueError("key is longer than 1024 bytes")
        if not self._has_view:
            raise ValueError("the table is not open")
        window.key = siphash(self._secret, <const uint8_t *>text, size)
        if window.key == 0:
            window.key = 1
        line = window.key & self._line_mask
        step = (window.key >> 32) | 1      # odd, so the lines of a window are distinct
        for i in range(LINES):
            window.lines[i] = self._slots + line * IN_LINE
            line = (line + step) & self._line_mask
        prefetch(window.lines[0])
        return 0

    cdef int claim(self, Window *window, int64_t now_us, int64_t *when) noexcept nogil:
        """Claim the best slot: free, else another's claim, else the bucket nearest to full; -1: try again."""
        cdef int position, best = -1, rank, best_rank = 3
        cdef int64_t time_us, best_time_us = 0, unused
        cdef uint64_t key, best_key = 0
        cdef Slot *slot
        for position in range(WINDOW):
            slot = slot_at(window, position)
            key = key_of(slot)
            time_us = when_of(slot)
            if key == 0 or 0 <= time_us <= now_us:
                rank = 0
            elif time_us < 0:
                rank = 1
            else:
                rank = 2
            if rank < best_rank or (rank == 2 and best_rank == 2 and time_us < best_time_us):
                best, best_rank, best_time_us, best_key = position, rank, time_us, key
                if rank == 0:
                    break
        unused = -<int64_t>add_atomically(self._claims, 1)
        if not swap(slot_at(window, best), best_key, best_time_us, window.key, unused):
            return -1
        if best_rank == 2:
            add_atomically(self._evictions, 1)
        when[0] = unused
        return best

    cdef bint is_alone(self, Window *window, int position, int64_t when) noexcept nogil:
        """Whether the claim at ``position`` is the key's only slot; if not, one of the two is gone now."""
        cdef int other
        cdef int64_t other_when
        cdef Slot *slot
        for other in range(WINDOW):
            if other == position:
                continue
            slot = slot_at(window, other)
            if key_of(slot) != window.key:
                continue
            other_when = when_of(slot)
            if other_when < 0 and other > position:
                if swap(slot, window.key, other_when, 0, 0):
                    continue
            else:
                swap(slot_at(window, position), window.key, when, 0, 0)
            return False
        return True

    cdef int place(self, Window *window, int64_t given_us, int64_t *when) noexcept nogil:
        """The position of the key's one slot, claimed if it had none; ``when`` negative for such a claim."""
        cdef int position
        while True:
            position = find_key(window, when)
            if position < 0:
                position = self.claim(window, clock_us() if given_us < 0 else given_us, when)
            if position >= 0 and (when[0] >= 0 or self.is_alone(window, position, when[0])):
                return position

    def take(self, key, Rate rate not None, cost=1, now_us=None):
        """Take tokens if there are enough."""
        cdef int64_t units = as_int64(cost, "cost")
        cdef int64_t given_us = as_now(now_us)
        cdef int64_t when = 0, now
        cdef Window window
        cdef BucketVerdict verdict
        cdef Slot *slot
        cdef int position
        if not 1 <= units <= rate.burst:
            raise ValueError("cost is out of range")
        self.open_window(key, &window)
        while True:
            position = self.place(&window, given_us, &when)
            slot = slot_at(&window, position)
            now = clock_us() if given_us < 0 else given_us      # after the state was seen, so never older than it
            verdict = decide(0 if when < 0 else when, now, rate.emission_us, rate.burst, units)
            if verdict.allowed:
                if swap(slot, window.key, when, window.key, verdict.tat_us):
                    return decision_of(verdict)
            elif key_of(slot) == window.key and when_of(slot) == when:      # a refusal writes nothing
                return decision_of(verdict)

    def peek(self, key, Rate rate not None, cost=1, now_us=None):
        """What ``take`` would say."""
        cdef int64_t units = as_int64(cost, "cost")
        cdef int64_t now = as_now(now_us)
        cdef int64_t when = 0
        cdef Window window
        if not 1 <= units <= rate.burst:
            raise ValueError("cost is out of range")
        self.open_window(key, &window)
        if find_key(&window, &when) < 0 or when < 0:
            when = 0
        if now < 0:
            now = clock_us()
        return decision_of(decide(when, now, rate.emission_us, rate.burst, units))

    def charge(self, key, Rate rate not None, cost=1, now_us=None):
        """Take tokens even if there are not enough; an empty bucket stays empty."""
        cdef int64_t units = as_int64(cost, "cost")
        cdef int64_t given_us = as_now(now_us)
        if not 1 <= units <= rate.burst:
            raise ValueError("cost is out of range")
        return self.shift(key, rate, units * rate.emission_us, 0, given_us)

    def raise_debt(self, key, Rate rate not None, debt_us, now_us=None):
        """Empty the bucket as far as another copy of it is."""
        cdef int64_t least = as_int64(debt_us, "debt_us")
        if least < 0:
            raise ValueError("debt_us is out of range")
        return self.shift(key, rate, 0, least, as_now(now_us))

    cdef shift(self, key, Rate rate, int64_t more_us, int64_t least_us, int64_t given_us):
        cdef int64_t when = 0, now, debt, window_us = rate.emission_us * rate.burst
        cdef Window window
        cdef int position
        self.open_window(key, &window)
        while True:
            if more_us == 0 and least_us == 0 and find_key(&window, &when) < 0:
                return 0
            position = self.place(&window, given_us, &when)
            now = clock_us() if given_us < 0 else given_us
            debt = min(max(when - now, <int64_t>0), window_us)      # a claim's is 0
            debt = min(max(debt + more_us, least_us), window_us)
            if swap(slot_at(&window, position), window.key, when, window.key, now + debt):
                return debt

    def debt(self, key, Rate rate not None, now_us=None):
        """Microseconds until the bucket is full."""
        cdef int64_t when = 0, now = as_now(now_us)
        cdef Window window
        self.open_window(key, &window)
        if find_key(&window, &when) < 0:
            return 0
        if now < 0:
            now = clock_us()
        return min(max(when - now, <int64_t>0), rate.emission_us * rate.burst)

    def hold(self, key, until_us, now_us=None):
        """Count one more."""
        cdef int64_t until = as_until(until_us), given_us = as_now(now_us), when = 0, count
        cdef Window window
        cdef int position
        self.open_window(key, &window)
        while True:
            position = self.place(&window, given_us, &when)
            count = max(when - until, <int64_t>0) + 1
            if count > _MAX_HELD:
                return count
            if swap(slot_at(&window, position), window.key, when, window.key, until + count):
                return count

    def release(self, key, until_us):
        """Count one less."""
        cdef int64_t until = as_until(until_us), when = 0
        cdef Window window
        cdef int position
        self.open_window(key, &window)
        while True:
            position = find_key(&window, &when)
            if position < 0 or when <= until:
                return 0
            if swap(slot_at(&window, position), window.key, when, window.key, when - 1):
                return when - 1 - until

    def held(self, key, until_us):
        """The count."""
        cdef int64_t until = as_until(until_us), when = 0
        cdef Window window
        self.open_window(key, &window)
        return max(when - until, <int64_t>0) if find_key(&window, &when) >= 0 else 0

    @property
    def evictions(self):
        """Buckets that were not full and had to make room."""
        if not self._has_view:
            raise ValueError("the table is not open")
        return add_atomically(self._evictions, 0)


cdef int64_t _MAX_HELD = 1_000_000
MAX_HELD = _MAX_HELD


cdef inline int64_t as_now(object now_us) except? -2:
    cdef int64_t now
    if now_us is None:
        return -1
    now = as_int64(now_us, "now_us")
    if not 0 <= now <= _MAX_NOW_US:
        raise ValueError("now_us is out of range")
    return now


cdef inline int64_t as_until(object until_us) except? -1:
    cdef int64_t until = as_int64(until_us, "until_us")
    if not 1 <= until <= _MAX_NOW_US:
        raise ValueError("until_us is out of range")
    return until


cdef double MOST_OBSERVED_S = 1e6


cdef class SharedCounters:
    """Counters of all processes that share the memory.

    See the twin in ``_core_py.py``.
    """
    cdef Py_buffer _view
    cdef bint _has_view
    cdef uint64_t *_cells
    cdef readonly int64_t count

    def __cinit__(self):
        self._has_view = False

    def __init__(self, memory, descriptor):
        as_int64(descriptor, "descriptor")
        if self._has_view:
            raise ValueError("the counters are open already")
        PyObject_GetBuffer(memory, &self._view, PyBUF_WRITABLE)
        self._has_view = True
        if <size_t>self._view.buf % 64:
            raise ValueError("memory must begin at a cache line")
        self._cells = <uint64_t *>self._view.buf
        self.count = self._view.len // 8

    def __dealloc__(self):
        if self._has_view:
            PyBuffer_Release(&self._view)

    cdef uint64_t *cell(self, index) except NULL:
        cdef int64_t place = as_int64(index, "index")
        if not 0 <= place < self.count:
            raise IndexError("there is no such counter")
        return self._cells + place

    def add(self, index, amount=1):
        """Count."""
        cdef uint64_t *cell = self.cell(index)
        cdef int64_t more = as_int64(amount, "amount")
        if more < 0:
            raise ValueError("amount must not be negative")
        add_atomically(cell, <uint64_t>more)

    def observe(self, first, tuple bounds_s, double seconds):
        """Count a time in a histogram."""
        cdef Py_ssize_t size = len(bounds_s), at = 0
        cdef int64_t place = as_int64(first, "first")
        if not 0 <= place < self.count - size - 1:
            raise IndexError("there is no such histogram")
        if not seconds >= 0:
            seconds = 0
        elif seconds > MOST_OBSERVED_S:
            seconds = MOST_OBSERVED_S
        while at < size and <double>bounds_s[at] < seconds:
            at += 1
        add_atomically(self._cells + place + at, 1)
        add_atomically(self._cells + place + size + 1, <uint64_t>(seconds * 1e6))

    def read(self, index):
        """What was counted."""
        return add_atomically(self.cell(index), 0)


# -------------------------------------------------------------- claim times

TIMES_OK = 0
TIMES_EXPIRED = 1
TIMES_NOT_YET_VALID = 2
TIMES_ISSUED_IN_FUTURE = 3


cdef inline int64_t add_saturating(int64_t a, int64_t b) noexcept nogil:
    # b >= 0 here
    if a > INT64_MAX - b:
        return INT64_MAX
    return a + b


cdef inline int64_t subtract_saturating(int64_t a, int64_t b) noexcept nogil:
    # b >= 0 here
    if a < INT64_MIN + b:
        return INT64_MIN
    return a - b


cdef int judge_times(
    int64_t now_s, int64_t exp_s, int64_t nbf_s, int64_t iat_s, int64_t leeway_s, int64_t skew_s
) noexcept nogil:
    cdef int64_t latest_start_s = add_saturating(now_s, skew_s)
    if exp_s <= subtract_saturating(now_s, leeway_s):
        return 1
    if nbf_s > latest_start_s:
        return 2
    if iat_s > latest_start_s:
        return 3
    return 0


def check_times(now_s, exp_s, nbf_s, iat_s, leeway_s, skew_s):
    """Judge a token's ``exp``, ``nbf`` and ``iat`` (RFC 7519 sections 4.1.4 to 4.1.6).

    See the twin in ``_core_py.py`` for arguments, result, errors and source.
    """
    cdef int64_t now = as_int64(now_s, "now_s")
    cdef int64_t exp = as_int64(exp_s, "exp_s")
    # An absent time is one that never lies in the future.
    cdef int64_t nbf = INT64_MIN if nbf_s is None else as_int64(nbf_s, "nbf_s")
    cdef int64_t iat = INT64_MIN if iat_s is None else as_int64(iat_s, "iat_s")
    cdef int64_t leeway = as_int64(leeway_s, "leeway_s")
    cdef int64_t skew = as_int64(skew_s, "skew_s")
    cdef int code
    if leeway < 0 or skew < 0:
        raise ValueError("leeway_s and skew_s must not be negative")
    code = judge_times(now, exp, nbf, iat, leeway, skew)
    return code


# --------------------------------------------------------- JSON member scan

JSON_OK = 0
JSON_DUPLICATE = 1
JSON_TOO_DEEP = 2
JSON_TOO_MANY = 3
JSON_MALFORMED = 4

MAX_JSON_DEPTH = 64
MAX_JSON_MEMBERS = 512

cdef enum:
    DEPTH = 64
    MEMBERS = 512

# Which characters mean anything at all, within a string and outside.
cdef uint8_t IN_STRING[256]
cdef uint8_t OUTSIDE[256]
cdef int _character
for _character in range(256):
    IN_STRING[_character] = _character < 32 or _character in b'"\\'
    OUTSIDE[_character] = _character in b'"{}[],'

cdef struct Name:
    const uint8_t *start      # in the document, or in the arena where escapes had to be resolved
    Py_ssize_t length


cdef inline int hex_digit(uint8_t byte) noexcept nogil:
    if 48 <= byte <= 57:
        return byte - 48
    if 65 <= byte <= 70:
        return byte - 55
    if 97 <= byte <= 102:
        return byte - 87
    return -1


cdef inline int hex_unit(const uint8_t *data) noexcept nogil:
    cdef int unit = 0, digit, i
    for i in range(4):
        digit = hex_digit(data[i])
        if digit < 0:
            return -1
        unit = unit * 16 + digit
    return unit


cdef Py_ssize_t put_utf8(uint8_t *out, uint32_t point) noexcept nogil:
    if point < 0x80:
        out[0] = <uint8_t>point
        return 1
    if point < 0x800:
        out[0] = <uint8_t>(0xC0 | (point >> 6))
        out[1] = <uint8_t>(0x80 | (point & 0x3F))
        return 2
    if point < 0x10000:
        out[0] = <uint8_t>(0xE0 | (point >> 12))
        out[1] = <uint8_t>(0x80 | ((point >> 6) & 0x3F))
        out[2] = <uint8_t>(0x80 | (point & 0x3F))
        return 3
    out[0] = <uint8_t>(0xF0 | (point >> 18))
    out[1] = <uint8_t>(0x80 | ((point >> 12) & 0x3F))
    out[2] = <uint8_t>(0x80 | ((point >> 6) & 0x3F))
    out[3] = <uint8_t>(0x80 | (point & 0x3F))
    return 4


cdef inline uint8_t plain_escape(uint8_t byte) noexcept nogil:
    if byte == 98:            # b
        return 8
    if byte == 102:           # f
        return 12
    if byte == 110:           # n
        return 10
    if byte == 114:           # r
        return 13
    if byte == 116:           # t
        return 9
    return byte               # " \ /


cdef Py_ssize_t resolve(const uint8_t *text, Py_ssize_t length, uint8_t *out) noexcept nogil:
    """Write a well-formed string with its escapes resolved; the length, which never exceeds the input's."""
    cdef Py_ssize_t position = 0, written = 0
    cdef uint32_t point
    cdef int low
    while position < length:
        if text[position] != 92:
            out[written] = text[position]
            position += 1
            written += 1
            continue
        if text[position + 1] != 117:
            out[written] = plain_escape(text[position + 1])
            position += 2
            written += 1
            continue
        point = <uint32_t>hex_unit(text + position + 2)
        position += 6
        if 0xD800 <= point <= 0xDBFF and position + 6 <= length and text[position] == 92 and text[position + 1] == 117:
            low = hex_unit(text + position + 2)
            if 0xDC00 <= low <= 0xDFFF:
                point = 0x10000 + ((point - 0xD800) << 10) + <uint32_t>(low - 0xDC00)
                position += 6
        written += put_utf8(out + written, point)
    return written


cdef Py_ssize_t string_end(
    const uint8_t *data, Py_ssize_t position, Py_ssize_t size, bint *escaped
) noexcept nogil:
    """The index of the closing quote of the string that starts at position, or -1."""
    cdef uint8_t byte
    escaped[0] = False
    while position < size:
        byte = data[position]
        if IN_STRING[byte] == 0:
            position += 1
            continue
        if byte == 34:
            return position
        if byte < 32:
            return -1
        escaped[0] = True
        if position + 1 >= size:
            return -1
        byte = data[position + 1]
        if byte == 117:
            if position + 6 > size or hex_unit(data + position + 2) < 0:
                return -1
            position += 6
        elif byte in (34, 92, 47, 98, 102, 110, 114, 116):
            position += 2
        else:
            return -1
    return -1


cdef int scan(
    const uint8_t *data, Py_ssize_t size, Py_ssize_t max_depth, Py_ssize_t max_members, uint8_t *arena
) noexcept nogil:
    cdef uint8_t closers[DEPTH]         # what closes each open container: } or ]
    cdef Py_ssize_t first[DEPTH]        # where each open object's names begin
    cdef Name names[MEMBERS]
    cdef Py_ssize_t depth = 0, count = 0, total = 0, position = 0, end, i
    cdef bint name_next = False, escaped = False
    cdef uint8_t byte
    while position < size:
        byte = data[position]
        if OUTSIDE[byte] == 0:
            position += 1
            continue
        if byte == 34:
            end = string_end(data, position + 1, size, &escaped)
            if end < 0:
                return 4
            if name_next:
                if total >= max_members:
                    return 3
                names[count].start = data + position + 1
                names[count].length = end - position - 1
                if escaped:
                    names[count].length = resolve(names[count].start, names[count].length, arena)
                    names[count].start = arena
                    arena += names[count].length
                for i in range(first[depth - 1], count):
                    if (
                        names[i].length == names[count].length
                        and names[i].start[0] == names[count].start[0]      # of an empty name: its closing quote
                        and memcmp(names[i].start, names[count].start, <size_t>names[count].length) == 0
                    ):
                        return 1
                count += 1
                total += 1
                name_next = False
            position = end
        elif byte == 123 or byte == 91:
            if depth >= max_depth:
                return 2
            closers[depth] = <uint8_t>(byte + 2)
            first[depth] = count
            depth += 1
            name_next = byte == 123
        elif byte == 125 or byte == 93:
            if depth == 0 or closers[depth - 1] != byte:
                return 4
            depth -= 1
            count = first[depth]
            name_next = False
        elif byte == 44:
            name_next = depth > 0 and closers[depth - 1] == 125
        position += 1
    return 0 if depth == 0 else 4


cdef int scan_bytes(object data, int64_t depth, int64_t members) except -1:
    cdef const uint8_t *start
    cdef uint8_t *arena = NULL
    cdef Py_ssize_t size
    cdef int code
    if type(data) is not bytes:
        raise TypeError("data must be bytes")
    if not 1 <= depth <= DEPTH:
        raise ValueError("max_depth is out of range")
    if not 1 <= members <= MEMBERS:
        raise ValueError("max_members is out of range")
    if not (<bytes>data).isascii():
        try:
            (<bytes>data).decode("utf-8")
        except UnicodeDecodeError:
            return 4
    start = <const uint8_t *>(<bytes>data)
    size = len(<bytes>data)
    if memchr(start, 92, <size_t>size) != NULL:  # resolved names never take more room than the document
        arena = <uint8_t *>PyMem_Malloc(<size_t>size)
        if arena == NULL:
            raise MemoryError
    code = scan(start, size, depth, members, arena)
    PyMem_Free(arena)
    return code


def scan_json(data, max_depth=MAX_JSON_DEPTH, max_members=MAX_JSON_MEMBERS):
    """Find duplicate member names, excessive depth and excessive members before decoding.

    See the twin in ``_core_py.py`` for arguments, result, errors and source.
    """
    return scan_bytes(data, as_int64(max_depth, "max_depth"), as_int64(max_members, "max_members"))


# ------------------------------------------------------- strict compact form

TOKEN_TOO_LARGE = 1
TOKEN_MALFORMED = 2

cdef enum:
    FOREIGN = 0x1000000

# What a character adds to the three bytes of a group of four, by its place in the group; FOREIGN for one of no meaning.
cdef uint32_t FIRST[256]
cdef uint32_t SECOND[256]
cdef uint32_t THIRD[256]
cdef uint32_t FOURTH[256]
cdef int _byte, _sextet
for _byte in range(256):
    FIRST[_byte] = SECOND[_byte] = THIRD[_byte] = FOURTH[_byte] = FOREIGN
for _sextet, _byte in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"):
    FIRST[_byte] = <uint32_t>_sextet << 18
    SECOND[_byte] = <uint32_t>_sextet << 12
    THIRD[_byte] = <uint32_t>_sextet << 6
    FOURTH[_byte] = <uint32_t>_sextet


cdef bint decode_sextets(const uint8_t *text, Py_ssize_t size, uint8_t *out) noexcept nogil:
    """Write ``size * 3 // 4`` bytes; whether the text was strict base64url."""
    cdef Py_ssize_t position = 0
    cdef uint32_t group, seen = 0
    while position + 4 <= size:
        group = (
            FIRST[text[position]] | SECOND[text[position + 1]] | THIRD[text[position + 2]] | FOURTH[text[position + 3]]
        )
        seen |= group
        out[0] = <uint8_t>(group >> 16)
        out[1] = <uint8_t>(group >> 8)
        out[2] = <uint8_t>group
        position += 4
        out += 3
    if seen & FOREIGN:
        return False
    if position == size:
        return True
    if position + 1 == size:
        return False
    group = FIRST[text[position]] | SECOND[text[position + 1]]
    if position + 3 == size:
        group |= THIRD[text[position + 2]]
        out[1] = <uint8_t>(group >> 8)
    out[0] = <uint8_t>(group >> 16)
    # What goes beyond the last byte must be zero (RFC 4648 section 3.5).
    return group & (0xFF if position + 3 == size else 0xFFFF) == 0 and not group & FOREIGN


cdef bytes decoded(const uint8_t *text, Py_ssize_t size):
    cdef bytes data = PyBytes_FromStringAndSize(NULL, size * 3 // 4)
    if not decode_sextets(text, size, <uint8_t *>PyBytes_AS_STRING(data)):
        return None
    return data


def decode_base64url(text):
    """base64url without padding, strictly (RFC 7515 section 2, RFC 4648 section 3.5).

    See the twin in ``_core_py.py`` for arguments, result, errors and source.
    """
    if type(text) is not bytes:
        raise TypeError("text must be bytes")
    return decoded(<const uint8_t *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


def split_token(token, max_bytes):
    """Take a compact JWS apart (RFC 7515 section 7.1).

    See the twin in ``_core_py.py`` for arguments, result, errors and source.
    """
    cdef int64_t limit = as_int64(max_bytes, "max_bytes")
    cdef const uint8_t *start
    cdef const uint8_t *first
    cdef const uint8_t *second
    cdef Py_ssize_t size
    cdef bytes payload, signature
    if type(token) is not bytes:
        raise TypeError("token must be bytes")
    start = <const uint8_t *>PyBytes_AS_STRING(token)
    size = PyBytes_GET_SIZE(token)
    if size > limit:
        return TOKEN_TOO_LARGE
    first = <const uint8_t *>memchr(start, 46, <size_t>size)
    if first == NULL:
        return TOKEN_MALFORMED
    second = <const uint8_t *>memchr(first + 1, 46, <size_t>(start + size - first - 1))
    if second == NULL or memchr(second + 1, 46, <size_t>(start + size - second - 1)) != NULL:
        return TOKEN_MALFORMED
    payload = decoded(first + 1, second - first - 1)
    signature = decoded(second + 1, start + size - second - 1)
    if payload is None or signature is None:
        return TOKEN_MALFORMED
    return (
        PyBytes_FromStringAndSize(<const char *>start, first - start),
        payload,
        signature,
        PyBytes_FromStringAndSize(<const char *>start, second - start),
    )


# ------------------------------------------------------------------- claims

CLAIMS_MALFORMED = 4
CLAIMS_ISSUER = 5
CLAIMS_AUDIENCE = 6

MAX_SUBJECT_BYTES = 255
# A claim may be absent, but not null (RFC 7519 sections 4.1.1 to 4.1.7 want a text or a number).
cdef object ABSENT = object()

cdef enum:
    SUBJECT_BYTES = 255
    NO_DATE = -1          # absent
    BAD_DATE = -2

cdef int64_t _MAX_DATE_S = 1 << 53
MAX_DATE_S = _MAX_DATE_S


cdef inline bint is_text(object value):
    return type(value) is str


cdef inline bint is_text_or_absent(object value):
    return value is ABSENT or type(value) is str


cdef int64_t whole_date(object value, bint up) except -3:
    """A NumericDate in whole seconds, NO_DATE or BAD_DATE."""
    cdef double seconds
    cdef int64_t whole
    cdef int overflow = 0
    if type(value) is int:
        whole = PyLong_AsLongLongAndOverflow(value, &overflow)
        return whole if not overflow and 0 <= whole <= _MAX_DATE_S else BAD_DATE
    if value is ABSENT:
        return NO_DATE
    if type(value) is float:
        seconds = value
        if not 0 <= seconds <= <double>_MAX_DATE_S:
            return BAD_DATE
        return <int64_t>(ceil(seconds) if up else floor(seconds))
    return BAD_DATE


cdef bint is_subject(str subject):
    if not subject or len(subject) > SUBJECT_BYTES or "\0" in subject:
        return False
    return subject.isascii() or len(subject.encode("utf-8", "surrogatepass")) <= SUBJECT_BYTES


cdef object judge(
    dict claims, str issuer, str audience, int64_t now, int64_t leeway, int64_t skew, bytes payload
):
    cdef int64_t exp, iat, nbf
    cdef int code
    cdef tuple audiences
    iss = claims.get("iss")
    sub = claims.get("sub")
    aud = claims.get("aud")
    jti = claims.get("jti", ABSENT)
    sid = claims.get("sid", ABSENT)
    scope = claims.get("scope", ABSENT)
    client_id = claims.get("client_id", ABSENT)
    if not (is_text(iss) and is_text(sub) and is_text_or_absent(jti) and is_text_or_absent(sid)):
        return CLAIMS_MALFORMED
    if not (is_text_or_absent(scope) and is_text_or_absent(client_id)):
        return CLAIMS_MALFORMED
    if type(aud) is str:
        audiences = (audience if aud == audience else aud,)     # one object for all tokens: a cache holds many
    elif type(aud) is list:
        for one in <list>aud:
            if type(one) is not str:
                return CLAIMS_MALFORMED
        audiences = tuple(aud)
    else:
        return CLAIMS_MALFORMED
    exp = whole_date(claims.get("exp", ABSENT), False)
    iat = whole_date(claims.get("iat", ABSENT), True)
    nbf = whole_date(claims.get("nbf", ABSENT), True)
    if exp < 0 or iat == BAD_DATE or nbf == BAD_DATE or not is_subject(sub):
        return CLAIMS_MALFORMED
    if iss != issuer:
        return CLAIMS_ISSUER
    if audience not in audiences:
        return CLAIMS_AUDIENCE
    code = judge_times(now, exp, INT64_MIN if nbf < 0 else nbf, INT64_MIN if iat < 0 else iat, leeway, skew)
    if code != 0:
        return code
    return (
        issuer,
        sub,
        audiences,
        exp,
        None if iat < 0 else whole_date(claims["iat"], False),
        None if nbf < 0 else nbf,
        None if jti is ABSENT else jti,
        None if sid is ABSENT else sid,
        None if scope is ABSENT else scope,
        None if client_id is ABSENT else client_id,
        payload,
    )


def read_claims(payload, decode, max_depth, issuer, audience, now_s, leeway_s, skew_s):
    """Decode the claims of an access token strictly and judge them (RFC 7519 section 4.1, RFC 9068 section 4).

    See the twin in ``_core_py.py`` for arguments, result, errors and source.
    """
    cdef int64_t now = as_int64(now_s, "now_s")
    cdef int64_t leeway = as_int64(leeway_s, "leeway_s")
    cdef int64_t skew = as_int64(skew_s, "skew_s")
    if type(issuer) is not str or type(audience) is not str:
        raise TypeError("issuer and audience must be str")
    if leeway < 0 or skew < 0:
        raise ValueError("leeway_s and skew_s must not be negative")
    if scan_bytes(payload, as_int64(max_depth, "max_depth"), MEMBERS) != 0:
        return CLAIMS_MALFORMED
    members = decode(payload)
    if type(members) is not dict:
        return CLAIMS_MALFORMED
    return judge(<dict>members, issuer, audience, now, leeway, skew, payload)


# --------------------------------------------------------- seen-token cache

cdef int64_t _MAX_CAPACITY_BYTES = 1 << 50
MAX_CAPACITY_BYTES = _MAX_CAPACITY_BYTES

cdef enum:
    MOST_HITS = 3
    PROBATION_SHARE = 10
    SUBJECT_SHARE = 16


@cython.no_gc      # nothing in it leads back to it, and a collection need not look at thousands of them
cdef class _Seen:
    """One accepted token in the cache."""
    cdef bytes token              # None once it is gone
    cdef object value
    cdef str subject
    cdef int64_t exp_s
    cdef int64_t epoch
    cdef int64_t size
    cdef int hits
    cdef bint is_settled          # in the settled queue, else on probation


cdef class SeenTokens:
    """Accepted tokens, bounded in bytes and scan-resistant (S3-FIFO).

    See the twin in ``_core_py.py`` for arguments, results, errors and source. It has no lock because it holds the GIL:
    nothing between taking an entry from its queue and accounting for it may call into Python.
    """
    cdef dict _entries
    cdef object _probation
    cdef object _settled
    cdef object _ghosts
    cdef dict _held
    cdef object _is_still_good
    cdef readonly int64_t capacity_bytes
    cdef readonly int64_t held_bytes
    cdef readonly int64_t epoch
    cdef int64_t _probation_bytes

    def __init__(self, capacity_bytes, is_still_good):
        cdef int64_t capacity = as_int64(capacity_bytes, "capacity_bytes")
        if not 0 <= capacity <= _MAX_CAPACITY_BYTES:
            raise ValueError("capacity_bytes is out of range")
        self._entries = {}
        self._probation = deque()
        self._settled = deque()
        self._ghosts = OrderedDict()
        self._held = {}
        self._is_still_good = is_still_good
        self.capacity_bytes = capacity
        self.held_bytes = 0
        self.epoch = 0
        self._probation_bytes = 0

    def __len__(self):
        return len(self._entries)

    def get(self, token, now_s):
        """What was stored for the token, or None."""
        cdef int64_t now = as_int64(now_s, "now_s")
        cdef int64_t epoch
        found = self._entries.get(token)
        if found is None:
            return None
        cdef _Seen entry = <_Seen>found
        if entry.exp_s <= now:
            self.drop(entry)
            return None
        if entry.epoch != self.epoch:
            epoch = self.epoch
            if not self._is_still_good(entry.value):
                self.drop(entry)
                return None
            entry.epoch = epoch
        if entry.hits < MOST_HITS:
            entry.hits += 1
        return entry.value

    def put(self, token, value, subject, exp_s, size, epoch, now_s):
        """Store an accepted token."""
        cdef int64_t now = as_int64(now_s, "now_s")
        cdef int64_t room = as_int64(size, "size")
        cdef _Seen entry
        if type(token) is not bytes or type(subject) is not str:
            raise TypeError("token must be bytes and subject str")
        if room < 1:
            raise ValueError("size must be positive")
        entry = _Seen()
        entry.token = token
        entry.value = value
        entry.subject = subject
        entry.exp_s = as_int64(exp_s, "exp_s")
        entry.epoch = as_int64(epoch, "epoch")
        entry.size = room
        if token in self._entries or room > self.capacity_bytes // PROBATION_SHARE:
            return
        self.forget_expired(self._probation, now)
        self.forget_expired(self._settled, now)
        while self.held_bytes + room > self.capacity_bytes:
            self.evict_one()
        self._entries[token] = entry
        self.held_bytes += room
        if hash(token) in self._ghosts and self.settle(entry):
            del self._ghosts[hash(token)]
            return
        self._probation.append(entry)
        self._probation_bytes += room

    def invalidate(self):
        """From now on every token is asked about again before it is served."""
        self.epoch += 1

    cdef int drop(self, _Seen entry) except -1:
        # It stays in its queue, and is paid for, until it comes to the front; its subject is free of it at once.
        if entry.token is None:
            return 0
        if self._entries.get(entry.token) is entry:
            del self._entries[entry.token]
        entry.token = None
        entry.value = None
        if entry.is_settled:
            held = self._held[entry.subject] - entry.size
            if held:
                self._held[entry.subject] = held
            else:
                del self._held[entry.subject]
        return 0

    cdef int forget_expired(self, object queue, int64_t now) except -1:
        cdef _Seen entry
        while queue:
            entry = <_Seen>queue[0]
            if entry.token is not None and entry.exp_s > now:
                return 0
            queue.popleft()
            self.release(entry)
        return 0

    cdef bint settle(self, _Seen entry) except -1:
        """Move to the settled queue, unless the subject has its share of it already."""
        held = self._held.get(entry.subject, 0)
        if held + entry.size > self.capacity_bytes // SUBJECT_SHARE:
            return False
        self._held[entry.subject] = held + entry.size
        entry.is_settled = True
        entry.hits = 0
        self._settled.append(entry)
        return True

    cdef int release(self, _Seen entry) except -1:
        """Account for an entry that has left its queue for good."""
        self.held_bytes -= entry.size
        if not entry.is_settled:
            self._probation_bytes -= entry.size
        return self.drop(entry)

    cdef int evict_one(self) except -1:
        cdef _Seen entry
        if self._probation_bytes > self.capacity_bytes // PROBATION_SHARE or not self._settled:
            entry = <_Seen>self._probation.popleft()
            if entry.token is not None and entry.hits > 0:
                if self.settle(entry):
                    self._probation_bytes -= entry.size
                    return 0
            elif entry.token is not None:
                self._ghosts[hash(entry.token)] = None
                while len(self._ghosts) > len(self._entries):
                    self._ghosts.popitem(False)
            self.release(entry)
            return 0
        entry = <_Seen>self._settled.popleft()
        if entry.token is not None and entry.hits > 0:
            entry.hits -= 1
            self._settled.append(entry)
        else:
            self.release(entry)
        return 0
