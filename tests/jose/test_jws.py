"""The compact JWS, hostile and known: what is signed by the right key in the wrong form is refused all the same."""

import contextlib
import functools
import hmac
import json
import socket
import time
import traceback
import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from hypothesis import assume, given
from hypothesis import strategies as st

from fastauth.jose import base64url
from fastauth.jose.jws import MAX_HEADER_BYTES, MAX_TOKEN_BYTES, JwsVerifier
from fastauth.jose.keys import SigningKey, VerifyingKey
from fastauth.jose.keyset import KeySet
from fastauth.jose.refusals import TokenRefused
from tests.cases import each
from tests.jose.making import b64, claims_with, header_of, raw_claims, signed_input, token_of

COOKBOOK = Path(__file__).parent.parent / "vectors" / "cookbook"


def verifier_of(*keys: SigningKey) -> JwsVerifier:
    return JwsVerifier(KeySet({key.kid: key.verifying_key() for key in keys}))


def code_of(token: bytes, *keys: SigningKey) -> str | None:
    """Why a verifier with these keys refuses the token; None if it does not."""
    try:
        verifier_of(*keys).verify(token)
    except TokenRefused as refusal:
        return refusal.code
    return None


@functools.cache
def private_rsa(key: SigningKey) -> rsa.RSAPrivateKey:
    loaded = load_der_private_key(key.to_der(), None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    return loaded


def public_forms(key: SigningKey) -> dict[str, bytes]:
    """The ways in which a public key may end up as somebody's HMAC secret."""
    public = private_rsa(key).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {
        "PEM": pem,
        "PEM without its newline": pem.rstrip(b"\n"),
        "PKCS #1 PEM": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "JWK": json.dumps(key.public_jwk).encode(),
        "JWK as the JWKS writes it": key.public_jwk_json().encode(),
        "modulus": key.public_jwk["n"].encode(),
        "nothing": b"",
    }


def test_a_good_token_gives_back_its_payload_and_type(signing_key: SigningKey) -> None:
    key, typ, payload = verifier_of(signing_key).verify(token_of(signing_key))
    assert (key.kid, typ) == (signing_key.kid, "at+jwt")
    assert json.loads(payload) == claims_with()


# ------------------------------------------------------------------ algorithms (cases 1, 2, 3)


@each("alg", ["none", "None", "nOnE", "NONE", "", " none"])
@each("has_signature", [False, True])
def test_a_token_that_claims_to_need_no_signature_is_refused(
    signing_key: SigningKey, alg: str, has_signature: bool
) -> None:
    token = token_of(signing_key, header_of(signing_key, alg=alg))
    unsigned = token.rpartition(b".")[0] + b"."
    assert code_of(token if has_signature else unsigned, signing_key) == "algorithm"


def test_an_empty_signature_under_the_right_algorithm_is_refused(signing_key: SigningKey) -> None:
    assert code_of(token_of(signing_key).rpartition(b".")[0] + b".", signing_key) == "signature"


@each("alg", ["HS256", "RS256"])
def test_the_public_key_as_an_hmac_secret_opens_nothing(signing_key: SigningKey, alg: str) -> None:
    signed = signed_input(header_of(signing_key, alg=alg), claims_with())
    for form, secret in public_forms(signing_key).items():
        token = signed + b"." + b64(hmac.new(secret, signed, sha256).digest())
        assert code_of(token, signing_key) == ("signature" if alg == "RS256" else "algorithm"), form


def _pss(hash_: hashes.HashAlgorithm) -> padding.PSS:
    return padding.PSS(padding.MGF1(hash_), hash_.digest_size)


@each(
    ("alg", "sign"),
    [
        ("RS384", lambda key, data: key.sign(data, padding.PKCS1v15(), hashes.SHA384())),
        ("RS512", lambda key, data: key.sign(data, padding.PKCS1v15(), hashes.SHA512())),
        ("PS256", lambda key, data: key.sign(data, _pss(hashes.SHA256()), hashes.SHA256())),
        ("ES256", lambda key, data: ec.generate_private_key(ec.SECP256R1()).sign(data, ec.ECDSA(hashes.SHA256()))),
        ("RS1", lambda key, data: key.sign(data, padding.PKCS1v15(), hashes.SHA1())),  # noqa: S303
    ],
)
@each("is_named", [True, False])
def test_one_key_has_one_algorithm_and_no_other_signature_of_it_passes(
    signing_key: SigningKey, alg: str, sign: Callable[[rsa.RSAPrivateKey, bytes], bytes], is_named: bool
) -> None:
    signed = signed_input(header_of(signing_key, alg=alg if is_named else "RS256"), claims_with())
    token = signed + b"." + b64(sign(private_rsa(signing_key), signed))
    assert code_of(token, signing_key) == ("algorithm" if is_named else "signature")


@each("alg", ["rs256", "RS256 ", "RS256\0", "ＲＳ256"])
def test_an_algorithm_is_compared_exactly(signing_key: SigningKey, alg: str) -> None:
    assert code_of(token_of(signing_key, header_of(signing_key, alg=alg)), signing_key) == "algorithm"


@each("alg", [None, 5, True, ["RS256"], {"RS256": 1}])
def test_an_algorithm_that_is_missing_or_no_text_is_malformed(signing_key: SigningKey, alg: Any) -> None:
    assert code_of(token_of(signing_key, header_of(signing_key, alg=alg)), signing_key) == "malformed"


# ------------------------------------------------------------------ key ids (cases 4, 5, 30)


class CountingKey(VerifyingKey):
    """A real key that counts how often it was asked."""

    __slots__ = ("checks",)

    def __init__(self, key: SigningKey) -> None:
        super().__init__(key.kid, private_rsa(key).public_key(), "RS256", key.kid)
        self.checks = 0
        check = self.is_signature

        def counted(signature: bytes, signed: bytes) -> bool:
            self.checks += 1
            return check(signature, signed)

        self.is_signature = counted


def test_an_unknown_kid_costs_no_signature_check(signing_key: SigningKey, other_key: SigningKey) -> None:
    key = CountingKey(signing_key)
    verifier = JwsVerifier(KeySet({signing_key.kid: key}))
    for number in range(100):
        with pytest.raises(TokenRefused) as refusal:
            verifier.verify(token_of(signing_key, header_of(other_key, kid=f"{number}")))
        assert refusal.value.code == "key"
    assert key.checks == 0
    verifier.verify(token_of(signing_key))
    assert key.checks == 1


def grown_by(work: Callable[[], None]) -> int:
    """How many bytes of memory remain taken after ``work``."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_the_table_of_known_headers_is_bounded() -> None:
    key = SigningKey.generate("ES256")
    verifier = verifier_of(key)
    for number in range(700):
        verifier.verify(token_of(key, {"alg": "ES256", "kid": key.kid, "number": number}, b"x"))
        assert len(verifier._headers) <= 256
    assert len(verifier._headers) > 0


def test_ten_thousand_unknown_kids_leave_no_trace_in_memory(signing_key: SigningKey) -> None:
    verifier = verifier_of(signing_key)
    signed = b"." + b64(as_json(claims_with())) + b"." + b64(bytes(256))
    tokens = [b64(as_json(header_of(signing_key, kid=f"kid-{number}"))) + signed for number in range(10_000)]

    def refuse_all() -> None:
        for token in tokens:
            with contextlib.suppress(TokenRefused):
                verifier.verify(token)

    assert grown_by(refuse_all) < 20_000


def test_forged_tokens_under_a_thousand_spellings_of_a_good_header_leave_no_trace_in_memory(
    signing_key: SigningKey,
) -> None:
    verifier = verifier_of(signing_key)
    rest = b"." + b64(as_json(claims_with())) + b"." + b64(bytes(256))

    def refuse_all() -> None:
        for number in range(1_000):
            header = as_json(header_of(signing_key, nonce=f"{number:0600}"))
            with contextlib.suppress(TokenRefused):
                verifier.verify(b64(header) + rest)

    assert grown_by(refuse_all) < 20_000


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@each(
    "kid", ["../../dev/null", "' OR 1=1--", "", " ", "\0", "\ufeff", "kid\0", "*", "%s", "${jndi:ldap://x}", "k" * 700]
)
def test_a_strange_kid_is_an_unknown_kid(signing_key: SigningKey, kid: str) -> None:
    assert code_of(token_of(signing_key, header_of(signing_key, kid=kid)), signing_key) == "key"


@each("kid", [5, 0, True, 1.5, ["a"], {"a": "b"}, "k" * 65_536])
def test_a_kid_that_is_no_text_or_has_64_kilobytes_is_refused_before_any_look_up(
    signing_key: SigningKey, kid: Any
) -> None:
    assert code_of(token_of(signing_key, header_of(signing_key, kid=kid)), signing_key) in {"malformed", "too_large"}


def test_a_token_without_kid_is_refused_even_when_there_is_only_one_key(signing_key: SigningKey) -> None:
    assert code_of(token_of(signing_key, header_of(signing_key, kid=None)), signing_key) == "key"
    null = as_json({"alg": "RS256", "typ": "at+jwt", "kid": None})
    assert code_of(token_of(signing_key, null), signing_key) == "malformed"


def test_a_token_by_one_key_under_the_kid_of_another_is_refused(signing_key: SigningKey, other_key: SigningKey) -> None:
    token = token_of(other_key, header_of(signing_key))
    assert code_of(token, signing_key, other_key) == "signature"
    assert code_of(token_of(other_key), signing_key, other_key) is None


# ------------------------------------------------------------------ keys that the token brings along (cases 6, 7)


def test_a_url_in_the_header_is_never_fetched(signing_key: SigningKey, other_key: SigningKey) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/jwks.json"
        for members in ({"jku": url}, {"x5u": url}, {"jku": url, "x5u": url}):
            by_attacker = header_of(signing_key, **members)
            assert code_of(token_of(other_key, by_attacker), signing_key) == "signature"
            assert code_of(token_of(other_key, header_of(other_key, **members)), signing_key) == "key"
        with pytest.raises(BlockingIOError):
            listener.accept()


@each("member", ["jwk", "x5c", "x5t", "x5t#S256"])
def test_a_key_in_the_header_is_never_used(signing_key: SigningKey, other_key: SigningKey, member: str) -> None:
    value = {"jwk": other_key.public_jwk, "x5c": ["MIIB"], "x5t": "AAAA", "x5t#S256": "AAAA"}[member]
    own_kid = header_of(signing_key, **{member: value})
    foreign_kid = header_of(other_key, **{member: value})
    assert code_of(token_of(other_key, as_json(own_kid)), signing_key) == "signature"
    assert code_of(token_of(other_key, as_json(foreign_kid)), signing_key) == "key"


# ------------------------------------------------------------------ extensions (cases 8, 9)


@each("crit", [["exp"], ["http://example.com/UNDEFINED"], [], ["alg"], ["b64"], "alg", "", 0, False, {}])
def test_a_header_with_crit_is_refused_whatever_it_says(signing_key: SigningKey, crit: Any) -> None:
    assert code_of(token_of(signing_key, header_of(signing_key, crit=crit, exp=1)), signing_key) == "malformed"


def test_a_crit_of_null_is_refused_too(signing_key: SigningKey) -> None:
    header = as_json(header_of(signing_key))[:-1] + b',"crit":null}'
    assert code_of(token_of(signing_key, header), signing_key) == "malformed"


@each("members", [{"b64": False}, {"b64": False, "crit": ["b64"]}, {"b64": True}, {"b64": "x"}])
def test_an_unencoded_payload_is_refused(signing_key: SigningKey, members: dict[str, Any]) -> None:
    header = as_json(header_of(signing_key, **members))
    payload = as_json(claims_with(exp=None))
    plain = b64(header) + b"." + payload.replace(b".", b"")
    assert code_of(plain + b"." + b64(signing_key.sign(plain)), signing_key) == "malformed"
    assert code_of(token_of(signing_key, header), signing_key) == "malformed"


# ------------------------------------------------------------------ shape (cases 10, 19, 22)


def test_the_json_serializations_are_refused(signing_key: SigningKey) -> None:
    protected, payload, signature = (part.decode() for part in token_of(signing_key).split(b"."))
    flat = {"protected": protected, "payload": payload, "signature": signature}
    general = {"payload": payload, "signatures": [{"protected": protected, "signature": signature}]}
    for document in (flat, general):
        assert code_of(as_json(document), signing_key) == "malformed"
        assert code_of(b"[" + as_json(document) + b"]", signing_key) == "malformed"


@each("segments", [0, 1, 2, 4, 5, 6])
def test_a_token_with_any_number_of_segments_but_three_is_refused(signing_key: SigningKey, segments: int) -> None:
    parts = token_of(signing_key).split(b".") * 2
    assert code_of(b".".join(parts[:segments]), signing_key) == "malformed"


@each("enc", ["A256GCM", "A128CBC-HS256"])
def test_an_encrypted_token_is_refused(signing_key: SigningKey, enc: str) -> None:
    header = b64(as_json({"alg": "RSA-OAEP", "enc": enc, "kid": signing_key.kid}))
    assert (
        code_of(b".".join((header, b64(bytes(256)), b64(bytes(12)), b64(b"text"), b64(bytes(16)))), signing_key)
        == "malformed"
    )


def test_empty_segments_are_refused(signing_key: SigningKey) -> None:
    header, payload, signature = token_of(signing_key).split(b".")
    for token in (b"..", b"." + payload + b"." + signature, header + b".." + signature, header + b"." + payload + b"."):
        assert code_of(token, signing_key) in {"malformed", "signature"}


def respelled(segment: bytes) -> list[bytes]:
    """Other spellings that a lenient decoder reads as the same bytes."""
    spellings = [segment + b"=", segment + b"==", segment + b"\n", segment + b" ", b" " + segment, b"\t" + segment]
    spellings += [segment[:4] + b"\n" + segment[4:], segment + b"\x00", segment + "\u200b".encode(), segment + b"!"]
    if (standard := segment.replace(b"-", b"+").replace(b"_", b"/")) != segment:
        spellings.append(standard)
    if len(segment) % 4:  # the last character has spare bits
        alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        spellings.append(segment[:-1] + alphabet[alphabet.index(segment[-1]) ^ 1 :][:1])
    return spellings


@each("position", [0, 1, 2])
def test_one_token_has_one_spelling(signing_key: SigningKey, position: int) -> None:
    parts = token_of(signing_key).split(b".")
    assert len(parts[2]) % 4, "an RSA-2048 signature leaves spare bits"
    verifier = verifier_of(signing_key)
    verifier.verify(b".".join(parts))  # the header is now remembered in its right spelling
    for spelling in respelled(parts[position]):
        token = b".".join([*parts[:position], spelling, *parts[position + 1 :]])
        with pytest.raises(TokenRefused):
            verifier.verify(token)


@given(data=st.data())
def test_no_single_change_to_a_token_leaves_it_valid(signing_key: SigningKey, data: st.DataObject) -> None:
    token = token_of(signing_key)
    position = data.draw(st.integers(0, len(token)))
    replacement = data.draw(st.sampled_from((b"", b"A", b"_", b"=", b".", b"\n", b"\x00", b"\xff")))
    changed = token[:position] + replacement + token[position + data.draw(st.integers(0, 2)) :]
    assume(changed != token)
    assert code_of(changed, signing_key) is not None


@each("size", [MAX_TOKEN_BYTES + 1, 1_000_000])
def test_a_token_beyond_eight_kilobytes_is_too_large(signing_key: SigningKey, size: int) -> None:
    assert code_of(token_of(signing_key, payload={"x": "a" * size}), signing_key) == "too_large"
    assert code_of(b"." * size, signing_key) == "too_large"


def test_the_largest_token_still_passes(signing_key: SigningKey) -> None:
    bare = len(token_of(signing_key, payload={"x": ""}))
    room = (MAX_TOKEN_BYTES - bare) * 3 // 4
    token = max(
        (token_of(signing_key, payload={"x": "a" * (room - less)}) for less in range(8)),
        key=lambda token: len(token) if len(token) <= MAX_TOKEN_BYTES else 0,
    )
    assert MAX_TOKEN_BYTES - 4 < len(token) <= MAX_TOKEN_BYTES
    assert code_of(token, signing_key) is None


def test_a_header_beyond_its_bound_is_malformed(signing_key: SigningKey) -> None:
    header = header_of(signing_key, x="")
    room = MAX_HEADER_BYTES * 3 // 4 - len(as_json(header))
    assert code_of(token_of(signing_key, {**header, "x": "a" * room}), signing_key) is None
    assert code_of(token_of(signing_key, {**header, "x": "a" * (room + 1)}), signing_key) == "malformed"


# ------------------------------------------------------------------ the header's JSON (cases 11, 20, 21)


@each(
    "member", ['"alg":"RS256"', '"alg":"none"', '"kid":"x"', '"typ":"at+jwt"', r'"\u0061lg":"none"', r'"ki\u0064":"x"']
)
def test_a_header_member_that_stands_twice_is_refused(signing_key: SigningKey, member: str) -> None:
    text = as_json(header_of(signing_key))
    for header in (b"{" + member.encode() + b"," + text[1:], text[:-1] + b"," + member.encode() + b"}"):
        assert code_of(token_of(signing_key, header), signing_key) == "malformed"


@each("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig"])
def test_a_header_in_another_encoding_is_refused(signing_key: SigningKey, encoding: str) -> None:
    header = json.dumps(header_of(signing_key)).encode(encoding)
    assert code_of(token_of(signing_key, header), signing_key) == "malformed"


NOT_UTF8 = {
    "latin-1": b"\xe9",
    "an overlong slash": b"\xc0\xaf",
    "an overlong NUL": b"\xc0\x80",
    "a surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "a lone continuation": b"\x80",
    "a cut character": b"\xe2\x82",
}


@each("place", ["typ", "kid", "an unknown member", "an unknown name"])
def test_a_header_that_is_not_utf_8_is_refused_wherever_it_is_not(signing_key: SigningKey, place: str) -> None:
    text, kid = as_json(header_of(signing_key)), signing_key.kid.encode()
    for kind, bad in NOT_UTF8.items():
        header = {
            "typ": text.replace(b"at+jwt", b"at+jwt" + bad),
            "kid": text.replace(kid, kid + bad),
            "an unknown member": text[:-1] + b',"x":"' + bad + b'"}',
            "an unknown name": text[:-1] + b',"' + bad + b'":1}',
        }[place]
        assert code_of(token_of(signing_key, header), signing_key) == "malformed", kind


@each(
    "header",
    [b"", b"null", b"[]", b'"RS256"', b"5", b"{", b"{}", b'{"alg":"RS256",}', b"{'alg':'RS256'}", b"\xff", b"{}{}"],
)
def test_a_header_that_is_no_json_object_with_an_algorithm_is_malformed(signing_key: SigningKey, header: bytes) -> None:
    assert code_of(token_of(signing_key, header), signing_key) == "malformed"


@each("opening", [b"[", b'{"a":'])
@each("depth", [100, 1_000, 100_000])
def test_a_depth_bomb_in_the_header_is_refused_at_once(signing_key: SigningKey, opening: bytes, depth: int) -> None:
    header = b'{"alg":"RS256","kid":"' + signing_key.kid.encode() + b'","x":' + opening * depth
    token = token_of(signing_key, header)
    assert code_of(token, signing_key) in {"malformed", "too_large"}
    verifier = verifier_of(signing_key)
    durations = []
    for _ in range(5):
        started = time.perf_counter()
        with contextlib.suppress(TokenRefused):
            verifier.verify(token)
        durations.append(time.perf_counter() - started)
    assert min(durations) < 0.005


def test_members_that_mean_nothing_here_are_ignored(signing_key: SigningKey) -> None:
    header = header_of(signing_key, cty="x", nonce={"a": [1]}, x5t="AAAA")
    assert code_of(token_of(signing_key, header), signing_key) is None


# ------------------------------------------------------------------ signatures (case 28)


def test_a_signature_of_wrong_length_or_value_is_refused(signing_key: SigningKey) -> None:
    signed = signed_input(header_of(signing_key), claims_with())
    good = signing_key.sign(signed)
    modulus = private_rsa(signing_key).public_key().public_numbers().n
    wrong = {
        "all zero": bytes(256),
        "all one": b"\xff" * 256,
        "one": (1).to_bytes(256),
        "255 bytes": good[1:],
        "255 bytes of the front": good[:-1],
        "257 bytes": b"\0" + good,
        "257 bytes with a tail": good + b"\0",
        "s = n": modulus.to_bytes(256),
        "s = n - 1": (modulus - 1).to_bytes(256),
        "s + n": (int.from_bytes(good) + modulus).to_bytes(257),
        "empty": b"",
        "a psychic ECDSA signature": bytes(64),
        "a DER of r = s = 0": bytes.fromhex("3006020100020100"),
    }
    if (sum_ := int.from_bytes(good) + modulus) < 1 << 2048:
        wrong["s + n in 256 bytes"] = sum_.to_bytes(256)
    assert code_of(signed + b"." + b64(good), signing_key) is None
    for name, signature in wrong.items():
        assert code_of(signed + b"." + b64(signature), signing_key) == "signature", name


def test_a_signature_over_another_payload_is_refused(signing_key: SigningKey) -> None:
    header, _, signature = token_of(signing_key).split(b".")
    forged = b64(as_json(claims_with(sub="admin")))
    assert code_of(b".".join((header, forged, signature)), signing_key) == "signature"


# ------------------------------------------------------------------ published vectors


RFC_7515_A_2_MODULUS = (
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR"
    "T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB"
    "dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia"
    "GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
)
RFC_7515_A_2_SIGNATURE = (
    b"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9"
    b"uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB"
    b"_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rq"
    b"Vt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
)


def test_the_signature_of_rfc_7515_appendix_a_2_verifies() -> None:
    key = VerifyingKey.from_jwk({"kty": "RSA", "kid": "A.2", "n": RFC_7515_A_2_MODULUS, "e": "AQAB"})
    payload = b'{"iss":"joe",\r\n "exp":1300819380,\r\n "http://example.com/is_root":true}'
    signed = b64(b'{"alg":"RS256"}') + b"." + b64(payload)
    signature = base64url.decode(RFC_7515_A_2_SIGNATURE)
    assert signature is not None
    assert key.is_signature(signature, signed)
    assert not key.is_signature(signature, signed + b"x")


def cookbook(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((COOKBOOK / name).read_text())
    return document


def cookbook_verifier() -> JwsVerifier:
    return JwsVerifier(KeySet.from_jwks({"keys": [cookbook("jwk/3_3.rsa_public_key.json")]}))


def test_the_rsa_signature_of_rfc_7520_section_4_1_verifies() -> None:
    vector = cookbook("jws/4_1.rsa_v15_signature.json")
    _, typ, payload = cookbook_verifier().verify(vector["output"]["compact"].encode())
    assert payload.decode() == vector["input"]["payload"]
    assert typ is None


@each(
    ("name", "code"),
    [
        ("jws/4_2.rsa-pss_signature.json", "algorithm"),
        ("jws/4_3.ecdsa_signature.json", "algorithm"),
        ("jws/4_4.hmac-sha2_integrity_protection.json", "key"),
        ("jws/4_5.signature_with_detached_content.json", "key"),
        ("curve25519/jws.json", "key"),
    ],
)
def test_valid_signatures_of_algorithms_that_are_not_the_keys_are_refused(name: str, code: str) -> None:
    with pytest.raises(TokenRefused) as refusal:
        cookbook_verifier().verify(cookbook(name)["output"]["compact"].encode())
    assert refusal.value.code == code


@each("form", ["json", "json_flat"])
def test_the_json_forms_of_rfc_7520_are_refused(form: str) -> None:
    document = cookbook("jws/4_1.rsa_v15_signature.json")["output"][form]
    with pytest.raises(TokenRefused) as refusal:
        cookbook_verifier().verify(json.dumps(document).encode())
    assert refusal.value.code == "malformed"


# ------------------------------------------------------------------ what a refusal tells


def test_no_refusal_repeats_the_token_in_its_text_its_arguments_or_its_traceback(
    signing_key: SigningKey, other_key: SigningKey
) -> None:
    secret = "s3cr3t-inside-the-token"
    tokens = [
        token_of(signing_key, header_of(signing_key, **{secret: 1, "crit": [secret]})),
        token_of(signing_key, header_of(signing_key, kid=secret)),
        token_of(signing_key, header_of(signing_key, alg=secret)),
        token_of(signing_key, header_of(signing_key, typ=5, x=secret)),
        token_of(signing_key, f'{{"alg":"{secret}'.encode()),
        token_of(signing_key, f'{{"{secret}":1,"{secret}":2}}'.encode()),
        token_of(signing_key, secret.encode()),
        token_of(other_key, header_of(signing_key), {"x": secret}),
        secret.encode(),
        secret.encode() * 1000,
    ]
    for token in tokens:
        with pytest.raises(TokenRefused) as refusal:
            verifier_of(signing_key).verify(token)
        error = refusal.value
        told = (
            "".join(traceback.format_exception(error)) + repr(error) + str(error) + repr(error.args) + repr(vars(error))
        )
        assert secret not in told.replace(f'secret = "{secret}"', "")
        for part in token.split(b"."):
            assert len(part) < 16 or part[:16].decode() not in told


def test_a_duplicate_claim_is_not_the_business_of_the_jws(signing_key: SigningKey) -> None:
    """The payload may be anything; ``claims.py`` judges it."""
    payload = raw_claims('"sub":"twice"')
    assert verifier_of(signing_key).verify(token_of(signing_key, payload=payload))[2] == payload
