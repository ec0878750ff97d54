"""Scopes: what a token is good for (RFC 6749 section 3.3)."""

import re
from typing import Final

from fastauth.domain.errors import InvalidScope, ScopeRefused

MAX_SCOPE_LENGTH: Final = 1_024
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")


def check_scope(scope: str) -> str:
    """A scope as RFC 6749 section 3.3 writes it: tokens parted by single spaces. Raises ScopeRefused."""
    if len(scope) > MAX_SCOPE_LENGTH or not _SCOPE.fullmatch(scope):
        raise ScopeRefused("a scope is words of printable ASCII without quotes, parted by single spaces")
    return scope


def narrowed(granted: str | None, wanted: str | None) -> str | None:
    """The scope of a token. In: what may be granted, and what was asked for (None: all that may be).

    Raises InvalidScope for a scope that is malformed or goes beyond what may be granted (RFC 6749 section 6).
    """
    if wanted is None or wanted == granted:
        return granted
    if len(wanted) > MAX_SCOPE_LENGTH or not _SCOPE.fullmatch(wanted):
        raise InvalidScope("the scope is malformed")
    words = dict.fromkeys(wanted.split(" "))
    if not words.keys() <= set((granted or "").split(" ")):
        raise InvalidScope("the scope goes beyond what may be granted")
    return " ".join(words)
