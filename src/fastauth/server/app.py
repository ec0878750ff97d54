"""The composition root: what depends on what, and the one list of routes."""

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import version
from typing import Any, Final, NamedTuple, Protocol

from fastauth.backends.caching import CachedClients, CachedUsers
from fastauth.backends.passwords import PasswordHasher
from fastauth.backends.work_pool import WorkPool, threads_per_worker
from fastauth.domain.clients import PURPOSE as CLIENT_SECRETS
from fastauth.domain.clients import ClientSecrets
from fastauth.domain.identity import LOCAL, parse_chain, parse_routes
from fastauth.domain.sessions import SessionRules
from fastauth.endpoints import (
    auth,
    health,
    introspect,
    jwks,
    logout,
    metadata,
    openapi,
    operators,
    revoke,
    token,
    verify,
)
from fastauth.endpoints.audit import PURPOSE as AUDIT_NAMES
from fastauth.endpoints.audit import Audit, LoginAudit
from fastauth.endpoints.auth import ExternalLogins, LoginEndpoint
from fastauth.endpoints.client_authentication import ClientAuthentication
from fastauth.endpoints.documents import CachedDocument
from fastauth.endpoints.grants import Grant
from fastauth.endpoints.grants.client_credentials import ClientCredentialsGrant
from fastauth.endpoints.grants.refresh_token import RefreshTokenGrant
from fastauth.endpoints.health import ReadyEndpoint, livez
from fastauth.endpoints.identity import ExternalAccounts, IdentityChain
from fastauth.endpoints.introspect import IntrospectEndpoint
from fastauth.endpoints.jwks import JwksEndpoint
from fastauth.endpoints.logout import LogoutEndpoint
from fastauth.endpoints.operators import MetricsEndpoint, Operators
from fastauth.endpoints.revoke import RevokeEndpoint
from fastauth.endpoints.session_starter import SessionStarter
from fastauth.endpoints.signing import Signing
from fastauth.endpoints.token import TokenEndpoint
from fastauth.endpoints.verify import VerifyEndpoint
from fastauth.jose.issuer import Issuer
from fastauth.jose.keyring import KeyRing
from fastauth.server.asgi import AsgiApp, Route, Router
from fastauth.server.audit import open_audit
from fastauth.server.bootstrap import load_master_key, open_signing_keys
from fastauth.server.counters import LOOP_DELAY, Counters
from fastauth.server.dependencies import Dependencies
from fastauth.server.housekeeping import Housekeeping
from fastauth.server.lanes import LoopDelay, hash_scheduler, login_queue, renewals
from fastauth.server.limiting import Limiting
from fastauth.server.loop_turns import LoopTurns
from fastauth.server.metrics import Metrics
from fastauth.server.revocation_feed import RevocationFeed
from fastauth.server.settings import Settings, load_settings
from fastauth.server.storage import Storage, open_storage
from fastauth.server.telemetry import get_log
from fastauth.server.tracing import TracedQueue, TracedStarter, open_tracing
from fastauth.server.vitals import Vitals
from fastauth.server.workers import Heartbeat, WorkerState, WorkerTable
from fastauth.verifier import Verifier
from fastauth.verifier.revocations import Revocations

_EXPECTED_SIGNATURE_S: Final = 0.001
# The feed hears of the database several times in that time.
_DATABASE_MISSED_S: Final = 2.0
_WAITING_SIGNATURES: Final = 2_000  # as many as are made in about two seconds


class Closing(Protocol):
    """Something that ends with the service."""

    def close(self) -> None: ...


class Service:
    """A started server: its router, and what has to be closed when it ends."""

    def __init__(
        self,
        router: Router,
        count: Callable[[str, int, float], None],
        pools: Sequence[Closing],
        limiting: Limiting,
        storage: Storage,
        dependencies: Dependencies,
        following: Sequence[Coroutine[Any, Any, None]],
    ) -> None:
        """In: ``count`` is told of every request: its route's label, the status of its answer, how long it took in
        seconds; ``following`` runs for as long as the service does.
        """
        self.router = router
        self.count = count
        self.is_leaving = False
        self._pools = pools
        self._limiting = limiting
        self._storage = storage
        self._dependencies = dependencies
        self._following = [asyncio.get_running_loop().create_task(work) for work in following]

    def tell_of_itself(self, heart: Heartbeat) -> None:
        """For as long as it lives."""
        self._heart = heart

    async def close(self) -> None:
        """Finish jobs and writes, return leased tokens, then close the database."""
        for task in self._following:
            task.cancel()
        for task in self._following:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._dependencies.close()
        for pool in self._pools:
            pool.close()
        await self._limiting.close()
        await self._storage.close()
        self._heart.close()


