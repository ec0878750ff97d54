"""The JSON scan: the compiled core answers exactly as its twin, and both agree with Python's own parser."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings

from fastauth import _core, _core_py
from tests.cases import each
from tests.twins.comparing import outcome
from tests.twins.strategies import (
    EXAMPLES,
    NAMES,
    ODD_VALUES,
    Choices,
    broken_json,
    built,
    json_soup,
    json_text,
    spelled,
)
from tests.vectors import json_test_suite

Scan = Callable[..., int]

OK, DUPLICATE, TOO_DEEP, TOO_MANY, MALFORMED = (
    _core_py.JSON_OK,
    _core_py.JSON_DUPLICATE,
    _core_py.JSON_TOO_DEEP,
    _core_py.JSON_TOO_MANY,
    _core_py.JSON_MALFORMED,
)
MAX_DEPTH, MAX_MEMBERS = _core_py.MAX_JSON_DEPTH, _core_py.MAX_JSON_MEMBERS

both = pytest.mark.parametrize("scan", [_core.scan_json, _core_py.scan_json], ids=["compiled", "twin"])

_DEPTHS = (MAX_DEPTH, MAX_DEPTH, 1, 2, 3, MAX_DEPTH - 1)
_MEMBERS = (MAX_MEMBERS, MAX_MEMBERS, 1, 2, 3, MAX_MEMBERS - 1)


def _arguments(choices: Choices) -> tuple[bytes, int, int]:
    """JSON, broken JSON, pieces of JSON or any bytes, with limits that are sometimes tight."""
    limits = choices.pick(_DEPTHS), choices.pick(_MEMBERS)
    match choices.below(4):
        case 0:
            return json_text(choices).encode("utf-8", "surrogatepass"), *limits
        case 1:
            return broken_json(choices), *limits
        case 2:
            return json_soup(choices), *limits
        case _:
            return bytes(choices.below(256) for _ in range(choices.below(40))), *limits


@settings(max_examples=EXAMPLES)
@given(built(_arguments, 64))
def test_the_compiled_scan_answers_exactly_as_the_twin(arguments: tuple[bytes, int, int]) -> None:
    assert outcome(_core.scan_json, *arguments) == outcome(_core_py.scan_json, *arguments)


@each("position", [1, 2])
def test_an_odd_limit_gets_the_same_answer_from_both(position: int) -> None:
    for value in (*ODD_VALUES, 64, 65, 512, 513):
        arguments: list[Any] = [b'{"a":[1]}', MAX_DEPTH, MAX_MEMBERS]
        arguments[position] = value
        assert outcome(_core.scan_json, *arguments) == outcome(_core_py.scan_json, *arguments)


@both
@each("data", ["{}", bytearray(b"{}"), memoryview(b"{}"), None, 5, ["{}"]])
def test_only_bytes_are_scanned(scan: Scan, data: Any) -> None:
    with pytest.raises(TypeError, match="data must be bytes"):
        scan(data)


@both
@each("limits", [(0, 1), (MAX_DEPTH + 1, 1), (1, 0), (1, MAX_MEMBERS + 1), (-1, 1), (1, -1)])
def test_a_limit_out_of_range_is_refused(scan: Scan, limits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is out of range"):
        scan(b"{}", *limits)


@both
@each(
    "document",
    [
        r'{"a":1,"a":2}',
        r'{"a":1,"\u0061":2}',
        r'{"\u00e9":1,"é":2}',
        r'{"\u00E9":1,"\u00e9":2}',
        r'{"😀":1,"\ud83d\ude00":2}',
        r'{"\n":1,"\u000a":2}',
        r'{"\/":1,"/":2}',
        r'{"\"":1,"\u0022":2}',
        r'{"\\":1,"\u005c":2}',
        r'{"":1,"":2}',
        r'{"\ud83d":1,"\uD83D":2}',
        r'[{"x":{"a":1,"b":{"a":1},"a":2}}]',
        r'{"a":{"b":1},"a":2}',
        r'{"a":[{"b":1},{"b":1}],"a":2}',
    ],
)
def test_a_name_that_stands_twice_is_found_in_whatever_spelling(scan: Scan, document: str) -> None:
    assert scan(document.encode()) == DUPLICATE


@both
def test_every_spelling_of_a_name_equals_every_other_and_no_other_name(scan: Scan) -> None:
    for first, second in itertools.product(NAMES, repeat=2):
        for style, other_style in itertools.product(range(4), repeat=2):
            document = f"{{{spelled(first, style)}:1,{spelled(second, other_style)}:2}}"
            expected = DUPLICATE if first == second else OK
            assert scan(document.encode()) == expected, document


@both
@each(
    "document",
    [
        r'{"a":1,"A":2}',
        r'{"a":{"a":{"a":1}}}',
        r'[{"a":1},{"a":1}]',
        r'{"a":"a","b":"a"}',
        r'{"a":"{\"a\":1,\"a\":2}"}',
        r'{"é":1,"e\u0301":2}',
        r'{"\\u0061":1,"a":2}',
        r'{"\ud83d":1,"\ude00":2,"😀":3}',
        r'{"a":["b","b",",","b"]}',
        r'["a","a"]',
        r'"a"',
        "1",
        "",
    ],
)
def test_names_that_only_seem_equal_are_not_refused(scan: Scan, document: str) -> None:
    assert scan(document.encode()) == OK


@both
@each(
    "document",
    [
        b"{",
        b"[",
        b"}",
        b"]",
        b"{]",
        b"[}",
        b'"',
        b'"\\',
        b'"\\u006',
        b'"\\u006g"',
        b'"\\x"',
        b'{"a":1}}',
        b'"\n"',
        b'"\x00"',
    ],
)
def test_unbalanced_brackets_and_broken_strings_are_malformed(scan: Scan, document: bytes) -> None:
    assert scan(document) == MALFORMED


@both
def test_depth_is_bounded_and_the_last_allowed_one_passes(scan: Scan) -> None:
    for depth in (1, 2, MAX_DEPTH):
        assert scan(b"[" * depth + b"]" * depth, depth) == OK
        assert scan(b'{"a":' * depth + b"1" + b"}" * depth, depth) == OK
        assert scan(b"[" * (depth + 1) + b"]" * (depth + 1), min(depth, MAX_DEPTH)) == TOO_DEEP
    assert scan(b"[]" * 1000, 1) == OK
    assert scan(b"[" * 100_000) == TOO_DEEP
    assert scan(b'[{"":' * 50_000) == TOO_DEEP


@both
def test_the_number_of_members_is_bounded_over_the_whole_document(scan: Scan) -> None:
    members = [b'"%d":1' % number for number in range(MAX_MEMBERS + 1)]
    assert scan(b"{" + b",".join(members[:-1]) + b"}") == OK
    assert scan(b"{" + b",".join(members) + b"}") == TOO_MANY
    assert scan(b"[" + b",".join([b'{"a":1}'] * 3) + b"]", MAX_DEPTH, 3) == OK
    assert scan(b"[" + b",".join([b'{"a":1}'] * 4) + b"]", MAX_DEPTH, 3) == TOO_MANY


class _DuplicateName(Exception):
    """Python's own parser met a name twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _DuplicateName
    return members


