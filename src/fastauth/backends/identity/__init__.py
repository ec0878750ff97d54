"""External sources of identities, and how they are configured. A driver is imported only where its source is used."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Protocol
from urllib.parse import SplitResult, urlsplit

import msgspec

from fastauth.domain.errors import ScopeRefused
from fastauth.domain.hosts import is_loopback
from fastauth.domain.identity import IdentityRefused, Verdict, parse_chain, parse_claims, parse_routes
from fastauth.domain.scopes import check_scope

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4_096)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=60)]
Calls = Annotated[int, msgspec.Meta(ge=1, le=256)]


class IdentitySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[identity]``: who checks a password; see ``docs/identity.md``. Times in seconds."""

    chain: Text = "local"
    routes: Text | None = None
    provision: bool = True
    deadline_s: Seconds = 5.0
    cache_ttl_s: Annotated[float, msgspec.Meta(ge=0, le=300)] = 0.0
    http_url: Text | None = None
    http_timeout_s: Seconds = 2.0
    http_claims: Text | None = None
    http_bearer: Text | None = None
    http_ca_file: Text | None = None
    http_cert_file: Text | None = None
    http_key_file: Text | None = None
    http_pool_size: Calls = 16
    ldap_url: Text | None = None
    ldap_start_tls: bool = True
    ldap_ca_file: Text | None = None
    ldap_bind_dn: Text | None = None
    ldap_bind_password: Text | None = None
    ldap_base_dn: Text | None = None
    ldap_user_filter: Text = "(uid={username})"
    ldap_subject_attribute: Text = "entryUUID"
    ldap_group_base_dn: Text | None = None
    ldap_group_filter: Text = "(member={dn})"
    ldap_group_scopes: Text | None = None
    ldap_claims: Text | None = None
    ldap_timeout_s: Seconds = 2.0
    ldap_pool_size: Calls = 4

    def __repr__(self) -> str:  # holds the secrets of two dependencies
        return "IdentitySettings(...)"


