"""Single requests beside the load."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from fastauth.rehearsal.asking import Connection, Health, Metrics, health, metrics, preflight
from fastauth.rehearsal.errors import RehearsalRefused
from fastauth.rehearsal.target import Target, open_target
from fastauth.rehearsal.watch import refused_between
from tests.rehearsal.test_open_loop import answer, small_server

READY = {"status": "ready"}
DOCUMENT = {"info": {"title": "fastauth", "version": "1.2.3"}}
METRICS = b"""# TYPE fastauth_limit_decisions counter
fastauth_limit_decisions_total{decision="refused",limit="login_per_ip"} 7.0
fastauth_limit_decisions_total{decision="admitted",limit="login_per_ip"} 9.0
# TYPE fastauth_lane_decisions counter
fastauth_lane_decisions_total{decision="admitted_with_ticket",lane="login"} 1.0
fastauth_lane_decisions_total{decision="too_long",lane="login"} 2.0
fastauth_lane_decisions_total{decision="unread",lane="login"} 3.0
# TYPE fastauth_breaker_state gauge
fastauth_breaker_state{dependency="ldap"} 2.0
fastauth_breaker_state{dependency="http"} 1.0
"""


@contextlib.contextmanager
def server_saying(ready: bytes, document: bytes = b"", shown: bytes = b"") -> Iterator[Target]:
    def answers(request: bytes, transport: asyncio.Transport) -> None:
        path = request.split()[1]
        transport.write({b"/readyz": ready, b"/openapi.json": document, b"/metrics": shown}[path])

    with small_server(answers) as server:
        yield open_target(f"http://127.0.0.1:{server.port}", [], None)


def test_a_server_that_is_ready_says_its_version() -> None:
    with server_saying(answer(READY), answer(DOCUMENT)) as target:
        assert preflight(target) == "1.2.3"


@pytest.mark.parametrize(
    ("ready", "document", "says"),
    [
        (answer({"status": "draining"}, 503), answer(DOCUMENT), "is not ready: /readyz says draining"),
        (answer([1], 500), answer(DOCUMENT), "is not ready: /readyz says HTTP 500"),
        (answer({"status": "\x1b[31m"}, 503), answer(DOCUMENT), r"/readyz says \?\?31m"),
        (answer(READY), answer({"info": {"title": "other"}}), "is not a fastauth server"),
        (answer(READY), answer(None, 404), "is not a fastauth server"),
        (b"nonsense\r\n\r\n", b"", "cannot be asked"),
    ],
)
def test_anything_else_is_refused_in_one_line(ready: bytes, document: bytes, says: str) -> None:
    with server_saying(ready, document) as target, pytest.raises(RehearsalRefused, match=says):
        preflight(target)


def test_a_target_that_takes_connections_and_says_nothing_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = open_target(f"http://127.0.0.1:{silent.getsockname()[1]}", [], None)
        with pytest.raises(RehearsalRefused, match="cannot be asked"):
            preflight(target, timeout_s=0.1)


def test_what_is_degraded_and_what_the_metrics_say_is_read() -> None:
    shown = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(METRICS), METRICS)
    with (
        server_saying(answer({**READY, "degraded": ["redis"]}), shown=shown) as target,
        contextlib.closing(Connection(target)) as connection,
    ):
        assert health(connection) == Health(True, frozenset({"redis"}))
        seen = metrics(connection)
    assert seen == Metrics({"login_per_ip": 7}, {"login": 5}, frozenset({"ldap"}))
    assert refused_between(Metrics({"login_per_ip": 3}, {}, frozenset()), seen) == {"login_per_ip": 4}
    assert refused_between(None, seen) is None


def test_metrics_that_are_not_shown_are_none() -> None:
    with (
        server_saying(answer(READY), shown=answer(json.dumps({}), 403)) as target,
        contextlib.closing(Connection(target)) as connection,
    ):
        assert metrics(connection) is None
