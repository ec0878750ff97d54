"""Logins that a directory decides: a real slapd that is allowed to let an empty password in (``bind_anon_cred``)."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cases import each
from tests.identity_servers import BASE, OWN_DN, OWN_PASSWORD, Slapd, running_slapd, self_signed
from tests.integration.running import CHEAP, RunningServer, copy_without_users, fastauth, import_lines, running_server
from tests.integration.test_identity_http import claims_of

pytestmark = pytest.mark.integration

PASSWORD = "correct horse"


def environment_of(url: str, **more: str) -> dict[str, str]:
    chosen = {
        "CHAIN": "local,ldap",
        "LDAP_URL": url,
        "LDAP_START_TLS": "0",
        "LDAP_BASE_DN": f"ou=people,{BASE}",
        "LDAP_BIND_DN": OWN_DN,
        "LDAP_BIND_PASSWORD": OWN_PASSWORD,
        "LDAP_TIMEOUT_S": "1",
        **more,
    }
    return {**CHEAP, **{f"FASTAUTH_IDENTITY__{name}": value for name, value in chosen.items()}}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    return self_signed(folder, "server")


@pytest.fixture(scope="module")
def directory(certificate: tuple[Path, Path]) -> Iterator[Slapd]:
    with running_slapd(certificate) as slapd:
        ann = slapd.add_user("ann", PASSWORD, mail="ann@example.org", departmentNumber="7")
        slapd.add_user("bare", None)
        slapd.add_user("a*b", PASSWORD)
        slapd.add_group("admins", ann)
        slapd.add_group("others", OWN_DN)
        yield slapd


@pytest.fixture(scope="module")
def server(directory: Slapd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data_dir = copy_without_users(tmp_path_factory.mktemp("ldap") / "data")
    import_lines(data_dir, [{"username": "local", "password": PASSWORD}])
    env = environment_of(
        f"ldap://127.0.0.1:{directory.port}",
        LDAP_GROUP_BASE_DN=f"ou=groups,{BASE}",
        LDAP_GROUP_SCOPES=f"admin=CN=admins, ou=groups,{BASE}; audit=cn=others,ou=groups,{BASE}",
        LDAP_CLAIMS="mail,departmentNumber",
    )
    with running_server(data_dir, env=env) as running:
        yield running


def test_a_user_of_the_directory_logs_in_with_the_scopes_of_his_groups(server: RunningServer) -> None:
    answer = server.login("Ann", PASSWORD)
    assert answer.status == 200, (answer.body, server.log)
    claims = claims_of(answer.json["token"])
    assert claims["scope"] == "user admin"
    assert claims["mail"] == "ann@example.org"
    assert claims["preferred_username"] == "ann"
    assert claims_of(server.login("ann", PASSWORD).json["token"])["sub"] == claims["sub"]


@each("name", ["ann", "bare", "nobody", "local"])
def test_a_wrong_password_or_an_unknown_name_is_401(server: RunningServer, name: str) -> None:
    assert server.login(name, "wrong").status == 401


def test_an_empty_password_is_refused_though_the_directory_would_let_it_in(
    server: RunningServer, directory: Slapd
) -> None:
    import ldap

    connection = ldap.initialize(f"ldap://127.0.0.1:{directory.port}")
    connection.simple_bind_s(f"uid=ann,ou=people,{BASE}", "")  # it succeeds
    connection.unbind_s()
    assert server.login("ann", "").status == 401


@each("name", ["*", "a*", "ann)(uid=*", "\\2a", "ann)(objectClass=*))(|(uid=x"])
def test_a_name_is_never_a_filter(server: RunningServer, name: str) -> None:
    assert server.login(name, PASSWORD).status == 401


def test_a_star_in_a_name_is_a_star(server: RunningServer) -> None:
    assert server.login("a*b", PASSWORD).status == 200


@each("password", ["a\0b", "ä" * 100, "x" * 5000])
def test_odd_passwords_are_refused_and_break_nothing(server: RunningServer, password: str) -> None:
    assert server.login("ann", password).status == 401
    assert server.login("ann", PASSWORD).status == 200


def test_connections_are_kept_and_a_restart_of_the_directory_goes_unnoticed(
    server: RunningServer, directory: Slapd
) -> None:
    assert server.login("ann", PASSWORD).status == 200
    directory.stop()
    directory.start()
    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(lambda _: server.login("ann", PASSWORD).status, range(8)))
    assert statuses == [200] * 8


def test_a_directory_that_is_frozen_is_a_503_in_time_and_local_users_log_in(
    server: RunningServer, directory: Slapd
) -> None:
    assert server.login("ann", PASSWORD).status == 200
    directory.pause()
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda number: server.login(f"ann{number}", PASSWORD), range(8)))
        assert {answer.status for answer in answers} == {503}
        assert time.monotonic() - began < 1.8
        assert server.login("local", PASSWORD).status == 200
        assert '"dependency":"ldap"' in server.log
    finally:
        directory.go_on()
    ends = time.monotonic() + 8
    while server.login("ann", PASSWORD).status != 200:
        assert time.monotonic() < ends
        time.sleep(0.1)
    assert PASSWORD not in server.log
    assert OWN_PASSWORD not in server.log


@each("url", ["ldaps", "ldap"])
def test_the_certificate_of_the_directory_is_verified(
    directory: Slapd, certificate: tuple[Path, Path], tmp_path: Path, url: str
) -> None:
    port = directory.tls_port if url == "ldaps" else directory.port
    secure = {"LDAP_START_TLS": "1", "CHAIN": "ldap"}
    trusting = environment_of(f"{url}://127.0.0.1:{port}", **secure, LDAP_CA_FILE=str(certificate[0]))
    strange = environment_of(f"{url}://127.0.0.1:{port}", **secure)
    good = fastauth("doctor", "--json", data_dir=copy_without_users(tmp_path / url), env=trusting)
    bad = fastauth("doctor", "--json", data_dir=copy_without_users(tmp_path / url), env=strange)
    states = [
        {one["subject"]: one["state"] for one in map(json.loads, text.stdout.splitlines())}["ldap"]
        for text in (good, bad)
    ]
    assert states == ["good", "broken"], (good.stdout, bad.stdout)
    assert OWN_PASSWORD not in good.stdout + bad.stdout


def test_the_wrong_password_of_our_own_is_a_503_and_not_a_wrong_password_of_the_user(
    directory: Slapd, tmp_path: Path
) -> None:
    env = environment_of(f"ldap://127.0.0.1:{directory.port}", LDAP_BIND_PASSWORD="wrong", CHAIN="ldap")
    with running_server(copy_without_users(tmp_path / "data"), env=env) as server:
        assert server.login("ann", PASSWORD).status == 503
        assert "refuses ldap_bind_dn" in server.log
