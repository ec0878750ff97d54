"""Configuration: composes the settings of every module from ``fastauth.toml`` < environment < flags.

Each section is a frozen Struct that stands beside the module it configures; this module reads, converts and reports
every problem at once.
"""

import difflib
import os
import re
import ssl
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from fastauth.backends.identity import IdentitySettings
from fastauth.backends.identity import check_settings as check_identity
from fastauth.backends.passwords import PasswordSettings
from fastauth.backends.postgres import DatabaseRefused, DatabaseSettings, check_url, is_postgres
from fastauth.domain.admission import Seconds
from fastauth.domain.breaker import BreakerRules
from fastauth.domain.errors import FastauthError, MasterKeyRefused, ScopeRefused
from fastauth.domain.hosts import is_loopback
from fastauth.domain.limits import Limit, LimitRefused
from fastauth.domain.origins import parse_origin
from fastauth.domain.scopes import check_scope
from fastauth.endpoints.client_address import Network, parse_networks
from fastauth.jose.issuer import TokenSettings
from fastauth.jose.wrapping import MasterKey
from fastauth.limits.shared.address import RedisRefused, parse_url
from fastauth.server.audit import AuditSettings
from fastauth.server.otel_settings import OtelSettings

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4_096)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class TlsSettings(_Section, frozen=True, kw_only=True):
    """``[tls]``: PEM files passed to granian."""

    cert_file: Text | None = None
    key_file: Text | None = None


class LimitSettings(_Section, frozen=True, kw_only=True):
    """``[limits]``: token buckets, written as ``domain/limits.py`` says."""

    login_per_ip: Text = "30/m burst 60"
    login_per_user: Text = "10/m burst 10"
    login_global: Text = "1000/s burst 1000"
    token_per_client: Text = "100/s burst 200"
    refresh_per_ip: Text = "60/m burst 120"
    refresh_per_family: Text = "60/m burst 120"
    verify_per_ip: Text = "off"
    max_buckets: Annotated[int, msgspec.Meta(ge=1_024, le=1 << 26)] = 1 << 20
    known_device_ttl_s: Annotated[int, msgspec.Meta(ge=0, le=400 * 86_400)] = 90 * 86_400
    ratelimit_fields: bool = False


class ProxySettings(_Section, frozen=True, kw_only=True):
    """``[proxy]``: whose forwarding header is believed, and which one."""

    trusted: Text | None = None
    header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"


class MetricsSettings(_Section, frozen=True, kw_only=True):
    """``[metrics]``: who may read them."""

    allow: Text = "loopback"


class RehearsalSettings(_Section, frozen=True, kw_only=True):
    """``[rehearsal]``: the installations that ``fastauth rehearse`` may load, besides those of this machine."""

    targets: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] | Text | None = None

    @property
    def origins(self) -> list[str]:
        """A list in TOML; separated by commas in the environment."""
        found = self.targets.split(",") if isinstance(self.targets, str) else self.targets or ()
        return [text.strip() for text in found if text.strip()]


class LaneSettings(_Section, frozen=True, kw_only=True):
    """``[lanes]``: how long one may wait for what, in seconds; ``docs/overload.md`` explains them."""

    login_deadline_s: Seconds = 3.0
    login_burst_s: Seconds = 2.0
    login_target_s: Seconds = 0.02
    renew_burst_s: Seconds = 2.0
    renew_target_s: Seconds = 1.0
    hash_memory_mib: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] | Literal["auto"] = "auto"
    hash_nice: Annotated[int, msgspec.Meta(ge=0, le=19)] = 5
    loop_policy: Literal["batch", "inherit"] = "batch"
    tickets_per_s: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1_000
    handler_timeout_s: Seconds = 10.0


class RevocationSettings(_Section, frozen=True, kw_only=True):
    """``[revocation]``: how stale this node may become."""

    max_stale_s: Annotated[float, msgspec.Meta(ge=2, le=86_400)] | Literal["off"] = "off"  # the feed looks each second