def create_app(settings: Settings | None = None) -> AsgiApp:
    """fastauth as a plain ASGI application, to be served by any server or mounted in Starlette or FastAPI.

    In: the settings, or None for those of the environment. Raises SettingsRefused; what fails later, at start-up,
    fails the lifespan or, without one, the first request.
    """
    chosen = settings or load_settings(None, os.environ, {})
    return AsgiApp(lambda: compose(chosen, Process.alone()), chosen.lanes.handler_timeout_s)


class Process(NamedTuple):
    """What a process of the server shares with the others: counters, the table in which it tells of itself in its row,
    and the word to stop; and how its event loop takes turns, None for a host's own loop.
    """

    counters: Counters
    table: WorkerTable
    row: int
    is_draining: Callable[[], bool]
    turns: LoopTurns | None = None

    @classmethod
    def alone(cls, is_draining: Callable[[], bool] = lambda: False) -> "Process":
        """One that shares nothing."""
        return cls(Counters(None), WorkerTable(None), 0, is_draining)


async def compose(settings: Settings, process: Process) -> Service:
    """Wire one process. Raises what ``bootstrap`` raises, and TableRefused."""
    counters = process.counters
    dependencies = Dependencies(settings, counters)
    postgres = dependencies.of_database() if settings.sqlite_path is None else None
    try:
        storage = await open_storage(settings, breaker=postgres)
    except BaseException:
        await dependencies.close()
        raise
    limiting = None
    try:
        limiting = Limiting(settings, counters)
        await limiting.open()
        if settings.redis_url:
            dependencies.has_redis = lambda: not limiting.missing()
        return await _compose_on(storage, limiting, dependencies, settings, process)
    except BaseException:
        if limiting is not None:
            await limiting.close()
        await dependencies.close()
        await storage.close()
        raise


