"""Forms, read strictly (RFC 6749 sections 3.1, 3.2, appendix B)."""

import asyncio
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastauth.endpoints.bodies import MAX_FIELDS, parse_form, read_form
from fastauth.endpoints.errors import InvalidRequest
from tests.cases import each
from tests.endpoints.asking import ReadyRequest

FORM = {b"content-type": b"application/x-www-form-urlencoded"}


def read(body: bytes = b"a=1", headers: dict[bytes, bytes] = FORM, query: bytes = b"") -> dict[str, str]:
    return asyncio.run(read_form(ReadyRequest(body, headers, "POST", "/token", query=query)))


@each(
    ("body", "fields"),
    [
        (b"", {}),
        (b"a=1&b=2", {"a": "1", "b": "2"}),
        (b"a=&b=2", {"b": "2"}),
        (b"a&b=2", {"b": "2"}),
        (b"&&a=1&&", {"a": "1"}),
        (b"a=1=2", {"a": "1=2"}),
        (b"a=b+c%20d%2Be", {"a": "b c d+e"}),
        (b"%61=1", {"a": "1"}),
        ("a=%C3%A9&b=é".encode(), {"a": "é", "b": "é"}),
        (b"a=%00%0d%0a", {"a": "\0\r\n"}),
    ],
)
def test_a_form_is_read(body: bytes, fields: dict[str, str]) -> None:
    assert parse_form(body) == fields


@given(fields=st.dictionaries(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=20), max_size=8))
def test_what_another_library_writes_is_read(fields: dict[str, str]) -> None:
    fields = {name: value for name, value in fields.items() if _is_utf8(name + value)}
    assert parse_form(urlencode(fields).encode()) == fields


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


@each(
    "body",
    [
        b"a=1&a=2",
        b"a=1&a=1",
        b"a=&a=1",
        b"a=1&a=",
        b"a&a",
        b"a=1&%61=2",
        b"=1&=2",
        b"a=%",
        b"a=%4",
        b"a=%4x",
        b"a=%u0041",
        b"a=%ff",
        b"a=\xff",
        b"a=%ed%a0%80",
        b"a=%c0%80",
        b"&".join(b"a%d=1" % number for number in range(MAX_FIELDS + 1)),
        b"&" * 65_000,
    ],
)
def test_what_two_readers_could_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_form(body)


@each(
    "content_type",
    [b"application/x-www-form-urlencoded", b"Application/X-WWW-Form-Urlencoded; charset=UTF-8"],
)
def test_a_form_says_that_it_is_one(content_type: bytes) -> None:
    assert read(headers={b"content-type": content_type}) == {"a": "1"}


@each(
    "headers",
    [
        {},
        {b"content-type": b"application/json"},
        {b"content-type": b"multipart/form-data; boundary=x"},
        {b"content-type": b"application/x-www-form-urlencodedx"},
        {**FORM, b"content-encoding": b"gzip"},
    ],
)
def test_anything_else_is_refused_before_it_is_read(headers: dict[bytes, bytes]) -> None:
    request = ReadyRequest(b"a=1", headers, "POST", "/token")
    with pytest.raises(InvalidRequest):
        asyncio.run(read_form(request))
    assert request.reads == 0


@each(
    "query",
    [b"client_secret=s", b"x=1&client_id=c", b"token=t", b"refresh_token=", b"grant_type=client_credentials&x"],
)
def test_parameters_in_the_url_are_refused(query: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(query=query)


@each("query", [b"", b"x=1", b"my_client_id=1", b"utm_source=token"])
def test_what_else_is_in_the_url_is_nobodys_business(query: bytes) -> None:
    assert read(query=query) == {"a": "1"}


@each("body", [b"client_secret=hunter2&client_secret=hunter2", b"client_secret=hunter2%zz", b"hunter2=\xff"])
def test_a_refusal_does_not_quote_what_was_sent(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_form(body)
    assert "hunter2" not in str(refusal.value)
