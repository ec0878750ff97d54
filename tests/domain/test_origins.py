"""Origins of URLs."""

import pytest

from fastauth.domain.origins import Origin, parse_origin
from tests.cases import each


@each(
    ("text", "origin", "written"),
    [
        ("http://127.0.0.1:8000", Origin("http", "127.0.0.1", 8000), "http://127.0.0.1:8000"),
        ("https://Auth.Example/", Origin("https", "auth.example", 443), "https://auth.example"),
        ("https://auth.example:443", Origin("https", "auth.example", 443), "https://auth.example"),
        ("http://[::1]:80", Origin("http", "::1", 80), "http://[::1]"),
    ],
)
def test_an_origin_is_scheme_host_and_port(text: str, origin: Origin, written: str) -> None:
    assert parse_origin(text) == origin
    assert str(origin) == written


@each(
    "text",
    [
        *("", "auth.example", "ftp://auth.example", "http://", "http://[::1", "http://a:99999", "http://a:0"),
        *("http://u:p@auth.example", "http://a/path", "http://a?q", "http://a#f", "http://a\r\nX: y", "http://a b"),
    ],
)
def test_anything_else_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match="must be like") as refusal:
        parse_origin(text)
    assert "u:p" not in str(refusal.value)
