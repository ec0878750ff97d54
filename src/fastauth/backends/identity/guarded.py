"""A source that cannot pull others down: behind a breaker, a bulkhead and a deadline, and asked once for equal checks.

What was accepted may be believed again for a short while (``identity.cache_ttl_s``, off by default); a refusal is never
remembered. Why, and what the times of answers reveal: ``docs/decisions/0017-identity-sources.md``.
"""

import asyncio
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Final, Protocol

import msgspec
from argon2 import Type
from argon2.low_level import hash_secret_raw

from fastauth.backends.identity import Source
from fastauth.breaker import Bulkhead, CircuitBreaker
from fastauth.domain.errors import Unavailable
from fastauth.domain.identity import Identity, Verdict

MAX_REMEMBERED: Final = 4_096
# Waiting for a place, for each one that is: as many as answer in about the time of a person's patience.
_WAITING_PER_CALL: Final = 8
# A source that is too late says so itself: it is its breaker that has to know.
_SOURCE_FIRST_S: Final = 0.1
# The least that makes guessing from a copy of the memory dear; it is computed at each login that may find something.
_MEMORY_KIB, _PASSES, _DIGEST_BYTES = 256, 1, 16


class Pool(Protocol):
    """Runs jobs in threads, off the event loop."""

    async def run(self, job: Callable[[], bytes]) -> bytes: ...


class _Remembered(msgspec.Struct):
    """That a password was right, and for whom; until when on the monotonic clock."""

    digest: bytes
    identity: Identity
    until_s: float

    def __repr__(self) -> str:
        return "_Remembered(...)"


class AcceptedChecks:
    """What a source has accepted a moment ago, bounded in number and age: an entry a name.

    The password itself is not kept but an argon2 of it under a key that this process has made up.
    """

    def __init__(self, ttl_s: float, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._pool = pool
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._entries: dict[str, _Remembered] = {}
        self._epoch = 0

    async def find(self, name: str, password: str) -> Identity | None:
        """Somebody whom the source has accepted with this password, as far as it is known here."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        if self._clock() >= entry.until_s:
            self._entries.pop(name, None)
            return None
        digest = await self._digest(name, password)
        is_same = hmac.compare_digest(digest, entry.digest) and self._entries.get(name) is entry
        return entry.identity if is_same else None

    async def keep(self, name: str, password: str, ask: Callable[[], Awaitable[Verdict]]) -> Verdict:
        """The verdict of ``ask``, remembered when it is an identity and nobody was forgotten meanwhile."""
        epoch = self._epoch
        verdict = await ask()
        if isinstance(verdict, Identity):
            digest = await self._digest(name, password)
            if epoch == self._epoch:
                self._entries.pop(name, None)
                if len(self._entries) >= MAX_REMEMBERED:
                    del self._entries[next(iter(self._entries))]
                self._entries[name] = _Remembered(digest, verdict, self._clock() + self._ttl_s)
        else:
            self._entries.pop(name, None)
        return verdict

    def forget_all(self) -> None:
        """Some account has changed. Which names that concerns only the sources know; they are asked again."""
        self._epoch += 1
        self._entries.clear()

    async def _digest(self, name: str, password: str) -> bytes:
        salt = blake2b(name.encode(), key=self._key, digest_size=16).digest()
        secret = password.encode("utf-8", "surrogatepass")
        return await self._pool.run(
            lambda: hash_secret_raw(secret, salt, _PASSES, _MEMORY_KIB, 1, _DIGEST_BYTES, Type.ID)
        )


class _Flight:
    """One check of one name and password, for all who wait for it."""

    __slots__ = ("key", "task", "waiting")

    def __init__(self, key: bytes, task: "asyncio.Task[Verdict]") -> None:
        self.key = key
        self.task = task
        self.waiting = 0


class GuardedSource:
    """A source as logins use it."""

    def __init__(
        self,
        source: Source,
        breaker: CircuitBreaker,
        *,
        timeout_s: float,
        most: int,
        accepted: AcceptedChecks | None = None,
    ) -> None:
        """In: ``timeout_s`` for one check, ``most`` checks at the same time."""
        self.name = source.name
        self.breaker = breaker
        self._source = source
        self._timeout_s = timeout_s
        self._bulkhead = Bulkhead(source.name, most, most * _WAITING_PER_CALL)
        self._accepted = accepted
        self._flights: dict[bytes, _Flight] = {}
        self._key = secrets.token_bytes(32)

    async def check(self, name: str, password: str, within_s: float) -> Verdict:
        """As ``Source``, within its own timeout too. Equal checks at a time are one, whoever leaves meanwhile."""
        if self._accepted is not None and (known := await self._accepted.find(name, password)) is not None:
            return known
        within_s = min(within_s, self._timeout_s)
        flight = self._join(name, password, within_s)
        flight.waiting += 1
        try:
            # Whoever came later has his own time, and whoever leaves ends nothing for the others.
            async with asyncio.timeout(within_s + _SOURCE_FIRST_S):
                return await asyncio.shield(flight.task)
        except TimeoutError as error:
            raise Unavailable(self.name, "no answer in time") from error
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._leave(flight)

    def forget_all(self) -> None:
        """Some account has changed: what was accepted before must be checked again."""
        if self._accepted is not None:
            self._accepted.forget_all()

    async def close(self) -> None:
        """End what is under way, and the connections."""
        for flight in list(self._flights.values()):
            flight.task.cancel()
        await asyncio.gather(*(flight.task for flight in self._flights.values()), return_exceptions=True)
        await self._source.close()

    def _join(self, name: str, password: str, within_s: float) -> _Flight:
        digest = blake2b(key=self._key, digest_size=32)
        secret = password.encode("utf-8", "surrogatepass")
        digest.update(len(secret).to_bytes(4))
        digest.update(secret)
        digest.update(name.encode())
        key = digest.digest()
        flight = self._flights.get(key)
        if flight is None:
            task = asyncio.get_running_loop().create_task(self._fly(name, password, within_s))
            flight = self._flights[key] = _Flight(key, task)
            task.add_done_callback(lambda done: self._land(key, done))
        return flight

    def _leave(self, flight: _Flight) -> None:
        """Nobody waits any more; whoever comes now must not board what is being cancelled."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        flight.task.cancel()

    def _land(self, key: bytes, done: "asyncio.Task[Verdict]") -> None:
        if (flight := self._flights.get(key)) is not None and flight.task is done:
            del self._flights[key]
        if not done.cancelled():
            done.exception()  # whoever waited has been told; without anybody it is nobody's business

    async def _fly(self, name: str, password: str, within_s: float) -> Verdict:
        ends_s = time.monotonic() + within_s

        async def ask() -> Verdict:
            return await self._source.check(name, password, max(0.001, ends_s - time.monotonic()))

        async def in_turn() -> Verdict:
            return await self._bulkhead.call(lambda: self.breaker.call(ask, _is_failure))

        if self._accepted is None:
            return await in_turn()
        return await self._accepted.keep(name, password, in_turn)


def _is_failure(error: Exception) -> bool:
    return isinstance(error, Unavailable)
