"""Forged, bent and oversized tokens against the real ``/verify``.

Where a token must be wrong in one thing only, it is signed with the server's own private key, taken out of its
database with its master key. ``RFC 8725`` is the source of most cases, ``RFC 7515`` of the rest.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from fastauth.jose.jwk import public_jwk
from fastauth.jose.keys import SigningKey
from tests.integration.running import (
    FULL,
    KeepAlive,
    RawAnswer,
    RunningServer,
    compact_jws,
    signing_key,
    until_closed,
    verify_bytes,
)

MAX_TOKEN: Final = 8_192


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def as_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def present(server: RunningServer, token: str | bytes) -> RawAnswer:
    """The answer to a token, sent as it is."""
    raw = token.encode() if isinstance(token, str) else token
    request = b"GET /verify HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer " + raw
    (answer,) = until_closed(server.port, request + b"\r\n\r\n")
    return answer


def without_date(answer: RawAnswer) -> tuple[int, dict[str, str], bytes]:
    return answer.status, {name: value for name, value in answer.headers.items() if name != "date"}, answer.body


class Forge:
    """Makes tokens with the server's own key; unless told otherwise they are right in everything."""

    def __init__(self, server: RunningServer, token: str) -> None:
        self.server = server
        self.token = token
        self.key = signing_key(server.data_dir)
        self.header: dict[str, Any] = jwt.get_unverified_header(token)
        self.claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        self.refusal = without_date(present(server, "x.y.z"))

    def token_of(self, header: bytes | None = None, payload: bytes | None = None, key: SigningKey | None = None) -> str:
        """A signed token of this header and this payload."""
        head = as_json(self.header) if header is None else header
        return compact_jws(key or self.key, head, as_json(self.claims) if payload is None else payload)

    def with_header(self, **members: Any) -> str:
        return self.token_of(header=as_json({**self.header, **members}))

    def with_claims(self, **members: Any) -> str:
        return self.token_of(payload=as_json({**self.claims, **members}))

    def without_claim(self, name: str) -> str:
        return self.token_of(payload=as_json({key: value for key, value in self.claims.items() if key != name}))

    def with_raw_claim(self, name: str, text: str) -> str:
        """The claim as this JSON text, whatever it is."""
        rest = as_json({key: value for key, value in self.claims.items() if key != name}).decode()
        return self.token_of(payload=f'{rest[:-1]},"{name}":{text}}}'.encode())

    def assert_refused(self, token: str | bytes) -> None:
        """401, and byte for byte the answer that every refused token gets."""
        assert without_date(present(self.server, token)) == self.refusal

    def assert_accepted(self, token: str | bytes) -> None:
        assert present(self.server, token).status == 200


@pytest.fixture(scope="module")
def forge(server: RunningServer, token: str) -> Forge:
    return Forge(server, token)


@pytest.fixture(scope="module")
def attacker() -> SigningKey:
    """A key that the server has never seen."""
    return SigningKey.generate()


def rsa_private(key: SigningKey) -> rsa.RSAPrivateKey:
    private = load_der_private_key(key.to_der(), password=None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return private


def test_the_refusal_is_a_401_that_names_invalid_token_and_nothing_more(forge: Forge) -> None:
    status, headers, body = forge.refusal
    assert status == 401
    assert headers["www-authenticate"].startswith("Bearer ")
    assert 'error="invalid_token"' in headers["www-authenticate"]
    assert headers["cache-control"] == "no-store"
    assert json.loads(body)["code"] == "token_refused"


def test_the_forge_itself_makes_tokens_that_pass(forge: Forge) -> None:
    forge.assert_accepted(forge.token)
    forge.assert_accepted(forge.token_of())


# ---------------------------------------------------------------- algorithms (RFC 8725 sections 2.1, 3.1, 3.2)


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "NONE", "", " none", "none\0"])
def test_alg_none_is_refused_with_any_signature(forge: Forge, alg: str) -> None:
    signed = f"{b64(as_json({**forge.header, 'alg': alg}))}.{forge.token.split('.')[1]}"
    for signature in ("", forge.token.split(".")[2], b64(forge.key.sign(signed.encode())), "AA"):
        forge.assert_refused(f"{signed}.{signature}")


def _public_forms(key: SigningKey) -> dict[str, bytes]:
    public = rsa_private(key).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {
        "PEM": pem,
        "PEM without its last newline": pem.rstrip(b"\n"),
        "PEM in PKCS 1": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "JWK": as_json(key.public_jwk),
        "JWK as published": json.dumps(key.public_jwk).encode(),
        "modulus": base64.urlsafe_b64decode(key.public_jwk["n"] + "=="),
        "kid": key.kid.encode(),
        "empty": b"",
    }


