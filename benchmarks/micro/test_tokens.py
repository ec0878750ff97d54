"""Issuing and verifying in process, beside raw ``cryptography``; run by ``make bench``."""

import secrets
import time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from pytest_benchmark.fixture import BenchmarkFixture

from fastauth.domain.users import User
from fastauth.jose.issuer import Issuer, TokenSettings
from fastauth.jose.keyring import KeyRing
from fastauth.jose.keys import SigningKey
from fastauth.verifier import Verifier

ISSUER = "https://auth.example"
USER = User(sub="0123456789abcdef", name="somebody", password_hash="", created_at_s=0, updated_at_s=0)
RAW_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEY = SigningKey(RAW_KEY)
# What is signed in a real token: the raw rows hash exactly as much.
SIGNED = (
    Issuer(KEY, ISSUER, TokenSettings(), secrets.token_bytes)
    .issue_user_token(USER, int(time.time()))
    .text.rpartition(".")[0]
    .encode()
)


@pytest.mark.benchmark(group="issue RS256")
def test_raw_sign(benchmark: BenchmarkFixture) -> None:
    padding, algorithm = PKCS1v15(), hashes.SHA256()
    assert benchmark(RAW_KEY.sign, SIGNED, padding, algorithm)


@pytest.mark.benchmark(group="issue RS256")
def test_issue(benchmark: BenchmarkFixture) -> None:
    issuer = Issuer(KEY, ISSUER, TokenSettings(), secrets.token_bytes)
    assert benchmark(issuer.issue_user_token, USER, int(time.time()))


@pytest.mark.benchmark(group="verify RS256")
def test_raw_verify(benchmark: BenchmarkFixture) -> None:
    padding, algorithm = PKCS1v15(), hashes.SHA256()
    signature = RAW_KEY.sign(SIGNED, padding, algorithm)
    benchmark(RAW_KEY.public_key().verify, signature, SIGNED, padding, algorithm)


@pytest.mark.benchmark(group="verify RS256")
def test_verify_an_unseen_token(benchmark: BenchmarkFixture) -> None:
    issuer = Issuer(KEY, ISSUER, TokenSettings(), secrets.token_bytes)
    verifier = Verifier.from_keys(KeyRing([KEY], KEY.kid).verifying, ISSUER, ISSUER)
    token = issuer.issue_user_token(USER, int(time.time())).text.encode()
    assert benchmark(verifier.verify, token).sub == USER.sub
