"""Two nodes behind each load balancer of ``deploy/``, as shipped: restarts, deaths, an application they protect."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from fastauth.rehearsal.arrivals import steady
from fastauth.rehearsal.clients import Behaviour, FixedRequests, Logins, RefreshChains
from fastauth.rehearsal.open_loop import Stream, drive
from tests.integration.running import (
    CHEAP,
    FULL,
    Answer,
    RunningServer,
    at_once,
    cheap_hash,
    fastauth,
    free_port,
    running_server,
    verify_bytes,
    wait_for,
)
from tests.integration.test_sessions import NO_LIMITS
from tests.postgres_servers import running_postgres
from tests.proxy_servers import DEPLOY, KINDS, ProxyServer, running_proxy

PASSWORD: Final = "correct horse battery staple"
USERS: Final = [(f"u{number}", PASSWORD) for number in range(20)]
BURST: Final = 100_000
DRAIN_S: Final = 3 if FULL else 2  # HAProxy's checks need one second
RESTARTS: Final = 5 if FULL else 1
SETTINGS: Final = {
    **CHEAP,
    **NO_LIMITS,
    # So high that nobody is refused; what is left of it shows by which address a login was counted.
    "FASTAUTH_LIMITS__LOGIN_PER_IP": f"1/m burst {BURST}",
    "FASTAUTH_LIMITS__RATELIMIT_FIELDS": "1",
    "FASTAUTH_ISSUER": "https://auth.example",
    "FASTAUTH_MASTER_KEY": "A" * 43,
    "FASTAUTH_PROXY__TRUSTED": "loopback",
    "FASTAUTH_DRAIN_S": str(DRAIN_S),
    # Two nodes that start, a database, two proxies and the load share the cores of whoever runs this.
    "FASTAUTH_DATABASE__ACQUIRE_TIMEOUT_S": "3",
    "FASTAUTH_DATABASE__STATEMENT_TIMEOUT_S": "3",
    "FASTAUTH_LANES__LOGIN_TARGET_S": "2",
}
FORGED: Final = "203.0.113.9"


class Application:
    """What is protected: answers every request with what it got, and keeps it."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = [[name.lower().replace("_", "-"), value] for name, value in self.headers.items()]
                got = {"method": self.command, "path": self.path, "body": body.decode(), "headers": headers}
                seen.append(got)
                told = json.dumps(got).encode()
                self.send_response(500 if self.path == "/broken" else 200)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names that http.server wants

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """A proxy that is stopped drops its connections."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class House:
    """Two nodes on one PostgreSQL, and an application."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.application = stack.enter_context(contextlib.closing(Application()))
        self.env = {**SETTINGS, "FASTAUTH_DATABASE_URL": stack.enter_context(running_postgres()).url()}
        lines = [json.dumps({"username": name, "password_hash": cheap_hash(password)}) for name, password in USERS]
        (folder / "users.jsonl").write_text("\n".join(lines) + "\n")
        done = fastauth("user", "import", str(folder / "users.jsonl"), data_dir=folder / "operator", env=self.env)
        assert done.returncode == 0, done.stderr
        self.nodes = at_once([partial(self._started, folder / name, free_port()) for name in ("one", "two")])
        stack.callback(self._tell_to_stop)

    def _tell_to_stop(self) -> None:
        """All at once, and without a drain."""
        for _ in range(2):
            for node in self.nodes:
                node.process.terminate()
            time.sleep(0.1)  # two signals at once are one

    def _started(self, data_dir: Path, port: int) -> RunningServer:
        return self._stack.enter_context(running_server(data_dir, env=self.env, port=port))

    def restart(self, number: int) -> None:
        """As an operator does it: SIGTERM, wait for the end, start."""
        node = self.nodes[number]
        assert node.stop() == 0
        self.start(number)

    def start(self, number: int) -> None:
        self.nodes[number] = self._started(self.nodes[number].data_dir, self.nodes[number].port)

    def kill(self, number: int) -> None:
        """SIGKILL to the whole node, parent first: it would replace its workers."""
        process = self.nodes[number].process
        for pid in (process.pid, *self.nodes[number].workers()):
            os.kill(pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with contextlib.ExitStack() as stack:
        yield House(tmp_path_factory.mktemp("house"), stack)


@pytest.fixture(scope="module")
def proxies(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ProxyServer]]:
    """Each of them, started when it is first wanted."""
    running: dict[str, ProxyServer] = {}
    with contextlib.ExitStack() as stack:

        def get(kind: str) -> ProxyServer:
            if kind not in running:
                ports = [node.port for node in house.nodes]
                folder = tmp_path_factory.mktemp(kind)
                running[kind] = stack.enter_context(running_proxy(kind, ports, house.application.port, folder))
                wait_for(lambda: asked(running[kind].port, "GET", "/readyz").status == 200)
            return running[kind]

        yield get


