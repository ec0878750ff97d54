"""The same tokens, keys and claims for everybody that is measured, and one way of measuring."""

import secrets
import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

from pytest_benchmark.fixture import BenchmarkFixture

from fastauth.domain.sessions import Session
from fastauth.jose.algorithms import Algorithm
from fastauth.jose.issuer import Issuer, TokenSettings
from fastauth.jose.keys import SigningKey

ISSUER: Final = "https://auth.example"
NAME: Final = "somebody"
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("RS256", "ES256", "Ed25519")
# More than twice what a cache of so many bytes holds: each comes as if it were new.
UNSEEN: Final = 1_000
UNSEEN_CACHE_BYTES: Final = 1 << 19
ROUNDS: Final = 40


@cache
def key_of(alg: Algorithm) -> SigningKey:
    """One key an algorithm for the whole run."""
    return SigningKey.generate(alg)


@cache
def issuer_of(alg: Algorithm) -> Issuer:
    """The issuer with that key."""
    return Issuer(key_of(alg), ISSUER, TokenSettings(alg=alg), secrets.token_bytes)


def session_at(now_s: int) -> Session:
    """A session that began just now."""
    return Session(
        sid="0123456789abcdefghijkl",
        sub="0123456789abcdef" * 2,
        client_id="fastauth",
        scope="user",
        auth_time_s=now_s,
        expires_at_s=now_s + 86_400,
        ends_at_s=now_s + 86_400,
        tokens_until_s=now_s + 3_600,
        token_hash=bytes(32),
    )


@cache
def tokens_of(alg: Algorithm) -> tuple[bytes, ...]:
    """Tokens as the server issues them, each another."""
    now_s = int(time.time())
    return tuple(
        issuer_of(alg).issue_user_token(session_at(now_s), NAME, "user", now_s).text.encode() for _ in range(UNSEEN)
    )


def measure_each(
    benchmark: BenchmarkFixture,
    work: Callable[[Any], object],
    items: Iterable[Any],
    rounds: int = ROUNDS,
    fresh: Callable[[Any], Any] | None = None,
) -> None:
    """Measure ``work`` over all items, round after round; ``extra_info["calls"]`` says how many are in a round.

    ``fresh`` makes a new object of each item before each round: a request brings bytes whose hash nobody knows yet.
    """
    kept = list(items)

    def run_all(batch: list[Any]) -> None:
        for item in batch:
            work(item)

    def new_round() -> tuple[tuple[list[Any]], dict[str, Any]]:
        return ([item if fresh is None else fresh(item) for item in kept],), {}

    benchmark.extra_info["calls"] = len(kept)
    benchmark.pedantic(run_all, setup=new_round, rounds=rounds, warmup_rounds=2)  # type: ignore[no-untyped-call]
