"""Which password hashes may be stored: every family, within bounds that one login can pay for."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastauth.backends.passwords import PROFILES, check_password
from fastauth.domain.errors import PasswordHashRefused
from fastauth.domain.password_schemes import MAX_HASH_LENGTH, decoy_hash, parse_scheme
from tests.cases import each

SALT, DIGEST = "c29tZXNhbHRzb21lc2FsdA", "A" * 43
BCRYPT_REST = "WvvTPHKwdBJ3uk0Z37EMR.hLA2W6N9AEBhEgrAOljy2Ae5MtaSIUi"

# identifier -> (family, the whole hash)
KNOWN = {
    "$argon2id$v=19$m=19456,t=2,p=1": ("argon2", f"$argon2id$v=19$m=19456,t=2,p=1${SALT}${DIGEST}"),
    "$argon2i$v=19$m=8,t=1,p=1": ("argon2", f"$argon2i$v=19$m=8,t=1,p=1${SALT}${DIGEST}"),
    "$argon2d$v=16$m=64,t=3,p=4": ("argon2", f"$argon2d$v=16$m=64,t=3,p=4${SALT}${DIGEST}"),
    "$argon2id$v=19$m=262144,t=4,p=16": ("argon2", f"$argon2id$v=19$m=262144,t=4,p=16${SALT}${DIGEST}"),
    "$2a$04": ("bcrypt", f"$2a$04${BCRYPT_REST}"),
    "$2b$12": ("bcrypt", f"$2b$12${BCRYPT_REST}"),
    "$2y$15": ("bcrypt", f"$2y$15${BCRYPT_REST}"),
    "$pbkdf2-sha256$29000": ("pbkdf2", f"$pbkdf2-sha256$29000${SALT}${DIGEST}"),
    "$pbkdf2-sha512$25000": ("pbkdf2", f"$pbkdf2-sha512$25000${SALT}${'A' * 86}"),
    "$pbkdf2-sha256$i=1000,l=32": ("pbkdf2", f"$pbkdf2-sha256$i=1000,l=32${SALT}${DIGEST}"),
    "pbkdf2_sha256$600000": ("pbkdf2", f"pbkdf2_sha256$600000$somesalt${'A' * 43}="),
    "$scrypt$ln=17,r=8,p=1": ("scrypt", f"$scrypt$ln=17,r=8,p=1${SALT}${DIGEST}"),
}
# Cheap enough for a test to compute.
CHEAP = [
    *("$argon2id$v=19$m=8,t=1,p=1", "$argon2i$v=19$m=16,t=1,p=2", "$argon2d$v=16$m=8,t=1,p=1"),
    *("$2a$04", "$2b$04", "$2y$05"),
    *("$pbkdf2-sha256$1", "$pbkdf2-sha512$1000", "$pbkdf2-sha256$i=10,l=32", "pbkdf2_sha256$10"),
    *("$scrypt$ln=1,r=1,p=1", "$scrypt$ln=4,r=8,p=2"),
    PROFILES["cheapest-for-tests"].identifier,
]


@each("identifier", KNOWN)
def test_every_family_is_known_with_its_parameters(identifier: str) -> None:
    family, whole = KNOWN[identifier]
    scheme = parse_scheme(whole)
    assert (scheme.family, scheme.identifier) == (family, identifier)
    assert scheme.cost_ms > 0
    assert whole.startswith(identifier + "$")


def test_more_work_has_a_higher_cost() -> None:
    for cheap, dear in (
        ("$2b$10", "$2b$11"),
        ("$argon2id$v=19$m=19456,t=2,p=1", "$argon2id$v=19$m=65536,t=3,p=4"),
        ("$pbkdf2-sha256$29000", "$pbkdf2-sha256$30000"),
        ("$scrypt$ln=14,r=8,p=1", "$scrypt$ln=15,r=8,p=1"),
        ("$argon2id$v=19$m=8,t=1,p=1", "$2b$12"),
    ):
        costs = [parse_scheme(decoy_hash(identifier, bytes(53))).cost_ms for identifier in (cheap, dear)]
        assert costs[0] < costs[1]


@each(
    ("password_hash", "says"),
    [
        (f"$argon2id$v=19$m=4194304,t=1,p=1${SALT}${DIGEST}", "argon2 cost is absurd"),
        (f"$argon2id$v=19$m=262145,t=1,p=1${SALT}${DIGEST}", "argon2 cost is absurd"),
        (f"$argon2id$v=19$m=262144,t=5,p=1${SALT}${DIGEST}", "argon2 cost is absurd"),
        (f"$argon2id$v=19$m=8,t=4294967295,p=1${SALT}${DIGEST}", "argon2 cost is absurd"),
        (f"$argon2id$v=19$m=9999999999,t=9999999999,p=1${SALT}${DIGEST}", "argon2 cost is absurd"),
        (f"$argon2id$v=19$m=65536,t=1,p=17${SALT}${DIGEST}", "lanes"),
        (f"$argon2id$v=19$m=15,t=1,p=2${SALT}${DIGEST}", "lanes"),
        (f"$2b$03${BCRYPT_REST}", "bcrypt cost"),
        (f"$2b$16${BCRYPT_REST}", "bcrypt cost"),
        (f"$2b$31${BCRYPT_REST}", "bcrypt cost"),
        (f"$2b$00${BCRYPT_REST}", "bcrypt cost"),
        (f"$pbkdf2-sha256$1000000000${SALT}${DIGEST}", "PBKDF2 cost is absurd"),
        (f"$pbkdf2-sha512$5000001${SALT}${DIGEST}", "PBKDF2 cost is absurd"),
        (f"pbkdf2_sha256$1000000000$salt${'A' * 43}=", "PBKDF2 cost is absurd"),
        (f"$scrypt$ln=31,r=8,p=1${SALT}${DIGEST}", "scrypt cost is absurd"),
        (f"$scrypt$ln=99,r=8,p=1${SALT}${DIGEST}", "scrypt cost is absurd"),
        (f"$scrypt$ln=16,r=1,p=1${SALT}${DIGEST}", "RFC 7914"),
        (f"$scrypt$ln=10,r=9999,p=9999${SALT}${DIGEST}", "scrypt cost is absurd"),
        (f"$scrypt$ln=20,r=8,p=1${SALT}${DIGEST}", "scrypt cost is absurd"),
    ],
)
def test_an_absurd_cost_is_refused_with_a_clear_text_and_never_computed(password_hash: str, says: str) -> None:
    with pytest.raises(PasswordHashRefused, match=re.escape(says)):
        parse_scheme(password_hash)
    with pytest.raises(PasswordHashRefused):
        check_password("x", password_hash)


@each(
    "password_hash",
    [
        *(
            "",
            "hunter2hunter2",
            "5f4dcc3b5aa765d61d8327deb882cf99",
            "{SSHA}xxxxxxxxxxxxxxxx",
            "$1$salt$hash",
            "$6$salt$hash",
        ),
        *(f"$argon2id$v=19$m=8,t=1,p=1${SALT}", f"$argon2id$m=8,t=1,p=1${SALT}${DIGEST}", "$argon2id$"),
        f"$argon2id$v=19$m=08,t=1,p=1${SALT}${DIGEST}",
        f"$argon2id$v=19$m=0,t=1,p=1${SALT}${DIGEST}",
        f"$argon2id$v=19$m=8,t=0,p=1${SALT}${DIGEST}",
        f"$argon2id$v=19$m=8,t=1,p=0${SALT}${DIGEST}",
        f"$argon2id$v=19$m=-8,t=1,p=1${SALT}${DIGEST}",
        f"$argon2id$v=18$m=8,t=1,p=1${SALT}${DIGEST}",
        f"$argon2x$v=19$m=8,t=1,p=1${SALT}${DIGEST}",
        f"$argon2id$v=19$m=8,t=1,p=1${SALT}${DIGEST}\n",
        f" $argon2id$v=19$m=8,t=1,p=1${SALT}${DIGEST}",
        f"$argon2id$v=19$m=８,t=1,p=1${SALT}${DIGEST}",
        *(f"$2x$04${BCRYPT_REST}", f"$2$04${BCRYPT_REST}", f"$2b$4${BCRYPT_REST}", f"$2b$04${BCRYPT_REST[:-1]}"),
        f"$2b$04${BCRYPT_REST}A",
        *(f"$pbkdf2-sha1$1000${SALT}${DIGEST}", f"$pbkdf2-sha256$0${SALT}${DIGEST}", f"$pbkdf2-sha256$10${SALT}$AAAA"),
        f"pbkdf2_sha1$1000$salt${'A' * 43}=",
        f"pbkdf2_sha256$1000$sa$lt${'A' * 43}=",
        *(f"$scrypt$ln=0,r=8,p=1${SALT}${DIGEST}", f"$scrypt$ln=4,r=0,p=1${SALT}${DIGEST}"),
        f"$2b$04${BCRYPT_REST}" + "A" * MAX_HASH_LENGTH,
    ],
)
def test_an_unknown_form_is_refused_without_being_repeated(password_hash: str) -> None:
    with pytest.raises(PasswordHashRefused) as refusal:
        parse_scheme(password_hash)
    assert len(password_hash) < 12 or password_hash[:12] not in str(refusal.value)


BROKEN_BASE64 = {
    "a salt of 5 digits": f"$pbkdf2-sha256$1000$abcde${DIGEST}",
    "a digest of 41 digits": f"$pbkdf2-sha256$1000${SALT}${'A' * 41}",
    "a salt of 5 digits in PHC form": f"$pbkdf2-sha512$i=1000$abcde${DIGEST}",
    "no padding in Django's form": f"pbkdf2_sha256$1000$salt${'A' * 43}",
    "41 digits in Django's form": f"pbkdf2_sha256$1000$salt${'A' * 41}",
    "too much padding in Django's form": f"pbkdf2_sha256$1000$salt${'A' * 43}==",
    "a salt of 5 digits for scrypt": f"$scrypt$ln=4,r=8,p=1$abcde${DIGEST}",
    "a digest of 41 digits for scrypt": f"$scrypt$ln=4,r=8,p=1${SALT}${'A' * 41}",
    "a salt of 13 digits for argon2": f"$argon2id$v=19$m=8,t=1,p=1${'A' * 13}${DIGEST}",
    "spare bits in the digest of argon2": f"$argon2id$v=19$m=8,t=1,p=1${SALT}${'A' * 42}B",
    "spare bits in the salt of bcrypt": "$2b$04$" + "." * 21 + "A" + "." * 31,
}


@each("kind", BROKEN_BASE64)
def test_a_hash_whose_base64_is_broken_is_refused_when_stored_or_matches_nothing(kind: str) -> None:
    """Or every login of that account would fail in a way of its own."""
    try:
        parse_scheme(BROKEN_BASE64[kind])
    except PasswordHashRefused:
        return
    assert check_password("x", BROKEN_BASE64[kind]) is False


def test_a_pbkdf2_digest_that_takes_several_blocks_is_paid_for_or_refused() -> None:
    """PBKDF2 runs all its rounds again for each block of the digest (RFC 8018 section 5.2)."""
    short, long = (f"$pbkdf2-sha256$1000${SALT}${'A' * digits}" for digits in (43, 170))
    try:
        scheme = parse_scheme(long)
    except PasswordHashRefused:
        return
    assert scheme.cost_ms >= 3 * parse_scheme(short).cost_ms
    assert parse_scheme(decoy_hash(scheme.identifier, bytes(53))).cost_ms == scheme.cost_ms


# ------------------------------------------------------------------ decoys


@given(identifier=st.sampled_from([*CHEAP, *KNOWN]), entropy=st.binary(min_size=53, max_size=64))
def test_a_decoy_parses_to_the_scheme_that_it_imitates(identifier: str, entropy: bytes) -> None:
    assert parse_scheme(decoy_hash(identifier, entropy)).identifier == identifier


@each("identifier", CHEAP)
def test_a_decoy_can_really_be_checked_and_matches_nothing(identifier: str) -> None:
    for entropy in (bytes(53), b"\xff" * 53, bytes(range(200, 253))):
        decoy = decoy_hash(identifier, entropy)
        for password in ("", "é" * 100, "\ud800"):
            assert check_password(password, decoy) is False


def test_two_decoys_differ_in_salt_and_digest() -> None:
    for identifier in CHEAP:
        one, other = decoy_hash(identifier, bytes(range(53))), decoy_hash(identifier, bytes(range(53, 106)))
        assert one != other
        assert one.rsplit("$", 2)[1:] != other.rsplit("$", 2)[1:]


@each("identifier", KNOWN)
def test_a_decoy_costs_as_much_as_a_real_hash_of_its_scheme(identifier: str) -> None:
    real, decoy = parse_scheme(KNOWN[identifier][1]), parse_scheme(decoy_hash(identifier, bytes(range(53))))
    assert decoy.cost_ms == real.cost_ms
