"""Whatever comes in, nothing but ``TokenRefused`` and ``KeyRefused`` comes out, and neither repeats what came in.

An example is one draw of bytes, read as choices (``tests/twins/strategies.py``). In full the targets share
``FASTAUTH_FUZZ_S`` seconds, with other seeds in each round.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Final

import pytest
from hypothesis import given, seed, settings

from fastauth import KeyRefused, TokenRefused, Verifier
from fastauth.jose import verify_compact
from fastauth.jose.keys import SigningKey
from fastauth.jose.keyset import KeySet
from fastauth.jose.refusals import _TOKEN_TEXTS
from tests.integration.running import FULL
from tests.jose.making import AUDIENCE, ISSUER, NOW_S, b64, claims_with, token_of
from tests.twins.strategies import Choices, broken_json, built, json_soup, json_text

FUZZ_S: Final = float(os.environ.get("FASTAUTH_FUZZ_S", "600"))
EXAMPLES: Final = 5_000 if FULL else 300
CHOICES_BYTES: Final = 160

KEY: Final = SigningKey.generate("Ed25519")
EC_KEY: Final = SigningKey.generate("ES256")
JWKS: Final = {"keys": [KEY.public_jwk, EC_KEY.public_jwk]}
HEADER: Final = {"alg": "Ed25519", "typ": "at+jwt", "kid": KEY.kid}
GOOD: Final = token_of(KEY, HEADER)
VERIFIER: Final = Verifier(JWKS, ISSUER, AUDIENCE, clock=lambda: NOW_S)
outcomes: Counter[str] = Counter()

# ------------------------------------------------------------------ what must hold


def judge(token: str | bytes) -> None:
    """Let both ways of verifying judge a token."""
    try:
        claims = VERIFIER.verify(token)
    except TokenRefused as refusal:
        check_refusal(refusal)
    else:
        outcomes["accepted"] += 1
        assert claims.iss == ISSUER
        assert AUDIENCE in claims.aud
        assert claims.exp > NOW_S
        assert isinstance(claims.sub, str)
        assert json.loads(claims.payload)["sub"] == claims["sub"] == claims.sub
    try:
        header, payload = verify_compact(token, JWKS)
    except TokenRefused as refusal:
        check_refusal(refusal)
    else:
        assert header["alg"] in {"Ed25519", "EdDSA", "ES256"}
        assert isinstance(payload, bytes)


def check_refusal(refusal: TokenRefused) -> None:
    """A refusal is one of a few sentences: there is no room in it for what was refused."""
    outcomes[refusal.code] += 1
    assert str(refusal) in _TOKEN_TEXTS.values()
    assert refusal.args == (str(refusal),)
    assert refusal.__suppress_context__ or refusal.__context__ is None


def check_keys(keys: Any) -> None:
    """Keys are taken or refused; one that was taken judges tokens as any other."""
    texts = {text for text in texts_in(keys) if len(text) > 20}
    ways: list[Callable[[], object]] = [
        lambda: verify_compact(GOOD, keys),
        lambda: KeySet.from_jwks(keys) if isinstance(keys, dict) else None,
        lambda: KeySet.from_jwks(keys, needs_kid=False) if isinstance(keys, dict) else None,
        lambda: KeySet.from_jwk(keys) if isinstance(keys, dict) else None,
        lambda: (
            Verifier(keys, ISSUER, AUDIENCE, clock=lambda: NOW_S).verify(GOOD) if not isinstance(keys, str) else None
        ),
    ]
    for way in ways:
        said = ""
        try:
            way()
        except TokenRefused as refusal:
            check_refusal(refusal)
        except KeyRefused as refusal:
            said = str(refusal)
            outcomes["key refused"] += 1
        else:
            outcomes["key taken"] += 1
        assert not any(text in said for text in texts)


def texts_in(value: Any) -> list[str]:
    """Every text in it, at any depth."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for text in texts_in(pair[0]) + texts_in(pair[1])]
    return [text for one in value for text in texts_in(one)] if isinstance(value, list) else []


# ------------------------------------------------------------------ what comes in

