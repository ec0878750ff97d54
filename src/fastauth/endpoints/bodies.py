"""Request bodies: JSON and forms, read strictly and within bounds."""

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from fastauth import core
from fastauth.endpoints.errors import InvalidRequest, MalformedBody, UnsupportedMediaType
from fastauth.endpoints.http import Request

T = TypeVar("T")

MAX_FIELDS: Final = 64
_JSON_DEPTH: Final = 16
_JSON_MEMBERS: Final = 64
_SCAN_PROBLEMS: Final = {
    core.JSON_DUPLICATE: "a member name stands twice in the JSON",
    core.JSON_TOO_DEEP: "the JSON is nested too deeply",
    core.JSON_TOO_MANY: "the JSON has too many members",
    core.JSON_MALFORMED: "the body is not valid JSON",
}
# What a client might put into the URL, where logs and proxies keep it; parameters belong in the body
# (RFC 6749 sections 2.3.1 and 3.2).
_NOT_IN_QUERY: Final = re.compile(
    rb"(?:^|&)(?:access_token|client_assertion|client_id|client_secret|grant_type|password|refresh_token|scope|token"
    rb"|username)="
)
_FORM: Final = b"application/x-www-form-urlencoded"
_BROKEN_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def check_json_content_type(request: Request) -> None:
    """Raises UnsupportedMediaType unless the body is plain JSON in UTF-8 (RFC 8259 section 8.1)."""
    media_type, *parameters = request.headers.get(b"content-type", b"").lower().split(b";")
    if media_type.strip() != b"application/json":
        raise UnsupportedMediaType("send the body as Content-Type: application/json")
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip(b' \t"') != b"utf-8":
            raise UnsupportedMediaType("JSON is UTF-8; no other charset is taken")
    if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("an encoded body is not taken")


def decode_json(body: bytes, decode: Callable[[bytes], T], shape: str) -> T:
    """In: a msgspec decoder, and what it takes in a person's words. Raises MalformedBody, which quotes nothing."""
    problem = core.scan_json(body, _JSON_DEPTH, _JSON_MEMBERS)
    if problem != core.JSON_OK:
        raise MalformedBody(_SCAN_PROBLEMS[problem])
    try:
        return decode(body)
    except msgspec.ValidationError as error:  # names a member and a type, never a value
        raise MalformedBody(f"the body must be {shape}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedBody("the body is not valid JSON in UTF-8") from None


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form (RFC 6749 appendix B); one without a value counts as absent (section 3.2).

    Raises InvalidRequest for another content type, a field that stands twice, bytes that are not UTF-8, or parameters
    in the URL.
    """
    if request.query and _NOT_IN_QUERY.search(request.query):
        raise InvalidRequest("send the parameters in the body, never in the URL")
    content_type = request.headers.get(b"content-type", b"")
    if content_type != _FORM and content_type.partition(b";")[0].strip().lower() != _FORM:
        raise InvalidRequest("send the body as Content-Type: application/x-www-form-urlencoded")
    if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise InvalidRequest("an encoded body is not taken")
    return parse_form(await request.read_body())


def parse_form(body: bytes) -> dict[str, str]:
    """As ``read_form``, of the bytes alone."""
    if body.count(b"&") >= MAX_FIELDS:
        raise InvalidRequest("the form has too many fields")
    fields: dict[str, str] = {}
    for name, _, value in _pairs(body):
        if name in fields:
            raise InvalidRequest("a parameter stands twice")
        fields[name] = value
    return fields if all(fields.values()) else {name: value for name, value in fields.items() if value}


def _pairs(body: bytes) -> Iterable[tuple[str, object, str]]:
    if not _is_encoded(body):
        return [pair.partition("=") for pair in _utf8(body).split("&") if pair]
    pairs = [pair.partition(b"=") for pair in body.split(b"&") if pair]
    return [(form_text(name), sign, form_text(value)) for name, sign, value in pairs]


def form_text(data: bytes) -> str:
    """One name or value of a form. Raises InvalidRequest."""
    if _is_encoded(data):
        if _BROKEN_PERCENT.search(data):
            raise InvalidRequest("a percent sign is not followed by two hexadecimal digits")
        data = unquote_to_bytes(data.replace(b"+", b" "))
    return _utf8(data)


def _is_encoded(data: bytes) -> bool:
    return b"%" in data or b"+" in data


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the form is not UTF-8") from None
