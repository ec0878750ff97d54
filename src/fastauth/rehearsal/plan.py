"""What is to be rehearsed, within bounds."""

import re
from typing import Final, Literal

import msgspec

from fastauth.rehearsal.errors import RehearsalRefused

Lane = Literal["login", "refresh", "verify"]
LANES: Final[tuple[Lane, ...]] = ("login", "refresh", "verify")

MAX_PER_S: Final = 100_000.0
MAX_SECONDS: Final = 3_600.0
MAX_SESSIONS: Final = 10_000
MOST_WAITING: Final = 300_000  # without an answer at a time; each is remembered
MOST_CONNECTIONS: Final = 4_000  # of all lanes together

_RATE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)/(s|m)")
_TIME: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0}

# A session may be refreshed so often in a row out of the box (limits.refresh_per_family: 60/m burst 120).
_REFRESHES_OF_A_SESSION: Final = 100
_FEWEST_SESSIONS: Final = 8
_USUAL_SESSIONS: Final = 64
_MOST_DERIVED_SESSIONS: Final = 1_000


class Plan(msgspec.Struct, frozen=True):
    """Requests a second by lane, for so many seconds; ``patience_s`` is how long a client waits for its answer.

    ``p99_s`` is the slowest 99th percentile that still counts as keeping up when a ceiling is sought, for at most
    ``ceiling_s`` a lane, 0 for no ceilings. ``sessions`` None: as many as the rates need.
    """

    rates: dict[Lane, float]
    seconds: float
    patience_s: float = 3.0
    p99_s: float = 1.0
    ceiling_s: float = 10.0
    sessions: int | None = None
    generators: int = 1

    @property
    def sessions_wanted(self) -> int:
        """How many sessions are opened beforehand: their tokens are verified and refreshed. 0 for logins alone."""
        if not self.rates.keys() - {"login"}:
            return 0
        if self.sessions is not None:
            return self.sessions
        refreshes = self.rates.get("refresh", 0.0) * (self.seconds + self.ceiling_s)
        usual = min(_USUAL_SESSIONS, max(_FEWEST_SESSIONS, int(sum(self.rates.values()) / 10)))
        return min(_MOST_DERIVED_SESSIONS, max(usual, -int(-refreshes // _REFRESHES_OF_A_SESSION)))

    def connections(self, per_s: float) -> tuple[int, int]:
        """Of a lane: how many are open from the start, and how many there may be."""
        most = MOST_CONNECTIONS // max(1, len(self.rates))
        return max(1, min(32, int(per_s))), max(16, min(most, int(per_s * self.patience_s * 1.2)))


def check_plan(plan: Plan) -> Plan:
    """The same. Raises RehearsalRefused for one that is out of bounds."""
    if not plan.rates:
        raise RehearsalRefused("say what is rehearsed: --logins 50/s, --refresh 200/s, --verify 1000/s, or several")
    if sum(plan.rates.values()) > MAX_PER_S:
        raise RehearsalRefused(f"all rates together must not be more than {MAX_PER_S:,.0f}/s")
    if not 1 <= plan.seconds <= MAX_SECONDS:
        raise RehearsalRefused("--for must be from 1s to 1h")
    if not 0.05 <= plan.patience_s <= 60:
        raise RehearsalRefused("--patience must be from 50ms to 60s")
    if not 0.001 <= plan.p99_s <= plan.patience_s:
        raise RehearsalRefused("--p99 must be from 1ms to --patience")
    if sum(plan.rates.values()) * plan.patience_s > MOST_WAITING:
        raise RehearsalRefused(f"all rates together times --patience must not be more than {MOST_WAITING:,} requests")
    return plan


def parse_rate(text: str) -> float:
    """``500/s`` or ``30/m``, in requests a second. Raises ValueError."""
    found = _RATE.fullmatch(text.replace(",", ""))
    rate = float(found[1]) / _SECONDS[found[2]] if found else 0.0
    if not 0 < rate <= MAX_PER_S:
        raise ValueError(f"{text!r}: a rate is like 500/s or 30/m, up to {MAX_PER_S:,.0f}/s")
    return rate


def parse_time(text: str) -> float:
    """``500ms``, ``60s``, ``5m`` or ``1h``, in seconds. Raises ValueError."""
    if not (found := _TIME.fullmatch(text)):
        raise ValueError(f"{text!r}: a time is like 500ms, 60s, 5m or 1h")
    return float(found[1]) * _SECONDS[found[2]]
