"""Password hashing: the profiles, and checking a hash of any stored scheme.

A hash is computed only in a pool's threads, never on the event loop; argon2, bcrypt and hashlib release the GIL.
"""

import base64
import hmac
import secrets
import time
from collections.abc import Callable
from hashlib import pbkdf2_hmac, scrypt
from typing import Final, Literal

import bcrypt
import msgspec
from argon2 import Type
from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.low_level import hash_secret, verify_secret

from fastauth.domain.errors import Unavailable
from fastauth.domain.password_schemes import MAX_SCRYPT_BYTES, decoy_hash, parse_scheme

ProfileName = Literal["owasp", "rfc9106-low-memory", "cheapest-for-tests"]


class PasswordSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[passwords]``: how new passwords are hashed."""

    profile: ProfileName = "owasp"


class Profile(msgspec.Struct, frozen=True):
    """The argon2id parameters of new hashes: memory in KiB, passes, lanes (RFC 9106 section 3.1)."""

    memory_kib: int
    passes: int
    lanes: int

    @property
    def identifier(self) -> str:
        """As ``Scheme.identifier``: a stored hash of this profile starts with it."""
        return f"$argon2id$v=19$m={self.memory_kib},t={self.passes},p={self.lanes}"


PROFILES: Final[dict[ProfileName, Profile]] = {
    "owasp": Profile(19 * 1024, 2, 1),  # OWASP Password Storage Cheat Sheet, first argon2id choice of equal strength
    "rfc9106-low-memory": Profile(64 * 1024, 3, 4),  # RFC 9106 section 4, second recommended option
    "cheapest-for-tests": Profile(8, 1, 1),
}

EXPECTED_HASH_S: Final = 0.03
"""What a hash takes, until hashes have been measured."""

_AS_GOOD_AS: Final = 0.5  # of a decoy's cost, from where on the account's own hash stands for it
_MOST_DECOYS: Final = 64
_SALT_BYTES: Final = 16
_DIGEST_BYTES: Final = 32
_BCRYPT_BYTES: Final = 72  # bcrypt never saw more; an imported hash verifies as bcrypt did


def hash_password(password: str, profile: Profile) -> str:
    """A new argon2id hash with a random salt. Raises argon2's HashingError when memory cannot be had."""
    return hash_secret(
        password.encode(),
        secrets.token_bytes(_SALT_BYTES),
        time_cost=profile.passes,
        memory_cost=profile.memory_kib,
        parallelism=profile.lanes,
        hash_len=_DIGEST_BYTES,
        type=Type.ID,
    ).decode()


def hash_time_s(profile: Profile) -> float:
    """What a hash takes here and now, in seconds: the faster of two."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        hash_password("", profile)
        times.append(time.perf_counter() - began)
    return min(times)


def check_password(password: str, password_hash: str) -> bool:
    """Whether the password is the one that was hashed; the comparison takes constant time.

    Raises PasswordHashRefused for a hash that ``parse_scheme`` refuses.
    """
    scheme = parse_scheme(password_hash)
    try:
        return _CHECKS[scheme.family](password.encode(), password_hash)
    except ValueError:  # a hash that its library cannot read, or a password with a lone surrogate: no match
        return False


_ARGON2_TYPES: Final = {"argon2id": Type.ID, "argon2i": Type.I, "argon2d": Type.D}


def _check_argon2(secret: bytes, password_hash: str) -> bool:
    kind = _ARGON2_TYPES[password_hash.split("$", 2)[1]]
    try:
        return verify_secret(password_hash.encode(), secret, kind)
    except InvalidHashError:
        return False
    except Argon2Error as error:
        if error.args and "memory" in str(error.args[0]).lower():
            raise Unavailable("password hashing", "there is not enough memory") from None
        return False  # VerifyMismatchError


def _check_bcrypt(secret: bytes, password_hash: str) -> bool:
    return bcrypt.checkpw(secret[:_BCRYPT_BYTES], password_hash.encode())


def _unpadded(text: str) -> bytes:
    """base64 without padding, in the standard alphabet or passlib's, which has ``.`` for ``+``."""
    return base64.b64decode(text.replace(".", "+") + "=" * (-len(text) % 4))


