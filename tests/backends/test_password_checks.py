"""Checking passwords against hashes that others made: other libraries, published vectors, and bcrypt's own rules."""

import os

import argon2
import bcrypt
import pytest

from fastauth.backends.passwords import (
    PROFILES,
    PasswordHasher,
    PasswordSettings,
    check_password,
)
from fastauth.backends.work_pool import threads_per_worker
from fastauth.domain.errors import PasswordHashRefused
from fastauth.domain.password_schemes import decoy_hash, parse_scheme
from tests.backends.foreign_hashes import MAKERS, by_bcrypt, plain64
from tests.cases import each

CHEAPEST = PasswordSettings(profile="cheapest-for-tests")
PASSWORDS = ["x", " \t ", "a\x00b", "\x00a", "Ünïcödé 😀", "x" * 128]


@each("maker", MAKERS)
def test_the_right_password_matches_and_its_neighbours_do_not(maker: str) -> None:
    for password in PASSWORDS:
        stored = MAKERS[maker](password)
        assert check_password(password, stored) is True, ascii(password)
        for wrong in ("", f"!{password}", password[1:], password.replace("\x00", "")):
            same = wrong.encode()[:72] == password.encode()[:72] if "bcrypt" in maker else wrong == password
            assert check_password(wrong, stored) is same, ascii(wrong)


@each("maker", [maker for maker in MAKERS if "argon2" in maker or maker == "this library"])
def test_argon2_counts_every_nul(maker: str) -> None:
    """HMAC and bcrypt, by their construction, do not tell ``x`` from ``x`` with a NUL behind it."""
    stored = MAKERS[maker]("x\x00")
    assert check_password("x\x00", stored)
    assert not check_password("x", stored)
    assert not check_password("x\x00\x00", stored)


def test_a_password_that_is_no_unicode_matches_nothing() -> None:
    for make in MAKERS.values():
        stored = make("x")
        for password in ("\ud800", "x\udfff"):
            assert check_password(password, stored) is False


@each(
    ("password", "stored"),
    [
        # the reference implementation of argon2, test.c
        ("password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"),
        ("password", "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8"),
        # crypt_blowfish, wrapper.c
        ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
        ("U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"),
        # passlib's documentation
        ("password", "$pbkdf2-sha256$6400$.6UI/S.nXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44"),
        # Django's tests
        ("lètmein", "pbkdf2_sha256$10000$seasalt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY="),
        # RFC 7914 section 12
        (
            "password",
            f"$scrypt$ln=10,r=8,p=16${plain64(b'NaCl')}$/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWIurzDZLiKjiG/xCSedmDD"
            "axyevuUqD7m2DYMvfoswGQA",
        ),
    ],
)
def test_published_hashes_match_their_passwords(password: str, stored: str) -> None:
    assert check_password(password, stored) is True
    assert check_password(password + "!", stored) is False


# ------------------------------------------------------------------ bcrypt's 72 bytes, and nobody else's


def test_an_imported_bcrypt_hash_verifies_as_bcrypt_did_up_to_72_bytes() -> None:
    stored = by_bcrypt(b"2b")("x" * 72)
    assert check_password("x" * 72, stored)
    assert check_password("x" * 72 + "whatever follows", stored)
    assert not check_password("x" * 71, stored)
    assert not check_password("x" * 71 + "y", stored)


def test_a_character_that_the_72nd_byte_cuts_counts_with_its_first_half() -> None:
    stored = bcrypt.hashpw(("x" * 71 + "é").encode()[:72], bcrypt.gensalt(4)).decode()
    assert check_password("x" * 71 + "é", stored)
    assert check_password("x" * 71 + "è", stored)
    assert not check_password("x" * 71 + "e", stored)


def test_no_other_kind_of_hash_cuts_a_password() -> None:
    for maker in MAKERS.keys() - {"bcrypt 2a", "bcrypt 2b", "bcrypt 2y"}:
        for length in (72, 1024):
            stored = MAKERS[maker]("x" * length)
            assert check_password("x" * length, stored), maker
            assert not check_password("x" * length + "y", stored), maker
            assert not check_password("x" * (length - 1), stored), maker


# ------------------------------------------------------------------ the hasher


def test_a_new_hash_has_its_profile_and_a_salt_of_its_own() -> None:
    hasher = PasswordHasher(CHEAPEST)
    one, other = hasher.hash("x"), hasher.hash("x")
    assert one != other
    assert one.startswith(PROFILES["cheapest-for-tests"].identifier + "$")
    assert parse_scheme(one).identifier == PROFILES["cheapest-for-tests"].identifier
    assert argon2.PasswordHasher().verify(one, "x")
    assert hasher.check("x", one)
    assert not hasher.check("y", one)


