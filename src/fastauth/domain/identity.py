"""Whom an external source of identities vouches for, and how much of what it says is believed."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from fastauth.domain.errors import FastauthError

LOCAL: Final = "local"
SOURCES: Final = (LOCAL, "http", "ldap")
MAX_SUBJECT_CHARACTERS: Final = 255
# A token has to fit into a header, with everything else in it.
MAX_CLAIMS_BYTES: Final = 2_048

# Registered (RFC 7519 section 4.1, RFC 9068 section 2.2, RFC 8693 section 4, RFC 7662 section 2.2 ...) or said by us:
# no source says any of them in our name.
NEVER_PASS: Final = frozenset(
    [
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "client_id",
        "scope",
        "sid",
        "auth_time",
        "preferred_username",
        "typ",
        "azp",
        "cnf",
        "act",
        "may_act",
        "acr",
        "amr",
        "nonce",
        "events",
        "sub_id",
        "token_type",
        "active",
        "username",
        "at_hash",
        "c_hash",
        "s_hash",
    ]
)
_CLAIM_NAME: Final = re.compile(r"[A-Za-z0-9_.:/~#-]{1,64}")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody whose password a source has found right.

    ``subject`` is the source's own immutable id, ``claims`` are JSON and only those that may pass, ``scopes`` what
    the source's groups add to the scope of the session.
    """

    source: str
    subject: str
    claims: bytes | None = None
    scopes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Identity(source={self.source!r}, subject={self.subject!r})"


# "refused": the name is known there, and the password is wrong or the account may not log in. "unknown": ask others.
Verdict = Identity | Literal["refused", "unknown"]


class IdentityRefused(FastauthError):
    """A source, route or list of claims that cannot be configured so; the text says why."""

    code = "identity_refused"


class Route(msgspec.Struct, frozen=True):
    """Names that match ``pattern`` (canonical, ``*`` for any text) are asked of ``source`` alone."""

    pattern: str
    source: str

    def matches(self, name: str) -> bool:
        """In: a canonical name."""
        return fnmatch.fnmatchcase(name, self.pattern)


def parse_chain(text: str) -> tuple[str, ...]:
    """The sources in the order in which they are asked: ``local,http``. Raises IdentityRefused."""
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in SOURCES:
            raise IdentityRefused(f"there is no source of this name; there are {', '.join(SOURCES)}")
    if len(set(names)) != len(names):
        raise IdentityRefused("a source stands twice")
    return names


def parse_routes(text: str | None, chain: Sequence[str]) -> tuple[Route, ...]:
    """``*@corp.example=ldap, svc-*=local``; the first that matches decides. Raises IdentityRefused."""
    if text is None:
        return ()
    routes = []
    for part in text.split(","):
        pattern, equals, source = part.strip().rpartition("=")
        pattern, source = pattern.strip(), source.strip()
        if not equals or not pattern or any(character in pattern for character in "?[]"):
            raise IdentityRefused("a route is PATTERN=SOURCE, and * in the pattern stands for any text")
        if source not in chain:
            raise IdentityRefused("a route leads to a source that is not in the chain")
        routes.append(Route(pattern.lower(), source))
    return tuple(routes)


def parse_claims(text: str | None) -> frozenset[str]:
    """The names of claims that may pass, comma separated, without those of ``NEVER_PASS``. Raises IdentityRefused."""
    names = frozenset(part.strip() for part in (text or "").split(",") if part.strip())
    if not all(_CLAIM_NAME.fullmatch(name) for name in names):
        raise IdentityRefused("a claim's name is 1 to 64 letters, digits and _ . : / ~ # -")
    return names - NEVER_PASS


def check_subject(subject: str) -> str:
    """Raises IdentityRefused for what cannot be an id."""
    if not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS or not subject.isprintable():
        raise IdentityRefused(f"a subject is 1 to {MAX_SUBJECT_CHARACTERS} printable characters")
    return subject


def passed_claims(claims: Mapping[str, Any], allowed: frozenset[str]) -> bytes | None:
    """The JSON of what may pass of what a source says; None for nothing. Raises IdentityRefused for too much."""
    passed = {name: value for name, value in claims.items() if name in allowed}
    if not passed:
        return None
    encoded = msgspec.json.encode(passed)
    if len(encoded) > MAX_CLAIMS_BYTES:
        raise IdentityRefused(f"the claims are larger than {MAX_CLAIMS_BYTES} bytes")
    return encoded
