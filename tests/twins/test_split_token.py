"""The strict compact form: the compiled core answers exactly as its twin, and both read base64url in one spelling."""

import base64
import itertools
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given, settings

from fastauth import _core, _core_py
from tests.cases import each
from tests.twins.comparing import outcome
from tests.twins.strategies import EXAMPLES, ODD_VALUES, Choices, built

Decode = Callable[..., bytes | None]
Split = Callable[..., tuple[bytes, bytes, bytes, bytes] | int]

TOO_LARGE, MALFORMED = _core_py.TOKEN_TOO_LARGE, _core_py.TOKEN_MALFORMED
ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
TOKEN: Final = (
    b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UifQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7"
)

both_decode = pytest.mark.parametrize(
    "decode", [_core.decode_base64url, _core_py.decode_base64url], ids=["compiled", "twin"]
)
both_split = pytest.mark.parametrize("split", [_core.split_token, _core_py.split_token], ids=["compiled", "twin"])


class _Bytes(bytes):
    """Bytes that may have been given other manners."""


NOT_BYTES: Final = ("Zm9v", bytearray(b"Zm9v"), memoryview(b"Zm9v"), _Bytes(b"Zm9v"), None, 5, [b"Zm9v"])


def _text(choices: Choices) -> bytes:
    """base64url as it should be, with a character too many, too few or foreign, or any bytes."""
    kind = choices.below(8)
    if kind == 0:
        return bytes(choices.below(256) for _ in range(choices.below(10)))
    text = bytes(choices.pick(ALPHABET) for _ in range(choices.below(10)))
    if kind < 5:
        data = bytes(choices.below(256) for _ in range(choices.below(12)))
        text = base64.urlsafe_b64encode(data).rstrip(b"=")
    if kind in (3, 4, 7):
        place = choices.below(len(text) + 1)
        foreign = choices.pick((b"=", b"==", b".", b"+", b"/", b"\n", b" ", b"\x00", b"\xff", b"A", b""))
        text = text[:place] + foreign + text[place + choices.below(2) :]
    return text


def _token(choices: Choices) -> tuple[bytes, int]:
    """Texts with dots between, mostly two, and a limit near the length."""
    dots = choices.pick((2, 2, 2, 2, 2, 0, 1, 3))
    token = b".".join(_text(choices) for _ in range(dots + 1))
    return token, choices.pick((len(token), len(token) - 1, len(token) + 1, 8_192, 0, -1))


_FOUR: Final = 4  # tokens in one example: four times as many for nearly the same time


