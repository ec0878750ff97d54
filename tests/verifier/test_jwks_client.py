"""``JwksClient`` and its pure parts, against a small issuer on loopback that misbehaves as it is told."""

import contextlib
import json
import re
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final

import pytest

from fastauth import KeyRefused
from fastauth.jose.keys import SigningKey
from fastauth.jose.keyset import KeySet
from fastauth.verifier.jwks_client import (
    DEFAULT_MAX_AGE_S,
    FETCH_TIMEOUT_S,
    MAX_JWKS_BYTES,
    MIN_INTERVAL_S,
    FetchFailed,
    JwksAnswer,
    JwksClient,
    fetch_jwks,
    max_age_of,
    parse_jwks,
    parse_jwks_url,
)
from tests.cases import each

Act = Callable[[socket.socket], None]
SHORT_S: Final = 0.1  # a timeout that a test can wait for
SOON_S: Final = 2.0  # far longer than that, for a busy machine
PATIENCE_S: Final = 10.0  # nothing here takes that long unless it is broken


class Issuer:
    """Listens on loopback; answers every request with ``answer``: bytes, or what to do with the connection."""

    def __init__(self, answer: bytes | Act = b"", context: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.gate = threading.Event()
        self.is_closing = threading.Event()
        self._context = context
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="issuer")]
        self._threads[0].start()

    def __enter__(self) -> "Issuer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.is_closing.is_set():
            return
        self.is_closing.set()
        self.gate.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
        self._threads[0].join(PATIENCE_S)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for connection in self._connections:
            connection.close()
        self._listener.close()
        let_fetches_end()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}/jwks.json"

    def wait_for_requests(self, count: int) -> None:
        """Return as soon as so many requests came."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, PATIENCE_S)

    def held(self, answer: bytes) -> Act:
        """Answer when the gate opens."""

        def act(connection: socket.socket) -> None:
            assert self.gate.wait(PATIENCE_S)
            connection.sendall(answer)

        return act

    def hang(self, connection: socket.socket) -> None:
        """Never answer."""
        self.is_closing.wait(PATIENCE_S)

    def dripping(self, start: bytes, drop: bytes) -> Act:
        """Send the start, then a drop every 20 ms for ever."""

        def act(connection: socket.socket) -> None:
            connection.sendall(start)
            while not self.is_closing.wait(0.02):
                connection.sendall(drop)

        return act

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,), name="issuer"))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    if not (chunk := connection.recv(4096)):
                        return
                    head += chunk
                with self._changed:
                    answer = self.answer
                    self.requests.append(head)
                    self._changed.notify_all()
                if callable(answer):
                    answer(connection)
                else:
                    connection.sendall(answer)


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def let_fetches_end() -> None:
    """Return when no fetch is under way in this process."""
    for thread in threading.enumerate():
        if thread.name == "fastauth-jwks":
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def answer_with(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer of a known length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def jwks_of(*keys: SigningKey | Any) -> bytes:
    """The document with these keys; what is no key stands in it as it is."""
    return json.dumps({"keys": [key.public_jwk if isinstance(key, SigningKey) else key for key in keys]}).encode()


def fetch(issuer: Issuer, etag: str | None = None, timeout_s: float = FETCH_TIMEOUT_S) -> JwksAnswer:
    return fetch_jwks(parse_jwks_url(issuer.url), etag, timeout_s)


def failure_of(issuer: Issuer, answer: bytes | Act, timeout_s: float = FETCH_TIMEOUT_S) -> str:
    """Why that answer is not taken."""
    issuer.answer = answer
    with pytest.raises(FetchFailed) as failure:
        fetch(issuer, timeout_s=timeout_s)
    return str(failure.value)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer that has not been told yet what to answer."""
    with Issuer() as running:
        yield running


@pytest.fixture(scope="module")
def key() -> SigningKey:
    """A key that is made at once."""
    return SigningKey.generate("ES256")


# ------------------------------------------------------------------ URLs (CVE-2026-48522 to 48526)


