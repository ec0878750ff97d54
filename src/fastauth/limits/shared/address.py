"""Where Redis is: what a URL says, and a connection to whom it leads to now."""

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from fastauth.domain.errors import FastauthError

if TYPE_CHECKING:
    from redis.asyncio import Connection

CONNECT_TIMEOUT_S: Final = 1.0
SENTINEL_PORT: Final = 26379
_SENTINEL: Final = "+sentinel"
_SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")


class RedisRefused(FastauthError):
    """A Redis that cannot be meant: its URL is wrong, or the client library is missing."""

    code = "redis_refused"


class Address(NamedTuple):
    """A URL as redis-py takes it; with ``sentinels``, the master of ``service`` stands between its two parts."""

    url: str
    rest: str = ""
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_password: str | None = None

    async def connect(self) -> "Connection":
        """A connection that is logged in; with sentinels, to the master they name now. Raises what redis-py raises."""
        from redis.asyncio import ConnectionPool

        url = self.url
        if self.sentinels:
            host, port = await self._find_master()
            url += f"[{host}]:{port}{self.rest}" if ":" in host else f"{host}:{port}{self.rest}"
        options: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": CONNECT_TIMEOUT_S, "protocol": 2}
        connection: Connection = ConnectionPool.from_url(url, **options).make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:  # out of time, too
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _find_master(self) -> tuple[str, int]:
        from redis.asyncio import Sentinel

        timeout_s = CONNECT_TIMEOUT_S / 4  # one that hangs must not keep the others from being asked
        options: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "retry": None}
        if self.sentinel_password is not None:
            options["password"] = self.sentinel_password
        sentinel = Sentinel(self.sentinels, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        try:
            master: tuple[str, int] = await sentinel.discover_master(self.service)
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return master


def parse_url(text: str) -> Address:
    """``redis://``, ``rediss://`` (TLS) and ``unix://`` as redis-py takes them, or
    ``redis+sentinel://[USER:PASSWORD@]HOST:PORT[,HOST:PORT]/SERVICE[/DB][?sentinel_password=...]``.

    Raises RedisRefused, whose text never repeats the URL: it may hold a password.
    """
    try:
        import hiredis  # noqa: F401 - the link needs both
        from redis.asyncio.connection import parse_url as check
    except ImportError:
        raise RedisRefused("the Redis client is not installed; run: pip install 'fastauth[redis]'") from None
    try:
        url = urlsplit(text)
        if url.scheme not in _SCHEMES:
            raise RedisRefused(f"the URL must begin with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
        if url.scheme.endswith(_SENTINEL):
            address = _parse_sentinel(url)
            check(f"{address.url}localhost{address.rest}")
        else:
            address = Address(text)
            check(text)
            if url.scheme != "unix" and not url.hostname:
                raise RedisRefused("the URL names no host; write redis://HOST:PORT/DB")
    except ValueError:  # a port that is none, an unknown option
        raise RedisRefused("the URL is malformed; write redis://HOST:PORT/DB") from None
    return address


def _parse_sentinel(url: SplitResult) -> Address:
    account, _, hosts = url.netloc.rpartition("@")
    service, _, database = url.path.removeprefix("/").partition("/")
    places = [urlsplit(f"//{host}") for host in hosts.split(",")]
    if not all(place.hostname for place in places):
        raise RedisRefused("the URL names no sentinel; write redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB")
    if not service or not (database or "0").isdecimal():
        raise RedisRefused("the URL names no service; write redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB")
    options = dict(parse_qsl(url.query))
    password = options.pop("sentinel_password", None)
    before = f"{url.scheme.removesuffix(_SENTINEL)}://{account}{'@' if account else ''}"
    rest = f"/{database or 0}?{urlencode(options)}"
    sentinels = tuple((str(place.hostname), place.port or SENTINEL_PORT) for place in places)
    return Address(before, rest, sentinels, service, password)