def test_the_profiles_are_those_that_the_contract_names() -> None:
    assert PasswordSettings().profile == "owasp"
    assert PROFILES["owasp"].identifier == "$argon2id$v=19$m=19456,t=2,p=1"
    assert PROFILES["rfc9106-low-memory"].identifier == "$argon2id$v=19$m=65536,t=3,p=4"


def test_only_a_hash_of_todays_profile_needs_no_replacement() -> None:
    for maker, make in MAKERS.items():
        stored = make("x")
        needs = PasswordHasher(CHEAPEST).needs_rehash("x", stored)
        assert needs == (maker not in {"this library", "argon2id"}), maker
        assert PasswordHasher(PasswordSettings()).needs_rehash("x", stored), maker


def test_what_bcrypt_never_looked_at_does_not_become_the_password() -> None:
    stored = by_bcrypt(b"2b")("x" * 72)
    assert PasswordHasher(CHEAPEST).needs_rehash("x" * 72, stored)
    assert not PasswordHasher(CHEAPEST).needs_rehash("x" * 73, stored)
    assert not PasswordHasher(CHEAPEST).needs_rehash("x" * 71 + "é", stored)
    assert PasswordHasher(CHEAPEST).needs_rehash("x" * 73, MAKERS["argon2i"]("x" * 73))


def test_a_profile_whose_numbers_begin_alike_is_another_profile() -> None:
    hasher = PasswordHasher(CHEAPEST)
    assert hasher.needs_rehash("x", decoy_hash("$argon2id$v=19$m=8,t=1,p=16", bytes(53)))
    assert not hasher.needs_rehash("x", decoy_hash("$argon2id$v=19$m=8,t=1,p=1", bytes(53)))


def test_an_absurd_hash_is_refused_and_not_computed() -> None:
    for identifier in ("$argon2id$v=19$m=4194304,t=1,p=1", "$2b$31", "$pbkdf2-sha256$1000000000"):
        with pytest.raises(PasswordHashRefused):
            PasswordHasher(CHEAPEST).check("x", decoy_hash(identifier, bytes(53)))


def test_the_hash_threads_of_all_workers_together_fill_the_cores_once() -> None:
    cores = len(os.sched_getaffinity(0))
    assert threads_per_worker(1) == cores
    for workers in (1, 2, 3, 8, 64):
        assert 1 <= threads_per_worker(workers) <= max(1, cores // workers)


# ------------------------------------------------------------------ decoys


def schemes_of(hashes: list[str]) -> list[str]:
    return sorted(parse_scheme(one).identifier for one in hashes)


def test_an_unknown_name_costs_todays_profile_and_the_slowest_scheme() -> None:
    hasher = PasswordHasher(CHEAPEST)
    today = PROFILES["cheapest-for-tests"].identifier
    assert schemes_of(hasher.decoys(None, None)) == [today]
    assert schemes_of(hasher.decoys(today, None)) == [today]
    assert schemes_of(hasher.decoys("$2b$05", None)) == sorted([today, "$2b$05"])


def test_a_known_name_costs_as_much_as_an_unknown_one_together_with_its_own_hash() -> None:
    hasher = PasswordHasher(CHEAPEST)
    today = PROFILES["cheapest-for-tests"].identifier
    unknown = schemes_of(hasher.decoys("$2b$05", None))
    for own in (today, "$2b$05"):
        stored = decoy_hash(own, bytes(53))
        assert sorted([own, *schemes_of(hasher.decoys("$2b$05", stored))]) == unknown
    assert hasher.decoys(today, decoy_hash(today, bytes(53))) == []


def test_every_decoy_can_be_checked_and_matches_nothing() -> None:
    hasher = PasswordHasher(CHEAPEST)
    for slowest in (None, "$2b$04", "$pbkdf2-sha512$10", "pbkdf2_sha256$10", "$scrypt$ln=4,r=8,p=1"):
        for decoy in hasher.decoys(slowest, None):
            assert not hasher.check("", decoy)
            assert not hasher.check("x", decoy)


def test_a_decoy_stays_the_same_and_any_number_of_schemes_can_be_imitated() -> None:
    hasher = PasswordHasher(CHEAPEST)
    assert hasher.decoys("$2b$05", None) == hasher.decoys("$2b$05", None)
    assert hasher.decoys("$2b$05", None) != PasswordHasher(CHEAPEST).decoys("$2b$05", None)
    for rounds in range(1, 500):
        assert f"$pbkdf2-sha256${rounds}" in schemes_of(hasher.decoys(f"$pbkdf2-sha256${rounds}", None))
