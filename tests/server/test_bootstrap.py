"""The first start: made once, for the owner alone, whoever races; and never made anew over what exists."""

import asyncio
import base64
import shutil
import threading
from pathlib import Path

import pytest

from fastauth.backends.passwords import check_password
from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.keys import SqliteKeyStore
from fastauth.backends.sqlite.users import SqliteUserStore
from fastauth.domain.errors import MasterKeyRefused
from fastauth.domain.users import skeleton
from fastauth.jose.keyring import wrap_key
from fastauth.jose.keys import SigningKey
from fastauth.jose.wrapping import MasterKey
from fastauth.server.bootstrap import add_first_user, generate_password, load_master_key, new_user, open_signing_keys
from fastauth.server.settings import Settings, load_settings
from fastauth.server.storage import StartRefused, on_sqlite, open_storage, prepare_data_dir
from tests.conformance.user_store import run

CHEAP = {"FASTAUTH_PASSWORDS__PROFILE": "cheapest-for-tests", "FASTAUTH_ALLOW_INSECURE": "1"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose data directory does not exist yet."""
    return load_settings(None, {"FASTAUTH_DATA_DIR": str(tmp_path / "data"), **CHEAP}, {})


@pytest.fixture
def key_file(settings: Settings) -> Path:
    """Where the master key will be; its directory exists."""
    prepare_data_dir(settings)
    return settings.data_path / "master.key"


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


# ------------------------------------------------------------------ the data directory


def test_the_data_directory_is_made_for_its_owner_alone(settings: Settings) -> None:
    prepare_data_dir(settings)
    assert mode_of(settings.data_path) == 0o700
    prepare_data_dir(settings)


def test_a_directory_that_cannot_be_made_is_named_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "below"):
        settings = load_settings(None, {"FASTAUTH_DATA_DIR": str(place)}, {})
        with pytest.raises(StartRefused, match="--data-dir") as refusal:
            prepare_data_dir(settings)
        assert str(place) in str(refusal.value)


def test_a_first_start_makes_a_directory_and_a_database_that_only_their_owner_can_read(migrated_file: Path) -> None:
    assert mode_of(migrated_file) == 0o600
    assert mode_of(migrated_file.parent) == 0o700


def test_the_files_beside_an_open_database_are_its_owners_alone_too(settings: Settings, migrated_file: Path) -> None:
    prepare_data_dir(settings)
    shutil.copy(migrated_file, settings.data_path / "fastauth.db")
    storage = run(open_storage(settings))
    assert run(storage.users.count()) == 0
    modes = {path.name: mode_of(path) for path in settings.data_path.iterdir()}
    run(storage.close())
    assert modes == {"fastauth.db": 0o600, "fastauth.db-wal": 0o600, "fastauth.db-shm": 0o600}


def test_a_database_in_a_directory_that_does_not_exist_is_refused(settings: Settings, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'missing' / 'fastauth.db'}"
    elsewhere = load_settings(None, {"FASTAUTH_DATA_DIR": settings.data_dir, "FASTAUTH_DATABASE_URL": url}, {})
    with pytest.raises(StartRefused, match="missing"):
        run(open_storage(elsewhere))


# ------------------------------------------------------------------ the master key


def test_a_master_key_is_made_once_and_only_its_owner_can_read_it(settings: Settings, key_file: Path) -> None:
    made = load_master_key(settings, may_create=True)
    assert mode_of(key_file) == 0o600
    assert len(base64.urlsafe_b64decode(key_file.read_text().strip())) == 32
    content = key_file.read_bytes()
    for may_create in (True, False):
        assert load_master_key(settings, may_create=may_create).derive(b"x") == made.derive(b"x")
    assert key_file.read_bytes() == content
    assert [path.name for path in settings.data_path.iterdir()] == ["master.key"]


def test_of_many_that_start_at_once_all_get_the_same_master_key(settings: Settings, key_file: Path) -> None:
    start, derived = threading.Barrier(8), []

    def load() -> None:
        start.wait(10)
        derived.append(load_master_key(settings, may_create=True).derive(b"x"))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(derived) == 8
    assert len(set(derived)) == 1
    assert [path.name for path in settings.data_path.iterdir()] == [key_file.name]


def test_a_master_key_that_is_missing_is_never_made_anew_over_wrapped_keys(settings: Settings, key_file: Path) -> None:
    with pytest.raises(MasterKeyRefused, match="backup"):
        load_master_key(settings, may_create=False)
    assert not key_file.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610])
def test_a_master_key_that_others_can_read_is_refused_with_the_command_that_helps(
    settings: Settings, key_file: Path, mode: int
) -> None:
    load_master_key(settings, may_create=True)
    key_file.chmod(mode)
    with pytest.raises(MasterKeyRefused, match="chmod 600"):
        load_master_key(settings, may_create=True)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe", b"A" * 100, "é".encode() * 43, b"hunter2hunter2"])
def test_a_master_key_that_is_damaged_is_refused_and_neither_repeated_nor_replaced(
    settings: Settings, key_file: Path, content: bytes
) -> None:
    key_file.write_bytes(content)
    key_file.chmod(0o600)
    with pytest.raises(MasterKeyRefused) as refusal:
        load_master_key(settings, may_create=True)
    assert "hunter2" not in str(refusal.value)
    assert key_file.read_bytes() == content


def test_a_directory_in_place_of_the_master_key_is_refused(settings: Settings, key_file: Path) -> None:
    key_file.mkdir(mode=0o700)
    with pytest.raises(MasterKeyRefused):
        load_master_key(settings, may_create=True)


def test_a_master_key_from_the_settings_leaves_no_file(settings: Settings, key_file: Path) -> None:
    text = MasterKey(bytes(32)).to_text()
    given = load_settings(None, {"FASTAUTH_DATA_DIR": settings.data_dir, "FASTAUTH_MASTER_KEY": text}, {})
    assert load_master_key(given, may_create=True).derive(b"x") == MasterKey(bytes(32)).derive(b"x")
    assert not key_file.exists()


# ------------------------------------------------------------------ the signing key


def test_the_first_start_makes_a_signing_key_and_the_next_finds_it(
    settings: Settings, key_file: Path, database: Database
) -> None:
    keys = SqliteKeyStore(database)
    first = run(open_signing_keys(settings, on_sqlite(database)).load())
    assert run(open_signing_keys(settings, on_sqlite(database)).load()).active.kid == first.active.kid
    _, (row,) = run(keys.load_keys())
    assert row.kid == first.active.kid
    assert first.active.to_der() not in row.wrapped_private


def test_of_two_that_start_at_once_both_have_the_same_signing_key(
    settings: Settings, key_file: Path, database: Database
) -> None:
    other = Database(database.path)

    async def both() -> list[list[str]]:
        rings = await asyncio.gather(*(open_signing_keys(settings, on_sqlite(one)).load() for one in (database, other)))
        return [list(ring.verifying.by_kid) for ring in rings]

    one, two = run(both())
    other.close()
    assert one == two
    assert len(one) == 1


def test_keys_that_another_master_key_wrapped_are_refused(
    settings: Settings, key_file: Path, database: Database, signing_key: SigningKey
) -> None:
    keys = SqliteKeyStore(database)
    row = wrap_key(signing_key, MasterKey(bytes(32)), bytes(12), 0, 0)
    assert run(keys.change_ring(run(keys.ring_version()), row, {}))
    with pytest.raises(MasterKeyRefused, match="backup"):
        run(open_signing_keys(settings, on_sqlite(database)).load())
    load_master_key(settings, may_create=True)
    with pytest.raises(MasterKeyRefused, match="restore"):
        run(open_signing_keys(settings, on_sqlite(database)).load())
    assert [row.kid for row in run(keys.load_keys())[1]] == [signing_key.kid]


# ------------------------------------------------------------------ the first user


def test_the_first_user_is_admin_with_a_password_of_many_letters_and_digits(
    settings: Settings, database: Database
) -> None:
    users = SqliteUserStore(database)
    password = run(add_first_user(settings, users))
    assert password is not None
    assert len(password) >= 20
    assert password.isascii()
    assert password.isalnum()
    admin = run(users.find_by_name("admin"))
    assert admin is not None
    assert check_password(password, admin.password_hash)
    assert run(add_first_user(settings, users)) is None


def test_where_there_is_any_user_no_admin_is_made(settings: Settings, database: Database) -> None:
    users = SqliteUserStore(database)
    run(users.add(new_user("alice", "$2b$04$" + "." * 53), skeleton("alice")))
    assert run(add_first_user(settings, users)) is None
    assert run(users.find_by_name("admin")) is None


def test_of_two_that_make_the_first_user_one_prints_a_password(settings: Settings, database: Database) -> None:
    users = SqliteUserStore(database)

    async def both() -> list[str | None]:
        return await asyncio.gather(*(add_first_user(settings, users) for _ in range(2)))

    passwords = run(both())
    assert passwords.count(None) == 1
    assert run(users.count()) == 1


def test_generated_passwords_and_subjects_are_never_the_same() -> None:
    assert len({generate_password() for _ in range(100)}) == 100
    assert len({new_user("a", "x").sub for _ in range(100)}) == 100
    assert new_user("alice", "x").sub != "alice"
