"""The package as others install it: built by another Python, from a clean clone, without the compiler's leftovers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.running import environment

ROOT = Path(__file__).parents[2]


def interpreter(version: str) -> str | None:
    """A Python of this version that really runs: on PATH, or one of pyenv's."""
    candidates = [shutil.which(f"python{version}")]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False).stdout.strip()
        candidates += [str(path) for path in sorted(Path(root, "versions").glob(f"{version}.*/bin/python"))]
    for candidate in candidates:
        if (
            candidate
            and subprocess.run([candidate, "-c", "import venv"], capture_output=True, check=False).returncode == 0
        ):
            return candidate
    return None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_the_unit_suite_passes_on_an_installed_wheel(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} on this machine")
    clone, venv = tmp_path / "clone", tmp_path / "venv"
    clean = environment(PIP_DISABLE_PIP_VERSION_CHECK="1")
    commands = [
        ["git", "clone", "--quiet", "--local", str(ROOT), str(clone)],
        [python, "-m", "venv", str(venv)],
        [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", f"{clone}[redis,test]"],
        [str(venv / "bin/python"), "-m", "pytest", "-q", "tests", "-m", "not integration"],
        [str(venv / "bin/python"), "-m", "pytest", "-q", "tests/integration/test_login_and_verify.py"],
    ]
    for command in commands:
        cwd = clone if clone.exists() else tmp_path
        outcome = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **clean}, check=False
        )
        assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-4000:]
