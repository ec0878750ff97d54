"""What the server says of itself under load: ``/readyz`` once a second, and ``/metrics`` where it may be read."""

import http.client
import threading
import time
from typing import Final

import msgspec

from fastauth.rehearsal.asking import Connection, Metrics, health, metrics
from fastauth.rehearsal.target import Target

GONE: Final = "/readyz does not answer"
_EVERY_S: Final = 1.0
_MOST_EVENTS: Final = 200


class Event(msgspec.Struct, frozen=True):
    """Something that the server said first, or took back, so many seconds after the beginning."""

    at_s: float
    what: str
    is_trouble: bool


class Watch:
    """A thread that asks; ``begin`` sets its clock to nought."""

    def __init__(self, target: Target) -> None:
        self.events: list[Event] = []
        self._target = target
        self._began_s = time.monotonic()
        self._troubles: frozenset[str] = frozenset()
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def begin(self) -> None:
        self._began_s = time.monotonic()
        self._thread.start()

    def end(self) -> None:
        """Once it has stopped asking."""
        self._has_ended.set()
        self._thread.join()

    def _watch(self) -> None:
        connection = Connection(self._target)
        shows_metrics = True
        while not self._has_ended.wait(_EVERY_S):
            try:
                troubles = health(connection).troubles
                if shows_metrics:
                    seen = metrics(connection)
                    shows_metrics = seen is not None
                    troubles |= frozenset() if seen is None else seen.open_breakers
            except (OSError, http.client.HTTPException):
                troubles = frozenset({GONE})
            self._compare(troubles)
        connection.close()

    def _compare(self, troubles: frozenset[str]) -> None:
        at_s = round(time.monotonic() - self._began_s, 1)
        for what, is_trouble in (
            *((what, True) for what in sorted(troubles - self._troubles)),
            *((what, False) for what in sorted(self._troubles - troubles)),
        ):
            if len(self.events) < _MOST_EVENTS:
                self.events.append(Event(at_s, what, is_trouble))
        self._troubles = troubles


def metrics_now(target: Target) -> Metrics | None:
    """None where the server does not show them to us, or does not answer."""
    connection = Connection(target)
    try:
        return metrics(connection)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def refused_between(before: Metrics | None, after: Metrics | None) -> dict[str, int] | None:
    """Refusals by limit; None where nobody can say."""
    if before is None or after is None:
        return None
    counts = {name: count - before.refused_by_limit.get(name, 0) for name, count in after.refused_by_limit.items()}
    return {name: count for name, count in counts.items() if count > 0}
