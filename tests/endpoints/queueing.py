"""A login queue before real threads, for tests of one process."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from fastauth.backends.hash_permits import HashBounds, HashPermits
from fastauth.backends.hash_scheduler import HashScheduler
from fastauth.domain.admission import LaneRules
from fastauth.domain.tickets import Tickets
from fastauth.endpoints.client_address import ClientAddresses
from fastauth.endpoints.http import Request, Response
from fastauth.endpoints.login_queue import SHARES, LoginQueue
from fastauth.limits import LocalBuckets

RULES = LaneRules(burst_s=1.0, target_s=0.02)


def a_scheduler(
    threads: int = 1,
    *,
    expected_s: float = 0.03,
    deadline_s: float = 3.0,
    memory_kib: int = 1 << 20,
    count: Callable[[str], None] = lambda outcome: None,
) -> HashScheduler:
    """To be closed. In: as ``HashScheduler``; the memory that all hashes may take."""
    permits = HashPermits(HashBounds(threads, memory_kib))
    return HashScheduler(permits, threads, SHARES, expected_s=expected_s, deadline_s=deadline_s, count=count)


def a_queue(
    scheduler: HashScheduler,
    rules: LaneRules = RULES,
    table: LocalBuckets | None = None,
    may_read: Callable[[], bool] = lambda: True,
    count: Callable[[int, str], None] = lambda lane, decision: None,
    clock: Callable[[], float] = time.time,
) -> LoginQueue:
    """In: the table of places and spent tickets; queues with the same one are like those of one machine."""
    table = table or LocalBuckets(1024)
    addresses = ClientAddresses((), b"x-forwarded-for", lambda event: None)
    return LoginQueue(
        scheduler,
        rules,
        Tickets(bytes(32)),
        table,
        table.take,
        may_read,
        lambda: False,
        lambda: True,
        addresses,
        count,
        clock,
    )


@contextlib.asynccontextmanager
async def queueing(threads: int = 1, rules: LaneRules = RULES) -> AsyncIterator[tuple[LoginQueue, HashScheduler]]:
    """A queue and its threads."""
    scheduler = a_scheduler(threads)
    try:
        yield a_queue(scheduler, rules), scheduler
    finally:
        await asyncio.to_thread(scheduler.close)


async def answer_of(handler: Callable[[Request], object], request: Request) -> Response:
    """What a handler answers, at once or later."""
    answer = handler(request)
    if not isinstance(answer, Response):
        answer = await answer  # type: ignore[misc]  # an awaitable, then
    assert isinstance(answer, Response)
    return answer
