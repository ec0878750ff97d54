# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: binding=True, autotestdict=False, embedsignature=False
"""The compiled core: token-bucket arithmetic, claim times, JSON member scan.

Kernels are ``noexcept nogil`` over 64-bit integers, so the compiler proves that
they touch no Python object; the ``def`` shells check types and bounds.  Each
function means exactly what its readable twin in ``_core_py.py`` says, and
``tests/twins`` holds the two together.
"""
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp

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
    with nogil:
        verdict = decide(tat, now, emission, size, units)
    return (verdict.allowed != 0, verdict.tat_us, verdict.remaining, verdict.retry_after_us)


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
    with nogil:
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
        if byte == 34:
            return position
        if byte < 32:
            return -1
        if byte != 92:
            position += 1
            continue
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


def scan_json(data, max_depth=MAX_JSON_DEPTH, max_members=MAX_JSON_MEMBERS):
    """Find duplicate member names, excessive depth and excessive members before decoding.

    See the twin in ``_core_py.py`` for arguments, result, errors and source.
    """
    cdef int64_t depth = as_int64(max_depth, "max_depth")
    cdef int64_t members = as_int64(max_members, "max_members")
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
            return JSON_MALFORMED
    start = <const uint8_t *>(<bytes>data)
    size = len(<bytes>data)
    if memchr(start, 92, <size_t>size) != NULL:  # resolved names never take more room than the document
        arena = <uint8_t *>PyMem_Malloc(<size_t>size)
        if arena == NULL:
            raise MemoryError
    with nogil:
        code = scan(start, size, depth, members, arena)
    PyMem_Free(arena)
    return code
