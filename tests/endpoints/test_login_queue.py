"""The queue before the password check: who is let in, and what a place in line is good for."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fastauth.backends.hash_scheduler import HashScheduler
from fastauth.core import Decision
from fastauth.domain.errors import Overloaded
from fastauth.domain.sealed_text import SealedText
from fastauth.domain.tickets import Ticket, Tickets
from fastauth.domain.waiting_line import LONGEST_AWAY_S, RETURN_WINDOW_S
from fastauth.endpoints.client_address import ClientAddresses
from fastauth.endpoints.errors import ClientLeft
from fastauth.endpoints.http import Request
from fastauth.endpoints.login_queue import (
    ADMITTED,
    EVERYBODY_ELSE,
    KNOWN_DEVICES,
    TICKET_COOKIE,
    TICKET_HEADER,
    TOO_LONG,
    UNREAD,
    WITH_TICKET,
    LoginQueue,
    Turn,
    presented_ticket,
)
from fastauth.limits import LocalBuckets
from fastauth.server.asgi import AsgiRequest, Bodies
from tests.backends.test_work_pool import GATE_TIMEOUT_S, Gate
from tests.cases import each
from tests.endpoints.asking import ReadyRequest
from tests.endpoints.queueing import RULES, a_queue, a_scheduler
from tests.server.asking import DISCONNECT, HOST, Message

PEER, NETWORK = "192.0.2.1", "192.0.2.0/24"
ELSEWHERE = "198.51.100.1"
TOO_MANY = 50  # at the 30 ms that a hash is believed to take, longer than a queue may be
TICKETS = Tickets(bytes(32))  # as those of ``a_queue``


def asking(ticket: str | bytes | None = None, peer: str = PEER) -> ReadyRequest:
    text = ticket.encode() if isinstance(ticket, str) else ticket
    return ReadyRequest(b"", {} if text is None else {TICKET_HEADER: text}, "POST", "/auth", peer)


def opened(ticket: str | None, name: str = "alice", network: str = NETWORK) -> Ticket:
    """What is in a ticket."""
    assert ticket is not None
    found = TICKETS.check(ticket.encode(), name, network, int(time.time()))
    assert found is not None
    return found


def due_of(ticket: str | bytes) -> int | None:
    """When it says that it is due, whoever wrote it."""
    text = ticket.encode() if isinstance(ticket, str) else ticket
    fields = SealedText(bytes(32), ">QQ8s").read(text)
    return None if fields is None else int(fields[1])


class Hall:
    """A queue before one thread, which is busy until ``gate`` is opened."""

    def __init__(self, scheduler: HashScheduler, table: LocalBuckets | None = None) -> None:
        self.scheduler = scheduler
        self.decided: Counter[tuple[int, str]] = Counter()
        self.passed_s = 0.0  # beyond what has really passed
        self.queue = a_queue(
            scheduler,
            table=table,
            count=lambda lane, decision: self.decided.update([(lane, decision)]),
            clock=lambda: time.time() + self.passed_s,
        )
        self.gate = Gate()
        self.ran: list[str] = []
        self._crowd: list[asyncio.Future[Any]] = []

    async def block(self) -> None:
        self.scheduler.submit(self.gate.job, KNOWN_DEVICES, -1, 0)
        assert await asyncio.to_thread(self.gate.running.acquire, timeout=GATE_TIMEOUT_S)

    def crowd(self, lane: int = EVERYBODY_ELSE, since: int = 0, many: int = TOO_MANY) -> None:
        """So many join who came at that moment, or before anybody."""
        self._crowd += [self.scheduler.submit(self._run_one_of_many, lane, since, 0) for _ in range(many)]

    def _run_one_of_many(self) -> None:
        self.ran.append("one of many")

    async def crowd_leaves(self) -> None:
        for future in self._crowd:
            future.cancel()
        await asyncio.sleep(0)

    def time_passes_until(self, ticket: str | bytes) -> None:
        """It is due, if it says when."""
        if (due_s := due_of(ticket)) is not None:
            self.passed_s = max(self.passed_s, due_s - time.time())

    async def enter(self, name: str = "alice", ticket: str | bytes | None = None, **more: Any) -> Turn:
        """In: a ticket, which is brought when it is due unless it ``is_early``."""
        is_known_device = more.pop("is_known_device", False)
        if ticket and not more.pop("is_early", False):
            self.time_passes_until(ticket)
        turn = await self.queue.enter(asking(ticket, **more), name, is_known_device=is_known_device)
        self.queue.leave(turn)  # whoever is not run was here for a moment only
        return turn

    async def refused(self, name: str = "alice", ticket: str | bytes | None = None, **more: Any) -> str:
        """The ticket of one who is not let in."""
        with pytest.raises(Overloaded) as refusal:
            await self.enter(name, ticket, **more)
        assert 1 <= refusal.value.retry_after_s <= LONGEST_AWAY_S
        assert refusal.value.ticket is not None
        return refusal.value.ticket

    async def sent_away(self, name: str = "alice", **more: Any) -> str:
        """A ticket, and nobody waits any more."""
        self.crowd()
        ticket = await self.refused(name, **more)
        await self.crowd_leaves()
        return ticket

    def run(self, turn: Turn, request: Request | None = None) -> "asyncio.Task[Any]":
        job = self.queue.run(request or asking(), turn, 0, lambda: self.ran.append(turn.name))
        return asyncio.ensure_future(job)


def in_hall(work: Callable[[Hall], Awaitable[None]]) -> None:
    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            hall = await opened_hall(stack)
            await asyncio.wait_for(asyncio.ensure_future(work(hall)), GATE_TIMEOUT_S)

    asyncio.run(run())


async def opened_hall(stack: contextlib.AsyncExitStack, table: LocalBuckets | None = None, **more: float) -> Hall:
    scheduler = a_scheduler(**more)  # type: ignore[arg-type]
    hall = Hall(scheduler, table)
    stack.push_async_callback(asyncio.to_thread, scheduler.close)
    stack.callback(hall.gate.open)
    await hall.block()
    return hall


# ------------------------------------------------------------------ being let in, being sent away


def test_whoever_would_wait_for_a_moment_is_let_in_and_served() -> None:
    async def work(hall: Hall) -> None:
        turn = await hall.enter()
        assert (turn.lane, turn.name, turn.network) == (EVERYBODY_ELSE, "alice", NETWORK)
        assert turn.since_us == pytest.approx(time.time() * 1e6, abs=2e6)
        waiting = hall.run(turn)
        hall.gate.open()
        await waiting
        assert hall.ran == ["alice"]
        assert hall.decided == {(EVERYBODY_ELSE, ADMITTED): 1}

    in_hall(work)


def test_a_burst_is_let_in_whole_and_waits_in_the_order_in_which_it_came() -> None:
    async def work(hall: Hall) -> None:
        names = [f"user {number}" for number in range(20)]
        waiting = [hall.run(await hall.enter(name)) for name in names]
        await asyncio.sleep(0)
        hall.gate.open()
        await asyncio.gather(*waiting)
        assert hall.ran == names

    in_hall(work)


def test_whoever_would_wait_for_too_long_is_sent_away_with_a_place_in_line() -> None:
    async def work(hall: Hall) -> None:
        hall.crowd()
        before_us = time.time() * 1e6
        with pytest.raises(Overloaded) as refusal:
            await hall.enter()
        ticket = opened(refusal.value.ticket)
        assert ticket.since_us == pytest.approx(before_us, abs=2e6)
        assert ticket.due_s == pytest.approx(time.time() + refusal.value.retry_after_s, abs=2)
        assert refusal.value.retry_after_s == pytest.approx(TOO_MANY * 0.03, abs=1.1)
        assert hall.decided == {(EVERYBODY_ELSE, TOO_LONG): 1}
        assert hall.queue.line.expected == 1

    in_hall(work)


def test_those_who_are_sent_away_are_told_to_come_back_one_after_the_other() -> None:
    async def work(hall: Hall) -> None:
        hall.crowd()
        tickets = [opened(await hall.refused(name), name) for name in (f"user {number}" for number in range(100))]
        dues = [ticket.due_s for ticket in tickets]
        assert dues == sorted(dues)
        assert dues[-1] - dues[0] == pytest.approx(100 * 0.03, abs=1.1)
        assert len({ticket.since_us for ticket in tickets}) == 100

    in_hall(work)


def test_a_known_device_is_let_in_and_served_before_others_however_many_they_are() -> None:
    async def work(hall: Hall) -> None:
        hall.crowd()
        await hall.refused("mallory")
        known = [hall.run(await hall.enter("alice", is_known_device=True)) for _ in range(6)]
        await asyncio.sleep(0)
        hall.gate.open()
        await asyncio.gather(*known)
        assert hall.ran[:10].count("alice") == 6
        assert hall.decided == {(EVERYBODY_ELSE, TOO_LONG): 1, (KNOWN_DEVICES, ADMITTED): 6}

    in_hall(work)


def test_known_devices_are_sent_away_too_when_they_are_too_many() -> None:
    async def work(hall: Hall) -> None:
        hall.crowd(KNOWN_DEVICES)
        ticket = await hall.refused("alice", is_known_device=True)
        assert hall.decided == {(KNOWN_DEVICES, TOO_LONG): 1}
        await hall.crowd_leaves()
        assert (await hall.enter("alice", ticket, is_known_device=True)).since_us == opened(ticket).since_us

    in_hall(work)


# ------------------------------------------------------------------ what a ticket is good for


def test_a_ticket_that_is_brought_back_is_served_before_those_who_came_later() -> None:
    async def work(hall: Hall) -> None:
        ticket = await hall.sent_away("alice")
        newcomers = [hall.run(await hall.enter(name)) for name in ("bob", "carol")]
        await asyncio.sleep(0)
        turn = await hall.enter("alice", ticket)
        assert turn.since_us == opened(ticket).since_us
        waiting = hall.run(turn)
        await asyncio.sleep(0)
        hall.gate.open()
        await asyncio.gather(waiting, *newcomers)
        assert hall.ran == ["alice", "bob", "carol"]
        assert hall.decided[EVERYBODY_ELSE, WITH_TICKET] == 1
        assert hall.queue.line.expected == 0

    in_hall(work)


def test_with_a_ticket_one_is_let_in_where_newcomers_are_not() -> None:
    async def work(hall: Hall) -> None:
        ticket = await hall.sent_away("alice")
        hall.crowd(since=0)
        await hall.refused("bob")  # from now on the queue is kept short
        await hall.crowd_leaves()
        hall.crowd(since=0, many=15)  # as long as a burst may make it, and no shorter
        await hall.refused("carol")
        assert (await hall.enter("alice", ticket)).since_us == opened(ticket).since_us

    in_hall(work)


def test_tickets_are_served_in_the_order_in_which_their_holders_first_came() -> None:
    async def work(hall: Hall) -> None:
        names = ["alice", "bob", "carol", "dave"]
        hall.crowd()
        tickets = {name: await hall.refused(name) for name in names}
        await hall.crowd_leaves()
        waiting = [hall.run(await hall.enter(name, tickets[name])) for name in ("carol", "alice", "dave", "bob")]
        await asyncio.sleep(0)
        hall.gate.open()
        await asyncio.gather(*waiting)
        assert hall.ran == names

    in_hall(work)


def _forged(_hall: Hall, ticket: str) -> tuple[str, str, str]:
    return "alice", ticket[:2] + "A" * len(ticket[2:]), PEER


def _changed(_hall: Hall, ticket: str) -> tuple[str, str, str]:
    return "alice", ticket[:-1] + ("A" if ticket[-1] != "A" else "B"), PEER


def _of_another_installation(_hall: Hall, ticket: str) -> tuple[str, str, str]:
    return "alice", Tickets(b"\1" * 32).issue(opened(ticket), "alice", NETWORK), PEER


def _of_another_name(_hall: Hall, ticket: str) -> tuple[str, str, str]:
    return "mallory", ticket, PEER


def _from_elsewhere(_hall: Hall, ticket: str) -> tuple[str, str, str]:
    return "alice", ticket, ELSEWHERE


def _late(_hall: Hall, ticket: str) -> tuple[str, str, str]:
    late = Ticket(opened(ticket).since_us, int(time.time()) - RETURN_WINDOW_S - 1)
    return "alice", TICKETS.issue(late, "alice", NETWORK), PEER


def _empty(_hall: Hall, _ticket: str) -> tuple[str, str, str]:
    return "alice", "", PEER


BAD = [_forged, _changed, _of_another_installation, _of_another_name, _from_elsewhere, _late, _empty]


@each("spoil", BAD)
def test_a_ticket_that_is_not_ones_own_gains_nothing(spoil: Callable[[Hall, str], tuple[str, str, str]]) -> None:
    async def work(hall: Hall) -> None:
        ticket = await hall.sent_away("alice")
        name, bad, peer = spoil(hall, ticket)
        newcomer = await hall.enter("bob")
        turn = await hall.enter(name, bad, peer=peer)
        assert turn.since_us >= newcomer.since_us
        assert hall.decided[EVERYBODY_ELSE, WITH_TICKET] == 0
        hall.crowd(since=opened(ticket).since_us + 1)
        await hall.refused(name, bad, peer=peer)
        await hall.crowd_leaves()
        # And it spoils nothing: the ticket itself is as good as it was.
        assert (await hall.enter("alice", ticket)).since_us == opened(ticket).since_us

    in_hall(work)


def test_a_ticket_is_good_once() -> None:
    async def work(hall: Hall) -> None:
        ticket = await hall.sent_away("alice")
        first = await hall.enter("alice", ticket)
        newcomer = await hall.enter("bob")
        for _ in range(3):
            assert (await hall.enter("alice", ticket)).since_us >= newcomer.since_us > first.since_us
        hall.crowd(since=opened(ticket).since_us + 1)
        assert opened(await hall.refused("alice", ticket)).since_us >= newcomer.since_us
        assert hall.decided[EVERYBODY_ELSE, WITH_TICKET] == 1

    in_hall(work)


def test_of_many_who_bring_one_ticket_at_the_same_time_one_is_let_in_with_it() -> None:
    async def work(hall: Hall) -> None:
        ticket = await hall.sent_away("alice")
        hall.crowd(since=opened(ticket).since_us + 1)
        outcomes = await asyncio.gather(*(hall.enter("alice", ticket) for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(outcome, Turn) for outcome in outcomes) == 1
        assert hall.decided[EVERYBODY_ELSE, WITH_TICKET] == 1
        assert hall.decided[EVERYBODY_ELSE, TOO_LONG] == 20

    in_hall(work)


def test_one_who_comes_back_to_a_queue_that_is_too_long_keeps_the_place_under_another_ticket() -> None:
    async def work(hall: Hall) -> None:
        first = await hall.sent_away("alice")
        hall.crowd()  # all of whom came before
        second = await hall.refused("alice", first)
        third = await hall.refused("alice", second)
        places = [opened(ticket).since_us for ticket in (first, second, third)]
        assert [place - places[0] for place in places] == [0, 1, 2]
        await hall.crowd_leaves()
        newcomer = await hall.enter("bob")
        for spent in (first, second):
            assert (await hall.enter("alice", spent)).since_us >= newcomer.since_us
        assert (await hall.enter("alice", third)).since_us == places[2] < newcomer.since_us

    in_hall(work)


def test_one_who_comes_back_too_early_where_newcomers_are_not_let_in_is_told_the_rest_and_keeps_the_ticket() -> None:
    async def work(hall: Hall) -> None:
        ticket = await hall.sent_away("alice")
        hall.crowd()
        await hall.refused("bob")  # from now on the queue is kept short
        await hall.crowd_leaves()
        hall.crowd(many=15)  # as long as a burst may make it
        line = hall.queue.line.expected
        for _ in range(3):
            with pytest.raises(Overloaded) as refusal:
                await hall.enter("alice", ticket, is_early=True)
            assert refusal.value.ticket == ticket
            assert refusal.value.retry_after_s == pytest.approx(opened(ticket).due_s - time.time(), abs=1.1)
        assert hall.queue.line.expected == line
        assert (await hall.enter("alice", ticket)).since_us == opened(ticket).since_us

    in_hall(work)


def test_one_who_comes_back_too_early_where_newcomers_are_let_in_is_one_and_needs_the_place_no_more() -> None:
    async def work(hall: Hall) -> None:
        ticket = await hall.sent_away("alice")
        newcomer = await hall.enter("bob")
        assert (await hall.enter("alice", ticket, is_early=True)).since_us >= newcomer.since_us
        assert hall.decided[EVERYBODY_ELSE, WITH_TICKET] == 0
        assert hall.queue.line.expected == 0
        assert (await hall.enter("alice", ticket)).since_us >= newcomer.since_us  # it has been spent
        assert hall.decided[EVERYBODY_ELSE, WITH_TICKET] == 0

    in_hall(work)


def test_one_who_cannot_be_asked_whether_the_ticket_was_spent_holds_no_turn() -> None:
    async def work(hall: Hall) -> None:
        ticket = await hall.sent_away("alice")

        async def fail(*_of: object) -> Decision:
            raise LookupError("the table is gone")

        hall.queue._spend = fail
        with pytest.raises(LookupError):
            await hall.enter("alice", ticket, is_early=True)
        assert hall.queue._pending == [0, 0]

    in_hall(work)


def test_a_ticket_that_would_be_due_after_the_longest_time_is_due_a_clock_has_been_set() -> None:
    async def work(hall: Hall) -> None:
        ticket = await hall.sent_away("alice")
        hall.passed_s = -7_200.0
        assert (await hall.enter("alice", ticket, is_early=True)).since_us == opened(ticket).since_us

    in_hall(work)


@each("since_us", [(1 << 63) - 1, 1 << 60])
def test_a_place_in_the_future_of_another_machines_clock_is_one_of_now(since_us: int) -> None:
    async def work(hall: Hall) -> None:
        ticket = TICKETS.issue(Ticket(since_us, int(time.time())), "alice", NETWORK)
        assert (await hall.enter("alice", ticket)).since_us == pytest.approx(time.time() * 1e6, abs=2e6)

    in_hall(work)


def test_a_ticket_is_good_from_the_whole_network() -> None:
    async def work(hall: Hall) -> None:
        for peer, other in (("192.0.2.1", "192.0.2.250"), ("2001:db8:1:1::1", "2001:db8:1:ff::9")):
            ticket = await hall.sent_away(peer, peer=peer)
            await hall.enter(peer, ticket, peer=other)
        assert hall.decided[EVERYBODY_ELSE, WITH_TICKET] == 2

    in_hall(work)


# ------------------------------------------------------------------ places are not to be collected


def test_a_hundred_requests_of_one_name_from_one_network_have_one_place() -> None:
    async def work(hall: Hall) -> None:
        hall.crowd()
        tickets = [await hall.refused("alice", peer=f"192.0.2.{number}") for number in range(100)]
        assert len({opened(ticket).since_us for ticket in tickets}) == 1
        await hall.crowd_leaves()
        newcomer = await hall.enter("bob")
        turns = [await hall.enter("alice", ticket) for ticket in tickets]
        assert sum(turn.since_us < newcomer.since_us for turn in turns) == 1
        assert hall.decided[EVERYBODY_ELSE, WITH_TICKET] == 1

    in_hall(work)


def test_asking_often_does_not_lengthen_the_line() -> None:
    async def work(hall: Hall) -> None:
        hall.crowd()
        for _ in range(50):
            await hall.refused("alice")
        assert hall.queue.line.expected == 1

    in_hall(work)


@each(("name", "peer"), [("alicf", PEER), ("alice", ELSEWHERE), ("", PEER), ("alice", "2001:db8::1")])
def test_other_names_and_other_networks_have_places_of_their_own(name: str, peer: str) -> None:
    async def work(hall: Hall) -> None:
        hall.crowd()
        first = opened(await hall.refused("alice"))
        network = {PEER: NETWORK, ELSEWHERE: "198.51.100.0/24"}.get(peer, "2001:db8::/48")
        assert opened(await hall.refused(name, peer=peer), name, network).since_us > first.since_us
        assert opened(await hall.refused("alice")).since_us == first.since_us

    in_hall(work)


def test_a_place_that_was_spent_is_followed_by_one_at_the_end_of_the_line() -> None:
    async def work(hall: Hall) -> None:
        ticket = await hall.sent_away("alice")
        await hall.enter("alice", ticket)
        between = opened(await hall.sent_away("bob"), "bob")
        hall.crowd()
        assert opened(await hall.refused("alice")).since_us > between.since_us > opened(ticket).since_us

    in_hall(work)


# ------------------------------------------------------------------ several workers


def test_two_workers_on_one_table_agree_on_places_and_on_what_is_spent() -> None:
    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            table = LocalBuckets(1024)
            here, there = [await opened_hall(stack, table) for _ in range(2)]
            here.crowd()
            there.crowd()
            tickets = [await hall.refused("alice") for hall in (here, there, here)]
            assert len({opened(ticket).since_us for ticket in tickets}) == 1
            await here.crowd_leaves()
            await there.crowd_leaves()
            assert (await there.enter("alice", tickets[0])).since_us == opened(tickets[0]).since_us
            for hall, ticket in ((here, tickets[0]), (here, tickets[1]), (there, tickets[2])):
                newcomer = await hall.enter("bob")
                assert (await hall.enter("alice", ticket)).since_us >= newcomer.since_us
            assert there.decided[EVERYBODY_ELSE, WITH_TICKET] == 1
            assert here.decided[EVERYBODY_ELSE, WITH_TICKET] == 0

    asyncio.run(run())


# ------------------------------------------------------------------ refusals that cost nothing

PACE_PER_S = 1 / 0.03  # of the one thread


class Door:
    """A queue whose time is the test's, in front of the thread of a hall; and what it asked whether there was time."""

    def __init__(self, hall: Hall) -> None:
        self.now_s = 1_000.0
        self.clock_s = time.time()
        self.may_read = False
        self.is_late = False
        self.asked = 0
        table = LocalBuckets(1024)
        self.queue = LoginQueue(
            hall.scheduler,
            RULES,
            TICKETS,
            table,
            table.take,
            self._may_read,
            lambda: self.is_late,
            lambda: False,
            ClientAddresses((), b"x-forwarded-for", lambda event: None),
            lambda lane, decision: hall.decided.update([(lane, decision)]),
            clock=lambda: self.clock_s,
            monotonic=lambda: self.now_s,
        )

    def _may_read(self) -> bool:
        self.asked += 1
        return self.may_read

    async def overload(self) -> None:
        """More have come than can be served, and none has stayed."""
        for _ in range(200):
            self.queue.leave(await self.queue.enter(asking(), "alice", is_known_device=False))

    def knock(self, many: int, pause_s: float = 0.0) -> int:
        """How many of so many are refused unread."""
        refused = 0
        for _ in range(many):
            self.now_s += pause_s
            refused += self.queue.refuse_unread(asking()) is not None
        return refused


