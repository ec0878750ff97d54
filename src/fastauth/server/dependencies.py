"""What a process needs from others, guarded: the breakers, who hears of their changes, and the identity sources."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from fastauth.backends.identity import IdentitySettings, Source
from fastauth.backends.identity.guarded import AcceptedChecks, GuardedSource, Pool
from fastauth.breaker import CircuitBreaker, LoopLag
from fastauth.domain.breaker import BreakerRules, State
from fastauth.domain.identity import LOCAL, NEVER_PASS, IdentityRefused, parse_chain
from fastauth.server.counters import Counters
from fastauth.server.settings import Settings
from fastauth.server.telemetry import get_log

# A database that is back is used again at once: its statements are cheap to try, and nobody logs in without it.
DATABASE_OPEN_S: Final = 0.5
# A source whose answers take longer than this part of its timeout is as good as down.
_SLOW: Final = 0.75


class Dependencies:
    """The breakers of one process."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        """To be made on the running event loop."""
        self._settings = settings
        self._counters = counters
        self._log = get_log()
        self._lag = LoopLag()
        self._lag.start()
        self._breakers: dict[str, CircuitBreaker] = {}
        self.sources: dict[str, GuardedSource] = {}
        self.has_redis: Callable[[], bool] | None = None

    def states(self) -> dict[str, State]:
        """Of every circuit, by dependency. Redis is tried again beside the requests: none finds it half open."""
        states: dict[str, State] = {name: breaker.state for name, breaker in self._breakers.items()}
        if self.has_redis is not None:
            states["redis"] = "closed" if self.has_redis() else "open"
        return states

    def missing(self) -> list[str]:
        """What is not asked at the moment."""
        return [name for name, state in self.states().items() if state != "closed"]

    def of_database(self) -> CircuitBreaker:
        """For PostgreSQL."""
        rules = msgspec.structs.replace(self._settings.breaker, open_s=DATABASE_OPEN_S)
        times = self._settings.database
        return self._breaker("database", rules, soonest_s=min(times.acquire_timeout_s, times.statement_timeout_s) / 2)

    def open_sources(self, pool: Pool) -> None:
        """Make the sources of the chain. In: where the small hashes of ``cache_ttl_s`` are computed.

        Raises IdentityRefused.
        """
        settings = self._settings.identity
        for name in parse_chain(settings.chain):
            if name != LOCAL:
                self.sources[name] = self._guarded(open_source(name, settings), settings, pool)
        wanted = {part.strip() for part in f"{settings.http_claims or ''},{settings.ldap_claims or ''}".split(",")}
        if never := sorted(wanted & NEVER_PASS):
            self._log.warning("claims_never_pass", claims=never, reason="no source says them in the issuer's name")

    def forget_users(self) -> None:
        """An account has changed: what its source said of it before counts no more."""
        for source in self.sources.values():
            source.forget_all()

    async def close(self) -> None:
        """End what is under way, and the connections of the sources."""
        self._lag.close()
        for source in self.sources.values():
            await source.close()

    def _guarded(self, source: Source, settings: IdentitySettings, pool: Pool) -> GuardedSource:
        timeout_s, most = source_bounds(source.name, settings)
        breaker = self._breaker(source.name, self._settings.breaker, slow_s=timeout_s * _SLOW, soonest_s=timeout_s / 2)
        accepted = AcceptedChecks(settings.cache_ttl_s, pool) if settings.cache_ttl_s else None
        return GuardedSource(source, breaker, timeout_s=timeout_s, most=most, accepted=accepted)

    def _breaker(
        self, name: str, rules: BreakerRules, *, slow_s: float = float("inf"), soonest_s: float
    ) -> CircuitBreaker:
        breaker = CircuitBreaker(name, rules, slow_s=slow_s, soonest_s=soonest_s, lag=self._lag, on_change=self._tell)
        self._breakers[name] = breaker
        return breaker

    def _tell(self, dependency: str, state: State, reason: str) -> None:
        self._counters.count_breaker(dependency, state)
        log = self._log.error if state == "open" else self._log.warning
        log(f"breaker_{state}", dependency=dependency, reason=reason)


def source_bounds(name: str, settings: IdentitySettings) -> tuple[float, int]:
    """The timeout in seconds of one check, and how many are made at the same time."""
    if name == "http":
        return settings.http_timeout_s, settings.http_pool_size
    return settings.ldap_timeout_s, settings.ldap_pool_size


def open_source(name: str, settings: IdentitySettings) -> Source:
    """A source on the running event loop; the drivers are extras. Raises IdentityRefused."""
    try:
        if name == "http":
            from fastauth.backends.identity.http import HttpSource

            return HttpSource(settings)
        from fastauth.backends.identity.ldap import LdapSource

        return LdapSource(settings)
    except ImportError as error:
        raise IdentityRefused(
            f"identity.chain: {name} needs {error.name}, which is not installed; pip install 'fastauth[{name}]'"
        ) from None


def external_sources(settings: Settings) -> Sequence[str]:
    """The sources that there are besides the own database."""
    return [name for name in parse_chain(settings.identity.chain) if name != LOCAL]