def _check_pbkdf2(secret: bytes, password_hash: str) -> bool:
    if password_hash.startswith("pbkdf2_"):
        family, rounds, salt_text, digest_text = password_hash.split("$")
        name, salt, digest = family.removeprefix("pbkdf2_"), salt_text.encode(), _unpadded(digest_text.rstrip("="))
    else:
        _, family, rounds, salt_text, digest_text = password_hash.split("$")
        name, salt, digest = family.removeprefix("pbkdf2-"), _unpadded(salt_text), _unpadded(digest_text)
    count = int(rounds.removeprefix("i=").partition(",")[0])
    return hmac.compare_digest(pbkdf2_hmac(name, secret, salt, count, len(digest)), digest)


def _check_scrypt(secret: bytes, password_hash: str) -> bool:
    _, _, parameters, salt, digest_text = password_hash.split("$")
    log_n, r, p = (int(part.partition("=")[2]) for part in parameters.split(","))
    digest = _unpadded(digest_text)
    memory = 128 * r * ((1 << log_n) + p + 2)  # OpenSSL counts its working blocks too
    computed = scrypt(
        secret,
        salt=_unpadded(salt),
        n=1 << log_n,
        r=r,
        p=p,
        dklen=len(digest),
        maxmem=memory + MAX_SCRYPT_BYTES // 64,
    )
    return hmac.compare_digest(computed, digest)


_CHECKS: Final[dict[str, Callable[[bytes, str], bool]]] = {
    "argon2": _check_argon2,
    "bcrypt": _check_bcrypt,
    "pbkdf2": _check_pbkdf2,
    "scrypt": _check_scrypt,
}


class PasswordHasher:
    """Hashing under one profile, with the decoy that hides which names exist."""

    def __init__(self, settings: PasswordSettings) -> None:
        self.profile = PROFILES[settings.profile]
        self._own_prefix = self.profile.identifier + "$"
        self._decoys: dict[str, tuple[str, float, int]] = {}

    def hash(self, password: str) -> str:
        """As ``hash_password``, under this hasher's profile."""
        return hash_password(password, self.profile)

    def check(self, password: str, password_hash: str) -> bool:
        """As ``check_password``."""
        return check_password(password, password_hash)

    def needs_rehash(self, password: str, password_hash: str) -> bool:
        """Whether a hash that matched was made under other parameters than today's, and stands for all of the password.

        bcrypt looked at 72 bytes only: what was typed behind them may be a slip, and must not become the password.
        """
        if password_hash.startswith("$2") and len(password.encode()) > _BCRYPT_BYTES:
            return False
        return not password_hash.startswith(self._own_prefix)

    def memory_kib(self, slowest_scheme: str | None, stored_hash: str | None) -> int:
        """What one login's hashes take at a time, decoys included. In: as ``decoys``."""
        own = 0  # that of the profile, as most have
        if stored_hash and not stored_hash.startswith(self._own_prefix):
            own = parse_scheme(stored_hash).memory_kib
        slowest = self._decoy(slowest_scheme)[2] if slowest_scheme else 0
        return max(self.profile.memory_kib, slowest, own)

    def decoys(self, slowest_scheme: str | None, stored_hash: str | None) -> list[str]:
        """Hashes that nobody's password matches, to be checked before a refusal so that its time tells nothing.

        A refusal costs one check under today's profile and one under the slowest stored scheme, where they differ;
        what the account's own hash has cost already is left out. In: the identifier of the slowest stored scheme
        (None: there are no users) and the hash that was checked (None: there is no such user).
        """
        wanted = dict.fromkeys((self.profile.identifier, slowest_scheme or self.profile.identifier))
        costs = {identifier: self._decoy(identifier)[1] for identifier in wanted}
        if stored_hash is not None:
            paid_ms = parse_scheme(stored_hash).cost_ms
            nearest = min(costs, key=lambda identifier: abs(costs[identifier] - paid_ms))
            if paid_ms > _AS_GOOD_AS * costs[nearest]:  # a much cheaper hash has paid for nothing
                del costs[nearest]
        return [self._decoy(identifier)[0] for identifier in costs]

    def _decoy(self, identifier: str) -> tuple[str, float, int]:
        """A decoy, what it costs in milliseconds, and in KiB."""
        if identifier not in self._decoys:
            if len(self._decoys) >= _MOST_DECOYS:  # some libraries vary their rounds from user to user
                self._decoys.clear()
            decoy = decoy_hash(identifier, secrets.token_bytes(53))
            scheme = parse_scheme(decoy)
            self._decoys[identifier] = (decoy, scheme.cost_ms, scheme.memory_kib)
        return self._decoys[identifier]
