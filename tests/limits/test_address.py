"""What a Redis URL may be; no text of a refusal repeats it."""

import pytest

from fastauth.limits import RedisRefused
from fastauth.limits.shared.address import parse_url
from tests.cases import each


@each(
    "url",
    [
        "redis://localhost",
        "redis://:secret@127.0.0.1:6379/1",
        "rediss://user:secret@cache.example:6380/0?ssl_cert_reqs=required",
        "redis://[::1]:6379",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_what_redis_py_takes_is_taken(url: str) -> None:
    assert parse_url(url) == (url, "", (), "", None)


def test_sentinels_and_their_service() -> None:
    address = parse_url("redis+sentinel://user:pa%40ss@one:26380,[::1],three/mymaster/3?sentinel_password=other")
    assert address.sentinels == (("one", 26380), ("::1", 26379), ("three", 26379))
    assert (address.service, address.sentinel_password) == ("mymaster", "other")
    assert (address.url, address.rest) == ("redis://user:pa%40ss@", "/3?")
    plain = parse_url("rediss+sentinel://one/main?ssl_cert_reqs=none")
    assert (plain.url, plain.rest) == ("rediss://", "/0?ssl_cert_reqs=none")


@each(
    ("url", "reason"),
    [
        ("", "must begin with"),
        ("localhost:6379", "must begin with"),
        ("http://:secret@localhost", "must begin with"),
        ("redis+cluster://secret", "must begin with"),
        ("redis://", "names no host"),
        ("redis://:secret@/0", "names no host"),
        ("redis://localhost:secret", "malformed"),
        ("redis://localhost:99999", "malformed"),
        ("redis://[secret/0", "malformed"),
        ("redis://localhost?secret_timeout=x&socket_timeout=secret", "malformed"),
        ("redis+sentinel://secret", "names no service"),
        ("redis+sentinel://one,/secret", "names no sentinel"),
        ("redis+sentinel://one/main/secret", "names no service"),
        ("redis+sentinel:///main", "names no sentinel"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_repeating_it(url: str, reason: str) -> None:
    with pytest.raises(RedisRefused, match=reason) as refusal:
        parse_url(url)
    assert "secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
