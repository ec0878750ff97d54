"""Ways to bound a queue: what each allows, and what it learns from those who are served.

``waiting`` counts those in the queue and the one that is served. ``Ours`` is the rule of ``fastauth.domain.admission``,
the same code that the server runs; the others are what is usual elsewhere.
"""

from typing import Protocol

from fastauth.domain.admission import Gate, LaneRules, Pace


class Policy(Protocol):
    """Decides who joins the queue."""

    def allows(self, waiting: int, now_s: float) -> bool: ...
    def served(self, sojourn_s: float, service_s: float, waiting: int, now_s: float) -> None: ...


class Fixed:
    """At most ``limit`` at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def allows(self, waiting: int, now_s: float) -> bool:
        return waiting < self._limit

    def served(self, sojourn_s: float, service_s: float, waiting: int, now_s: float) -> None:
        pass


class CoDel:
    """Controlled delay (RFC 8289) at the entrance: refuses while no request of a whole interval was served in time."""

    def __init__(self, target_s: float, interval_s: float) -> None:
        self._target_s = target_s
        self._interval_s = interval_s
        self._good_until_s = interval_s

    def allows(self, waiting: int, now_s: float) -> bool:
        return waiting == 0 or now_s < self._good_until_s

    def served(self, sojourn_s: float, service_s: float, waiting: int, now_s: float) -> None:
        if sojourn_s <= self._target_s or waiting == 0:
            self._good_until_s = now_s + self._interval_s


class Gradient:
    """The limit follows the long-term over the short-term sojourn (Gradient2 of Netflix's concurrency-limits)."""

    def __init__(self, tolerance: float = 1.5, most: int = 512) -> None:
        self._limit = 20.0
        self._long_s = 0.0
        self._tolerance = tolerance
        self._most = most

    def allows(self, waiting: int, now_s: float) -> bool:
        return waiting < self._limit

    def served(self, sojourn_s: float, service_s: float, waiting: int, now_s: float) -> None:
        self._long_s += (sojourn_s - self._long_s) * (1 / 600 if self._long_s else 1)
        if self._long_s > 2 * sojourn_s:
            self._long_s *= 0.95
        if waiting < self._limit / 2:
            return
        gradient = max(0.5, min(1.0, self._tolerance * self._long_s / sojourn_s))
        wanted = self._limit * gradient + 4
        self._limit = max(1.0, min(self._most, 0.8 * self._limit + 0.2 * wanted))


class Aimd:
    """Additive increase while requests are served in time, multiplicative decrease when one is not."""

    def __init__(self, target_s: float) -> None:
        self._limit = 20.0
        self._target_s = target_s

    def allows(self, waiting: int, now_s: float) -> bool:
        return waiting < self._limit

    def served(self, sojourn_s: float, service_s: float, waiting: int, now_s: float) -> None:
        if sojourn_s > self._target_s:
            self._limit = max(1.0, self._limit * 0.9)
        elif waiting >= self._limit / 2:
            self._limit += 1 / self._limit


class Ours:
    """``fastauth.domain.admission.Gate`` over the pace, measured as ``fastauth.backends.hash_scheduler`` does."""

    def __init__(self, rules: LaneRules, expected_s: float, steady_jobs: int = 2) -> None:
        self._gate = Gate(rules)
        self._pace = Pace(expected_s)
        self._steady_jobs = steady_jobs

    def allows(self, waiting: int, now_s: float) -> bool:
        self._gate.arrive(now_s)
        per_s = self._pace.per_s
        return self._gate.allows(waiting / per_s, per_s, self._steady_jobs / per_s)

    def served(self, sojourn_s: float, service_s: float, waiting: int, now_s: float) -> None:
        self._pace.served(service_s)
