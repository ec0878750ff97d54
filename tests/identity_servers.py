"""Real sources of identities, ended by their own pids: a small HTTP service, and Debian's slapd."""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.running import free_port, wait_for

BASE: Final = "dc=example,dc=org"
OWN_DN: Final = f"cn=fastauth,{BASE}"
OWN_PASSWORD: Final = "own-secret"
_SLAPD: Final = "/usr/sbin/slapd"
_starter: Final = ThreadPoolExecutor(1, "slapd-starter")


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for localhost that is its own authority, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "9",
    ]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, "-out", cert, "-keyout", key], check=True, capture_output=True)
    return cert, key


class IdentityService:
    """Speaks the exchange of the contract; what it answers can be changed while it runs.

    ``users`` is {name: (password, subject, claims)}; ``requests`` what it was sent: headers and body of each.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.users: dict[str, tuple[str, str, dict[str, Any]]] = {}
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.status: int | None = None
        self.body: bytes | None = None
        self.wait_s = 0.0
        self.headers: dict[str, str] = {}
        self.is_endless = False
        self.hang_ups = 0
        self.under_way = 0
        self.most_under_way = 0
        self.left = 0
        self.connections = 0
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def setup(self) -> None:
                super().setup()
                service.connections += 1

            def do_POST(self) -> None:
                service._serve(self)

            def log_message(self, *_arguments: object) -> None:
                """Nobody reads it."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_arguments: object) -> None:
                """A client that leaves is a subject here, not an accident."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}/check"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        sent = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append((dict(handler.headers.items()), sent))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.hang_ups:
                self.hang_ups -= 1
                handler.close_connection = True
                return
            self._wait(handler)
            self._answer(handler, sent)
        except OSError:
            self.left += 1
        finally:
            with self._lock:
                self.under_way -= 1

    def _wait(self, handler: BaseHTTPRequestHandler) -> None:
        """Until the time is over or whoever asked has left."""
        ends = time.monotonic() + self.wait_s
        handler.connection.settimeout(0.02)
        while time.monotonic() < ends:
            try:
                if handler.connection.recv(1) == b"":
                    raise ConnectionAbortedError
            except TimeoutError:
                pass
        handler.connection.settimeout(30)

    def _answer(self, handler: BaseHTTPRequestHandler, sent: dict[str, Any]) -> None:
        password, subject, claims = self.users.get(sent["username"], ("", "", {}))
        status, answer = 404, b"{}"
        if sent["username"] in self.users:
            status = 200 if sent["password"] == password else 401
            answer = json.dumps({"subject": subject, "claims": claims}).encode() if status == 200 else b"{}"
        handler.send_response(self.status or status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        if self.is_endless:
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            while True:
                handler.wfile.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
        body = answer if self.body is None else self.body
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@contextlib.contextmanager
def identity_service(tls: ssl.SSLContext | None = None) -> Iterator[IdentityService]:
    """A service for as long as the block lasts."""
    service = IdentityService(tls)
    try:
        yield service
    finally:
        service.close()


_CONFIG: Final = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {folder}/slapd.pid
allow bind_anon_cred bind_anon_dn
{tls}
database mdb
maxsize 10485760
suffix "{base}"
rootdn "cn=root,{base}"
rootpw root-secret
directory {folder}/data
index objectClass,uid,entryUUID eq
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{own_dn}" read by anonymous auth by * none
"""
_ENTRIES: Final = f"""\
dn: {BASE}
objectClass: domain
dc: example

dn: {OWN_DN}
objectClass: applicationProcess
objectClass: simpleSecurityObject
cn: fastauth
userPassword: {OWN_PASSWORD}

dn: ou=people,{BASE}
objectClass: organizationalUnit
ou: people

dn: ou=groups,{BASE}
objectClass: organizationalUnit
ou: groups
"""


class Slapd:
    """A directory with ``people`` and ``groups``; ``add_user`` and ``add_group`` fill it."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        """In: a certificate and its key for StartTLS and ldaps."""
        if not Path(_SLAPD).exists():
            missing = "slapd is not installed; run: apt-get install -y slapd libldap2-dev libsasl2-dev"
            if os.environ.get("CI") == "true":
                pytest.fail(missing)
            pytest.skip(missing)
        self.folder = Path(tempfile.mkdtemp(prefix="fastauth-slapd-"))
        (self.folder / "data").mkdir()
        tls = "" if certificate is None else "TLSCertificateFile {}\nTLSCertificateKeyFile {}".format(*certificate)
        text = _CONFIG.format(folder=self.folder, base=BASE, own_dn=OWN_DN, tls=tls)
        (self.folder / "slapd.conf").write_text(text)
        self.port, self.tls_port = free_port(), free_port()
        self._serves_tls = certificate is not None
        self._load("slapadd", _ENTRIES)
        self.start()

    def start(self) -> None:
        urls = f"ldap://127.0.0.1:{self.port}" + (f" ldaps://127.0.0.1:{self.tls_port}" if self._serves_tls else "")
        command = [_SLAPD, "-d", "0", "-h", urls, "-f", str(self.folder / "slapd.conf")]
        self.process = _starter.submit(subprocess.Popen, command, stderr=subprocess.DEVNULL).result()
        wait_for(self._answers, 10)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        shutil.rmtree(self.folder)

    def add_user(self, name: str, password: str | None, *, unit: str = "people", **attributes: str) -> str:
        """Out: the DN."""
        dn = f"uid={name},ou={unit},{BASE}"
        lines = {"objectClass": "inetOrgPerson", "uid": name, "cn": name, "sn": name, **attributes}
        if password is not None:
            lines["userPassword"] = password
        self._modify(f"dn: {dn}\n" + "\n".join(f"{key}: {value}" for key, value in lines.items()))
        return dn

    def add_group(self, name: str, *members: str) -> str:
        """Out: the DN."""
        dn = f"cn={name},ou=groups,{BASE}"
        self._modify(
            "\n".join([f"dn: {dn}", "objectClass: groupOfNames", f"cn: {name}", *(f"member: {one}" for one in members)])
        )
        return dn

    def _modify(self, entry: str) -> None:
        import ldap

        attributes: dict[str, list[bytes]] = {}
        for line in entry.splitlines():
            name, _, value = line.partition(": ")
            attributes.setdefault(name, []).append(value.encode())
        (dn,) = attributes.pop("dn")
        connection = ldap.initialize(f"ldap://127.0.0.1:{self.port}")
        connection.simple_bind_s(f"cn=root,{BASE}", "root-secret")
        connection.add_s(dn.decode(), list(attributes.items()))
        connection.unbind_s()

    def _load(self, program: str, text: str) -> None:
        command = [f"/usr/sbin/{program}", "-f", str(self.folder / "slapd.conf")]
        subprocess.run(command, input=text, text=True, check=True, capture_output=True)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


@contextlib.contextmanager
def running_slapd(certificate: tuple[Path, Path] | None = None) -> Iterator[Slapd]:
    """A directory for as long as the block lasts."""
    slapd = Slapd(certificate)
    try:
        yield slapd
    finally:
        slapd.close()