@pytest.mark.parametrize(
    "form",
    [
        "PEM",
        "PEM without its last newline",
        "PEM in PKCS 1",
        "DER",
        "JWK",
        "JWK as published",
        "modulus",
        "kid",
        "empty",
    ],
)
@pytest.mark.parametrize(("alg", "digest"), [("HS256", "sha256"), ("HS512", "sha512"), ("RS256", "sha256")])
def test_the_public_key_is_no_hmac_secret(forge: Forge, form: str, alg: str, digest: str) -> None:
    secret = _public_forms(forge.key)[form]
    signed = f"{b64(as_json({**forge.header, 'alg': alg}))}.{forge.token.split('.')[1]}"
    forge.assert_refused(f"{signed}.{b64(hmac.new(secret, signed.encode(), digest).digest())}")


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256", "ES256", "Ed25519", "EdDSA"])
def test_one_key_has_one_algorithm_even_when_the_signature_is_right(forge: Forge, alg: str) -> None:
    signed = f"{b64(as_json({**forge.header, 'alg': alg}))}.{forge.token.split('.')[1]}".encode()
    private = rsa_private(forge.key)
    signature = {
        "RS384": lambda: private.sign(signed, padding.PKCS1v15(), hashes.SHA384()),
        "RS512": lambda: private.sign(signed, padding.PKCS1v15(), hashes.SHA512()),
        "PS256": lambda: private.sign(signed, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()).sign(signed, ec.ECDSA(hashes.SHA256())),
    }.get(alg, lambda: forge.key.sign(signed))()
    forge.assert_refused(signed.decode() + "." + b64(signature))


@pytest.mark.parametrize(
    "digest",
    [hashes.SHA1(), hashes.SHA384(), hashes.SHA512()],  # noqa: S303 - refusing it is the point
    ids=lambda digest: digest.name,
)
def test_rs256_takes_no_other_digest(forge: Forge, digest: hashes.HashAlgorithm) -> None:
    signed = forge.token.rpartition(".")[0]
    signature = rsa_private(forge.key).sign(signed.encode(), padding.PKCS1v15(), digest)
    forge.assert_refused(f"{signed}.{b64(signature)}")


@pytest.mark.parametrize("alg", ["rs256", "RS256 ", "RS256\0", None, 256, ["RS256"], {"alg": "RS256"}, True])
def test_the_name_of_the_algorithm_is_an_exact_string(forge: Forge, alg: object) -> None:
    forge.assert_refused(forge.with_header(alg=alg))


# ---------------------------------------------------------------- whose key (RFC 8725 section 3.10)


def _resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_random_kids_are_refused_and_fill_no_cache(forge: Forge) -> None:
    count = 10_000 if FULL else 1_500
    (worker,) = forge.server.workers()
    payload = forge.token.split(".")[1]

    def requests(number: int) -> list[bytes]:
        headers = [as_json({**forge.header, "kid": secrets.token_urlsafe(480)}) for _ in range(number)]
        return [verify_bytes(f"{b64(header)}.{payload}.{'A' * 342}") for header in headers]

    async def send(batch: list[bytes]) -> set[int]:
        connection = await KeepAlive.open(forge.server.port)
        statuses = {(await connection.send(request)).status for request in batch}
        await connection.close()
        return statuses

    asyncio.run(send(requests(500)))  # what any traffic of this size takes once
    batch = requests(count)
    before = _resident_kib(worker)
    assert asyncio.run(send(batch)) == {401}
    grown = _resident_kib(worker) - before
    assert grown * 1024 < count * 900 / 2  # the headers alone, kept, would be 900 bytes each
    forge.assert_accepted(forge.token)


@pytest.mark.parametrize(
    "kid",
    [
        *("../../dev/null", "/dev/null", "' OR 1=1--", '" OR ""="', "*", "%00", "$(id)", "{0}", "\r\nX: 1", "\0", ""),
        *(0, 1, -1, 1.5, True, False, None, [], {}, ["kid"], {"kid": "kid"}),
        *("\u202e", "ｋｉｄ", "kid" * 200),
    ],
    ids=repr,
)
def test_a_kid_that_is_no_known_text_is_refused(forge: Forge, kid: object) -> None:
    forge.assert_refused(forge.with_header(kid=kid))


def test_a_kid_in_other_spellings_of_the_same_key_is_refused(forge: Forge) -> None:
    kid = forge.key.kid
    for other in (kid + "\0", kid + " ", " " + kid, kid + "=", kid.swapcase(), kid[:-1], [kid], {kid: kid}):
        forge.assert_refused(forge.with_header(kid=other))
    assert '"kid"' in as_json(forge.header).decode()
    escaped = as_json(forge.header).replace(b'"kid"', b'"k\\u0069d"')
    forge.assert_accepted(forge.token_of(header=escaped))  # the same JSON, so the same header


