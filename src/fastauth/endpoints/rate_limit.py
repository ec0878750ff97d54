"""A limit by name, as an endpoint uses it: its key, what is counted of it, and what a refusal means."""

from collections.abc import Awaitable, Callable
from typing import Final

from fastauth.core import Decision
from fastauth.domain.limits import Limit, RateLimited
from fastauth.endpoints.client_address import ClientAddresses
from fastauth.endpoints.http import Headers, Request

ADMITTED: Final = "admitted"
REFUSED: Final = "refused"
WOULD_REFUSE: Final = "would_refuse"
OUTCOMES: Final = (ADMITTED, REFUSED, WOULD_REFUSE)

Decide = Callable[[str, Limit], Decision | Awaitable[Decision]]
Count = Callable[[str], None]

_UNLIMITED: Final = Decision(True, 0, 0)


class NamedLimit:
    """One of the configured limits; ``count`` is told the outcome of each decision."""

    def __init__(self, name: str, limit: Limit, count: Count) -> None:
        self.name = name
        self.limit = limit
        self._count = count

    def key(self, whose: str) -> str:
        """Of this limit and this one alone: with the length written, no two pairs make one key."""
        return f"{self.name}:{len(whose)}:{whose}"

    def judge(self, decision: Decision) -> Decision:
        """Count the decision; out: the same. Raises RateLimited for a refusal, unless the limit is a shadow."""
        if decision.allowed:
            self._count(ADMITTED)
            return decision
        if self.limit.is_shadow:
            self._count(WOULD_REFUSE)
            return decision
        self._count(REFUSED)
        raise RateLimited(self.name, decision.retry_after_us)


class RateLimit(NamedLimit):
    """A limit that costs every request a token."""

    def __init__(self, name: str, limit: Limit, count: Count, decide: Decide) -> None:
        """In: ``decide`` takes a token of a key, perhaps after a wait."""
        super().__init__(name, limit, count)
        self._decide = decide

    def take(self, whose: str) -> Decision | Awaitable[Decision]:
        """A token; ``judge`` says what follows from the decision."""
        return self._decide(self.key(whose), self.limit)

    async def admit(self, whose: str) -> None:
        """A token. Raises RateLimited when there is none."""
        self.judge(await decided(self.take(whose)))


class AddressLimit:
    """A limit for each client address; a request without one, over a Unix socket, say, is not limited."""

    def __init__(self, limit: RateLimit, addresses: ClientAddresses, *, shows_fields: bool) -> None:
        """In: whether the answers say how much is left."""
        self._limit = limit
        self._find = addresses.find
        self._shows_fields = shows_fields
        window_s = _seconds(limit.limit.window_us)
        self._policy = f'"{limit.name}";q={limit.limit.burst};w={window_s}'.encode()

    def take(self, request: Request) -> Decision | Awaitable[Decision]:
        """A token; ``judge`` says what follows from the decision."""
        address = self._find(request.peer, request.headers)
        return _UNLIMITED if address is None else self._limit.take(address)

    def judge(self, request: Request, decision: Decision) -> None:
        """Raises RateLimited for a refusal."""
        if decision is _UNLIMITED:
            return
        if self._shows_fields:
            request.answer_fields += self._fields(decision)
        self._limit.judge(decision)

    def _fields(self, decision: Decision) -> Headers:
        """``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4)."""
        limit = self._limit.limit
        reset_s = _seconds((limit.burst - decision.remaining) * limit.emission_us)
        state = f'"{self._limit.name}";r={decision.remaining};t={reset_s}'.encode()
        return (b"ratelimit-policy", self._policy), (b"ratelimit", state)


async def decided(decision: Decision | Awaitable[Decision]) -> Decision:
    """The decision, waited for only if need be."""
    return decision if isinstance(decision, Decision) else await decision


def _seconds(time_us: int) -> int:
    return -(-time_us // 1_000_000)