class Settings(_Section, frozen=True, kw_only=True):
    """Everything that can be configured; see ``docs/configuration.md`` for what each key means."""

    issuer: Text | None = None
    host: Text = "127.0.0.1"
    port: Port = 8_000
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    data_dir: Text = "./var"
    master_key: Text | None = None
    database_url: Text | None = None
    redis_url: Text | None = None
    redis_prefix: Text = "fastauth"
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=3_600)] = 3.0
    silent_worker_s: Annotated[float, msgspec.Meta(ge=2, le=3_600)] | Literal["off"] = 10.0
    worker_memory_mib: Annotated[int, msgspec.Meta(ge=128, le=1 << 20)] | Literal["off"] = 1_024
    grace_s: Annotated[float, msgspec.Meta(ge=1, le=3_600)] = 30.0
    allow_insecure: bool = False
    tls: TlsSettings = TlsSettings()
    tokens: TokenSettings = TokenSettings()
    passwords: PasswordSettings = PasswordSettings()
    database: DatabaseSettings = DatabaseSettings()
    limits: LimitSettings = LimitSettings()
    proxy: ProxySettings = ProxySettings()
    identity: IdentitySettings = IdentitySettings()
    breaker: BreakerRules = BreakerRules()
    metrics: MetricsSettings = MetricsSettings()
    audit: AuditSettings = AuditSettings()
    otel: OtelSettings = OtelSettings()
    lanes: LaneSettings = LaneSettings()
    revocation: RevocationSettings = RevocationSettings()
    rehearsal: RehearsalSettings = RehearsalSettings()

    def __repr__(self) -> str:  # holds the master key and database passwords
        return "Settings(...)"

    @property
    def issuer_url(self) -> str:
        """The ``iss`` of every token; never taken from a request."""
        return self.issuer or self.base_url

    @property
    def base_url(self) -> str:
        """Where this server listens, as a client would write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls.cert_file else 'http'}://{host}:{self.port}"

    @property
    def audience(self) -> str:
        """The ``aud`` of every token, and the one that ``/verify`` wants."""
        return self.tokens.audience or self.issuer_url

    @property
    def trusted_proxies(self) -> list[Network]:
        """Whose forwarding header is believed. Raises ValueError."""
        return _networks(self.proxy.trusted)

    @property
    def metrics_readers(self) -> list[Network]:
        """Who may read the metrics. Raises ValueError."""
        return _networks(self.metrics.allow)

    def limit(self, name: str) -> Limit | None:
        """One of ``[limits]`` by name, None for one that is off. Raises LimitRefused."""
        text = getattr(self.limits, name)
        return None if text == "off" else Limit.parse(text)

    @property
    def data_path(self) -> Path:
        """The data directory, absolute."""
        return Path(os.path.expanduser(self.data_dir)).absolute()  # noqa: PTH111 - leaves "~nobody" as it is

    @property
    def sqlite_path(self) -> Path | None:
        """The database file, absolute; None with PostgreSQL."""
        if self.database_url is None:
            return self.data_path / "fastauth.db"
        return None if is_postgres(self.database_url) else sqlite_file(self.database_url)

    @property
    def silent_s(self) -> float | None:
        """For how long a worker may be silent before it is replaced; None for ever."""
        return None if isinstance(self.silent_worker_s, str) else self.silent_worker_s

    @property
    def worker_memory_kib(self) -> int | None:
        """How much private memory a worker may have before another takes its place; None for any."""
        return None if isinstance(self.worker_memory_mib, str) else self.worker_memory_mib * 1_024

    @property
    def max_stale_s(self) -> float | None:
        """For how long this node may be without the feed of revocations; None for ever."""
        return None if isinstance(self.revocation.max_stale_s, str) else self.revocation.max_stale_s


def sqlite_file(url: str) -> Path:
    """The file of a ``sqlite:///PATH``, absolute."""
    return Path(url.removeprefix("sqlite:///")).absolute()


def is_sqlite(url: str) -> bool:
    """Whether it is a ``sqlite:///PATH``."""
    return _SQLITE_URL.fullmatch(url) is not None


class SettingsRefused(FastauthError):
    """A configuration that cannot be used; ``problems`` holds every reason, a line each."""

    code = "settings_refused"

    def __init__(self, problems: list[str]) -> None:
        more = f" (and {len(problems) - 1} more: fastauth check-config lists all)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = problems