def test_a_kid_of_64_kb_does_not_get_past_the_header_limit(forge: Forge) -> None:
    assert present(forge.server, forge.with_header(kid="k" * 65_536)).status == 431
    forge.assert_refused(forge.with_header(kid="k" * 4_096))


def test_no_kid_means_no_key(forge: Forge) -> None:
    forge.assert_refused(forge.token_of(header=as_json({"alg": "RS256", "typ": "at+jwt"})))


def test_a_key_url_in_the_header_is_never_fetched(forge: Forge, attacker: SigningKey) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/keys"
        for name in ("jku", "x5u", "jwks_uri", "kid", "iss"):
            for value in (url, url.replace("http", "https"), [url]):
                foreign = {**forge.header, "kid": attacker.kid, name: value}
                forge.assert_refused(forge.token_of(header=as_json(foreign), key=attacker))
                if name != "kid":
                    own = present(forge.server, forge.with_header(**{name: value}))
                    assert own.status in (200, 401)
        forge.assert_refused(forge.token_of(payload=as_json({**forge.claims, "iss": url}), key=attacker))
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def _certificate(key: rsa.RSAPrivateKey) -> str:
    name = x509.Name.from_rfc4514_string("CN=attacker")
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return base64.b64encode(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)).decode()


@pytest.mark.parametrize("kid", ["the attacker's", "the server's", "none"])
@pytest.mark.parametrize("member", ["jwk", "x5c"])
def test_a_key_inside_the_token_is_never_used(forge: Forge, attacker: SigningKey, member: str, kid: str) -> None:
    embedded: object = attacker.public_jwk if member == "jwk" else [_certificate(rsa_private(attacker))]
    header = {**forge.header, member: embedded}
    if kid == "none":
        del header["kid"]
    elif kid == "the attacker's":
        header["kid"] = attacker.kid
    forge.assert_refused(forge.token_of(header=as_json(header), key=attacker))


def test_the_kid_of_the_server_under_the_signature_of_another_key_is_refused(
    forge: Forge, attacker: SigningKey
) -> None:
    forge.assert_refused(forge.token_of(key=attacker))


# ---------------------------------------------------------------- crit and b64 (RFC 7515 section 4.1.11, RFC 7797)


@pytest.mark.parametrize(
    "crit", [["exp"], ["unknown"], [], ["alg"], ["b64"], ["crit"], "alg", "", None, {}, 1, [1], [["alg"]]], ids=repr
)
def test_crit_is_refused_whatever_it_says(forge: Forge, crit: object) -> None:
    forge.assert_refused(forge.with_header(crit=crit))
    forge.assert_refused(forge.with_header(crit=crit, unknown=1))


@pytest.mark.parametrize("b64_value", [False, True, None, "false", 0])
def test_b64_is_refused_with_and_without_crit(forge: Forge, b64_value: object) -> None:
    forge.assert_refused(forge.with_header(b64=b64_value))
    forge.assert_refused(forge.with_header(b64=b64_value, crit=["b64"]))


def test_an_unencoded_payload_is_refused(forge: Forge) -> None:
    header = b64(as_json({**forge.header, "b64": False, "crit": ["b64"]}))
    payload = as_json(forge.claims).decode().replace(".", "")
    signature = b64(forge.key.sign(f"{header}.{payload}".encode()))
    forge.assert_refused(f"{header}.{payload}.{signature}")
    forge.assert_refused(f"{header}..{signature}")


# ---------------------------------------------------------------- shapes (RFC 7519 section 7.2)


def test_a_token_is_three_parts_and_nothing_else(forge: Forge) -> None:
    header, payload, signature = forge.token.split(".")
    shapes = [
        *("", ".", "..", "...", "a", "a.b", "a.b.c.d"),
        *(header, f"{header}.", f"{header}.{payload}", f"{header}.{payload}.", f".{payload}.{signature}"),
        *(f"{header}..{signature}", f"{forge.token}.", f".{forge.token}", f"{forge.token}.{signature}"),
        f"{header}.{header}.{payload}.{signature}.{signature}",
        f"{header}.{payload}.{payload}.{payload}.{payload}.{signature}",
        f"{forge.token}~",
        f"{forge.token}~disclosure~",
        f"{forge.token},{forge.token}",
        f"{forge.token} {forge.token}",
        f'"{forge.token}"',
        f"Bearer {forge.token}",
    ]
    for shape in shapes:
        answer = present(forge.server, shape)
        assert without_date(answer)[0] == 401, shape
        if shape:
            assert without_date(answer) == forge.refusal, shape


def test_the_json_serializations_are_refused(forge: Forge) -> None:
    header, payload, signature = forge.token.split(".")
    flat = {"protected": header, "payload": payload, "signature": signature}
    general = {"payload": payload, "signatures": [{"protected": header, "signature": signature}]}
    for shape in (flat, general):
        forge.assert_refused(as_json(shape))
        forge.assert_refused(b64(as_json(shape)))


