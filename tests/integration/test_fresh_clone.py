"""What a stranger does first: clone, ``make run``, paste the line that it prints."""

import json
import os
import signal
import subprocess
from pathlib import Path

import jwt
import pytest

from tests.integration.running import environment, free_port, wait_for, without_audit

ROOT = Path(__file__).parents[2]


def strangers_environment() -> dict[str, str]:
    """Without what the make that runs this suite tells the makes below it."""
    return {
        name: value
        for name, value in environment(FASTAUTH_DRAIN_S="0").items()
        if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    }


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed state of this repository in an empty folder."""
    path = tmp_path_factory.mktemp("clone") / "fastauth"
    subprocess.run(["git", "clone", "--quiet", "--local", str(ROOT), str(path)], check=True, timeout=60)
    return path


@pytest.mark.timeout(300)
def test_make_run_serves_and_the_printed_curl_line_logs_in(clone: Path, tmp_path: Path) -> None:
    port, data_dir = free_port(), tmp_path / "data"
    out = tmp_path / "out.txt"
    with out.open("w") as stdout:
        make = subprocess.Popen(
            ["make", "run", f"PORT={port}", f"DATA_DIR={data_dir}"],
            cwd=clone,
            stdout=stdout,
            stdin=subprocess.DEVNULL,
            env=strangers_environment(),
        )
    try:
        wait_for(lambda: "ready on" in out.read_text() or make.poll() is not None, timeout_s=240)
        lines = out.read_text().splitlines()
        assert make.poll() is None, lines
        (password_line,) = [line for line in lines if line.startswith("password: ")]
        password = password_line.removeprefix("password: ")
        assert password.isalnum()
        assert len(password) >= 20
        (curl_line,) = [line for line in lines if line.startswith("curl ")]
        assert password in curl_line
        pasted = subprocess.run(["bash", "-c", curl_line], capture_output=True, text=True, check=True, timeout=30)
        token = json.loads(pasted.stdout)["token"]
        url = f"http://127.0.0.1:{port}"
        verified = subprocess.run(
            ["curl", "-s", "-H", f"Authorization: Bearer {token}", f"{url}/verify"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert json.loads(verified.stdout)["preferred_username"] == "admin"
        key = jwt.PyJWKClient(f"{url}/.well-known/jwks.json").get_signing_key_from_jwt(token)
        assert jwt.decode(token, key, algorithms=["RS256"], audience=url, issuer=url)["scope"] == "user"
    finally:
        if make.poll() is None:
            os.kill(int((data_dir / "fastauth.pid").read_text()), signal.SIGTERM)
        make.wait(30)
    assert not (data_dir / "fastauth.pid").exists()


@pytest.mark.timeout(120)
def test_the_second_make_run_builds_nothing_and_says_nothing_about_admin(clone: Path, tmp_path: Path) -> None:
    for number in range(2):
        out, err = tmp_path / f"out{number}.txt", tmp_path / f"err{number}.txt"
        with out.open("w") as stdout, err.open("w") as stderr:
            make = subprocess.Popen(
                ["make", "run", f"PORT={free_port()}", f"DATA_DIR={tmp_path / 'data'}"],
                cwd=clone,
                stdout=stdout,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                env=strangers_environment(),
            )
        wait_for(lambda out=out, make=make: "ready on" in out.read_text() or make.poll() is not None, timeout_s=90)
        assert make.poll() is None, err.read_text()
        os.kill(int((tmp_path / "data" / "fastauth.pid").read_text()), signal.SIGTERM)
        assert make.wait(30) == 0
    assert len(out.read_text().splitlines()) == 1
    assert [json.loads(line)["event"] for line in without_audit(err.read_text())] == ["stopping"]
