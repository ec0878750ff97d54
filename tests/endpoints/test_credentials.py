"""The body of a login: only one reading of it is possible, and a refusal never quotes it."""

import json

import pytest

from fastauth.endpoints.auth import decode_credentials
from fastauth.endpoints.bodies import check_json_content_type
from fastauth.endpoints.errors import MalformedBody, UnsupportedMediaType
from tests.cases import each
from tests.endpoints.asking import ReadyRequest
from tests.vectors import json_test_suite


@each(
    ("username", "password"),
    [
        ("alice", "x"),
        ("", ""),
        ("a\0b", "\0"),
        ("é😀", "Ünïcödé"),
        ("a" * 10_000, "b" * 10_000),
        ('"\\/\b\f\n\r\t', "\x1f"),
    ],
)
def test_credentials_come_through_unchanged(username: str, password: str) -> None:
    for ensure_ascii in (True, False):
        body = json.dumps({"username": username, "password": password}, ensure_ascii=ensure_ascii).encode()
        credentials = decode_credentials(body)
        assert (credentials.username, credentials.password) == (username, password)


def test_further_members_and_white_space_are_ignored() -> None:
    body = b' \r\n\t{ "otp" : [ 1 , { "a" : null } ] , "password" : "b" , "username" : "a" } '
    assert decode_credentials(body).username == "a"


def test_credentials_that_are_printed_show_no_password() -> None:
    credentials = decode_credentials(b'{"username":"alice","password":"hunter2"}')
    assert "hunter2" not in f"{credentials!r} {credentials}"


def is_taken(body: bytes) -> bool:
    """Whether a body is read; whatever is not must be a malformed body and no other error."""
    try:
        decode_credentials(body)
    except MalformedBody:
        return False
    return True


def test_all_188_invalid_documents_of_the_json_test_suite_are_malformed_bodies() -> None:
    documents = json_test_suite("n_")
    assert len(documents) == 188
    assert [name for name, document in documents if is_taken(document)] == []


def embedded(document: bytes) -> bytes:
    """Good credentials with the document as a member that nobody asks for."""
    return b'{"username":"a","password":"b","x":' + document + b"}"


def test_an_invalid_document_is_malformed_in_a_member_that_is_ignored_too() -> None:
    assert [name for name, document in json_test_suite("n_") if is_taken(embedded(document))] == []


def test_a_valid_document_is_no_obstacle_in_a_member_that_is_ignored() -> None:
    refused = [name for name, document in json_test_suite("y_") if not is_taken(embedded(document))]
    assert refused == ["y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"]


def test_of_the_documents_that_a_parser_may_treat_as_it_likes_lone_surrogates_and_depth_are_refused() -> None:
    refused = {name for name, document in json_test_suite("i_") if not is_taken(embedded(document))}
    assert all("surrogate" in name or "structure" in name for name in refused), refused
    assert "i_structure_500_nested_arrays.json" in refused


