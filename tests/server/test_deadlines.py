"""What takes too long is called off; nothing else is, and nothing goes on when nobody waits."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from fastauth.domain.errors import HandlerTimeout
from fastauth.server.deadlines import HandlerDeadlines
from tests.cases import each
from tests.server.test_asgi import SteeredLoop

T = TypeVar("T")

TIMEOUT_S = 10.0
GRACE_S = 0.5  # one look more


class Clock:
    """Time on the event loop, which passes when a test says so."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteeredLoop)
        self._loop = loop

    async def passes(self, seconds: float) -> None:
        """In steps, as a timer that looks now and then would see it."""
        for _ in range(int(seconds / 0.125)):
            self._loop.ahead_s += 0.125
            await turns()

    async def jumps(self, seconds: float) -> None:
        """All that is due by then goes off in one turn, in its order."""
        self._loop.ahead_s += seconds
        await turns()

    def timers(self) -> int:
        """How many timers are still to go off."""
        return sum(not handle.cancelled() for handle in self._loop._scheduled)  # type: ignore[attr-defined]


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def steered(work: Callable[[Clock, HandlerDeadlines], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        return await work(Clock(), HandlerDeadlines(TIMEOUT_S))

    with asyncio.Runner(loop_factory=SteeredLoop) as runner:
        return runner.run(run())


class Handler:
    """Waits until it is told to go on, and knows what became of it."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.cleaned_up = asyncio.Event()
        self.is_called_off = False

    async def __call__(self) -> str:
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.is_called_off = True
            await self.clean_up()
            raise
        return "answer"

    async def clean_up(self) -> None:
        pass


class Untidy(Handler):
    """Has something to finish when it is called off."""

    async def clean_up(self) -> None:
        await self.cleaned_up.wait()


class Stubborn(Handler):
    """Does not let itself be called off."""

    async def __call__(self) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await super().__call__()
        return "answer all the same"


def kept(deadlines: HandlerDeadlines, work: Awaitable[T]) -> "asyncio.Task[T]":
    async def keep() -> T:
        return await deadlines.keep(work)

    return asyncio.ensure_future(keep())


def test_an_answer_that_comes_in_time_comes_through_and_so_does_an_error() -> None:
    async def fail() -> None:
        raise LookupError("of the handler")

    async def work(clock: Clock, deadlines: HandlerDeadlines) -> None:
        handler = Handler()
        task = kept(deadlines, handler())
        await clock.passes(TIMEOUT_S - GRACE_S)
        handler.go_on.set()
        assert await task == "answer"
        with pytest.raises(LookupError, match="of the handler"):
            await deadlines.keep(fail())

    steered(work)


def test_what_takes_too_long_is_called_off_and_answered() -> None:
    async def work(clock: Clock, deadlines: HandlerDeadlines) -> None:
        handler = Handler()
        task = kept(deadlines, handler())
        await clock.passes(TIMEOUT_S - GRACE_S)
        assert not handler.is_called_off
        await clock.passes(2 * GRACE_S)
        assert handler.is_called_off
        with pytest.raises(HandlerTimeout):
            await task
        assert not task.cancelled()
        assert task.cancelling() == 0

    steered(work)


def test_the_answer_waits_until_it_has_been_called_off_and_it_is_called_off_once() -> None:
    async def work(clock: Clock, deadlines: HandlerDeadlines) -> None:
        handler = Untidy()
        task = kept(deadlines, handler())
        await clock.passes(TIMEOUT_S + GRACE_S)
        assert handler.is_called_off
        await clock.passes(2 * TIMEOUT_S)  # cleaning up may take as long as it likes
        assert not task.done()
        handler.cleaned_up.set()
        with pytest.raises(HandlerTimeout):
            await task

    steered(work)


def test_what_does_not_let_itself_be_called_off_has_an_answer_and_not_a_timeout() -> None:
    async def work(clock: Clock, deadlines: HandlerDeadlines) -> None:
        task = kept(deadlines, Stubborn()())
        await clock.passes(TIMEOUT_S + GRACE_S)
        assert await task == "answer all the same"

    steered(work)


def test_others_are_not_touched_each_has_its_own_time() -> None:
    async def work(clock: Clock, deadlines: HandlerDeadlines) -> None:
        handlers = [Handler() for _ in range(6)]
        tasks = []
        for handler in handlers:
            tasks.append(kept(deadlines, handler()))
            await clock.passes(2.0)
        # 12 s, 10 s, 8 s and so on have passed for them.
        await clock.passes(GRACE_S)
        assert [handler.is_called_off for handler in handlers] == [True, True, False, False, False, False]
        handlers[2].go_on.set()
        assert await tasks[2] == "answer"
        await clock.passes(4.0)
        assert [handler.is_called_off for handler in handlers] == [True, True, False, True, False, False]
        for handler in handlers:
            handler.go_on.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [
            HandlerTimeout,
            HandlerTimeout,
            str,
            HandlerTimeout,
            str,
            str,
        ]

    steered(work)


def test_many_are_looked_after_by_one_timer() -> None:
    async def work(clock: Clock, deadlines: HandlerDeadlines) -> None:
        handlers = [Handler() for _ in range(100)]
        tasks = [kept(deadlines, handler()) for handler in handlers]
        await turns()
        assert clock.timers() == 1
        await clock.passes(TIMEOUT_S + GRACE_S)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {HandlerTimeout}

    steered(work)


@each("how", ["answered", "failed", "called off", "cancelled"])
def test_no_timer_is_left_when_there_is_nothing_to_look_after(how: str) -> None:
    async def fail() -> None:
        raise LookupError

    async def work(clock: Clock, deadlines: HandlerDeadlines) -> None:
        handler = Handler()
        task: asyncio.Task[Any] = kept(deadlines, fail() if how == "failed" else handler())
        await turns()
        if how == "answered":
            handler.go_on.set()
        elif how == "called off":
            await clock.passes(TIMEOUT_S + GRACE_S)
        elif how == "cancelled":
            task.cancel()
        await asyncio.wait([task])
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()
        await clock.passes(GRACE_S)
        assert clock.timers() == 0
        again = kept(deadlines, Handler()())  # and it begins anew
        await clock.passes(TIMEOUT_S + GRACE_S)
        with pytest.raises(HandlerTimeout):
            await again
        await clock.passes(GRACE_S)
        assert clock.timers() == 0

    steered(work)


@each("when", ["before", "while it is called off", "just before", "just after"])
def test_a_cancellation_from_outside_stays_one(when: str) -> None:
    async def work(clock: Clock, deadlines: HandlerDeadlines) -> None:
        handler = Untidy()
        task = kept(deadlines, handler())
        await turns()
        if when == "before":
            handler.cleaned_up.set()
            task.cancel()
        elif when == "while it is called off":
            await clock.passes(TIMEOUT_S + GRACE_S)
            assert handler.is_called_off
            task.cancel()
        else:
            handler.cleaned_up.set()
            await clock.passes(TIMEOUT_S - GRACE_S)
            asyncio.get_running_loop().call_later(0 if when == "just before" else 2 * GRACE_S, task.cancel)
            await clock.jumps(4 * GRACE_S)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    steered(work)


def test_a_timeout_within_a_handler_is_its_own_affair() -> None:
    async def work(clock: Clock, deadlines: HandlerDeadlines) -> None:
        async def handle() -> str:
            try:
                async with asyncio.timeout(3.0):
                    await asyncio.Event().wait()
            except TimeoutError:
                return "in time"
            raise AssertionError

        task = kept(deadlines, handle())
        await clock.passes(4.0)
        assert await task == "in time"

    steered(work)
