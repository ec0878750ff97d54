"""The first start: master key, first signing key, first user. Safe to repeat and to race."""

import os
import secrets
import string
import time
from pathlib import Path
from typing import Final

from fastauth.backends.passwords import PasswordHasher
from fastauth.domain.clients import PURPOSE, ClientSecrets
from fastauth.domain.errors import Conflict, MasterKeyRefused
from fastauth.domain.identity import LOCAL, parse_chain
from fastauth.domain.ports import UserStore
from fastauth.domain.users import User, skeleton
from fastauth.endpoints.audit import SILENT, Audit
from fastauth.jose.wrapping import MASTER_KEY_BYTES, MasterKey
from fastauth.server.settings import Settings
from fastauth.server.signing_keys import SigningKeys
from fastauth.server.storage import Storage

FIRST_USER: Final = "admin"
GENERATED_PASSWORD_LENGTH: Final = 24
_ALPHABET: Final = string.ascii_letters + string.digits


def open_signing_keys(settings: Settings, storage: Storage, audit: Audit = SILENT) -> SigningKeys:
    """The signing keys of these settings; nothing is read or made yet. In: who is told of changes."""
    return SigningKeys(
        storage.keys,
        storage.leases,
        lambda may_create: load_master_key(settings, may_create=may_create),
        settings,
        audit=audit,
    )


async def open_client_secrets(settings: Settings, storage: Storage) -> ClientSecrets:
    """What makes the secrets of clients, for commands; before the first start a master key is made.

    Raises MasterKeyRefused for a master key that is not the one of this database: no server would know such a secret.
    """
    _, stored = await storage.keys.load_keys()
    if stored:
        await open_signing_keys(settings, storage).load_existing()
    return ClientSecrets(load_master_key(settings, may_create=not stored).derive(PURPOSE))


def load_master_key(settings: Settings, *, may_create: bool) -> MasterKey:
    """The master key from the settings, else from ``master.key``, which is made if it may be.

    Raises MasterKeyRefused.
    """
    if settings.master_key is not None:
        return MasterKey.from_text(settings.master_key)
    path = settings.data_path / "master.key"
    if not path.exists():
        if not may_create:
            raise MasterKeyRefused(
                f"{path} is missing, and the database holds signing keys that it wraps; restore it from a backup"
            )
        _create_secret_file(path, MasterKey(secrets.token_bytes(MASTER_KEY_BYTES)).to_text() + "\n")
    try:
        if path.stat().st_mode & 0o077:
            raise MasterKeyRefused(f"{path} can be read by others; run: chmod 600 {path}")
        return MasterKey.from_text(path.read_text())
    except (OSError, UnicodeDecodeError):
        raise MasterKeyRefused(f"{path} cannot be read") from None


def _create_secret_file(path: Path, text: str) -> None:
    """Write a file whole or not at all; if another process was first, its file stays."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(scratch)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            scratch.replace(path)
            return
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
    finally:
        scratch.unlink(missing_ok=True)


def generate_password() -> str:
    """A password of letters and digits with 142 random bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(GENERATED_PASSWORD_LENGTH))


def new_user(
    name: str,
    password_hash: str,
    scope: str | None = None,
    *,
    disabled: bool = False,
    source: str = LOCAL,
    subject: str | None = None,
) -> User:
    """A user that did not exist before, under a ``sub`` that nobody ever had."""
    now_s = int(time.time())
    return User(
        sub=secrets.token_hex(16),
        name=name,
        password_hash=password_hash,
        scope=scope,
        disabled=disabled,
        source=source,
        subject=subject,
        created_at_s=now_s,
        updated_at_s=now_s,
    )


async def add_first_user(settings: Settings, users: UserStore, audit: Audit = SILENT) -> str | None:
    """Make ``admin`` if there is no user at all; out: its password, None if there are users or none may be local."""
    if LOCAL not in parse_chain(settings.identity.chain):
        return None
    if await users.list_users("", 1):
        return None
    password = generate_password()
    user = new_user(FIRST_USER, PasswordHasher(settings.passwords).hash(password))
    try:
        await users.add(user, skeleton(FIRST_USER))
    except Conflict:  # another server was faster
        return None
    audit.record("user_added", sub=user.sub, name=user.name, source=LOCAL, first=True)
    return password
