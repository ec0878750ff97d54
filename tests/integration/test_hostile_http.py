"""Hostile requests on the wire: framing, bodies, sizes, proxies, a broken database, forged log lines.

After every test the same worker must still log people in. What the HTTP parser refuses before the application sees
it (a broken request line, framing, a header too large) is answered with the status alone.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.integration.conftest import ALICE_PASSWORD
from tests.integration.running import (
    CHEAP,
    RawAnswer,
    RunningServer,
    answers_in,
    cheap_hash,
    compact_jws,
    copy_without_users,
    fastauth,
    free_port,
    import_lines,
    received_on,
    running_server,
    signing_key,
    until_closed,
    verify_bytes,
    wait_for,
)

GOOD_LOGIN = json.dumps({"username": "alice", "password": ALICE_PASSWORD}).encode()
PROBE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
MAX_BODY = 64 * 1024


@pytest.fixture(autouse=True)
def unharmed(server: RunningServer) -> Iterator[None]:
    """Whatever a test sends, afterwards the same worker logs alice in."""
    workers = server.workers()
    yield
    assert server.workers() == workers
    assert server.login("alice", ALICE_PASSWORD).status == 200


def one_answer(port: int, data: bytes, *, half_close: bool = False) -> RawAnswer:
    """The only answer before the server closes."""
    (answer,) = until_closed(port, data, half_close=half_close)
    return answer


def post(body: bytes, *headers: str, length: int | None = None, content_type: str | None = "application/json") -> bytes:
    """``POST /auth`` that asks the server to close afterwards."""
    lines = ["POST /auth HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"Content-Type: {content_type}"] if content_type is not None else []
    lines += [f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def post_framed(framing: bytes, body: bytes) -> bytes:
    """``POST /auth`` with framing headers of its own, on a connection that stays open."""
    return b"POST /auth HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + framing + b"\r\n" + body


def chunks(*parts: bytes) -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def assert_problem(answer: RawAnswer, status: int, code: str) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem = answer.json
    assert problem["status"] == status
    assert problem["code"] == code
    assert isinstance(problem["type"], str)
    assert problem["title"]
    assert problem["detail"]


# ---------------------------------------------------------------- the body


def test_a_body_of_64_kib_is_read(server: RunningServer) -> None:
    assert one_answer(server.port, post(GOOD_LOGIN.ljust(MAX_BODY))).status == 200


def test_one_byte_more_is_refused_by_its_length_alone(server: RunningServer) -> None:
    announced_only = post(b"", length=MAX_BODY + 1)
    assert_problem(one_answer(server.port, announced_only), 413, "body_too_large")


def test_one_byte_more_is_refused_in_chunks_as_well(server: RunningServer) -> None:
    body = GOOD_LOGIN.ljust(MAX_BODY + 1)
    framed = post_framed(b"Transfer-Encoding: chunked\r\n", chunks(body[:40_000], body[40_000:]))
    assert_problem(one_answer(server.port, framed), 413, "body_too_large")


@pytest.mark.parametrize(
    "length", ["9223372036854775808", "18446744073709551615", "1" * 400, "-1", "+1", "0x10", "1,1"]
)
def test_a_content_length_beyond_reason_is_refused(server: RunningServer, length: str) -> None:
    framed = post_framed(f"Content-Length: {length}\r\n".encode(), GOOD_LOGIN)
    assert one_answer(server.port, framed).status in (400, 413, 431)


def test_a_slow_body_gets_408_after_about_two_seconds_and_everyone_else_is_answered(server: RunningServer) -> None:
    sent_at = time.monotonic()
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(40)]
    try:
        for connection in slow:
            connection.sendall(post(GOOD_LOGIN, length=len(GOOD_LOGIN) + 1))
        slowest_probe_s = 0.0
        while time.monotonic() < sent_at + 1.5:
            asked_at = time.monotonic()
            assert server.request("GET", "/livez").status == 200
            slowest_probe_s = max(slowest_probe_s, time.monotonic() - asked_at)
        assert server.login("alice", ALICE_PASSWORD).status == 200
        assert slowest_probe_s < 0.5
        for connection in slow:
            (answer,) = answers_in(received_on(connection))
            assert_problem(answer, 408, "body_timeout")
        assert 1.5 < time.monotonic() - sent_at < 4
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        post_framed(b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n" % (len(GOOD_LOGIN), GOOD_LOGIN)),
        post_framed(b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b" % (len(GOOD_LOGIN) + 9, GOOD_LOGIN)),
        post_framed(b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n" % (len(GOOD_LOGIN), GOOD_LOGIN)),
        post(GOOD_LOGIN, length=len(GOOD_LOGIN) + 1),
    ],
    ids=["no last chunk", "a chunk cut short", "no end of trailers", "shorter than its length"],
)
def test_a_body_that_breaks_off_does_nothing_though_its_beginning_is_a_login(
    server: RunningServer, request_bytes: bytes
) -> None:
    answers = until_closed(server.port, request_bytes, half_close=True)
    for answer in answers:
        assert_problem(answer, 400, "body_aborted")
    assert len(answers) <= 1


@pytest.mark.parametrize(
    "body",
    [
        b"0x%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD_LOGIN), GOOD_LOGIN),
        b"-1\r\n%b\r\n0\r\n\r\n" % GOOD_LOGIN,
        b"1%016x\r\n%b\r\n0\r\n\r\n" % (len(GOOD_LOGIN), GOOD_LOGIN),
        b"%x\n%b\n0\n\n" % (len(GOOD_LOGIN), GOOD_LOGIN),
        b"%x\r\n%bXX0\r\n\r\n" % (len(GOOD_LOGIN), GOOD_LOGIN),
        b"\r\n%b\r\n0\r\n\r\n" % GOOD_LOGIN,
    ],
    ids=["hexadecimal prefix", "negative", "beyond 64 bits", "bare LF", "no CRLF behind the chunk", "no size"],
)
def test_a_chunk_that_is_not_one_ends_the_connection(server: RunningServer, body: bytes) -> None:
    answers = until_closed(server.port, post_framed(b"Transfer-Encoding: chunked\r\n", body + SMUGGLED))
    assert [answer.status for answer in answers] in ([], [400])


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/json, text/plain",
        "application/json; charset=utf-16",
        'application/json; charset="UTF-32"',
        "application/json; charset=iso-8859-1",
        "application/json; version=1; charset=utf-16",
    ],
)
def test_anything_but_plain_json_is_415(server: RunningServer, content_type: str | None) -> None:
    answer = one_answer(server.port, post(GOOD_LOGIN, content_type=content_type))
    assert_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "APPLICATION/JSON", "application/json;charset=UTF-8", 'application/json; charset="utf-8"'],
)
def test_json_in_utf_8_is_taken_however_it_is_spelled(server: RunningServer, content_type: str) -> None:
    assert one_answer(server.port, post(GOOD_LOGIN, content_type=content_type)).status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "gzip, identity"])
def test_an_encoded_body_is_415(server: RunningServer, encoding: str) -> None:
    answer = one_answer(server.port, post(GOOD_LOGIN, f"Content-Encoding: {encoding}"))
    assert_problem(answer, 415, "unsupported_media_type")


MALFORMED = {
    "empty": b"",
    "only spaces": b"   ",
    "trailing garbage": GOOD_LOGIN + b"x",
    "trailing NUL": GOOD_LOGIN + b"\0",
    "a second document": GOOD_LOGIN + GOOD_LOGIN,
    "trailing comma": GOOD_LOGIN[:-1] + b",}",
    "a comment": GOOD_LOGIN + b"/**/",
    "single quotes": GOOD_LOGIN.replace(b'"', b"'"),
    "byte order mark": b"\xef\xbb\xbf" + GOOD_LOGIN,
    "UTF-16 with mark": GOOD_LOGIN.decode().encode("utf-16"),
    "UTF-16 without": GOOD_LOGIN.decode().encode("utf-16-le"),
    "UTF-32": GOOD_LOGIN.decode().encode("utf-32-be"),
    "invalid UTF-8": b'{"username":"\xff","password":"x"}',
    "invalid UTF-8 in another member": GOOD_LOGIN[:-1] + b',"x":"\xff"}',
    "invalid UTF-8 in the name of another member": GOOD_LOGIN[:-1] + b',"\xff":1}',
    "overlong slash": b'{"username":"\xc0\xaf","password":"x"}',
    "raw surrogate": b'{"username":"\xed\xa0\x80","password":"x"}',
    "escaped lone surrogate": b'{"username":"\\ud800","password":"x"}',
    "raw line feed in a string": b'{"username":"a\nb","password":"x"}',
    "NaN": b'{"username":"alice","password":"x","n":NaN}',
    "duplicate member": b'{"username":"alice","password":"x",' + GOOD_LOGIN[1:],
    "duplicate by escape": GOOD_LOGIN[:-1] + b',"p\\u0061ssword":"x"}',
    "duplicate inside": b'{"a":{"b":1,"b":2},' + GOOD_LOGIN[1:],
    "array bomb": b"[" * 60_000,
    "closed array bomb": b'{"a":' + b"[" * 1_000 + b"]" * 1_000 + b"," + GOOD_LOGIN[1:],
    "object bomb": b'{"a":' * 10_000,
    "100,000 deep": b"[" * 32_000 + b"]" * 32_000,
    "member bomb": b"{%b}" % b",".join(b'"%d":1' % i for i in range(6_000)),
    "5,000 digits": b'{"username":%b,"password":"x"}' % (b"1" * 5_000),
    "null": b"null",
    "list": b"[]",
    "text": b'"alice"',
    "no member": b"{}",
    "no password": b'{"username":"alice"}',
    "wrong types": b'{"username":["alice"],"password":{"x":1}}',
    "null password": b'{"username":"alice","password":null}',
    "a number for a password": b'{"username":"alice","password":0}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_body_is_400_and_its_answer_does_not_repeat_it(server: RunningServer, body: bytes) -> None:
    answer = one_answer(server.port, post(body))
    assert_problem(answer, 400, "malformed_body")
    assert ALICE_PASSWORD.encode() not in answer.body
    assert len(answer.body) < 400


# ---------------------------------------------------------------- sizes and shapes of the head


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(100)),
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 17_000 + b"\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"X" * 17_000 + b": a\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 300_000 + b"\r\n",
        b"GET /livez?" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /" + b"%41" * 24_000 + b" HTTP/1.1\r\nHost: localhost\r\n",
    ],
    ids=["101 headers", "17 kB value", "17 kB name", "300 kB value", "70 kB query", "70 kB path"],
)
def test_a_head_beyond_the_limits_is_431_or_414(server: RunningServer, head: bytes) -> None:
    assert one_answer(server.port, head + b"\r\n").status in (414, 431)


def test_a_head_within_the_limits_is_answered(server: RunningServer) -> None:
    many = b"".join(b"X-%d: a\r\n" % i for i in range(90))
    assert one_answer(server.port, PROBE[:-2] + many + b"\r\n").status == 200
    assert one_answer(server.port, PROBE[:-2] + b"X: " + b"a" * 15_000 + b"\r\n\r\n").status == 200


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "no Host": (b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n", 400, "bad_request"),
    "an empty Host": (b"GET /livez HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", 400, "bad_request"),
    "two Hosts": (PROBE[:-2] + b"Host: localhost\r\n\r\n", 400, "bad_request"),
    "two Hosts in other cases": (PROBE[:-2] + b"hOST: other\r\n\r\n", 400, "bad_request"),
    "two Content-Types": (post(GOOD_LOGIN, "Content-Type: text/plain"), 400, "bad_request"),
    "two Content-Encodings": (
        post(GOOD_LOGIN, "Content-Encoding: gzip", "Content-Encoding: identity"),
        400,
        "bad_request",
    ),
    "nothing there": (PROBE.replace(b"/livez", b"/nothing"), 404, "path_not_found"),
    "a path with CR and LF": (PROBE.replace(b"/livez", b"/%0d%0aX-Evil:%201"), 404, "path_not_found"),
    "a path with NUL": (PROBE.replace(b"/livez", b"/livez%00"), 404, "path_not_found"),
    "a path that is not UTF-8": (PROBE.replace(b"/livez", b"/%ff%fe"), 404, "path_not_found"),
    "a path with dots": (PROBE.replace(b"/livez", b"/nothing/../livez"), 404, "path_not_found"),
    "a doubled slash": (PROBE.replace(b"/livez", b"//livez"), 404, "path_not_found"),
    "an asterisk": (PROBE.replace(b"GET /livez", b"OPTIONS *"), 404, "path_not_found"),
    "a tunnel": (PROBE.replace(b"GET /livez", b"CONNECT other:443"), 404, "path_not_found"),
    "another method": (PROBE.replace(b"/livez", b"/auth"), 405, "method_not_allowed"),
    "a method of its own": (PROBE.replace(b"GET", b"BREW"), 405, "method_not_allowed"),
    "TRACE": (PROBE.replace(b"GET", b"TRACE"), 405, "method_not_allowed"),
    "no token": (PROBE.replace(b"/livez", b"/verify"), 401, "token_missing"),
    "a wrong password": (post(b'{"username":"alice","password":"x"}'), 401, "invalid_credentials"),
}


@pytest.mark.parametrize(("request_bytes", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_says_why_as_a_problem_with_a_stable_code(
    server: RunningServer, request_bytes: bytes, status: int, code: str
) -> None:
    assert_problem(one_answer(server.port, request_bytes), status, code)


def test_a_refused_method_names_those_allowed(server: RunningServer) -> None:
    assert one_answer(server.port, PROBE.replace(b"/livez", b"/auth")).headers["allow"] == "POST"


def test_a_host_from_the_request_never_reaches_the_issuer(server: RunningServer) -> None:
    # Of an absolute-form target the application does not see the host; it would not believe it either.
    request = post(GOOD_LOGIN, "X-Forwarded-Host: evil.example", "Forwarded: host=evil.example;proto=https")
    request = request.replace(b"POST /auth", b"POST http://evil.example/auth").replace(b"localhost", b"evil.example")
    claims = jwt.decode(one_answer(server.port, request).json["token"], options={"verify_signature": False})
    assert claims["iss"] == claims["aud"] == server.url


# ---------------------------------------------------------------- framing (RFC 9112 sections 2.2, 5.2, 6.1, 6.3)

_CHUNKED = chunks(GOOD_LOGIN)
SMUGGLING = {
    "CL.TE": post_framed(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", _CHUNKED),
    "TE.CL": post_framed(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", _CHUNKED),
    "TE.CL over all": post_framed(
        b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n" % (len(_CHUNKED) + len(SMUGGLED)), _CHUNKED
    ),
    "TE.TE": post_framed(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", _CHUNKED),
    "TE.TE unknown last": post_framed(b"Transfer-Encoding: chunked, cow\r\n", _CHUNKED),
    "chunked twice": post_framed(b"Transfer-Encoding: chunked, chunked\r\n", _CHUNKED),
    "another coding below": post_framed(b"Transfer-Encoding: gzip, chunked\r\n", _CHUNKED),
    "unknown coding": post_framed(b"Transfer-Encoding: xchunked\r\n", _CHUNKED),
    "a space before the colon": post_framed(b"Transfer-Encoding : chunked\r\n", _CHUNKED),
    "vertical tab": post_framed(b"Transfer-Encoding: \x0bchunked\r\n", _CHUNKED),
    "NUL in the coding": post_framed(b"Transfer-Encoding: chunked\0\r\n", _CHUNKED),
    "TE over HTTP/1.0": post_framed(b"Transfer-Encoding: chunked\r\n", _CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "CL.CL": post_framed(b"Content-Length: %d\r\nContent-Length: 0\r\n" % len(GOOD_LOGIN), GOOD_LOGIN),
    "CL.CL turned round": post_framed(b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(GOOD_LOGIN), GOOD_LOGIN),
    "CL list": post_framed(b"Content-Length: %d, 0\r\n" % len(GOOD_LOGIN), GOOD_LOGIN),
    "CL with a space before the colon": post_framed(b"Content-Length : 0\r\n", GOOD_LOGIN),
    "bare CR in a header": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\r" + SMUGGLED,
    "bare CR for line ends": b"GET /livez HTTP/1.1\rHost: localhost\r\r",
    "bare CR behind the head": b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r",
    "obs-fold": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    "obs-fold of the framing": post_framed(b"Transfer-Encoding:\r\n chunked\r\n", _CHUNKED),
    "a space before the first header": b"GET /livez HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "a header without colon": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nnonsense\r\n\r\n",
    "a header without name": b"GET /livez HTTP/1.1\r\nHost: localhost\r\n: a\r\n\r\n",
    "NUL in a header": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
    "another version": b"GET /livez HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "a request line of four words": b"GET /livez x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no HTTP at all": b"\x16\x03\x01\x05\x00\x01\x00\x01\x00" + bytes(range(256)),
    "HTTP/2 in the clear": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("attack", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_ambiguous_framing_is_400_or_ends_the_connection_before_a_second_request(
    server: RunningServer, attack: bytes
) -> None:
    answers = until_closed(server.port, attack + SMUGGLED + PROBE)
    assert len(answers) <= 1
    for answer in answers:
        assert answer.status in (200, 400)
        assert answer.headers["connection"] == "close"


def test_an_upgrade_to_http_2_or_a_websocket_is_not_taken_up(server: RunningServer) -> None:
    for upgrade in (b"h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", b"websocket\r\nSec-WebSocket-Version: 13"):
        asked = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n"
        assert [answer.status for answer in until_closed(server.port, asked + PROBE)] == [200, 200]


def test_of_two_pipelined_requests_the_good_one_is_answered_and_the_malformed_one_ends_the_connection(
    server: RunningServer,
) -> None:
    good = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answers = until_closed(server.port, good + b"NONSENSE\r\n\r\n" + SMUGGLED)
    assert [answer.status for answer in answers] == [200, 400]
    assert answers[1].headers["connection"] == "close"


def test_twenty_pipelined_requests_are_answered_in_their_order(server: RunningServer) -> None:
    paths = [b"/livez" if i % 3 else b"/nothing" for i in range(20)]
    asked = b"".join(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in paths)
    answers = until_closed(server.port, asked + PROBE)
    assert [answer.status for answer in answers] == [200 if i % 3 else 404 for i in range(20)] + [200]


# ---------------------------------------------------------------- behind a proxy


class Relay:
    """Stands between a proxy and the server and keeps what either sends, connection by connection."""

    def __init__(self, server_port: int) -> None:
        self.seen: list[tuple[bytearray, bytearray]] = []
        self._server_port = server_port
        self._loop = asyncio.new_event_loop()
        self._listener = self._loop.run_until_complete(asyncio.start_server(self._pass_on, "127.0.0.1", 0))
        self.port: int = self._listener.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server, from_server = bytearray(), bytearray()
        self.seen.append((to_server, from_server))
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        await asyncio.gather(
            _copy(reader, server_writer, to_server),
            _copy(server_reader, writer, from_server),
        )

    def forwarded(self) -> list[int]:
        """How many requests the proxy says it sent, for each connection; it marks every one."""
        return [bytes(sent).lower().count(b"\r\nx-proxied: 1\r\n") for sent, _ in self.seen]

    def answered(self) -> list[int]:
        """How many requests the server found in them."""
        return [bytes(received).count(b"HTTP/1.1 ") for _, received in self.seen]

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._listener.close()
        passing = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray) -> None:
    try:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                seen += data
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream fastauth {{ server 127.0.0.1:{backend}; keepalive 1; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://fastauth;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Proxied 1;
        }}
    }}
}}
"""