@each("bad", [b"\xff", b"\xe9", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x82", b"\xfe\xff"])
def test_a_body_that_is_not_utf_8_is_malformed_wherever_it_is_not(bad: bytes) -> None:
    for body in (
        b'{"username":"' + bad + b'","password":"b"}',
        b'{"username":"a","password":"' + bad + b'"}',
        b'{"username":"a","password":"b","x":"' + bad + b'"}',
        b'{"username":"a","password":"b","' + bad + b'":1}',
        b'{"username":"a","password":"b"}' + bad,
    ):
        with pytest.raises(MalformedBody):
            decode_credentials(body)


@each("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_a_body_in_another_encoding_is_malformed(encoding: str) -> None:
    with pytest.raises(MalformedBody):
        decode_credentials('{"username":"aé","password":"b"}'.encode(encoding))


@each(
    "body",
    [
        b'{"username":"a","username":"admin","password":"b"}',
        b'{"username":"a","password":"b","password":"c"}',
        rb'{"username":"a","usern\u0061me":"admin","password":"b"}',
        b'{"username":"a","password":"b","x":{"y":1,"y":2}}',
    ],
)
def test_a_member_that_stands_twice_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBody, match="twice"):
        decode_credentials(body)


@each("opening", [b"[", b'{"a":'])
@each("depth", [16, 1_000, 10_000])
def test_a_depth_bomb_is_malformed(opening: bytes, depth: int) -> None:
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    with pytest.raises(MalformedBody):
        decode_credentials(b'{"username":"a","password":"b","x":' + opening * depth + b"1" + closing * depth + b"}")


def test_a_thousand_members_are_malformed() -> None:
    members = b",".join(b'"m%d":1' % number for number in range(1_000))
    with pytest.raises(MalformedBody):
        decode_credentials(b'{"username":"a","password":"b",' + members + b"}")


@each(
    "body",
    [
        *(
            b"",
            b"null",
            b"[]",
            b"{}",
            b'"alice"',
            b"5",
            b'{"username":"a"}',
            b'{"password":"b"}',
            b"username=a&password=b",
        ),
        *(b'{"username":5,"password":"b"}', b'{"username":null,"password":"b"}', b'{"username":"a","password":["b"]}'),
        *(
            b'{"username":"a","password":true}',
            b'{"Username":"a","Password":"b"}',
            b'[{"username":"a","password":"b"}]',
        ),
        *(
            b'{"username":"a","password":"b"}{}',
            b'{"username":"a","password":"b"},',
            b'{"username":"\\ud800","password":"b"}',
        ),
        *(
            b'{"username":"a","password":"\\udfff"}',
            b"{'username':'a','password':'b'}",
            b'{"username":"a","password":"b",}',
        ),
    ],
)
def test_anything_but_two_texts_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode_credentials(body)


@each(
    "body",
    [
        b'{"username":"hunter2","password":5}',
        b'{"username":"a","password":{"hunter2":"hunter2"}}',
        b'{"username":"a","password":["hunter2"]}',
        b'{"hunter2":1,"hunter2":2}',
        b'{"password":"hunter2"}',
        b'{"username":"a","password":"hunter2',
        b"hunter2",
        b'{"username":"a","hunter2\x1b":"b","password":9}',
    ],
)
def test_a_refusal_never_quotes_the_body(body: bytes) -> None:
    with pytest.raises(MalformedBody) as refusal:
        decode_credentials(body)
    error = refusal.value
    assert "hunter2" not in f"{error} {error!r} {error.args}"
    assert str(error).isprintable()
    assert error.__cause__ is None


@each(
    "content_type",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b"application/json;charset=UTF-8",
        b'application/json; charset="utf-8"',
        b"application/json ; charset=utf-8",
        b"application/json; profile=x",
    ],
)
def test_json_in_utf_8_is_taken(content_type: bytes) -> None:
    check_json_content_type(ReadyRequest(headers={b"content-type": content_type}))


@each(
    "headers",
    [
        {},
        {b"content-type": b""},
        {b"content-type": b"text/plain"},
        {b"content-type": b"application/x-www-form-urlencoded"},
        {b"content-type": b"application/json5"},
        {b"content-type": b"application/jsonx"},
        {b"content-type": b"text/json"},
        {b"content-type": b"application/problem+json"},
        {b"content-type": b"application/json, text/plain"},
        {b"content-type": b"application/json; charset=utf-16"},
        {b"content-type": b"application/json; charset=latin-1"},
        {b"content-type": b"application/json; x=y; charset=utf-7"},
        {b"content-type": b"application/json", b"content-encoding": b"gzip"},
        {b"content-type": b"application/json", b"content-encoding": b"br, gzip"},
    ],
)
def test_another_media_type_charset_or_coding_is_refused(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(UnsupportedMediaType):
        check_json_content_type(ReadyRequest(headers=headers))
