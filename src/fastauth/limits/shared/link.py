"""The way to Redis: calls in batches, and an answer within 50 ms or none at all.

One batch is in flight on each of two connections; what comes meanwhile waits for the next, where equal calls become one
command. The first failure of any kind takes the link down: all who wait are told to decide for themselves, nobody waits
from then on, and a task beside them connects again and tries a write before the link is up once more.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Hashable
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from fastauth.limits.shared.address import CONNECT_TIMEOUT_S, parse_url

if TYPE_CHECKING:
    from redis.asyncio import Connection

ANSWER_TIMEOUT_S: Final = 0.05
BEAT_S: Final = 2.0
NODE_LIFETIME_S: Final = 10.0
LONGEST_RETRY_S: Final = 1.0
MAX_WAITING: Final = 20_000
MAX_BATCH: Final = 500  # Redis serves nobody else meanwhile
_CONNECTIONS: Final = 2
_NO_HURRY_S: Final = 0.002
_MANY_WAITING: Final = 64
_FIRST_RETRY_S: Final = 0.05
_STEADY_AFTER_S: Final = 5.0
# A timer may be served before a reply that has arrived, the more so when the loop is late: it is looked for once more.
_LAST_LOOK_S: Final = 0.005

Answer = tuple[int, int, int, int]
# The script's answer, and the place from 0 among the equal calls of one command; None where Redis did not answer.
Reply = tuple[Answer, int] | None

_SCRIPT: Final = resources.files("fastauth.limits.shared").joinpath("buckets.lua").read_bytes()
_SHA: Final = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()


class Call:
    """One run of the script: ``op``, its keys and arguments as ``buckets.lua`` says.

    ``group`` makes calls equal: one command runs for all of a group, and its last argument is how many they are.
    ``undo`` is called when Redis has done it and whoever asked has gone meanwhile.
    """

    __slots__ = ("arguments", "group", "keys", "op", "undo")

    def __init__(
        self,
        op: str,
        keys: tuple[str, ...],
        arguments: tuple[int | str, ...],
        *,
        group: Hashable = None,
        undo: Callable[[], None] | None = None,
    ) -> None:
        self.op = op
        self.keys = keys
        self.arguments = arguments
        self.group = group
        self.undo = undo

    def packed(self, count: int, *, whole_script: bool = False) -> tuple[Any, ...]:
        """The command."""
        arguments = self.arguments if self.group is None else (*self.arguments, count)
        start = ("EVAL", _SCRIPT) if whole_script else ("EVALSHA", _SHA)
        return (*start, len(self.keys), *self.keys, self.op, *arguments)


class RedisLink:
    """The link of one process; it belongs to the event loop in which it was opened.

    ``is_up`` says whether calls can be made, ``nodes`` how many machines were seen in the last ten seconds, this one
    included, ``commands`` how many commands were sent.
    """

    def __init__(
        self, url: str, prefix: str, node: str, on_change: Callable[[bool, str], None], timeout_s: float
    ) -> None:
        """In: ``prefix`` of every key; ``node`` tells this machine from others; ``on_change`` is called with False and
        a reason when the link is lost, or is down from the start, and with True when it is up. Raises RedisRefused.
        """
        self.is_up = False
        self.nodes = 1
        self.commands = 0
        self._address = parse_url(url)
        self._beat = Call("beat", (f"{prefix}:nodes",), (int(NODE_LIFETIME_S * 1e6), f"#{node}"))
        self._on_change = on_change
        self._timeout_s = timeout_s
        self._waiting: list[_Waiting] = []
        self._lanes: list[_Lane] = []
        self._lost = asyncio.Event()
        self._sending_later: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Try to connect, for a second at most; then go on behind the caller's back."""
        self._loop = asyncio.get_running_loop()
        tried = asyncio.Event()
        self._keeper = self._loop.create_task(self._keep(tried))
        await tried.wait()

    async def close(self) -> None:
        """End the connections; who still waits decides alone. ``on_change`` is not told."""
        self._on_change = lambda is_up, reason: None
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._hang_up()

    def call(self, call: Call, *, hurry: bool = True) -> "asyncio.Future[Reply]":
        """Put a call into the next batch. Out: the reply, or None at once or within the timeout.

        In: whether somebody waits for the reply; else it goes with the next that hurries, or after 2 ms.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()
        if not self.is_up or len(self._waiting) >= MAX_WAITING:
            future.set_result(None)
            return future
        self._waiting.append(_Waiting(call, future, self._loop.time()))
        if hurry:
            self._send()
        elif self._sending_later is None:
            self._sending_later = self._loop.call_later(_NO_HURRY_S, self._send)
        return future

    def _send(self) -> None:
        if self._sending_later is not None:
            self._sending_later.cancel()
            self._sending_later = None
        # While a batch is in flight the next one grows; a second connection is for when it grows too much.
        if len(self._waiting) >= _MANY_WAITING or not any(lane.is_busy for lane in self._lanes):
            for lane in self._lanes:
                if lane.wake():
                    break

    def take_batch(self) -> "list[list[_Waiting]]":
        """What waits, the equal ones together, the oldest first."""
        batch: dict[Hashable, list[_Waiting]] = {}
        for waiting in self._waiting[:MAX_BATCH]:
            group = waiting.call.group
            batch.setdefault(id(waiting) if group is None else group, []).append(waiting)
        del self._waiting[:MAX_BATCH]
        return list(batch.values())

    def lose(self, reason: str) -> None:
        """Go down, and let everybody who waits decide alone."""
        if not self.is_up:
            return
        self.is_up = False
        self._lost.set()
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.resolve(None)
        for lane in self._lanes:
            lane.abandon()
        self._on_change(False, reason)

    async def _keep(self, tried: asyncio.Event) -> None:
        """Connect, watch, and connect again, for ever."""
        delay_s = 0.0
        while True:
            up_since = self._loop.time()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._connect()
            except Exception as error:  # noqa: BLE001 - whatever is wrong with Redis, the limits go on without it
                if not tried.is_set():
                    self._on_change(False, reason_of(error))
            else:
                self._lost.clear()
                self.is_up = True
                self._on_change(True, "")
                tried.set()
                await self._watch()
            tried.set()
            await self._hang_up()
            # The first try after a good time is made at once; one that fails as soon as it is up must not spin.
            steady = self._loop.time() - up_since >= _STEADY_AFTER_S
            delay_s = 0.0 if steady else min(max(2 * delay_s, _FIRST_RETRY_S), LONGEST_RETRY_S)
            await asyncio.sleep(delay_s)

    async def _connect(self) -> None:
        for _ in range(_CONNECTIONS):
            lane = _Lane(self, await self._address.connect(), self._timeout_s)
            self._lanes.append(lane)
            ((nodes, *_),) = await lane.run([(self._beat, 1)])
            self.nodes = max(1, nodes)
        for lane in self._lanes:
            lane.start(self._loop)

    async def _watch(self) -> None:
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._lost.wait()
            reply = await self.call(self._beat)
            if reply is not None:
                self.nodes = max(1, reply[0][0])

    async def _hang_up(self) -> None:
        self.lose("closed")
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            await lane.close()


class _Waiting:
    """A call, who waits for it, and since when on the loop's clock."""

    __slots__ = ("call", "future", "since_s")

    def __init__(self, call: Call, future: "asyncio.Future[Reply]", since_s: float) -> None:
        self.call = call
        self.future = future
        self.since_s = since_s

    def resolve(self, reply: Reply) -> None:
        if not self.future.done():
            self.future.set_result(reply)
        elif reply is not None and self.call.undo is not None and self.future.cancelled():
            self.call.undo()


