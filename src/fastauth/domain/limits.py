"""What a rate limit is, and how it is written: ``20/m burst 40``."""

import re
from typing import Final, Literal, get_args

from fastauth import core
from fastauth.domain.errors import FastauthError

Tier = Literal["local", "exact", "leased"]

_TEXT: Final = re.compile(
    r"(?P<count>[0-9]{1,9})/(?P<periods>[0-9]{0,9})(?P<unit>[a-z]+)(?: burst (?P<burst>[0-9]{1,18}))?"
)
_UNITS_US: Final = {
    "s": 1_000_000,
    "second": 1_000_000,
    "m": 60_000_000,
    "minute": 60_000_000,
    "h": 3_600_000_000,
    "hour": 3_600_000_000,
    "d": 86_400_000_000,
    "day": 86_400_000_000,
}
_TIERS: Final = get_args(Tier)
_MAX_TEXT: Final = 100


class LimitRefused(FastauthError):
    """A limit that cannot be meant or cannot be kept; the text says why."""

    code = "limit_refused"


class RateLimited(FastauthError):
    """A limit's bucket is empty; waiting ``retry_after_s`` admits."""

    code = "rate_limited"

    def __init__(self, limit: str, retry_after_us: int) -> None:
        """In: the limit's name, and what the bucket said."""
        super().__init__(f"the limit {limit} is reached")
        self.limit = limit
        self.retry_after_s = max(1, -(-retry_after_us // 1_000_000))  # whole seconds (RFC 9110 section 10.2.3), up


class Limit(core.Rate):
    """A token bucket's rate and size, and where it is to be kept.

    In: ``emission_us`` microseconds in which one token comes back (1 to one day), ``burst`` tokens in a full bucket
    (``emission_us * burst`` at most ``core.MAX_WINDOW_US``, 71 years), ``tier`` None for what the user of the limit
    thinks best, ``is_shadow`` for one that counts and never refuses. Raises LimitRefused.
    """

    __slots__ = ("is_shadow", "tier")

    def __init__(self, emission_us: int, burst: int, tier: Tier | None = None, *, is_shadow: bool = False) -> None:
        try:
            super().__init__(emission_us, burst)
        except (TypeError, ValueError, OverflowError) as error:
            raise LimitRefused(str(error)) from None
        self.tier = tier
        self.is_shadow = is_shadow

    @classmethod
    def parse(cls, text: str) -> "Limit":
        """From ``COUNT/UNIT [burst TOKENS] [shadow] [local or exact or leased]``, as in ``20/m burst 40 shadow``.

        UNIT is s, m, h or d, with a number before it for several of them: ``1/10s``. Without ``burst`` the bucket holds
        COUNT tokens. Rates go from 1/d to 1000000/s. A bucket counts whole microseconds, so a rate that it would miss
        by more than 1 % is refused, naming one that it keeps; it never admits more than is written.

        Raises LimitRefused, whose text says what is wrong.
        """
        if type(text) is not str or len(text) > _MAX_TEXT:
            raise LimitRefused("not a limit; write one as 20/m burst 40")
        words = text.split()
        chosen: dict[str, str] = {}
        while words and words[-1] in (*_TIERS, "shadow"):
            word = words.pop()
            kind = "shadow" if word == "shadow" else "tier"
            if kind in chosen:
                raise LimitRefused(f"{word}: one such word is enough")
            chosen[kind] = word
        match = _TEXT.fullmatch(" ".join(words))
        if match is None:
            raise LimitRefused(
                "not a limit; write one as 20/m burst 40, then shadow, local, exact or leased if need be, or as off"
            )
        if match["unit"] not in _UNITS_US:
            raise LimitRefused(f"{match['unit']}: no such unit; there are s, m, h and d")
        count = int(match["count"])
        period_us = int(match["periods"] or 1) * _UNITS_US[match["unit"]]
        if count == 0 or period_us == 0:
            raise LimitRefused("a limit of nothing; write off for no limit at all")
        burst = int(match["burst"] or count)
        if burst == 0:
            raise LimitRefused("burst 0 would never admit anything")
        tier: Tier | None = chosen.get("tier")  # type: ignore[assignment]  # only words of _TIERS get in
        return cls(_emission_us(count, period_us), burst, tier, is_shadow="shadow" in chosen)

    def share(self, nodes: int) -> core.Rate:
        """The part of one of ``nodes`` nodes: together they admit no more, but that each may begin with one token, and
        that none is slower than one a day.
        """
        burst = max(1, self.burst // nodes)
        return core.Rate(min(self.emission_us * nodes, core.MAX_EMISSION_US), burst)

    def __repr__(self) -> str:
        more = "".join(f", {word}" for word in (self.tier, "shadow" if self.is_shadow else None) if word)
        return f"Limit(emission_us={self.emission_us}, burst={self.burst}{more})"


def _emission_us(count: int, period_us: int) -> int:
    emission_us = -(-period_us // count)
    if emission_us > core.MAX_EMISSION_US:
        raise LimitRefused("slower than 1/d; one token a day is the slowest rate")
    if count > period_us:
        raise LimitRefused("faster than 1000000/s, which is the fastest rate")
    if emission_us * count > period_us + period_us // 100:
        seconds = 1_000_000
        raise LimitRefused(
            f"a bucket counts whole microseconds and would keep {seconds // emission_us}/s; "
            f"write that, or {seconds // (emission_us - 1)}/s"
        )
    return emission_us