_PIECES: Final = (
    b".",
    b"..",
    b"=",
    b"",
    b"A",
    b"_",
    b"-",
    b"+",
    b"/",
    b"\0",
    b"\n",
    b" ",
    b"\xff",
    b"\xc3\xa9",
    b"eyJ",
)
_HUGE: Final = "x" * 9_000
_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 1.5, -0.0, NOW_S, NOW_S + 1, NOW_S + 600, NOW_S - 1, NOW_S + 60, NOW_S + 61),
    *(NOW_S + 0.5, 1 << 53, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 63), 10**40, 10**4_000, 1e300),
    *(float("nan"), float("inf"), "", " ", "\0", "é", "\ud800", "\udc00x", "😀", "none", "Ed25519", "EdDSA", "ES256"),
    *("RS256", "at+jwt", "AT+JWT", "JWT", "x" * 300, _HUGE, ISSUER, AUDIENCE, KEY.kid, EC_KEY.kid, str(NOW_S)),
    *([], {}, [None], [AUDIENCE], [AUDIENCE, 1], [[AUDIENCE]], ["verify"], ["verify", None], ["exp"], {"a": {"a": 1}}),
    *([[[[[[]]]]]], {"kty": "oct"}, "sig", "enc", "RSA", "EC", "OKP", "oct", "P-256", "P-384", "X25519", "AQAB", "AA"),
)
_CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat", "nbf", "jti", "sid", "scope", "client_id", "x", "", "\ud800")
_MEMBERS: Final = ("alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "cty", "x", "", "\ud800")
_RSA_JWK: Final = {
    "kty": "RSA",
    "n": b64((Random(1).getrandbits(2048) | 1 << 2047 | 1).to_bytes(256)).decode(),
    "e": "AQAB",
    "kid": "rsa",
}
_JWKS: Final[tuple[dict[str, Any], ...]] = (
    KEY.public_jwk,
    EC_KEY.public_jwk,
    _RSA_JWK,
    {"kty": "oct", "k": "AAAA"},
    {},
)
_KEY_MEMBERS: Final = (
    *("kty", "crv", "x", "y", "n", "e", "x", "y", "n", "e", "kid", "use", "alg", "key_ops", "d", "p", "oth", "k"),
    *("x5c", "keys"),
)


def text_of(choices: Choices) -> bytes:
    """Bytes of any kind, often such as stand in tokens."""
    kind = choices.below(4)
    if kind == 0:
        return bytes(choices.below(256) for _ in range(choices.below(60)))
    if kind == 1:
        return b"".join(choices.pick(_PIECES) for _ in range(choices.below(30)))
    if kind == 2:
        return b".".join(choices.pick((*GOOD.split(b"."), b64(json_soup(choices)))) for _ in range(3))
    parts = [
        choices.pick((b"", b64(json_soup(choices)), b64(bytes(64)), b"AA", *GOOD.split(b".")))
        for _ in range(choices.below(6))
    ]
    return b".".join(parts)


def edited(data: bytes, choices: Choices) -> bytes:
    """A few bytes replaced, cut out, put in or repeated."""
    for _ in range(1 + choices.below(3)):
        start = choices.below(len(data) + 1)
        end = start + choices.pick((0, 1, 1, 2, 43, 86))
        data = data[:start] + choices.pick((*_PIECES, data[start:end] * 2)) + data[end:]
    return data


def value_of(choices: Choices) -> Any:
    """A value for some member: one of many, or any JSON."""
    if choices.below(4):
        return choices.pick(_VALUES)
    return json.loads(json_text(choices))


def members_of(good: dict[str, Any], names: tuple[str, ...], choices: Choices) -> dict[str, Any]:
    """A good object of which a few members are others, or gone."""
    members = dict(good)
    for _ in range(choices.below(4)):
        name = choices.pick(names)
        if choices.below(5):
            members[name] = value_of(choices)
        else:
            members.pop(name, None)
    return members


def document_of(good: dict[str, Any], names: tuple[str, ...], choices: Choices) -> bytes:
    """JSON that is nearly right, or is not JSON."""
    kind = choices.below(16)
    if kind == 0:
        return json_soup(choices)
    if kind == 1:
        return broken_json(choices)
    encoding = choices.pick(("utf-8",) * 12 + ("utf-8-sig", "utf-16", "utf-32-le", "latin-1"))
    is_ascii = encoding == "latin-1" or choices.below(2) == 0
    text = json.dumps(members_of(good, names, choices), ensure_ascii=is_ascii)
    data = text.encode(encoding, "surrogatepass" if encoding != "latin-1" else "strict")
    return edited(data, choices) if kind < 6 else data


def jwk_of(choices: Choices) -> Any:
    """A JWK that is nearly right."""
    jwk = members_of(choices.pick(_JWKS), _KEY_MEMBERS, choices)
    for name in ("x", "y", "n", "e"):
        if isinstance(jwk.get(name), str) and choices.below(6) == 0:
            jwk[name] = edited(jwk[name].encode("utf-8", "replace"), choices).decode("latin-1")
    return jwk


# ------------------------------------------------------------------ the targets


def any_bytes(choices: Choices) -> None:
    judge(text_of(choices))


def any_text(choices: Choices) -> None:
    data = text_of(choices)
    judge(data.decode(choices.pick(("latin-1", "utf-8", "utf-16")), choices.pick(("replace", "ignore"))))


def good_token_edited(choices: Choices) -> None:
    judge(edited(GOOD, choices))


def header_signed(choices: Choices) -> None:
    judge(token_of(choices.pick((KEY, KEY, EC_KEY)), document_of(HEADER, _MEMBERS, choices)))


def claims_signed(choices: Choices) -> None:
    judge(token_of(KEY, HEADER, document_of(claims_with(), _CLAIMS, choices)))


def any_jwk(choices: Choices) -> None:
    check_keys(jwk_of(choices))


def any_jwks(choices: Choices) -> None:
    if choices.below(16) == 0:
        check_keys(choices.pick((value_of(choices), {"keys": value_of(choices)})))
        return
    entries = [jwk_of(choices) if choices.below(8) else value_of(choices) for _ in range(choices.below(5))]
    check_keys(members_of({"keys": entries}, ("kty", "x", "keys") if choices.below(8) == 0 else ("kty", "x"), choices))


TARGETS: Final = (any_bytes, any_text, good_token_edited, header_signed, claims_signed, any_jwk, any_jwks)


@pytest.mark.full
@pytest.mark.timeout(FUZZ_S + 120)
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_a_refusal_comes_out_and_it_repeats_nothing_of_what_came_in(
    target: Callable[[Choices], None], record_property: Callable[[str, object], None]
) -> None:
    examples = 0

    def counted(choices: Choices) -> None:
        nonlocal examples
        examples += 1
        target(choices)

    outcomes.clear()
    ends = time.monotonic() + FUZZ_S / len(TARGETS)
    for turn in range(1_000_000 if FULL else 1):
        run = given(built(lambda choices: choices, CHOICES_BYTES))(counted)
        seed(turn)(settings(max_examples=EXAMPLES)(run))()
        if time.monotonic() > ends:
            break
    record_property("examples", examples)
    record_property("outcomes", dict(outcomes))
    assert examples >= EXAMPLES
