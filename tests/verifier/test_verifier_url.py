"""``Verifier`` with a JWKS URL: real fetches from loopback, over HTTP and TLS, good ones and every bad one."""

import asyncio
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fastauth import KeyRefused, KeysUnavailable, TokenRefused, Verifier
from fastauth.jose.keys import SigningKey
from fastauth.jose.keyset import KeySet
from fastauth.verifier import jwks_client
from fastauth.verifier.jwks_client import FETCH_TIMEOUT_S, MAX_JWKS_BYTES, MIN_INTERVAL_S, JwksClient
from tests.cases import each
from tests.jose.making import AUDIENCE, ISSUER, NOW_S, b64, claims_with, header_of, token_of
from tests.verifier.test_jwks_client import (
    PATIENCE_S,
    SHORT_S,
    SOON_S,
    Clock,
    Issuer,
    answer_with,
    jwks_of,
    let_fetches_end,
)


@pytest.fixture(scope="module")
def key() -> SigningKey:
    """The issuer's key, of a kind that is made at once."""
    return SigningKey.generate("ES256")


@pytest.fixture(scope="module")
def next_key() -> SigningKey:
    """The key that the issuer rotates to."""
    return SigningKey.generate("ES256")


@pytest.fixture
def issuer(key: SigningKey) -> Iterator[Issuer]:
    """An issuer that publishes ``key``."""
    with Issuer(answer_with(jwks_of(key), "Cache-Control: max-age=100")) as running:
        yield running


def token_by(key: SigningKey, **header: Any) -> bytes:
    """A good token, with these members in its header."""
    return token_of(key, header_of(key, **{"alg": key.alg, **header}))


def verifier_of(issuer: Issuer | str, timeout_s: float = FETCH_TIMEOUT_S) -> tuple[Verifier, Clock]:
    """A verifier with a URL, and the clock of its fetches."""
    url = issuer if isinstance(issuer, str) else issuer.url
    verifier, clock = Verifier(url, ISSUER, AUDIENCE, clock=lambda: NOW_S), Clock()
    verifier._source = JwksClient(url, verifier.use_keys, timeout_s=timeout_s, monotonic=clock)
    return verifier, clock


def code_of(verifier: Verifier, token: bytes) -> str | None:
    """Why a token is refused; None if it is not."""
    try:
        verifier.verify(token)
    except TokenRefused as refusal:
        return refusal.code
    return None


def reason_of(verifier: Verifier, key: SigningKey) -> str:
    """Why there are no keys."""
    with pytest.raises(KeysUnavailable) as refusal:
        verifier.verify(token_by(key))
    assert refusal.value.code == "keys_unavailable"
    return str(refusal.value)


def unknown_tokens(count: int) -> list[bytes]:
    """Tokens that name keys which nobody has."""
    rest = b"." + b64(json.dumps(claims_with()).encode()) + b"." + b64(b"s" * 64)
    return [b64(b'{"alg":"ES256","typ":"at+jwt","kid":"nobody-%d"}' % number) + rest for number in range(count)]


# ------------------------------------------------------------------ the plain course


def test_the_keys_are_fetched_at_the_first_token_and_not_before(issuer: Issuer, key: SigningKey) -> None:
    verifier = Verifier(keys=issuer.url, issuer=ISSUER, audience=AUDIENCE, clock=lambda: NOW_S)
    assert issuer.requests == []
    for _ in range(3):
        assert verifier.verify(token_by(key)).sub == "5f9c"
    assert verifier.verify(token_by(key).decode()).sub == "5f9c"
    assert asyncio.run(verifier.verify_async(token_by(key))).sub == "5f9c"
    assert len(issuer.requests) == 1


@each("url", ["", "http://auth.example/", "file:///etc/passwd", "data:,x", "https://a:b@c/", "https://auth.example/#x"])
def test_a_url_that_cannot_be_used_is_refused_when_the_verifier_is_made(url: str) -> None:
    with pytest.raises(KeyRefused):
        Verifier(url, ISSUER, AUDIENCE)


@each("keys", [None, b"https://auth.example/", ["https://auth.example/"], 5, True])
def test_keys_that_are_neither_a_url_nor_a_jwks_are_refused(keys: Any) -> None:
    with pytest.raises(KeyRefused):
        Verifier(keys, ISSUER, AUDIENCE)


