"""How many requests a second a server answers: closed loops from the generator's core, every answer a good one."""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.load.servers import CONNECTIONS, LOAD_CORE, PASSWORD, SERVER_CORE, on_core
from benchmarks.machine import ROOT
from fastauth.backends.passwords import PROFILES, ProfileName, check_password, hash_password
from fastauth.jose.algorithms import Algorithm
from fastauth.jose.keys import SigningKey

_HASHES = 30


def wrk(
    url: str,
    seconds: float,
    token: str | None = None,
    tokens: Path | None = None,
    first: int = 0,
    form: tuple[str, str] | None = None,
) -> float:
    """Requests a second that wrk gets answered, all of them 2xx: with one token, with those of a file in turn
    (after the first so many), or of a form (its body and its Authorization header).
    """
    header = ["-H", f"Authorization: Bearer {token}"] if token else []
    script = (
        []
        if tokens is None
        else ["-s", str(Path(__file__).with_name("tokens.lua")), url, "--", str(tokens), str(first)]
    )
    if form is not None:
        script = ["-s", str(Path(__file__).with_name("form.lua")), url, "--", *form]
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
    output = subprocess.run([*command, *header, *(script or [url])], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in output, output
    assert "Socket errors" not in output, output
    match = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert match, output
    return float(match[1])


def posts(port: int, seconds: float, request: str, connections: int = CONNECTIONS) -> float:
    """The same request again and again."""
    asked = [str(port), str(seconds), str(connections)]
    return float(_generated("benchmarks.load.closed_loop", asked, [request])["per_second"])


def logins(port: int, seconds: float, connections: int = CONNECTIONS) -> float:
    """Logins of the one user."""
    body = json.dumps({"username": "admin", "password": PASSWORD})
    head = f"POST /auth HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return posts(port, seconds, f"{head}\r\n\r\n{body}", connections)


class Sessions:
    """Sessions that each refresh with the token they got last, from one measurement to the next."""

    def __init__(self, port: int, tokens: list[str], authorization: str = "") -> None:
        """In: their first tokens, and who the client is where it has a secret."""
        self._port = port
        self._tokens = tokens
        self._authorization = authorization

    def refresh(self, seconds: float) -> float:
        """Refreshes a second."""
        source = {"tokens": self._tokens, "authorization": self._authorization}
        result = _generated("benchmarks.load.refresh_loop", [str(self._port), str(seconds)], source)
        self._tokens = result["tokens"]
        return float(result["per_second"])


def form(path: str, fields: dict[str, str], basic: str) -> str:
    """A request as text."""
    body = urlencode(fields)
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {basic}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )


def raw_signatures_per_second(alg: Algorithm, seconds: float) -> float:
    """What ``cryptography`` signs on the server's core, as much at a time as a token has."""
    key, data = SigningKey.generate(alg), bytes(500)
    return _calls_per_second(lambda: key.sign(data), seconds)


def _calls_per_second(call: Callable[[], object], seconds: float) -> float:
    with on_core(SERVER_CORE):
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            call()
            count += 1
        return count / (time.perf_counter() - started)


def hash_time_s(profile: ProfileName) -> float:
    """One check of a password, alone on the server's core."""
    with on_core(SERVER_CORE):
        stored = hash_password(PASSWORD, PROFILES[profile])
        times = []
        for _ in range(_HASHES):
            started = time.perf_counter()
            assert check_password(PASSWORD, stored)
            times.append(time.perf_counter() - started)
        return statistics.median(times)


def _generated(module: str, arguments: list[str], source: object) -> dict[str, Any]:
    """What a generator on its own core says; all answers are 200."""
    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-m", module, *arguments]
    output = subprocess.run(
        command, input=json.dumps(source), capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    result: dict[str, Any] = json.loads(output)
    assert set(result["statuses"]) == {"200"}, result["statuses"]
    return result
