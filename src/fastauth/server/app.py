"""The composition root: what depends on what, and the one list of routes."""

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable

from fastauth.backends.passwords import HashPool, PasswordHasher, hash_threads
from fastauth.endpoints.auth import LoginEndpoint
from fastauth.endpoints.health import ReadyEndpoint, livez
from fastauth.endpoints.jwks import JwksEndpoint
from fastauth.endpoints.operators import MetricsEndpoint, Operators
from fastauth.endpoints.verify import VerifyEndpoint
from fastauth.jose.issuer import Issuer
from fastauth.jose.keyring import KeyRing
from fastauth.server.asgi import AsgiApp, Route, Router
from fastauth.server.bootstrap import Storage, load_master_key, open_signing_keys, open_storage
from fastauth.server.counters import Counters
from fastauth.server.limiting import Limiting
from fastauth.server.settings import Settings, load_settings
from fastauth.server.telemetry import get_log
from fastauth.verifier import Verifier


class Service:
    """A started server: its router, and what has to be closed when it ends."""

    def __init__(
        self, router: Router, pool: HashPool, limiting: Limiting, storage: Storage, following: asyncio.Task[None]
    ) -> None:
        self.router = router
        self._pool = pool
        self._limiting = limiting
        self._storage = storage
        self._following = following

    async def close(self) -> None:
        """Finish hash jobs and writes, return leased tokens, then close the database."""
        self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._following
        self._pool.close()
        await self._limiting.close()
        self._storage.close()


def create_app(settings: Settings | None = None) -> AsgiApp:
    """fastauth as a plain ASGI application, to be served by any server or mounted in Starlette or FastAPI.

    In: the settings, or None for those of the environment. Raises SettingsRefused; what fails later, at start-up,
    fails the lifespan or, without one, the first request.
    """
    chosen = settings or load_settings(None, os.environ, {})
    return AsgiApp(lambda: compose(chosen, Counters(None), is_draining=lambda: False))


async def compose(settings: Settings, counters: Counters, is_draining: Callable[[], bool]) -> Service:
    """Wire one process. Raises what ``bootstrap`` raises, and TableRefused."""
    storage = open_storage(settings)
    limiting = None
    try:
        limiting = Limiting(settings, counters)
        await limiting.open()
        return await _compose_on(storage, limiting, settings, counters, is_draining)
    except BaseException:
        if limiting is not None:
            await limiting.close()
        storage.close()
        raise


async def _compose_on(
    storage: Storage, limiting: Limiting, settings: Settings, counters: Counters, is_draining: Callable[[], bool]
) -> Service:
    signing_keys = open_signing_keys(settings, storage.keys)
    ring = await signing_keys.load()
    await signing_keys.start_serving()
    pool = HashPool(hash_threads(settings.workers))
    issuer = Issuer(ring.active, settings.issuer_url, settings.tokens, secrets.token_bytes)
    verifier = Verifier.from_keys(ring.verifying, settings.issuer_url, settings.audience)
    jwks = JwksEndpoint(ring, settings.tokens.jwks_max_age_s)

    def use_ring(ring: KeyRing) -> None:
        verifier.use_keys(ring.verifying)  # before anything is signed with a key that is not verified yet
        jwks.use_ring(ring)
        issuer.use_key(ring.active)

    limits = limiting.for_login(load_master_key(settings, may_create=False))
    hasher = PasswordHasher(settings.passwords)
    login = LoginEndpoint(storage.users, hasher, pool, issuer, time.time, get_log(), limits)
    operators = Operators(settings.metrics_readers)
    router = Router(
        [
            Route("/auth", login, ("POST",)),
            Route("/verify", VerifyEndpoint(verifier, limiting.for_verify()), is_subtree=True),
            Route("/.well-known/jwks.json", jwks, ("GET",)),
            Route("/livez", livez, ("GET",)),
            Route("/readyz", ReadyEndpoint(is_draining, limiting.missing, operators), ("GET",)),
            Route("/metrics", MetricsEndpoint(operators, counters.render), ("GET",)),
        ]
    )
    following = asyncio.get_running_loop().create_task(signing_keys.follow(use_ring))
    return Service(router, pool, limiting, storage, following)
