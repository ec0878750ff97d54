"""Instructions a call, counted by valgrind's callgrind: the same on every run, whatever else the machine does."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from cryptography.hazmat.backends.openssl import backend

from benchmarks.instructions.workloads import TOKENS, WORKLOADS
from benchmarks.machine import ROOT
from fastauth import _core

MARK: Final = "getsid"
_MOST_S: Final = 600
# By which the C library and OpenSSL choose among their variants of a function.
_FEATURES: Final = ("adx", "avx", "avx2", "bmi1", "bmi2", "sha_ni", "sse4_2")
_PACKAGES: Final = ("cryptography", "cython", "msgspec")


class CountingFailed(Exception):
    """Valgrind is missing, or what it ran failed; the text says which."""


def versions() -> dict[str, str]:
    """What has to be equal for two counts to be comparable. Raises CountingFailed without valgrind."""
    program = _valgrind()
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    compiler = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", Path(_core.__file__).read_bytes())
    return {
        "architecture": platform.machine(),
        "processor features": " ".join(name for name in _FEATURES if name in _processor_features()),
        "python": f"{platform.python_version()}, {platform.python_compiler()}",
        "core": f"{_core.IMPLEMENTATION}, {compiler.group().decode() if compiler else 'compiler unknown'}",
        "libc": " ".join(platform.libc_ver()),
        "openssl": backend.openssl_version_text(),
        "valgrind": told,
        **{name: version(name) for name in _PACKAGES},
    }


def instructions(names: Sequence[str]) -> dict[str, float]:
    """Instructions of one call of each workload: (those of 2n calls - those of n calls) / n, so that neither the start
    nor the loop's ends are in it. Raises CountingFailed.
    """
    chosen = {workload.name: workload for workload in WORKLOADS if workload.name in names}
    if set(names) != set(chosen):
        raise CountingFailed("no such workload: " + ", ".join(sorted(set(names) - set(chosen))))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if any(workload.on_application for workload in chosen.values()):
            from benchmarks.instructions.application import prepare

            prepare(folder, TOKENS)
        output = folder / "counted"
        _run(folder, output, list(chosen))
        counted = {}
        for at, workload in enumerate(chosen.values()):
            # Each part ends at a mark: what came before the workload, n calls, 2n calls.
            once, twice = (_total(output.with_name(f"{output.name}.{3 * at + part}")) for part in (2, 3))
            counted[workload.name] = round((twice - once) / workload.calls, 1)
        return counted


def _run(folder: Path, output: Path, names: list[str]) -> None:
    command = [_valgrind(), "--tool=callgrind", f"--callgrind-out-file={output}", f"--dump-before={MARK}"]
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        subprocess.run(
            [*command, sys.executable, "-m", "benchmarks.instructions", str(folder), *names],
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=_MOST_S,
        )
    except subprocess.CalledProcessError as error:
        raise CountingFailed(f"callgrind ended with {error.returncode}:\n{error.stderr[-2_000:]}") from None
    except subprocess.TimeoutExpired:
        raise CountingFailed(f"callgrind was not done after {_MOST_S} s") from None


def _total(path: Path) -> int:
    try:
        found = re.search(r"^summary: (\d+)$", path.read_text(), re.MULTILINE)
    except FileNotFoundError:
        found = None
    if found is None:
        raise CountingFailed(f"callgrind wrote no total at a mark; does this C library have {MARK}?")
    return int(found[1])


def _valgrind() -> str:
    program = shutil.which("valgrind")
    if program is None:
        raise CountingFailed("valgrind is missing; install it with the system's package manager (Debian: valgrind)")
    return program


def _processor_features() -> set[str]:
    text = Path("/proc/cpuinfo").read_text()
    return {name for line in text.splitlines() if line.startswith("flags") for name in line.partition(":")[2].split()}
