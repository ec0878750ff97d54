"""The queue before the password check: who joins it and where, and what those get who are sent away.

The place in line is the moment at which somebody first asked. Whoever is sent away gets it as a ticket, and with it
stands before everybody who came later, in this process or any other; it is good for one turn of one name from one
network. Nothing here ever asks whether there is such an account.
"""

import asyncio
import re
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, Protocol, TypeVar

import msgspec

from fastauth.core import Decision
from fastauth.domain.admission import Gate, LaneRules
from fastauth.domain.errors import Overloaded
from fastauth.domain.limits import Limit
from fastauth.domain.tickets import Ticket, Tickets
from fastauth.domain.waiting_line import LONGEST_AWAY_S, RETURN_WINDOW_S, WaitingLine
from fastauth.endpoints.client_address import ClientAddresses, network_of
from fastauth.endpoints.http import Request
from fastauth.endpoints.login_limits import presented_device
from fastauth.endpoints.rate_limit import Decide, decided

T = TypeVar("T")

KNOWN_DEVICES: Final = 0
EVERYBODY_ELSE: Final = 1
SHARES: Final = (0.75, 0.25)
"""Of the hash threads while both lanes want them; what one does not use the other gets."""

TICKET_HEADER: Final = b"login-ticket"
TICKET_COOKIE: Final = b"__Host-fastauth-ticket"
_COOKIE: Final = re.compile(rb"(?:^|;)[ \t]*" + TICKET_COOKIE + rb"=([^;\s]*)")
_LONGEST_US: Final = 2 * (LONGEST_AWAY_S + RETURN_WINDOW_S) * 1_000_000
# Once for as long as a ticket can be good, and one place for as long.
_ONCE: Final = Limit(_LONGEST_US, 1, "exact")
_PLACE: Final = Limit(_LONGEST_US, 1, "local")

# Whether the client is still there is looked at when the turn is at least so far off: it costs a task, and it takes
# about that long until a connection that was closed is noticed.
_WORTH_WATCHING_S: Final = 0.03

ADMITTED: Final = "admitted"
WITH_TICKET: Final = "admitted_with_ticket"
TOO_LONG: Final = "too_long"
UNREAD: Final = "unread"
DECISIONS: Final = (ADMITTED, WITH_TICKET, TOO_LONG, UNREAD)


class Scheduler(Protocol):
    """The hash threads, as the queue sees them."""

    @property
    def pace_per_s(self) -> float: ...
    @property
    def steady_s(self) -> float: ...
    def wait_s(self, lane: int, since: int) -> float: ...
    def each_s(self, lane: int) -> float: ...
    def submit(self, work: Callable[[], Any], lane: int, since: int, memory_kib: int) -> "asyncio.Future[Any]": ...


class Places(Protocol):
    """The table in which places are remembered for a while; ``fastauth.limits.LocalBuckets`` is one."""

    def debt(self, key: str, rate: Limit, now_us: int) -> int: ...
    def raise_debt(self, key: str, rate: Limit, debt_us: int, now_us: int) -> int: ...
    def peek(self, key: str, rate: Limit) -> Decision: ...


class Turn(msgspec.Struct):
    """A place in the queue of somebody who was let in, with a ticket or without; ``is_pending`` until it is taken."""

    lane: int
    since_us: int
    is_watched: bool
    name: str
    network: str
    ticket: Ticket | None
    is_pending: bool = True


