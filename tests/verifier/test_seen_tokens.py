"""Tokens that come again: everything but the signature is looked at anew, and memory stays within its bound."""

import gc
import json
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from fastauth import Claims, TokenRefused, Verifier
from fastauth.endpoints.http import Request, Response
from fastauth.endpoints.verify import VerifyEndpoint
from fastauth.jose.keys import SigningKey, VerifyingKey
from fastauth.jose.keyset import KeySet
from fastauth.verifier import SEEN_TOKENS_BYTES
from fastauth.verifier.revocations import Revocations
from tests.cases import each
from tests.integration.running import FULL
from tests.jose.making import AUDIENCE, ISSUER, NOW_S, b64, claims_with, header_of, token_of

EXP_S: Final = NOW_S + 600
KEY: Final = SigningKey.generate("Ed25519")


class Watched:
    """A signature check that counts its calls, and lets something happen while it checks."""

    def __init__(self, check: Callable[[bytes, bytes], bool]) -> None:
        self.check = check
        self.calls = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, signature: bytes, signed: bytes) -> bool:
        self.calls += 1
        self.meanwhile()
        return self.check(signature, signed)


class Bench:
    """A verifier whose clock is set by hand and whose signature checks are counted."""

    def __init__(self, leeway_s: int = 0, audience: str = AUDIENCE, **options: Any) -> None:
        self.now_s: float = NOW_S
        self.revocations = Revocations()
        self.verifier = Verifier(
            {"keys": [KEY.public_jwk]},
            ISSUER,
            audience,
            leeway_s,
            revocations=self.revocations,
            clock=lambda: self.now_s,
            **options,
        )
        key = KEY.verifying_key()
        self.check = key.is_signature = Watched(key.is_signature)
        self.keys = KeySet({KEY.kid: key})
        self.verifier.use_keys(self.keys)

    @property
    def seen(self) -> Any:
        """The cache itself."""
        return self.verifier._seen

    def code(self, token: str | bytes) -> str | None:
        """Why a token is refused; None if it is not."""
        try:
            self.verifier.verify(token)
        except TokenRefused as refusal:
            return refusal.code
        return None


def token(key: SigningKey = KEY, **changes: Any) -> bytes:
    """A good token but for the changes."""
    return token_of(key, header_of(key, alg=key.alg), claims_with(**changes))


# ------------------------------------------------------------------ a token that comes again


def test_a_token_that_comes_again_gives_the_same_claims_without_a_signature_check() -> None:
    bench, good = Bench(), token()
    first = bench.verifier.verify(good)
    for again in (good, good.decode(), bytes(bytearray(good))):
        assert bench.verifier.verify(again) is first
    assert (bench.check.calls, len(bench.seen)) == (1, 1)
    other = token(jti="j2")
    assert bench.verifier.verify(other.decode()).jti == "j2"
    assert bench.verifier.verify(other).jti == "j2"
    assert bench.check.calls == 2


def test_the_servers_verifier_remembers_as_well() -> None:
    key = KEY.verifying_key()
    check = key.is_signature = Watched(key.is_signature)
    verifier = Verifier.from_keys(KeySet({KEY.kid: key}), ISSUER, AUDIENCE, clock=lambda: NOW_S)
    good = token()
    accepted = verifier.accept(good)
    assert verifier.accept(good.decode()) is accepted
    assert (accepted.key, accepted.answer, check.calls) == (key, None, 1)


def test_with_no_room_every_signature_is_checked() -> None:
    bench, good = Bench(cache_bytes=0), token()
    assert [bench.code(good) for _ in range(3)] == [None] * 3
    assert (bench.check.calls, len(bench.seen)) == (3, 0)


def test_another_spelling_is_another_token() -> None:
    bench, good = Bench(), token()
    bench.verifier.verify(good)
    header, payload, signature = good.split(b".")
    spellings = [good + b"=", good + b"\n", b" " + good, good + b".", good[:-1] + bytes([good[-1] ^ 1]), good.upper()]
    spellings += [b".".join((header, payload, signature[:-1] + bytes([byte]))) for byte in b"ABCDxyz09-_"]
    refused = [bench.code(spelling) for spelling in spellings if spelling != good]
    assert set(refused) <= {"malformed", "signature"}
    assert len(bench.seen) == 1
    spaced = token_of(KEY, header_of(KEY, alg="Ed25519"), json.dumps(claims_with(), indent=1).encode())
    calls = bench.check.calls
    assert bench.code(spaced) is None  # the same claims in other bytes: checked like any other token
    assert (bench.check.calls, len(bench.seen)) == (calls + 1, 2)


