"""``Verifier``: which tokens are good, judged claim by claim; times are handed in, nothing waits."""

import copy
import json
import pickle
import time
import tracemalloc
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from fastauth import Claims, KeyRefused, TokenRefused, Verifier
from fastauth.jose.claims import MAX_LEEWAY_S
from fastauth.jose.jws import MAX_TOKEN_BYTES
from fastauth.jose.keys import SigningKey
from fastauth.jose.keyset import KeySet
from tests.cases import each
from tests.jose.making import AUDIENCE, ISSUER, NOW_S, claims_with, header_of, raw_claims, token_of


def verifier_at(key: SigningKey, now_s: float = NOW_S, leeway_s: int = 0, **names: str) -> Verifier:
    """A verifier whose clock stands still."""
    issuer, audience = names.get("issuer", ISSUER), names.get("audience", AUDIENCE)
    return Verifier({"keys": [key.public_jwk]}, issuer, audience, leeway_s, clock=lambda: now_s)


def code_of(
    key: SigningKey, payload: Any, header: Any = None, *, now_s: float = NOW_S, leeway_s: int = 0
) -> str | None:
    """Why a token that ``key`` signed is refused; None if it is not."""
    try:
        verifier_at(key, now_s, leeway_s).verify(token_of(key, header, payload))
    except TokenRefused as refusal:
        return refusal.code
    return None


# ------------------------------------------------------------------ good tokens


@each("as_text", [True, False])
def test_a_good_token_gives_its_claims(signing_key: SigningKey, as_text: bool) -> None:
    token = token_of(signing_key, payload=claims_with(sid="s1", nbf=NOW_S, more={"a": [1]}))
    claims = verifier_at(signing_key).verify(token.decode() if as_text else token)
    assert isinstance(claims, Claims)
    assert (claims.sub, claims.iss, claims.aud) == ("5f9c", ISSUER, (AUDIENCE,))
    assert (claims.exp, claims.iat, claims.nbf) == (NOW_S + 600, NOW_S, NOW_S)
    assert (claims.jti, claims.sid, claims.scope, claims.client_id) == ("j1", "s1", "user", "fastauth")
    assert claims["more"] == {"a": [1]}
    assert "more" in claims
    assert "less" not in claims
    with pytest.raises(KeyError):
        claims["less"]


def test_claims_that_are_optional_may_be_absent(signing_key: SigningKey) -> None:
    bare = claims_with(iat=None, jti=None, client_id=None, scope=None)
    claims = verifier_at(signing_key).verify(token_of(signing_key, payload=bare))
    assert (claims.iat, claims.nbf, claims.jti, claims.sid, claims.scope, claims.client_id) == (None,) * 6


def test_what_one_caller_does_to_claims_changes_nothing_for_the_next(signing_key: SigningKey) -> None:
    token = token_of(signing_key, payload=claims_with(groups=["a"]))
    verifier = verifier_at(signing_key)
    claims = verifier.verify(token)
    with pytest.raises(AttributeError):
        claims.sub = "admin"  # type: ignore[misc]
    claims["groups"].append("admin")
    assert claims["groups"] == ["a"]
    assert verifier.verify(token)["groups"] == ["a"]


def test_the_servers_own_verifier_takes_keys_that_are_parsed_already(signing_key: SigningKey) -> None:
    keys = KeySet({signing_key.kid: signing_key.verifying_key()})
    verifier = Verifier.from_keys(keys, ISSUER, AUDIENCE, clock=lambda: NOW_S)
    assert verifier.verify(token_of(signing_key)).sub == "5f9c"
    expired = Verifier.from_keys(keys, ISSUER, AUDIENCE, clock=lambda: NOW_S + 600)
    with pytest.raises(TokenRefused) as refusal:
        expired.verify(token_of(signing_key))
    assert refusal.value.code == "expired"


def test_the_real_clock_is_used_when_none_is_given(signing_key: SigningKey) -> None:
    verifier = Verifier({"keys": [signing_key.public_jwk]}, ISSUER, AUDIENCE)
    now_s = int(time.time())
    assert verifier.verify(token_of(signing_key, payload=claims_with(iat=now_s, exp=now_s + 100))).exp == now_s + 100
    with pytest.raises(TokenRefused) as refusal:
        verifier.verify(token_of(signing_key, payload=claims_with(iat=now_s, exp=now_s - 1)))
    assert refusal.value.code == "expired"


