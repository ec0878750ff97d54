"""What ``fastauth doctor`` finds: every dependency is tried, and each finding is a sentence for a person."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from fastauth.backends.migrations import HEAD, is_usable, postgres_revision, sqlite_revision
from fastauth.backends.sqlite.database import Database
from fastauth.domain.errors import FastauthError
from fastauth.server.bootstrap import load_master_key, open_signing_keys
from fastauth.server.dependencies import external_sources, open_source
from fastauth.server.limiting import table_path
from fastauth.server.settings import Settings
from fastauth.server.storage import connect_postgres, on_postgres, on_sqlite
from fastauth.server.tracing import check_extra

_SLOW_MS: Final = 20.0
_MOST_SKEW_S: Final = 60.0
_SOON_S: Final = 14 * 86_400
_TOO_LATE_S: Final = 15.0
# docs/operations.md
_KEEPING_POLICIES: Final = ("noeviction", "volatile-ttl")
_FEW_FILES: Final = 4_096
# Of PostgreSQL, from where other programs and its own superusers want some too.
_SPARE_CONNECTIONS: Final = 10
_AUTOGROUPS: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")


class Finding(msgspec.Struct, frozen=True):
    """``state`` says whether anything has to be done, ``advice`` what."""

    subject: str
    state: Literal["good", "doubtful", "broken"]
    text: str
    advice: str = ""


async def diagnose(settings: Settings) -> list[Finding]:
    """Everything that was found. Nothing is changed, and nothing is raised for what does not work."""
    findings: list[Finding] = []
    checks: list[tuple[str, Callable[[Settings], Awaitable[list[Finding]]]]] = [
        ("configuration", _configuration),
        ("data directory", _data_directory),
        ("database", _sqlite if settings.sqlite_path is not None else _postgres),
        ("signing keys", _keys),
        ("redis", _redis),
        ("identity", _sources),
        ("tls", _tls),
        ("audit stream", _audit_stream),
        ("otel", _collector),
        ("machine", _machine),
    ]
    for subject, check in checks:
        if subject == "signing keys" and any(one.subject == "database" and one.state == "broken" for one in findings):
            continue  # they are in it
        try:
            async with asyncio.timeout(_TOO_LATE_S):
                findings += await check(settings)
        except FastauthError as error:
            findings.append(Finding(subject, "broken", str(error), _ADVICE.get(subject, "")))
        except TimeoutError:
            findings.append(Finding(subject, "broken", "no answer in time", _ADVICE.get(subject, "")))
        except OSError as error:
            findings.append(
                Finding(subject, "broken", error.strerror or type(error).__name__, _ADVICE.get(subject, ""))
            )
    return findings


_ADVICE: Final = {
    "database": "see that it runs, that this machine reaches it, and that FASTAUTH_DATABASE_URL names it; logins and "
    "refreshes get 503 until then, and tokens are still verified",
    "redis": "see that it runs and that FASTAUTH_REDIS_URL names it; until then each node guards its share of the "
    "limits",
    "otel": "see that the collector runs and that FASTAUTH_OTEL__ENDPOINT names it; spans are dropped until then",
    "signing keys": "every node needs the same master key",
}


async def _configuration(settings: Settings) -> list[Finding]:
    found = [Finding("configuration", "good", f"issuer {settings.issuer_url}, audience {settings.audience}")]
    if settings.sqlite_path is None and settings.master_key is None:
        found.append(
            Finding(
                "configuration",
                "doubtful",
                f"the master key is the file {settings.data_path / 'master.key'}",
                "with several nodes give the same one to each: FASTAUTH_MASTER_KEY_FILE",
            )
        )
    if settings.sqlite_path is None and settings.redis_url is None:
        text = "there is no Redis, so each node keeps its own rate limits"
        found.append(Finding("configuration", "doubtful", text, "set FASTAUTH_REDIS_URL to share them"))
    return found


async def _data_directory(settings: Settings) -> list[Finding]:
    path = settings.data_path
    if not path.is_dir():
        return [Finding("data directory", "doubtful", f"{path} does not exist yet", "the first start makes it")]
    if not os.access(path, os.W_OK | os.X_OK):
        return [Finding("data directory", "broken", f"{path} is not writable", "give it to the user who serves")]
    system = os.statvfs(path)
    free_mib = system.f_bavail * system.f_frsize // (1 << 20)
    state: Literal["good", "doubtful"] = "good" if free_mib >= 1_024 else "doubtful"
    return [Finding("data directory", state, f"{path}, {free_mib} MiB free", "" if state == "good" else "make room")]


async def _audit_stream(settings: Settings) -> list[Finding]:
    path = settings.audit.path
    if path is None:
        return []
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return [Finding("audit stream", "broken", f"{path} is not writable", "give it to the user who serves")]
    if path.is_file() and path.stat().st_mode & 0o007:
        return [Finding("audit stream", "doubtful", f"{path} can be used by everybody", f"chmod o= {path}")]
    return [Finding("audit stream", "good", f"{path}")]


async def _collector(settings: Settings) -> list[Finding]:
    if not settings.otel.is_on:
        return []
    parts = urlsplit(settings.otel.url)
    check_extra()
    _, writer = await asyncio.open_connection(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    writer.close()
    return [Finding("otel", "good", f"something listens at {settings.otel.url}")]


async def _sqlite(settings: Settings) -> list[Finding]:
    path = settings.sqlite_path
    assert path is not None  # noqa: S101 - chosen by the caller
    if not path.is_file():
        return [Finding("database", "doubtful", f"{path} does not exist yet", "the first start makes it")]
    revision = sqlite_revision(path)
    if not is_usable(revision):
        return [Finding("database", "doubtful", f"{path} has schema {revision}", f"the next start brings it to {HEAD}")]
    return [Finding("database", "good", f"{path}, schema {revision}")]


async def _postgres(settings: Settings) -> list[Finding]:
    database = await connect_postgres(settings, is_command=False)
    try:
        began = time.perf_counter()
        await database.read("SELECT 1")
        took_ms = (time.perf_counter() - began) * 1000
        ((version, most, used, theirs_s, backend),) = await database.read(
            "SELECT current_setting('server_version'), current_setting('max_connections')::int, "
            "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), "
            "extract(epoch FROM clock_timestamp())::float8, "
            "pg_backend_pid()"
        )
        skew_s = time.time() - theirs_s
        may_wait = is_here(backend) and has_autogroups()  # as long as there is this backend
        revision = await postgres_revision(database)
    finally:
        await database.close()
    found = [Finding("database", "good", f"PostgreSQL {version} answers in {took_ms:.1f} ms")]
    if took_ms > _SLOW_MS:
        text, advice = f"it takes {took_ms:.0f} ms to answer", "every login and refresh waits for it twice; move closer"
        found.append(Finding("database", "doubtful", text, advice))
    if not is_usable(revision):
        text = "it has no schema" if revision is None else f"it has schema {revision}, and this version needs {HEAD}"
        found.append(Finding("database", "broken", text, "run: fastauth migrate"))
    wanted = settings.workers * (settings.database.pool_size + 1)
    if most - used < wanted + _SPARE_CONNECTIONS:
        text = f"this node may want {wanted} connections, and {used} of at most {most} are in use"
        found.append(
            Finding("database", "doubtful", text, "raise max_connections, or lower FASTAUTH_DATABASE__POOL_SIZE")
        )
    if may_wait:
        text = "it shares this machine's cores, and the kernel's autogroups can make it wait for half a second for one"
        advice = "unless it has a CPU cgroup of its own: sysctl -w kernel.sched_autogroup_enabled=0 (docs/fleet.md)"
        found.append(Finding("database", "doubtful", text, advice))
    if abs(skew_s) > _MOST_SKEW_S:
        text = f"its clock and this machine's differ by {abs(skew_s):.0f} s"
        found.append(Finding("clock", "broken", text, "nodes may differ by 60 s: set up NTP"))
    else:
        found.append(Finding("clock", "good", f"within {max(abs(skew_s), 0.1):.1f} s of the database's"))
    return found


def is_here(backend: int, proc: Path = Path("/proc")) -> bool:
    """Whether a backend of PostgreSQL is a process of this machine. In: its number, where it is."""
    with contextlib.suppress(OSError):
        return (proc / str(backend) / "comm").read_text().startswith("postgres")
    return False


def has_autogroups(setting: Path = _AUTOGROUPS) -> bool:
    """Whether the kernel shares a core by session before it does by thread (sched(7)): each backend of PostgreSQL has a
    session of its own, and whatever its priority it may wait long for a core on which a password is hashed.
    """
    with contextlib.suppress(OSError):
        return setting.read_text().strip() == "1"
    return False


async def _keys(settings: Settings) -> list[Finding]:
    if settings.sqlite_path is None:
        storage = on_postgres(await connect_postgres(settings, is_command=True))
    elif is_usable(sqlite_revision(settings.sqlite_path) if settings.sqlite_path.is_file() else None):
        storage = on_sqlite(Database(settings.sqlite_path))
    else:  # to open it as a server does would make it, or migrate it
        return [Finding("signing keys", "doubtful", "not looked at", "start the server first")]
    try:
        _, stored = await storage.keys.load_keys()
        if not stored:
            return [Finding("signing keys", "doubtful", "there are none yet", "the first start makes one")]
        load_master_key(settings, may_create=False)
        ring = await open_signing_keys(settings, storage).load_existing()
    finally:
        await storage.close()
    text = f"{ring.active.kid} signs ({ring.active.alg}); the master key opens it"
    return [Finding("signing keys", "good", text)]


async def _sources(settings: Settings) -> list[Finding]:
    found = []
    for name in external_sources(settings):
        try:
            source = open_source(name, settings.identity)
            try:
                started_s = time.perf_counter()
                text = await source.probe()
                took_ms = (time.perf_counter() - started_s) * 1000
                found.append(Finding(name, "good", f"{text}; it answers in {took_ms:.1f} ms"))
            finally:
                await source.close()
        except FastauthError as error:
            found.append(Finding(name, "broken", str(error), f"see identity.{name}_* in docs/identity.md"))
    return found


async def _redis(settings: Settings) -> list[Finding]:
    if settings.redis_url is None:
        return []
    from redis.exceptions import RedisError

    from fastauth.limits.shared.address import parse_url

    try:
        connection = await parse_url(settings.redis_url).connect()
        try:
            began = time.perf_counter()
            await connection.send_command("INFO")
            text = (await connection.read_response()).decode()
            took_ms = (time.perf_counter() - began) * 1000
        finally:
            await connection.disconnect(nowait=True)
    except RedisError as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return [Finding("redis", "broken", reason, _ADVICE["redis"])]
    about = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    found = [Finding("redis", "good", f"Redis {about.get('redis_version', '?')} answers in {took_ms:.1f} ms")]
    if about.get("cluster_enabled") == "1":
        found.append(Finding("redis", "broken", "it is a cluster", "name a single server or Sentinels"))
    policy = about.get("maxmemory_policy", "noeviction")
    if about.get("maxmemory", "0") != "0" and policy not in _KEEPING_POLICIES:
        text = f"when its memory is full it forgets limits that are in use (maxmemory-policy {policy})"
        found.append(Finding("redis", "doubtful", text, f"set one of {', '.join(_KEEPING_POLICIES)}"))
    return found


async def _tls(settings: Settings) -> list[Finding]:
    if settings.tls.cert_file is None:
        return []
    from cryptography import x509

    with open(settings.tls.cert_file, "rb") as file:  # noqa: ASYNC230, PTH123 - nobody else is served here
        ends = x509.load_pem_x509_certificates(file.read())[0].not_valid_after_utc
    left_s = (ends - datetime.now(UTC)).total_seconds()
    text = f"the certificate is good until {ends:%Y-%m-%d}"
    if left_s <= 0:
        return [Finding("tls", "broken", f"the certificate has expired on {ends:%Y-%m-%d}", "renew it and restart")]
    return [Finding("tls", "good" if left_s > _SOON_S else "doubtful", text, "" if left_s > _SOON_S else "renew it")]


async def _machine(settings: Settings) -> list[Finding]:
    import resource

    found = []
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < _FEW_FILES:
        text = f"a process may open {hard} files, and a connection is one"
        found.append(Finding("machine", "doubtful", text, "raise the limit: ulimit -Hn 65536, LimitNOFILE= in systemd"))
    if settings.data_path.is_dir() and table_path(settings).parent == settings.data_path:
        text = "shared memory has no room, so the buckets are in a file on disk"
        found.append(Finding("machine", "doubtful", text, "give /dev/shm 64 MiB more; in a container: --shm-size"))
    return found or [Finding("machine", "good", f"{os.cpu_count()} cores, {hard} open files a process")]
