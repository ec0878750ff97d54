"""An issuer's keys from its JWKS URL: fetched in the background, kept while the issuer is down.

Standard library only (``http.client``): one GET without redirects, proxies or cookies, whose total time can be bounded.
"""

import asyncio
import concurrent.futures
import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from fastauth import core
from fastauth.domain.hosts import is_loopback
from fastauth.jose.keyset import KeySet
from fastauth.jose.refusals import KeyRefused

MAX_JWKS_BYTES: Final = 256 * 1024
FETCH_TIMEOUT_S: Final = 5.0
# So long a caller waits for a fetch while there are keys, though perhaps not the one that its token names.
PATIENCE_S: Final = 1.0
# At most one fetch in so much time, whatever tokens come and however often the last one failed.
MIN_INTERVAL_S: Final = 10.0
DEFAULT_MAX_AGE_S: Final = 300
_SHORTEST_MAX_AGE_S: Final = 60  # an issuer that says less would make every verifier its client all the time
_LONGEST_MAX_AGE_S: Final = 86_400
_REFRESH_AT: Final = 0.75  # of the max-age: well before anybody would have to wait
_DEPTH: Final = 8

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class FetchFailed(Exception):
    """The JWKS could not be had; the text says why, for ``JwksClient.last_error``."""


# One fetch, for all who wait for it.
_Flight = concurrent.futures.Future[None]