def test_keys_of_no_use_in_a_foreign_set_are_skipped_and_counted(issuer: Issuer, key: SigningKey) -> None:
    issuer.answer = answer_with(jwks_of({"kty": "oct", "kid": "x", "k": "AA"}, None, key, {"kty": "RSA", "kid": "y"}))
    verifier, _ = verifier_of(issuer)
    assert code_of(verifier, token_by(key)) is None
    assert (list(verifier.keys.by_kid), verifier.keys.skipped) == ([key.kid], 3)


def test_nothing_that_a_token_points_to_is_ever_fetched(issuer: Issuer, key: SigningKey, next_key: SigningKey) -> None:
    verifier, clock = verifier_of(issuer)
    with Issuer(answer_with(jwks_of(next_key))) as attacker:
        pointers = {"jku": attacker.url, "x5u": attacker.url, "jwk": next_key.public_jwk, "x5c": ["AAAA"]}
        for kid, code in ((key.kid, "signature"), (next_key.kid, "key"), (attacker.url, "key")):
            for name, value in pointers.items():
                clock.now += MIN_INTERVAL_S
                assert code_of(verifier, token_by(next_key, **{"kid": kid, name: value})) == code
        assert code_of(verifier, token_by(key, jku=attacker.url, x5u=attacker.url)) is None
        let_fetches_end()
        assert attacker.requests == []
    assert all(request.startswith(b"GET /jwks.json HTTP/1.1\r\n") for request in issuer.requests)


# ------------------------------------------------------------------ no keys at all


def test_without_any_keys_the_reason_is_named_and_no_secret(issuer: Issuer, key: SigningKey) -> None:
    reasons: dict[str, bytes | Callable[[socket.socket], None]] = {
        "status 404": answer_with(b"", status="404 Not Found"),
        "status 301": answer_with(b"", "Location: file:///etc/passwd", status="301 Moved"),
        "larger than 262144 bytes": answer_with(b" " * MAX_JWKS_BYTES + jwks_of(key)),
        "compressed": answer_with(jwks_of(key), "Content-Encoding: gzip"),
        "broke off": answer_with(jwks_of(key))[:-1],
        "strict JSON": answer_with(b"<html>secret</html>"),
        "no key": answer_with(jwks_of({"kty": "oct", "kid": "a", "k": "secret"})),
        "same kid": answer_with(jwks_of(key, key)),
        "the JWKS could not be fetched: ": issuer.hang,
    }
    for reason, answer in reasons.items():
        issuer.answer = answer
        timeout_s = SHORT_S if answer == issuer.hang else FETCH_TIMEOUT_S
        text = reason_of(verifier_of(f"{issuer.url}?key=secret", timeout_s)[0], key)
        assert reason in text
        assert "secret" not in text
    assert "ConnectionRefusedError" in reason_of(verifier_of("http://127.0.0.1:1/?key=secret")[0], key)


def test_without_any_keys_the_issuer_is_asked_once_an_interval(issuer: Issuer, key: SigningKey) -> None:
    good, issuer.answer = issuer.answer, answer_with(b"", status="503 Down")
    verifier, clock = verifier_of(issuer)
    assert {reason_of(verifier, key) for _ in range(100)} == {"the JWKS could not be fetched: status 503"}
    assert len(issuer.requests) == 1
    issuer.answer = good
    clock.now += MIN_INTERVAL_S
    assert code_of(verifier, token_by(key)) is None
    assert len(issuer.requests) == 2


# ------------------------------------------------------------------ rotation, refresh, and an issuer that is down


def test_a_token_of_a_new_key_is_accepted_after_one_fetch(
    issuer: Issuer, key: SigningKey, next_key: SigningKey
) -> None:
    verifier, clock = verifier_of(issuer)
    assert code_of(verifier, token_by(key)) is None
    issuer.answer = answer_with(jwks_of(key, next_key))
    assert code_of(verifier, token_by(next_key)) == "key"  # so soon nothing is fetched
    clock.now += MIN_INTERVAL_S
    assert code_of(verifier, token_by(next_key)) is None
    assert code_of(verifier, token_by(key)) is None
    assert len(issuer.requests) == 2


@pytest.mark.parametrize("how", ["refresh", "unknown kid"])
def test_a_key_that_is_gone_takes_its_tokens_along_even_those_seen_before(
    issuer: Issuer, key: SigningKey, next_key: SigningKey, how: str
) -> None:
    verifier, clock = verifier_of(issuer)
    token = token_by(key)
    assert [code_of(verifier, token) for _ in range(3)] == [None] * 3
    answer = answer_with(jwks_of(next_key))
    issuer.answer = issuer.held(answer) if how == "refresh" else answer
    clock.now += 75
    assert code_of(verifier, token if how == "refresh" else token_by(next_key)) is None
    issuer.gate.set()
    let_fetches_end()
    assert [code_of(verifier, token) for _ in range(2)] == ["key", "key"]
    assert code_of(verifier, token_by(next_key)) is None
    assert len(issuer.requests) == 2


