"""Password hashes as other programs make them, at the lowest cost."""

import base64
import hashlib
from collections.abc import Callable

import argon2
import bcrypt

from fastauth.backends.passwords import PROFILES, hash_password

SALT = bytes(range(1, 17))


def plain64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def passlib64(data: bytes) -> str:
    return plain64(data).replace("+", ".")


def by_argon2_cffi(kind: argon2.Type, lanes: int) -> Callable[[str], str]:
    return argon2.PasswordHasher(time_cost=1, memory_cost=8 * lanes, parallelism=lanes, type=kind).hash


def by_bcrypt(prefix: bytes) -> Callable[[str], str]:
    def hash_(password: str) -> str:
        salt = bcrypt.gensalt(4, b"2a" if prefix == b"2a" else b"2b")
        return bcrypt.hashpw(password.encode()[:72], salt).decode().replace("$2b$", f"${prefix.decode()}$", 1)

    return hash_


def by_pbkdf2(digest: str, write: Callable[[bytes], str], parameters: str) -> Callable[[str], str]:
    def hash_(password: str) -> str:
        computed = hashlib.pbkdf2_hmac(digest, password.encode(), SALT, 13)
        return f"$pbkdf2-{digest}${parameters}${write(SALT)}${write(computed)}"

    return hash_


def by_django(password: str) -> str:
    computed = hashlib.pbkdf2_hmac("sha256", password.encode(), b"seasalt", 13)
    return f"pbkdf2_sha256$13$seasalt${base64.b64encode(computed).decode()}"


def by_scrypt(write: Callable[[bytes], str]) -> Callable[[str], str]:
    def hash_(password: str) -> str:
        computed = hashlib.scrypt(password.encode(), salt=SALT, n=16, r=8, p=2, dklen=32)
        return f"$scrypt$ln=4,r=8,p=2${write(SALT)}${write(computed)}"

    return hash_


MAKERS: dict[str, Callable[[str], str]] = {
    "argon2id": by_argon2_cffi(argon2.Type.ID, 1),
    "argon2i": by_argon2_cffi(argon2.Type.I, 1),
    "argon2d": by_argon2_cffi(argon2.Type.D, 1),
    "argon2id with lanes": by_argon2_cffi(argon2.Type.ID, 4),
    "bcrypt 2a": by_bcrypt(b"2a"),
    "bcrypt 2b": by_bcrypt(b"2b"),
    "bcrypt 2y": by_bcrypt(b"2y"),
    "PBKDF2 as passlib writes it": by_pbkdf2("sha256", passlib64, "13"),
    "PBKDF2 SHA-512 as passlib writes it": by_pbkdf2("sha512", passlib64, "13"),
    "PBKDF2 in PHC form": by_pbkdf2("sha256", plain64, "i=13"),
    "PBKDF2 in PHC form with a length": by_pbkdf2("sha256", plain64, "i=13,l=32"),
    "PBKDF2 as Django writes it": by_django,
    "scrypt as passlib writes it": by_scrypt(passlib64),
    "scrypt in PHC form": by_scrypt(plain64),
    "this library": lambda password: hash_password(password, PROFILES["cheapest-for-tests"]),
}