# Each of these also has a twin whose name ends in _FILE (in TOML: _file) and names a file that holds it.
SECRETS: Final = frozenset(
    {"master_key", "database_url", "redis_url", "identity.http_bearer", "identity.ldap_bind_password"}
)
# Those of ``[limits]`` that are limits.
LIMITS: Final = (
    "login_per_ip",
    "login_per_user",
    "login_global",
    "token_per_client",
    "refresh_per_ip",
    "refresh_per_family",
    "verify_per_ip",
)
_PREFIX: Final = "FASTAUTH_"
_REDIS_PREFIX: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_NOT_SETTINGS: Final = frozenset({"FASTAUTH_CONFIG", "FASTAUTH_PURE_PYTHON", "FASTAUTH_CFLAGS"})
# What Kubernetes sets in every pod beside a Service named "fastauth" is not meant for us.
_SERVICE_LINK: Final = re.compile(r"FASTAUTH_(SERVICE_(HOST|PORT\w*)|PORT_\d+_\w+)")
_SQLITE_URL: Final = re.compile(r"sqlite:///(?!:memory:)[^\0?#]*[^\0?#/]")
_ISSUER_TEXT: Final = re.compile(r"[!$-+\--;=A-~]+")  # visible ASCII without " # ? @ and a few that no URL has
_MAX_SECRET_FILE: Final = 64 * 1024


def load_settings(
    config_file: Path | None, environment: Mapping[str, str], flags: Mapping[str, object | None]
) -> Settings:
    """The settings. In: a TOML file or None, the environment, and flags by dotted key (None: not given).

    Raises SettingsRefused with every problem found.
    """
    problems: list[str] = []
    values = _read_toml(config_file, problems)
    values.update(_read_environment(environment, problems))
    values.update({key: (value, f"--{key.replace('_', '-')}") for key, value in flags.items() if value is not None})
    _read_secret_files(values, problems)
    settings = _convert(values, problems)
    problems.extend(_check(settings))
    if problems:
        raise SettingsRefused(problems)
    return settings


# A value and where it came from, by dotted key.
_Values = dict[str, tuple[object, str]]


def known_keys() -> Iterator[str]:
    """Every dotted key."""
    for field in msgspec.structs.fields(Settings):
        if _is_section(field.type):
            yield from (f"{field.name}.{inner.name}" for inner in msgspec.structs.fields(field.type))
        else:
            yield field.name


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


_SECTIONS: Final = frozenset(field.name for field in msgspec.structs.fields(Settings) if _is_section(field.type))


