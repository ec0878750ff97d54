"""What is counted: the hot kernels of the core, and whole requests through the application.

Each workload is made once and then called with how often its work is to be done. ``/auth`` and ``/token`` are not here:
they hand work to threads and wait for the disk, and how often a thread looks for work is not a property of the code.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from fastauth import core

Work = Callable[[int], None]
Build = Callable[[Path, ExitStack], Work]

_ISSUER: Final = "https://auth.example"
_BODY: Final = b'{"username": "somebody@example.org", "password": "correct horse battery staple"}'
_MAX_BYTES: Final = 8_192
_DEPTH: Final = 16
_NOW_S: Final = 1_700_000_000
_SKEW_S: Final = 1 << 40
_UNSEEN: Final = 20
_WARM: Final = 40


class Workload(NamedTuple):
    """``build`` makes the work in a folder that is prepared and says there what has to be closed; it is counted as the
    difference between ``2 * calls`` and ``calls``. ``on_application``: the folder needs its data and tokens.
    """

    name: str
    build: Build
    calls: int = 1_000
    on_application: bool = False


def _token() -> bytes:
    """A token of the size that the server issues; its signature is not looked at here."""
    header = msgspec.json.encode({"alg": "RS256", "typ": "at+jwt", "kid": "k" * 43})
    payload = msgspec.json.encode(
        {
            "iss": _ISSUER,
            "sub": "0123456789abcdef" * 2,
            "aud": _ISSUER,
            "exp": _NOW_S + 3_600,
            "iat": _NOW_S,
            "jti": "0123456789abcdefghijkl",
            "client_id": "fastauth",
            "scope": "user",
            "sid": "0123456789abcdefghijkl",
            "auth_time": _NOW_S,
            "preferred_username": "somebody",
        }
    )
    from fastauth.jose import base64url

    return b".".join(base64url.encode(part) for part in (header, payload, bytes(range(256))))


def _gcra(folder: Path, closing: ExitStack) -> Work:
    gcra = core.gcra

    def work(calls: int) -> None:
        for _ in range(calls):
            gcra(1_000_500, 1_000_000, 1_000, 100, 1)

    return work


def _table(folder: Path, closing: ExitStack) -> Work:
    from fastauth.limits.local import LocalBuckets

    take, rate = LocalBuckets(1_024).take, core.Rate(1, 1_000_000)

    def work(calls: int) -> None:
        for _ in range(calls):
            take("ip:192.0.2.1", rate)

    return work


def _times(folder: Path, closing: ExitStack) -> Work:
    check_times = core.check_times

    def work(calls: int) -> None:
        for _ in range(calls):
            check_times(1_800_000_000, 1_800_003_600, None, 1_800_000_000, 0, 60)

    return work


def _scan(folder: Path, closing: ExitStack) -> Work:
    scan_json = core.scan_json

    def work(calls: int) -> None:
        for _ in range(calls):
            scan_json(_BODY)

    return work


def _split(folder: Path, closing: ExitStack) -> Work:
    split_token, token = core.split_token, _token()

    def work(calls: int) -> None:
        for _ in range(calls):
            split_token(token, _MAX_BYTES)

    return work


def _claims(folder: Path, closing: ExitStack) -> Work:
    parts = core.split_token(_token(), _MAX_BYTES)
    assert not isinstance(parts, int)
    read_claims, decode, payload = core.read_claims, msgspec.json.Decoder(dict).decode, parts[1]

    def work(calls: int) -> None:
        for _ in range(calls):
            read_claims(payload, decode, _DEPTH, _ISSUER, _ISSUER, _NOW_S, 0, _SKEW_S)

    assert type(read_claims(payload, decode, _DEPTH, _ISSUER, _ISSUER, _NOW_S, 0, _SKEW_S)) is tuple
    return work


def _parse(folder: Path, closing: ExitStack) -> Work:
    split_token, read_claims, decode, token = (
        core.split_token,
        core.read_claims,
        msgspec.json.Decoder(dict).decode,
        _token(),
    )

    def work(calls: int) -> None:
        for _ in range(calls):
            parts = split_token(token, _MAX_BYTES)
            read_claims(parts[1], decode, _DEPTH, _ISSUER, _ISSUER, _NOW_S, 0, _SKEW_S)  # type: ignore[index]

    return work


def _seen(folder: Path, closing: ExitStack) -> Work:
    seen = core.SeenTokens(1 << 20, lambda _: True)
    seen.put(b"token", "claims", "subject", 100, 100, 0, 1)
    assert seen.get(b"token", 1) == "claims"
    get = seen.get

    def work(calls: int) -> None:
        for _ in range(calls):
            get(b"token", 1)

    return work


def _asking(path: str, status: int, *, is_limited: bool = False, kind: str = "none") -> Build:
    """In: the status that each answer must have; ``kind`` of token: none, seen, unseen (each another) or forged."""

    def build(folder: Path, closing: ExitStack) -> Work:
        from benchmarks.instructions.application import prepared_tokens, running

        ask = closing.enter_context(running(folder, is_limited=is_limited))
        tokens = prepared_tokens(folder)
        if kind == "unseen":
            fresh: Iterator[bytes] = iter(tokens[1:])

            def unseen(calls: int) -> None:
                for _ in range(calls):
                    if ask(path, next(fresh)) != status:
                        raise AssertionError(path)

            return unseen
        forged = tokens[0][:-8] + b"A" * 8
        token = {"none": None, "seen": tokens[0], "forged": forged}[kind]

        def work(calls: int) -> None:
            for _ in range(calls):
                if ask(path, token) != status:
                    raise AssertionError(path)

        return work

    return build


WORKLOADS: Final = (
    Workload("bucket arithmetic", _gcra),
    Workload("decision in the shared table", _table),
    Workload("claim times", _times),
    Workload("member scan of a login body", _scan),
    Workload("token split and decoded", _split),
    Workload("claims, with decoding", _claims),
    Workload("whole strict parse", _parse),
    Workload("seen token found", _seen),
    Workload("GET /livez", _asking("/livez", 200), 200, on_application=True),
    Workload("GET /verify, seen token", _asking("/verify", 200, kind="seen"), 200, on_application=True),
    Workload(
        "GET /verify, seen token, limited by address",
        _asking("/verify", 200, kind="seen", is_limited=True),
        200,
        on_application=True,
    ),
    Workload("GET /verify, unseen token", _asking("/verify", 200, kind="unseen"), _UNSEEN, on_application=True),
    Workload("GET /verify, forged token", _asking("/verify", 401, kind="forged"), _UNSEEN, on_application=True),
)
TOKENS: Final = 1 + _WARM + 3 * _UNSEEN
"""How many the folder of the application needs."""


def count(names: list[str], folder: Path) -> None:
    """Inside callgrind: do each workload, with a mark before and after what is counted.

    ``os.getsid`` is the mark: callgrind writes down what was counted whenever it is called, and nothing else calls it.
    """
    by_name = {workload.name: workload for workload in WORKLOADS}
    for name in names:
        workload = by_name[name]
        with ExitStack() as closing:
            work = workload.build(folder, closing)
            work(_WARM)  # the interpreter specializes what it has seen some times
            for calls in (workload.calls, 2 * workload.calls):
                os.getsid(0)
                work(calls)
            os.getsid(0)
