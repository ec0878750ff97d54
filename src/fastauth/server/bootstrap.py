"""The first start: data directory, master key, schema, first signing key, first user. Safe to repeat and to race."""

import os
import secrets
import string
import time
from pathlib import Path
from typing import Final

from fastauth.backends.migrations import HEAD, sqlite_revision, upgrade_sqlite
from fastauth.backends.passwords import PasswordHasher
from fastauth.backends.sqlite.clients import SqliteClientStore
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.keys import SqliteKeyStore
from fastauth.backends.sqlite.news import SqliteRevocationBus
from fastauth.backends.sqlite.sessions import SqliteSessionStore
from fastauth.backends.sqlite.users import SqliteUserStore
from fastauth.domain.clients import PURPOSE, ClientSecrets
from fastauth.domain.errors import Conflict, FastauthError, MasterKeyRefused
from fastauth.domain.ports import ClientStore, KeyStore, RevocationBus, SessionStore, UserStore
from fastauth.domain.users import User, skeleton
from fastauth.jose.wrapping import MASTER_KEY_BYTES, MasterKey
from fastauth.server.settings import Settings
from fastauth.server.signing_keys import SigningKeys
from fastauth.server.telemetry import get_log

FIRST_USER: Final = "admin"
GENERATED_PASSWORD_LENGTH: Final = 24
_ALPHABET: Final = string.ascii_letters + string.digits


class StartRefused(FastauthError):
    """The server cannot start; the text says why and what to do."""

    code = "start_refused"


class Storage:
    """The opened database and the stores on it."""

    def __init__(self, database: Database) -> None:
        self.users: UserStore = SqliteUserStore(database)
        self.keys: KeyStore = SqliteKeyStore(database)
        self.sessions: SessionStore = SqliteSessionStore(database)
        self.clients: ClientStore = SqliteClientStore(database)
        self.bus: RevocationBus = SqliteRevocationBus(database)
        self._database = database

    def close(self) -> None:
        """Finish the queued writes and close the file."""
        self._database.close()


def prepare_data_dir(settings: Settings) -> None:
    """Make the data directory, for its owner alone. Raises StartRefused."""
    path = settings.data_path
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartRefused(f"{path}: {error.strerror}; name another directory with --data-dir") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise StartRefused(f"{path}: not writable; name another directory with --data-dir")
    state = path.stat()
    if not state.st_mode & 0o077:
        return
    is_ours = (path / "fastauth.db").exists() or (path / "master.key").exists() or not any(path.iterdir())
    if is_ours and state.st_uid == os.geteuid():
        path.chmod(0o700)
    else:  # somebody's directory with other things in it is not ours to close
        get_log().warning("data_dir_open_to_others", path=str(path), advice=f"chmod 700 {path}")


def open_existing_storage(settings: Settings) -> Storage:
    """Open the database as it is, for commands that only look or change what is there.

    Raises Unavailable, SchemaRefused, or StartRefused when there is no database.
    """
    path = settings.sqlite_path
    if not path.is_file():
        raise StartRefused(f"there is no database at {path}; name the data directory of a server with --data-dir")
    return open_storage(settings)


def open_storage(settings: Settings) -> Storage:
    """Open the database, which is made if need be; an embedded one is brought to the newest schema first.

    Raises Unavailable, SchemaRefused or StartRefused.
    """
    prepare_data_dir(settings)
    path = settings.sqlite_path
    try:  # before SQLite does: its WAL and shared memory get the mode that the file has
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StartRefused(f"{path}: {error.strerror}; name another database or another --data-dir") from None
    if sqlite_revision(path) != HEAD:
        upgrade_sqlite(path)
    return Storage(Database(path))


def open_signing_keys(settings: Settings, keys: KeyStore) -> SigningKeys:
    """The signing keys of these settings; nothing is read or made yet."""
    return SigningKeys(keys, lambda may_create: load_master_key(settings, may_create=may_create), settings)


async def open_client_secrets(settings: Settings, storage: Storage) -> ClientSecrets:
    """What makes the secrets of clients, for commands; before the first start a master key is made.

    Raises MasterKeyRefused for a master key that is not the one of this database: no server would know such a secret.
    """
    _, stored = await storage.keys.load_keys()
    if stored:
        await open_signing_keys(settings, storage.keys).load_existing()
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


def new_user(name: str, password_hash: str, scope: str | None = None, *, disabled: bool = False) -> User:
    """A user that did not exist before, under a subject that nobody ever had."""
    now_s = int(time.time())
    return User(
        sub=secrets.token_hex(16),
        name=name,
        password_hash=password_hash,
        scope=scope,
        disabled=disabled,
        created_at_s=now_s,
        updated_at_s=now_s,
    )


async def add_first_user(settings: Settings, users: UserStore) -> str | None:
    """Make ``admin`` if there is no user at all; out: its password, None if there are users."""
    if await users.list_users("", 1):
        return None
    password = generate_password()
    user = new_user(FIRST_USER, PasswordHasher(settings.passwords).hash(password))
    try:
        await users.add(user, skeleton(FIRST_USER))
    except Conflict:  # another server was faster
        return None
    return password