class JwksClient:
    """Keeps ``use`` supplied with an issuer's keys. Safe to use from several threads, and after a fork."""

    def __init__(
        self,
        url: str,
        use: Callable[[KeySet], None],
        *,
        timeout_s: float = FETCH_TIMEOUT_S,
        min_interval_s: float = MIN_INTERVAL_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """In: ``use`` is called with every set that was fetched, in the fetching thread.

        Raises KeyRefused for a URL that is not https, or http to loopback.
        """
        self._url = parse_jwks_url(url)
        self._use = use
        self._timeout_s = timeout_s
        self._min_interval_s = min_interval_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._flight: _Flight | None = None
        self._etag: str | None = None
        self._started_at = float("-inf")
        self._refresh_at = float("-inf")  # from then on a fetch is wanted
        self._stale_at = float("-inf")  # from then on a caller waits for it
        self.has_keys = False
        self.last_error: str | None = None
        _clients.add(self)

    def must_wait(self) -> bool:
        """Called for every token: whether a fetch has to be waited for first. Starts one in the background when due."""
        now = self._monotonic()
        if now < self._refresh_at:
            return False
        if now >= self._stale_at and not self._is_down():
            return self.may_fetch()
        if now - self._started_at >= self._min_interval_s:
            self._join_flight()
        return False

    def may_fetch(self) -> bool:
        """For a key that is not known: whether a fetch runs, or may be started. At most one in ``min_interval_s``."""
        return self._flight is not None or self._monotonic() - self._started_at >= self._min_interval_s

    def fetch(self) -> None:
        """Wait for a fetch that is under way, or for one begun now if the interval allows it; its failure is no error.

        While the issuer is down nobody waits: the last good keys serve, and the fetch goes on behind.
        """
        flight, patience_s = self._flight_to_wait_for()
        if flight is not None:
            concurrent.futures.wait([flight], patience_s)

    async def fetch_async(self) -> None:
        """As ``fetch``; the event loop goes on, and no thread of its pool is taken."""
        flight, patience_s = self._flight_to_wait_for()
        if flight is not None:
            await asyncio.wait([asyncio.wrap_future(flight)], timeout=patience_s)

    def _flight_to_wait_for(self) -> tuple[_Flight | None, float]:
        """The fetch, and how long to wait: not long while there are keys, or any ``kid`` would hold up a thread."""
        is_down = self._is_down()
        patience_s = self._timeout_s + 1
        flight = self._join_flight()
        return (None if is_down else flight), min(patience_s, PATIENCE_S) if self.has_keys else patience_s

    def after_fork(self) -> None:
        """In a child process: neither who held the lock nor who was fetching is there."""
        self._lock = threading.Lock()
        if self._flight is not None:
            self._flight = None
            self._started_at = float("-inf")

    def _is_down(self) -> bool:
        return self.has_keys and self.last_error is not None

    def _join_flight(self) -> _Flight | None:
        with self._lock:
            now = self._monotonic()
            flight = self._flight
            # One that is overdue is given up, and what it brings comes too late.
            if flight is not None and now - self._started_at <= self._timeout_s + 1:
                return flight
            if now - self._started_at < self._min_interval_s:
                return None
            self._started_at = now
            self._flight = flight = _Flight()
            flight.set_running_or_notify_cancel()  # a waiter that is cancelled cancels nobody else
        try:
            threading.Thread(target=self._fly, args=(flight,), name="fastauth-jwks", daemon=True).start()
        except RuntimeError as error:  # the process has no thread left, or is about to end
            self._end(flight, _failure(error))
        return flight

    def _fly(self, flight: _Flight) -> None:
        failure: str | None = None
        try:
            answer = fetch_jwks(self._url, self._etag if self.has_keys else None, self._timeout_s)
            keys = None if answer.body is None else parse_jwks(answer.body)
            with self._lock:
                if self._flight is flight:
                    self._take(answer, keys)
        except (FetchFailed, KeyRefused) as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to
            failure = _failure(error)
        self._end(flight, failure)

    def _take(self, answer: "JwksAnswer", keys: KeySet | None) -> None:
        if keys is not None:
            self._use(keys)
            self._etag = answer.etag
        max_age_s = min(max(answer.max_age_s, _SHORTEST_MAX_AGE_S), _LONGEST_MAX_AGE_S)
        now = self._monotonic()
        self._refresh_at = now + max_age_s * _REFRESH_AT
        self._stale_at = now + max_age_s
        self.has_keys = True

    def _end(self, flight: _Flight, failure: str | None) -> None:
        with self._lock:
            if self._flight is flight:
                self._flight = None
                self.last_error = failure
        flight.set_result(None)


_clients: Final[weakref.WeakSet[JwksClient]] = weakref.WeakSet()


def _after_fork() -> None:
    for client in _clients:
        client.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class JwksAnswer(msgspec.Struct, frozen=True):
    """What the issuer said. ``body`` None: nothing has changed (304)."""

    body: bytes | None
    etag: str | None
    max_age_s: int


def parse_jwks_url(url: str) -> SplitResult:
    """Raises KeyRefused for anything but https, or http to this machine; for a user, a fragment or an odd character."""
    try:
        parts = urlsplit(url)
        is_plain = url.isascii() and url.isprintable() and " " not in url and parts.port != 0
    except ValueError:
        is_plain = False
    if not is_plain or not parts.hostname:
        raise KeyRefused("keys must be a JWKS as a dict, or the URL of one")
    if "@" in parts.netloc or parts.fragment:
        raise KeyRefused("the URL of a JWKS has no user and no fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise KeyRefused("a JWKS is fetched over https only (http to this machine)")
    return parts


def parse_jwks(body: bytes) -> KeySet:
    """The usable keys of a document. Raises KeyRefused."""
    problem = core.scan_json(body, _DEPTH)
    if problem == core.JSON_TOO_MANY:
        raise KeyRefused(f"the JWKS has more members than are taken ({core.MAX_JSON_MEMBERS}: about 70 keys)")
    if problem != core.JSON_OK:
        raise KeyRefused("the JWKS is not strict JSON")
    try:
        return KeySet.from_jwks(_decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise KeyRefused("the JWKS is not strict JSON") from None


def fetch_jwks(url: SplitResult, etag: str | None, timeout_s: float) -> JwksAnswer:
    """One GET, over when ``timeout_s`` have passed; connecting alone may take as long, and a TLS handshake once more.

    Raises FetchFailed.
    """
    host = url.hostname or ""
    # The port is always named: http.client would look for it in an IPv6 address.
    connection = http.client.HTTPConnection(host, url.port or 80, timeout=timeout_s)
    if url.scheme == "https":
        context = ssl.create_default_context()  # the system's authorities; SSL_CERT_FILE names others
        connection = http.client.HTTPSConnection(host, url.port or 443, timeout=timeout_s, context=context)
    headers = {"Accept": "application/jwk-set+json, application/json", "User-Agent": "fastauth"}
    if etag is not None:
        headers["If-None-Match"] = etag
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    ends_at = time.monotonic() + timeout_s
    try:
        connection.connect()  # first: before, there is no socket that could be cut
        with _cut_at(ends_at, connection.sock):
            connection.request("GET", target, headers=headers)
            with connection.getresponse() as response:
                return _read(response, may_be_unchanged=etag is not None)
    except (OSError, http.client.HTTPException) as error:
        raise FetchFailed(_failure(error)) from None
    finally:
        connection.close()


def _failure(error: Exception) -> str:
    return f"the JWKS could not be fetched: {type(error).__name__}"


@contextlib.contextmanager
def _cut_at(ends_at: float, sock: socket.socket) -> Iterator[None]:
    # The timeout of a socket starts anew with every byte; this one does not.
    timer = threading.Timer(max(ends_at - time.monotonic(), 0), _cut, [sock])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown: it ends TLS, and what comes next would be read as plaintext.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _read(response: http.client.HTTPResponse, *, may_be_unchanged: bool) -> JwksAnswer:
    max_age_s = max_age_of(", ".join(response.headers.get_all("cache-control", [])))
    age = response.headers.get("age", "")  # a cache on the way has had it for so long (RFC 9111 section 5.1)
    max_age_s = max(0, max_age_s - (int(age[:9]) if age.isascii() and age.isdigit() else 0))
    etag = response.headers.get("etag")
    if response.status == 304 and may_be_unchanged:
        return JwksAnswer(None, etag, max_age_s)
    if response.status != 200:
        raise FetchFailed(f"the JWKS could not be fetched: status {response.status}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchFailed("the JWKS came compressed, unasked")
    body = bytearray(MAX_JWKS_BYTES + 1)
    size = response.readinto(body)  # not read(): it would take a chunk of size -1 without end
    if size > MAX_JWKS_BYTES:
        raise FetchFailed(f"the JWKS is larger than {MAX_JWKS_BYTES} bytes")
    if response.length:  # fewer bytes came than were announced: the end was cut off
        raise FetchFailed("the JWKS broke off")
    is_fit = etag is not None and len(etag) <= 256 and etag.isprintable()  # to be sent back in one line
    return JwksAnswer(bytes(body[:size]), etag if is_fit else None, max_age_s)


def max_age_of(cache_control: str) -> int:
    """``max-age`` in seconds (RFC 9111 section 5.2.2.1); 0 for ``no-store`` and ``no-cache``, else the default."""
    directives = [part.strip().lower() for part in cache_control.split(",")]
    if "no-store" in directives or "no-cache" in directives:
        return 0
    for directive in directives:
        name, _, value = directive.partition("=")
        digits = value.strip('"')
        if name == "max-age" and digits.isascii() and digits.isdigit():
            return int(digits[:9])
    return DEFAULT_MAX_AGE_S