def test_a_jwe_is_refused(forge: Forge) -> None:
    header = b64(as_json({"alg": "RSA-OAEP-256", "enc": "A256GCM", "kid": forge.key.kid, "typ": "at+jwt"}))
    forge.assert_refused(f"{header}.{b64(b'k' * 256)}.{b64(b'i' * 12)}.{b64(b'text')}.{b64(b't' * 16)}")
    forge.assert_refused(f"{header}.{b64(b'text')}.{b64(b't' * 256)}")


def test_a_nested_token_is_refused(forge: Forge) -> None:
    forge.assert_refused(forge.token_of(as_json({**forge.header, "cty": "JWT"}), forge.token.encode()))
    forge.assert_refused(forge.token_of(payload=as_json(forge.token)))


@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b"1", b'"x"', b"{}", b"{", b"{}{}", b"\x00", b" "], ids=repr)
def test_a_payload_that_is_no_object_with_the_claims_is_refused(forge: Forge, payload: bytes) -> None:
    forge.assert_refused(forge.token_of(payload=payload))


@pytest.mark.parametrize("header", [b"", b"null", b"[]", b"1", b'"x"', b"{}", b"{", b"{}{}", b"\x00"], ids=repr)
def test_a_header_that_is_no_object_with_alg_and_kid_is_refused(forge: Forge, header: bytes) -> None:
    forge.assert_refused(forge.token_of(header=header))


# ---------------------------------------------------------------- duplicates (RFC 7515 section 4, RFC 7493 section 2.3)


@pytest.mark.parametrize("name", ["alg", "kid", "typ"])
@pytest.mark.parametrize("spelled", [False, True], ids=["plain", "escaped"])
@pytest.mark.parametrize("is_same", [False, True], ids=["another value", "the same value"])
def test_a_doubled_header_member_is_refused(forge: Forge, name: str, spelled: bool, is_same: bool) -> None:
    again = f"\\u{ord(name[0]):04x}{name[1:]}" if spelled else name
    value = forge.header[name] if is_same else "other"
    for header in (
        as_json(forge.header)[:-1] + f',"{again}":"{value}"}}'.encode(),
        f'{{"{again}":"{value}",'.encode() + as_json(forge.header)[1:],
    ):
        forge.assert_refused(forge.token_of(header=header))


@pytest.mark.parametrize("name", ["exp", "sub", "iss", "aud", "scope", "unknown"])
@pytest.mark.parametrize("spelled", [False, True], ids=["plain", "escaped"])
def test_a_doubled_claim_is_refused(forge: Forge, name: str, spelled: bool) -> None:
    claims = {"unknown": 1, **forge.claims}
    again = f"\\u{ord(name[0]):04x}{name[1:]}" if spelled else name
    for payload in (
        as_json(claims)[:-1] + f',"{again}":{json.dumps(claims[name])}}}'.encode(),
        f'{{"{again}":0,'.encode() + as_json(claims)[1:],
    ):
        forge.assert_refused(forge.token_of(payload=payload))


def test_a_doubled_member_deep_inside_is_refused(forge: Forge) -> None:
    forge.assert_refused(forge.with_raw_claim("realm", '{"roles":["a"],"roles":["admin"]}'))
    forge.assert_accepted(forge.with_raw_claim("realm", '{"roles":["a"],"Roles":["b"]}'))


# ---------------------------------------------------------------- times (RFC 7519 sections 4.1.4 to 4.1.6)


NO_TIMES = [
    *('"9999999999"', "true", "false", "[]", "{}", "[9999999999]", "NaN", "Infinity", "-Infinity", "1e400", "-1e400"),
    *("1" + "0" * 30, "9" * 5_000, "-1", "-9999999999", "0x7fffffff", "1_000", "+1", "01", '""', "1e30"),
    *("9007199254740993", "18446744073709551616"),
]


@pytest.mark.parametrize("text", NO_TIMES, ids=lambda text: text[:24])
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_a_time_that_is_none_is_refused(forge: Forge, name: str, text: str) -> None:
    forge.assert_refused(forge.with_raw_claim(name, text))


@pytest.mark.parametrize("text", ["null", "0", "-0", "0.0"])
def test_an_exp_of_null_or_nothing_is_refused(forge: Forge, text: str) -> None:
    forge.assert_refused(forge.with_raw_claim("exp", text))


def test_a_token_without_exp_is_refused(forge: Forge) -> None:
    forge.assert_refused(forge.without_claim("exp"))