def test_another_key_under_an_old_kid_takes_the_old_tokens_along(
    issuer: Issuer, key: SigningKey, next_key: SigningKey
) -> None:
    issuer.answer = answer_with(jwks_of({**key.public_jwk, "kid": "one"}))
    verifier, clock = verifier_of(issuer)
    token = token_by(key, kid="one")
    assert code_of(verifier, token) is None
    issuer.answer = answer_with(jwks_of({**next_key.public_jwk, "kid": "one"}))
    clock.now += 300
    assert code_of(verifier, token) == "signature"
    assert code_of(verifier, token_by(next_key, kid="one")) is None


def test_known_tokens_never_wait_while_the_issuer_hangs(issuer: Issuer, key: SigningKey) -> None:
    verifier, clock = verifier_of(issuer)
    token, fresh = token_by(key), [token_by(key, n=number) for number in range(3)]
    assert code_of(verifier, token) is None
    good, issuer.answer = issuer.answer, issuer.hang
    clock.now += 75
    assert [code_of(verifier, known) for known in (token, *fresh)] == [None] * 4  # and the fetch hangs behind
    issuer.wait_for_requests(2)
    assert verifier._source is not None
    assert verifier._source.last_error is None
    issuer.answer = good
    clock.now += MIN_INTERVAL_S
    assert code_of(verifier, token) is None  # gives that fetch up and begins another
    issuer.wait_for_requests(3)


def test_after_max_age_the_last_good_keys_serve_while_the_issuer_is_down_until_it_is_back(
    issuer: Issuer, key: SigningKey, next_key: SigningKey
) -> None:
    verifier, clock = verifier_of(issuer)
    assert code_of(verifier, token_by(key)) is None
    issuer.answer = answer_with(b"", status="500 Oops")
    clock.now += 1_000
    for number in range(5):
        assert code_of(verifier, token_by(key, n=number)) is None
        let_fetches_end()
        assert code_of(verifier, token_by(next_key)) == "key"
        clock.now += 1_000
    assert len(issuer.requests) == 6
    issuer.answer = issuer.held(answer_with(jwks_of(next_key)))
    assert code_of(verifier, token_by(key)) is None  # once more: nobody waits, the fetch is begun
    issuer.gate.set()
    let_fetches_end()
    assert code_of(verifier, token_by(next_key)) is None
    assert code_of(verifier, token_by(key)) == "key"


def test_a_foreign_set_that_turns_bad_does_not_replace_a_good_one(issuer: Issuer, key: SigningKey) -> None:
    verifier, clock = verifier_of(issuer)
    assert code_of(verifier, token_by(key)) is None
    for body in (jwks_of(), jwks_of(key, key), jwks_of({"kty": "oct", "kid": "a", "k": "AA"}), b"{}", b"junk"):
        issuer.answer = answer_with(body)
        clock.now += 100
        assert code_of(verifier, token_by(key)) is None
        let_fetches_end()
    assert len(issuer.requests) == 6


# ------------------------------------------------------------------ many at once


def test_fifty_threads_at_the_start_make_one_fetch_and_all_succeed(issuer: Issuer, key: SigningKey) -> None:
    assert isinstance(issuer.answer, bytes)
    issuer.answer = issuer.held(issuer.answer)
    verifier, _ = verifier_of(issuer)
    start = threading.Barrier(51)
    token = token_by(key)

    def verify() -> str:
        start.wait(PATIENCE_S)
        return verifier.verify(token).sub

    with ThreadPoolExecutor(50) as threads:
        results = [threads.submit(verify) for _ in range(50)]
        start.wait(PATIENCE_S)
        issuer.wait_for_requests(1)
        issuer.gate.set()
        assert [result.result(PATIENCE_S) for result in results] == ["5f9c"] * 50
    assert len(issuer.requests) == 1


