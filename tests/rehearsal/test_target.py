"""Whom a rehearsal may load."""

import socket
from pathlib import Path

import pytest

from fastauth.rehearsal.errors import RehearsalRefused
from fastauth.rehearsal.target import open_target
from tests.cases import each
from tests.integration.running import free_port


def resolving_to(*addresses: str) -> object:
    return lambda *_, **__: [(None, None, None, None, (address, 80)) for address in addresses]


def test_this_machine_may_be_loaded_by_address_and_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            found = open_target(f"http://{host}:{port}", [], None)
            assert (found.address, found.origin.port, found.tls) == ("127.0.0.1", port, None)
            assert found.is_this_machine


@each("url", ["http://192.0.2.7:8000", "https://192.0.2.7"])
def test_another_machine_is_refused_with_what_to_do(url: str) -> None:
    with pytest.raises(RehearsalRefused) as refusal:
        open_target(url, ["https://auth.example"], None)
    secure = url.replace("http://", "https://")
    assert f'[rehearsal] targets = ["{secure}"]' in str(refusal.value)
    assert f"FASTAUTH_REHEARSAL__TARGETS={secure}" in str(refusal.value)


@pytest.mark.parametrize("addresses", [("192.0.2.7",), ("127.0.0.1", "192.0.2.7")])
def test_a_name_must_resolve_to_loopback_alone(monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]) -> None:
    monkeypatch.setattr("fastauth.rehearsal.target.socket.getaddrinfo", resolving_to(*addresses))
    with pytest.raises(RehearsalRefused, match="not listed as yours"):
        open_target("http://auth.example", [], None)


@pytest.mark.parametrize(
    "listed",
    ["http://auth.example", "https://auth.example:8443", "http://other.example:8000", "http://auth.example:80"],
)
def test_what_is_listed_counts_by_scheme_host_and_port(monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    monkeypatch.setattr("fastauth.rehearsal.target.socket.getaddrinfo", resolving_to("192.0.2.7"))
    with pytest.raises(RehearsalRefused, match="not listed as yours"):
        open_target("http://auth.example:8000", [listed], None)


def test_a_listed_target_is_loaded_at_the_address_that_was_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastauth.rehearsal.target.socket.getaddrinfo", resolving_to("192.0.2.7"))
    asked: list[tuple[str, int]] = []

    def connect(where: tuple[str, int], **_: object) -> socket.socket:
        asked.append(where)
        return socket.socket()

    monkeypatch.setattr("fastauth.rehearsal.target.socket.create_connection", connect)
    found = open_target("https://auth.example", ["https://auth.example:443"], None)
    assert asked == [("192.0.2.7", 443)]
    assert found.endpoint[:2] == ("192.0.2.7", 443)
    assert found.endpoint.name == "auth.example"
    assert not found.is_this_machine


def test_nobody_there_is_one_clear_line() -> None:
    with pytest.raises(RehearsalRefused, match="cannot be reached: connection refused; is the server running there"):
        open_target(f"http://127.0.0.1:{free_port()}", [], None)
    with pytest.raises(RehearsalRefused, match=r"no-such-host.invalid: no such host"):
        open_target("http://no-such-host.invalid", [], None)
    with pytest.raises(RehearsalRefused, match="the target must be like"):
        open_target("127.0.0.1:8000", [], None)


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(RehearsalRefused, match="not a file of PEM certificates"):
        open_target("https://127.0.0.1:8000", [], tmp_path / "ca.pem")
