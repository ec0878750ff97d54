"""Hashes that other programs made, as those programs write them."""

import base64
import hashlib
import json
from typing import Any

import pytest
from argon2.low_level import Type, hash_secret_raw
from django.conf import settings
from django.contrib.auth.hashers import (
    Argon2PasswordHasher,
    BCryptPasswordHasher,
    PBKDF2PasswordHasher,
    ScryptPasswordHasher,
)

from fastauth.backends.passwords import check_password
from fastauth.domain.errors import PasswordHashRefused
from fastauth.domain.foreign_hashes import KeycloakCredential, from_django, from_keycloak
from fastauth.domain.password_schemes import parse_scheme
from tests.cases import each

PASSWORD = "päss word"
SALT = bytes(range(16))


def keycloak(algorithm: str, rounds: int, digest: bytes, **parameters: list[str]) -> KeycloakCredential:
    """As ``kc.sh export`` writes it."""
    about = {"hashIterations": rounds, "algorithm": algorithm, "additionalParameters": parameters}
    secret = {"value": base64.b64encode(digest).decode(), "salt": base64.b64encode(SALT).decode()}
    return KeycloakCredential(json.dumps(about), json.dumps({**secret, "additionalParameters": {}}))


def of_pbkdf2(family: str) -> KeycloakCredential:
    """512 bits whatever the hash function, as Keycloak derives them."""
    return keycloak(f"pbkdf2-{family}", 15, hashlib.pbkdf2_hmac(family, PASSWORD.encode(), SALT, 15, 64))


def of_argon2() -> KeycloakCredential:
    digest = hash_secret_raw(PASSWORD.encode(), SALT, 2, 64, 1, 32, Type.ID)
    parameters = {"hashLength": ["32"], "memory": ["64"], "type": ["id"], "version": ["1.3"], "parallelism": ["1"]}
    return keycloak("argon2", 2, digest, **parameters)


@each("make", [lambda: of_pbkdf2("sha256"), lambda: of_pbkdf2("sha512"), of_argon2])
def test_a_password_of_keycloak_matches_and_others_do_not(make: Any) -> None:
    stored = from_keycloak(make())
    parse_scheme(stored)
    assert check_password(PASSWORD, stored)
    assert not check_password(PASSWORD + "x", stored)


class CheapScrypt(ScryptPasswordHasher):  # type: ignore[misc]
    work_factor = 16


class CheapBcrypt(BCryptPasswordHasher):  # type: ignore[misc]
    rounds = 4


class CheapArgon2(Argon2PasswordHasher):  # type: ignore[misc]
    time_cost, memory_cost, parallelism = 1, 8, 1


class CheapPbkdf2(PBKDF2PasswordHasher):  # type: ignore[misc]
    iterations = 5


@each("hasher", [CheapScrypt, CheapBcrypt, CheapArgon2, CheapPbkdf2])
def test_a_password_of_django_matches_and_others_do_not(hasher: Any) -> None:
    if not settings.configured:
        settings.configure()
    encoded = hasher().encode(PASSWORD, hasher().salt())
    stored = from_django(encoded)
    parse_scheme(stored)
    assert check_password(PASSWORD, stored)
    assert not check_password(PASSWORD + "x", stored)


@each(
    "credential",
    [
        keycloak("pbkdf2", 15, bytes(64)),
        keycloak("pbkdf2-sha256", 15, bytes(31)),
        keycloak("md5", 1, bytes(16)),
        keycloak("argon2", 2, bytes(32), version=["2.0"], memory=["64"]),
        keycloak("argon2", 2, bytes(32), type=["x"], memory=["64"]),
        keycloak("argon2", 2, bytes(32)),
        keycloak("argon2", 2, bytes(32), memory=["64", "128"]),
        keycloak("argon2", 2, bytes(32), memory=["4194304"]),
        keycloak("pbkdf2-sha256", 10**9, bytes(64)),
        KeycloakCredential("{", "{}"),
        KeycloakCredential("[" * 4000, "{}"),
        KeycloakCredential("x" * 5000, "{}"),
        KeycloakCredential('{"algorithm": "argon2", "hashIterations": 1}', '{"value": "%", "salt": "%"}'),
    ],
)
def test_what_is_unknown_or_absurd_is_refused_without_being_quoted(credential: KeycloakCredential) -> None:
    with pytest.raises(PasswordHashRefused) as refused:
        parse_scheme(from_keycloak(credential))
    assert "xxxx" not in str(refused.value)


@each("text", ["scrypt$15$salt$8$1$AAAA", "scrypt$salt", "scrypt$x$s$8$1$AAAA", "bcrypt_sha256$$2b$12$x", "md5$a$b"])
def test_what_is_not_of_django_or_not_known_is_refused(text: str) -> None:
    with pytest.raises(PasswordHashRefused):
        parse_scheme(from_django(text))
