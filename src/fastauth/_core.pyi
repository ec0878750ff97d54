from collections.abc import Callable
from typing import Any, Final

from typing_extensions import disjoint_base

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

TOKEN_TOO_LARGE: Final[int]
TOKEN_MALFORMED: Final[int]

def decode_base64url(text: bytes) -> bytes | None: ...
def split_token(token: bytes, max_bytes: int) -> tuple[bytes, bytes, bytes, bytes] | int: ...

CLAIMS_MALFORMED: Final[int]
CLAIMS_ISSUER: Final[int]
CLAIMS_AUDIENCE: Final[int]

MAX_SUBJECT_BYTES: Final[int]
MAX_DATE_S: Final[int]

def read_claims(
    payload: bytes,
    decode: Callable[[bytes], Any],
    max_depth: int,
    issuer: str,
    audience: str,
    now_s: int,
    leeway_s: int,
    skew_s: int,
) -> tuple[Any, ...] | int: ...

MAX_CAPACITY_BYTES: Final[int]

@disjoint_base
class SeenTokens:
    @property
    def capacity_bytes(self) -> int: ...
    @property
    def held_bytes(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    def __init__(self, capacity_bytes: int, is_still_good: Callable[[Any], bool]) -> None: ...
    def __len__(self) -> int: ...
    def get(self, token: bytes, now_s: int) -> Any: ...
    def put(self, token: bytes, value: object, subject: str, exp_s: int, size: int, epoch: int, now_s: int) -> None: ...
    def invalidate(self) -> None: ...
