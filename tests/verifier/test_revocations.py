"""``Revocations`` by itself: what it refuses, how long it remembers, whom it tells."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from fastauth import Claims
from fastauth.jose.claims import MAX_LEEWAY_S
from fastauth.verifier.revocations import Revocations
from tests.cases import each

NOW_S: Final = 1_800_000_000
END_S: Final = NOW_S + 900
GONE_S: Final = END_S + MAX_LEEWAY_S  # no verifier lets a token live longer


def claims(**changes: Any) -> Claims:
    """A token's claims; issued now, and every name is ``x``."""
    names = {"jti": "x", "sid": "x", "sub": "x", "client_id": "x", "iat": NOW_S, **changes}
    return Claims(iss="i", aud=("a",), exp=END_S, nbf=None, scope=None, payload=b"{}", **names)


NOBODY: Final = dict.fromkeys(("jti", "sid", "client_id"), None) | {"sub": "nobody"}


def revoke(revocations: Revocations, kind: str, name: str, issued_until_s: int = NOW_S, until_s: int = END_S) -> None:
    """Revoke a name of any kind."""
    match kind:
        case "jti":
            revocations.revoke_token(name, until_s)
        case "sid":
            revocations.revoke_session(name, until_s)
        case "sub":
            revocations.revoke_subject(name, issued_until_s, until_s)
        case _:
            revocations.revoke_client(name, issued_until_s, until_s)


KINDS: Final = ("jti", "sid", "sub", "client_id")


@each("kind", KINDS)
def test_a_name_is_revoked_as_what_it_is_and_as_nothing_else(kind: str) -> None:
    revocations = Revocations()
    assert not revocations.is_revoked(claims())
    revoke(revocations, kind, "x")
    assert len(revocations) == 1
    assert revocations.is_revoked(claims(**NOBODY | {kind: "x"}))
    for other in KINDS:
        assert revocations.is_revoked(claims(**{other: "y"})) != (other == kind)
        assert revocations.is_revoked(claims(**NOBODY | {other: "x"})) == (other == kind)
    for name in ("", "X", "x ", "xx", "\u0445"):
        assert not revocations.is_revoked(claims(**{kind: name}))


def test_absent_names_are_no_names() -> None:
    revocations = Revocations()
    for kind in KINDS:
        revoke(revocations, kind, "None")
        revoke(revocations, kind, "")
    assert not revocations.is_revoked(claims(**NOBODY))


@each("kind", ["jti", "sid"])
def test_a_token_and_a_session_are_refused_whenever_they_were_made(kind: str) -> None:
    revocations = Revocations()
    revoke(revocations, kind, "x")
    for iat in (None, 0, NOW_S, NOW_S + 1, 1 << 53):
        assert revocations.is_revoked(claims(iat=iat))


@each("kind", ["sub", "client_id"])
def test_a_subject_and_a_client_are_refused_what_was_issued_until_then(kind: str) -> None:
    revocations = Revocations()
    revoke(revocations, kind, "x", NOW_S)
    for iat, is_revoked in ((None, True), (0, True), (NOW_S - 1, True), (NOW_S, True), (NOW_S + 1, False)):
        assert revocations.is_revoked(claims(iat=iat)) == is_revoked


@each("kind", ["sub", "client_id"])
def test_a_later_revocation_extends_an_earlier_one_and_none_shortens_it(kind: str) -> None:
    revocations = Revocations()
    for issued_until_s, until_s in ((NOW_S, END_S), (NOW_S + 10, END_S + 10), (NOW_S - 50, END_S - 50)):
        revoke(revocations, kind, "x", issued_until_s, until_s)
    assert len(revocations) == 1
    assert revocations.is_revoked(claims(iat=NOW_S + 10))
    assert not revocations.is_revoked(claims(iat=NOW_S + 11))
    revocations.forget_expired(GONE_S + 9)
    assert revocations.is_revoked(claims(iat=NOW_S + 10))


@each("kind", KINDS)
def test_a_revocation_is_remembered_until_the_last_token_has_expired(kind: str) -> None:
    revocations = Revocations()
    revoke(revocations, kind, "x")
    revocations.forget_expired(GONE_S - 1)
    assert revocations.is_revoked(claims())
    revocations.forget_expired(GONE_S)
    assert (len(revocations), revocations.is_revoked(claims())) == (0, False)
    revoke(revocations, kind, "x", NOW_S, END_S + 5)
    assert revocations.is_revoked(claims())


def test_forgetting_keeps_the_memory_to_what_lives() -> None:
    revocations = Revocations()
    for now_s in range(NOW_S, NOW_S + 500):
        for kind in KINDS:
            revoke(revocations, kind, f"{kind}{now_s}", now_s, now_s + 10)
        revocations.forget_expired(now_s)
        assert len(revocations) <= 4 * (10 + MAX_LEEWAY_S)
    revocations.forget_expired(GONE_S)
    assert len(revocations) == 0
    revocations.forget_expired(GONE_S)


def test_whoever_watches_is_called_after_every_revocation_and_finds_it_done() -> None:
    revocations = Revocations()
    found: list[tuple[str, bool]] = []
    revocations.watch(lambda: found.append(("first", revocations.is_revoked(claims()))))
    revocations.watch(lambda: found.append(("second", revocations.is_revoked(claims()))))
    revocations.forget_expired(NOW_S)
    assert found == []
    for number, kind in enumerate(KINDS, start=1):
        revoke(revocations, kind, "x")
        assert found == [("first", True), ("second", True)] * number


def test_a_verifier_that_is_gone_is_let_go_of() -> None:
    class Watcher:
        calls = 0

        def look(self) -> None:
            Watcher.calls += 1

    revocations, watcher = Revocations(), Watcher()
    revocations.watch(watcher.look)
    revocations.revoke_token("a", END_S)
    del watcher
    revocations.revoke_token("b", END_S)
    assert Watcher.calls == 1


def test_a_watcher_may_ask_and_revoke_itself() -> None:
    revocations = Revocations()

    def revoke_more() -> None:
        if len(revocations) < 3:
            revocations.revoke_token(f"t{len(revocations)}", END_S)

    revocations.watch(revoke_more)
    revocations.revoke_token("t", END_S)
    assert len(revocations) == 3


@pytest.fixture
def hasty_switches() -> Iterator[None]:
    """Threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_switches")
def test_threads_that_revoke_forget_and_ask_at_once_miss_nothing() -> None:
    revocations = Revocations()
    revocations.revoke_subject("x", NOW_S, END_S)

    def work(seed: int) -> None:
        for number in range(150):
            name = f"{seed}-{number}"
            revocations.revoke_session(name, NOW_S + number)
            revocations.revoke_token(name, END_S)
            assert revocations.is_revoked(claims(**NOBODY | {"jti": name}))
            assert revocations.is_revoked(claims(**NOBODY | {"sub": "x"}))
            revocations.forget_expired(NOW_S + number + MAX_LEEWAY_S)
            assert len(revocations) > 0

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    revocations.forget_expired(NOW_S + 150 + MAX_LEEWAY_S)
    assert len(revocations) == 8 * 150 + 1
