"""How long a request may take: its body, and everything that is done for it."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from fastauth.domain.errors import HandlerTimeout
from fastauth.endpoints.http import CALLED_OFF

T = TypeVar("T")

BODY_TIMEOUT_S: Final = 2.0
HANDLER_TIMEOUT_S: Final = 10.0
_LOOK_S: Final = 0.25


class Deadlines:
    """Calls off what takes too long. One timer looks after all of it: one each would cost more than it is worth."""

    def __init__(self, timeout_s: float) -> None:
        """In: how long it may take; it is noticed up to a quarter of a second later."""
        self._timeout_s = timeout_s
        self._due: dict[asyncio.Task[Any], float] = {}  # in the order in which they are due
        self._missed: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> asyncio.Task[Any]:
        """From now on; out: the current task, for ``was_missed`` and ``end``. It is in no other of these."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - whoever awaits is one
        self._due[task] = loop.time() + self._timeout_s
        if self._timer is None or self._loop is not loop:
            if self._loop is not loop:  # a host may begin anew on another loop: the tasks of the old one are gone
                self._due = {task: self._due[task]}
                self._missed.clear()
            self._loop, self._timer = loop, loop.call_later(_LOOK_S, self._look, loop)
        return task

    def was_missed(self, task: asyncio.Task[Any]) -> bool:
        """Of a task that was cancelled: whether it was this that did, and nobody else did as well."""
        return task in self._missed and task.uncancel() <= 0

    def end(self, task: asyncio.Task[Any]) -> None:
        """It is done."""
        self._due.pop(task, None)  # of two requests in one task the inner one was first
        if self._missed:
            self._missed.discard(task)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, due in self._due.items():
            if due > now:
                break
            if task not in self._missed:
                self._missed.add(task)
                task.cancel(CALLED_OFF)
        self._timer = loop.call_later(_LOOK_S, self._look, loop) if self._due else None


class HandlerDeadlines(Deadlines):
    """Those of everything that is done for a request."""

    async def keep(self, work: Awaitable[T]) -> T:
        """What comes of ``work``. Raises HandlerTimeout when it takes too long, once it has been called off."""
        task = self.begin()
        try:
            return await work
        except asyncio.CancelledError:
            if self.was_missed(task):
                raise HandlerTimeout from None
            raise
        finally:
            self.end(task)
