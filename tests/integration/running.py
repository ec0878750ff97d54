"""A real ``fastauth serve`` on a free port, and the few ways tests talk to it."""

import asyncio
import atexit
import contextlib
import functools
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fastauth.backends.passwords import PROFILES, hash_password
from fastauth.jose import base64url
from fastauth.jose.keys import SigningKey
from fastauth.jose.wrapping import MasterKey
from fastauth.server.limiting import table_path
from fastauth.server.settings import load_settings
from fastauth.server.workers import WorkerTable, workers_path

T = TypeVar("T")

FASTAUTH = str(Path(sys.executable).with_name("fastauth"))
CHEAP = {"FASTAUTH_PASSWORDS__PROFILE": "cheapest-for-tests", "FASTAUTH_ALLOW_INSECURE": "1"}


UNLIMITED = {f"FASTAUTH_LIMITS__LOGIN_{name}": "off" for name in ("PER_IP", "PER_USER", "GLOBAL")}


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**more: str) -> dict[str, str]:
    """This process's environment without any setting of fastauth, and with those given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FASTAUTH_")}
    if "FASTAUTH_PURE_PYTHON" in os.environ:  # the suite also runs on the twin
        clean["FASTAUTH_PURE_PYTHON"] = os.environ["FASTAUTH_PURE_PYTHON"]
    return {**clean, **more}


def fastauth(
    *arguments: str, data_dir: Path, stdin: str | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of the command line to its end. Without ``stdin`` it reads from nothing."""
    return subprocess.run(
        [FASTAUTH, *arguments, "--data-dir", str(data_dir)],
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        env=environment(**(env or {})),
        timeout=60,
        check=False,
    )


class Answer:
    """An HTTP answer, read whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def without_audit(log: str) -> list[str]:
    """The lines of a log but for those of the audit stream."""
    return [line for line in log.splitlines() if '"stream":"audit"' not in line]


class RunningServer:
    """The process, its address and its output."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, data_dir: Path, out: Path, err: Path) -> None:
        self.process = process
        self.port = port
        self.data_dir = data_dir
        self.out = out
        self.err = err

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """Everything on standard error so far."""
        return self.err.read_text()

    @property
    def complaints(self) -> str:
        """The log without the audit stream, which stands among it by default."""
        return "".join(f"{line}\n" for line in without_audit(self.log))

    @property
    def first_password(self) -> str:
        """The password of ``admin`` as the first start printed it."""
        lines = self.out.read_text().splitlines()
        return next(line.removeprefix("password: ") for line in lines if line.startswith("password: "))

    def workers(self) -> list[int]:
        """The process ids of the workers that live."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def workers_that_work(self, count: int) -> list[int]:
        """The same, once so many have started: the ready line is that of the first one."""
        table = WorkerTable.of_running(workers_path(self.data_dir))
        wait_for(lambda: len(table.living()) == count)
        return sorted(state.pid for state in table.living())

    def request(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def login(self, username: str, password: str) -> Answer:
        """``POST /auth``."""
        body = json.dumps({"username": username, "password": password})
        return self.request("POST", "/auth", body, {"Content-Type": "application/json"})

    def verify(self, token: str) -> Answer:
        """``GET /verify``."""
        return self.request("GET", "/verify", headers={"Authorization": f"Bearer {token}"})

    def raw(self, data: bytes, *, timeout_s: float = 5.0, half_close: bool = False) -> bytes:
        """Send bytes as they are; out: everything until the server closes or is silent for the timeout."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while chunk := connection.recv(65536):
                    received += chunk
            return received

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


def table_files(data_dir: Path) -> list[Path]:
    """The bucket tables of a server's data directory, of any size."""
    name = table_path(load_settings(None, {"FASTAUTH_DATA_DIR": str(data_dir)}, {})).name
    return list(Path("/dev/shm").glob(name.rpartition("-")[0] + "-*"))  # noqa: S108 - where the server itself looks


