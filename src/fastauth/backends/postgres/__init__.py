"""The stores on PostgreSQL: for several nodes. This module is what can be configured; it needs no driver."""

from typing import Annotated, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from fastauth.domain.errors import FastauthError

SCHEMES: Final = ("postgresql", "postgres")


class DatabaseRefused(FastauthError):
    """A database that cannot be meant: its URL is wrong, or the driver is missing."""

    code = "database_refused"


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[database]``: how each worker uses PostgreSQL; SQLite needs none of it.

    The two timeouts together bound what a request waits for one statement. ``pgbouncer`` true: a pooler in transaction
    mode is in between, so that nothing is set for a session and no notification arrives.
    """

    pool_size: Annotated[int, msgspec.Meta(ge=1, le=500)] = 10
    acquire_timeout_s: Annotated[float, msgspec.Meta(ge=0.01, le=60)] = 0.25
    statement_timeout_s: Annotated[float, msgspec.Meta(ge=0.01, le=60)] = 0.4
    prepared_statements: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 100
    pgbouncer: bool = False


def is_postgres(url: str | None) -> bool:
    """Whether a database URL is meant for this backend."""
    return url is not None and url.partition("://")[0] in SCHEMES


def check_url(text: str) -> None:
    """``postgresql://[USER[:PASSWORD]@]HOST[:PORT]/NAME[?sslmode=...]`` as libpq and asyncpg take it.

    Raises DatabaseRefused, whose text never repeats the URL: it may hold a password.
    """
    try:
        import asyncpg  # noqa: F401 - the stores need it
    except ImportError:
        raise DatabaseRefused("the PostgreSQL driver is not installed; run: pip install 'fastauth[postgres]'") from None
    try:
        url = urlsplit(text)
        has_host = bool(url.hostname) or "host" in dict(parse_qsl(url.query))
        is_good = url.scheme in SCHEMES and has_host and url.port != 0 and len(url.path) > 1
    except ValueError:  # a port that is none
        is_good = False
    if not is_good:
        raise DatabaseRefused("the URL is malformed; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