def test_exp_is_strict_and_the_others_tolerate_a_minute(forge: Forge) -> None:
    now = int(time.time())
    forge.assert_refused(forge.with_claims(exp=now))
    forge.assert_refused(forge.with_claims(exp=now - 1))
    forge.assert_accepted(forge.with_claims(exp=now + 30))
    for name in ("iat", "nbf"):
        forge.assert_accepted(forge.with_claims(**{name: now + 30}))
        forge.assert_refused(forge.with_claims(**{name: now + 120}))


# ---------------------------------------------------------------- issuer, audience, type, subject


def test_the_issuer_is_compared_as_an_exact_string(forge: Forge) -> None:
    issuer: str = forge.claims["iss"]
    wrong = [
        *(issuer + "/", issuer[:-1], issuer.upper(), issuer.replace("http", "https"), issuer + "#", " " + issuer),
        *("", None, 1, [issuer], {"iss": issuer}, issuer.replace("127.0.0.1", "localhost"), issuer + "\0"),
    ]
    for other in wrong:
        forge.assert_refused(forge.with_claims(iss=other))
    forge.assert_refused(forge.without_claim("iss"))


def test_the_audience_must_name_this_server(forge: Forge) -> None:
    audience: str = forge.claims["aud"]
    wrong: list[object] = [
        *("", audience[:-1], audience[1:], audience + "/", audience.upper(), f"{audience} other", f"other {audience}"),
        *(None, True, 1, {}, {audience: audience}, {"aud": audience}),
        *([], [[]], [[audience]], ["other"], ["other", audience[:-1]], [None], [1]),
        *([audience, 1], [audience, None], [1, audience], [audience, [audience]], [audience, {}], [audience, True]),
    ]
    for other in wrong:
        forge.assert_refused(forge.with_claims(aud=other))
    forge.assert_refused(forge.without_claim("aud"))
    for right in (audience, [audience], ["other", audience], [audience, "other"]):
        forge.assert_accepted(forge.with_claims(aud=right))


@pytest.mark.parametrize(
    "typ",
    [
        *("JWT", "jwt", "id+jwt", "ID", "refresh", "rt+jwt", "refresh+jwt", "logout+jwt", "dpop+jwt", "jose", "at"),
        *("at+jwt ", " at+jwt", "at+jwt\0", "at+jwt;x=y", "text/at+jwt", "application/", "application/jwt", "at jwt"),
        *("", None, 1, True, ["at+jwt"], {"typ": "at+jwt"}),
    ],
    ids=repr,
)
def test_a_token_of_another_type_is_no_access_token(forge: Forge, typ: object) -> None:
    forge.assert_refused(forge.with_header(typ=typ))


def test_a_token_without_a_type_is_no_access_token(forge: Forge) -> None:
    header = {key: value for key, value in forge.header.items() if key != "typ"}
    forge.assert_refused(forge.token_of(header=as_json(header)))


def test_the_type_of_an_access_token_may_be_spelled_in_full(forge: Forge) -> None:
    for typ in ("at+jwt", "application/at+jwt", "AT+JWT", "Application/AT+JWT"):
        forge.assert_accepted(forge.with_header(typ=typ))


@pytest.mark.parametrize(
    "text",
    [
        *('""', "null", "1", "true", "[]", "{}", '["alice"]', '{"sub":"alice"}'),
        *(
            '"\\ud800"',
            '"\\udc00\\ud800"',
            '"a\\u0000b"',
            '"\\u0000"',
            f'"{"a" * 256}"',
            f'"{"ü" * 128}"',
            f'"{"a" * 3_000}"',
        ),
    ],
    ids=lambda text: text[:24],
)
def test_a_subject_that_is_none_is_refused(forge: Forge, text: str) -> None:
    forge.assert_refused(forge.with_raw_claim("sub", text))


def test_a_subject_of_10_kb_or_no_subject_is_refused(forge: Forge) -> None:
    forge.assert_refused(forge.with_claims(sub="a" * 10_000))
    forge.assert_refused(forge.without_claim("sub"))
    forge.assert_accepted(forge.with_claims(sub="a" * 255))


# ---------------------------------------------------------------- one token has one spelling (RFC 4648 section 3.5)

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _with_spare_bits(part: str) -> str:
    """The same bytes in another spelling; the part's length must leave spare bits."""
    assert len(part) % 4 in (2, 3)
    return part[:-1] + _ALPHABET[_ALPHABET.index(part[-1]) + 1]


def _parted(forge: Forge) -> tuple[str, str, str]:
    """The three parts of a token whose header and payload both have spare bits, and ``-`` or ``_`` inside."""
    header, payload = dict(forge.header), dict(forge.claims)
    while len(b64(as_json(header))) % 4 not in (2, 3):
        header["x"] = header.get("x", "") + "x"
    payload["y"] = "\u00ff\u00fe?>~"
    raw = json.dumps(payload, ensure_ascii=False).encode()
    while len(b64(raw)) % 4 not in (2, 3) or not set(b64(raw)) & {"-", "_"}:
        payload["y"] += "?"
        raw = json.dumps(payload, ensure_ascii=False).encode()
    one, two, three = forge.token_of(as_json(header), raw).split(".")
    return one, two, three