def test_while_nobody_is_too_many_everybody_is_read_and_nobody_asks_whether_there_is_time() -> None:
    async def work(hall: Hall) -> None:
        door = Door(hall)
        assert door.knock(100) == 0
        await door.queue.enter(asking(), "alice", is_known_device=False)
        assert door.knock(100) == 0
        assert door.asked == 0

    in_hall(work)


def test_in_overload_everybody_is_read_as_long_as_there_is_time() -> None:
    async def work(hall: Hall) -> None:
        door = Door(hall)
        await door.overload()
        door.may_read = True
        assert door.knock(100) == 0
        assert door.asked == 100

    in_hall(work)


def test_in_overload_without_time_one_is_refused_unread_and_told_when_to_come_back() -> None:
    async def work(hall: Hall) -> None:
        door = Door(hall)
        hall.crowd()
        with pytest.raises(Overloaded):
            await door.queue.enter(asking(), "alice", is_known_device=False)
        assert door.knock(20) >= 15
        refusal = door.queue.refuse_unread(asking())
        assert refusal is not None
        assert refusal.ticket is None
        assert refusal.retry_after_s == pytest.approx(TOO_MANY * 0.03, abs=1.1)
        assert hall.decided[EVERYBODY_ELSE, UNREAD] >= 16
        assert door.queue.line.expected == 1  # nobody is waited for who has no ticket

    in_hall(work)


