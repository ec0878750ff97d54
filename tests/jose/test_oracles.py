"""Two other implementations judge the same tokens: fastauth accepts nothing that PyJWT or joserfc refuses, and each
refusal of what one of them accepts has its reason here.

A token is a good one with one change, and the change has a name. ``STRICTER`` says why fastauth refuses where another
accepts, ``LAXER`` why it accepts where another refuses; the tables are exact: an entry that no longer occurs fails.
"""

import json
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from random import Random
from typing import Any, Final, NamedTuple

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jws, jwt
from joserfc.jwk import import_key
from jwt.algorithms import OKPAlgorithm

from fastauth import TokenRefused, Verifier
from fastauth.jose import base64url, verify_compact
from fastauth.jose.keys import SigningKey
from tests.integration.running import FULL
from tests.jose.making import AUDIENCE, ISSUER, NOW_S, as_bytes, b64, claims_with

Value = Any
Text = Callable[[bytes, Random], bytes]
Judge = Callable[[bytes], Any]

# How often each change is made, for each algorithm. An RSA signature is dear, so most changes wear a cheaper one.
ROUNDS: Final = {"RS256": 40, "ES256": 140, "Ed25519": 160} if FULL else {"RS256": 3, "ES256": 12, "Ed25519": 13}
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER: Final = (1 << 252) + 27742317777372353535851937790883648493

# ------------------------------------------------------------------ changes of one member


class _Gone:
    """A member that is taken out."""


GONE: Final = _Gone()
NESTED: Final = {"a": {"b": {"c": [1, {"d": None}]}}}


def _each_of(name: str, values: Mapping[str, Sequence[Value]]) -> dict[str, list[dict[str, Value]]]:
    return {f"{name} {kind}": [{name: value} for value in several] for kind, several in values.items()}


_NO_LIST: Final[list[Value]] = [None, "exp", 0, False, {}]
_NO_BOOL: Final[list[Value]] = [None, 0, "false", []]

HEADER_MEMBERS: Final[dict[str, list[dict[str, Value]]]] = {
    "nothing": [{}],
    **_each_of(
        "alg",
        {
            "none": ["none", "None", "NONE", "nOnE"],
            "of another kind": ["HS256", "RS384", "PS256", "ES384", "ES512", "ES256K", "Ed448", "RS1"],
            "misspelled": ["rs256", "es256", "ed25519", "RS256 ", "ES256\0", "", "ＲＳ256"],
            "missing": [GONE],
            "no text": [None, 5, True, ["RS256", "ES256"], {"RS256": 1}],
        },
    ),
    **_each_of(
        "kid",
        {
            "unknown": ["other", "", "../../dev/null", "' OR 1=1--", "\0", "é", "k" * 100],
            "missing": [GONE],
            "null": [None],
            "no text": [5, True, 1.5, ["a"], {"a": "b"}],
        },
    ),
    **_each_of(
        "typ",
        {
            "of RFC 9068 in full or in capitals": ["application/at+jwt", "AT+JWT", "Application/At+Jwt"],
            "of another JWT": ["JWT", "jwt", "id+jwt", "logout+jwt", "dpop+jwt", "secevent+jwt"],
            "missing": [GONE],
            "odd": ["", "at", "at+jwt; charset=utf-8", " at+jwt", "at+jwt\n", "application/application/at+jwt"],
            "null": [None],
            "no text": [5, True, ["at+jwt"], {"at+jwt": 1}],
        },
    ),
    "crit names exp": [{"crit": ["exp"], "exp": 1}, {"crit": ["exp"]}],
    "crit names what nobody knows": [{"crit": ["http://example.com/UNDEFINED"]}, {"crit": ["x"], "x": 1}],
    "crit names a registered member": [{"crit": ["alg"]}, {"crit": ["kid"]}, {"crit": ["typ"]}],
    "crit is empty": [{"crit": []}],
    "crit is no list": [{"crit": value} for value in _NO_LIST],
    "crit names b64, true": [{"crit": ["b64"], "b64": True}],
    "b64 true": [{"b64": True}],
    "b64 false": [{"b64": False}],
    "b64 false in crit": [{"b64": False, "crit": ["b64"]}],
    "b64 of another type": [{"b64": value} for value in _NO_BOOL],
    "a key of its own": [{"jwk": {"kty": "oct", "k": "AAAA"}}, {"x5c": ["MIIB"]}, {"x5t": "AAAA"}],
    "a URL of its own": [{"jku": "https://evil.example/jwks"}, {"x5u": "http://evil.example/x"}],
    "ignored member of another type": [{"jku": 5}, {"x5c": "MIIB"}, {"cty": 5}, {"jwk": "x"}, {"x5t": None}],
    "unknown header member": [{"nonce": "n"}, {"x": {"a": [1]}}, {"zip": "DEF"}, {"x": None}, {"cty": "JWT"}],
}