def _read_toml(config_file: Path | None, problems: list[str]) -> _Values:
    if config_file is None:
        return {}
    try:
        document = tomllib.loads(config_file.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{config_file}: {error.strerror or 'cannot be read'}")
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{config_file}: not valid TOML: {error}")
        return {}
    values: _Values = {}
    for name, value in document.items():
        if name in _SECTIONS and not isinstance(value, dict):
            problems.append(f"{config_file}: {name} is a section; write [{name}] on a line and its settings below")
        elif isinstance(value, dict) and not value and name not in _SECTIONS:
            problems.append(f"{config_file}: [{name}]: no such section; there are {', '.join(sorted(_SECTIONS))}")
        elif isinstance(value, dict):
            values.update({f"{name}.{inner}": (item, f"{config_file}") for inner, item in value.items()})
        else:
            values[name] = (value, f"{config_file}")
    return _drop_unknown(values, problems)


def _read_environment(environment: Mapping[str, str], problems: list[str]) -> _Values:
    values: _Values = {}
    for variable, value in environment.items():
        if not variable.startswith(_PREFIX) or variable in _NOT_SETTINGS or _SERVICE_LINK.fullmatch(variable):
            continue
        if variable == "FASTAUTH_PORT" and value.startswith("tcp://"):  # a service link too
            continue
        values[variable.removeprefix(_PREFIX).lower().replace("__", ".")] = (value, variable)
    return _drop_unknown(values, problems)


def _drop_unknown(values: _Values, problems: list[str]) -> _Values:
    known = [*known_keys(), *(f"{key}_file" for key in SECRETS)]
    for key in [key for key in values if key not in known]:
        _, source = values.pop(key)
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"; the nearest known one is {_spell(nearest[0], source)}" if nearest else ""
        name = source if source.startswith(_PREFIX) else f"{source}: {key}"
        problems.append(f"{name}: no such setting{hint}")
    return values


def _spell(key: str, source: str) -> str:
    return _PREFIX + key.upper().replace(".", "__") if source.startswith(_PREFIX) else key


def _read_secret_files(values: _Values, problems: list[str]) -> None:
    for key in sorted(SECRETS):
        path, source = values.pop(f"{key}_file", (None, ""))
        if path is None:
            continue
        _, rival = values.get(key, (None, ""))
        if rival and rival.startswith(_PREFIX) == source.startswith(_PREFIX):
            problems.append(f"{source}: {key} is given twice, directly and as a file")
            continue
        if rival.startswith(_PREFIX):  # the environment is above the file that names this one
            continue
        try:
            with Path(str(path)).open(encoding="utf-8") as file:
                values[key] = (file.read(_MAX_SECRET_FILE).strip(), source)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            problems.append(f"{source}: {path}: {reason}")


def _convert(values: _Values, problems: list[str]) -> Settings:
    sections: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        if _is_section(field.type):
            inner: dict[str, Any] = {}
            for item in msgspec.structs.fields(field.type):
                _convert_one(f"{field.name}.{item.name}", item, values, inner, problems)
            sections[field.name] = field.type(**inner)
        else:
            _convert_one(field.name, field, values, sections, problems)
    return Settings(**sections)


def _convert_one(
    key: str, field: msgspec.structs.FieldInfo, values: _Values, into: dict[str, Any], problems: list[str]
) -> None:
    if key not in values:
        return
    value, source = values[key]
    try:
        # Text from the environment stands for numbers and booleans; TOML has types of its own.
        into[field.name] = msgspec.convert(value, field.type, strict=not source.startswith((_PREFIX, "--")))
    except msgspec.ValidationError as error:
        reason = "not a valid value" if key in SECRETS else str(error)
        if get_origin(field.type) is Literal:
            reason = f"must be one of {', '.join(get_args(field.type))}"
        problems.append(f"{source}: {key}: {reason}")


def _check_rehearsal(settings: Settings) -> Iterator[str]:
    for target in settings.rehearsal.origins:
        try:
            origin = parse_origin(target)
        except ValueError as error:
            yield f"rehearsal.targets: each {error}"
            continue
        if not (origin.is_https or settings.allow_insecure or is_loopback(origin.host)):
            yield (
                "rehearsal.targets: over http passwords cross the network in clear; "
                "list https, or set FASTAUTH_ALLOW_INSECURE=1"
            )


def _check(settings: Settings) -> Iterator[str]:
    """The rules that no single type can express."""
    if settings.issuer is None and not is_loopback(settings.host):
        yield "issuer: must be set (FASTAUTH_ISSUER) when the host is not loopback: it is the iss of every token"
    if settings.issuer is not None:
        yield from _check_issuer(settings.issuer)
    yield from _check_tls(settings.tls)
    yield from _check_limits(settings)
    yield from _check_database(settings)
    yield from _check_lanes(settings.lanes)
    yield from settings.audit.problems()
    yield from settings.otel.problems()
    yield from check_identity(settings.identity, allow_insecure=settings.allow_insecure)
    yield from _check_rehearsal(settings)
    if "\0" in settings.data_dir:
        yield "data_dir: not a path"
    if settings.passwords.profile == "cheapest-for-tests" and not settings.allow_insecure:
        yield "passwords.profile: cheapest-for-tests protects nobody; it starts only with FASTAUTH_ALLOW_INSECURE=1"
    if settings.master_key is not None:
        try:
            MasterKey.from_text(settings.master_key)
        except MasterKeyRefused as error:
            yield f"master_key: {error}"
    if settings.tokens.publishes_ahead_s <= settings.tokens.jwks_max_age_s:
        yield (
            "tokens.publish_ahead_s: must be longer than tokens.jwks_max_age_s "
            f"({settings.tokens.jwks_max_age_s}): a key signs only when everybody has had to fetch it"
        )
    if (period_s := settings.tokens.rotation_period_s) is not None and period_s <= settings.tokens.publishes_ahead_s:
        yield "tokens.rotate_every_s: must be longer than the time for which a new key is published before it signs"
    if settings.tokens.expiry_jitter_s >= settings.tokens.access_ttl_s:
        yield "tokens.expiry_jitter_s: must be shorter than tokens.access_ttl_s"
    if (settings.limits.refresh_per_family.split() or [""])[-1] in ("exact", "leased", "local"):
        yield "limits.refresh_per_family: its bucket is a part of the session and always exact; leave the word out"
    if settings.tokens.refresh_idle_s > settings.tokens.refresh_max_s:
        yield "tokens.refresh_idle_s: must not be longer than tokens.refresh_max_s, which ends every session"
    try:
        check_scope(settings.tokens.user_scope)
    except ScopeRefused as error:
        yield f"tokens.user_scope: {error}"


def _check_lanes(lanes: LaneSettings) -> Iterator[str]:
    for lane in ("login", "renew"):
        if getattr(lanes, f"{lane}_target_s") > getattr(lanes, f"{lane}_burst_s"):
            yield f"lanes.{lane}_target_s: must not be longer than lanes.{lane}_burst_s"
    if lanes.login_burst_s > lanes.login_deadline_s:
        yield "lanes.login_burst_s: must not be longer than lanes.login_deadline_s, after which nobody waits any more"
    if lanes.handler_timeout_s <= lanes.login_deadline_s:
        yield "lanes.handler_timeout_s: must be longer than lanes.login_deadline_s, which is a part of it"


def _check_database(settings: Settings) -> Iterator[str]:
    if settings.database_url is None or is_sqlite(settings.database_url):
        return
    if not is_postgres(settings.database_url):
        yield "database_url: must be sqlite:///PATH, the path of a file, or postgresql://USER:PASSWORD@HOST/DATABASE"
        return
    try:
        check_url(settings.database_url)
    except DatabaseRefused as error:
        yield f"database_url: {error}"
    if settings.issuer is None:
        yield "issuer: must be set (FASTAUTH_ISSUER) with PostgreSQL: every node puts the same iss into its tokens"


def _networks(text: str | None) -> list[Network]:
    return parse_networks("" if text is None or text == "off" else text)


def _check_limits(settings: Settings) -> Iterator[str]:
    for name in LIMITS:
        try:
            settings.limit(name)
        except LimitRefused as error:
            yield f"limits.{name}: {error}"
    for key, text in {"proxy.trusted": settings.proxy.trusted, "metrics.allow": settings.metrics.allow}.items():
        try:
            _networks(text)
        except ValueError as error:
            yield f"{key}: {error}"
    if not _REDIS_PREFIX.fullmatch(settings.redis_prefix):
        yield "redis_prefix: must be 1 to 64 letters, digits and . _ : -"
    if settings.redis_url is not None:
        try:
            parse_url(settings.redis_url)
        except RedisRefused as error:
            yield f"redis_url: {error}"


def _check_tls(tls: TlsSettings) -> Iterator[str]:
    if (tls.cert_file is None) != (tls.key_file is None):
        yield "tls: cert_file and key_file go together"
    for name in (tls.cert_file, tls.key_file):
        if name is not None and not Path(name).is_file():
            yield f"tls: {name}: no such file"
            return
    if tls.cert_file is not None and tls.key_file is not None:
        try:  # an encrypted key must not stop the start with a question
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert_file, tls.key_file, password=lambda: "")
        except (OSError, ValueError):  # SSLError is an OSError, and its text is of no use to a person
            yield "tls: cert_file and key_file are not a PEM certificate and its unencrypted key"


def _check_issuer(issuer: str) -> Iterator[str]:
    try:
        parts = urlsplit(issuer)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets, or a port that is none
        is_url = False
    if not is_url or not _ISSUER_TEXT.fullmatch(issuer):
        yield "issuer: must be an http(s) URL in ASCII without user, query and fragment (RFC 8414 section 2)"
