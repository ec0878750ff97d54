"""Clients that people really use, against a real server: Authlib, requests-oauthlib, openid-client, oauth4webapi."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError, InvalidGrantError, LegacyApplicationClient
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from tests.cases import each
from tests.integration.running import (
    CHEAP,
    RunningServer,
    cheap_hash,
    copy_without_users,
    fastauth,
    import_lines,
    running_server,
)

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).with_name("oauth_clients")
BUILD = Path(__file__).parents[2] / "build" / "oauth-clients"
PASSWORD = "correct horse battery staple"
OLDEST_NODE = 20


class Registered(NamedTuple):
    """A server, and a client that may use it."""

    server: RunningServer
    client_id: str
    client_secret: str

    def refresh_token(self) -> str:
        token: str = self.server.login("alice", PASSWORD).json["refresh_token"]
        return token

    def url(self, path: str) -> str:
        return self.server.url + path


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registered]:
    data_dir = copy_without_users(tmp_path_factory.mktemp("clients") / "data")
    import_lines(data_dir, [{"username": "alice", "password_hash": cheap_hash(PASSWORD)}])
    added = fastauth(
        "client", "add", "app", "--grant", "client_credentials", "--scope", "a b", "--json", data_dir=data_dir
    )
    assert added.returncode == 0, added.stderr
    made = json.loads(added.stdout)
    with running_server(data_dir, env=CHEAP) as server:
        yield Registered(server, made["client_id"], made["client_secret"])


# ------------------------------------------------------------------ Python


@each("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_gets_introspects_and_revokes_a_token(registered: Registered, method: str) -> None:
    with AuthlibSession(
        registered.client_id, registered.client_secret, scope="a", token_endpoint_auth_method=method
    ) as session:
        token = session.fetch_token(registered.url("/token"), grant_type="client_credentials")
        assert (token["token_type"], token["scope"]) == ("Bearer", "a")
        assert session.introspect_token(registered.url("/introspect"), token["access_token"]).json()["active"] is True
        assert session.revoke_token(registered.url("/revoke"), token["access_token"]).status_code == 200
        answer = session.introspect_token(registered.url("/introspect"), token["access_token"])
        assert answer.json() == {"active": False}


def test_authlib_refreshes_a_persons_session(registered: Registered) -> None:
    with AuthlibSession("fastauth", token_endpoint_auth_method="none") as session:
        first = registered.refresh_token()
        second = session.refresh_token(registered.url("/token"), refresh_token=first)
        third = session.refresh_token(registered.url("/token"), refresh_token=second["refresh_token"])
        assert len({first, second["refresh_token"], third["refresh_token"]}) == 3
        session.revoke_token(registered.url("/revoke"), third["refresh_token"])
        with pytest.raises(OAuthError) as refused:
            session.refresh_token(registered.url("/token"), refresh_token=third["refresh_token"])
        assert refused.value.error == "invalid_grant"


@pytest.fixture
def plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """oauthlib refuses it unless told that it is a test."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.mark.usefixtures("plain_http")
def test_requests_oauthlib_gets_tokens_of_its_own_with_both_methods(registered: Registered) -> None:
    client_id, secret = registered.client_id, registered.client_secret
    for how in (
        {"auth": HTTPBasicAuth(client_id, secret)},
        {"include_client_id": True, "client_secret": secret},
    ):
        with OAuth2Session(client=BackendApplicationClient(client_id, scope=["a", "b"])) as session:
            token = session.fetch_token(registered.url("/token"), **how)
            assert token["scope"] == ["a", "b"]
            assert session.get(registered.url("/verify")).json()["sub"] == client_id
            asked = {"token": token["access_token"]}
            answer = session.post(registered.url("/introspect"), data=asked, auth=HTTPBasicAuth(client_id, secret))
            assert answer.json()["active"] is True
    with (
        OAuth2Session(client=BackendApplicationClient(client_id)) as session,
        pytest.raises(InvalidClientError),
    ):
        session.fetch_token(registered.url("/token"), auth=HTTPBasicAuth(client_id, "wrong"))


@pytest.mark.usefixtures("plain_http")
def test_requests_oauthlib_refreshes_a_persons_session(registered: Registered) -> None:
    first = registered.refresh_token()
    with OAuth2Session(client=LegacyApplicationClient("fastauth")) as session:
        second = session.refresh_token(registered.url("/token"), refresh_token=first, client_id="fastauth")
        third = session.refresh_token(registered.url("/token"), refresh_token=second["refresh_token"])
        assert len({first, second["refresh_token"], third["refresh_token"]}) == 3
        with pytest.raises(InvalidGrantError):
            session.refresh_token(registered.url("/token"), refresh_token=first)


# ------------------------------------------------------------------ JavaScript


@pytest.fixture(scope="module")
def packages() -> Path:
    """The packages of the lock file, installed once a machine."""
    node, npm = shutil.which("node"), shutil.which("npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout if node else "v0"
    if npm is None or int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        reason = f"needs node {OLDEST_NODE} or newer, and npm"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    lock = (FOLDER / "package-lock.json").read_bytes()
    folder = BUILD / hashlib.sha256(lock).hexdigest()[:16]
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(FOLDER / name, folder)
        subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, check=True)
        (folder / "installed").touch()
    return folder


@pytest.mark.parametrize("library", ["openid-client", "oauth4webapi"])
def test_a_library_of_the_javascript_world_does_everything(
    registered: Registered, packages: Path, library: str
) -> None:
    script = Path(shutil.copy(FOLDER / f"{library}.mjs", packages))
    order = {
        "issuer": registered.server.url,
        "clientId": registered.client_id,
        "clientSecret": registered.client_secret,
        "refreshToken": registered.refresh_token(),
    }
    ran = subprocess.run(
        ["node", script.name], input=json.dumps(order), capture_output=True, text=True, cwd=packages, check=False
    )
    assert ran.returncode == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    done = {"scope": "a", "before": True, "client": registered.client_id, "after": False}
    assert report == {
        "basic": done,
        "post": done,
        "refresh": 3,
        "revoked": "invalid_grant",
        "wrong": "basic",
    }