def test_ten_thousand_unknown_kids_cause_one_fetch_and_are_refused_quickly(issuer: Issuer, key: SigningKey) -> None:
    verifier, clock = verifier_of(issuer)
    assert code_of(verifier, token_by(key)) is None
    clock.now += MIN_INTERVAL_S
    tokens = unknown_tokens(10_000)
    started = time.perf_counter()
    assert {code_of(verifier, token) for token in tokens} == {"key"}
    assert time.perf_counter() - started < 5
    assert len(issuer.requests) == 2
    assert code_of(verifier, token_by(key)) is None
    issuer.answer = answer_with(b"", status="500 Oops")  # a failure makes no difference
    clock.now += MIN_INTERVAL_S
    assert {code_of(verifier, token) for token in tokens[:1_000]} == {"key"}
    assert len(issuer.requests) == 3


def test_malformed_tokens_cause_no_fetch(issuer: Issuer, key: SigningKey) -> None:
    verifier, clock = verifier_of(issuer)
    assert code_of(verifier, token_by(key)) is None
    clock.now += MIN_INTERVAL_S
    bad = [b"", b"a.b.c", b"x" * 10_000, token_by(key, kid=5), token_by(key, alg="none"), token_by(key)[:-4] + b"AAAA"]
    assert {code_of(verifier, token) for token in bad} <= {"malformed", "too_large", "algorithm", "signature"}
    assert len(issuer.requests) == 1


def test_nobody_waits_for_keys_with_what_no_key_could_make_good(issuer: Issuer) -> None:
    verifier, _ = verifier_of(issuer)
    assert {code_of(verifier, token) for token in (b"x", b"a.b.c", b"x" * 10_000)} == {"malformed", "too_large"}
    assert issuer.requests == []


def test_a_token_that_names_no_key_causes_no_fetch(issuer: Issuer, key: SigningKey) -> None:
    verifier, clock = verifier_of(issuer)
    assert code_of(verifier, token_by(key)) is None
    clock.now += MIN_INTERVAL_S
    nameless = token_of(key, {"alg": key.alg, "typ": "at+jwt"}, b"{}")
    assert code_of(verifier, nameless) == "key"
    assert len(issuer.requests) == 1


def test_keys_that_others_brought_meanwhile_are_used_without_another_fetch(
    issuer: Issuer, key: SigningKey, next_key: SigningKey
) -> None:
    verifier, _ = verifier_of(issuer)
    assert code_of(verifier, token_by(key)) is None
    asked = verifier._jws

    class Late(type(asked)):  # type: ignore[misc]
        """The set is looked into, and another one arrives before the answer does."""

        def verify(self, token: bytes) -> Any:
            verifier.use_keys(KeySet({one.kid: one.verifying_key() for one in (key, next_key)}))
            return asked.verify(token)

    verifier._jws = Late(asked.keys)
    assert code_of(verifier, token_by(next_key)) is None
    assert len(issuer.requests) == 1


def test_unknown_kids_wait_for_a_hanging_issuer_only_until_its_time_is_over(issuer: Issuer, key: SigningKey) -> None:
    verifier, clock = verifier_of(issuer)
    assert code_of(verifier, token_by(key)) is None
    assert verifier._source is not None
    verifier._source._timeout_s = SHORT_S
    issuer.answer = issuer.hang
    clock.now += MIN_INTERVAL_S
    with ThreadPoolExecutor(30) as threads, issuer:  # which is closed first, so that a failure hangs nothing
        waiting = [threads.submit(code_of, verifier, token) for token in unknown_tokens(30)]
        assert code_of(verifier, token_by(key)) is None
        assert {result.result(PATIENCE_S) for result in waiting} == {"key"}
    assert len(issuer.requests) <= 2


def test_unknown_kids_do_not_wait_for_an_issuer_that_is_known_to_be_down(issuer: Issuer, key: SigningKey) -> None:
    verifier, clock = verifier_of(issuer, timeout_s=2 * PATIENCE_S)
    assert code_of(verifier, token_by(key)) is None
    for answer in (answer_with(b"", status="500 Oops"), issuer.hang):
        issuer.answer = answer
        clock.now += MIN_INTERVAL_S
        started = time.monotonic()
        assert {code_of(verifier, token) for token in unknown_tokens(1_000)} == {"key"}
        assert time.monotonic() - started < SOON_S
    issuer.wait_for_requests(3)
    assert len(issuer.requests) == 3


# ------------------------------------------------------------------ asyncio


