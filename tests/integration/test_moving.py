"""``fastauth migrate --from sqlite:///...``: an installation moves to PostgreSQL, is interrupted, and goes on."""

import contextlib
import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.running import (
    CHEAP,
    FASTAUTH,
    FULL,
    cheap_hash,
    environment,
    fastauth,
    import_lines,
    running_server,
    wait_for,
)
from tests.integration.test_fleet import PASSWORD, refreshed
from tests.postgres_servers import PostgresServer, running_postgres

USERS = 200_000 if FULL else 5_000


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, str]]:
    """A stopped installation with users, a client, a session and a revoked token; with its tokens."""
    path = tmp_path_factory.mktemp("house") / "data"
    env = {**CHEAP, "FASTAUTH_ISSUER": "https://auth.example"}
    with running_server(path, env=env) as server:
        hashed = cheap_hash(PASSWORD)
        import_lines(path, [{"username": f"u{number}", "password_hash": hashed} for number in range(USERS)])
        assert fastauth("client", "add", "billing", "--grant", "client_credentials", data_dir=path).returncode == 0
        tokens = server.login("u1", PASSWORD).json
        ended = server.login("u2", PASSWORD).json
        headers = {"Authorization": f"Bearer {ended['token']}"}
        assert server.request("POST", "/logout", headers=headers).status == 204
        tokens["revoked"] = ended["token"]
    return path, tokens, env


def counts_of(path: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(path / "fastauth.db")) as database:
        tables = ("users", "clients", "signing_keys", "sessions", "news")
        return {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}  # noqa: S608


def test_an_installation_moves_is_interrupted_goes_on_and_every_token_of_before_is_good(
    postgres: PostgresServer, house: tuple[Path, dict[str, Any], dict[str, str]], tmp_path: Path
) -> None:
    path, tokens, env = house
    env = {**env, "FASTAUTH_DATABASE_URL": postgres.url()}
    env["FASTAUTH_MASTER_KEY"] = (path / "master.key").read_text().strip()
    command = ["migrate", "--from", f"sqlite:///{path / 'fastauth.db'}"]
    process = subprocess.Popen(
        [FASTAUTH, *command, "--data-dir", str(tmp_path / "new")],
        env=environment(**env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: postgres.sql("SELECT count(*) FROM users") != "0")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < int(postgres.sql("SELECT count(*) FROM users")) < USERS, "it was not interrupted in the middle"
    refused = fastauth("user", "list", data_dir=tmp_path / "new", env=env)
    assert (refused.returncode, "migrate --from" in refused.stderr) == (1, True)
    began = time.monotonic()
    done = fastauth(*command, data_dir=tmp_path / "new", env=env)
    assert done.returncode == 0, done.stderr
    print(f"moved in {time.monotonic() - began:.1f} s")
    counts = counts_of(path)
    assert counts["users"] == USERS + 1
    assert {table: int(postgres.sql(f"SELECT count(*) FROM {table}")) for table in counts} == counts  # noqa: S608
    assert "the counts are the same on both sides" in done.stdout
    with running_server(tmp_path / "new", env=env) as server:
        assert server.verify(tokens["token"]).status == 200
        assert server.verify(tokens["revoked"]).status == 401
        assert refreshed(server, tokens["refresh_token"]).status == 200
        assert server.login(f"u{USERS - 1}", PASSWORD).status == 200
        headers = {"Authorization": f"Bearer {tokens['token']}"}
        assert server.request("POST", "/logout", headers=headers).status == 204  # the news go on behind the old ones
        wait_for(lambda: server.verify(tokens["token"]).status == 401, 1)
    again = fastauth(*command, data_dir=tmp_path / "new", env=env)
    assert (again.returncode, "in use" in again.stderr) == (1, True)


def test_what_cannot_be_moved_is_refused_with_a_reason(
    postgres: PostgresServer, house: tuple[Path, dict[str, Any], dict[str, str]], tmp_path: Path
) -> None:
    path, _, env = house
    origin = f"sqlite:///{path / 'fastauth.db'}"
    env = {**env, "FASTAUTH_DATABASE_URL": postgres.create("other")}

    def refusal(code: int, *command: str, **more: str) -> str:
        done = fastauth(*command, data_dir=tmp_path / "other", env={**env, **more})
        assert done.returncode == code, done.stdout
        assert json.dumps(done.stderr).count("\\n") == 1
        return done.stderr

    assert "master" in refusal(1, "migrate", "--from", origin, FASTAUTH_MASTER_KEY="B" * 43)
    assert "no database" in refusal(
        1, "migrate", "--from", f"sqlite:///{tmp_path}/none.db", FASTAUTH_MASTER_KEY="B" * 43
    )
    assert "--from takes" in refusal(2, "migrate", "--from", "postgresql://x/y")
    with running_server(path, env=CHEAP):
        good = (path / "master.key").read_text().strip()
        assert "stop it first" in refusal(1, "migrate", "--from", origin, FASTAUTH_MASTER_KEY=good)
    assert postgres.sql("SELECT count(*) FROM users", "other") == "0"
