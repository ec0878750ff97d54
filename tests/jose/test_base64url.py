"""base64url has one spelling for each string of bytes, and no other is read."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from fastauth.jose import base64url
from tests.cases import each

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(st.binary(max_size=64))
def test_what_was_encoded_decodes_to_itself(data: bytes) -> None:
    assert base64url.decode(base64url.encode(data)) == data


@given(st.lists(st.sampled_from(ALPHABET), max_size=10).map(bytes))
def test_whatever_decodes_encodes_to_the_very_same_text(text: bytes) -> None:
    data = base64url.decode(text)
    assert data is None or base64url.encode(data) == text


@given(st.binary(max_size=10))
def test_any_bytes_decode_as_the_strictest_reading_of_the_rfc_says(text: bytes) -> None:
    in_alphabet = all(byte in ALPHABET for byte in text)
    padded = text + b"=" * (-len(text) % 4)
    is_canonical = (
        in_alphabet
        and len(text) % 4 != 1
        and base64.urlsafe_b64encode(base64.urlsafe_b64decode(padded)).rstrip(b"=") == text
    )
    assert (base64url.decode(text) is not None) == is_canonical


@each(
    ("text", "data"),
    [
        (b"", b""),
        (b"Zg", b"f"),
        (b"Zm8", b"fo"),
        (b"Zm9v", b"foo"),
        (b"Zm9vYg", b"foob"),
        (b"A-z_4ME", b"\x03\xec\xff\xe0\xc1"),
    ],
)
def test_the_examples_of_rfc_4648_and_rfc_7515_appendix_c(text: bytes, data: bytes) -> None:
    assert base64url.decode(text) == data
    assert base64url.encode(data) == text


@each(
    "text",
    [
        *(b"Zg=", b"Zg==", b"Zm8=", b"Zm9v=", b"="),  # padding
        *(b"Zg\n", b"\nZg", b"Z g", b" ", b"Zm9v\r\n", b"Zm9v\x00"),  # white space and controls
        *(b"A+z/", b"A+z_", b"Zm9.", b"Zm9\xff", "Zｍ".encode()),  # other alphabets
        *(b"Z", b"Zm9vZ"),  # lengths that no bytes have
        *(b"Zh", b"Zv", b"Zm9", b"Zm-", b"Zm_"),  # spare bits that are not zero
    ],
)
def test_any_other_spelling_is_refused(text: bytes) -> None:
    assert base64url.decode(text) is None
