"""Tokens in process: fastauth, PyJWT, joserfc and raw ``cryptography`` do the same work; run by ``make bench``."""

import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import import_key
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.tokens import (
    ALGORITHMS,
    ISSUER,
    NAME,
    ROUNDS,
    UNSEEN_CACHE_BYTES,
    issuer_of,
    key_of,
    measure_each,
    session_at,
    tokens_of,
)
from fastauth import TokenRefused, Verifier, core
from fastauth.jose.algorithms import Algorithm
from fastauth.jose.keys import VerifyingKey

each_algorithm = pytest.mark.parametrize("alg", ALGORITHMS)
NEW_BYTES: Callable[[bytes], bytes] = lambda token: bytes(bytearray(token))  # noqa: E731


def verifier_of(alg: Algorithm, **options: Any) -> Verifier:
    return Verifier({"keys": [key_of(alg).public_jwk]}, ISSUER, ISSUER, **options)


def pyjwt_name(alg: Algorithm) -> str:
    """PyJWT knows only the older name of Ed25519."""
    return "EdDSA" if alg == "Ed25519" else alg


@each_algorithm
def test_raw_sign(benchmark: BenchmarkFixture, alg: Algorithm) -> None:
    key: Any = key_of(alg)._key
    arguments = {"RS256": (PKCS1v15(), hashes.SHA256()), "ES256": (ECDSA(hashes.SHA256()),), "Ed25519": ()}[alg]
    signed = [token.rpartition(b".")[0] for token in tokens_of(alg)[:50]]
    measure_each(benchmark, lambda data: key.sign(data, *arguments), signed)


@each_algorithm
def test_issue(benchmark: BenchmarkFixture, alg: Algorithm) -> None:
    issuer, now_s = issuer_of(alg), int(time.time())
    session = session_at(now_s)
    measure_each(benchmark, lambda _: issuer.issue_user_token(session, NAME, "user", now_s), range(50))


@each_algorithm
def test_issue_with_pyjwt(benchmark: BenchmarkFixture, alg: Algorithm) -> None:
    key: Any = key_of(alg)._key
    claims = jwt.decode(tokens_of(alg)[0], options={"verify_signature": False})
    headers = {"typ": "at+jwt", "kid": key_of(alg).kid}
    measure_each(benchmark, lambda _: jwt.encode(claims, key, pyjwt_name(alg), headers), range(50))


@each_algorithm
def test_raw_verify(benchmark: BenchmarkFixture, alg: Algorithm) -> None:
    """Signature and signed bytes lie ready, and so do padding and hash."""
    verify: Any = key_of(alg)._key.public_key().verify
    arguments = {"RS256": (PKCS1v15(), hashes.SHA256()), "ES256": (ECDSA(hashes.SHA256()),), "Ed25519": ()}[alg]
    pairs = []
    for token in tokens_of(alg):
        parts = core.split_token(token, len(token))
        assert not isinstance(parts, int)
        _, _, signature, signed = parts
        if alg == "ES256":
            signature = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
        pairs.append((signature, signed))
    measure_each(benchmark, lambda pair: verify(*pair, *arguments), pairs)


@each_algorithm
def test_verify_unseen(benchmark: BenchmarkFixture, alg: Algorithm) -> None:
    verifier = verifier_of(alg, cache_bytes=UNSEEN_CACHE_BYTES)
    measure_each(benchmark, verifier.verify, tokens_of(alg), fresh=NEW_BYTES)


@each_algorithm
def test_verify_seen(benchmark: BenchmarkFixture, alg: Algorithm) -> None:
    verifier = verifier_of(alg)
    measure_each(benchmark, verifier.verify, tokens_of(alg), fresh=NEW_BYTES)


@each_algorithm
def test_verify_refused(benchmark: BenchmarkFixture, alg: Algorithm) -> None:
    """The worst of the refusals: everything is right but the signature."""
    verifier = verifier_of(alg)
    tokens = tokens_of(alg)[:100]
    forged = [one.rpartition(b".")[0] + b"." + other.rpartition(b".")[2] for one, other in itertools.pairwise(tokens)]

    def refuse(token: bytes) -> None:
        with contextlib.suppress(TokenRefused):
            verifier.verify(token)
            raise AssertionError

    measure_each(benchmark, refuse, forged, fresh=NEW_BYTES)


def test_an_unknown_kid_refused(benchmark: BenchmarkFixture) -> None:
    """The cheapest of the refusals."""
    verifier = verifier_of("ES256")

    def refuse(token: bytes) -> None:
        with contextlib.suppress(TokenRefused):
            verifier.verify(token)
            raise AssertionError

    measure_each(benchmark, refuse, tokens_of("Ed25519")[:100], fresh=NEW_BYTES)


@each_algorithm
def test_verify_with_pyjwt(benchmark: BenchmarkFixture, alg: Algorithm) -> None:
    """The key is parsed already, and no JWKS asked: the best that a user of PyJWT gets."""
    key = jwt.PyJWK({**key_of(alg).public_jwk, "alg": pyjwt_name(alg)})
    header = pyjwt_name(alg)

    def verify(token: bytes) -> Any:
        return jwt.decode(token, key, algorithms=[header, alg], audience=ISSUER, issuer=ISSUER)

    measure_each(benchmark, verify, pyjwt_tokens(alg))


@each_algorithm
def test_verify_with_joserfc(benchmark: BenchmarkFixture, alg: Algorithm) -> None:
    key = import_key({**key_of(alg).public_jwk, "alg": alg})
    registry = joserfc_jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": ISSUER}, exp={"essential": True}
    )

    def verify(token: bytes) -> Any:
        decoded = joserfc_jwt.decode(token, key, algorithms=[alg])
        registry.validate(decoded.claims)
        return decoded

    measure_each(benchmark, verify, tokens_of(alg)[:200])


def pyjwt_tokens(alg: Algorithm) -> list[bytes]:
    """The same claims; Ed25519 under its older name, which is the one that PyJWT knows."""
    if alg != "Ed25519":
        return list(tokens_of(alg)[:200])
    claims = [jwt.decode(token, options={"verify_signature": False}) for token in tokens_of(alg)[:200]]
    key: Any = key_of(alg)._key
    headers = {"typ": "at+jwt", "kid": key_of(alg).kid}
    return [jwt.encode(one, key, "EdDSA", headers).encode() for one in claims]


@each_algorithm
def test_load_a_jwk(benchmark: BenchmarkFixture, alg: Algorithm) -> None:
    measure_each(benchmark, VerifyingKey.from_jwk, [key_of(alg).public_jwk] * 20, ROUNDS // 2)


@each_algorithm
def test_load_a_jwk_with_pyjwt(benchmark: BenchmarkFixture, alg: Algorithm) -> None:
    jwk = {**key_of(alg).public_jwk, "alg": pyjwt_name(alg)}
    measure_each(benchmark, jwt.PyJWK, [jwk] * 20, ROUNDS // 2)