HAPROXY = """
global
    maxconn 256
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend entrance
    bind 127.0.0.1:{port}
    option forwardfor
    http-request set-header X-Proxied 1
    default_backend fastauth
backend fastauth
    http-reuse always
    server only 127.0.0.1:{backend}
"""


class Proxy:
    """A running nginx or haproxy in front of the server."""

    def __init__(self, port: int, relay: Relay) -> None:
        self.port = port
        self.relay = relay


def _start(name: str, port: int, relay: Relay, folder: Path) -> "subprocess.Popen[bytes]":
    package = {"nginx": "nginx-light", "haproxy": "haproxy"}[name]
    program = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        missing = f"{name} is not installed; run: apt-get install -y {package}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    config = folder / f"{name}.conf"
    template = {"nginx": NGINX, "haproxy": HAPROXY}[name]
    config.write_text(template.format(folder=folder, port=port, backend=relay.port))
    options = {"nginx": ["-e", "stderr", "-p", str(folder), "-c"], "haproxy": ["-db", "-f"]}[name]
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen([program, *options, str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def proxy(
    request: pytest.FixtureRequest, server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """Each proxy in turn, with connections to the server that it keeps and shares between clients."""
    folder, port, relay = tmp_path_factory.mktemp(request.param), free_port(), Relay(server.port)
    try:
        process = _start(request.param, port, relay, folder)
        try:
            wait_for(lambda: _listens(port) or process.poll() is not None)
            assert process.poll() is None, (folder / "log.txt").read_text()
            yield Proxy(port, relay)
        finally:
            process.terminate()
            process.wait(10)
    finally:
        relay.close()


def test_a_proxy_passes_a_login_and_a_verification_on(proxy: Proxy) -> None:
    token = one_answer(proxy.port, post(GOOD_LOGIN)).json["token"]
    request = verify_bytes(token).replace(b"Host", b"Connection: close\r\nHost")
    assert one_answer(proxy.port, request).json["preferred_username"] == "alice"
    assert sum(proxy.relay.forwarded()) == sum(proxy.relay.answered()) > 0


THROUGH_A_PROXY = {name: attack for name, attack in SMUGGLING.items() if name != "HTTP/2 in the clear"} | {
    "no Host": PROBE.replace(b"Host: localhost\r\n", b""),
    "two Hosts": PROBE[:-2] + b"Host: other\r\n\r\n",
}


@pytest.mark.parametrize("attack", THROUGH_A_PROXY.values(), ids=THROUGH_A_PROXY.keys())
def test_behind_a_proxy_nobody_gets_the_answer_to_another_ones_request(proxy: Proxy, attack: bytes) -> None:
    with contextlib.suppress(TimeoutError):  # a proxy may wait for more; what matters is what reached the server
        answers = until_closed(proxy.port, attack + SMUGGLED + PROBE, timeout_s=1)
        assert all(answer.status < 500 or answer.status == 501 for answer in answers)
    for _ in range(3):
        victim = one_answer(proxy.port, PROBE.replace(b"/livez", b"/.well-known/jwks.json"))
        assert victim.status == 200
        assert "keys" in victim.json
    for forwarded, answered in zip(proxy.relay.forwarded(), proxy.relay.answered(), strict=True):
        assert answered <= forwarded


def test_a_client_cannot_make_a_proxy_drop_the_address_it_forwards(proxy: Proxy) -> None:
    before = sum(proxy.relay.forwarded())
    request = PROBE.replace(b"Connection: close", b"Connection: close, X-Forwarded-For, X-Proxied")
    assert one_answer(proxy.port, request).status == 200
    assert sum(proxy.relay.forwarded()) == before + 1
    for (sent, _), forwarded in zip(proxy.relay.seen, proxy.relay.forwarded(), strict=True):
        assert bytes(sent).lower().count(b"\r\nx-forwarded-for: 127.0.0.1\r\n") == forwarded


# ---------------------------------------------------------------- what a proxy passes on


def test_a_subject_with_cr_lf_or_another_script_never_breaks_the_header(server: RunningServer, token: str) -> None:
    key = signing_key(server.data_dir)
    header = json.dumps(jwt.get_unverified_header(token)).encode()
    claims = jwt.decode(token, options={"verify_signature": False})
    for subject in ("a\r\nX-Evil: 1", "a\nb", "\x1b[31m", "ü\u2028é", "a b", " a ", "100%", "\x7f\x85", "🙂"):
        forged = compact_jws(key, header, json.dumps({**claims, "sub": subject, "scope": subject}).encode())
        (answer,) = until_closed(server.port, verify_bytes(forged).replace(b"Host", b"Connection: close\r\nHost"))
        assert answer.status == 200
        assert "x-evil" not in answer.headers
        for name in ("x-auth-subject", "x-auth-scope"):
            assert answer.headers[name].isascii()
            assert answer.headers[name].isprintable()
        assert answer.json["sub"] == subject


def test_two_subjects_never_share_one_header_value(server: RunningServer, token: str) -> None:
    key = signing_key(server.data_dir)
    header = json.dumps(jwt.get_unverified_header(token)).encode()
    claims = jwt.decode(token, options={"verify_signature": False})
    subjects = ["a\nb", "a%0Ab", "a%250Ab", "ü", "%C3%BC", "a", "a ", " a", "%20a", "a%20", "A"]
    values = [
        server.verify(compact_jws(key, header, json.dumps({**claims, "sub": subject}).encode())).headers[
            "x-auth-subject"
        ]
        for subject in subjects
    ]
    assert len(set(values)) == len(subjects), dict(zip(subjects, values, strict=True))


def test_the_x_auth_headers_of_a_client_are_never_echoed(server: RunningServer, token: str) -> None:
    spoofed = {"X-Auth-Subject": "admin", "X-Auth-Scope": "admin", "X-Auth-Extra": "admin"}
    good = server.request("GET", "/verify", headers={"Authorization": f"Bearer {token}", **spoofed})
    assert good.status == 200
    assert good.headers["x-auth-subject"] == good.json["sub"]
    assert good.headers["x-auth-scope"] == "user"
    assert "x-auth-extra" not in good.headers
    refused = server.request("GET", "/verify", headers={"Authorization": "Bearer x", **spoofed})
    assert refused.status == 401
    assert not [name for name in refused.headers if name.startswith("x-auth")]


# ---------------------------------------------------------------- a server that fails inside

SECRETS = ["mallory's own password", "bob's own password", "not-a-hash-but-secret"]


@pytest.fixture(scope="module")
def before_it_breaks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a server with 400 users and bob, whose stored hash is damaged."""
    data_dir = copy_without_users(tmp_path_factory.mktemp("breakable"))
    lines = [{"username": f"user{i}", "password_hash": cheap_hash(f"password {i}")} for i in range(400)]
    import_lines(data_dir, [*lines, {"username": "bob", "password": SECRETS[1]}])
    with contextlib.closing(sqlite3.connect(data_dir / "fastauth.db")) as database, database:
        database.execute("UPDATE users SET password_hash = ? WHERE name = 'bob'", (SECRETS[2],))
    return data_dir


@pytest.fixture
def breakable(tmp_path: Path, before_it_breaks: Path) -> Iterator[RunningServer]:
    """A server to be broken."""
    for name in ("fastauth.db", "master.key"):
        shutil.copy2(before_it_breaks / name, tmp_path)
    with running_server(tmp_path, env=CHEAP) as running:
        yield running


def _log_lines(server: RunningServer) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.err.read_bytes().split(b"\n") if line]
    assert all(isinstance(line, dict) for line in lines)
    return lines


def _assert_without_database(server: RunningServer, token: str) -> None:
    """Logins are 503 with Retry-After in under a second; what needs no database is not held up meanwhile."""
    answers: list[tuple[int, str | None, float, bytes]] = []

    def login() -> None:
        asked_at = time.monotonic()
        answer = server.login("user300", "password 300")
        answers.append((answer.status, answer.headers.get("retry-after"), time.monotonic() - asked_at, answer.body))

    logging_in = threading.Thread(target=login)
    logging_in.start()
    slowest_s, probes = 0.0, 0
    try:
        while logging_in.is_alive() or probes == 0:
            for ask, status in _unaffected(server, token):
                asked_at = time.monotonic()
                assert ask() == status
                slowest_s = max(slowest_s, time.monotonic() - asked_at)
                probes += 1
    finally:
        logging_in.join()
    ((status, retry_after, took_s, body),) = answers
    assert status == 503
    assert json.loads(body)["code"] == "unavailable"
    assert b"sqlite" not in body.lower()
    assert b"database" not in body.lower()
    assert retry_after is not None
    assert int(retry_after) >= 1
    assert took_s < 1
    assert slowest_s < 0.5


def _unaffected(server: RunningServer, token: str) -> list[tuple[Callable[[], int], int]]:
    unknown_key = jwt.encode({"sub": "x"}, "x" * 32, algorithm="HS256", headers={"kid": "unknown"})
    return [
        (lambda: server.verify(token).status, 200),
        (lambda: server.verify(unknown_key).status, 401),
        (lambda: server.request("GET", "/.well-known/jwks.json").status, 200),
        (lambda: server.request("GET", "/livez").status, 200),
        (lambda: server.request("GET", "/readyz").status, 200),
    ]


def _overwrite(data_dir: Path) -> None:
    database = data_dir / "fastauth.db"
    with database.open("r+b") as file:
        file.write(b"\xa5" * database.stat().st_size)


def test_with_a_corrupt_database_logins_are_503_at_once_logged_and_tokens_are_still_verified(
    breakable: RunningServer,
) -> None:
    token = breakable.login("user1", "password 1").json["token"]
    _overwrite(breakable.data_dir)
    for _ in range(3):
        _assert_without_database(breakable, token)
    wait_for(lambda: any("unavailable" in str(line) for line in _log_lines(breakable)), timeout_s=3)


def test_while_another_program_writes_verifications_go_on_and_logins_wait_for_it_or_are_503(
    breakable: RunningServer,
) -> None:
    """SECURITY 79: a login writes its session."""
    token = breakable.login("user1", "password 1").json["token"]
    other = sqlite3.connect(breakable.data_dir / "fastauth.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")  # in WAL mode readers wait for no writer
    try:
        asked_at = time.monotonic()
        assert breakable.verify(token).status == 200
        assert time.monotonic() - asked_at < 1
        refused = breakable.login("user300", "password 300")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert 2.5 < time.monotonic() - asked_at < 5
    finally:
        other.close()
    assert breakable.login("user300", "password 300").status == 200


def test_a_defect_is_a_generic_500_with_a_request_id_and_the_worker_lives(breakable: RunningServer) -> None:
    workers = breakable.workers()
    answers = [breakable.login("bob", SECRETS[1]) for _ in range(3)]
    for answer in answers:
        assert answer.status == 500
        assert answer.json["code"] == "internal_error"
        assert answer.json["request_id"] == answer.headers["x-request-id"]
        for told in (b"Traceback", b".py", b"PasswordHash", b"bob", *(secret.encode() for secret in SECRETS)):
            assert told not in answer.body
    logged = {line["request_id"]: line for line in _log_lines(breakable) if line["event"] == "request_failed"}
    assert set(logged) == {answer.json["request_id"] for answer in answers}
    assert breakable.workers() == workers
    assert breakable.login("user1", "password 1").status == 200


def test_no_value_of_a_request_forges_a_log_line_or_reaches_one_as_a_secret(breakable: RunningServer) -> None:
    forged = '{"event":"forged","level":"error"}'
    hostile = [
        f"x\r\n{forged}\r\n",
        f"x\n{forged}",
        "\x1b[2J\x1b[31m",
        "\u2028\u2029\x85\x9b31m",
        "%0d%0a",
        "\x00",
        "$(id)",
    ]
    token = breakable.login("user1", "password 1").json["token"]
    for text in hostile:
        quoted = "".join(f"%{byte:02x}" for byte in text.encode())
        agent = b"User-Agent: " + text.encode().replace(b"\r", b"").replace(b"\n", b"") + b"\r\n\r\n"
        assert one_answer(breakable.port, PROBE[:-2] + agent).status in (200, 400)
        assert breakable.login(text, SECRETS[0]).status == 401
        assert breakable.request("GET", f"/{quoted}").status == 404
        assert breakable.request("GET", f"/verify/{quoted}?{quoted}").status == 401
        for broken in (f"{token}{quoted}", f"{token}.{token}"):
            assert breakable.verify(broken).status == 401
        body = json.dumps({"username": "bob", "password": SECRETS[1], text: text})
        failed = breakable.request("POST", f"/auth?{quoted}", body, {"Content-Type": "application/json"})
        assert failed.status == 500
    os.kill(breakable.workers()[0], 9)
    wait_for(lambda: any(line["event"] == "worker_died" for line in _log_lines(breakable)))
    lines = _log_lines(breakable)
    assert {line["event"] for line in lines} >= {"request_failed", "worker_died"}
    raw = breakable.err.read_bytes()
    assert len([line for line in lines if line["event"] == "request_failed"]) == len(hostile)
    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in raw), "a control character"
    for secret in (*SECRETS, token, token.split(".")[2], "argon2id"):
        assert secret.encode() not in raw


def test_a_folder_with_a_hostile_name_forges_no_log_line(tmp_path: Path) -> None:
    folder = tmp_path / 'x\n{"event":"forged"}\x1b[2J\x9b31m\u2028'
    copy_without_users(folder)
    with running_server(folder, env=CHEAP) as server:
        _overwrite(folder)  # which is told of, with the name of the file
        assert server.login("user300", "password 300").status == 503
        wait_for(lambda: any(str(folder) in str(line.get("reason")) for line in _log_lines(server)), timeout_s=3)
        assert "forged" not in {line["event"] for line in _log_lines(server)}
        assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in server.err.read_bytes())


def test_the_log_is_silent_about_requests_that_are_merely_wrong(server: RunningServer) -> None:
    before = server.log
    for body in MALFORMED.values():
        one_answer(server.port, post(body))
    assert server.log == before


def test_a_command_fails_with_one_line_when_the_database_is_corrupt(tmp_path: Path) -> None:
    _overwrite(copy_without_users(tmp_path))
    listed = fastauth("user", "list", data_dir=tmp_path)
    assert listed.returncode == 1
    assert len(listed.stderr.splitlines()) == 1
    assert listed.stderr.startswith("fastauth: ")