def test_the_event_loop_goes_on_while_keys_are_fetched(issuer: Issuer, key: SigningKey, next_key: SigningKey) -> None:
    async def ticks_open_the_gate() -> None:
        await asyncio.to_thread(issuer.wait_for_requests, len(issuer.requests) + 1)
        for _ in range(3):
            await asyncio.sleep(0)
        issuer.gate.set()  # were the loop blocked, nobody would

    async def run() -> None:
        verifier, clock = verifier_of(issuer)
        for signer in (key, next_key):  # the first fetch, and one for an unknown kid
            issuer.gate.clear()
            issuer.answer = issuer.held(answer_with(jwks_of(key, signer) if signer is next_key else jwks_of(key)))
            ticking = asyncio.create_task(ticks_open_the_gate())
            await asyncio.sleep(0)
            assert (await verifier.verify_async(token_by(signer))).sub == "5f9c"
            await ticking
            clock.now += MIN_INTERVAL_S

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    assert len(issuer.requests) == 2


def test_who_stops_waiting_disturbs_nobody_else(issuer: Issuer, key: SigningKey) -> None:
    assert isinstance(issuer.answer, bytes)
    issuer.answer = issuer.held(issuer.answer)

    async def run() -> None:
        verifier, _ = verifier_of(issuer)
        waiting = [asyncio.create_task(verifier.verify_async(token_by(key))) for _ in range(5)]
        await asyncio.to_thread(issuer.wait_for_requests, 1)
        waiting[0].cancel()
        waiting[3].cancel()
        gone = await asyncio.gather(waiting[0], waiting[3], return_exceptions=True)
        assert [type(result) for result in gone] == [asyncio.CancelledError] * 2
        issuer.gate.set()
        assert [(await waiting[number]).sub for number in (1, 2, 4)] == ["5f9c"] * 3
        assert (await verifier.verify_async(token_by(key))).sub == "5f9c"

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    assert len(issuer.requests) == 1


def test_known_tokens_are_verified_while_unknown_ones_wait(issuer: Issuer, key: SigningKey) -> None:
    async def run() -> None:
        verifier, clock = verifier_of(issuer)
        await verifier.verify_async(token_by(key))
        issuer.answer = issuer.held(answer_with(jwks_of(key)))
        clock.now += MIN_INTERVAL_S
        unknown = [asyncio.create_task(verifier.verify_async(token)) for token in unknown_tokens(200)]
        await asyncio.to_thread(issuer.wait_for_requests, 2)
        for number in range(10):
            assert (await verifier.verify_async(token_by(key, n=number))).sub == "5f9c"
        assert not any(task.done() for task in unknown)
        issuer.gate.set()
        refused = await asyncio.gather(*unknown, return_exceptions=True)
        assert {error.code for error in refused if isinstance(error, TokenRefused)} == {"key"}
        assert len(refused) == sum(isinstance(error, TokenRefused) for error in refused)

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    assert len(issuer.requests) == 2


def test_while_the_issuer_is_down_known_tokens_need_no_thread_of_the_pool(issuer: Issuer, key: SigningKey) -> None:
    async def run() -> None:
        verifier, clock = verifier_of(issuer)
        await verifier.verify_async(token_by(key))
        issuer.answer = answer_with(b"", status="500 Oops")
        clock.now += 1_000
        await verifier.verify_async(token_by(key))
        issuer.answer = issuer.hang
        clock.now += 1_000
        with ThreadPoolExecutor(1) as pool:
            asyncio.get_running_loop().set_default_executor(pool)
            busy = threading.Event()
            try:
                held = asyncio.create_task(asyncio.to_thread(busy.wait, PATIENCE_S))
                for number in range(10):
                    assert (
                        await asyncio.wait_for(verifier.verify_async(token_by(key, n=number)), SOON_S)
                    ).sub == "5f9c"
            finally:
                busy.set()
            await held

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


# ------------------------------------------------------------------ fork

FORKING = f"""
import os, signal, sys, threading
from fastauth import Verifier
verifier = Verifier(sys.argv[1], {ISSUER!r}, {AUDIENCE!r}, clock=lambda: {NOW_S})
parent = threading.Thread(target=verifier.verify, args=(sys.argv[2],), daemon=True)
parent.start()
print("fetching", flush=True)
sys.stdin.readline()
with verifier._source._lock:  # the worst moment: the lock is somebody's who is not in the child
    child = os.fork()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    signal.alarm(10)
    print(verifier.verify(sys.argv[2]).sub, flush=True)
os._exit(0)
"""


