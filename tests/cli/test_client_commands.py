"""``fastauth client``: what it prints, what it stores, and that a secret is shown once and kept nowhere."""

import json
import os
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from fastauth.backends.sqlite.clients import SqliteClientStore
from fastauth.backends.sqlite.database import Database
from fastauth.cli import cli
from fastauth.domain.clients import PURPOSE, Client, ClientSecrets
from fastauth.domain.errors import ClientRefused, Conflict, MasterKeyRefused, NotFound, ScopeRefused
from fastauth.jose.keyring import wrap_key
from fastauth.jose.keys import SigningKey
from fastauth.jose.wrapping import MasterKey
from fastauth.server.settings import load_settings
from fastauth.server.storage import open_storage
from tests.conformance.user_store import run


class CommandLine:
    """``fastauth`` on a data directory whose database has its schema already."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--data-dir", str(self.data_dir)], standalone_mode=False)

    def added(self, name: str, *more: str) -> dict[str, str]:
        made: dict[str, str] = json.loads(done(self("client", "add", name, "--json", *more)))
        return made

    def client(self, client_id: str) -> Client | None:
        database = Database(self.data_dir / "fastauth.db")
        found = run(SqliteClientStore(database).find(client_id))
        database.close()
        return found

    def is_right(self, client_id: str, secret: str, now_s: int = 0) -> bool:
        master = MasterKey.from_text((self.data_dir / "master.key").read_text())
        return ClientSecrets(master.derive(PURPOSE)).is_right(self.client(client_id), client_id, secret, now_s)


def done(result: Result) -> str:
    """The standard output of a command that must succeed."""
    if result.exception is not None:
        raise result.exception
    assert result.stderr == ""
    return result.stdout


@pytest.fixture
def fastauth(tmp_path: Path, migrated_file: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    for name in [name for name in os.environ if name.startswith("FASTAUTH_")]:
        monkeypatch.delenv(name)
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    shutil.copy(migrated_file, data_dir / "fastauth.db")
    return CommandLine(data_dir)


def test_add_prints_id_and_secret_each_on_a_line_and_stores_only_a_hash(fastauth: CommandLine) -> None:
    out = done(fastauth("client", "add", "billing", "--grant", "client_credentials", "--scope", "a b"))
    lines = dict(line.split(": ", 1) for line in out.splitlines()[1:])
    assert lines.keys() == {"client_id", "client_secret"}
    client = fastauth.client(lines["client_id"])
    assert client is not None
    assert (client.name, client.grants, client.scope) == ("billing", ("client_credentials",), "a b")
    assert (client.introspect, client.disabled) == ("own", False)
    assert fastauth.is_right(lines["client_id"], lines["client_secret"])
    assert lines["client_secret"].encode() not in (fastauth.data_dir / "fastauth.db").read_bytes()


def test_a_client_for_introspection_needs_no_grant(fastauth: CommandLine) -> None:
    made = fastauth.added("gateway", "--introspect", "any")
    client = fastauth.client(made["client_id"])
    assert client is not None
    assert (client.grants, client.introspect, client.scope) == ((), "any", None)


def test_what_no_client_can_be_is_refused(fastauth: CommandLine) -> None:
    fastauth.added("billing")
    for arguments, error in (
        (("billing",), Conflict),
        (("a b",), ClientRefused),
        (("x", "--scope", "a  b"), ScopeRefused),
    ):
        assert isinstance(fastauth("client", "add", *arguments).exception, error)
    assert isinstance(fastauth("client", "add", "x", "--grant", "password").exception, click.UsageError)
    assert done(fastauth("client", "list")).count("\n") == 1


def test_clients_are_listed_and_shown_without_any_hash(fastauth: CommandLine) -> None:
    made = fastauth.added("billing", "--grant", "client_credentials", "--scope", "a b")
    fastauth.added("gateway", "--introspect", "any")
    assert [line.split("\t")[0] for line in done(fastauth("client", "list")).splitlines()] == ["billing", "gateway"]
    listed = [json.loads(line) for line in done(fastauth("client", "list", "--json")).splitlines()]
    shown = json.loads(done(fastauth("client", "show", "billing", "--json")))
    assert listed[0] == shown
    assert shown.keys() == {"name", "client_id", "grants", "scope", "introspect", "disabled", "created", "updated"}
    by_id = done(fastauth("client", "show", made["client_id"]))
    assert "disabled:   no" in by_id
    assert "grants:     client_credentials" in by_id
    assert "secret" not in by_id
    assert "scope:      -" in done(fastauth("client", "show", "gateway"))


def test_an_empty_list_says_so_to_a_person_and_nothing_to_a_script(fastauth: CommandLine) -> None:
    result = fastauth("client", "list")
    assert (result.stdout, result.stderr) == ("", "fastauth: there are no clients\n")
    assert done(fastauth("client", "list", "--json")) == ""


def test_a_client_is_disabled_and_enabled(fastauth: CommandLine) -> None:
    made = fastauth.added("billing")
    for word, is_disabled in (("disable", True), ("enable", False)):
        assert done(fastauth("client", word, "billing")) == f"fastauth: {word}d billing\n"
        client = fastauth.client(made["client_id"])
        assert client is not None
        assert client.disabled == is_disabled


def test_a_new_secret_replaces_the_old_one_at_once_or_after_a_while(fastauth: CommandLine) -> None:
    first = fastauth.added("billing")
    client_id = first["client_id"]
    second = json.loads(done(fastauth("client", "rotate-secret", "billing", "--keep-old", "3600", "--json")))
    assert second["client_id"] == client_id
    assert [fastauth.is_right(client_id, made["client_secret"]) for made in (first, second)] == [True, True]
    assert not fastauth.is_right(client_id, first["client_secret"], 1 << 40)
    third = json.loads(done(fastauth("client", "rotate-secret", client_id, "--json")))
    rights = [fastauth.is_right(client_id, made["client_secret"]) for made in (first, second, third)]
    assert rights == [False, False, True]


def test_a_deleted_client_is_gone_and_a_new_one_of_its_name_is_another(fastauth: CommandLine) -> None:
    old = fastauth.added("billing")
    done(fastauth("client", "delete", "billing"))
    assert fastauth.client(old["client_id"]) is None
    assert fastauth.added("billing")["client_id"] != old["client_id"]


@pytest.mark.parametrize("command", ["show", "disable", "enable", "rotate-secret", "delete"])
def test_a_client_that_does_not_exist_is_named_as_such(fastauth: CommandLine, command: str) -> None:
    error = fastauth("client", command, "nobody").exception
    assert isinstance(error, NotFound)
    assert "fastauth client list" in str(error)


def test_a_master_key_that_is_not_the_servers_makes_no_secret(fastauth: CommandLine, signing_key: SigningKey) -> None:
    settings = load_settings(None, {"FASTAUTH_DATA_DIR": str(fastauth.data_dir)}, {})
    storage = run(open_storage(settings))
    row = wrap_key(signing_key, MasterKey(bytes(32)), bytes(12), 0, 0)
    assert run(storage.keys.change_ring(run(storage.keys.ring_version()), row, {}))
    run(storage.close())
    assert isinstance(fastauth("client", "add", "billing").exception, MasterKeyRefused)
    (fastauth.data_dir / "master.key").write_text(MasterKey(bytes([1] * 32)).to_text())
    (fastauth.data_dir / "master.key").chmod(0o600)
    assert isinstance(fastauth("client", "add", "billing").exception, MasterKeyRefused)
    assert done(fastauth("client", "list", "--json")) == ""
    (fastauth.data_dir / "master.key").write_text(MasterKey(bytes(32)).to_text())
    assert fastauth.added("billing")["client_secret"]
