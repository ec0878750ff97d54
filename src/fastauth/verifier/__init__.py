"""``fastauth.Verifier``: validates access tokens without I/O, in the server and in every service that receives them."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastauth.jose.claims import Claims, check_access_claims
from fastauth.jose.jws import MAX_TOKEN_BYTES, JwsVerifier
from fastauth.jose.keys import VerifyingKey
from fastauth.jose.refusals import KeyRefused, TokenRefused

MAX_LEEWAY_S: Final = 60


class Verifier:
    """Verifies the access tokens of one issuer for one audience."""

    def __init__(
        self,
        keys: Mapping[str, Any],
        issuer: str,
        audience: str,
        leeway_s: int = 0,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """In: ``keys`` a JWKS (RFC 7517 section 5) as a dict; ``issuer`` and ``audience`` exactly as in the tokens;
        ``leeway_s`` seconds (0 to 60) that a token outlives its ``exp``; ``clock`` seconds since 1970 UTC.

        Keys that cannot verify these tokens are skipped. Raises KeyRefused when none is left or a ``kid`` stands
        twice, TypeError or ValueError for a leeway that is not whole or out of range.
        """
        self._configure(load_jwks(keys), issuer, audience, leeway_s, clock)

    @classmethod
    def from_keys(
        cls,
        keys: Mapping[str, VerifyingKey],
        issuer: str,
        audience: str,
        clock: Callable[[], float] = time.time,
    ) -> "Verifier":
        """A verifier over keys that are parsed already, for the server itself."""
        verifier = cls.__new__(cls)
        verifier._configure(keys, issuer, audience, 0, clock)
        return verifier

    def _configure(
        self,
        keys: Mapping[str, VerifyingKey],
        issuer: str,
        audience: str,
        leeway_s: int,
        clock: Callable[[], float],
    ) -> None:
        if type(leeway_s) is not int:
            raise TypeError("leeway_s must be whole seconds")
        if not 0 <= leeway_s <= MAX_LEEWAY_S:
            raise ValueError(f"leeway_s must be 0 to {MAX_LEEWAY_S}")
        self._jws = JwsVerifier(keys)
        self._issuer = issuer
        self._audience = audience
        self._leeway_s = leeway_s
        self._clock = clock

    def verify(self, token: str | bytes) -> Claims:
        """The claims of a valid access token. Raises TokenRefused (its ``code`` says why), or TypeError."""
        if isinstance(token, str):
            if len(token) > MAX_TOKEN_BYTES:  # before it is copied
                raise TokenRefused("too_large")
            if not token.isascii():
                raise TokenRefused("malformed")
            token = token.encode()
        elif type(token) is not bytes:
            raise TypeError("token must be str or bytes")
        jws = self._jws.verify(token)
        return check_access_claims(
            jws.typ,
            jws.payload,
            issuer=self._issuer,
            audience=self._audience,
            now_s=int(self._clock()),
            leeway_s=self._leeway_s,
        )


def load_jwks(jwks: Mapping[str, Any]) -> dict[str, VerifyingKey]:
    """The usable keys of a JWKS by ``kid``. Raises KeyRefused when none is usable or a ``kid`` stands twice."""
    if not isinstance(jwks, Mapping):
        raise KeyRefused("keys must be a JWKS as a dict; this version does not fetch one")
    entries = jwks.get("keys")
    if not isinstance(entries, list):
        raise KeyRefused("a JWKS is an object with a list named keys")
    keys: dict[str, VerifyingKey] = {}
    for entry in entries:
        try:
            key = VerifyingKey.from_jwk(entry if isinstance(entry, Mapping) else {})
        except KeyRefused:
            continue
        if key.kid in keys:
            raise KeyRefused("two keys have the same kid")
        keys[key.kid] = key
    if not keys:
        raise KeyRefused("the JWKS has no key that could verify these tokens")
    return keys