def test_in_overload_without_time_as_many_are_read_as_are_served() -> None:
    async def work(hall: Hall) -> None:
        door = Door(hall)
        await door.overload()
        seconds, per_s = 10, 200
        door.knock(20)
        read = seconds * per_s - door.knock(seconds * per_s, 1 / per_s)
        assert read == pytest.approx(seconds * PACE_PER_S, abs=2)

    in_hall(work)


def test_who_is_refused_unread_is_among_those_who_come() -> None:
    """Or overload would be over as soon as most are refused like that."""

    async def work(hall: Hall) -> None:
        door = Door(hall)
        await door.overload()
        door.knock(2_000, 1 / 200)
        assert door.knock(200, 1 / 200) == pytest.approx(200 - PACE_PER_S, abs=2)
        door.now_s += 20.0
        assert door.knock(10, 1.0) == 0

    in_hall(work)


def test_when_there_is_no_time_for_any_login_all_are_refused_unread() -> None:
    async def work(hall: Hall) -> None:
        door = Door(hall)
        door.is_late = door.may_read = True
        assert door.knock(50, 1.0) == 50
        assert hall.decided == {(EVERYBODY_ELSE, UNREAD): 50}
        door.is_late = False
        assert door.knock(50, 1.0) == 0

    in_hall(work)