class Source(Protocol):
    """Somebody outside who knows whether a password is right."""

    name: str

    async def check(self, username: str, password: str, within_s: float) -> Verdict:
        """In: a canonical name, a password that is not empty, how long there is. Raises Unavailable when there is no
        verdict by then; a caller that is cancelled ends the call.
        """
        ...

    async def probe(self) -> str:
        """Try it as far as that goes without a user; out: what was found, in words. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """End its connections."""
        ...


def check_settings(settings: IdentitySettings, *, allow_insecure: bool) -> Iterator[str]:
    """What is wrong, a line each."""
    chain: tuple[str, ...] = ()
    try:
        chain = parse_chain(settings.chain)
        parse_routes(settings.routes, chain)
    except IdentityRefused as error:
        yield f"identity.{'routes' if chain else 'chain'}: {error}"
    for key in ("http_claims", "ldap_claims", "ldap_group_scopes"):
        try:
            (group_scopes if key == "ldap_group_scopes" else parse_claims)(getattr(settings, key))
        except IdentityRefused as error:
            yield f"identity.{key}: {error}"
    for name in ("http", "ldap"):
        if name in chain and getattr(settings, f"{name}_url") is None:
            yield f"identity.{name}_url: must be set, because {name} is in identity.chain"
    if settings.http_url is not None:
        yield from _check_http(settings)
    if settings.ldap_url is not None:
        yield from _check_ldap(settings, allow_insecure=allow_insecure)


def _check_http(settings: IdentitySettings) -> Iterator[str]:
    try:
        parse_http_url(settings.http_url or "")
    except IdentityRefused as error:
        yield f"identity.http_url: {error}"
    if settings.http_bearer is not None and not (settings.http_bearer.isascii() and settings.http_bearer.isprintable()):
        yield "identity.http_bearer: must be printable ASCII: it is sent in a header"
    if (settings.http_cert_file is None) != (settings.http_key_file is None):
        yield "identity: http_cert_file and http_key_file go together"
        return
    try:
        http_tls(settings)
    except (OSError, ValueError):  # SSLError is an OSError, and its text is of no use to a person
        yield "identity: http_ca_file, http_cert_file and http_key_file must be PEM files, the key unencrypted"


def _check_ldap(settings: IdentitySettings, *, allow_insecure: bool) -> Iterator[str]:
    parts = _split(settings.ldap_url or "")
    if parts is None or parts.scheme not in ("ldap", "ldaps") or not parts.hostname or parts.path.strip("/"):
        yield "identity.ldap_url: must be ldaps://HOST[:PORT] or ldap://HOST[:PORT]"
        return
    if settings.ldap_base_dn is None:
        yield "identity.ldap_base_dn: must be set: users are looked for below it"
    is_private = parts.scheme == "ldaps" or settings.ldap_start_tls or is_loopback(parts.hostname)
    if not is_private and not allow_insecure:
        yield "identity.ldap_start_tls: passwords must not cross the network in the clear; leave it on, or use ldaps"
    if (settings.ldap_bind_dn is None) != (settings.ldap_bind_password is None):
        yield "identity: ldap_bind_dn and ldap_bind_password go together"
    if settings.ldap_user_filter.count("{username}") != 1:
        yield "identity.ldap_user_filter: must have {username} once, as (uid={username}) does"
    if not {"{dn}", "{username}"} & set(_braces(settings.ldap_group_filter)):
        yield "identity.ldap_group_filter: must have {dn} or {username}, as (member={dn}) does"
    if settings.ldap_ca_file is not None:
        try:
            ssl.create_default_context(cafile=settings.ldap_ca_file)
        except (OSError, ValueError):
            yield "identity.ldap_ca_file: must be a PEM file"
    if settings.ldap_group_scopes is not None and settings.ldap_group_base_dn is None:
        yield "identity.ldap_group_base_dn: must be set: groups are looked for below it"


def _braces(text: str) -> list[str]:
    return [part.partition("}")[0].join("{}") for part in text.split("{")[1:]]


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        is_plain = url.isascii() and url.isprintable() and " " not in url and parts.port != 0
    except ValueError:  # brackets, or a port that is none
        return None
    return parts if is_plain and "@" not in parts.netloc and not parts.fragment else None


def parse_http_url(url: str) -> SplitResult:
    """Raises IdentityRefused for anything but https, or http to this machine."""
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise IdentityRefused("must be the URL of the service, without a user and a fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise IdentityRefused("passwords are sent over https only (http to this machine)")
    return parts


def http_tls(settings: IdentitySettings) -> ssl.SSLContext:
    """Verifies the service, and shows it our certificate if there is one. Raises OSError, ValueError."""
    context = ssl.create_default_context(cafile=settings.http_ca_file)
    if settings.http_cert_file is not None:
        if not Path(settings.http_cert_file).is_file():
            raise FileNotFoundError
        context.load_cert_chain(settings.http_cert_file, settings.http_key_file, password=lambda: "")
    return context


def group_scopes(text: str | None) -> dict[str, tuple[str, ...]]:
    """``admin=cn=admins,ou=groups,dc=example; audit=...``: the scopes by DN of a group. Raises IdentityRefused."""
    found: dict[str, tuple[str, ...]] = {}
    for part in (text or "").split(";"):
        if not part.strip():
            continue
        scope, equals, group = part.strip().partition("=")
        if not equals or "=" not in group:
            raise IdentityRefused("is SCOPE=DN of a group; further ones behind a semicolon")
        try:
            check_scope(scope)
        except ScopeRefused as error:
            raise IdentityRefused(str(error)) from None
        key = normal_dn(group)
        found[key] = (*found.get(key, ()), scope)
    return found


def normal_dn(dn: str) -> str:
    """A DN to be compared as text: in lower case, without the spaces that may stand between its parts."""
    return ",".join("=".join(side.strip() for side in part.split("=", 1)) for part in dn.lower().split(","))