def test_another_spelling_of_a_good_token_is_refused(forge: Forge) -> None:
    header, payload, signature = _parted(forge)
    forge.assert_accepted(f"{header}.{payload}.{signature}")
    others: list[str | bytes] = []
    for suffix in ("=", "==", "===", "%3D", "%", "\t", "\x0b", "*", "!", "\u00a0", "\u200b", "\uff21", "\u0410"):
        others.append(
            f"{header}.{payload}.{signature}{suffix}x" if suffix == "\t" else f"{header}.{payload}.{signature}{suffix}"
        )
        others += [f"{header}{suffix}.{payload}.{signature}", f"{header}.{payload}{suffix}.{signature}"]
    others += [f"{header}.{payload}.{_with_spare_bits(signature)}", f"{header[:9]} {header[9:]}.{payload}.{signature}"]
    others += [f"{header}.{payload}.{signature}\xff".encode("latin-1"), f"{header}%2E{payload}%2E{signature}"]
    others += [
        f"{header}.{payload}.{signature[:-1]}",
        f"{header}.{payload}.{signature}A",
        f"{header}.{payload}.{signature}AA",
    ]
    others += [f"{header}.{payload}.{signature.swapcase()}", f"{header}.{payload}.{signature[:-2]}"]
    for other in others:
        answer = present(forge.server, other)
        assert answer.status in (400, 401), other  # 400: the HTTP parser takes no such character in a header
        if answer.status == 401:
            assert without_date(answer) == forge.refusal


def test_a_part_that_is_signed_in_a_loose_spelling_is_refused_all_the_same(forge: Forge) -> None:
    """The signature covers the loose text, so only the decoding can refuse it."""
    header, payload, _ = _parted(forge)
    loose = [
        (header + "=" * (-len(header) % 4), payload),
        (header, payload + "=" * (-len(payload) % 4)),
        (_with_spare_bits(header), payload),
        (header, _with_spare_bits(payload)),
        (header, payload.replace("-", "+").replace("_", "/")),
        (header, payload[:20] + " " + payload[20:]),
        (header, payload + "%"),
    ]
    for one, two in loose:
        signed = f"{one}.{two}"
        forge.assert_refused(f"{signed}.{b64(forge.key.sign(signed.encode()))}")
    signed = f"{header}.{payload}"
    forge.assert_accepted(f"{signed}.{b64(forge.key.sign(signed.encode()))}")


# ---------------------------------------------------------------- text encodings (RFC 8725 section 3.7)

_ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 big endian": lambda text: text.encode("utf-16-be"),
    "UTF-16 little endian": lambda text: text.encode("utf-16-le"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "UTF-32 big endian": lambda text: text.encode("utf-32-be"),
    "UTF-7": lambda text: text.replace("{", "\x7f").encode("utf-7").replace(b"\x7f", b"+AHs-"),
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "Latin-1": lambda text: text.replace("}", ',"z":"\u00fc"}').encode("latin-1"),
    "overlong brace": lambda text: text.encode().replace(b"{", b"\xc1\xbb"),
    "overlong NUL": lambda text: text.replace("}", ',"z":"@"}').encode().replace(b"@", b"\xc0\x80"),
    "raw surrogate": lambda text: text.replace("}", ',"z":"@"}').encode().replace(b"@", b"\xed\xa0\x80"),
    "beyond Unicode": lambda text: text.replace("}", ',"z":"@"}').encode().replace(b"@", b"\xf4\x90\x80\x80"),
    "cut character": lambda text: text.replace("}", ',"z":"@"}').encode().replace(b"@", b"\xe2\x82"),
    "trailing NUL": lambda text: text.encode() + b"\0",
    "trailing text": lambda text: text.encode() + b"x",
}


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_a_header_or_payload_that_is_not_plain_utf_8_is_refused(forge: Forge, encoding: str) -> None:
    bent = _ENCODINGS[encoding]
    forge.assert_refused(forge.token_of(header=bent(as_json(forge.header).decode())))
    forge.assert_refused(forge.token_of(payload=bent(as_json(forge.claims).decode())))


# ---------------------------------------------------------------- bombs (RFC 8259 section 9)