class _Lane:
    """One connection, with one batch in flight."""

    def __init__(self, link: RedisLink, connection: "Connection", timeout_s: float) -> None:
        self._link = link
        self._connection = connection
        self._timeout_s = timeout_s
        self._idle: asyncio.Future[None] | None = None
        self._in_flight: list[list[_Waiting]] = []
        self._task: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve batches until the connection fails."""
        self._loop = loop
        self._task = loop.create_task(self._serve())

    @property
    def is_busy(self) -> bool:
        """Whether it will look for calls by itself before long."""
        return self._idle is None or self._idle.done()

    def wake(self) -> bool:
        """Whether it was idle and looks for calls now."""
        if self._idle is None or self._idle.done():
            return False
        self._idle.set_result(None)
        return True

    def abandon(self) -> None:
        """Nobody waits for the batch in flight any longer."""
        for group in self._in_flight:
            for waiting in group:
                waiting.resolve(None)
        self._in_flight = []

    async def close(self) -> None:
        """End the task and the connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(Exception):
            await self._connection.disconnect(nowait=True)

    async def _serve(self) -> None:
        try:
            while True:
                self._in_flight = self._link.take_batch()
                if not self._in_flight:
                    self._idle = self._loop.create_future()
                    await self._idle
                    self._idle = None
                    continue
                await self._answer()
        except Exception as error:  # noqa: BLE001 - any failure means the same: go on without Redis
            self._link.lose(reason_of(error))

    async def _answer(self) -> None:
        batch = self._in_flight
        waited_s = self._loop.time() - batch[0][0].since_s
        left_s = max(self._timeout_s - waited_s, self._timeout_s / 5) - _LAST_LOOK_S
        timer = self._loop.call_later(left_s, self._overdue, batch)
        try:
            answers = await self.run([(group[0].call, len(group)) for group in batch])
        finally:
            timer.cancel()
        for group, answer in zip(batch, answers, strict=True):
            for place, waiting in enumerate(group):
                waiting.resolve(None if answer is None else (answer, place))

    def _overdue(self, batch: list[list[_Waiting]]) -> None:
        self._loop.call_later(_LAST_LOOK_S, self._give_up, batch)

    def _give_up(self, batch: list[list[_Waiting]]) -> None:
        if self._in_flight is batch and not all(waiting.future.done() for group in batch for waiting in group):
            self._link.lose(f"no answer within {self._timeout_s * 1000:.0f} ms")

    async def run(self, calls: list[tuple[Call, int]]) -> list[Any]:
        """The answers, None for a key of another type. Raises what redis-py raises for everything else."""
        from redis.exceptions import NoScriptError

        self._link.commands += len(calls)
        answers = await self._exchange([call.packed(count) for call, count in calls])
        unknown = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # a Redis that has forgotten it learns it with the first of them
            again = await self._exchange([calls[at][0].packed(calls[at][1], whole_script=True) for at in unknown])
            for index, answer in zip(unknown, again, strict=True):
                answers[index] = answer
        for index, answer in enumerate(answers):
            if isinstance(answer, Exception):
                if not str(answer).startswith("WRONGTYPE"):
                    raise answer
                answers[index] = None  # somebody else's key: no reason to do without all the others
        return answers

    async def _exchange(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        from hiredis import (
            pack_command,  # redis-py's asyncio connection would pack in Python, which costs most of a call
        )
        from redis.exceptions import ResponseError

        connection = self._connection
        await connection.send_packed_command([*map(pack_command, commands)], check_health=False)
        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(await connection.read_response(disable_decoding=True))
            except ResponseError as error:  # an answer like another; the next one is still to be read
                answers.append(error)
        return answers


def reason_of(error: BaseException) -> str:
    """A failure in a few words."""
    text = " ".join(str(error).partition(" script: ")[0].split())[:200]
    return text if text and not isinstance(error, TimeoutError) else f"{type(error).__name__}: no answer in time"