# ------------------------------------------------------------------ while it waits


def test_a_job_that_comes_too_late_gives_a_ticket_for_the_same_place_which_works() -> None:
    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            table = LocalBuckets(1024)
            scheduler = a_scheduler(deadline_s=1e-9)  # whatever it is handed is late
            stack.push_async_callback(asyncio.to_thread, scheduler.close)
            late, hall = Hall(scheduler, table), await opened_hall(stack, table)
            turn = await late.enter("alice")
            with pytest.raises(Overloaded) as refusal:
                await late.run(turn)
            assert late.ran == []
            newcomer = await hall.enter("bob")
            kept = opened(refusal.value.ticket)
            assert kept.since_us == turn.since_us
            assert (await hall.enter("alice", refusal.value.ticket)).since_us == kept.since_us < newcomer.since_us
            assert hall.decided[EVERYBODY_ELSE, WITH_TICKET] == 1

    asyncio.run(run())


def test_one_who_came_with_a_ticket_and_was_late_all_the_same_gets_another_for_its_place() -> None:
    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            table = LocalBuckets(1024)
            scheduler = a_scheduler(deadline_s=1e-9)
            stack.push_async_callback(asyncio.to_thread, scheduler.close)
            late, hall = Hall(scheduler, table), await opened_hall(stack, table)
            first = await hall.sent_away("alice")
            with pytest.raises(Overloaded) as refusal:
                await late.run(await late.enter("alice", first))
            second = refusal.value.ticket
            assert opened(second).since_us == opened(first).since_us + 1
            assert (await hall.enter("alice", first)).since_us > opened(second).since_us
            assert (await hall.enter("alice", second)).since_us == opened(second).since_us

    asyncio.run(run())