def test_a_verifier_for_another_audience_does_not_know_what_this_one_has_seen() -> None:
    here, there = Bench(), Bench(audience="https://other.example")
    good = token()
    assert here.code(good) is None
    assert there.code(good) == "audience"
    shared = token(aud=[AUDIENCE, "https://other.example"])
    assert (here.code(shared), there.code(shared), there.check.calls) == (None, None, 2)


def test_only_what_was_accepted_is_remembered(other_key: SigningKey) -> None:
    bench = Bench()
    bench.revocations.revoke_token("bad", EXP_S)
    header = header_of(KEY, alg="Ed25519")
    refused = {
        "expired": token(exp=NOW_S),
        "not_yet_valid": token(nbf=NOW_S + 61),
        "issuer": token(iss="x"),
        "audience": token(aud="x"),
        "malformed": token(sub=""),
        "revoked": token(jti="bad"),
        "key": token(other_key),
        "signature": token()[:-8] + b"AAAAAAA" + token()[-1:],
        "algorithm": token_of(KEY, header_of(KEY, alg="RS256")),
        "type": token_of(KEY, {**header, "typ": "JWT"}),
        "too_large": b"x" * 10_000,
    }
    for _ in range(3):
        assert {code: bench.code(bad) for code, bad in refused.items()} == {code: code for code in refused}
        assert (len(bench.seen), bench.seen.held_bytes) == (0, 0)


# ------------------------------------------------------------------ what is looked at anew


def test_a_token_that_was_seen_expires_all_the_same() -> None:
    bench, good = Bench(), token()
    for bench.now_s, code in ((NOW_S, None), (EXP_S - 0.001, None), (EXP_S, "expired"), (EXP_S + 1, "expired")):
        assert bench.code(good) == code
    assert (bench.check.calls, len(bench.seen)) == (3, 0)


@each("leeway_s", [1, 60])
def test_leeway_counts_for_a_token_that_was_seen_too(leeway_s: int) -> None:
    bench, good = Bench(leeway_s), token()
    for bench.now_s, code in ((NOW_S, None), (EXP_S, None), (EXP_S + leeway_s - 0.5, None)):
        assert bench.code(good) == code
    assert bench.check.calls == 1
    bench.now_s = EXP_S + leeway_s
    assert bench.code(good) == "expired"


def test_a_token_of_a_key_that_is_gone_is_refused_at_once_and_a_token_of_one_that_stays_is_not_checked_again() -> None:
    bench, good = Bench(), token()
    other = SigningKey.generate("Ed25519")
    bench.verifier.use_keys(KeySet({**bench.keys.by_kid, other.kid: other.verifying_key()}))
    assert (bench.code(good), bench.code(token(other))) == (None, None)
    bench.verifier.use_keys(bench.keys)
    assert (bench.code(good), bench.code(token(other))) == (None, "key")
    assert bench.check.calls == 1
    bench.verifier.use_keys(KeySet({other.kid: other.verifying_key()}))
    assert (bench.code(good), len(bench.seen)) == ("key", 0)
    bench.verifier.use_keys(bench.keys)
    assert (bench.code(good), bench.check.calls) == (None, 2)


def test_another_key_under_the_same_name_does_not_vouch_for_the_tokens_of_the_first() -> None:
    bench, good = Bench(), token()
    assert bench.code(good) is None
    other = SigningKey.generate("Ed25519")
    forged = VerifyingKey.from_jwk({**other.public_jwk, "kid": KEY.kid})
    bench.verifier.use_keys(KeySet({KEY.kid: forged}))
    assert bench.code(good) == "signature"
    assert bench.code(token_of(other, header_of(KEY, alg="Ed25519"))) is None


def revoke(revocations: Revocations, kind: str, issued_until_s: int = NOW_S, until_s: int = EXP_S + 60) -> None:
    """Revoke what the good token has of a kind."""
    match kind:
        case "jti":
            revocations.revoke_token("j1", until_s)
        case "sid":
            revocations.revoke_session("s1", until_s)
        case "sub":
            revocations.revoke_subject("5f9c", issued_until_s, until_s)
        case _:
            revocations.revoke_client("fastauth", issued_until_s, until_s)


