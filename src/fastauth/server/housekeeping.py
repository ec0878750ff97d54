"""What nobody needs any more is forgotten, a small batch at a time, so that nothing grows for ever."""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from fastauth.domain.errors import FastauthError
from fastauth.domain.ports import LeaseStore, RevocationBus, SessionStore
from fastauth.server.telemetry import get_log

BATCH: Final = 200
EVERY_S: Final = 10.0
LEASE: Final = "housekeeping"
# When its holder dies, another one begins after that.
LEASE_S: Final = 30.0
# Between two batches others write; a backlog is worked off at 4,000 rows a second all the same.
_PAUSE_S: Final = 0.05
# News are kept a little longer than anything they are about, for verifiers with a leeway and nodes with other clocks.
_KEPT_LONGER_S: Final = 120


class Housekeeping:
    """Of one worker: the one that has the lease sweeps, for all workers of all nodes."""

    def __init__(
        self,
        sessions: SessionStore,
        bus: RevocationBus,
        leases: LeaseStore,
        grace_s: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """In: for how long a successor may be asked for again, in seconds; ``clock`` seconds since 1970 UTC."""
        self._leases = leases
        self._holder = secrets.token_hex(8)
        self._sessions = sessions
        self._bus = bus
        self._grace_s = grace_s
        self._clock = clock

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(EVERY_S * (0.5 + random.random()))  # noqa: S311 - not a secret
            try:
                if await self._leases.take(LEASE, self._holder, LEASE_S):
                    await self.sweep()
            except FastauthError as error:  # the next round tries again
                get_log().warning("housekeeping_failed", reason=str(error))
            except Exception as error:  # noqa: BLE001 - a worker that forgets nothing any more must not come of it
                get_log().error("housekeeping_failed", reason=type(error).__name__)

    async def sweep(self) -> None:
        """Forget all that can be forgotten now. Raises Unavailable."""
        now_s = int(self._clock())
        # A node whose clock is behind may still be asked for a successor.
        wiped_before_ms = (now_s - self._grace_s - _KEPT_LONGER_S // 2) * 1000
        await self._batches(lambda: self._sessions.wipe_successors(wiped_before_ms, BATCH))
        await self._batches(lambda: self._sessions.purge(now_s - _KEPT_LONGER_S, BATCH))
        await self._batches(lambda: self._bus.purge(now_s - _KEPT_LONGER_S, BATCH))

    async def _batches(self, forget: Callable[[], Awaitable[int]]) -> None:
        count = BATCH
        while count == BATCH:
            count = await forget()
            await asyncio.sleep(_PAUSE_S)
            if count == BATCH and not await self._leases.take(LEASE, self._holder, LEASE_S):
                return  # it took so long that another one sweeps
