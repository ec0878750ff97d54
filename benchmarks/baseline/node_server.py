"""Installs and runs the baseline in Node, ``benchmarks/baseline/node``: panva's oidc-provider."""

import base64
import http.client
import json
import os
import secrets
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from benchmarks.baseline.stopping import stop
from benchmarks.machine import ROOT

# The resources that server.mjs knows: access tokens for one are opaque, for the other, its default, they are JWTs.
OPAQUE, JWT = "urn:baseline:opaque", "urn:baseline:jwt"
TOKEN_PATH, INTROSPECTION_PATH = "/token", "/token/introspection"

_CLIENT = "baseline"
_SOURCE = Path(__file__).with_name("node")
_BUILD = ROOT / "build" / "node-baseline"
_INPUTS = ("package.json", "package-lock.json", ".npmrc")
_READY = "ready "
_READY_S = 60.0  # its keys are found by chance
_INSTALL_S = 180.0
_ANSWER_S = 10.0


class NodeMissing(RuntimeError):
    """There is no ``node`` or ``npm`` on this machine, or npm could not install what the server needs."""


@dataclass(frozen=True, slots=True)
class NodeServer:
    """A server that runs: its URL, its client's ``Authorization`` header, an opaque access token, refresh tokens, and
    the version of the Node that it runs on.
    """

    url: str
    authorization: str
    opaque_token: str
    refresh_tokens: tuple[str, ...]
    node_version: str


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NodeMissing(f"the Node baseline needs Node with npm: there is no `{name}` on PATH")
    return found


def _is_installed() -> bool:
    # npm writes this file last, when all packages are in place.
    installed = _BUILD / "node_modules" / ".package-lock.json"
    return installed.exists() and all(
        (_BUILD / name).exists() and (_BUILD / name).read_bytes() == (_SOURCE / name).read_bytes() for name in _INPUTS
    )


def installed_server() -> Path:
    """The directory with server.mjs and its packages, installed by ``npm ci`` if the lock file is another than before.

    Raises NodeMissing, with what npm said.
    """
    _tool("node")
    if not _is_installed():
        npm = _tool("npm")
        _BUILD.mkdir(parents=True, exist_ok=True)
        for name in _INPUTS:
            shutil.copyfile(_SOURCE / name, _BUILD / name)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(command, cwd=_BUILD, capture_output=True, text=True, check=False, timeout=_INSTALL_S)
        except subprocess.TimeoutExpired:
            raise NodeMissing(f"`npm ci` for the Node baseline did not end within {_INSTALL_S:.0f} s") from None
        if done.returncode != 0:
            raise NodeMissing(f"`npm ci` for the Node baseline failed: {done.stderr.strip()}")
    shutil.copyfile(_SOURCE / "server.mjs", _BUILD / "server.mjs")  # beside its packages, where it finds them
    return _BUILD


def _node(folder: Path) -> str:
    """The Node that came with the packages: the oldest that oidc-provider supports is newer than many machines'. Where
    there is none for this machine, that on PATH.
    """
    shipped = (folder / "node_modules" / f"node-linux-{machine}" / "bin" / "node" for machine in ("x64", "arm64"))
    return next((str(path) for path in shipped if path.exists()), _tool("node"))


def _basic(secret: str) -> str:
    return "Basic " + base64.b64encode(f"{_CLIENT}:{secret}".encode()).decode()


def _opaque_token(url: str, authorization: str) -> str:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_ANSWER_S)
    headers = {"Authorization": authorization, "Content-Type": "application/x-www-form-urlencoded"}
    try:
        body = urlencode({"grant_type": "client_credentials", "resource": OPAQUE, "scope": "user"})
        connection.request("POST", TOKEN_PATH, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"the Node baseline gave no opaque token: it answered {answer.status}")
    return str(json.loads(content)["access_token"])


def _ready(process: "subprocess.Popen[str]", authorization: str) -> NodeServer:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], _READY_S)
    line = process.stdout.readline() if readable else ""
    if not line.startswith(_READY):
        raise RuntimeError(f"the Node baseline did not become ready; exit code: {process.poll()}")
    said = json.loads(line.removeprefix(_READY))
    opaque = _opaque_token(said["url"], authorization)
    return NodeServer(said["url"], authorization, opaque, tuple(said["refresh_tokens"]), said["node"])


@contextmanager
def node_server(core: str | None = "0", *arguments: str) -> Iterator[NodeServer]:
    """The server, from its ready line to its end by SIGTERM.

    In: ``core`` pins it to one core; None leaves it all of them. ``arguments`` are options of server.mjs, such as
    ``--alg ES256`` or ``--sessions 32``. Raises NodeMissing, and RuntimeError for a server that does not start.
    """
    folder = installed_server()
    pin = ["taskset", "-c", core] if core is not None else []
    secret = secrets.token_urlsafe(32)
    environment = {**os.environ, "NODE_ENV": "production", "BASELINE_SECRET": secret}
    process = subprocess.Popen(
        [*pin, _node(folder), "server.mjs", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    try:
        yield _ready(process, _basic(secret))
    finally:
        stop(process)