@settings(max_examples=EXAMPLES // _FOUR)
@given(built(lambda choices: [_token(choices) for _ in range(_FOUR)], 48 * _FOUR))
def test_the_compiled_split_and_decoder_answer_exactly_as_the_twins(tokens: list[tuple[bytes, int]]) -> None:
    for token, limit in tokens:
        assert outcome(_core.split_token, token, limit) == outcome(_core_py.split_token, token, limit)
        for text in token.split(b"."):
            assert outcome(_core.decode_base64url, text) == outcome(_core_py.decode_base64url, text)


def test_a_token_with_any_one_character_changed_gets_the_same_answer_from_both() -> None:
    for place, byte in itertools.product(range(len(TOKEN)), (*range(0, 256, 17), *b"=.+/-_A\n")):
        token = TOKEN[:place] + bytes([byte]) + TOKEN[place + 1 :]
        assert _core.split_token(token, 8_192) == _core_py.split_token(token, 8_192), (place, byte)


# ------------------------------------------------------------------ base64url


@both_decode
@each(
    ("text", "data"),
    [
        *((b"", b""), (b"Zg", b"f"), (b"Zm8", b"fo"), (b"Zm9v", b"foo"), (b"Zm9vYg", b"foob"), (b"Zm9vYmE", b"fooba")),
        *((b"Zm9vYmFy", b"foobar"), (b"A-z_4ME", b"\x03\xec\xff\xe0\xc1")),
    ],
)
def test_the_vectors_of_rfc_4648_and_rfc_7515_decode(decode: Decode, text: bytes, data: bytes) -> None:
    decoded = decode(text)
    assert decoded == data
    assert type(decoded) is bytes


@both_decode
def test_a_length_that_no_bytes_have_is_refused_and_every_other_is_read(decode: Decode) -> None:
    for length in range(10):
        assert decode(b"A" * length) == (None if length % 4 == 1 else bytes(length * 3 // 4))


@both_decode
def test_each_of_the_256_bytes_counts_in_each_place_only_if_it_is_of_the_alphabet(decode: Decode) -> None:
    for byte, place in itertools.product(range(256), range(8)):
        text = b"A" * place + bytes([byte]) + b"A" * (7 - place)
        sextet = ALPHABET.find(byte)
        assert decode(text) == (None if sextet < 0 else (sextet << 6 * (7 - place)).to_bytes(6)), (byte, place)


@both_decode
@each("whole", [b"", b"Zm9v"])
def test_spare_bits_must_be_zero(decode: Decode, whole: bytes) -> None:
    data = decode(whole) or b""
    for first, second in itertools.product(range(64), repeat=2):
        pair = bytes([ALPHABET[first], ALPHABET[second]])
        assert decode(whole + pair) == (None if second % 16 else data + bytes([first << 2 | second >> 4]))
        triple = b"B" + pair
        number = (1 << 12 | first << 6 | second) >> 2
        assert decode(whole + triple) == (None if second % 4 else data + number.to_bytes(2))


@both_decode
def test_padding_is_refused_wherever_it_stands(decode: Decode) -> None:
    for text in (b"=", b"==", b"Zg==", b"Zg=", b"Zm8=", b"Zm9v=", b"Zm9v====", b"=Zm9v", b"Zm=v", b"Zg==Zg=="):
        assert decode(text) is None


@both_decode
def test_only_bytes_are_decoded(decode: Decode) -> None:
    for text in NOT_BYTES:
        with pytest.raises(TypeError, match="text must be bytes"):
            decode(text)


# ------------------------------------------------------------------ the token


@both_split
def test_a_token_comes_apart_into_its_header_payload_signature_and_what_was_signed(split: Split) -> None:
    parts = split(b"aGVhZA.cGF5.c2ln", 16)
    assert parts == (b"aGVhZA", b"pay", b"sig", b"aGVhZA.cGF5")
    assert isinstance(parts, tuple)
    assert {type(part) for part in parts} == {bytes}
    assert split(b"..", 2) == (b"", b"", b"", b".")
    assert split(b"\xff = .AA.", 100) == (b"\xff = ", b"\0", b"", b"\xff = .AA")  # the header is for its table to know


@both_split
def test_a_token_has_exactly_two_dots(split: Split) -> None:
    for dots in range(6):
        for cut in itertools.combinations(range(5), min(dots, 5)):
            token = b"".join(b"AAAA" + b"." * (place in cut) for place in range(5)) + b"." * (dots == 5)
            assert (split(token, 100) == MALFORMED) == (token.count(b".") != 2), token


@both_split
def test_payload_and_signature_must_be_strict_base64url(split: Split) -> None:
    for bad in (b"A", b"AB", b"AA==", b"AAA\n", b"A+A/", b" AAA", b"AAAAA", b"AAB"):
        assert split(b"AA.%b.AA" % bad, 100) == MALFORMED
        assert split(b"AA.AA.%b" % bad, 100) == MALFORMED


@both_split
def test_the_size_is_judged_first_and_the_limit_itself_is_allowed(split: Split) -> None:
    size = len(TOKEN)
    assert isinstance(split(TOKEN, size), tuple)
    assert split(TOKEN, size - 1) == TOO_LARGE
    for token, limit in ((b"", -1), (b"x", 0), (b"....", 3), (b"\xff" * 9, 8)):
        assert split(token, limit) == TOO_LARGE
        assert split(token, limit + 1) == MALFORMED


def test_a_token_of_a_hundred_megabytes_is_answered_at_once_and_not_copied() -> None:
    token = b"." * 100_000_000
    for split in (_core.split_token, _core_py.split_token):
        tracemalloc.start()
        try:
            assert split(token, 8_192) == TOO_LARGE
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1_000
        durations = []
        for _ in range(3):
            started = time.perf_counter()
            split(token, 8_192)
            durations.append(time.perf_counter() - started)
        assert min(durations) < 0.005


@both_split
def test_only_bytes_are_split_and_only_ints_are_limits(split: Split) -> None:
    for token in NOT_BYTES:
        with pytest.raises(TypeError, match="token must be bytes"):
            split(token, 100)
    for limit in (True, 1.0, None, "1"):
        with pytest.raises(TypeError, match="max_bytes must be an int"):
            split(b"..", limit)
    with pytest.raises(OverflowError):
        split(b"..", 1 << 63)


def test_an_odd_limit_gets_the_same_answer_from_both() -> None:
    for limit, token in itertools.product(ODD_VALUES, (*NOT_BYTES, b"", TOKEN)):
        arguments: tuple[Any, Any] = token, limit
        assert outcome(_core.split_token, *arguments) == outcome(_core_py.split_token, *arguments)