_NO_TEXT: Final[list[Value]] = [5, 1.5, True, ["a"], {"a": "b"}]
_NO_NUMBER: Final[list[Value]] = [True, False, [NOW_S], {"a": 1}, "", "soon"]
_OPTIONAL_TEXT: Final[dict[str, Sequence[Value]]] = {"missing": [GONE], "null": [None], "no text": _NO_TEXT}
_START: Final[dict[str, Sequence[Value]]] = {
    "now": [NOW_S, NOW_S - 1, 0, float(NOW_S)],
    "within the skew": [NOW_S + 1, NOW_S + 60, NOW_S + 30.5],
    "beyond the skew": [NOW_S + 61, NOW_S + 60.5, NOW_S + 10_000],
    "missing": [GONE],
    "null": [None],
    "a number as text": [str(NOW_S), f" {NOW_S} "],
    "no number": _NO_NUMBER,
    "negative": [-1, -1.5, -(10**12)],
    "beyond 2**53": [(1 << 53) + 1, 1 << 64, 10**30],
}
CLAIMS: Final[dict[str, list[dict[str, Value]]]] = {
    **_each_of(
        "exp",
        {
            "ahead": [NOW_S + 1, NOW_S + 600.5, NOW_S + 600.0, 1 << 53, 2.0**53],
            "now": [NOW_S, float(NOW_S)],
            "in less than a second": [NOW_S + 0.5, NOW_S + 0.999],
            "past": [NOW_S - 1, NOW_S - 0.5, 0, -1, -1.5],
            "missing": [GONE],
            "null": [None],
            "a number as text": [str(NOW_S + 600), f" {NOW_S + 600}", f"{NOW_S + 600}\n"],
            "no number": _NO_NUMBER,
            "beyond 2**53": [(1 << 53) + 2, 1 << 64, 10**30, 1e300],
        },
    ),
    **_each_of("nbf", _START),
    **_each_of("iat", _START),
    **_each_of(
        "iss",
        {
            "missing": [GONE],
            "null": [None],
            "of another": ["https://evil.example", ISSUER + "/", ISSUER.upper(), ISSUER[:-1], "", ISSUER + "\0"],
            "no text": [*_NO_TEXT, [ISSUER], {ISSUER: 1}],
        },
    ),
    **_each_of(
        "aud",
        {
            "one of several": [[AUDIENCE], ["x", AUDIENCE], [AUDIENCE, AUDIENCE], ["", AUDIENCE]],
            "missing": [GONE],
            "null": [None],
            "of another": ["x", AUDIENCE + "/", AUDIENCE[:-1], AUDIENCE.upper(), "", [], ["x", "y"], [AUDIENCE + " "]],
            "no text": [*_NO_TEXT[:3], {AUDIENCE: 1}],
            "not only text": [[AUDIENCE, 5], [AUDIENCE, None], [[AUDIENCE]], [AUDIENCE, {}], [AUDIENCE, True]],
        },
    ),
    **_each_of(
        "sub",
        {
            "long or strange": ["s" * 255, "é" * 127, "admin'--", " ", "\u202e"],
            "missing": [GONE],
            "null": [None],
            "no text": _NO_TEXT,
            "empty": [""],
            "longer than 255 bytes": ["s" * 256, "é" * 128],
            "with a NUL": ["\0", "admin\0", "a\0b"],
        },
    ),
    **_each_of("jti", {"missing": [GONE], "null": [None], "no text": _NO_TEXT, "strange": ["", "j" * 500]}),
    **_each_of("sid", _OPTIONAL_TEXT),
    **_each_of("scope", _OPTIONAL_TEXT),
    **_each_of("client_id", _OPTIONAL_TEXT),
    "unknown claims": [{"x": NESTED}, {"groups": ["a", "b"]}, {"": 1}, {"é": "é"}, {"x": 10**100}, {"x": -0.0}],
}