@each(
    "url",
    [
        "https://auth.example/jwks.json",
        "HTTPS://AUTH.EXAMPLE/jwks.json",
        "https://auth.example",
        "https://auth.example:65535/a%20b?c=d&e",
        "https://[2001:db8::5]/jwks.json",
        "https://xn--bcher-kva.example/",
        "https://localhost.evil.example/",
        "http://127.0.0.1:1",
        "http://127.8.9.10/",
        "http://[::1]:1/",
        "http://[::1]/",
        "http://localhost:1",
        "http://LOCALHOST:1/jwks.json",
    ],
)
def test_https_is_taken_from_anywhere_and_http_from_this_machine(url: str) -> None:
    assert parse_jwks_url(url).hostname


REFUSED_URLS: Final = """
http://auth.example/ http://localhost.evil.example/ http://localhost./ http://127.0.0.1.evil.example/
http://127.0.0.1@evil.example/ http://0.0.0.0/ http://127.1/ http://2130706433/ http://10.0.0.1/ http://0x7f000001/
http://[::]/ http://[fe80::1]/ http://[2001:db8::1]/ http://0177.0.0.1/ http://127.0.0.1%2eevil.example/
https://user@auth.example/ https://user:secret@auth.example/ https://@auth.example/ https://a@b@c/ http://:@127.0.0.1/
file:///etc/passwd file://localhost/etc/passwd FILE:///etc/passwd ftp://127.0.0.1/jwks.json unix:///run/x
data:application/json,{} data:,{"keys":[]} javascript:0 gopher://127.0.0.1/ ws://127.0.0.1/ jar:x https+file://a/
/ jwks.json auth.example //auth.example/ https: https:/ https:// https:///jwks https:auth.example https://:443/
https://? https://#x http:127.0.0.1 https://bücher.example/ https://auth.example/é https://auth。example/
https://ａuth.example/ http://127.0.0.１/ http://①27.0.0.1/ https://аuth.example/
https://auth.example:0/ https://auth.example:99999/ https://auth.example:-1/ https://auth.example:x/
https://auth.example:80:80/ https://[::1/ https://::1]/ https://[not]/
https://auth.example/#fragment https://auth.example#x
"""
REFUSED_FOR_A_BLANK: Final = [
    *("", " ", " https://auth.example/", "https://auth.example/ ", "https://auth.example/a b", "https://a .example/"),
    *("https://auth.example/\n", "https://a.example/\r\nX: y", "https://auth.example/\0", "\thttps://auth.example/"),
    *("https://auth.example/\x7f", "ht\ntps://auth.example/", "https://auth.example/\x85", "https://a\u2028.example/"),
]


@each("url", [*re.split("[ \n]+", REFUSED_URLS.strip()), *REFUSED_FOR_A_BLANK])
def test_any_other_url_is_refused_when_the_client_is_made(url: str) -> None:
    with pytest.raises(KeyRefused) as refusal:
        JwksClient(url, lambda keys: None)
    assert "secret" not in str(refusal.value)


# ------------------------------------------------------------------ Cache-Control


@each(
    ("cache_control", "max_age_s"),
    [
        ("", DEFAULT_MAX_AGE_S),
        ("max-age=100", 100),
        ("public, max-age=100", 100),
        ('MAX-AGE="100" , public', 100),
        ("s-maxage=5, max-age=100", 100),
        ("max-age=0", 0),
        ("max-age=007", 7),
        ("max-age=" + "9" * 5_000, 999_999_999),
        ("no-store", 0),
        ("max-age=100, No-Cache", 0),
        ("no-store, max-age=100", 0),
        ("max-age", DEFAULT_MAX_AGE_S),
        ("max-age=", DEFAULT_MAX_AGE_S),
        ("max-age=-1", DEFAULT_MAX_AGE_S),
        ("max-age=1.5", DEFAULT_MAX_AGE_S),
        ("max-age=1e3", DEFAULT_MAX_AGE_S),
        ("max-age=1_0", DEFAULT_MAX_AGE_S),
        ("max-age=\u0661", DEFAULT_MAX_AGE_S),
        ("max-age=\xb2", DEFAULT_MAX_AGE_S),
        ("max-age=forever", DEFAULT_MAX_AGE_S),
        ("max-age=x, max-age=100", 100),
        (",,,=,;,==,\xff" * 1_000, DEFAULT_MAX_AGE_S),
    ],
)
def test_max_age_is_read_strictly_and_junk_means_the_default(cache_control: str, max_age_s: int) -> None:
    assert max_age_of(cache_control) == max_age_s