async def _compose_on(
    storage: Storage,
    limiting: Limiting,
    dependencies: Dependencies,
    settings: Settings,
    process: Process,
) -> Service:
    counters = process.counters
    audit = open_audit(settings, limiting.addresses)
    signing_keys = open_signing_keys(settings, storage, audit)
    ring = await signing_keys.load()
    await signing_keys.start_serving()
    await asyncio.to_thread(ring.active.sign, b"")  # the first signature of a key is a slow one
    master_key = load_master_key(settings, may_create=False)

    users, clients = CachedUsers(storage.users), CachedClients(storage.clients)
    revocations = Revocations()

    def forget_user(sub: str) -> None:
        users.forget(sub)
        dependencies.forget_users()

    feed = RevocationFeed(storage.bus, revocations, forget_user, clients.forget)
    await feed.catch_up()  # before the first token is looked at

    threads = threads_per_worker(settings.workers)
    hashing = hash_scheduler(settings, counters, process.turns)
    signatures = WorkPool(threads, _EXPECTED_SIGNATURE_S, _WAITING_SIGNATURES, name="sign")
    dependencies.open_sources(signatures)
    issuer = Issuer(ring.active, settings.issuer_url, settings.tokens, secrets.token_bytes)
    verifier = Verifier.from_keys(ring.verifying, settings.issuer_url, settings.audience, revocations=revocations)
    published_keys = JwksEndpoint(ring, settings.tokens.jwks_max_age_s)

    def use_ring(ring: KeyRing) -> None:
        verifier.use_keys(ring.verifying)  # before anything is signed with a key that is not verified yet
        published_keys.use_ring(ring)
        issuer.use_key(ring.active)

    log, clock, random_bytes = get_log(), time.time, secrets.token_bytes
    rules = _session_rules(settings)
    starter = SessionStarter(storage.sessions, rules, settings.tokens.user_scope, random_bytes)
    limits, hasher = limiting.for_login(master_key), PasswordHasher(settings.passwords)
    delay = LoopDelay(counters.of_time(LOOP_DELAY))
    queue = login_queue(settings, counters, hashing, limiting, master_key, delay)
    external = _external_logins(settings, dependencies, users, signatures, audit)
    tracing = open_tracing(settings.otel)
    login_audit = LoginAudit(audit, master_key.derive(AUDIT_NAMES))
    asked, kept = (
        (queue, starter) if tracing is None else (TracedQueue(queue, tracing), TracedStarter(starter, tracing))
    )
    login = LoginEndpoint(users, hasher, asked, kept, issuer, clock, log, limits, login_audit, external)

    authentication = ClientAuthentication(clients, ClientSecrets(master_key.derive(CLIENT_SECRETS)), clock, audit)
    grants: list[Grant[Any]] = [
        ClientCredentialsGrant(issuer),
        RefreshTokenGrant(
            storage.sessions,
            users,
            rules,
            issuer,
            limiting.for_refresh(),
            limiting.for_family(),
            random_bytes,
            feed.catch_up,
            log,
            audit,
        ),
    ]
    tokens = TokenEndpoint(authentication, grants, limiting.for_token(), Signing(issuer, signatures), clock)
    introspection = IntrospectEndpoint(authentication, verifier, storage.sessions, users, settings.issuer_url, clock)
    revocation = RevokeEndpoint(authentication, verifier, storage.sessions, storage.bus, feed.catch_up, clock, audit)
    ending = LogoutEndpoint(verifier, storage.sessions, feed.catch_up, clock, audit)
    about = CachedDocument(metadata.server_metadata(settings.issuer_url, [grant.name for grant in grants]))
    readers = Operators(settings.metrics_readers)
    ready = _readiness(settings, process, feed, limiting, dependencies, readers)
    metrics = MetricsEndpoint(readers, Metrics(counters, process.table, lambda: limiting.evictions).render)
    vitals = Vitals(delay, hashing, queue, verifier, feed, dependencies, counters)

    def look(state: WorkerState) -> None:
        vitals.look(state)
        service.is_leaving = bool(state.is_leaving) or process.is_draining()

    renew = renewals(settings, counters)
    routes = [
        Route("/auth", login, ("POST",), auth.OPERATION),
        Route("/verify", VerifyEndpoint(verifier, limiting.for_verify()), (), verify.OPERATION, is_subtree=True),
        Route("/token", renew(tokens), ("POST",), token.OPERATION, is_oauth=True),
        Route("/introspect", renew(introspection), ("POST",), introspect.OPERATION, is_oauth=True),
        Route("/revoke", renew(revocation), ("POST",), revoke.OPERATION, is_oauth=True),
        Route("/logout", renew(ending), ("POST",), logout.OPERATION),
        Route("/.well-known/jwks.json", published_keys, ("GET",), jwks.OPERATION),
        *(
            Route(path, about, ("GET",), metadata.OPERATION, label="metadata")
            for path in metadata.metadata_paths(settings.issuer_url)
        ),
        Route("/livez", livez, ("GET",), health.ALIVE),
        Route("/readyz", ready, ("GET",), health.READY),
        Route("/metrics", metrics, ("GET",), operators.METRICS),
    ]
    document = openapi.OpenApiEndpoint(routes, version("fastauth"), settings.issuer_url)
    routes.append(Route("/openapi.json", document, ("GET",), openapi.OPERATION))
    if tracing is not None:
        for route in routes:
            tracing.watch(route)
    housekeeping = Housekeeping(storage.sessions, storage.bus, storage.leases, settings.tokens.refresh_grace_s)
    service = Service(
        Router(routes),
        counters.of_requests(),
        (delay, hashing, signatures, audit, *([] if tracing is None else [tracing])),
        limiting,
        storage,
        dependencies,
        (signing_keys.follow(use_ring), feed.follow(), housekeeping.run()),
    )
    service.tell_of_itself(Heartbeat(process.table, process.row, look))
    return service


def _readiness(
    settings: Settings,
    process: Process,
    feed: RevocationFeed,
    limiting: Limiting,
    dependencies: Dependencies,
    readers: Operators,
) -> ReadyEndpoint:
    def is_stale() -> bool:
        return settings.max_stale_s is not None and feed.staleness_s() > settings.max_stale_s

    def missing() -> list[str]:
        stale = ["database"] if feed.staleness_s() > _DATABASE_MISSED_S else []
        return list(dict.fromkeys([*limiting.missing(), *stale, *dependencies.missing()]))

    return ReadyEndpoint(process.is_draining, is_stale, missing, readers)


def _external_logins(
    settings: Settings, dependencies: Dependencies, users: CachedUsers, signatures: WorkPool, audit: Audit
) -> ExternalLogins | None:
    """None when the own database decides every login."""
    identity = settings.identity
    order = parse_chain(identity.chain)
    if order == (LOCAL,):
        return None
    chain = IdentityChain(order, dependencies.sources, parse_routes(identity.routes, order), identity.deadline_s)
    accounts = ExternalAccounts(users, get_log(), audit, secrets.token_bytes, time.time, provisions=identity.provision)
    return ExternalLogins(chain, accounts, signatures)


def _session_rules(settings: Settings) -> SessionRules:
    return SessionRules(
        idle_s=settings.tokens.refresh_idle_s,
        max_s=settings.tokens.refresh_max_s,
        grace_s=settings.tokens.refresh_grace_s,
        access_ttl_s=settings.tokens.access_ttl_s,
        per_family=settings.limit("refresh_per_family"),
    )