# ------------------------------------------------------------------ changes of the JSON text


def _member(member: bytes) -> Text:
    """One more member, in front or at the end."""
    return lambda text, rng: rng.choice((b"{" + member + b"," + text[1:], text[:-1] + b"," + member + b"}"))


def _one_of(*members: bytes) -> Text:
    return lambda text, rng: _member(rng.choice(members))(text, rng)


def _encoded(*encodings: str) -> Text:
    return lambda text, rng: text.decode().encode(rng.choice(encodings))


def _twice(text: bytes, rng: Random) -> bytes:
    name, value = rng.choice(list(json.loads(text).items()))
    return _member(as_bytes(name) + b":" + rng.choice((as_bytes(value), b'"x"', b"null")))(text, rng)


def _twice_escaped(text: bytes, rng: Random) -> bytes:
    name = rng.choice(list(json.loads(text)))
    escaped = b'"\\u%04x%b"' % (ord(name[0]), name[1:].encode())
    return _member(escaped + b":" + as_bytes(json.loads(text)[name]))(text, rng)


def _name_escaped(text: bytes, rng: Random) -> bytes:
    name = rng.choice(list(json.loads(text))).encode()
    return text.replace(b'"%b":' % name, b'"\\u%04x%b":' % (name[0], name[1:]), 1)


def _spaced(text: bytes, rng: Random) -> bytes:
    return json.dumps(json.loads(text), indent=rng.choice((0, 1, "\t"))).encode() + rng.choice((b"", b" ", b"\r\n"))


