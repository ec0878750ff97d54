"""What this machine knows of the buckets in Redis: enough to guard its share without it, and to remind it.

Each answer from Redis says how empty the bucket is, and the local table's bucket of the same key is emptied as far. So
when Redis is gone, the node's share of the limit goes on from there; when Redis has lost its keys, the next call tells
it how empty the bucket was; and a request that Redis would certainly refuse need not be asked about.
"""

from functools import lru_cache
from typing import Final

from fastauth import core
from fastauth.domain.limits import Limit
from fastauth.limits.local import LocalBuckets
from fastauth.limits.shared.link import RedisLink

# An answer is at most this old when it is copied, so what is told back never exceeds what Redis itself still knows.
_SLACK_US: Final = 60_000
_DRIFT: Final = 1_000  # and clocks of two machines part by less than a thousandth


class Mirror:
    """The local copies; the nodes that the link saw last share each limit."""

    def __init__(self, local: LocalBuckets, link: RedisLink) -> None:
        self._local = local
        self._link = link

    def take(self, key: str, limit: Limit, cost: int) -> core.Decision:
        """Decide within this node's share."""
        share = share_of(limit, self._link.nodes)
        return self._local.take(key, share, min(cost, share.burst))

    def copy(self, key: str, limit: Limit, debt_us: int) -> None:
        """Remember how empty the bucket is: microseconds until it is full."""
        self._local.raise_debt(key, share_of(limit, self._link.nodes), debt_us)

    def reminder(self, key: str, limit: Limit) -> int:
        """How empty the bucket in Redis is at least, if Redis has forgotten nothing: microseconds until it is full."""
        return _certain(self._local.debt(key, share_of(limit, self._link.nodes)))

    def refusal(self, key: str, limit: Limit, cost: int) -> core.Decision | None:
        """What Redis would answer, if it would refuse for certain."""
        debt_us = min(self._local.debt(key, share_of(limit, self._link.nodes)), limit.window_us)
        room_us = limit.window_us - cost * limit.emission_us
        if _certain(debt_us) <= room_us:
            return None
        return core.Decision(False, (limit.window_us - debt_us) // limit.emission_us, debt_us - room_us)


def _certain(debt_us: int) -> int:
    return max(0, debt_us - debt_us // _DRIFT - _SLACK_US)


@lru_cache(maxsize=1024)
def _share(emission_us: int, burst: int, nodes: int) -> core.Rate:
    return Limit(emission_us, burst).share(nodes)


def share_of(limit: Limit, nodes: int) -> core.Rate:
    """One node's part of a limit."""
    return limit if nodes == 1 else _share(limit.emission_us, limit.burst, nodes)
