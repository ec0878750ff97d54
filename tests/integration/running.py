"""A real ``fastauth serve`` on a free port, and the few ways tests talk to it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FASTAUTH = str(Path(sys.executable).with_name("fastauth"))
CHEAP = {"FASTAUTH_PASSWORDS__PROFILE": "cheapest-for-tests", "FASTAUTH_ALLOW_INSECURE": "1"}


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
    def first_password(self) -> str:
        """The password of ``admin`` as the first start printed it."""
        lines = self.out.read_text().splitlines()
        return next(line.removeprefix("password: ") for line in lines if line.startswith("password: "))

    def workers(self) -> list[int]:
        """The process ids of the workers that live."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

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
    """``fastauth serve`` from its ready line to its end; drains at once unless ``env`` says otherwise."""
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
            env=environment(**{"FASTAUTH_DRAIN_S": "0", **(env or {})}),
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