def _nested(opening: str, closing: str, depth: int, *, is_closed: bool = True) -> str:
    return opening * depth + "1" + (closing * depth if is_closed else "")


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "open"])
@pytest.mark.parametrize(("opening", "closing", "depths"), [("[", "]", (17, 1_000, 2_500)), ('{"a":', "}", (17, 900))])
def test_json_of_great_depth_is_refused_in_under_5_ms(
    forge: Forge, opening: str, closing: str, depths: tuple[int, ...], is_closed: bool
) -> None:
    async def fastest(token: str) -> float:
        connection = await KeepAlive.open(forge.server.port)
        times = []
        for _ in range(7):
            started = time.perf_counter()
            assert (await connection.send(verify_bytes(token))).status == 401
            times.append(time.perf_counter() - started)
        await connection.close()
        return min(times)

    for depth in depths:
        bomb = _nested(opening, closing, depth, is_closed=is_closed)
        token = forge.with_raw_claim("bomb", bomb)
        if len(token) <= MAX_TOKEN:
            assert asyncio.run(fastest(token)) < 0.005
    header = as_json(forge.header).decode()[:-1] + ',"bomb":' + _nested(opening, closing, 80, is_closed=is_closed) + "}"
    assert asyncio.run(fastest(forge.token_of(header=header.encode()))) < 0.005


def test_json_100_000_deep_is_refused_by_its_size(forge: Forge) -> None:
    for token in (
        forge.with_raw_claim("bomb", _nested("[", "]", 100_000)),
        forge.token_of(header=_nested("[", "]", 100_000).encode()),
    ):
        assert present(forge.server, token).status == 431


def test_a_payload_of_many_members_is_refused(forge: Forge) -> None:
    many = ",".join(f'"{i}":1' for i in range(600))
    forge.assert_refused(forge.with_raw_claim("bomb", f"{{{many}}}"))


# ---------------------------------------------------------------- sizes


def test_a_token_of_8_kib_is_read_and_a_byte_more_is_not(forge: Forge) -> None:
    sizes = {}
    for pad in range(5_000, 6_000):
        token = forge.with_claims(pad="x" * pad)
        sizes[len(token)] = token
        if len(token) > MAX_TOKEN:
            break
    within = max(size for size in sizes if size <= MAX_TOKEN)
    assert MAX_TOKEN - within <= 1
    forge.assert_accepted(sizes[within])
    forge.assert_refused(sizes[max(sizes)])
    forge.assert_refused("A" * (MAX_TOKEN + 1))


@pytest.mark.parametrize("huge", ["x" * 1_000_000, "." * 1_000_000, "a." * 500_000], ids=["letters", "dots", "parts"])
def test_a_megabyte_of_token_does_not_get_past_the_header_limit(forge: Forge, huge: str) -> None:
    assert present(forge.server, huge).status == 431


