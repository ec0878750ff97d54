"""The sessions that a rehearsal works with: real logins before it begins, at the pace that the server allows."""

import http.client
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from fastauth.rehearsal.asking import Connection
from fastauth.rehearsal.errors import RehearsalRefused
from fastauth.rehearsal.people import HOW_TO_MAKE, Person
from fastauth.rehearsal.target import Target

_AT_ONCE: Final = 4
_LONGEST_S: Final = 120.0
_PATIENCE_S: Final = 20.0  # of one login
_MOST_FAILURES: Final = 20


class Granted(msgspec.Struct):
    """The part of the answer to a login that is needed."""

    token: str
    refresh_token: str
    expires_in: int

    def __repr__(self) -> str:
        return "Granted(...)"


class Preparation(msgspec.Struct):
    """How many sessions were wanted and opened, how often the server asked to wait (429 and 503), and what it took."""

    wanted: int = 0
    opened: int = 0
    told_to_wait: int = 0
    seconds: float = 0.0


class _Opening:
    """Shared by the threads that log in."""

    def __init__(self, target: Target, people: Sequence[Person], wanted: int) -> None:
        self.sessions: list[Granted] = []
        self.preparation = Preparation(wanted)
        self.error: str | None = None
        self.is_over = threading.Event()
        self._target = target
        self._people = people
        self._todo = deque(range(wanted))
        self._not_before_s = 0.0
        self._failures = 0
        self._began_s = time.monotonic()
        self._lock = threading.Lock()

    def work(self) -> None:
        connection = Connection(self._target, _PATIENCE_S)
        try:
            while not self.is_over.is_set():
                try:
                    number = self._todo.popleft()
                except IndexError:
                    return
                self._log_in(connection, number)
        finally:
            connection.close()

    def _log_in(self, connection: Connection, number: int) -> None:
        pause_s = self._not_before_s - time.monotonic()
        if pause_s > 0 and self.is_over.wait(pause_s):
            return
        person = self._people[number % len(self._people)]
        body = msgspec.json.encode({"username": person.username, "password": person.password})
        try:
            answer = connection.ask("POST", "/auth", body, "application/json")
        except (OSError, http.client.HTTPException):
            self._try_again(number, 1.0)
            return
        with self._lock:
            if answer.status == 200:
                try:
                    self.sessions.append(msgspec.json.decode(answer.body, type=Granted))
                except msgspec.MsgspecError:
                    self._fail("the server answers a login with something that is not fastauth's")
                self.preparation.opened = len(self.sessions)
            elif answer.status in (429, 503):
                self.preparation.told_to_wait += 1
                self._wait_for(number, answer.retry_after_s or 1)
            elif answer.status == 401:
                self._fail(f"the server refuses the user {person.username!r} or the password; {HOW_TO_MAKE}")
            else:
                self._fail(f"a login is answered with HTTP {answer.status}; see the log of the server")

    def _wait_for(self, number: int, seconds: float) -> None:
        not_before_s = time.monotonic() + seconds
        if not_before_s > self._began_s + _LONGEST_S:  # with what there is, rather than not at all
            self.is_over.set()
        self._not_before_s = max(self._not_before_s, not_before_s)
        self._todo.append(number)

    def _try_again(self, number: int, seconds: float) -> None:
        with self._lock:
            self._failures += 1
            if self._failures > _MOST_FAILURES:
                self._fail("the server does not answer logins")
            self._wait_for(number, seconds)

    def _fail(self, error: str) -> None:
        self.error = error
        self.is_over.set()


def open_sessions(
    target: Target, people: Sequence[Person], wanted: int, told: Callable[[int, int], None]
) -> tuple[list[Granted], Preparation]:
    """Log in until so many sessions are open, for two minutes at most; fewer are taken as they are.

    In: ``told`` hears of progress, opened and wanted. Raises RehearsalRefused if a login is refused, or none succeeds.
    """
    began_s = time.monotonic()
    opening = _Opening(target, people, wanted)
    threads = [threading.Thread(target=opening.work, daemon=True) for _ in range(min(_AT_ONCE, wanted))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.5)
                told(len(opening.sessions), wanted)
                if time.monotonic() > began_s + _LONGEST_S:
                    opening.is_over.set()
    finally:
        opening.is_over.set()
    opening.preparation.seconds = round(time.monotonic() - began_s, 3)
    if opening.error is not None:
        raise RehearsalRefused(opening.error)
    if wanted and not opening.sessions:
        raise RehearsalRefused(
            f"no login succeeded in {opening.preparation.seconds:.0f} s: the server told everybody to wait; "
            "lift its limits for the rehearsal (docs/rehearsal.md)"
        )
    return opening.sessions, opening.preparation