class Client:
    """Somebody at the other end of a connection, until ``leaves``."""

    def __init__(self) -> None:
        self._is_gone = asyncio.Event()

    async def receive(self) -> Message:
        await self._is_gone.wait()
        return DISCONNECT

    def leaves(self) -> None:
        self._is_gone.set()

    def request(self) -> AsgiRequest:
        scope = {"method": "POST", "headers": [HOST], "http_version": "1.1", "client": (PEER, 1)}
        return AsgiRequest(scope, "/auth", self.receive, Bodies())


def test_a_client_that_leaves_the_queue_is_never_hashed() -> None:
    async def work(hall: Hall) -> None:
        client, other = Client(), Client()
        hall.crowd(many=5)  # so that it is worth while to watch the clients
        leaving = hall.run(await hall.enter("alice"), client.request())
        staying = hall.run(await hall.enter("bob"), other.request())
        await asyncio.sleep(0)
        assert hall.scheduler.length(EVERYBODY_ELSE) == 7
        client.leaves()
        with pytest.raises(ClientLeft):
            await leaving
        await hall.crowd_leaves()
        assert hall.scheduler.length(EVERYBODY_ELSE) == 1
        hall.gate.open()
        await staying
        assert hall.ran == ["bob"]

    in_hall(work)


def test_a_client_that_leaves_while_it_is_hashed_is_told_nothing_and_the_thread_goes_on() -> None:
    async def work(hall: Hall) -> None:
        client, gate = Client(), Gate()
        hall.crowd(many=5)
        turn = await hall.enter("alice")
        asking = asyncio.ensure_future(hall.queue.run(client.request(), turn, 0, gate.job))
        await asyncio.sleep(0)
        hall.gate.open()
        assert await asyncio.to_thread(gate.running.acquire, timeout=GATE_TIMEOUT_S)
        client.leaves()
        with pytest.raises(ClientLeft):
            await asking
        assert hall.scheduler.running == 1
        gate.open()
        await hall.run(await hall.enter("bob"))
        assert gate.done == 1

    in_hall(work)


