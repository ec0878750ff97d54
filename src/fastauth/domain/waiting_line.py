"""The line of those who were sent away: when each of them is to come back.

Pure: every time is given, in seconds. Nobody is kept here but as a number a second; the place in line is in the ticket.
"""

import math
from typing import Final

LONGEST_AWAY_S: Final = 300
"""Nobody is sent away for longer; who comes back then and is not served yet keeps the place."""

RETURN_WINDOW_S: Final = 60
"""For how long after its time a ticket is honoured."""

_MISSED_S: Final = 6  # so long after its time somebody is waited for no more; some come all the same

_FEWEST: Final = 0.02  # of all who were sent away come back, at the least: the estimate must be able to recover
_FADE: Final = 0.98  # what a second weighs less than the one after it


class WaitingLine:
    """Estimates when somebody who is sent away now will be served.

    That is: after the queue, and after those sent away before, as far as they come back. How many do is measured.
    """

    def __init__(self) -> None:
        self._due: dict[int, int] = {}  # how many are expected, by second
        self._expected = 0
        self._second = -1
        self._came = 1.0
        self._were_due = 1.0

    @property
    def expected(self) -> int:
        """How many are away with a ticket that is still good."""
        return self._expected

    @property
    def return_share(self) -> float:
        """The part that comes back of those who are sent away, as measured of late; 1 at first."""
        return min(1.0, max(_FEWEST, self._came / self._were_due))

    def estimate_s(self, now_s: float, queue_s: float, each_s: float) -> int:
        """When somebody who came now would be served, in whole seconds from now, at least one. In: how long the queue
        is, and what one takes of its time.
        """
        self._forget_missed(int(now_s))
        away_s = queue_s + self._expected * self.return_share * each_s
        return min(LONGEST_AWAY_S, max(1, math.ceil(away_s)))

    def send_away(self, now_s: float, queue_s: float, each_s: float) -> int:
        """One more is sent away; out: when to come back, as ``estimate_s``."""
        retry_s = self.estimate_s(now_s, queue_s, each_s)
        self._expect(int(now_s) + retry_s)
        return retry_s

    def send_back(self, now_s: float, queue_s: float, due_s: int) -> int:
        """One who came back is sent away again: until its time, or for as long as the queue before it takes."""
        retry_s = min(LONGEST_AWAY_S, max(1, due_s - int(now_s), math.ceil(queue_s)))
        self._expect(int(now_s) + retry_s)
        return retry_s

    def come_back(self, due_s: int) -> None:
        """One is back. In: when that was to be."""
        self._came += 1
        if due_s + _MISSED_S >= self._second:  # else it has been counted as due when it was missed
            self._were_due += 1
        if self._due.get(due_s):  # sent away by this very process, or by another: on the whole it is the same
            self._due[due_s] -= 1
            self._expected -= 1

    def _expect(self, due: int) -> None:
        self._due[due] = self._due.get(due, 0) + 1
        self._expected += 1

    def _forget_missed(self, now_second: int) -> None:
        """Whoever has not come in time will not."""
        if now_second == self._second:
            return
        for due in [due for due in self._due if due + _MISSED_S < now_second]:
            missed = self._due.pop(due)
            self._expected -= missed
            self._were_due += missed
        faded = _FADE ** min(1_000, max(0, now_second - self._second)) if self._second >= 0 else 1.0
        self._second = now_second
        self._came = max(self._came * faded, 0.01)
        self._were_due = max(self._were_due * faded, 0.01)
