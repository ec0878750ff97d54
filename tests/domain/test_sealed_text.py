"""Texts that clients keep for us: nothing passes but what was sealed, in the one form in which it was."""

import base64
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastauth.domain.sealed_text import SealedText
from tests.cases import each

KEY = bytes(range(32))
LETTERS = string.ascii_letters + string.digits + "-_"
# The last letter has no bit to spare, two, four, none, two.
FORMS: list[tuple[str, tuple[Any, ...]]] = [
    (">QQ", (1, 2)),
    (">16sQ", (bytes(16), 3)),
    (">H", (4,)),
    (">B", (5,)),
    (">16sQ", (b"\xff" * 16, (1 << 64) - 1)),
]


def message_of(fields: tuple[Any, ...]) -> bytes:
    return f"of these fields: {fields}".encode()


def sealed(form: str, fields: tuple[Any, ...], key: bytes = KEY) -> bytes:
    return SealedText(key, form).seal(fields, message_of(fields)).encode()


def opened(form: str, text: bytes, key: bytes = KEY) -> tuple[Any, ...] | None:
    return SealedText(key, form).open(text, message_of)


@each(("form", "fields"), FORMS)
def test_what_was_sealed_is_opened(form: str, fields: tuple[Any, ...]) -> None:
    text = sealed(form, fields)
    assert opened(form, text) == fields
    assert text.startswith(b"1.")
    assert set(text[2:].decode()) <= set(LETTERS)


@each(("form", "fields"), FORMS)
def test_every_flipped_bit_is_refused(form: str, fields: tuple[Any, ...]) -> None:
    text = sealed(form, fields)
    for place in range(len(text)):
        for bit in range(8):
            flipped = bytearray(text)
            flipped[place] ^= 1 << bit
            assert opened(form, bytes(flipped)) is None


@each(("form", "fields"), FORMS)
def test_every_flipped_bit_below_the_letters_is_refused(form: str, fields: tuple[Any, ...]) -> None:
    text = sealed(form, fields).decode()
    body = base64.urlsafe_b64decode(text[2:] + "=" * (-len(text[2:]) % 4))
    for place in range(len(body)):
        for bit in range(8):
            flipped = bytearray(body)
            flipped[place] ^= 1 << bit
            assert opened(form, b"1." + base64.urlsafe_b64encode(flipped).rstrip(b"=")) is None


@each(("form", "fields"), FORMS)
def test_every_part_is_refused_and_so_is_anything_more(form: str, fields: tuple[Any, ...]) -> None:
    text = sealed(form, fields)
    for cut in range(len(text)):
        assert opened(form, text[:cut]) is None
        assert opened(form, text[cut + 1 :]) is None
        assert opened(form, text[:cut] + text[cut + 1 :]) is None
    for more in (b"A", b"=", b"==", b"\n", b" ", b"\0", b".", text):
        assert opened(form, text + more) is None
        assert opened(form, more + text) is None


@each(("form", "fields"), FORMS)
def test_no_other_spelling_of_the_same_bytes_is_opened(form: str, fields: tuple[Any, ...]) -> None:
    text = sealed(form, fields).decode()
    padding = "=" * (-len(text[2:]) % 4)
    body = base64.urlsafe_b64decode(text[2:] + padding)
    same = [text[:-1] + last for last in LETTERS if base64.urlsafe_b64decode(text[2:-1] + last + padding) == body]
    assert len(same) == 1 << (6 * len(text[2:]) - 8 * len(body))
    standard = "1." + base64.b64encode(body).decode()
    spellings = [*same, standard, standard.rstrip("="), text + padding, "1." + text[2:].swapcase()]
    assert {spelling for spelling in spellings if opened(form, spelling.encode())} == {text}


def test_the_two_letters_in_which_the_alphabets_differ_are_the_urls() -> None:
    texts = [sealed(">Q", (number,)) for number in range(200)]
    assert any(b"-" in text and b"_" in text for text in texts)
    for text in texts:
        other = text.replace(b"-", b"+").replace(b"_", b"/")
        assert (opened(">Q", other) is None) == (other != text)


@each("version", [b"0.", b"2.", b"1,", b"11", b"..", b"\xb1."])
def test_another_version_is_refused(version: bytes) -> None:
    assert opened(">QQ", version + sealed(">QQ", (1, 2))[2:]) is None


def test_another_key_opens_nothing() -> None:
    text = sealed(">QQ", (1, 2))
    for place in range(32):
        for bit in range(8):
            other = bytearray(KEY)
            other[place] ^= 1 << bit
            assert opened(">QQ", text, bytes(other)) is None


def test_what_the_message_says_beside_the_fields_counts() -> None:
    text = SealedText(KEY, ">Q")
    made = text.seal((7,), b"7 for alice").encode()
    assert text.open(made, lambda fields: b"%d for alice" % fields[0]) == (7,)
    assert text.open(made, lambda fields: b"%d for alicf" % fields[0]) is None
    assert text.open(made, lambda fields: b"") is None


@given(st.binary(max_size=100))
def test_no_bytes_are_opened_and_none_make_it_raise(text: bytes) -> None:
    for form, _ in FORMS:
        assert opened(form, text) is None


@given(st.text(alphabet=LETTERS, min_size=64, max_size=64))
def test_no_letters_in_the_right_form_are_opened(letters: str) -> None:
    assert opened(">QQ", b"1." + letters.encode()) is None


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_any_fields_come_back_as_they_were(first: int, second: int) -> None:
    assert opened(">QQ", sealed(">QQ", (first, second))) == (first, second)


@each("key", [b"", bytes(31), bytes(33), bytes(64)])
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SealedText(key, ">Q")


def test_printing_says_nothing_of_the_key() -> None:
    assert "secret" not in repr(SealedText(b"secret" * 5 + b"!!", ">Q"))
