"""Responses and header values: nothing that is said can break out of its header."""

from urllib.parse import unquote_to_bytes

from hypothesis import example, given
from hypothesis import strategies as st

from fastauth.endpoints.http import JSON, Response, header_value
from tests.cases import each
from tests.endpoints.asking import ReadyRequest, header_of

_texts = st.lists(st.integers(0, 0x10FFFF) | st.integers(0, 0xFF), max_size=12).map(
    lambda points: "".join(map(chr, points))
)


@given(_texts)
@example("\r\nSet-Cookie: a=b")
@example("a\x00b\x7f\t")
@example("\u2028\u0085\ud800é😀")
@example(" a ")
@example("  ")
@example("%0d%0a")
def test_a_header_value_is_one_line_of_visible_ascii_and_tells_every_text_apart(text: str) -> None:
    value = header_value(text)
    assert all(0x20 <= byte <= 0x7E for byte in value)
    assert value == value.strip()  # what a parser would strip is not there
    assert unquote_to_bytes(value).decode("utf-8", "surrogatepass") == text


@each("text", ["", "5f9c", "user:read user:write", "a  b", "alice@example.com", "x" * 5000, '"a"\\<b>'])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert header_value(text) == text.encode()


def test_a_response_says_how_long_it_is() -> None:
    assert header_of(Response(200, (JSON,), b"{}"), "content-length") == "2"
    assert header_of(Response(200, (), b""), "content-length") == "0"


def test_a_304_has_no_length_of_its_own() -> None:
    assert header_of(Response(304, (), b""), "content-length") is None


def test_a_request_has_no_id_until_somebody_asks_and_then_always_the_same() -> None:
    """Most requests are never spoken of, and making an id costs more than a slot that stays empty."""
    request = ReadyRequest()
    assert not hasattr(request, "_trace")
    assert request.id == request.id
    assert len(request.id) == 32
    assert ReadyRequest().id != ReadyRequest().id


def test_the_id_is_the_trace_of_the_request() -> None:
    request = ReadyRequest(headers={b"traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    assert request.id == "0af7651916cd43dd8448eb211c80319c"
    assert request.trace.is_sampled