def test_a_request_that_is_cancelled_leaves_the_queue_and_is_not_taken_for_a_client_that_left() -> None:
    async def work(hall: Hall) -> None:
        hall.crowd(many=5)
        waiting = hall.run(await hall.enter("alice"), Client().request())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await hall.crowd_leaves()
        assert hall.scheduler.length(EVERYBODY_ELSE) == 0
        hall.gate.open()

    in_hall(work)


def test_what_a_job_raises_comes_through() -> None:
    def fail() -> None:
        raise LookupError("of the job")

    async def work(hall: Hall) -> None:
        hall.crowd(many=5)
        turn = await hall.enter("alice")
        hall.gate.open()
        with pytest.raises(LookupError, match="of the job"):
            await hall.queue.run(Client().request(), turn, 0, fail)

    in_hall(work)


# ------------------------------------------------------------------ how a ticket is presented


@each(
    ("headers", "text"),
    [
        ({}, None),
        ({b"cookie": b"other=1"}, None),
        ({TICKET_HEADER: b"1.abc"}, b"1.abc"),
        ({b"cookie": TICKET_COOKIE + b"=1.abc"}, b"1.abc"),
        ({b"cookie": b"a=b; " + TICKET_COOKIE + b"=1.abc; c=d"}, b"1.abc"),
        ({b"cookie": b"a=b;" + TICKET_COOKIE + b"=1.abc;c=d"}, b"1.abc"),
        ({b"cookie": b"x" + TICKET_COOKIE + b"=1.abc"}, None),
        ({b"cookie": b"a=" + TICKET_COOKIE + b"=1.abc"}, None),
        ({b"cookie": TICKET_COOKIE + b"="}, b""),
        ({TICKET_HEADER: b"1.abc", b"cookie": TICKET_COOKIE + b"=1.other"}, b"1.abc"),
    ],
)
def test_a_ticket_comes_in_a_header_or_as_a_cookie(headers: dict[bytes, bytes], text: bytes | None) -> None:
    assert presented_ticket(ReadyRequest(b"", headers, "POST", "/auth")) == text


