"""A set of verifying keys as others publish it (RFC 7517 section 5): which of them can be used, and which is meant."""

from collections.abc import Mapping
from typing import Any, Final

from fastauth.jose.keys import VerifyingKey
from fastauth.jose.refusals import KeyRefused

_MOST_KEYS: Final = 256


class KeySet:
    """Immutable: the usable keys by ``kid``, and how many were passed over."""

    __slots__ = ("by_kid", "only", "skipped")

    def __init__(self, keys: Mapping[str, VerifyingKey], skipped: int = 0, only: VerifyingKey | None = None) -> None:
        """In: the keys by ``kid``; ``skipped`` keys that were of no use; ``only``: see ``find``."""
        self.by_kid = dict(keys)
        self.only = only
        self.skipped = skipped

    def find(self, kid: str | None) -> VerifyingKey | None:
        """The key that a token names. A token without ``kid``, or a key without one, is fine where there is no choice:
        in a set that says so by ``only``.
        """
        if kid is not None and (key := self.by_kid.get(kid)) is not None:
            return key
        if self.only is not None and (kid is None or self.only.kid is None):
            return self.only
        return None

    def holds(self, key: VerifyingKey) -> bool:
        """Whether the very same key is in here, under the same name."""
        mine = self.only if key.kid is None else self.by_kid.get(key.kid)
        return mine is not None and mine.thumbprint == key.thumbprint

    @classmethod
    def from_jwks(cls, jwks: Mapping[str, Any], *, needs_kid: bool = True) -> "KeySet":
        """The usable keys of a JWKS; keys of other kinds, for other uses, or unfit are passed over and counted.

        In: ``needs_kid`` False also takes a key without ``kid`` when it is the only one of the set.
        Raises KeyRefused when a ``kid`` stands twice, also among those passed over, or when no key is left.
        """
        entries = jwks.get("keys")
        if not isinstance(entries, list):
            raise KeyRefused("a JWKS is an object with a list named keys")
        if len(entries) > _MOST_KEYS:
            raise KeyRefused(f"a JWKS of more than {_MOST_KEYS} keys is not taken")
        _check_kids_differ(entries)
        keys = []
        for entry in entries:
            try:
                keys.append(VerifyingKey.from_jwk(entry if isinstance(entry, Mapping) else {}))
            except KeyRefused:
                continue
        named = {key.kid: key for key in keys if key.kid is not None}
        only = keys[0] if not needs_kid and len(entries) == 1 and keys else None
        if not named and only is None:
            raise KeyRefused("the JWKS has no key that could verify these tokens")
        return cls(named, len(entries) - len(named), only)

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> "KeySet":
        """The set of one key, which need not have a ``kid``. Raises KeyRefused when it is unfit."""
        key = VerifyingKey.from_jwk(jwk)
        return cls({} if key.kid is None else {key.kid: key}, only=key)


def _check_kids_differ(entries: list[Any]) -> None:
    kids = [entry["kid"] for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("kid"), str)]
    if len(set(kids)) != len(kids):
        raise KeyRefused("two keys have the same kid")
