"""The kinds of password hash that may be stored, and the bounds on what one may cost to check.

Only strings are judged here; ``backends/passwords.py`` computes. An absurd cost is refused, never computed:
one login against an argon2 hash of 4 GiB would be an outage that anyone can order.
"""

import re
from typing import Final

import msgspec

from fastauth.domain.errors import PasswordHashRefused

MAX_HASH_LENGTH: Final = 512

# Each bound is about two seconds of one core, or 256 MiB.
MAX_ARGON2_MEMORY_KIB: Final = 256 * 1024
MAX_ARGON2_WORK_KIB: Final = 1024 * 1024  # memory x passes
MAX_ARGON2_LANES: Final = 16
BCRYPT_COSTS: Final = range(4, 16)
MAX_PBKDF2_ROUNDS: Final = {"sha256": 5_000_000, "sha512": 2_500_000}
MAX_SCRYPT_BYTES: Final = 256 * 1024 * 1024  # 128 * N * r
MAX_SCRYPT_WORK: Final = 1 << 22  # N * r * p


class Scheme(msgspec.Struct, frozen=True):
    """A kind of hash with its parameters.

    ``family`` names the algorithm, ``identifier`` the algorithm with its parameters (everything of the encoded
    hash before the salt), ``cost_ms`` a rough time to check one, good enough to tell which of two is slower,
    ``memory_kib`` what that takes where it is worth counting.
    """

    family: str
    identifier: str
    cost_ms: float
    memory_kib: int = 0


_ARGON2 = re.compile(
    r"(\$argon2(?:id|i|d)\$v=(?:16|19)\$m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,9}))"
    r"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{16,171})"
)
_BCRYPT = re.compile(r"(\$2[aby]\$([0-9][0-9]))\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_PBKDF2 = re.compile(
    r"(\$pbkdf2-(sha256|sha512)\$(?:i=)?([1-9][0-9]{0,9})(?:,l=[0-9]{1,3})?)"
    r"\$([A-Za-z0-9./+]{4,171})\$([A-Za-z0-9./+]{22,171})"
)
_DJANGO_PBKDF2 = re.compile(r"(pbkdf2_(sha256)\$([1-9][0-9]{0,9}))\$([!-#%-~]{1,128})\$([A-Za-z0-9+/]{22,171}={0,2})")
_SCRYPT = re.compile(
    r"(\$scrypt\$ln=([1-9][0-9]?),r=([1-9][0-9]{0,3}),p=([1-9][0-9]{0,3}))"
    r"\$([A-Za-z0-9./+]{4,171})\$([A-Za-z0-9./+]{22,171})"
)


def parse_scheme(password_hash: str) -> Scheme:
    """The scheme of an encoded hash: PHC argon2, bcrypt, PBKDF2 (passlib's, PHC's, Django's) or scrypt.

    Raises PasswordHashRefused for an unknown form or a cost beyond the bounds above; the text names the
    problem and never repeats the hash.
    """
    if len(password_hash) > MAX_HASH_LENGTH:
        raise PasswordHashRefused(f"the hash is longer than {MAX_HASH_LENGTH} characters")
    if match := _ARGON2.fullmatch(password_hash):
        _check_base64(match[5], match[6])
        return _argon2(match[1], int(match[2]), int(match[3]), int(match[4]))
    if match := _BCRYPT.fullmatch(password_hash):
        return _bcrypt(match[1], int(match[2]))
    if match := _PBKDF2.fullmatch(password_hash) or _DJANGO_PBKDF2.fullmatch(password_hash):
        _check_base64(*(match[4], match[5]) if password_hash.startswith("$") else (match[5],))
        if len(match[5].rstrip("=")) > _PBKDF2_DIGEST_CHARACTERS[match[2]]:
            raise PasswordHashRefused("the PBKDF2 digest is longer than its hash function's")
        return _pbkdf2(match[1], match[2], int(match[3]))
    if match := _SCRYPT.fullmatch(password_hash):
        _check_base64(match[5], match[6])
        return _scrypt(match[1], int(match[2]), int(match[3]), int(match[4]))
    raise PasswordHashRefused("not a hash of a known kind (argon2, bcrypt, pbkdf2, scrypt)")