@pytest.fixture(params=KINDS)
def proxy(request: pytest.FixtureRequest, proxies: Callable[[str], ProxyServer]) -> ProxyServer:
    """Each kind in turn."""
    return proxies(request.param)


def asked(port: int, method: str, path: str, *headers: tuple[str, str], body: str | None = None) -> Answer:
    """One request with these header lines, however often one stands there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(None if body is None else body.encode())
        return Answer(connection.getresponse())
    finally:
        connection.close()


def login(port: int, *headers: tuple[str, str]) -> Answer:
    body = json.dumps({"username": "u0", "password": PASSWORD})
    return asked(port, "POST", "/auth", ("Content-Type", "application/json"), *headers, body=body)


def bearer(port: int) -> tuple[str, str]:
    """The header of somebody who has logged in."""
    answer = login(port)
    assert answer.status == 200, answer.body
    return "Authorization", f"Bearer {answer.json['token']}"


# ------------------------------------------------------------------ 200 requests a second


RATES: Final = {"verify": 140, "refresh": 40, "login": 20}
# Restarts are promised behind these two. To save time they are under load together, each with its 200 a second.
TOGETHER: Final[list[tuple[str, ...]]] = [("haproxy",), ("nginx",)] if FULL else [("haproxy", "nginx")]


class Failure(NamedTuple):
    """A request without its 200; times on the monotonic clock."""

    proxy: str
    stream: str
    due_s: float
    over_s: float
    status: int


class Load:
    """200 requests a second through one proxy, as long as something else goes on."""

    def __init__(self, proxy: ProxyServer) -> None:
        tokens = [login(proxy.port).json for _ in range(20)]
        self._proxy = proxy
        self._behaviours: dict[str, Behaviour] = {
            "verify": FixedRequests([verify_bytes(one["token"]) for one in tokens]),
            "refresh": RefreshChains([one["refresh_token"] for one in tokens]),
            "login": Logins(USERS),
        }
        self.failures: list[Failure] = []
        self.requests = 0
        self.slowest_ms = 0.0

    async def until(self, done: "asyncio.Task[None]") -> None:
        """A second at a time, on new connections each: some are opened at every moment of a restart."""
        while not done.done():
            result = await drive(
                self._proxy.port,
                [Stream(name, self._behaviours[name], steady(1, rate)) for name, rate in RATES.items()],
            )
            for name, rate in RATES.items():
                samples = result[name]
                assert len(samples) == rate
                self.requests += rate
                self.slowest_ms = max(self.slowest_ms, samples.quantile_ms(1))
                self.failures += [
                    Failure(
                        self._proxy.kind,
                        name,
                        result.started_s + row.due_s,
                        result.started_s + row.due_s + row.took_s,
                        row.status,
                    )
                    for row in samples.rows()
                    if row.status != 200
                ]


def under_load(proxies: Iterable[ProxyServer], work: Callable[[], None]) -> list[Load]:
    """In: what is done meanwhile."""
    loads = [Load(proxy) for proxy in proxies]

    async def run() -> None:
        done = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.gather(done, *(load.until(done) for load in loads))

    asyncio.run(run())
    return loads


@pytest.mark.parametrize("kinds", TOGETHER, ids=" and ".join)
def test_both_nodes_are_restarted_under_load_without_a_failed_request(
    house: House,
    proxies: Callable[[str], ProxyServer],
    kinds: tuple[str, ...],
    record_property: Callable[[str, object], None],
) -> None:
    """SECURITY 82: they end with 0, and one is stopped as soon as the other is back."""

    def restart_both() -> None:
        for _ in range(RESTARTS):
            for number in range(2):
                house.restart(number)

    loads = under_load(map(proxies, kinds), restart_both)
    assert [failure for load in loads for failure in load.failures] == []
    for kind, load in zip(kinds, loads, strict=True):
        assert load.requests >= 200 * 2 * DRAIN_S * RESTARTS
        told = {"proxy": kind, "requests": load.requests, "slowest_ms": round(load.slowest_ms)}
        record_property(f"restarts_behind_{kind}", told)


@pytest.mark.parametrize("kinds", TOGETHER, ids=" and ".join)
def test_when_a_node_is_killed_only_its_requests_in_flight_fail(
    house: House,
    proxies: Callable[[str], ProxyServer],
    kinds: tuple[str, ...],
    record_property: Callable[[str, object], None],
) -> None:
    killed: list[tuple[float, float]] = []  # from when to when

    def kill_and_start_again() -> None:
        for _ in range(RESTARTS):
            time.sleep(0.5)
            began_s = time.monotonic()
            house.kill(0)
            killed.append((began_s, time.monotonic()))
            time.sleep(1.5)  # the other node alone
            house.start(0)
            time.sleep(1)  # the proxies see that it is back

    loads = under_load(map(proxies, kinds), kill_and_start_again)
    failures = [failure for load in loads for failure in load.failures]
    in_flight = [one for one in failures if any(one.due_s <= until and one.over_s >= since for since, until in killed)]
    assert failures == in_flight
    requests = sum(load.requests for load in loads)
    record_property("killed", {"times": len(killed), "requests": requests, "failed": len(failures)})


# ------------------------------------------------------------------ what reaches fastauth


def left_of_the_limit(answer: Answer) -> int:
    """How many logins the address that this one was counted for has left on that node."""
    assert answer.status == 200, answer.body
    return int(answer.headers["ratelimit"].partition("r=")[2].partition(";")[0])


def test_the_address_that_a_client_claims_is_not_believed(proxy: ProxyServer) -> None:
    for _ in range(8):  # on both nodes
        login(proxy.port)
    for headers in (
        [("X-Forwarded-For", FORGED)],
        [("X-Forwarded-For", FORGED), ("X-Forwarded-For", f"{FORGED}, 127.0.0.1")],
        [("X_Forwarded_For", FORGED), ("Forwarded", f"for={FORGED}"), ("X-Real-IP", FORGED)],
    ):
        for _ in range(4):
            assert left_of_the_limit(login(proxy.port, *headers)) < BURST - 2


def test_a_client_cannot_have_its_address_taken_away(proxy: ProxyServer) -> None:
    """SECURITY 91: what stands in Connection is for one hop, and Envoy refuses to have this one named there."""
    for _ in range(8):
        login(proxy.port)
    answers = [login(proxy.port, ("Connection", "X-Forwarded-For"), ("X-Forwarded-For", FORGED)) for _ in range(4)]
    if proxy.kind == "envoy":
        assert [answer.status for answer in answers] == [400] * 4
    else:
        assert max(map(left_of_the_limit, answers)) < BURST - 2


def test_metrics_are_not_to_be_had_through_a_proxy(proxy: ProxyServer) -> None:
    """SECURITY 98."""
    assert asked(proxy.port, "GET", "/metrics").status == 403
    assert asked(proxy.port, "GET", "/metrics", ("Connection", "X-Forwarded-For, Via")).status in (400, 403)


# ------------------------------------------------------------------ an application that is protected


def of(application_answer: Answer, name: str) -> list[str]:
    """The values of a header as the application got it, "_" being "-" to it as to many frameworks."""
    assert application_answer.status == 200, application_answer.body
    return [value for header, value in application_answer.json["headers"] if header == name]


def test_a_request_with_a_good_token_reaches_the_application_with_its_subject_and_scope(proxy: ProxyServer) -> None:
    authorization = bearer(proxy.port)
    claims = asked(proxy.port, "GET", "/verify", authorization).json
    answer = asked(proxy.application_port, "POST", "/orders?of=today", authorization, body="one pizza")
    got = answer.json
    assert (got["method"], got["path"], got["body"]) == ("POST", "/orders?of=today", "one pizza")
    assert of(answer, "x-auth-subject") == [claims["sub"]]
    assert of(answer, "x-auth-scope") == ["user"]
    assert of(answer, "x-forwarded-for") == ["127.0.0.1"]


@pytest.mark.parametrize("authorization", [None, "Bearer x", "Bearer", "Basic YTpi", "Bearer a.b.c"])
def test_without_a_good_token_the_application_is_not_asked(
    house: House, proxy: ProxyServer, authorization: str | None
) -> None:
    before = len(house.application.seen)
    headers = [("X-Auth-Subject", "admin")] + ([("Authorization", authorization)] if authorization else [])
    for method in ("GET", "POST", "PUT"):
        answer = asked(proxy.application_port, method, "/orders", *headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert len(house.application.seen) == before


@pytest.mark.parametrize(
    "forged",
    [
        [("X-Auth-Subject", "admin"), ("X-Auth-Scope", "admin")],
        [("x-auth-subject", "admin"), ("X-AUTH-SUBJECT", "admin")],
        [("X_Auth_Subject", "admin"), ("X_AUTH_SCOPE", "admin")],
        [("X-Auth_Subject", "admin"), ("X_Auth-Scope", "admin")],
        [("Connection", "X-Auth-Subject, X-Auth-Scope"), ("X-Auth-Subject", "admin")],
        [
            ("X-Forwarded-For", FORGED),
            ("Forwarded", f"for={FORGED}"),
            ("X_Forwarded_For", FORGED),
            ("X-Forwarded_For", FORGED),
        ],
    ],
    ids=["plain", "twice", "with underscores", "with a mixture", "to be taken away", "an address"],
)
def test_nothing_that_a_client_says_of_itself_reaches_the_application(
    proxy: ProxyServer, forged: list[tuple[str, str]]
) -> None:
    authorization = bearer(proxy.port)
    subject = asked(proxy.port, "GET", "/verify", authorization).json["sub"]
    answer = asked(proxy.application_port, "GET", "/", authorization, *forged)
    assert of(answer, "x-auth-subject") == [subject]
    assert of(answer, "x-auth-scope") == ["user"]
    assert of(answer, "x-forwarded-for") == ["127.0.0.1"]
    assert of(answer, "forwarded") == []


def test_the_applications_own_errors_stay_its_own(proxy: ProxyServer) -> None:
    answer = asked(proxy.application_port, "GET", "/broken", bearer(proxy.port))
    assert answer.status == 500
    assert answer.json["path"] == "/broken"


def test_two_authorizations_are_not_one_good_one(house: House, proxy: ProxyServer) -> None:
    before = len(house.application.seen)
    answer = asked(proxy.application_port, "GET", "/", bearer(proxy.port), ("Authorization", "Bearer x"))
    assert answer.status in (400, 401)
    assert len(house.application.seen) == before


@pytest.mark.parametrize("kind", KINDS)
def test_with_no_node_to_ask_the_application_is_not_asked_either(
    house: House, proxies: Callable[[str], ProxyServer], kind: str, tmp_path: Path
) -> None:
    authorization = bearer(proxies(kind).port)
    before = len(house.application.seen)
    with running_proxy(kind, [free_port(), free_port()], house.application.port, tmp_path) as alone:
        for _ in range(3):
            answer = asked(alone.application_port, "GET", "/", authorization, ("X-Auth-Subject", "admin"))
            assert answer.status in (500, 502, 503)
    assert len(house.application.seen) == before


def test_a_script_of_haproxy_that_fails_lets_nobody_through(
    house: House, proxies: Callable[[str], ProxyServer], tmp_path: Path
) -> None:
    authorization = bearer(proxies("haproxy").port)
    before = len(house.application.seen)
    ports, fails = [node.port for node in house.nodes], {"core.httpclient()": "nothing_of_this_name()"}
    with running_proxy("haproxy", ports, house.application.port, tmp_path, fails) as broken:
        wait_for(lambda: asked(broken.port, "GET", "/readyz").status == 200)
        assert asked(broken.application_port, "GET", "/", authorization).status == 503
        assert "nothing_of_this_name" in broken.log
    assert len(house.application.seen) == before


# ------------------------------------------------------------------ the image


def test_the_health_check_of_the_image_passes_where_a_node_is_alive(house: House) -> None:
    (check,) = re.findall(r"^    CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    environment = {**os.environ, "FASTAUTH_PORT": str(house.nodes[0].port)}
    assert subprocess.run(json.loads(check), env=environment, check=False, timeout=30).returncode == 0