KINDS: Final = ("jti", "sid", "sub", "client_id")


@each("kind", KINDS)
@each("is_seen", [True, False])
def test_a_token_is_refused_once_any_of_its_names_is_revoked(kind: str, is_seen: bool) -> None:
    bench, good = Bench(), token(sid="s1")
    if is_seen:
        assert bench.code(good) is None
    revoke(bench.revocations, kind)
    assert [bench.code(good) for _ in range(3)] == ["revoked"] * 3
    assert len(bench.seen) == 0
    others = token(jti="j2", sid="s2", sub="other", client_id="other")
    assert bench.code(others) is None


@each("kind", ["sub", "client_id"])
def test_what_is_issued_after_the_revocation_passes(kind: str) -> None:
    bench, before = Bench(), token(iat=NOW_S)
    assert bench.code(before) is None
    revoke(bench.revocations, kind)
    after = token(iat=NOW_S + 1)
    assert (bench.code(before), bench.code(after), bench.code(after)) == ("revoked", None, None)
    revoke(bench.revocations, kind, NOW_S + 1)
    assert bench.code(after) == "revoked"


def test_one_list_of_revocations_serves_several_verifiers() -> None:
    revocations, good = Revocations(), token()
    verifiers = [
        Verifier({"keys": [KEY.public_jwk]}, ISSUER, AUDIENCE, revocations=revocations, clock=lambda: NOW_S)
        for _ in range(2)
    ]
    for verifier in verifiers:
        verifier.verify(good)
    revocations.revoke_token("j1", EXP_S)
    for verifier in verifiers:
        with pytest.raises(TokenRefused) as refusal:
            verifier.verify(good)
        assert refusal.value.code == "revoked"


@each("kind", KINDS)
def test_a_revocation_while_the_signature_is_checked_is_not_missed(kind: str) -> None:
    bench, good = Bench(), token(sid="s1")
    bench.check.meanwhile = lambda: revoke(bench.revocations, kind)
    assert (bench.code(good), bench.code(good)) == ("revoked", "revoked")
    assert len(bench.seen) == 0


def test_a_revocation_after_the_last_look_is_seen_when_the_token_comes_again() -> None:
    class Late(Revocations):
        """Revokes the token right after it said no."""

        def is_revoked(self, claims: Claims) -> bool:
            answer = super().is_revoked(claims)
            self.revoke_token("j1", EXP_S)
            return answer

    good = token()
    verifier = Verifier({"keys": [KEY.public_jwk]}, ISSUER, AUDIENCE, revocations=Late(), clock=lambda: NOW_S)
    assert verifier.verify(good).jti == "j1"
    with pytest.raises(TokenRefused) as refusal:
        verifier.verify(good)
    assert refusal.value.code == "revoked"


def test_keys_that_change_while_the_signature_is_checked_are_looked_at_when_the_token_comes_again() -> None:
    bench, good = Bench(), token()
    other = SigningKey.generate("Ed25519")
    bench.check.meanwhile = lambda: bench.verifier.use_keys(KeySet({other.kid: other.verifying_key()}))
    assert bench.code(good) is None  # it was good when it came
    assert bench.code(good) == "key"


def test_many_revocations_cost_the_tokens_of_others_no_signature_check() -> None:
    bench = Bench()
    tokens = [token(jti=f"t{number}", sub=f"u{number}") for number in range(20)]
    for one in tokens:
        bench.verifier.verify(one)
    for number in range(100):
        bench.revocations.revoke_subject(f"stranger{number}", NOW_S, EXP_S)
        assert bench.code(tokens[number % 20]) is None
    assert bench.check.calls == 20


# ------------------------------------------------------------------ memory


class Asked(Request):
    """``GET /verify``."""

    async def read_body(self) -> bytes:
        return b""


def signed(key: SigningKey, payloads: Iterator[bytes]) -> Iterator[bytes]:
    """A token of each payload."""
    header = b64(json.dumps(header_of(key, alg=key.alg)).encode()) + b"."
    for payload in payloads:
        text = header + b64(payload)
        yield text + b"." + b64(key.sign(text))