# ------------------------------------------------------------------ foreign documents


def test_keys_of_no_use_are_passed_over_and_counted(key: SigningKey) -> None:
    good = key.public_jwk
    foreign: list[Any] = [
        {"kty": "oct", "kid": "secret", "k": "AAAA"},
        {"kty": "RSA", "kid": "enc", "use": "enc", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "kid": "p384", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kty": "AKP", "kid": "post-quantum", "alg": "ML-DSA-44", "pub": "AA"},
        {**good, "kid": "private", "d": "AQAB"},
        {name: value for name, value in good.items() if name != "kid"},
        *("text", None, 5, [], {}),
    ]
    keys = parse_jwks(jwks_of(*foreign, good))
    assert (list(keys.by_kid), keys.skipped) == ([key.kid], len(foreign))


def test_a_set_with_nothing_left_or_with_a_kid_twice_is_refused(key: SigningKey) -> None:
    oct_key = {"kty": "oct", "kid": "a", "k": "AAAA"}
    for body in (jwks_of(), jwks_of(oct_key), jwks_of({}, None, 5)):
        with pytest.raises(KeyRefused, match="no key"):
            parse_jwks(body)
    for body in (jwks_of(key, key), jwks_of(key, oct_key, oct_key), jwks_of(key, {"kid": key.kid})):
        with pytest.raises(KeyRefused, match="same kid"):
            parse_jwks(body)
    with pytest.raises(KeyRefused, match="256"):
        parse_jwks(jwks_of(key, *[{}] * 256))


def test_a_document_that_is_no_strict_json_is_refused(key: SigningKey) -> None:
    good = jwks_of(key)
    bodies = [
        *(b"", b" ", b"null", b"[]", b'"keys"', b"5", b"<html></html>", b"{", b"{}", b'{"keys":null}', b'{"keys":{}}'),
        *(b"\xef\xbb\xbf" + good, good.decode().encode("utf-16"), good + b"{}", good[:-1], good[:-1] + b",}"),
        *(b'{"keys":[],' + good[1:], good[:-1] + b',"x":NaN}', good[:-1] + b',"x":"\xff"}', good[:-1] + b',"x":1e999}'),
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"," + good[1:],
    ]
    for body in bodies:
        with pytest.raises(KeyRefused):
            parse_jwks(body)


# ------------------------------------------------------------------ one fetch


def test_a_fetch_is_one_plain_get(issuer: Issuer) -> None:
    issuer.answer = answer_with(b"{}", 'ETag: "1"', "Cache-Control: public", "Cache-Control: max-age=77")
    assert fetch_jwks(parse_jwks_url(issuer.url + "?a=b"), None, FETCH_TIMEOUT_S) == JwksAnswer(b"{}", '"1"', 77)
    head = issuer.requests[0].decode().split("\r\n")
    assert head[0] == "GET /jwks.json?a=b HTTP/1.1"
    names = {line.partition(":")[0].lower() for line in head[1:] if line}
    assert names == {"host", "accept", "accept-encoding", "user-agent"}
    assert "Accept-Encoding: identity" in head
    fetch_jwks(parse_jwks_url(issuer.url.removesuffix("/jwks.json")), None, FETCH_TIMEOUT_S)
    assert issuer.requests[1].startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("url", ["http://[::1]/", "https://[::1]/", "https://[::1]:9/"])
def test_an_ipv6_address_is_not_taken_for_a_port(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def create_connection(address: object, *rest: object) -> socket.socket:
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", create_connection)
    with pytest.raises(FetchFailed):
        fetch_jwks(parse_jwks_url(url), None, SHORT_S)
    assert asked == [("::1", {"http://[::1]/": 80, "https://[::1]/": 443, "https://[::1]:9/": 9}[url])]


def test_no_redirect_is_followed(issuer: Issuer) -> None:
    with Issuer(answer_with(b"{}")) as other:
        targets = ["file:///etc/passwd", "ftp://127.0.0.1/", "data:application/json,{}", "/x", other.url, issuer.url]
        for target in targets:
            for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent", "300 Choices"):
                answer = answer_with(b"{}", f"Location: {target}", status=status)
                assert failure_of(issuer, answer) == f"the JWKS could not be fetched: status {status[:3]}"
        assert other.requests == []
        assert len(issuer.requests) == len(targets) * 6


def test_no_proxy_of_the_environment_is_used(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer.answer = answer_with(b"{}")
    with Issuer(answer_with(b"{}")) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert fetch(issuer).body == b"{}"
        assert proxy.requests == []


@each("status", ["404 Not Found", "500 Oops", "503 Down", "401 Who", "204 Nothing", "206 Part", "201 Made", "304 Same"])
def test_any_status_but_200_is_a_failure_that_names_it(issuer: Issuer, status: str) -> None:
    assert failure_of(issuer, answer_with(b"", status=status)).endswith(status[:3])


@each("content_type", ["text/html", "application/octet-stream", "nonsense", "", "application/json; charset=utf-16"])
def test_the_content_type_is_not_looked_at(issuer: Issuer, content_type: str) -> None:
    issuer.answer = answer_with(b"{}", f"Content-Type: {content_type}")
    assert fetch(issuer).body == b"{}"


def test_what_comes_compressed_is_refused(issuer: Issuer) -> None:
    for coding in ("gzip", "GZIP", "deflate", "br", "zstd", "gzip, identity", "x"):
        assert "compressed" in failure_of(issuer, answer_with(b"{}", f"Content-Encoding: {coding}"))
    issuer.answer = answer_with(b"{}", "Content-Encoding: identity")
    assert fetch(issuer).body == b"{}"


def framings_of(body: bytes) -> list[bytes]:
    """The same body announced by its length, in chunks, and ended by the end of the connection."""
    chunks = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
    chunked = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nTrailer: x\r\n\r\n"
    return [
        answer_with(body),
        answer_with(body, "Connection: close"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
        b"HTTP/1.1 200 OK\r\n\r\n" + body,
        b"HTTP/1.0 200 OK\r\n\r\n" + body,
    ]


def test_a_body_may_have_256_kib_and_not_a_byte_more_however_it_is_framed(issuer: Issuer) -> None:
    largest = b"x" * MAX_JWKS_BYTES
    for answer in framings_of(largest):
        issuer.answer = answer
        assert fetch(issuer).body == largest
    for answer in framings_of(largest + b"x"):
        assert failure_of(issuer, answer) == "the JWKS is larger than 262144 bytes"


@pytest.mark.parametrize(
    "start",
    [
        b"Content-Length: 1000000000000000000\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    ],
)
def test_an_endless_body_is_let_go_in_little_memory(issuer: Issuer, start: bytes) -> None:
    piece = b"x" * 65_536

    def act(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + start)
        for _ in range(128):  # 8 MiB: more than anybody should keep
            connection.sendall(piece)

    tracemalloc.start()
    try:
        failure_of(issuer, act)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MAX_JWKS_BYTES


@each(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n{}\r\n0\r\n\r\n",
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 2000 OK\r\n\r\n{}",
        b"HTTP/1.1 abc OK\r\n\r\n{}",
        b"HTTP/3 200 OK\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"{}",
        b"HTTP/1.1 200 " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1_000 + b"\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n{}",
    ],
)
def test_what_breaks_off_or_is_no_http_is_a_failure(issuer: Issuer, answer: bytes) -> None:
    assert failure_of(issuer, answer).startswith("the JWKS ")


def test_the_total_time_is_bounded_however_slowly_an_answer_drips(issuer: Issuer) -> None:
    ok = b"HTTP/1.1 200 OK\r\n"
    drips = [
        issuer.hang,
        issuer.dripping(b"", b"H"),
        issuer.dripping(ok + b"X: ", b"x"),
        issuer.dripping(ok, b"X: y\r\n"),
        issuer.dripping(ok + b"Content-Length: 1000\r\n\r\n", b" "),
        issuer.dripping(ok + b"Content-Length: 1000\r\nConnection: close\r\n\r\n", b" "),
        issuer.dripping(ok + b"\r\n", b" "),
        issuer.dripping(b"HTTP/1.0 200 OK\r\n\r\n", b" "),
        issuer.dripping(ok + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        issuer.dripping(ok + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
        issuer.dripping(ok + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
        issuer.dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ]
    served = iter(drips)
    issuer.answer = lambda connection: next(served)(connection)

    def ends() -> float:
        started = time.monotonic()
        with contextlib.suppress(FetchFailed):  # a body that ends with the connection may end there
            fetch(issuer, timeout_s=SHORT_S)
        return time.monotonic() - started

    with ThreadPoolExecutor(len(drips)) as threads, issuer:  # which is closed first, so that a failure hangs nothing
        took = [future.result(PATIENCE_S / 2) for future in [threads.submit(ends) for _ in drips]]
    assert max(took) < SOON_S


def test_a_slow_connection_takes_nothing_from_the_bound(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def slowly(*arguments: Any) -> Any:
        issuer.gate.wait(2 * SHORT_S)  # never set: a resolver without an answer
        return look_up(*arguments)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    started = time.monotonic()
    failure_of(issuer, issuer.dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 250\r\n\r\n", b" "), SHORT_S)
    assert time.monotonic() - started < SOON_S


def test_a_refused_connection_is_a_failure_that_names_it() -> None:
    with Issuer() as gone:
        pass
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for number in (port, 1):
        with pytest.raises(FetchFailed, match="ConnectionRefusedError"):
            fetch_jwks(parse_jwks_url(f"http://127.0.0.1:{number}/?key=secret"), None, SHORT_S)
    assert gone.requests == []


def test_a_listener_that_never_accepts_is_let_go() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http", "https"):
            url = parse_jwks_url(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/")
            with pytest.raises(FetchFailed):
                fetch_jwks(url, None, SHORT_S)


def test_304_is_an_answer_only_to_who_asked_for_it(issuer: Issuer) -> None:
    answer = answer_with(b"", 'ETag: "2"', "Cache-Control: max-age=90", status="304 Not Modified")
    assert failure_of(issuer, answer).endswith("304")
    assert fetch(issuer, '"1"') == JwksAnswer(None, '"2"', 90)
    assert b'\r\nIf-None-Match: "1"\r\n' in issuer.requests[1]


@each("etag", ['"' + "x" * 256 + '"', '"a\r\n b"', '"a\t"', '"\x00"', '"\x7f"'])
def test_an_etag_that_could_not_be_sent_back_is_dropped(issuer: Issuer, etag: str) -> None:
    issuer.answer = answer_with(b"{}", f"ETag: {etag}")
    assert fetch(issuer) == JwksAnswer(b"{}", None, DEFAULT_MAX_AGE_S)


# ------------------------------------------------------------------ the client over time


class Kept:
    """A client, its clock, and every set that it handed over."""

    def __init__(self, issuer: Issuer, timeout_s: float = FETCH_TIMEOUT_S) -> None:
        self.clock = Clock()
        self.used: list[KeySet] = []
        self.client = JwksClient(issuer.url, self.used.append, timeout_s=timeout_s, monotonic=self.clock)

    def ask(self) -> bool:
        """What ``Verifier`` does for every token; whether it waited."""
        waited = self.client.must_wait()
        if waited:
            self.client.fetch()
        return waited

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds


def test_the_first_caller_waits_and_the_next_do_not(issuer: Issuer, key: SigningKey) -> None:
    kept = Kept(issuer)
    issuer.answer = answer_with(jwks_of(key))
    assert not kept.client.has_keys
    assert issuer.requests == []
    assert [kept.ask() for _ in range(3)] == [True, False, False]
    assert (kept.client.has_keys, kept.client.last_error, len(issuer.requests)) == (True, None, 1)
    assert [list(keys.by_kid) for keys in kept.used] == [[key.kid]]


@each(
    ("cache_control", "max_age_s"),
    [
        ("max-age=1000", 1_000),
        ("max-age=0", 60),
        ("max-age=59", 60),
        ("no-store", 60),
        ("max-age=99999999999999", 86_400),
        ("junk", 300),
    ],
)
def test_a_refresh_starts_at_three_quarters_of_max_age_and_nobody_waits_for_it(
    issuer: Issuer, key: SigningKey, cache_control: str, max_age_s: int
) -> None:
    issuer.answer = answer_with(jwks_of(key), f"Cache-Control: {cache_control}")
    issuer.gate.clear()
    kept = Kept(issuer)
    before = len(issuer.requests)
    kept.ask()
    kept.pass_time(0.75 * max_age_s - 0.5)
    assert not kept.ask()
    assert len(issuer.requests) == before + 1
    issuer.answer = issuer.held(answer_with(jwks_of(key)))
    kept.pass_time(0.5)
    assert not kept.ask()
    issuer.wait_for_requests(before + 2)
    kept.pass_time(FETCH_TIMEOUT_S)
    assert not kept.client.must_wait()  # not even while it is under way
    issuer.gate.set()
    let_fetches_end()
    assert len(kept.used) == 2
    assert len(issuer.requests) == before + 2
    assert not kept.ask()


def test_when_max_age_is_over_the_next_caller_waits_for_newer_keys(issuer: Issuer, key: SigningKey) -> None:
    issuer.answer = answer_with(jwks_of(key), "Cache-Control: max-age=100")
    kept = Kept(issuer)
    kept.ask()
    kept.pass_time(100)
    assert kept.ask()
    assert len(kept.used) == 2


def test_304_keeps_the_keys_and_begins_a_new_max_age(issuer: Issuer, key: SigningKey) -> None:
    issuer.answer = answer_with(jwks_of(key), 'ETag: "1"', "Cache-Control: max-age=100")
    kept = Kept(issuer)
    kept.ask()
    issuer.answer = answer_with(b"", 'ETag: "1"', "Cache-Control: max-age=1000", status="304 Not Modified")
    kept.pass_time(80)
    assert not kept.ask()
    let_fetches_end()
    assert b'If-None-Match: "1"' in issuer.requests[1]
    assert b"If-None-Match" not in issuer.requests[0]
    kept.pass_time(749)
    assert not kept.ask()
    let_fetches_end()
    assert (len(kept.used), len(issuer.requests), kept.client.last_error) == (1, 2, None)
    kept.pass_time(1)
    kept.ask()
    issuer.wait_for_requests(3)
    let_fetches_end()
    assert b'If-None-Match: "1"' in issuer.requests[2]


def test_while_the_issuer_is_down_the_last_good_keys_serve_and_nobody_waits(issuer: Issuer, key: SigningKey) -> None:
    good = answer_with(jwks_of(key), "Cache-Control: max-age=100")
    failures = [answer_with(b"", status="500 Oops"), answer_with(b"junk"), answer_with(jwks_of()), b"", b"nonsense"]
    issuer.answer = good
    kept = Kept(issuer)
    kept.ask()
    kept.pass_time(80)
    for count, failure in enumerate(failures, 2):
        issuer.answer = failure
        assert not kept.ask()
        issuer.wait_for_requests(count)
        let_fetches_end()
        assert kept.client.last_error
        assert not kept.ask()  # nor is it asked again within the interval
        kept.pass_time(MIN_INTERVAL_S)
    assert len(issuer.requests) == 1 + len(failures)
    kept.pass_time(100_000)
    issuer.answer = issuer.held(good)
    assert not kept.ask()  # long after max-age: the fetch goes on behind
    assert not kept.client.must_wait()
    kept.client.fetch()  # for an unknown kid: neither
    assert (kept.client.has_keys, len(kept.used)) == (True, 1)
    issuer.gate.set()
    let_fetches_end()
    assert (kept.client.last_error, len(kept.used)) == (None, 2)
    assert not kept.ask()


def test_a_fetch_is_begun_once_an_interval_whatever_happens(issuer: Issuer, key: SigningKey) -> None:
    kept = Kept(issuer)
    for answer in (answer_with(b"", status="503 Down"), answer_with(jwks_of(key)), answer_with(b"")):
        issuer.answer = answer
        before = len(issuer.requests)
        for _ in range(100):
            kept.client.must_wait()
            kept.client.fetch()
            let_fetches_end()
        assert len(issuer.requests) == before + 1
        assert not kept.client.may_fetch()
        kept.pass_time(MIN_INTERVAL_S - 0.01)
        assert not kept.client.may_fetch()
        kept.pass_time(0.02)
        assert kept.client.may_fetch()


def test_before_the_first_keys_every_failure_is_told_and_the_next_interval_tries_again(
    issuer: Issuer, key: SigningKey
) -> None:
    kept = Kept(issuer)
    issuer.answer = answer_with(b"", status="503 Down")
    assert kept.ask()
    assert kept.client.last_error == "the JWKS could not be fetched: status 503"
    assert not kept.client.has_keys
    assert not kept.ask()
    kept.pass_time(MIN_INTERVAL_S)
    issuer.answer = answer_with(jwks_of(key))
    assert kept.ask()
    assert (kept.client.has_keys, len(kept.used)) == (True, 1)


@pytest.mark.parametrize("late", ["an answer", "a failure"])
def test_a_fetch_that_is_overdue_is_given_up_and_what_it_brings_comes_too_late(
    issuer: Issuer, key: SigningKey, late: str
) -> None:
    kept = Kept(issuer)
    issuer.answer = issuer.held(answer_with(jwks_of(key), status="200 OK" if late == "an answer" else "500 Oops"))
    first = threading.Thread(target=kept.client.fetch)
    first.start()
    issuer.wait_for_requests(1)
    assert kept.client.may_fetch()
    kept.pass_time(MIN_INTERVAL_S)
    other = SigningKey.generate("Ed25519")
    issuer.answer = answer_with(jwks_of(other))
    kept.client.fetch()
    assert [list(keys.by_kid) for keys in kept.used] == [[other.kid]]
    issuer.gate.set()
    first.join(PATIENCE_S)
    let_fetches_end()
    assert (len(kept.used), kept.client.last_error) == (1, None)
    assert not kept.client.must_wait()


def test_when_no_thread_can_be_had_that_is_a_failed_fetch_and_no_error(
    issuer: Issuer, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    issuer.answer = answer_with(jwks_of(key))
    kept = Kept(issuer)
    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", start)
        assert kept.ask()
    assert kept.client.last_error == "the JWKS could not be fetched: RuntimeError"
    kept.pass_time(MIN_INTERVAL_S)
    assert kept.ask()
    assert kept.client.has_keys


def test_those_who_wait_are_let_go_even_when_the_fetch_is_not(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(issuer, timeout_s=-0.9)  # which makes a wait of 0.1 s
    monkeypatch.setattr(kept.client, "_fly", lambda flight: None)  # a resolver that hangs: nothing can end it
    started = time.monotonic()
    assert kept.ask()
    assert 0.05 < time.monotonic() - started < PATIENCE_S / 2
    assert not kept.client.has_keys
