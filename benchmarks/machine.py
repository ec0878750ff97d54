"""What a result file must say about where it was made."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fastauth import core
from fastauth.server.diagnosis import has_autogroups

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
# Figures are of the code: one record that was just replaced does not make the next one's revision dirty.
_OTHERS = (
    ".",
    ":!CHANGELOG.md",
    ":!benchmarks/README.md",
    ":!benchmarks/*/record.json",
    ":!benchmarks/results",
    ":!benchmarks/plots",
    ":!docs/scaling.md",
)
# What else is measured, or measures, and how it tells its version.
TOOLS: Final = {
    "go": ("version",),
    "node": ("--version",),
    "wrk": ("-v",),
    "redis-server": ("--version",),
    "psql": ("--version",),
    "haproxy": ("-v",),
    "perf": ("--version",),
}
PACKAGES = ("argon2-cffi", "cryptography", "cython", "granian", "msgspec", "pyjwt", "uvloop")


def _version_of(tool: str) -> str | None:
    """The first line that it says about its version; None where there is no such tool."""
    try:
        said = subprocess.run([tool, *TOOLS[tool]], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter((said.stdout or said.stderr).splitlines()), "").strip()


def describe() -> dict[str, Any]:
    """Machine, kernel, versions, revision, which core, and the command line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    git = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=False)
    revision = git(["git", "describe", "--always"]).stdout.strip()
    if revision and git(["git", "diff", "--quiet", "HEAD", "--", *_OTHERS]).returncode:
        revision += "-dirty"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "autogroups": has_autogroups(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "revision": revision,
        "implementation": core.IMPLEMENTATION,
        "tools": {name: found for name in TOOLS if (found := _version_of(name)) is not None},
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
    }