def _check_base64(*texts: str) -> None:
    for text in texts:
        size = len(text)
        if size % 4 == 1 or ("=" in text and size % 4):
            raise PasswordHashRefused("the salt or the digest is not base64")


def _argon2(identifier: str, memory_kib: int, passes: int, lanes: int) -> Scheme:
    if memory_kib > MAX_ARGON2_MEMORY_KIB or memory_kib * passes > MAX_ARGON2_WORK_KIB:
        raise PasswordHashRefused(
            f"the argon2 cost is absurd (more than {MAX_ARGON2_MEMORY_KIB} KiB, or memory x passes "
            f"over {MAX_ARGON2_WORK_KIB} KiB)"
        )
    if lanes > MAX_ARGON2_LANES or memory_kib < 8 * lanes:
        raise PasswordHashRefused(f"argon2 takes 1 to {MAX_ARGON2_LANES} lanes of at least 8 KiB each")
    return Scheme("argon2", identifier, memory_kib * passes * 0.0007, memory_kib)


def _bcrypt(identifier: str, cost: int) -> Scheme:
    if cost not in BCRYPT_COSTS:
        raise PasswordHashRefused(f"the bcrypt cost is not {BCRYPT_COSTS[0]} to {BCRYPT_COSTS[-1]}")
    return Scheme("bcrypt", identifier, float(1 << cost) * 0.055)


_PBKDF2_DIGEST_CHARACTERS: Final = {"sha256": 43, "sha512": 86}  # of base64: one block; each further costs all rounds


def _pbkdf2(identifier: str, digest: str, rounds: int) -> Scheme:
    if rounds > MAX_PBKDF2_ROUNDS[digest]:
        raise PasswordHashRefused(f"the PBKDF2 cost is absurd (more than {MAX_PBKDF2_ROUNDS[digest]} rounds)")
    return Scheme("pbkdf2", identifier, rounds * (0.0003 if digest == "sha256" else 0.0007))


def _scrypt(identifier: str, log_n: int, r: int, p: int) -> Scheme:
    if log_n > 24 or (128 * r << log_n) > MAX_SCRYPT_BYTES or (r * p << log_n) > MAX_SCRYPT_WORK:
        raise PasswordHashRefused(
            f"the scrypt cost is absurd (more than {MAX_SCRYPT_BYTES >> 20} MiB, or N x r x p over {MAX_SCRYPT_WORK})"
        )
    if log_n >= 16 * r:
        raise PasswordHashRefused("scrypt needs N below 2 to the power of 16 x r (RFC 7914 section 2)")
    return Scheme("scrypt", identifier, float(r * p << log_n) * 0.00035, (128 * r << log_n) >> 10)


_BCRYPT_FILL: Final = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def decoy_hash(identifier: str, entropy: bytes) -> str:
    """A well-formed hash that no password matches and that costs as much to check as ``identifier`` says.

    In: ``Scheme.identifier`` and at least 53 random bytes. It is checked when a name is unknown, so that
    the time of the answer does not tell (CWE-208).
    """
    if identifier.startswith("$2"):
        # The last character of salt and of digest has spare bits, which bcrypt wants to be zero.
        text = "".join(_BCRYPT_FILL[byte & 63] for byte in entropy[:53])
        return f"{identifier}${text[:21]}.{text[22:52]}."
    salt, digest = entropy[:16].hex()[:22], entropy[16:48].hex()[:43]
    # A multiple of four bits short of a byte must stay zero: "A" is six zero bits in every alphabet used here.
    if identifier.startswith("pbkdf2_"):
        return f"{identifier}${salt}${digest[:42]}A="
    return f"{identifier}${salt[:21]}A${digest[:42]}A"


def cost_us(password_hash: str) -> int:
    """Roughly what a check costs, as it is stored beside the hash. Raises PasswordHashRefused."""
    return round(parse_scheme(password_hash).cost_ms * 1000)
