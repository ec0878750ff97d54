"""Each worker's view of what was revoked and what has changed: filled at the start, then followed while it serves."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from fastauth.domain.errors import FastauthError
from fastauth.domain.ports import News, RevocationBus
from fastauth.server.telemetry import get_log
from fastauth.verifier.revocations import Revocations

_PAGE: Final = 1_000
_FORGET_EVERY_S: Final = 10.0
_SAME_FAILURE_LOG_S: Final = 60.0
_RETRY_S: Final = 0.25


class RevocationFeed:
    """Applies the news of the bus, in their order and each at least once."""

    def __init__(
        self,
        bus: RevocationBus,
        revocations: Revocations,
        forget_user: Callable[[str], None],
        forget_client: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """In: ``clock`` seconds since 1970 UTC."""
        self._bus = bus
        self._revocations = revocations
        self._forget_user = forget_user
        self._forget_client = forget_client
        self._clock = clock
        self._seq = 0
        self._forgets_at_s = 0.0
        self._told: tuple[str, float] = ("", 0.0)
        self._fresh_at_s = time.monotonic()

    def staleness_s(self) -> float:
        """For how long something may have been told that is not known here."""
        return max(0.0, time.monotonic() - self._fresh_at_s)

    async def catch_up(self) -> None:
        """Apply everything that has been told so far. Raises Unavailable."""
        began_s = time.monotonic()
        while news := await self._bus.read_after(self._seq, _PAGE):
            for piece in news:
                self._apply(piece)
            self._seq = max(self._seq, news[-1].seq)
            await asyncio.sleep(0)  # others have their turn between two pages
            began_s = time.monotonic()
        self._fresh_at_s = max(self._fresh_at_s, began_s)

    async def follow(self) -> None:
        """For ever. While the database does not answer, what is known stays known."""
        while True:
            try:
                await self._bus.wait()
                await self.catch_up()
                self._forget_expired()
            except Exception as error:  # noqa: BLE001 - whatever it is, a worker that follows no more must not come of it
                self._tell(str(error) if isinstance(error, FastauthError) else type(error).__name__)
                await asyncio.sleep(_RETRY_S)

    def _apply(self, news: News) -> None:
        match news.kind:
            case "jti":
                self._revocations.revoke_token(news.name, news.until_s)
            case "sid":
                self._revocations.revoke_session(news.name, news.until_s)
            case "client_id":
                self._revocations.replace_client(news.name, news.issued_until_s, news.until_s)
                self._forget_client(news.name)
            case "client":
                self._forget_client(news.name)
            case "user":
                self._forget_user(news.name)

    def _forget_expired(self) -> None:
        if time.monotonic() >= self._forgets_at_s:
            self._forgets_at_s = time.monotonic() + _FORGET_EVERY_S
            self._revocations.forget_expired(int(self._clock()))

    def _tell(self, reason: str) -> None:
        last, at_s = self._told
        if reason != last or time.monotonic() - at_s >= _SAME_FAILURE_LOG_S:
            self._told = (reason, time.monotonic())
            get_log().error("revocations_not_followed", reason=reason)
