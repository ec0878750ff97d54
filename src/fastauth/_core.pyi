from typing import Final

IMPLEMENTATION: Final[str]

MAX_NOW_US: Final[int]
MAX_WINDOW_US: Final[int]
MAX_EMISSION_US: Final[int]

def gcra(tat_us: int, now_us: int, emission_us: int, burst: int, cost: int) -> tuple[bool, int, int, int]: ...

TIMES_OK: Final[int]
TIMES_EXPIRED: Final[int]
TIMES_NOT_YET_VALID: Final[int]
TIMES_ISSUED_IN_FUTURE: Final[int]

def check_times(now_s: int, exp_s: int, nbf_s: int | None, iat_s: int | None, leeway_s: int, skew_s: int) -> int: ...

JSON_OK: Final[int]
JSON_DUPLICATE: Final[int]
JSON_TOO_DEEP: Final[int]
JSON_TOO_MANY: Final[int]
JSON_MALFORMED: Final[int]

MAX_JSON_DEPTH: Final[int]
MAX_JSON_MEMBERS: Final[int]

def scan_json(data: bytes, max_depth: int = ..., max_members: int = ...) -> int: ...