def test_a_ticket_in_a_cookie_is_as_good_as_one_in_the_header() -> None:
    async def work(hall: Hall) -> None:
        ticket = await hall.sent_away("alice")
        headers = {b"cookie": b"a=b; " + TICKET_COOKIE + b"=" + ticket.encode()}
        request = ReadyRequest(b"", headers, "POST", "/auth", PEER)
        hall.time_passes_until(ticket)
        turn = await hall.queue.enter(request, "alice", is_known_device=False)
        assert turn.since_us == opened(ticket).since_us

    in_hall(work)


def test_without_an_address_there_is_one_network_and_tickets_work_all_the_same() -> None:
    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            hall = await opened_hall(stack)
            queue: LoginQueue = hall.queue
            hall.crowd()
            over_a_socket = ReadyRequest(b"", {}, "POST", "/auth")
            with pytest.raises(Overloaded) as refusal:
                await queue.enter(over_a_socket, "alice", is_known_device=False)
            await hall.crowd_leaves()
            text = refusal.value.ticket
            assert text is not None
            again = ReadyRequest(b"", {TICKET_HEADER: text.encode()}, "POST", "/auth")
            hall.time_passes_until(text)
            turn = await queue.enter(again, "alice", is_known_device=False)
            assert turn.since_us == opened(text, network="").since_us

    asyncio.run(run())