def payloads_of(count: int, **changes: Any) -> Iterator[bytes]:
    """Claims that differ in subject and name; ``%d`` is their number wherever it stands in a change."""
    claims = claims_with(**{"sub": "user-%d", "jti": "%022d", "sid": "%022d", **changes})
    template = json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode()
    for number in range(count):
        yield template.replace(b"%d", b"%d" % number).replace(b"%022d", b"%022d" % number)


SHAPES: Final[dict[str, dict[str, Any]]] = {
    "as fastauth issues": {"auth_time": NOW_S, "preferred_username": "user-%d"},
    "as bare as can be": {"iat": None, "jti": None, "sid": None, "scope": None, "client_id": None},
    "of several audiences": {"aud": [AUDIENCE, *(f"https://{number}-%d.example" for number in range(12))]},
    "with large claims of its own": {"groups": [f"group-{number}-%d" for number in range(100)]},
    "with a wide scope": {"scope": "é" * 100 + "%d"},
    "with a scope of kilobytes that one character makes wide": {"scope": "%d" + "s" * 3_500 + "😀"},
    "with a scope that a header has to escape": {"scope": "%d" + "\u2028" * 1_500},
    "with a scope of controls that JSON does not escape": {"scope": "%d" + "\x7f" * 3_500},
    "with a scope that ends in blanks": {"scope": "%d" + " " * 3_500},
    "of a thousand small audiences": {"aud": [AUDIENCE, *(f"{number:02x}" for number in range(900))]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bytes_accounted_for_are_at_least_the_bytes_taken(
    shape: str, record_property: Callable[[str, object], None]
) -> None:
    count = (20_000 if FULL else 800) if shape == "as fastauth issues" else (1_000 if FULL else 30)
    bench = Bench()
    endpoint = VerifyEndpoint(bench.verifier, None)
    tokens = signed(KEY, payloads_of(count, **SHAPES[shape]))
    endpoint(Asked("GET", "/verify", {b"authorization": b"Bearer " + token()}))
    tracemalloc.start()
    try:
        for one in tokens:
            answer = endpoint(Asked("GET", "/verify", {b"authorization": b"Bearer " + one}))
            assert isinstance(answer, Response)
            assert answer.status == 200
        del tokens, one
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    accounted = bench.seen.held_bytes
    record_property("bytes taken", taken // len(bench.seen))
    record_property("bytes accounted for", accounted // len(bench.seen))
    assert accounted <= SEEN_TOKENS_BYTES
    assert len(bench.seen) == count + 1 or accounted > SEEN_TOKENS_BYTES * 0.99
    assert taken <= accounted
    if shape == "as fastauth issues":
        assert taken >= accounted / 2


def resident_bytes() -> int:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_million_tokens_and_a_million_hits_take_no_more_memory_than_the_first(
    record_property: Callable[[str, object], None],
) -> None:
    count, cache_bytes = (1_000_000, SEEN_TOKENS_BYTES) if FULL else (3_000, 1 << 20)
    key = SigningKey.generate("ES256")
    verifier = Verifier({"keys": [key.public_jwk]}, ISSUER, AUDIENCE, cache_bytes=cache_bytes, clock=lambda: NOW_S)
    hot = list(signed(key, payloads_of(20, sub="hot-%d", jti="hot-%d")))
    warm_up, resident, blocks = count // 20 if FULL else count // 3, 0, 0
    for number, one in enumerate(signed(key, payloads_of(count))):
        verifier.verify(one)
        verifier.verify(hot[number % 20])
        if number == warm_up:
            gc.collect()
            resident, blocks = resident_bytes(), sys.getallocatedblocks()
    accepted = [verifier.accept(one) for one in hot]
    for number in range(count):
        assert verifier.accept(hot[number % 20]) is accepted[number % 20]
    gc.collect()
    growth = resident_bytes() / resident - 1
    block_growth = sys.getallocatedblocks() / blocks - 1  # of small objects, which freed memory cannot hide
    record_property("distinct tokens", count)
    record_property("resident MiB after the warm-up", round(resident / 2**20, 1))
    record_property("growth in percent", round(growth * 100, 2))
    record_property("growth of small objects in percent", round(block_growth * 100, 2))
    assert verifier._seen.held_bytes <= cache_bytes
    assert growth < 0.05
    assert block_growth < 0.05