class LoginQueue:
    """The queue of one process."""

    def __init__(
        self,
        scheduler: Scheduler,
        rules: LaneRules,
        tickets: Tickets,
        places: Places,
        spend: Decide,
        may_read: Callable[[], bool],
        is_late: Callable[[], bool],
        may_read_known: Callable[[], bool],
        addresses: ClientAddresses,
        count: Callable[[int, str], None] = lambda lane, decision: None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """In: ``spend`` takes a token, where a ticket that any node could see must be spent once only; ``may_read``
        whether there is time to read a request only to refuse it well; ``is_late`` whether there is none for any other
        login; ``may_read_known`` whether there is for one that shows a device; ``count`` is told each lane's
        ``DECISIONS``.
        """
        self.line = WaitingLine()
        self._scheduler = scheduler
        self._rules = rules
        self._gates = tuple(Gate(rules) for _ in SHARES)
        self._tickets = tickets
        self._places = places
        self._spend = spend
        self._may_read = may_read
        self._is_late = is_late
        self._may_read_known = may_read_known
        self._pending = [0] * len(SHARES)  # let in, and not in the queue yet
        self._addresses = addresses
        self._count = count
        self._clock = clock
        self._monotonic = monotonic
        self._next_turn_s = 0.0
        # Places are told on a clock that never jumps; in whole seconds, so that all workers of a machine say the same.
        self._epoch_us = round(clock() - monotonic()) * 1_000_000

    def retry_after_s(self) -> int:
        """What a newcomer would be told who were sent away now."""
        wait_s = self._wait_s(EVERYBODY_ELSE, self._now_us())
        return self.line.estimate_s(self._clock(), wait_s, self._scheduler.each_s(EVERYBODY_ELSE))

    def refuse_unread(self, request: Request) -> Overloaded | None:
        """A refusal at the price of the exchange alone, when it is all but certain and there is no time for a better.

        Never for a good ticket that is due, and hardly for a device that may be known.
        """
        lane, is_late = EVERYBODY_ELSE, self._is_late()
        if not is_late and (not self._gates[lane].is_overload(self._scheduler.pace_per_s) or self._may_read()):
            return None
        due_s = self._due_s(request)
        early_s = 0 if due_s is None else self._early_s(due_s)
        if due_s is not None and not early_s:
            return None
        if presented_device(request) is not None and self._may_read_known():
            return None
        wait_s = self._wait_s(lane, self._now_us())
        if not is_late and self._lets_in(lane, wait_s) and self._comes_in_turn():
            return None
        self._gates[lane].arrive(self._monotonic())
        self._count(lane, UNREAD)
        return Overloaded(early_s or self.line.estimate_s(self._clock(), wait_s, self._scheduler.each_s(lane)))

    def _comes_in_turn(self) -> bool:
        """Whether a place is about to be free: as often as somebody is served. Those who were told so and have not sent
        their bodies yet would not be seen in the queue.
        """
        now = self._monotonic()
        next_s = max(self._next_turn_s, now - self._scheduler.steady_s)
        if next_s > now:
            return False
        self._next_turn_s = next_s + 1 / self._scheduler.pace_per_s
        return True

    async def enter(self, request: Request, name: str, *, is_known_device: bool) -> Turn:
        """A place in the queue. In: a name, canonical or one that no account can have.

        Raises Overloaded, with a ticket, when the turn would not come soon enough.
        """
        lane = KNOWN_DEVICES if is_known_device else EVERYBODY_ELSE
        network = network_of(self._addresses.find(request.peer, request.headers))
        shown = self._shown(request, name, network)
        # Before its time it is as good as none, but not lost: nobody is served sooner for asking sooner.
        early = shown if shown is not None and self._early_s(shown.due_s) else None
        ticket = None if shown is early else await self._redeemed(shown, name, network)
        since_us = self._now_us() if ticket is None else min(ticket.since_us, self._now_us())
        wait_s = self._wait_s(lane, since_us)
        self._gates[lane].arrive(self._monotonic())
        # With a ticket one is let in as long as anybody could be: whoever came later waits, or is sent away.
        if not (wait_s <= self._rules.burst_s if ticket is not None else self._lets_in(lane, wait_s)):
            self._count(lane, TOO_LONG)
            if early is not None:
                raise Overloaded(max(1, self._early_s(early.due_s)), self._tickets.issue(early, name, network))
            raise self._send_away(lane, wait_s, name, network, ticket, since_us)
        self._count(lane, ADMITTED if ticket is None else WITH_TICKET)
        self._pending[lane] += 1
        turn = Turn(lane, since_us, wait_s > _WORTH_WATCHING_S, name, network, ticket)
        try:
            await self._redeemed(early, name, network)  # who is served as a newcomer needs the place no more
        except BaseException:
            self.leave(turn)
            raise
        return turn

    def leave(self, turn: Turn | None) -> None:
        """Whatever became of a turn, it is not to be expected in the queue any more."""
        if turn is not None and turn.is_pending:
            turn.is_pending = False
            self._pending[turn.lane] -= 1

    async def run(self, request: Request, turn: Turn, memory_kib: int, job: Callable[[], T]) -> T:
        """The outcome of a job in a hash thread, when its turn has come.

        Raises Overloaded when it did not come in time, ClientLeft when nobody is there any more.
        """
        self.leave(turn)
        outcome: asyncio.Future[T] = self._scheduler.submit(job, turn.lane, turn.since_us, memory_kib)
        try:
            return await (request.unless_left(outcome) if turn.is_watched else outcome)
        except Overloaded:
            wait_s = self._wait_s(turn.lane, turn.since_us)
            raise self._send_away(turn.lane, wait_s, turn.name, turn.network, turn.ticket, turn.since_us) from None
        finally:
            del outcome  # an exception in it would hold this frame, and with it the password

    def _wait_s(self, lane: int, since_us: int) -> float:
        return self._scheduler.wait_s(lane, since_us) + self._pending[lane] / self._scheduler.pace_per_s

    def _early_s(self, due_s: int) -> int:
        """How much too early it is, in seconds; nobody is sent away for longer than the longest, so a clock has been
        set since when it seems to be more.
        """
        left_s = due_s - int(self._clock())
        return left_s if 0 < left_s <= LONGEST_AWAY_S else 0

    def _due_s(self, request: Request) -> int | None:
        """When the ticket is due that came with the request, if it looks like a good one."""
        text = presented_ticket(request)
        if text is None:
            return None
        network = network_of(self._addresses.find(request.peer, request.headers))
        return self._tickets.due_s(text, network, int(self._clock()))

    def _now_us(self) -> int:
        return int(self._monotonic() * 1_000_000) + self._epoch_us

    def _lets_in(self, lane: int, wait_s: float) -> bool:
        return self._gates[lane].allows(wait_s, self._scheduler.pace_per_s, self._scheduler.steady_s)

    def _shown(self, request: Request, name: str, network: str) -> Ticket | None:
        """The ticket that came with the request, if it is genuine; perhaps it has been spent."""
        text = presented_ticket(request)
        return None if text is None else self._tickets.check(text, name, network, int(self._clock()))

    async def _redeemed(self, ticket: Ticket | None, name: str, network: str) -> Ticket | None:
        """The same, if it has not been spent; it is now."""
        if (
            ticket is None
            or not (await decided(self._spend(_key("spent", name, network, ticket.since_us), _ONCE))).allowed
        ):
            return None
        self.line.come_back(ticket.due_s)
        return ticket

    def _send_away(
        self, lane: int, wait_s: float, name: str, network: str, ticket: Ticket | None, since_us: int
    ) -> Overloaded:
        """In: the ticket that was brought along, and is spent; since when it, or a newcomer, has been waiting."""
        now, each_s = self._clock(), self._scheduler.each_s(lane)
        if ticket is not None:  # the same place; its number tells the new ticket from the one that is spent
            since_us, retry_s = since_us + 1, self.line.send_back(now, wait_s, ticket.due_s)
        elif known := self._remembered(name, network):
            since_us, retry_s = known, self.line.estimate_s(now, wait_s, each_s)
        else:
            retry_s = self.line.send_away(now, wait_s, each_s)
        self._remember(name, network, since_us)
        text = self._tickets.issue(Ticket(since_us, int(now) + retry_s), name, network)
        return Overloaded(retry_s, text)

    def _remembered(self, name: str, network: str) -> int | None:
        """The place that this name has in line already, if it is not spent: to ask often gives one no second place."""
        moment_us = int(self._monotonic() * 1_000_000)
        debt_us = self._places.debt(_key("place", name, network), _PLACE, moment_us)
        since_us = moment_us + debt_us - _LONGEST_US + self._epoch_us
        is_there = debt_us and self._places.peek(_key("spent", name, network, since_us), _ONCE).allowed
        return since_us if is_there else None

    def _remember(self, name: str, network: str, since_us: int) -> None:
        moment_us = int(self._monotonic() * 1_000_000)
        debt_us = min(_LONGEST_US, max(0, since_us - self._epoch_us + _LONGEST_US - moment_us))
        self._places.raise_debt(_key("place", name, network), _PLACE, debt_us, moment_us)


def presented_ticket(request: Request) -> bytes | None:
    """The ticket that a client shows: the header, else the cookie."""
    text = request.headers.get(TICKET_HEADER)
    if text is None and (cookies := request.headers.get(b"cookie")):
        found = _COOKIE.search(cookies)
        text = found and found[1]
    return text


def _key(what: str, name: str, network: str, *more: int) -> str:
    """With the lengths written, no two make one key; a digest, because a name may be long."""
    text = f"{len(name)}:{len(network)}:{name}{network}{more}"
    return f"{what}:" + blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
