"""The limits of one process, as its settings have them: what is limited, where the buckets are, who is told."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fastauth.domain.devices import PURPOSE, DeviceTokens
from fastauth.domain.limits import Limit, Tier
from fastauth.endpoints.client_address import ClientAddresses
from fastauth.endpoints.login_limits import GuessLimit, LoginLimits
from fastauth.endpoints.rate_limit import AddressLimit, Decide, NamedLimit, RateLimit
from fastauth.jose.wrapping import MasterKey
from fastauth.limits import GuessBudget, LocalBuckets, RedisBuckets
from fastauth.server.counters import Counters
from fastauth.server.settings import Settings
from fastauth.server.telemetry import get_log

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the table refuses a file that is not this user's alone
# How a limit is held through Redis when it does not say so itself.
_TIERS: Final[dict[str, Tier]] = {
    "login_per_ip": "exact",
    "login_per_user": "exact",
    "login_global": "local",
    "token_per_client": "leased",
    "refresh_per_ip": "exact",
    "verify_per_ip": "leased",
}


def table_path(settings: Settings) -> Path:
    """The file of the table that all workers on a data directory share: in memory where that has room for it."""
    directory = settings.data_path.stat()  # the directory itself: one that was removed and made again is another
    whose = f"{os.geteuid()}-{directory.st_dev:x}-{directory.st_ino:x}"
    path = _SHARED_MEMORY / f"fastauth-{whose}-{settings.limits.max_buckets}"
    if path.exists() or _has_room(_SHARED_MEMORY, LocalBuckets.size_of(settings.limits.max_buckets)):
        return path
    return settings.data_path / f"fastauth.buckets-{settings.limits.max_buckets}"


def _has_room(folder: Path, size: int) -> bool:
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize > 2 * size  # others live there too


class Limiting:
    """Builds the limits; ``open`` before the first request, ``close`` after the last."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        """Raises TableRefused."""
        self._settings = settings
        self._counters = counters
        self._log = get_log()
        self._local = LocalBuckets(settings.limits.max_buckets, table_path(settings))
        self._redis_was_lost = False
        self._shared = self._redis() if settings.redis_url else None
        # Takes a token wherever it is kept that all nodes see it.
        self.spend: Decide = self._local.take if self._shared is None else self._shared.decide
        self.addresses = ClientAddresses(settings.trusted_proxies, settings.proxy.header.encode(), self._warn)

    @property
    def evictions(self) -> int:
        """Buckets that were not full and had to make room, of all workers."""
        return self._local.evictions

    async def open(self) -> None:
        """Connect to Redis, if there is one; without it the limits work all the same."""
        if self._shared is not None:
            await self._shared.open()

    async def close(self) -> None:
        """Return what is leased."""
        if self._shared is not None:
            await self._shared.close()

    def missing(self) -> list[str]:
        """What the limits have to do without."""
        return [] if self._shared is None or self._shared.link.is_up else ["redis"]

    def for_login(self, master_key: MasterKey) -> LoginLimits:
        """The limits of ``/auth``."""
        return LoginLimits(
            per_address=self._per_address("login_per_ip"),
            overall=self._limit("login_global"),
            guesses=self._guesses(),
            devices=self._devices(master_key),
        )

    def for_verify(self) -> AddressLimit | None:
        """The limit of ``/verify``."""
        return self._per_address("verify_per_ip")

    def for_token(self) -> RateLimit | None:
        """The limit of a client at ``/token``."""
        return self._limit("token_per_client")

    def for_refresh(self) -> AddressLimit | None:
        """The limit of an address that refreshes."""
        return self._per_address("refresh_per_ip")

    def for_family(self) -> NamedLimit | None:
        """The limit of a session that is refreshed; its bucket is a column of the session's row."""
        limit = self._settings.limit("refresh_per_family")
        name = "refresh_per_family"
        return None if limit is None else NamedLimit(name, limit, self._counters.of_limit(name))

    @property
    def places(self) -> LocalBuckets:
        """The table of this machine."""
        return self._local

    def at_most_each_second(self, what: str, count: int) -> Callable[[], bool]:
        """Whether it may be done once more, by this process; not counted anywhere."""
        if not count:
            return lambda: False
        take, limit, key = self._local.take, Limit(max(1, 1_000_000 // count), count), f"{what}:{os.getpid()}"
        return lambda: take(key, limit).allowed

    def _redis(self) -> RedisBuckets:
        count = self._counters.of_redis()

        def tell(is_up: bool, reason: str) -> None:
            if is_up and not self._redis_was_lost:  # at the start: nothing to tell
                return
            self._redis_was_lost = not is_up
            count(is_up)
            if is_up:
                self._log.warning("redis_back", limits="shared again")
            else:
                self._log.error("redis_lost", reason=reason, limits="each node guards its share")

        url = self._settings.redis_url or ""
        return RedisBuckets(url, self._local, prefix=self._settings.redis_prefix, on_change=tell)

    def _tier(self, name: str) -> Limit | None:
        limit = self._settings.limit(name)
        if limit is None or limit.tier is not None:
            return limit
        return Limit(limit.emission_us, limit.burst, _TIERS[name], is_shadow=limit.is_shadow)

    def _limit(self, name: str) -> RateLimit | None:
        limit = self._tier(name)
        if limit is None:
            return None
        return RateLimit(name, limit, self._counters.of_limit(name), self.spend)

    def _per_address(self, name: str) -> AddressLimit | None:
        limit = self._limit(name)
        if limit is None:
            return None
        return AddressLimit(limit, self.addresses, shows_fields=self._settings.limits.ratelimit_fields)

    def _guesses(self) -> GuessLimit | None:
        limit = self._tier("login_per_user")
        if limit is None:
            return None
        account, device = (
            NamedLimit(name, limit, self._counters.of_limit(name))
            for name in ("login_per_user", "login_per_user_device")
        )
        return GuessLimit(account, device, GuessBudget(limit, self._local, self._shared))

    def _devices(self, master_key: MasterKey) -> DeviceTokens | None:
        ttl_s = self._settings.limits.known_device_ttl_s
        return DeviceTokens(master_key.derive(PURPOSE), ttl_s) if ttl_s else None

    def _warn(self, event: str) -> None:
        self._log.warning(event, hint="see docs/limits.md, 'Whose request it is'")
