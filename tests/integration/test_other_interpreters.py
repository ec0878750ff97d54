"""The package as others install it: built by another Python, from a clean clone, without the compiler's leftovers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.running import FULL, environment

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.14", "3.13", "3.12")


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


@pytest.mark.full
@pytest.mark.timeout(1_800)
@pytest.mark.skipif(not FULL, reason="builds and installs for minutes: only in make test-full")
def test_the_unit_suite_passes_on_a_wheel_installed_by_every_other_python(tmp_path: Path) -> None:
    pythons = [python for version in VERSIONS if (python := interpreter(version))]
    if not pythons:
        pytest.skip(f"there is no Python of {', '.join(VERSIONS)} on this machine")
    for number, python in enumerate(pythons):
        install_and_test(python, tmp_path / str(number))


def install_and_test(python: str, folder: Path) -> None:
    """Build and install a clean clone, and run its unit suite and the main job with it."""
    folder.mkdir()
    clone, venv = folder / "clone", folder / "venv"
    clean = environment(PIP_DISABLE_PIP_VERSION_CHECK="1")
    commands = [
        ["git", "clone", "--quiet", "--local", str(ROOT), str(clone)],
        [python, "-m", "venv", str(venv)],
        [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", f"{clone}[redis,test]"],
        [str(venv / "bin/python"), "-m", "pytest", "-q", "tests", "-m", "not integration"],
        [str(venv / "bin/python"), "-m", "pytest", "-q", "tests/integration/test_login_and_verify.py"],
    ]
    for command in commands:
        cwd = clone if clone.exists() else folder
        outcome = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **clean}, check=False
        )
        assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-4000:]
