"""What all workers of a server count together: one atomic addition a count, in memory that they share.

``metrics.py`` shows it.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from fastauth import core
from fastauth.backends.hash_scheduler import OUTCOMES as HASH_OUTCOMES
from fastauth.domain.breaker import State
from fastauth.endpoints.login_queue import DECISIONS as LOGIN_DECISIONS
from fastauth.endpoints.rate_limit import OUTCOMES

LIMITS: Final = (
    "login_per_ip",
    "login_global",
    "login_per_user",
    "login_per_user_device",
    "token_per_client",
    "refresh_per_ip",
    "refresh_per_family",
    "verify_per_ip",
)
REDIS_LOST: Final = "lost"
REDIS_BACK: Final = "back"
LOGIN_LANES: Final = ("known_device", "login")
DEPENDENCIES: Final = ("database", "http", "ldap")
STATES: Final[tuple[State, ...]] = ("closed", "half_open", "open")

LANE_DECISIONS: Final = ("admitted", "refused")

ROUTES: Final = (
    "/auth",
    "/verify",
    "/token",
    "/introspect",
    "/revoke",
    "/logout",
    "/.well-known/jwks.json",
    "metadata",
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "other",
)
"""What requests are counted by; whatever has no route of its own is ``other``, so that nobody can make up labels."""
STATUSES: Final = ("2xx", "3xx", "4xx", "429", "5xx", "503")
BOUNDS_S: Final = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Of the buckets of every histogram; one more holds what took longer."""
HASH: Final = "hash"
LOOP_DELAY: Final = "loop"
CHECKED: Final = "checked"
RECYCLED: Final = ("died", "wedged", "too_large")

_SUM: Final = "sum_us"


def _histogram(name: str) -> Iterator[tuple[str, str]]:
    yield from ((f"seconds {name}", str(bound)) for bound in (*BOUNDS_S, "+Inf"))
    yield f"seconds {name}", _SUM