JSON_TEXT: Final[dict[str, Text]] = {
    "white space": _spaced,
    "white space in front": lambda text, rng: rng.choice((b" ", b"\n", b"\t", b"\r\n")) + text,
    "a name in escapes": _name_escaped,
    "a member twice": _twice,
    "a member twice, once in escapes": _twice_escaped,
    "an unknown member twice": _member(b'"x":1,"x":1'),
    "a member twice, one level down": _member(b'"x":{"a":1,"a":2}'),
    "a byte order mark": _encoded("utf-8-sig"),
    "UTF-16 or UTF-32": _encoded("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),
    "not UTF-8": _one_of(b'"x":"\xe9"', b'"x":"\xc0\xaf"', b'"x":"\xff"', b'"x":"\xe2\x82"', b'"\x80":1'),
    "a surrogate in UTF-8": _one_of(b'"x":"\xed\xa0\x80"', b'"\xed\xb0\x80":1', b'"x":"\xed\xa0\xbd\xed\xb8\x80"'),
    "half a surrogate pair in escapes": _one_of(b'"x":"\\ud800"', b'"x":"\\udc00"', b'"\\ud83d":1'),
    "NaN or Infinity": _one_of(b'"x":NaN', b'"x":Infinity', b'"x":[-Infinity]'),
    "a number beyond a double": _one_of(b'"x":1e400', b'"x":-1e999', b'"x":1' + b"0" * 320),
    "a number that is none": _one_of(b'"x":01', b'"x":1.', b'"x":.5', b'"x":+1', b'"x":0x10', b'"x":1_000'),
    "JSON that is none": _one_of(b'"x":True', b"x:1", b"'x':1", b'"x":"\n"', b'"x":"\\x41"', b'"x":1,', b'"x"', b""),
    "a comment": lambda text, rng: rng.choice((b"/**/" + text, text + b"//x", text[:-1] + b"/**/}", b"#x\n" + text)),
    "something after the end": lambda text, rng: text + rng.choice((b"{}", b"\0", b"x", b",", text, b"}", b"\xa0")),
    "no object": lambda text, rng: rng.choice((b"[" + text + b"]", b"[]", b'"x"', b"5", b"null", b"true", b"", b"{")),
    "a depth that is reasonable": _one_of(b'"x":[[[1]]]', b'"x":{"a":{"b":{}}}'),
    "a depth that is not": lambda text, rng: _nested(rng.choice((17, 25, 60, 200)))(text, rng),
}


def _nested(depth: int) -> Text:
    return _one_of(b'"x":' + b"[" * depth + b"]" * depth, b'"x":' + b'{"":' * depth + b"1" + b"}" * depth)


HEADER_TEXT: Final[dict[str, Text]] = {
    "a depth of 5 to 16": lambda text, rng: _nested(rng.randrange(4, 16))(text, rng),
    "more than 1024 characters": lambda text, rng: _member(b'"x":"%b"' % (b"x" * rng.randrange(800, 3_000)))(text, rng),
}
PAYLOAD_TEXT: Final[dict[str, Text]] = {
    "a depth of 16": _nested(15),
    "more than 512 members": lambda text, _: _member(b",".join(b'"%d":1' % i for i in range(513)))(text, Random(0)),
    "so much that the token is too large": lambda text, _: _member(b'"x":"%b"' % (b"x" * 8_000))(text, Random(0)),
    "compressed": lambda text, _: zlib.compress(text),
    "base64 in base64": lambda text, _: b64(text),
}
# Both parts in base64url, before they are signed: whoever holds the key may write what he likes.
SIGNED_TEXT: Final[dict[str, Text]] = {
    "padding": lambda part, _: part + b"=" * (-len(part) % 4),
    "too much padding": lambda part, rng: part + b"=" * rng.choice((3, 4, 5, 8)),
    "spare bits": lambda part, _: _respelled(part),
    "the other alphabet": lambda part, _: part[:-4] + b"+/+/",
    "a foreign character": lambda part, rng: _inserted(
        part, rng.choice((b" ", b"\n", b"\0", b"!", b"\xff", b"\xc3\xa9"))
    ),
    "an impossible length": lambda part, _: part + b"A" * ((1 - len(part)) % 4),
}

# ------------------------------------------------------------------ changes of the token, and of its signature


def _inserted(part: bytes, more: bytes, at: int | None = None) -> bytes:
    at = len(part) // 2 if at is None else at
    return part[:at] + more + part[at:]


def _respelled(part: bytes) -> bytes:
    """The same bytes to a lenient decoder: the last character's spare bits are set."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    if len(part) % 4 == 0:  # no spare bits; one more byte, then
        part += b"AA"
    last = alphabet.index(part[-1])
    return part[:-1] + alphabet[last | 1 : (last | 1) + 1]


def _bit_flipped(text: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(text))
    return text[:at] + bytes([text[at] ^ 1 << rng.randrange(8)]) + text[at + 1 :]


def _parts_as(*order: int | None) -> Text:
    def changed(token: bytes, _: Random) -> bytes:
        parts = token.split(b".")
        return b".".join(b"" if index is None else parts[index] for index in order)

    return changed


def _segment(index: int, change: Text) -> Text:
    def changed(token: bytes, rng: Random) -> bytes:
        parts = token.split(b".")
        parts[index] = change(parts[index], rng)
        return b".".join(parts)

    return changed


def _as_json(token: bytes, rng: Random) -> bytes:
    protected, payload, signature = (part.decode() for part in token.split(b"."))
    flat = {"protected": protected, "payload": payload, "signature": signature}
    general = {"payload": payload, "signatures": [{"protected": protected, "signature": signature}]}
    return as_bytes(rng.choice((flat, general)))


TOKEN_TEXT: Final[dict[str, Text]] = {
    "a bit flipped": _bit_flipped,
    "a byte cut out": lambda token, rng: token[: (at := rng.randrange(len(token)))] + token[at + 1 :],
    "a byte put in": lambda token, rng: _inserted(
        token, rng.choice((b"A", b"_", b"=", b".", b"\0")), rng.randrange(99)
    ),
    "cut short": lambda token, rng: token[: rng.randrange(len(token))],
    "white space around it": lambda token, rng: rng.choice((b" %b", b"%b ", b"%b\n", b"\t%b", b"%b\r\n")) % token,
    "something in front or behind": lambda token, rng: rng.choice((b"Bearer %b", b"%b\0", b"\xef\xbb\xbf%b")) % token,
    "quotes": lambda token, _: b'"%b"' % token,
    "another letter case": lambda token, rng: rng.choice((token.upper(), token.lower(), token.swapcase())),
    "two segments": _parts_as(0, 1),
    "four or five segments": lambda token, rng: _parts_as(
        *rng.choice(((0, 1, 2, 2), (0, 1, 1, 2), (0, 1, 2, None, 2)))
    )(token, rng),
    "an empty segment": lambda token, rng: _parts_as(*rng.choice(((None, 1, 2), (0, None, 2), (0, 1, None))))(
        token, rng
    ),
    "segments in another order": _parts_as(1, 0, 2),
    "the JSON serialization": _as_json,
    "padding behind the header": _segment(0, SIGNED_TEXT["padding"]),
    "padding behind the claims": _segment(1, SIGNED_TEXT["padding"]),
    "padding behind the signature": _segment(2, SIGNED_TEXT["padding"]),
    "too much padding behind the signature": _segment(2, SIGNED_TEXT["too much padding"]),
    "spare bits of the signature": _segment(2, SIGNED_TEXT["spare bits"]),
    "a foreign character in the signature": _segment(2, SIGNED_TEXT["a foreign character"]),
    "the other alphabet in the signature": _segment(2, lambda part, _: part.replace(b"-", b"+").replace(b"_", b"/")),
    "other claims": _segment(1, lambda _, rng: b64(as_bytes(claims_with(sub="admin", jti=str(rng.random()))))),
    "no signature at all": lambda token, _: token.rpartition(b".")[0] + b".",
}


def _ecdsa(change: Callable[[int, int], tuple[int, int]]) -> Callable[[bytes, Random], bytes]:
    def changed(signature: bytes, _: Random) -> bytes:
        r, s = change(int.from_bytes(signature[:32]), int.from_bytes(signature[32:64]))
        size = max(32, (max(r, s).bit_length() + 7) // 8)
        return r.to_bytes(size) + s.to_bytes(size)

    return changed


SIGNATURE: Final[dict[str, Text]] = {
    "a bit of the signature flipped": _bit_flipped,
    "a signature that is short": lambda signature, rng: signature[: rng.randrange(len(signature))],
    "a signature with something behind": lambda signature, rng: signature + rng.randbytes(rng.randrange(1, 9)),
    "a signature with something in front": lambda signature, rng: bytes(rng.randrange(1, 9)) + signature,
    "a signature of zeros or ones": lambda signature, rng: rng.choice((b"\0", b"\xff")) * len(signature),
    "a signature by chance": lambda signature, rng: rng.randbytes(len(signature)),
}
SIGNATURE_OF: Final[dict[str, dict[str, Text]]] = {
    "RS256": {},
    "ES256": {
        "the other s of ECDSA": _ecdsa(lambda r, s: (r, P256_ORDER - s)),
        "r + n": _ecdsa(lambda r, s: (r + P256_ORDER, s)),
        "s + n": _ecdsa(lambda r, s: (r, s + P256_ORDER)),
        "r or s of zero or n": lambda signature, rng: _ecdsa(
            rng.choice((lambda r, s: (0, s), lambda r, s: (r, 0), lambda r, s: (r, P256_ORDER), lambda r, s: (0, 0)))
        )(signature, rng),
        "r and s exchanged": _ecdsa(lambda r, s: (s, r)),
        "a signature in DER": lambda signature, _: encode_dss_signature(
            int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        ),
    },
    "Ed25519": {
        "S + L": lambda signature, _: (
            signature[:32] + (int.from_bytes(signature[32:], "little") + ED25519_ORDER).to_bytes(32, "little")
        ),
        "R of small order, S of zero": lambda signature, rng: rng.choice((b"\1", b"\0")) + bytes(63),
    },
}

# ------------------------------------------------------------------ the tokens


class Case(NamedTuple):
    """A token, and in what it differs from a good one."""

    change: str
    token: bytes


class Keys(NamedTuple):
    """The keys of the issuer, one of each kind."""

    by_alg: dict[str, SigningKey]

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [key.public_jwk for key in self.by_alg.values()]}


@pytest.fixture(scope="module")
def keys(signing_key: SigningKey) -> Keys:
    """Two of them are the same in every run."""
    rng = Random(1)
    return Keys(
        {
            "RS256": signing_key,
            "ES256": SigningKey(derive_private_key(rng.getrandbits(255), SECP256R1())),
            "Ed25519": SigningKey(Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))),
        }
    )


def _changed(members: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**members, **changes}.items() if value is not GONE}


def _parts(alg: str, keys: Keys, turn: int, rng: Random) -> Iterator[tuple[str, bytes, bytes]]:
    """Both parts of each token that is changed before it is signed, in base64url."""
    header = {"alg": alg, "typ": "at+jwt", "kid": keys.by_alg[alg].kid}
    claims = claims_with(jti=f"{rng.random()}", scope=rng.choice(("user", "a b c")), sid="s" * rng.randrange(1, 40))
    header_text, payload_text = as_bytes(header), as_bytes(claims)
    header_part, payload_part = b64(header_text), b64(payload_text)
    for change, rows in HEADER_MEMBERS.items():
        yield change, b64(as_bytes(_changed(header, rows[turn % len(rows)]))), payload_part
    others = [key for key in keys.by_alg.values() if key.alg != alg]
    yield "alg of another key", b64(as_bytes({**header, "alg": rng.choice(others).alg})), payload_part
    yield "kid of another key", b64(as_bytes({**header, "kid": rng.choice(others).kid})), payload_part
    yield "kid in another letter case", b64(as_bytes({**header, "kid": header["kid"].swapcase()})), payload_part
    yield "kid with more", b64(as_bytes({**header, "kid": header["kid"] + rng.choice("\0 =/")})), payload_part
    if alg == "Ed25519":
        yield "the old name EdDSA", b64(as_bytes({**header, "alg": "EdDSA"})), payload_part
    for change, rows in CLAIMS.items():
        yield change, header_part, b64(as_bytes(_changed(claims, rows[turn % len(rows)])))
    for change, edit in (JSON_TEXT | HEADER_TEXT).items():
        yield f"header: {change}", b64(edit(header_text, rng)), payload_part
    for change, edit in (JSON_TEXT | PAYLOAD_TEXT).items():
        yield f"claims: {change}", header_part, b64(edit(payload_text, rng))
    for change, edit in SIGNED_TEXT.items():
        yield f"signed header: {change}", edit(header_part, rng), payload_part
        yield f"signed claims: {change}", header_part, edit(payload_part, rng)


def cases(keys: Keys, rounds: dict[str, int]) -> Iterator[Case]:
    """Every change as often under a key of each algorithm; the same ones in every run."""
    rng = Random(7515)
    for turn, alg in enumerate(alg for alg, count in rounds.items() for _ in range(count)):
        yield from _cases_of(alg, keys, turn, rng)


def _cases_of(alg: str, keys: Keys, turn: int, rng: Random) -> Iterator[Case]:
    key = keys.by_alg[alg]
    good = b""
    for change, header_part, payload_part in _parts(alg, keys, turn, rng):
        signed = header_part + b"." + payload_part
        token = signed + b"." + b64(key.sign(signed))
        good = good or token
        yield Case(change, token)
    signed, _, signature = good.rpartition(b".")
    raw = base64url.decode(signature) or b""
    for change, edit in TOKEN_TEXT.items():
        yield Case(change, edit(good, rng))
    for change, edit in (SIGNATURE | SIGNATURE_OF[alg]).items():
        yield Case(change, signed + b"." + b64(edit(raw, rng)))


# ------------------------------------------------------------------ the judges


class StoppedClock(datetime):
    """PyJWT asks nobody else for the time."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "StoppedClock":
        return cls.fromtimestamp(NOW_S, tz)


class PyJwt:
    """PyJWT as its documentation has it: the key by ``kid``, and the algorithms that this key may have."""

    def __init__(self, jwks: dict[str, Any]) -> None:
        self._jwt = pyjwt.PyJWT()
        self._jwt._jws.register_algorithm("Ed25519", OKPAlgorithm())  # it knows the old name only
        names = {"RS256": ["RS256"], "ES256": ["ES256"], "Ed25519": ["EdDSA", "Ed25519"]}
        self._keys = {
            jwk["kid"]: (
                pyjwt.PyJWK({**jwk, "alg": "EdDSA"} if jwk["kty"] == "OKP" else jwk).key,
                names[jwk["alg"]],
            )
            for jwk in jwks["keys"]
        }

    def claims(self, token: bytes) -> Any:
        key, names = self._keys[pyjwt.get_unverified_header(token)["kid"]]
        return self._jwt.decode(
            token, key, names, issuer=ISSUER, audience=AUDIENCE, options={"require": ["iss", "aud", "exp"]}
        )


class JoseRfc:
    """joserfc; its bound on the header is lifted, and members of the header that it does not know are allowed."""

    def __init__(self, jwks: dict[str, Any]) -> None:
        self._keys = {
            jwk["kid"]: import_key({name: value for name, value in jwk.items() if name != "alg"})
            for jwk in jwks["keys"]
        }
        self._registry = jws.JWSRegistry(algorithms=["RS256", "ES256", "EdDSA", "Ed25519"], strict_check_header=False)
        self._registry.max_header_length = 100_000
        self._claims = jwt.JWTClaimsRegistry(
            now=NOW_S,
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": AUDIENCE},
            exp={"essential": True},
        )

    def _key(self, signature: Any) -> Any:
        return self._keys[signature.headers()["kid"]]

    def claims(self, token: bytes) -> Any:
        decoded = jwt.decode(token, self._key, registry=self._registry)
        self._claims.validate(decoded.claims)
        return decoded.claims

    def verified(self, token: bytes) -> Any:
        decoded = jws.deserialize_compact(token, self._key, registry=self._registry)
        return decoded.headers(), decoded.payload


REFUSED: Final = object()


def asked(judge: Judge, token: bytes, refusal: type[Exception]) -> Any:
    """What a judge makes of a token, or REFUSED."""
    try:
        return judge(token)
    except refusal:
        return REFUSED


# ------------------------------------------------------------------ where they differ

_TYPE: Final = (
    "RFC 9068 section 4: an access token has typ at+jwt, and anything else is not one (RFC 8725 section 3.11)"
)
_CRIT: Final = "RFC 7515 section 4.1.11: no extension is known here, and names of the RFC itself must not stand in crit"
_B64: Final = "RFC 7797 section 6: b64 stands in a header only when it is in crit, and no extension is known here"
_DATE: Final = "RFC 7519 section 2: a NumericDate is a JSON number, not text or true that could be made one"
_RANGE: Final = "RFC 7493 section 2.2: beyond 2**53, and before 1970, a number is no date that all read alike"
_SUBJECT: Final = (
    "RFC 7519 section 4.1.2 and the server's own rule for a subject: 1 to 255 bytes, no NUL, as in OpenID Connect"
)
_TEXT: Final = "RFC 9068 section 2.2, RFC 8693 sections 4.2 and 4.3: the claim is text"
_TWICE: Final = (
    "RFC 7515 section 4, RFC 7519 section 4, RFC 7493 section 2.3: a name stands once, else two parsers differ"
)
_UTF8: Final = "RFC 7515 section 2, RFC 8259 section 8.1: UTF-8 without a byte order mark, and nothing else"
_PAIR: Final = "RFC 7493 section 2.1: half a surrogate pair is no character"
_NUMBER: Final = "RFC 8259 section 6: NaN and Infinity are no JSON; RFC 7493 section 2.2: nor is what becomes Infinity"
_BOUND: Final = "RFC 8259 section 9: a parser may set bounds; these are judged before anything is decoded"
_NULL: Final = "RFC 9068 section 2.2.3, RFC 8693 section 4: a text; a claim that is not meant is left out"
_PADDING: Final = "RFC 7515 section 2: base64url without padding, so that a token has one spelling"

STRICTER: Final[dict[str, str]] = {
    "typ of another JWT": _TYPE,
    "typ missing": _TYPE,
    "typ null": _TYPE,
    "typ odd": _TYPE,
    "typ no text": _TYPE,
    "crit names a registered member": _CRIT,
    "crit is empty": "RFC 7515 section 4.1.11: crit must not be empty",
    "crit names b64, true": _CRIT,
    "b64 true": _B64,
    "b64 of another type": _B64,
    "exp in less than a second": "RFC 7519 section 4.1.4: a fraction, which only foreign issuers send, counts as over",
    "exp a number as text": _DATE,
    "exp beyond 2**53": _RANGE,
    **{
        f"{name} {kind}": reason
        for name in ("nbf", "iat")
        for kind, reason in (("a number as text", _DATE), ("no number", _DATE), ("negative", _RANGE))
    },
    "sub missing": "RFC 9068 section 2.2: an access token has a subject",
    "sub empty": _SUBJECT,
    "sub longer than 255 bytes": _SUBJECT,
    "sub with a NUL": _SUBJECT,
    **{f"{name} no text": _TEXT for name in ("sid", "scope", "client_id")},
    **{
        f"{part}: {change}": reason
        for part in ("header", "claims")
        for change, reason in (
            ("a member twice", _TWICE),
            ("a member twice, once in escapes", _TWICE),
            ("an unknown member twice", _TWICE),
            ("a member twice, one level down", _TWICE),
            ("a byte order mark", _UTF8),
            ("UTF-16 or UTF-32", _UTF8),
            ("a surrogate in UTF-8", _UTF8),
            ("half a surrogate pair in escapes", _PAIR),
            ("NaN or Infinity", _NUMBER),
            ("a number beyond a double", _NUMBER),
            ("a depth that is not", _BOUND),
        )
    },
    "sid null": _NULL,
    "scope null": _NULL,
    "client_id null": _NULL,
    "header: a depth of 5 to 16": _BOUND,
    "header: more than 1024 characters": _BOUND,
    "claims: more than 512 members": _BOUND,
    "claims: so much that the token is too large": _BOUND,
    "padding behind the signature": _PADDING,
    "signed header: padding": _PADDING,
    "signed claims: padding": _PADDING,
}
JWS_STRICTER: Final[dict[str, str]] = {
    "b64 false in crit": "RFC 7515 section 4.1.11: joserfc knows the extension of RFC 7797, fastauth knows none",
}

_SKEW: Final = "RFC 7519 section 4.1.5: a small leeway is allowed, 60 s here; the others have none unless asked"

LAXER: Final[dict[str, str]] = {
    "nbf within the skew": _SKEW,
    "iat within the skew": _SKEW,
    "ignored member of another type": "RFC 7515 section 4: what is not understood is ignored; joserfc looks at it",
}
JWS_LAXER: Final[dict[str, str]] = {
    "ignored member of another type": LAXER["ignored member of another type"],
}


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock of PyJWT stands still, and joserfc does not complain of the old name of Ed25519."""
    monkeypatch.setattr("jwt.api_jwt.datetime", StoppedClock)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Differences:
    """Where fastauth and the others part ways, by the change to the token: an example of each."""

    def __init__(self) -> None:
        self.stricter: dict[str, str] = {}
        self.laxer: dict[str, str] = {}
        self.accepted: Counter[str] = Counter()
        self.tokens = 0

    def add(self, case: Case, ours: Judge, others: Mapping[str, Judge]) -> None:
        """Let all judge a token. Those who accept it must read the same in it."""
        verdict = asked(ours, case.token, TokenRefused)
        self.tokens += 1
        self.accepted[case.change] += verdict is not REFUSED
        for name, judge in others.items():
            other = asked(judge, case.token, Exception)  # one that stumbles over a token has not accepted it
            if (verdict is REFUSED) == (other is REFUSED):
                assert verdict == other, f"{name} reads {case} otherwise"
            elif verdict is REFUSED:
                self.stricter.setdefault(case.change, f"{name} accepts {case.token!r}")
            else:
                self.laxer.setdefault(case.change, f"{name} refuses {case.token!r}")


def unexplained(found: dict[str, str], table: dict[str, str]) -> dict[str, str]:
    """The differences that have no reason, and the reasons that have no difference any more."""
    return {change: example for change, example in found.items() if change not in table} | {
        change: "does not occur" for change in table if change not in found
    }


@pytest.mark.full
@pytest.mark.usefixtures("stopped")
def test_what_fastauth_accepts_two_others_accept_and_where_it_is_stricter_it_says_why(
    keys: Keys, record_property: Callable[[str, object], None]
) -> None:
    verifier = Verifier(keys.jwks, ISSUER, AUDIENCE, clock=lambda: NOW_S)
    others = {"PyJWT": PyJwt(keys.jwks).claims, "joserfc": JoseRfc(keys.jwks).claims}
    differences = Differences()
    for case in cases(keys, ROUNDS):
        differences.add(case, lambda token: json.loads(verifier.verify(token).payload), others)
    record_property("tokens", differences.tokens)
    record_property("accepted", differences.accepted.total())
    assert differences.tokens > (20_000 if FULL else 5_000)
    assert differences.accepted["nothing"] == sum(ROUNDS.values())
    assert unexplained(differences.laxer, LAXER) == {}
    assert unexplained(differences.stricter, STRICTER) == {}


@pytest.mark.full
@pytest.mark.usefixtures("stopped")
def test_what_verify_compact_accepts_joserfc_accepts_and_where_it_is_stricter_it_says_why(keys: Keys) -> None:
    others = {"joserfc": JoseRfc(keys.jwks).verified}
    differences = Differences()
    for case in cases(keys, dict.fromkeys(ROUNDS, 40 if FULL else 1)):
        differences.add(case, lambda token: verify_compact(token, keys.jwks), others)
    assert differences.accepted["nothing"]
    assert unexplained(differences.laxer, JWS_LAXER) == {}
    beyond = {change: example for change, example in differences.stricter.items() if change not in STRICTER}
    assert unexplained(beyond, JWS_STRICTER) == {}