def _has_duplicate(text: str) -> bool:
    try:
        json.loads(text, object_pairs_hook=_unique)
    except _DuplicateName:
        return True
    return False


@both
@given(built(json_text, 48))
@example('{"a":1,"\\u0061":1}')
@example('{"a":1,"A":1}')
def test_the_scan_and_pythons_own_parser_agree_about_duplicates_in_valid_json(scan: Scan, text: str) -> None:
    expected = DUPLICATE if _has_duplicate(text) else OK
    assert scan(text.encode("utf-8", "surrogatepass")) == expected


@both
def test_every_valid_document_of_the_json_test_suite_passes_but_the_two_with_duplicates(scan: Scan) -> None:
    refused = {name: scan(data) for name, data in json_test_suite("y_") if scan(data) != OK}
    assert refused == {
        "y_object_duplicated_key.json": DUPLICATE,
        "y_object_duplicated_key_and_value.json": DUPLICATE,
    }


@each("kind", ["n_", "i_", "y_"])
def test_both_say_the_same_of_every_document_of_the_json_test_suite(kind: str) -> None:
    documents = json_test_suite(kind)
    assert len(documents) == {"n_": 188, "i_": 22, "y_": 95}[kind]
    for name, data in documents:
        assert _core.scan_json(data) == _core_py.scan_json(data), name