def test_the_rules_of_these_tests_are_those_of_the_queue() -> None:
    assert TOO_MANY * 0.03 > RULES.burst_s > 20 * 0.03


def test_those_who_were_let_in_and_are_not_in_the_queue_yet_are_waited_for() -> None:
    async def work(hall: Hall) -> None:
        turns: list[Turn] = []

        async def come() -> None:
            for number in range(1_000):  # nobody has taken a place yet: they wait for the database, say
                turns.append(await hall.queue.enter(asking(), f"user{number}", is_known_device=False))

        with pytest.raises(Overloaded):
            await come()
        assert 10 < len(turns) < 100
        for turn in turns:
            hall.queue.leave(turn)
            hall.queue.leave(turn)
        assert (await hall.enter("another")).lane == EVERYBODY_ELSE

    in_hall(work)


def test_a_good_ticket_that_is_due_is_never_refused_unread_and_any_other_is() -> None:
    async def work(hall: Hall) -> None:
        ticket = await hall.sent_away()
        door = Door(hall)
        await door.overload()
        door.is_late = True
        assert door.queue.refuse_unread(asking()) is not None
        too_early = door.queue.refuse_unread(asking(ticket))
        assert too_early is not None
        assert too_early.retry_after_s == pytest.approx(opened(ticket).due_s - time.time(), abs=1.1)
        door.clock_s = opened(ticket).due_s
        assert door.queue.refuse_unread(asking(ticket)) is None
        assert door.queue.refuse_unread(asking(ticket, peer="198.51.100.1")) is not None  # another network's
        assert door.queue.refuse_unread(asking(ticket[:-4] + "AAAA")) is None  # whose it is shows only later
        assert door.queue.refuse_unread(asking("1." + "A" * (len(ticket) - 2))) is not None

    in_hall(work)
