"""``fastauth rehearse`` against real servers."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.identity_servers import self_signed
from tests.integration.running import (
    CHEAP,
    FASTAUTH,
    RunningServer,
    cheap_hash,
    copy_without_users,
    environment,
    fastauth,
    free_port,
    import_lines,
    running_server,
    wait_for,
)

PASSWORD = "never-to-be-seen-anywhere"
UNLIMITED = {"FASTAUTH_LIMITS__REFRESH_PER_IP": "off"}
NAMES = [f"crowd{number}" for number in range(20)]


def installation(path: Path, password_hash: str) -> Path:
    """A data directory with the crowd in it, and the crowd's passwords beside it."""
    data_dir = copy_without_users(path)
    import_lines(data_dir, [{"username": name, "password_hash": password_hash} for name in NAMES])
    users = data_dir / "users.txt"
    users.write_text("".join(f"{name}:{PASSWORD}\n" for name in NAMES))
    users.chmod(0o600)
    return data_dir


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data_dir = installation(tmp_path_factory.mktemp("rehearsal"), cheap_hash(PASSWORD))
    with running_server(data_dir, env={**CHEAP, **UNLIMITED}) as server:
        yield server


def rehearse(server: RunningServer, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    users = (
        () if "--username" in arguments or "--users" in arguments else ("--users", str(server.data_dir / "users.txt"))
    )
    return fastauth("rehearse", server.url, *users, *arguments, data_dir=server.data_dir, **more)


def answers(server: RunningServer, route: str, status: str = "2xx") -> int:
    text = server.request("GET", "/metrics").body.decode()
    found = re.search(rf'^fastauth_requests_total{{route="{route}",status="{status}"}} ([\d.]+)$', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def says_no_secret(*texts: str) -> None:
    for text in texts:
        for secret in (PASSWORD, "fa_rt_", "eyJ", "Traceback"):
            assert secret not in text


def test_the_report_counts_what_the_server_counts(server: RunningServer, tmp_path: Path) -> None:
    page, machine = tmp_path / "report.html", tmp_path / "report.json"
    before = {route: answers(server, route) for route in ("/auth", "/token", "/verify")}
    outcome = rehearse(
        server,
        *("--logins", "20/s", "--refresh", "25/s", "--verify", "100/s", "--for", "2s", "--no-ceilings"),
        *("--html", str(page), "--json", str(machine)),
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    report = json.loads(machine.read_text())
    lanes = {lane["lane"]: lane for lane in report["lanes"]}
    assert {name: (lane["offered"], lane["good"]) for name, lane in lanes.items()} == {
        "login": (40, 40),
        "refresh": (50, 50),
        "verify": (200, 200),
    }
    opened = report["preparation"]["opened"]
    assert opened == report["preparation"]["wanted"] == 14
    after = {route: answers(server, route) - count for route, count in before.items()}
    assert after == {"/auth": 40 + opened, "/token": 50, "/verify": 200}
    for lane in lanes.values():
        assert [row["at_s"] for row in lane["rows"]] == [0, 1]
        assert 0 < lane["p50_ms"] <= lane["p99_ms"] <= lane["max_ms"] < 3_000
    assert report["met"]
    assert "The plan was met" in outcome.stdout
    assert "<svg" in page.read_text()
    assert page.stat().st_mode & 0o077 == 0
    says_no_secret(outcome.stdout, outcome.stderr, page.read_text(), machine.read_text())


def test_ceilings_are_told_beside_the_plan(server: RunningServer, tmp_path: Path) -> None:
    machine = tmp_path / "report.json"
    arguments = ("--verify", "200/s", "--for", "1s", "--ceiling-for", "3s", "--json", str(machine))
    outcome = rehearse(server, *arguments)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    (lane,) = json.loads(machine.read_text())["lanes"]
    steps = lane["ceiling"]["steps"]
    assert [step["offered_per_s"] for step in steps[:2]] == [50.0, 80.0]
    planned_is_met = 200.0  # beyond the steps that fit into 3 s, and the server kept it up
    assert (
        max(step["good_per_s"] for step in steps) < lane["ceiling"]["per_s"] == pytest.approx(planned_is_met, rel=0.05)
    )
    assert lane["share"] == pytest.approx(200 / lane["ceiling"]["per_s"], rel=0.01)
    assert "of ceiling" in outcome.stdout


def test_a_limit_that_is_too_low_is_what_breaks_first(server: RunningServer, tmp_path: Path) -> None:
    machine = tmp_path / "report.json"
    data_dir = installation(tmp_path / "limited", cheap_hash(PASSWORD))
    limits = {"FASTAUTH_LIMITS__REFRESH_PER_IP": "10/m burst 15"}
    with running_server(data_dir, env={**CHEAP, **limits}) as limited:
        arguments = ("--refresh", "20/s", "--verify", "20/s", "--for", "2s", "--no-ceilings", "--json", str(machine))
        outcome = rehearse(limited, *arguments)
    assert outcome.returncode == 1, outcome.stderr
    report = json.loads(machine.read_text())
    assert report["verdict"]["what"] == "limit refresh_per_ip"
    refused = report["lanes"][0]["statuses"]["429"]
    assert refused == report["lanes"][0]["codes"]["rate_limited"] == report["refused_by_limit"]["refresh_per_ip"]
    assert 24 <= refused <= 25
    assert "FASTAUTH_LIMITS__REFRESH_PER_IP" in outcome.stdout
    assert "The plan was not met by refresh" in outcome.stdout


def test_more_logins_than_can_be_hashed_break_first(tmp_path: Path) -> None:
    data_dir = copy_without_users(tmp_path / "owasp")
    import_lines(data_dir, [{"username": name, "password": PASSWORD} for name in NAMES[:4]], env={})
    users, machine = tmp_path / "users.txt", tmp_path / "report.json"
    users.write_text("".join(f"{name}:{PASSWORD}\n" for name in NAMES[:4]))
    users.chmod(0o600)
    with running_server(data_dir) as owasp:
        arguments = ("--logins", "400/s", "--for", "3s", "--no-ceilings", "--users", str(users))
        outcome = rehearse(owasp, *arguments, "--json", str(machine))
    assert outcome.returncode == 1, outcome.stderr
    report = json.loads(machine.read_text())
    assert report["verdict"]["what"] == "login overloaded", report["verdict"]
    assert report["lanes"][0]["codes"]["overloaded"] > 300
    assert "more cores or more nodes" in outcome.stdout


def test_with_tls_the_certificate_is_verified(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "localhost")
    data_dir = installation(tmp_path / "tls", cheap_hash(PASSWORD))
    env = {**CHEAP, **UNLIMITED, "FASTAUTH_TLS__CERT_FILE": str(cert), "FASTAUTH_TLS__KEY_FILE": str(key)}
    with running_server(data_dir, env=env) as server:
        url = f"https://localhost:{server.port}"
        users = ("--users", str(data_dir / "users.txt"))
        arguments = ("rehearse", url, *users, "--verify", "50/s", "--for", "1s", "--no-ceilings")
        outcome = fastauth(*arguments, "--ca-file", str(cert), data_dir=data_dir)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        strange = fastauth(*arguments, data_dir=data_dir)
        assert strange.returncode == 1
        assert re.search(r"fastauth: https://localhost:\d+ cannot be asked: .*self.signed", strange.stderr)


def test_two_generators_share_the_load(server: RunningServer, tmp_path: Path) -> None:
    machine = tmp_path / "report.json"
    arguments = ("--refresh", "20/s", "--verify", "51/s", "--for", "1s", "--no-ceilings", "--generators", "2")
    outcome = rehearse(server, *arguments, "--json", str(machine), "--users", "-", stdin=f"crowd2:{PASSWORD}\n")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    report = json.loads(machine.read_text())
    assert report["generator"]["processes"] == 2
    assert [lane["good"] for lane in report["lanes"]] == [20, pytest.approx(51, abs=1)]


# ---------------------------------------------------------------- refusals


def refusal(outcome: subprocess.CompletedProcess[str]) -> str:
    """The one line."""
    assert outcome.returncode in (1, 2), outcome.stdout
    (line,) = outcome.stderr.splitlines()
    says_no_secret(outcome.stdout, outcome.stderr)
    return line.removeprefix("fastauth: ")


def test_what_is_not_ones_own_is_refused(tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("a:b\n")
    users.chmod(0o600)
    arguments = ("rehearse", "http://192.0.2.7:8000", "--verify", "1/s", "--users", str(users))
    line = refusal(fastauth(*arguments, data_dir=tmp_path))
    assert line.startswith("http://192.0.2.7:8000 is not on this machine and not listed as yours")
    assert '[rehearsal] targets = ["https://192.0.2.7:8000"]' in line
    assert not (tmp_path / "fastauth.db").exists()


def test_users_that_others_may_read_and_wrong_passwords_are_refused(server: RunningServer, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text(f"crowd1:{PASSWORD}\n")
    users.chmod(0o644)
    plan = ("--verify", "5/s", "--for", "1s", "--no-ceilings")
    assert "is open to others (mode 0644); run: chmod 600" in refusal(rehearse(server, *plan, "--users", str(users)))
    wrong = rehearse(server, *plan, "--username", "crowd1", "--password-stdin", stdin=PASSWORD + "wrong\n")
    assert "the server refuses the user 'crowd1' or the password; make users" in refusal(wrong)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--verify", "5/s"), "say who logs in: --users FILE, or --username NAME"),
        (("--users", "x"), "say what is rehearsed: --logins"),
        (("--users", "x", "--verify", "5"), "a rate is like 500/s"),
        (("--users", "x", "--verify", "5/s", "--for", "2h"), "--for must be from 1s to 1h"),
        (("--users", "x", "--verify", "5/s", "--json", "/no-such-folder/x.json"), "cannot be written"),
    ],
)
def test_wrong_usage_is_one_line(server: RunningServer, arguments: tuple[str, ...], says: str) -> None:
    assert says in refusal(fastauth("rehearse", server.url, *arguments, data_dir=server.data_dir))


def test_a_server_that_is_not_there_or_is_another_is_one_line(server: RunningServer) -> None:
    users = ("--users", str(server.data_dir / "users.txt"), "--verify", "5/s")
    nobody = fastauth("rehearse", f"http://127.0.0.1:{free_port()}", *users, data_dir=server.data_dir)
    assert "cannot be reached: connection refused; is the server running there?" in refusal(nobody)
    other = subprocess.Popen(
        [sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
    )
    try:
        assert other.stdout is not None
        port = re.search(r"port (\d+)", other.stdout.readline())
        assert port is not None
        outcome = fastauth("rehearse", f"http://127.0.0.1:{port[1]}", *users, data_dir=server.data_dir)
        assert "is not ready: /readyz says HTTP 404" in refusal(outcome)
    finally:
        other.kill()
        other.wait()
        other.stdout and other.stdout.close()


# ---------------------------------------------------------------- ends


def generators_of(process: "subprocess.Popen[Any]") -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with contextlib.suppress(FileNotFoundError):
        return [int(pid) for pid in path.read_text().split()]
    return []


@contextlib.contextmanager
def rehearsing(server: RunningServer, out: Path, *arguments: str) -> "Iterator[subprocess.Popen[Any]]":
    """A long rehearsal that has come to its plan."""
    plan = ("--verify", "50/s", "--logins", "5/s", "--for", "60s", "--no-ceilings", *arguments)
    users = ("--users", str(server.data_dir / "users.txt"), "--data-dir", str(server.data_dir))
    with out.open("w") as file:
        process = subprocess.Popen(
            [FASTAUTH, "rehearse", server.url, *plan, *users],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment(),
        )
    try:
        wait_for(lambda: "s of 60: login" in out.read_text() or process.poll() is not None)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_ctrl_c_ends_it_early_with_a_report(server: RunningServer, tmp_path: Path) -> None:
    out, machine = tmp_path / "out", tmp_path / "report.json"
    with rehearsing(server, out, "--json", str(machine)) as process:
        generators = generators_of(process)
        assert len(generators) == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 1, out.read_text()
    assert "Interrupted after" in out.read_text()
    report = json.loads(machine.read_text())
    assert report["interrupted"]
    assert 0 < report["ran_s"] < 30
    login, verify = report["lanes"]
    assert verify["good"] == verify["offered"] == pytest.approx(50 * report["ran_s"], rel=0.25)
    assert login["met"]
    says_no_secret(out.read_text(), machine.read_text())
    wait_for(lambda: not Path(f"/proc/{generators[0]}").exists())


def test_nothing_loads_the_server_once_the_command_is_killed(server: RunningServer, tmp_path: Path) -> None:
    with rehearsing(server, tmp_path / "out") as process:
        (generator,) = generators_of(process)
        process.kill()
        process.wait()
        wait_for(lambda: not Path(f"/proc/{generator}").exists(), 5)


def test_a_server_that_dies_under_way_is_told(tmp_path: Path) -> None:
    data_dir = installation(tmp_path / "dies", cheap_hash(PASSWORD))
    machine, out = tmp_path / "report.json", tmp_path / "out"
    with (
        running_server(data_dir, env={**CHEAP, **UNLIMITED}) as server,
        rehearsing(server, out, "--json", str(machine)) as process,
    ):
        server.stop()
        time.sleep(2.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 1, out.read_text()
    report = json.loads(machine.read_text())
    assert report["verdict"]["what"] == "server gone", report["verdict"]
    assert any(event["what"] == "/readyz does not answer" for event in report["events"])
    assert report["lanes"][1]["codes"]["lost"] > 50


def test_on_a_terminal_it_draws_and_ends_with_the_report(server: RunningServer) -> None:
    ours, theirs = pty.openpty()
    plan = ("--verify", "20/s", "--for", "2s", "--no-ceilings", "--users", str(server.data_dir / "users.txt"))
    process = subprocess.Popen(
        [FASTAUTH, "rehearse", server.url, *plan, "--data-dir", str(server.data_dir)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm-256color", COLUMNS="140", LINES="50"),
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        deadline = time.monotonic() + 20
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while time.monotonic() < deadline:
                if select.select([ours], [], [], 0.2)[0]:
                    shown += os.read(ours, 65536)
        assert process.wait(10) == 0, shown
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
    text = shown.decode()
    assert "2 s of 2 s" in text
    assert "What breaks first" in text
    assert "\x1b[?25h" in text  # the cursor is back
    says_no_secret(text)


def test_a_server_pays_nothing_for_it() -> None:
    code = "import sys, fastauth.cli.serve, fastauth.server.worker; print([n for n in sys.modules if 'rehears' in n])"
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    assert outcome.stdout == "[]\n"