# The place of each counter.
_PLACES: Final = {
    place: index
    for index, place in enumerate(
        [
            *(place for route in ROUTES for place in _histogram(route)),
            *_histogram(HASH),
            *_histogram(LOOP_DELAY),
            *((f"requests {route}", status) for route in ROUTES for status in STATUSES),
            *(("tokens", outcome) for outcome in (CHECKED,)),
            *(("workers", why) for why in RECYCLED),
            *((limit, outcome) for limit in LIMITS for outcome in OUTCOMES),
            ("redis", REDIS_LOST),
            ("redis", REDIS_BACK),
            *((f"breaker {dependency}", state) for dependency in DEPENDENCIES for state in STATES),
            *((f"lane {lane}", decision) for lane in LOGIN_LANES for decision in LOGIN_DECISIONS),
            *(("lane renew", decision) for decision in LANE_DECISIONS),
            *(("hashes", outcome) for outcome in HASH_OUTCOMES),
        ]
    )
}
_SIZE: Final = -(-8 * len(_PLACES) // mmap.PAGESIZE) * mmap.PAGESIZE


def counters_path(data_path: Path) -> Path:
    """The file that the workers of a server in this data directory count in."""
    return data_path / "fastauth.counters"


class Counters:
    """The counters of one server."""

    def __init__(self, path: Path | None) -> None:
        """In: the file that the workers of a server share; None counts for this process alone."""
        if path is None:
            descriptor = os.memfd_create("fastauth-counters", os.MFD_CLOEXEC)
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(descriptor, 0, _SIZE)
        self._memory = mmap.mmap(descriptor, _SIZE)
        self._cells = core.SharedCounters(self._memory, descriptor)

    def clear(self) -> None:
        """Begin anew; only before there are workers."""
        self._memory[:] = bytes(_SIZE)

    def of_limit(self, limit: str) -> Callable[[str], None]:
        """Counts outcomes of one limit."""
        places = {outcome: _PLACES[limit, outcome] for outcome in OUTCOMES}
        add = self._cells.add
        return lambda outcome: add(places[outcome])

    def of_redis(self) -> Callable[[bool], None]:
        """Counts that Redis was lost (False) or is back."""
        add = self._cells.add
        lost, back = partial(add, _PLACES["redis", REDIS_LOST]), partial(add, _PLACES["redis", REDIS_BACK])
        return lambda is_up: back() if is_up else lost()

    def count_breaker(self, dependency: str, state: State) -> None:
        """A circuit has changed to this state."""
        self._cells.add(_PLACES[f"breaker {dependency}", state])

    def of_lane(self, lane: str) -> Callable[[str], None]:
        """Counts what a lane decides."""
        places = {decision: _PLACES[f"lane {lane}", decision] for decision in LANE_DECISIONS}
        add = self._cells.add
        return lambda decision: add(places[decision])

    def of_login_lanes(self) -> Callable[[int, str], None]:
        """Counts what the login queue decides, by lane."""
        add = self._cells.add
        return lambda lane, decision: add(_PLACES[f"lane {LOGIN_LANES[lane]}", decision])

    def of_hashes(self) -> Callable[[str], None]:
        """Counts what became of hash jobs."""
        add = self._cells.add
        return lambda outcome: add(_PLACES["hashes", outcome])

    def read(self, family: str, outcome: str) -> int:
        """One counter, all workers together."""
        return self._cells.read(_PLACES[family, outcome])

    def of_requests(self) -> Callable[[str, int, float], None]:
        """Counts a request: its route, the status of its answer, how long it took in seconds."""
        add, observe = self._cells.add, self._cells.observe
        at = {
            route: (_PLACES[f"seconds {route}", str(BOUNDS_S[0])], _PLACES[f"requests {route}", STATUSES[0]])
            for route in ROUTES
        }
        columns = [_status_column(status) for status in range(600)]

        def count(route: str, status: int, seconds: float) -> None:
            first, statuses = at[route]
            observe(first, BOUNDS_S, seconds)
            add(statuses + columns[status])

        return count

    def of_time(self, name: str) -> Callable[[float], None]:
        """Counts how long something took, in seconds: ``HASH`` or ``LOOP_DELAY``."""
        return partial(self._cells.observe, _PLACES[f"seconds {name}", str(BOUNDS_S[0])], BOUNDS_S)

    def count_checked(self, tokens: int) -> None:
        """So many tokens were looked at whole: the cache of good ones did not hold them."""
        self._cells.add(_PLACES["tokens", CHECKED], tokens)

    def count_worker(self, why: str) -> None:
        """A worker had to be replaced, for one of ``RECYCLED``."""
        self._cells.add(_PLACES["workers", why])

    def histogram(self, name: str) -> tuple[list[int], float]:
        """How many took up to each of ``BOUNDS_S``, and how many longer; how long all of them together, in seconds."""
        first = _PLACES[f"seconds {name}", str(BOUNDS_S[0])]
        cells = [self._cells.read(first + offset) for offset in range(_SUM_AT + 1)]
        return cells[:_SUM_AT], cells[_SUM_AT] / 1e6

    def family(self, name: str) -> dict[str, int]:
        """All counters of one family, by outcome."""
        return {outcome: self._cells.read(place) for outcome, place in _FAMILIES.get(name, ())}


_SUM_AT: Final = len(BOUNDS_S) + 1
_FAMILIES: Final[dict[str, list[tuple[str, int]]]] = {}
for (_family, _outcome), _place in _PLACES.items():
    _FAMILIES.setdefault(_family, []).append((_outcome, _place))


def _status_column(status: int) -> int:
    """A place among ``STATUSES``: two refusals that mean something else than a mistake have their own."""
    name = str(status) if str(status) in STATUSES else f"{max(2, status // 100)}xx"
    return STATUSES.index(name)