def test_eight_thousand_dots_are_refused_at_once(forge: Forge) -> None:
    for token in ("." * MAX_TOKEN, "a." * (MAX_TOKEN // 2), "." * (MAX_TOKEN + 1), forge.token + "." * 5_000):
        forge.assert_refused(token)


# ---------------------------------------------------------------- signatures


def test_a_signature_that_is_none_is_refused(forge: Forge) -> None:
    signed, _, text = forge.token.rpartition(".")
    good = base64.urlsafe_b64decode(text + "==")
    modulus = rsa_private(forge.key).public_key().public_numbers().n
    number = int.from_bytes(good, "big")
    bent: dict[str, bytes] = {
        "empty": b"",
        "zero": bytes(256),
        "one": (1).to_bytes(256, "big"),
        "minus one": (modulus - 1).to_bytes(256, "big"),
        "the modulus": modulus.to_bytes(256, "big"),
        "all ones": b"\xff" * 256,
        "negated": (modulus - number).to_bytes(256, "big"),
        "beyond the modulus": (number + modulus).to_bytes(257, "big"),
        "a leading zero": b"\0" + good,
        "a trailing zero": good + b"\0",
        "cut": good[:-1],
        "cut in front": good[1:],
        "reversed": good[::-1],
        "a bit turned": bytes([*good[:100], good[100] ^ 1, *good[101:]]),
        "twice": good + good,
        "r = s = 0": bytes(64),
        "another token's": base64.urlsafe_b64decode(forge.with_claims(jti="x").rpartition(".")[2] + "=="),
        "a hash": hashlib.sha256(signed.encode()).digest(),
        "random": os.urandom(256),
    }
    if number + modulus < 1 << 2048:
        bent["beyond the modulus, same length"] = (number + modulus).to_bytes(256, "big")
    for name, signature in bent.items():
        assert without_date(present(forge.server, f"{signed}.{b64(signature)}")) == forge.refusal, name


def test_a_signature_covers_every_character_of_header_and_payload(forge: Forge) -> None:
    length = forge.token.rindex(".")
    for position in range(0, length, 1 if FULL else 23):
        if forge.token[position] != ".":
            turned = _ALPHABET[_ALPHABET.index(forge.token[position]) ^ 32]
            forge.assert_refused(forge.token[:position] + turned + forge.token[position + 1 :])


def test_header_payload_and_signature_of_different_tokens_do_not_mix(forge: Forge) -> None:
    one, other = forge.token.split("."), forge.with_claims(scope="admin").split(".")
    forge.assert_refused(".".join((one[0], other[1], one[2])))
    forge.assert_refused(".".join((one[0], one[1], other[2])))


def test_a_padding_that_is_not_the_one_of_the_standard_is_refused(forge: Forge) -> None:
    """Bleichenbacher 2006: a verifier that does not look at the end of the block accepts these."""
    private = rsa_private(forge.key).private_numbers()
    modulus = private.public_numbers.n
    signed = forge.token.rpartition(".")[0]
    digest = hashlib.sha256(signed.encode()).digest()
    info = bytes.fromhex("3031300d060960864801650304020105000420") + digest
    blocks = {
        "garbage behind the digest": b"\0\1" + b"\xff" * 8 + b"\0" + info,
        "block type 2": b"\0\2" + b"\xff" * (253 - len(info)) + b"\0" + info,
        "a short padding": b"\0\1" + b"\xff" * 7 + b"\0" + info,
        "no parameters": b"\0\1"
        + b"\xff" * (255 - len(info))
        + b"\0"
        + bytes.fromhex("302f300b0609608648016503040201")
        + b"\4\x20"
        + digest,
    }
    for name, block in blocks.items():
        number = int.from_bytes(block.ljust(256, b"\0"), "big")
        signature = pow(number, private.d, modulus).to_bytes(256, "big")
        assert without_date(present(forge.server, f"{signed}.{b64(signature)}")) == forge.refusal, name
    right = b"\0\1" + b"\xff" * (253 - len(info)) + b"\0" + info
    forge.assert_accepted(f"{signed}.{b64(pow(int.from_bytes(right, 'big'), private.d, modulus).to_bytes(256, 'big'))}")


# ---------------------------------------------------------------- what the answer tells


def test_the_answers_to_a_bad_signature_an_unknown_kid_and_an_expired_token_are_identical(
    forge: Forge, attacker: SigningKey
) -> None:
    kinds = {
        "signature": forge.token_of(key=attacker),
        "unknown kid": forge.token_of(header=as_json({**forge.header, "kid": attacker.kid}), key=attacker),
        "expired": forge.with_claims(exp=1),
        "audience": forge.with_claims(aud="other"),
        "issuer": forge.with_claims(iss="other"),
        "type": forge.with_header(typ="JWT"),
        "malformed": "x",
        "too large": "x" * (MAX_TOKEN + 1),
    }
    answers = {kind: without_date(present(forge.server, token)) for kind, token in kinds.items()}
    for kind, answer in answers.items():
        assert answer == forge.refusal, kind


def test_two_authorization_headers_are_400(forge: Forge) -> None:
    first = verify_bytes(forge.token)[:-2]
    for second in (f"Bearer {forge.token}", "Bearer x", "Basic YTpi", ""):
        request = first + f"authorization: {second}\r\nConnection: close\r\n\r\n".encode()
        (answer,) = until_closed(forge.server.port, request)
        assert (answer.status, answer.json["code"]) == (400, "bad_request")


def test_a_token_anywhere_but_in_the_header_is_no_token(forge: Forge) -> None:
    server = forge.server
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answers = [
        server.request("GET", f"/verify?access_token={forge.token}"),
        server.request("POST", "/verify", f"access_token={forge.token}", form),
        server.request("GET", "/verify", headers={"Cookie": f"access_token={forge.token}"}),
        server.request("GET", f"/verify/{forge.token}"),
        server.request("GET", "/verify", headers={"X-Authorization": f"Bearer {forge.token}"}),
        server.request("GET", "/verify", headers={"Authorization": forge.token}),
        server.request("GET", "/verify", headers={"Authorization": f"Basic {forge.token}"}),
        server.request("GET", "/verify", headers={"Authorization": f"DPoP {forge.token}"}),
        server.request("GET", "/verify", headers={"Authorization": f"Bearer:{forge.token}"}),
        server.request("GET", "/verify", headers={"Authorization": ""}),
    ]
    for answer in answers:
        assert (answer.status, answer.json["code"]) == (401, "token_missing")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "error" not in answer.headers["www-authenticate"]  # RFC 6750 section 3.1
        assert forge.token.encode() not in answer.body


def test_the_public_key_that_the_server_publishes_is_the_one_that_it_signs_with(forge: Forge) -> None:
    (published,) = forge.server.request("GET", "/.well-known/jwks.json").json["keys"]
    assert published == public_jwk(rsa_private(forge.key).public_key(), "RS256")


def test_no_token_of_these_tests_is_in_the_log(forge: Forge) -> None:
    for part in forge.token.split("."):
        assert part not in forge.server.log
