"""Scopes as RFC 6749 writes them, and what may be asked for of what is granted."""

import pytest

from fastauth.domain.errors import InvalidScope, ScopeRefused
from fastauth.domain.scopes import check_scope, narrowed
from tests.cases import each


@each("scope", ["a", "user", "a b", "user:read user:write", "!#[]~", "https://api.example/x", "a" * 1024])
def test_a_scope_as_rfc_6749_writes_it_is_taken_unchanged(scope: str) -> None:
    assert check_scope(scope) == scope


@each(
    "scope",
    ["", " ", " a", "a ", "a  b", "a\tb", "a\nb", "a\n", 'a"b', "a\\b", "é", "a\x00", "a\x7f", "a\u00a0b", "a" * 1025],
)
def test_any_other_scope_is_refused_without_being_repeated(scope: str) -> None:
    with pytest.raises(ScopeRefused) as refusal:
        check_scope(scope)
    assert len(scope) < 4 or scope not in str(refusal.value)


@each(
    ("granted", "wanted", "scope"),
    [
        ("a b", None, "a b"),
        ("a b", "a b", "a b"),
        ("a b", "b a", "b a"),
        ("a b", "b", "b"),
        ("a b", "b b b", "b"),
        (None, None, None),
    ],
)
def test_a_scope_may_be_narrowed(granted: str | None, wanted: str | None, scope: str | None) -> None:
    assert narrowed(granted, wanted) == scope


@each(
    ("granted", "wanted"),
    [("a b", "c"), ("a b", "a c"), ("a b", "A"), ("ab", "a"), (None, "a"), ("a b", " a"), ("a b", "a  b"), ("a", "é")],
)
def test_a_scope_is_never_widened(granted: str | None, wanted: str) -> None:
    with pytest.raises(InvalidScope) as refusal:
        narrowed(granted, wanted)
    assert wanted not in str(refusal.value).split()
