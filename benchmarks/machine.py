"""What a result file must say about where it was made."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastauth import core

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("argon2-cffi", "cryptography", "cython", "granian", "msgspec", "pyjwt", "uvloop")


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
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "revision": revision,
        "implementation": core.IMPLEMENTATION,
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
    }