def test_a_child_forked_while_a_fetch_is_under_way_fetches_for_itself(issuer: Issuer, key: SigningKey) -> None:
    good, issuer.answer = issuer.answer, issuer.hang
    script = [sys.executable, "-W", "ignore", "-c", FORKING, issuer.url, token_by(key).decode()]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            issuer.wait_for_requests(1)
            issuer.answer = good
            out, _ = process.communicate("go on\n", timeout=PATIENCE_S + 5)
        finally:
            process.kill()
    assert out.split() == ["fetching", "5f9c", "0"]
    assert len(issuer.requests) == 2


# ------------------------------------------------------------------ TLS

A_DAY: Final = timedelta(days=1)


def certificate(names: list[x509.GeneralName], *, expired: bool = False) -> bytes:
    """A self-signed certificate and its key, as PEM."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test issuer")])
    until = datetime.now(UTC) + (-A_DAY if expired else A_DAY)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(until - 2 * A_DAY)
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, encipher_only=False, decipher_only=False, **usage
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM) + private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


LOOPBACK: Final = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def server_context(folder: Path, pem: bytes) -> ssl.SSLContext:
    file = folder / "server.pem"
    file.write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context that this process trusts."""
    context = server_context(tmp_path, certificate([LOOPBACK]))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    return context


def test_keys_come_over_tls_from_a_trusted_issuer(tls: ssl.SSLContext, key: SigningKey) -> None:
    with Issuer(answer_with(jwks_of(key)), tls) as issuer:
        verifier, _ = verifier_of(issuer)
        assert code_of(verifier, token_by(key)) is None
        assert issuer.url.startswith("https://")
        assert len(issuer.requests) == 1


@pytest.mark.parametrize("flaw", ["untrusted", "another name", "expired"])
def test_an_issuer_without_a_good_certificate_is_not_asked(
    flaw: str, key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[x509.GeneralName] = [x509.DNSName("auth.example")] if flaw == "another name" else [LOOPBACK]
    context = server_context(tmp_path, certificate(names, expired=flaw == "expired"))
    if flaw == "untrusted":
        (tmp_path / "other.pem").write_bytes(certificate([LOOPBACK]))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / ("other.pem" if flaw == "untrusted" else "server.pem")))
    with Issuer(answer_with(jwks_of(key)), context) as issuer:
        assert "SSLCertVerificationError" in reason_of(verifier_of(issuer)[0], key)
        assert issuer.requests == []


def test_a_redirect_from_tls_to_plain_http_is_not_followed(
    issuer: Issuer, tls: ssl.SSLContext, key: SigningKey
) -> None:
    with Issuer(answer_with(b"", f"Location: {issuer.url}", status="302 Found"), tls) as redirecting:
        assert "302" in reason_of(verifier_of(redirecting)[0], key)
    assert issuer.requests == []


def test_a_listener_without_tls_is_not_spoken_to_in_plaintext(issuer: Issuer, key: SigningKey) -> None:
    verifier, _ = verifier_of(issuer.url.replace("http:", "https:"), SHORT_S)
    assert reason_of(verifier, key)
    assert issuer.requests == []


def test_over_tls_too_the_total_time_is_bounded(tls: ssl.SSLContext, key: SigningKey) -> None:
    with Issuer(b"", tls) as issuer:
        for start in (b"Content-Length: 250\r\n", b"Connection: close\r\n"):
            issuer.answer = issuer.dripping(b"HTTP/1.1 200 OK\r\n" + start + b"\r\n", b" ")
            started = time.monotonic()
            assert reason_of(verifier_of(issuer, SHORT_S)[0], key)
            assert time.monotonic() - started < SOON_S


def test_what_follows_the_cut_of_a_tls_connection_is_never_read_as_plaintext(tls: ssl.SSLContext) -> None:
    sent = threading.Event()

    def serve() -> None:
        raw, _ = listener.accept()
        with raw:
            plain_descriptor = raw.dup()
            with plain_descriptor, tls.wrap_socket(raw, server_side=True) as connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                plain_descriptor.sendall(b"forged")  # what anybody on the way could put behind a record
                sent.set()
                connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        served = threads.submit(serve)
        context = ssl.create_default_context()
        with (
            socket.create_connection(listener.getsockname(), PATIENCE_S) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
        ):
            assert connection.recv(100) == b"HTTP/1.1 200 OK\r\n\r\n"
            assert sent.wait(PATIENCE_S)
            jwks_client._cut(connection)
            with pytest.raises(ssl.SSLError):
                connection.recv(100)
        served.exception(PATIENCE_S)
