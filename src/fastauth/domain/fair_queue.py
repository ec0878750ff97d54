"""A queue of several lanes: each has a share, what one does not use the others get, and in a lane who came first goes
first, whenever they join.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from itertools import count
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Place(NamedTuple):
    """Where something stands: its lane, and what orders it there."""

    lane: int
    order: tuple[int, int]


class _Lane(Generic[T]):
    """``entries`` from the last to the first, so that the first is taken off the end."""

    __slots__ = ("entries", "stride", "turn")

    def __init__(self, share: float) -> None:
        self.entries: list[tuple[int, int, T]] = []
        self.stride = 1 / share
        self.turn = 0.0


class FairQueue(Generic[T]):
    """Start-time fair queueing over lanes, by time of arrival within one.

    ``pop`` is for one thread at a time, all else for another one, which needs no lock against it: each takes entries
    off a list by one operation, and finds out when the other one was faster.
    """

    def __init__(self, shares: Sequence[float]) -> None:
        """In: the shares of the lanes, which are one together; of equals the first lane goes first."""
        self._lanes = [_Lane[T](share) for share in shares]
        self._shares = tuple(shares)
        self._turn = 0.0
        self._numbers = count()

    def __len__(self) -> int:
        return sum(len(row.entries) for row in self._lanes)

    def length(self, lane: int) -> int:
        """How many wait in one lane."""
        return len(self._lanes[lane].entries)

    def push(self, lane: int, since: int, item: T) -> Place:
        """In: since when it waits, in whatever unit; of equals the one pushed first goes first."""
        row = self._lanes[lane]
        if not row.entries:  # a lane that was empty has saved nothing up
            row.turn = max(row.turn, self._turn)
        order = (-since, -next(self._numbers))
        insort(row.entries, (*order, item))
        return Place(lane, order)

    def pop(self) -> T:
        """The next one. Raises IndexError when nobody waits."""
        for row in sorted(self._lanes, key=lambda row: row.turn):
            try:
                item = row.entries.pop()[2]
            except IndexError:  # empty, or emptied just now
                continue
            self._turn = row.turn
            row.turn += row.stride
            return item
        raise IndexError("nobody waits")

    def remove(self, place: Place) -> bool:
        """Take it out of the line; False when it is there no more."""
        entries = self._lanes[place.lane].entries
        index = bisect_left(entries, place.order)  # a tuple sorts behind its own beginning
        try:
            if entries[index][:2] != place.order:
                return False
            del entries[index]  # nobody but ``pop`` can have been in between, and it takes the last
        except IndexError:
            return False
        return True

    def items(self) -> list[tuple[Place, T]]:
        """Everybody who waits, and where."""
        return [
            (Place(lane, (since, number)), item)
            for lane, row in enumerate(self._lanes)
            for since, number, item in row.entries.copy()
        ]

    def drain(self) -> list[T]:
        """Everything, and nothing waits any more."""
        items: list[T] = []
        for row in self._lanes:
            while row.entries:
                items.append(row.entries.pop()[2])
        return items

    def before(self, lane: int, since: int) -> float:
        """How many will be served before one that joins now: those ahead in its lane, and of the other lanes what
        their shares give them meanwhile.
        """
        entries = self._lanes[lane].entries
        ahead = len(entries) - bisect_left(entries, (-since,))  # whoever came at the same moment is ahead
        others = len(self) - len(entries)
        share = self._shares[lane]
        return ahead + min(others, (ahead + 1) * (1 - share) / share)
