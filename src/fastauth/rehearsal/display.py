"""Who watches a rehearsal."""

from typing import Protocol

from fastauth.rehearsal.course import Row
from fastauth.rehearsal.plan import Lane


class Display(Protocol):
    """Told what happens, as it happens."""

    def phase(self, text: str) -> None:
        """What begins now."""

    def second(self, ran_s: float, planned_s: float, lanes: dict[Lane, tuple[float, Row]]) -> None:
        """The plan goes on: the planned rate and the last whole second of each lane."""