# ------------------------------------------------------------------ duplicates and encodings (cases 11, 20, 21)


@each("member", ['"exp":1', '"sub":"admin"', '"iss":"x"', '"aud":"x"', r'"\u0073ub":"admin"', r'"e\u0078p":9999999999'])
def test_a_claim_that_stands_twice_is_refused(signing_key: SigningKey, member: str) -> None:
    good = json.dumps(claims_with()).encode()
    assert code_of(signing_key, raw_claims(member)) == "malformed"
    assert code_of(signing_key, good[:-1] + b"," + member.encode() + b"}") == "malformed"


def test_an_unknown_claim_that_stands_twice_is_refused_at_any_depth(signing_key: SigningKey) -> None:
    assert code_of(signing_key, raw_claims('"x":{"y":[{"z":1,"z":2}]}')) == "malformed"


@each("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig"])
def test_a_payload_in_another_encoding_is_refused(signing_key: SigningKey, encoding: str) -> None:
    assert code_of(signing_key, json.dumps(claims_with()).encode(encoding)) == "malformed"


@each("place", ["a known claim", "an unknown claim", "an unknown name"])
def test_a_payload_that_is_not_utf_8_is_refused_wherever_it_is_not(signing_key: SigningKey, place: str) -> None:
    for bad in (b"\xe9", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x82"):
        member = {
            "a known claim": b'"scope":"' + bad + b'"',
            "an unknown claim": b'"x":["' + bad + b'"]',
            "an unknown name": b'"' + bad + b'":1',
        }[place]
        payload = b"{" + member + b"," + json.dumps(claims_with(scope=None)).encode()[1:]
        assert code_of(signing_key, payload) == "malformed", bad


@each("opening", ["[", '{"a":'])
@each("depth", [1_000, 100_000])
def test_a_depth_bomb_in_the_payload_is_refused_at_once(signing_key: SigningKey, opening: str, depth: int) -> None:
    closing = {"[": "]", '{"a":': "}"}[opening]
    payload = raw_claims('"x":' + opening * depth + "1" + closing * depth)
    token = token_of(signing_key, payload=payload)
    verifier = verifier_at(signing_key)
    durations = []
    for _ in range(5):
        started = time.perf_counter()
        with pytest.raises(TokenRefused) as refusal:
            verifier.verify(token)
        durations.append(time.perf_counter() - started)
    assert refusal.value.code == ("malformed" if len(token) <= MAX_TOKEN_BYTES else "too_large")
    assert min(durations) < 0.005


@each(
    "payload",
    [b"", b"null", b"[]", b'"x"', b"5", b"{", b"{}", b"\xff", b"{}{}", b'{"iss":"x",}', b"{'iss':1}", b"[{}]"],
)
def test_a_payload_that_is_no_json_object_with_claims_is_malformed(signing_key: SigningKey, payload: bytes) -> None:
    assert code_of(signing_key, payload) == "malformed"


def test_a_token_nested_in_a_token_is_refused(signing_key: SigningKey) -> None:
    inner = token_of(signing_key)
    assert code_of(signing_key, inner, header_of(signing_key, cty="JWT")) == "malformed"
    assert code_of(signing_key, json.dumps(inner.decode()).encode(), header_of(signing_key, cty="JWT")) == "malformed"


# ------------------------------------------------------------------ times (cases 12 to 15)

NO_DATES = {
    "text": '"9999999999"',
    "true": "true",
    "false": "false",
    "a list": "[9999999999]",
    "an object": '{"a":1}',
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e400": "1e400",
    "10**30": "1" + "0" * 30,
    "2**53 + 1": str((1 << 53) + 1),
    "2**63": str(1 << 63),
    "2**64": str(1 << 64),
    "5,000 digits": "9" * 5000,
    "negative": "-1",
    "hexadecimal": "0x7fffffff",
    "a leading zero": "09999999999",
    "a plus": "+9999999999",
}


@each("kind", NO_DATES)
def test_a_time_that_is_no_plausible_number_is_refused(signing_key: SigningKey, kind: str) -> None:
    for claim in ("exp", "iat", "nbf"):
        payload = raw_claims(f'"{claim}":{NO_DATES[kind]}', **{claim: None})
        assert code_of(signing_key, payload) == "malformed", claim


def test_a_claim_of_null_is_refused(signing_key: SigningKey) -> None:
    assert code_of(signing_key, raw_claims('"exp":null', exp=None)) == "malformed"
    for claim in ("iat", "nbf", "jti", "sid", "scope", "client_id"):
        assert code_of(signing_key, raw_claims(f'"{claim}":null', **{claim: None})) == "malformed", claim


def test_a_token_without_exp_is_refused(signing_key: SigningKey) -> None:
    assert code_of(signing_key, claims_with(exp=None)) == "malformed"


@each(("exp", "seen"), [("600.5", 600), ("600.0", 600), ("0.6e3", 600), ("6.005e2", 600)])
def test_a_fraction_from_a_foreign_issuer_is_rounded_to_the_stricter_side(
    signing_key: SigningKey, exp: str, seen: int
) -> None:
    payload = raw_claims(f'"exp":{exp},"iat":{exp},"nbf":{exp}', exp=None, iat=None)
    claims = verifier_at(signing_key, 599).verify(token_of(signing_key, payload=payload))
    fraction = float(exp) % 1 > 0
    assert (claims.exp, claims.iat, claims.nbf) == (seen, seen, seen + fraction)
    assert code_of(signing_key, payload, now_s=600) == "expired"


@each("leeway_s", [0, 1, 30, MAX_LEEWAY_S])
def test_a_token_is_over_in_the_second_of_its_exp_and_leeway_moves_that(signing_key: SigningKey, leeway_s: int) -> None:
    exp = NOW_S + 600
    for now_s, code in ((exp - 1, None), (exp, "expired"), (exp + 1, "expired")):
        assert code_of(signing_key, claims_with(), now_s=now_s + leeway_s, leeway_s=leeway_s) == code
    assert code_of(signing_key, claims_with(), now_s=exp + leeway_s - 0.001, leeway_s=leeway_s) is None


@each("claim", ["nbf", "iat"])
def test_nbf_and_iat_may_lie_sixty_seconds_ahead_and_no_more(signing_key: SigningKey, claim: str) -> None:
    for ahead_s, code in ((0, None), (60, None), (61, "not_yet_valid"), (3600, "not_yet_valid")):
        payload = claims_with(**{claim: NOW_S + ahead_s}, exp=NOW_S + 7200)
        assert code_of(signing_key, payload) == code
        assert code_of(signing_key, payload, leeway_s=60) == code


@each("leeway_s", [-1, MAX_LEEWAY_S + 1, 10**9])
def test_a_leeway_out_of_range_is_refused_when_the_verifier_is_made(signing_key: SigningKey, leeway_s: int) -> None:
    with pytest.raises(ValueError, match="leeway_s"):
        verifier_at(signing_key, leeway_s=leeway_s)


def test_a_leeway_that_is_not_whole_seconds_is_refused_when_the_verifier_is_made(signing_key: SigningKey) -> None:
    with pytest.raises((TypeError, ValueError), match="leeway_s"):
        verifier_at(signing_key, leeway_s=0.5)  # type: ignore[arg-type]


# ------------------------------------------------------------------ issuer, audience, type, subject (16 to 18, 23)


@each(
    "iss",
    [
        "https://auth.exampl",
        "https://auth.example/",
        "https://auth.example ",
        "https://auth.EXAMPLE",
        "HTTPS://auth.example",
        "http://auth.example",
        "https://auth.example:443",
        "https://auth.example.evil.example",
        "https://auth",
        "",
        "https://auth.example\0",
        "https://\u0430uth.example",
    ],
)
def test_another_issuer_is_refused_however_much_alike(signing_key: SigningKey, iss: str) -> None:
    assert code_of(signing_key, claims_with(iss=iss)) == "issuer"


@each("iss", [None, 5, True, ["https://auth.example"], {"a": 1}])
def test_an_issuer_that_is_missing_or_no_text_is_refused(signing_key: SigningKey, iss: Any) -> None:
    assert code_of(signing_key, claims_with(iss=iss)) == "malformed"


@each("aud", ["", "https://api", "https://api.example/", "https://API.example", "*", "api.example"])
def test_another_audience_is_refused_alone_and_in_a_list(signing_key: SigningKey, aud: str) -> None:
    assert code_of(signing_key, claims_with(aud=aud)) == "audience"
    assert code_of(signing_key, claims_with(aud=[aud, "https://other.example"])) == "audience"


def test_an_empty_list_of_audiences_is_refused(signing_key: SigningKey) -> None:
    assert code_of(signing_key, claims_with(aud=[])) == "audience"


def test_one_audience_of_several_is_enough(signing_key: SigningKey) -> None:
    payload = claims_with(aud=["https://other.example", AUDIENCE])
    claims = verifier_at(signing_key).verify(token_of(signing_key, payload=payload))
    assert claims.aud == ("https://other.example", AUDIENCE)


@each("aud", [None, 5, True, {AUDIENCE: 1}, [[AUDIENCE]], [AUDIENCE, 5], [AUDIENCE, None], [AUDIENCE, ["x"]]])
def test_an_audience_that_is_no_text_or_list_of_texts_is_refused(signing_key: SigningKey, aud: Any) -> None:
    assert code_of(signing_key, claims_with(aud=aud)) == "malformed"


@each("typ", ["at+jwt", "application/at+jwt", "AT+JWT", "Application/At+Jwt"])
def test_an_access_token_is_known_by_its_type(signing_key: SigningKey, typ: str) -> None:
    assert code_of(signing_key, claims_with(), header_of(signing_key, typ=typ)) is None


@each(
    "typ",
    [
        None,
        "",
        "JWT",
        "jwt",
        "rt+jwt",
        "logout+jwt",
        "id_token",
        "at+jwt ",
        "at+jwt; x=1",
        "text/at+jwt",
        "at+jwtx",
        "ａt+jwt",
    ],
)
def test_a_token_of_another_type_or_none_is_refused(signing_key: SigningKey, typ: str | None) -> None:
    assert code_of(signing_key, claims_with(), header_of(signing_key, typ=typ)) == "type"


@each("typ", [5, True, ["at+jwt"], {"a": 1}])
def test_a_type_that_is_no_text_is_refused(signing_key: SigningKey, typ: Any) -> None:
    assert code_of(signing_key, claims_with(), header_of(signing_key, typ=typ)) == "malformed"


@each("sub", [None, "", 5, True, ["5f9c"], "a\0b", "\0", "s" * 256, "é" * 128, "s" * 5_000])
def test_a_subject_that_is_missing_or_out_of_bounds_is_refused(signing_key: SigningKey, sub: Any) -> None:
    assert code_of(signing_key, claims_with(sub=sub)) == "malformed"


def test_a_subject_of_ten_kilobytes_is_refused(signing_key: SigningKey) -> None:
    assert code_of(signing_key, claims_with(sub="s" * 10_240)) == "too_large"


@each("sub", [r"\ud800", r"a\udfff", r"\ud83d\ud83d", r"\ude00\ud83d"])
@each("claim", ["sub", "x"])
def test_a_lone_surrogate_is_refused(signing_key: SigningKey, claim: str, sub: str) -> None:
    assert code_of(signing_key, raw_claims(f'"{claim}":"{sub}"', **{claim: None})) == "malformed"


@each("sub", ["s", "s" * 255, "é" * 127, "a\nb", " ", "😀", "\u2028"])
def test_any_other_subject_is_the_issuers_business(signing_key: SigningKey, sub: str) -> None:
    assert verifier_at(signing_key).verify(token_of(signing_key, payload=claims_with(sub=sub))).sub == sub


@each("claim", ["jti", "sid", "scope", "client_id"])
@each("value", [5, True, ["a"], {"a": 1}])
def test_a_text_claim_that_is_no_text_is_refused(signing_key: SigningKey, claim: str, value: Any) -> None:
    assert code_of(signing_key, claims_with(**{claim: value})) == "malformed"


# ------------------------------------------------------------------ the token as a string (cases 19, 22)


@each("char", ["ｅ", "\u0435", "\u200b", "\ufeff", "\x85", "é", "\ud800"])
@each("position", [0, 5, 200, -1])
def test_a_look_alike_character_in_the_token_is_refused(signing_key: SigningKey, char: str, position: int) -> None:
    token = token_of(signing_key).decode()
    place = position % len(token)
    with pytest.raises(TokenRefused) as refusal:
        verifier_at(signing_key).verify(token[:place] + char + token[place + 1 :])
    assert refusal.value.code == "malformed"


@each("tail", ["=", "==", "\n", "\r\n", " ", "\0", ".", "\t"])
def test_a_token_with_a_tail_is_refused(signing_key: SigningKey, tail: str) -> None:
    token = token_of(signing_key).decode()
    for spelling in (token + tail, tail + token):
        with pytest.raises(TokenRefused):
            verifier_at(signing_key).verify(spelling)


@each("token", ["", ".", "..", "...", "a.b.c", "Bearer x", "null"])
def test_what_is_no_token_at_all_is_malformed(signing_key: SigningKey, token: str) -> None:
    for spelling in (token, token.encode()):
        with pytest.raises(TokenRefused) as refusal:
            verifier_at(signing_key).verify(spelling)
        assert refusal.value.code == "malformed"


@each("token", ["x" * (MAX_TOKEN_BYTES + 1), "x" * 1_000_000, "." * 1_000_000])
@each("as_text", [True, False])
def test_a_large_token_is_refused_before_it_is_split_or_copied(
    signing_key: SigningKey, token: str, as_text: bool
) -> None:
    verifier = verifier_at(signing_key)
    given: str | bytes = token if as_text else token.encode()
    tracemalloc.start()
    try:
        with pytest.raises(TokenRefused) as refusal:
            verifier.verify(given)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusal.value.code == "too_large"
    assert peak < 8_000


# ------------------------------------------------------------------ key sets (case 24)


def unfit_keys(good: Mapping[str, str]) -> dict[str, Any]:
    """Entries of a key set that cannot verify these tokens."""
    return {
        "an EC key": {"kty": "EC", "kid": "ec", "crv": "P-256", "x": "AA", "y": "AA"},
        "an oct key": {"kty": "oct", "kid": "oct", "k": "AAAA"},
        "private members": {**good, "kid": "private", "d": "AQAB"},
        "use enc": {**good, "kid": "enc", "use": "enc"},
        "key_ops encrypt": {**good, "kid": "ops", "key_ops": ["encrypt"]},
        "e = 1": {**good, "kid": "e1", "e": "AQ"},
        "a small modulus": {**good, "kid": "small", "n": "AQAB"},
        "another algorithm": {**good, "kid": "ps", "alg": "PS256"},
        "no kid": {name: value for name, value in good.items() if name != "kid"},
        "a list": [],
        "text": "key",
        "null": None,
        "a number": 5,
    }


def test_keys_that_cannot_verify_are_passed_over(signing_key: SigningKey) -> None:
    entries = [*unfit_keys(signing_key.public_jwk).values(), signing_key.public_jwk]
    verifier = Verifier({"keys": entries}, ISSUER, AUDIENCE, clock=lambda: NOW_S)
    assert verifier.verify(token_of(signing_key)).sub == "5f9c"


@each("kind", unfit_keys({}))
def test_a_set_in_which_no_key_is_left_is_refused(signing_key: SigningKey, kind: str) -> None:
    with pytest.raises(KeyRefused):
        Verifier({"keys": [unfit_keys(signing_key.public_jwk)[kind]]}, ISSUER, AUDIENCE)


@each("jwks", [{}, {"keys": []}, {"keys": None}, {"keys": {}}, {"keys": "x"}, {"KEYS": []}])
def test_what_is_no_key_set_is_refused(jwks: dict[str, Any]) -> None:
    with pytest.raises(KeyRefused):
        Verifier(jwks, ISSUER, AUDIENCE)


def test_a_set_with_one_kid_twice_is_refused(signing_key: SigningKey, other_key: SigningKey) -> None:
    for second in (signing_key.public_jwk, {**other_key.public_jwk, "kid": signing_key.kid}):
        with pytest.raises(KeyRefused, match="same kid"):
            Verifier({"keys": [signing_key.public_jwk, second]}, ISSUER, AUDIENCE)


def test_a_set_of_several_keys_verifies_with_the_one_that_the_token_names(
    signing_key: SigningKey, other_key: SigningKey
) -> None:
    keys = {"keys": [signing_key.public_jwk, other_key.public_jwk]}
    verifier = Verifier(keys, ISSUER, AUDIENCE, clock=lambda: NOW_S)
    for key in (signing_key, other_key):
        assert verifier.verify(token_of(key)).sub == "5f9c"
    with pytest.raises(TokenRefused) as refusal:
        verifier.verify(token_of(signing_key, header_of(other_key)))
    assert refusal.value.code == "signature"


# ------------------------------------------------------------------ the order of the checks, and what is told


def test_a_forged_token_is_refused_for_its_signature_and_not_for_its_claims(
    signing_key: SigningKey, other_key: SigningKey
) -> None:
    with pytest.raises(TokenRefused) as refusal:
        verifier_at(signing_key).verify(token_of(other_key, header_of(signing_key), claims_with(exp=1, iss="x")))
    assert refusal.value.code == "signature"


@each(
    "payload",
    [
        claims_with(sub="s3cr3t\0"),
        claims_with(iss="s3cr3t"),
        claims_with(aud="s3cr3t"),
        claims_with(exp="s3cr3t"),
        claims_with(scope=["s3cr3t"]),
        {"s3cr3t": 1},
        b'{"s3cr3t":1,"s3cr3t":2}',
        b"s3cr3t",
    ],
)
def test_no_refusal_repeats_a_claim(signing_key: SigningKey, payload: Any) -> None:
    with pytest.raises(TokenRefused) as refusal:
        verifier_at(signing_key).verify(token_of(signing_key, payload=payload))
    error = refusal.value
    assert "s3cr3t" not in f"{error} {error!r} {error.args} {vars(error)}"
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_every_claim_that_was_accepted_can_be_read_back(signing_key: SigningKey) -> None:
    """A payload that passes is JSON as a whole, not only where this library looks."""
    texts = ('"x":1e308', '"x":123456789012345678901234567890', '"x":"\\u0000"', '"x":[[[[1]]]]', '"":1')
    for member in texts:
        payload = raw_claims(member)
        claims = verifier_at(signing_key).verify(token_of(signing_key, payload=payload))
        name = json.loads("{" + member + "}").popitem()[0]
        assert claims[name] == json.loads("{" + member + "}")[name]
        assert msgspec.json.decode(claims.payload)["sub"] == "5f9c"


def test_a_number_that_no_reader_could_hold_is_refused_in_any_claim(signing_key: SigningKey) -> None:
    """Or it would pass here and fail in the hands of the service that asks for a claim."""
    assert code_of(signing_key, raw_claims('"x":1e400')) == "malformed"


def test_a_refusal_crosses_to_other_processes_and_can_be_copied() -> None:
    for refusal in (pickle.loads(pickle.dumps(TokenRefused("expired"))), copy.copy(TokenRefused("expired"))):  # noqa: S301
        assert (refusal.code, str(refusal)) == ("expired", "the token has expired")


def test_an_issuer_or_an_audience_of_nothing_is_refused_when_the_verifier_is_made(signing_key: SigningKey) -> None:
    for issuer, audience in (("", AUDIENCE), (ISSUER, "")):
        with pytest.raises(ValueError, match="empty"):
            Verifier({"keys": [signing_key.public_jwk]}, issuer, audience)


def test_claims_are_no_sequence(signing_key: SigningKey) -> None:
    claims = verifier_at(signing_key, NOW_S).verify(token_of(signing_key))
    with pytest.raises(TypeError):
        list(claims)  # type: ignore[call-overload]
