"""The lane of renewals: bounded by how long a request would be inside, and nobody is inside who still sends."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from fastauth.domain.admission import LaneRules
from fastauth.domain.errors import Overloaded
from fastauth.endpoints.errors import MalformedBody
from fastauth.endpoints.http import Request, Response
from fastauth.server.asgi import AsgiApp, Route
from fastauth.server.counters import LANE_DECISIONS, Counters
from fastauth.server.lanes import Lane
from fastauth.server.metrics import Metrics
from fastauth.server.workers import WorkerTable
from tests.cases import each
from tests.server.asking import DISCONNECT, Answer, Message, app_with, ask, body_of, run

T = TypeVar("T")

RULES = LaneRules(burst_s=0.5, target_s=0.1)
EXPECTED_S = 0.1  # so that six are more than a burst may be
INSIDE = 6
UNBOUNDED = LaneRules(burst_s=3_600, target_s=3_600)


class Renewals:
    """Routes behind one lane; a request to ``/renew`` is inside until it is told to go on."""

    def __init__(self, rules: LaneRules = RULES, expected_s: float = EXPECTED_S) -> None:
        self.counted: list[str] = []
        self.lane = Lane(rules, expected_s, self.counted.append)
        self.go_on = asyncio.Event()
        self.app: AsgiApp = app_with(
            Route("/renew", self.lane(self._renew)),
            Route("/fail", self.lane(self._fail)),
            Route("/unread", self.lane(self._answer_unread)),
            Route("/free", self._renew),
        )

    async def _renew(self, request: Request) -> Response:
        body = await request.read_body()
        await self.go_on.wait()
        return Response(200, (), body)

    async def _fail(self, request: Request) -> Response:
        await request.read_body()
        raise MalformedBody("of this test")

    async def _answer_unread(self, request: Request) -> Response:
        await self.go_on.wait()
        return Response(200, (), b"unread")

    def ask(self, path: str = "/renew", receive: Any = None) -> "asyncio.Task[Answer]":
        return asyncio.ensure_future(ask(self.app, path, "POST", receive=receive or body_of(b"body")))

    async def inside(self, count: int = INSIDE, path: str = "/renew") -> list["asyncio.Task[Answer]"]:
        asked = [self.ask(path) for _ in range(count)]
        await turns()
        return asked


class Slow:
    """A body of which the end is sent when a test says so."""

    def __init__(self, end: Message | None = None) -> None:
        self.goes_on = asyncio.Event()
        self._messages = [{"type": "http.request", "body": b"the beginning", "more_body": True}]
        self._end = end or {"type": "http.request", "body": b"the end"}

    async def __call__(self) -> Message:
        if self._messages:
            return self._messages.pop()
        await self.goes_on.wait()
        return self._end


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def with_renewals(work: Callable[[Renewals], Coroutine[Any, Any, T]], **more: Any) -> T:
    async def start() -> T:
        renewals = Renewals(**more)
        try:
            return await asyncio.wait_for(work(renewals), 10.0)
        finally:
            renewals.go_on.set()
            await turns()

    return run(start())


def test_a_lane_takes_a_burst_in_and_refuses_beyond_it() -> None:
    async def work(renewals: Renewals) -> None:
        asked = await renewals.inside(INSIDE)
        assert not any(task.done() for task in asked)
        refused = await renewals.ask()
        assert (refused.status, refused.header("retry-after")) == (503, "1")
        assert refused.json["code"] == "overloaded"
        assert "ticket" not in refused.json
        assert renewals.counted == ["admitted"] * INSIDE + ["refused"]
        renewals.go_on.set()
        answers = await asyncio.gather(*asked)
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"body")] * INSIDE

    with_renewals(work)


def test_a_refusal_says_when_those_inside_will_have_been_served() -> None:
    async def work(renewals: Renewals) -> None:
        await renewals.inside(INSIDE)
        refused = await renewals.ask()
        assert refused.header("retry-after") == str(math.ceil(INSIDE * 1.7))

    with_renewals(work, expected_s=1.7, rules=LaneRules(burst_s=9.0, target_s=9.0))


def test_a_refusal_comes_before_anything_is_read() -> None:
    async def work(renewals: Renewals) -> None:
        await renewals.inside(INSIDE)
        receive = body_of(b"body")
        assert (await renewals.ask(receive=receive)).status == 503
        assert receive.received == 0

    with_renewals(work)


def test_once_those_inside_are_served_others_are_let_in() -> None:
    async def work(renewals: Renewals) -> None:
        asked = await renewals.inside(INSIDE)
        assert (await renewals.ask()).status == 503
        renewals.go_on.set()
        await asyncio.gather(*asked)
        assert renewals.lane.inside == 0
        assert (await renewals.ask()).status == 200

    with_renewals(work)


def test_all_routes_of_a_lane_are_bounded_together_and_others_not_at_all() -> None:
    async def work(renewals: Renewals) -> None:
        await renewals.inside(INSIDE)
        assert (await renewals.ask("/fail")).status == 503
        free = await renewals.inside(50, "/free")
        renewals.go_on.set()
        assert {answer.status for answer in await asyncio.gather(*free)} == {200}
        assert renewals.counted == ["admitted"] * INSIDE + ["refused"]

    with_renewals(work)


# ------------------------------------------------------------------ who is inside


def test_whoever_sends_slowly_takes_nobodys_place() -> None:
    async def work(renewals: Renewals) -> None:
        slow = [Slow() for _ in range(2 * INSIDE)]
        sending = [renewals.ask(receive=body) for body in slow]
        await turns()
        assert renewals.lane.inside == 0
        quick = await renewals.inside(INSIDE - 1)
        assert renewals.lane.inside == INSIDE - 1
        slow[0].goes_on.set()
        await turns()
        assert renewals.lane.inside == INSIDE
        renewals.go_on.set()
        for body in slow:
            body.goes_on.set()
        assert {answer.status for answer in await asyncio.gather(*quick, *sending)} == {200}
        assert renewals.lane.inside == 0

    with_renewals(work)


def test_a_request_whose_body_nobody_reads_takes_no_place() -> None:
    async def work(renewals: Renewals) -> None:
        per_s = renewals.lane.pace.per_s
        asked = await renewals.inside(50, "/unread")
        assert renewals.lane.inside == 0
        renewals.go_on.set()
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
        assert (renewals.lane.inside, renewals.lane.pace.per_s) == (0, per_s)

    with_renewals(work)


def _breaks_off(_task: "asyncio.Task[Answer]", body: Slow) -> None:
    body.goes_on.set()


def _is_cancelled(task: "asyncio.Task[Answer]", _body: Slow) -> None:
    task.cancel()


@each("how", [_breaks_off, _is_cancelled])
def test_one_who_never_sends_the_end_was_never_inside(how: Callable[["asyncio.Task[Answer]", Slow], None]) -> None:
    async def work(renewals: Renewals) -> None:
        per_s = renewals.lane.pace.per_s
        body = Slow(DISCONNECT)
        task = renewals.ask(receive=body)
        await turns()
        how(task, body)
        await asyncio.wait([task])
        assert (renewals.lane.inside, renewals.lane.pace.per_s) == (0, per_s)

    with_renewals(work)


async def _is_served(renewals: Renewals) -> "asyncio.Task[Answer]":
    renewals.go_on.set()
    return renewals.ask()


async def _fails(renewals: Renewals) -> "asyncio.Task[Answer]":
    return renewals.ask("/fail")


async def _is_called_off(renewals: Renewals) -> "asyncio.Task[Answer]":
    (task,) = await renewals.inside(1)
    assert renewals.lane.inside == 1
    task.cancel()
    return task


@each("end", [_is_served, _fails, _is_called_off])
def test_however_it_ends_who_was_inside_leaves(
    end: Callable[[Renewals], Awaitable["asyncio.Task[Answer]"]],
) -> None:
    async def work(renewals: Renewals) -> None:
        per_s = renewals.lane.pace.per_s
        await asyncio.wait([await end(renewals)])
        assert renewals.lane.inside == 0
        assert renewals.lane.pace.per_s != per_s

    with_renewals(work)


def test_a_body_that_is_read_twice_is_one_request() -> None:
    async def work(renewals: Renewals) -> None:
        async def read_twice(request: Request) -> Response:
            assert request.on_body is not None
            await request.read_body()
            request.on_body()
            assert renewals.lane.inside == 1
            return Response(200, (), b"")

        app = app_with(Route("/twice", renewals.lane(read_twice)))
        assert (await ask(app, "/twice", "POST", receive=body_of(b""))).status == 200
        assert renewals.lane.inside == 0

    with_renewals(work)


def test_what_a_request_takes_is_measured() -> None:
    async def work(renewals: Renewals) -> None:
        expected = renewals.lane.pace.per_s
        for _ in range(20):
            asked = await renewals.inside(4)
            renewals.go_on.set()
            await asyncio.gather(*asked)
            renewals.go_on.clear()
        assert renewals.lane.pace.per_s > 10 * expected

    with_renewals(work, rules=UNBOUNDED)


def test_those_who_are_served_side_by_side_take_the_time_once() -> None:
    async def work(renewals: Renewals) -> None:
        many, rounds = 10, 8
        began_s = time.monotonic()
        for _ in range(rounds):
            asked = await renewals.inside(many)
            asyncio.get_running_loop().call_later(0.01, renewals.go_on.set)
            await asyncio.gather(*asked)
            renewals.go_on.clear()
        per_s = many * rounds / (time.monotonic() - began_s)
        # A part of it at the least: in a burst, who comes first seems to have been alone.
        assert per_s / 4 < renewals.lane.pace.per_s < per_s * 1.2

    with_renewals(work, rules=UNBOUNDED, expected_s=0.001)


# ------------------------------------------------------------------ what is counted


def test_the_counters_are_told_of_every_request_what_became_of_it() -> None:
    counters = Counters(None)

    async def work() -> None:
        lane = Lane(RULES, EXPECTED_S, counters.of_lane("renew"))
        go_on = asyncio.Event()

        async def renew(request: Request) -> Response:
            await request.read_body()
            await go_on.wait()
            return Response(200, (), b"")

        app = app_with(Route("/renew", lane(renew)))
        asked = [asyncio.ensure_future(ask(app, "/renew", "POST", receive=body_of(b""))) for _ in range(INSIDE)]
        await turns()
        for _ in range(3):
            assert (await ask(app, "/renew", "POST", receive=body_of(b""))).status == 503
        go_on.set()
        await asyncio.gather(*asked)

    run(work())
    assert [counters.read("lane renew", decision) for decision in LANE_DECISIONS] == [INSIDE, 3]
    _, text = Metrics(counters, WorkerTable(None), lambda: 0).render()
    assert b'fastauth_lane_decisions_total{decision="admitted",lane="renew"} 6.0' in text
    assert b'fastauth_lane_decisions_total{decision="refused",lane="renew"} 3.0' in text


def test_a_refusal_is_raised_at_once_and_not_when_it_is_waited_for() -> None:
    """The shell answers it without a task, as it answers whatever a handler knows at once."""

    async def never(_request: Request) -> Response:
        raise AssertionError

    counted: list[str] = []
    lane = Lane(RULES, EXPECTED_S, counted.append)
    lane.inside = INSIDE
    with pytest.raises(Overloaded):
        lane(never)(None)  # type: ignore[arg-type]  # nothing of it is looked at
    assert counted == ["refused"]