def wait_for(condition: Any, timeout_s: float = 20.0) -> None:
    """Return as soon as ``condition()`` is true. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come true")
        time.sleep(0.02)


@contextlib.contextmanager
def running_server(
    data_dir: Path, *arguments: str, env: dict[str, str] | None = None, port: int | None = None
) -> Iterator[RunningServer]:
    """``fastauth serve`` from its ready line to its end.

    It drains at once and does not limit logins, because a test has one address and few accounts, unless ``env`` says
    otherwise.
    """
    port = port or free_port()
    data_dir.mkdir(exist_ok=True, parents=True, mode=0o700)
    out, err = data_dir / "stdout.txt", data_dir / "stderr.txt"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            [FASTAUTH, "serve", "--port", str(port), "--data-dir", str(data_dir), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            env=environment(**{"FASTAUTH_DRAIN_S": "0", **UNLIMITED, **(env or {})}),
        )
    server = RunningServer(process, port, data_dir, out, err)
    try:
        wait_for(lambda: "ready on" in out.read_text() or process.poll() is not None)
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}: {err.read_text()}")
        yield server
    finally:
        try:
            server.stop()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            for table in table_files(data_dir):
                table.unlink()


FULL = os.environ.get("FASTAUTH_TEST_FULL") == "1"


def cheap_hash(password: str) -> str:
    """A hash of the profile ``cheapest-for-tests``."""
    return hash_password(password, PROFILES["cheapest-for-tests"])


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The results of calls that do not depend on one another, a few at a time."""
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(lambda call: call(), calls))


@functools.cache
def _without_users() -> Path:
    path = Path(tempfile.mkdtemp(prefix="fastauth-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    with running_server(path, env=CHEAP):
        pass
    assert fastauth("user", "delete", "admin", data_dir=path).returncode == 0
    return path


def copy_without_users(data_dir: Path) -> Path:
    """Fill ``data_dir`` as a server without users would leave it: schema, master key, signing key.

    They are made once and copied, because making them takes a second.
    """
    data_dir.mkdir(mode=0o700, exist_ok=True)
    for name in ("fastauth.db", "master.key"):
        shutil.copy2(_without_users() / name, data_dir)
    return data_dir


def import_lines(data_dir: Path, lines: Sequence[Mapping[str, Any]], env: Mapping[str, str] = CHEAP) -> None:
    """``fastauth user import`` of these lines; every one must be good."""
    data_dir.mkdir(mode=0o700, exist_ok=True)
    file = data_dir / "import.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    imported = fastauth("user", "import", str(file), data_dir=data_dir, env=dict(env))
    assert imported.returncode == 0, imported.stderr


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class RawAnswer(NamedTuple):
    """An HTTP answer as it stood in the bytes of a connection; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def answers_in(data: bytes) -> list[RawAnswer]:
    """Every final answer in the bytes that one connection received (none of them to a HEAD request).

    Raises ValueError for bytes that are not HTTP, and for an answer that breaks off.
    """
    answers = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = status_line.split(" ")
        if not version.startswith("HTTP/1.") or not end:
            raise ValueError(f"not an HTTP answer: {status_line!r}")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if len(data) < length:
            raise ValueError("the answer breaks off")
        if int(status) >= 200:
            answers.append(RawAnswer(int(status), headers, data[:length]))
        data = data[length:]
    return answers


def received_on(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def until_closed(port: int, data: bytes, *, half_close: bool = False, timeout_s: float = 5.0) -> list[RawAnswer]:
    """Send bytes; out: the answers up to the moment the server closes. Raises TimeoutError if it stays open."""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        with contextlib.suppress(ConnectionError):  # the server may close before it has read everything
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
    return answers_in(bytes(received))


def login_bytes(username: str, password: str) -> bytes:
    """``POST /auth`` as bytes, for a connection that stays open."""
    body = json.dumps({"username": username, "password": password}).encode()
    return (
        b"POST /auth HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def verify_bytes(token: str) -> bytes:
    """``GET /verify`` as bytes, for a connection that stays open."""
    return f"GET /verify HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


class KeepAlive:
    """One connection that stays open: plain asyncio streams, so that one test can drive thousands of requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> "KeepAlive":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, request: bytes) -> RawAnswer:
        """One request, and its answer. Raises IncompleteReadError when the server closes instead."""
        self.writer.write(request)
        await self.writer.drain()
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        length = int(lines[0].partition(b":")[2]) if lines else 0
        (answer,) = answers_in(head + await self.reader.readexactly(length))
        return answer

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def signing_key(data_dir: Path) -> SigningKey:
    """The private key of the server on this data directory, so that a test can sign what the server never would."""
    master = MasterKey.from_text((data_dir / "master.key").read_text())
    with contextlib.closing(sqlite3.connect(data_dir / "fastauth.db")) as database:
        ((kid, wrapped),) = database.execute("SELECT kid, wrapped_private FROM signing_keys").fetchall()
    return SigningKey.from_der(master.unwrap(wrapped, kid))


def compact_jws(key: SigningKey, header: bytes, payload: bytes) -> str:
    """A signed token of any header and any payload, however wrong."""
    signed = base64url.encode(header) + b"." + base64url.encode(payload)
    return (signed + b"." + base64url.encode(key.sign(signed))).decode()
