"""Password hashes as other programs spell them, in the spelling of ``password_schemes``; nothing is computed.

Django puts its own name in front of the schemes that it shares with others; Keycloak exports JSON.
"""

import base64
import binascii
from typing import Any, Final

import msgspec

from fastauth.domain.errors import PasswordHashRefused

_BYTES: Final = {"sha256": 32, "sha512": 64}  # of a digest; Keycloak derives more, and each further block is redundant
_ARGON2_VERSIONS: Final = {"1.3": "19", "1.0": "16"}
_MAX_TEXT: Final = 4_096


class KeycloakCredential(msgspec.Struct, rename="camel"):
    """A password in a realm's export (``users[].credentials[]``): two texts that hold JSON."""

    credential_data: str
    secret_data: str

    def __repr__(self) -> str:
        return "KeycloakCredential(...)"


class _CredentialData(msgspec.Struct, rename="camel"):
    algorithm: str
    hash_iterations: int
    additional_parameters: dict[str, list[str]] = {}


class _SecretData(msgspec.Struct):
    value: str
    salt: str

    def __repr__(self) -> str:
        return "_SecretData(...)"


def from_django(password_hash: str) -> str:
    """A hash without what Django puts around it; others as they are. Raises PasswordHashRefused."""
    family, _, rest = password_hash.partition("$")
    if family == "argon2" and rest.startswith("argon2"):
        return f"${rest}"
    if family == "bcrypt" and rest.startswith("$2"):
        return rest
    if family == "scrypt":
        try:
            n, salt, r, p, digest = rest.split("$")
            log_n = int(n).bit_length() - 1
            if int(n) != 1 << log_n:
                raise ValueError
        except ValueError:
            raise PasswordHashRefused("not a scrypt hash of Django's") from None
        return f"$scrypt$ln={log_n},r={r},p={p}${_text(salt.encode())}${digest.rstrip('=')}"
    return password_hash


def from_keycloak(credential: KeycloakCredential) -> str:
    """The hash of a Keycloak credential: pbkdf2-sha256, pbkdf2-sha512 or argon2. Raises PasswordHashRefused."""
    if max(len(credential.credential_data), len(credential.secret_data)) > _MAX_TEXT:
        raise PasswordHashRefused("the Keycloak credential is too long")
    try:
        about = msgspec.json.decode(credential.credential_data, type=_CredentialData)
        secret = msgspec.json.decode(credential.secret_data, type=_SecretData)
        salt, digest = (base64.b64decode(text, validate=True) for text in (secret.salt, secret.value))
    except (msgspec.DecodeError, UnicodeError, RecursionError, binascii.Error):
        raise PasswordHashRefused("not a Keycloak credential with credentialData and secretData") from None
    family = about.algorithm.removeprefix("pbkdf2-")
    if family in _BYTES and about.algorithm != family:
        if len(digest) < _BYTES[family]:
            raise PasswordHashRefused("the PBKDF2 digest is shorter than its hash function's")
        return f"$pbkdf2-{family}${about.hash_iterations}${_text(salt)}${_text(digest[: _BYTES[family]])}"
    if about.algorithm == "argon2":
        return _argon2(about, salt, digest)
    raise PasswordHashRefused("a Keycloak algorithm that is not known (pbkdf2-sha256, pbkdf2-sha512, argon2)")


def _argon2(about: _CredentialData, salt: bytes, digest: bytes) -> str:
    def parameter(name: str, default: Any) -> Any:
        values = about.additional_parameters.get(name, [default])
        return values[0] if len(values) == 1 else None

    version = _ARGON2_VERSIONS.get(parameter("version", "1.3"))
    kind, memory, lanes = parameter("type", "id"), parameter("memory", None), parameter("parallelism", "1")
    if version is None or kind not in ("id", "i", "d"):
        raise PasswordHashRefused("an argon2 of Keycloak's whose version or type is not known")
    costs = f"m={memory},t={about.hash_iterations},p={lanes}"
    return f"$argon2{kind}$v={version}${costs}${_text(salt)}${_text(digest)}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")
