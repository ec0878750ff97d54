"""``fastauth.Verifier``: validates access tokens without I/O, in the server and in every service that receives them."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from fastauth import core
from fastauth.jose.claims import MAX_LEEWAY_S, Claims, check_access_claims
from fastauth.jose.jws import MAX_TOKEN_BYTES, JwsVerifier, token_bytes
from fastauth.jose.keys import VerifyingKey
from fastauth.jose.keyset import KeySet
from fastauth.jose.refusals import KeyRefused, KeysUnavailable, TokenRefused
from fastauth.verifier.jwks_client import JwksClient
from fastauth.verifier.revocations import Revocations

SEEN_TOKENS_BYTES: Final = 16 * 1024 * 1024
# What an entry of the cache occupies beside the token and its payload: objects, strings, the answer of /verify.
_ENTRY_BYTES: Final = 1_280
_AUDIENCE_BYTES: Final = 64


class Accepted(msgspec.Struct, weakref=False, gc=False):
    """A token that was accepted: its immutable claims, its key, and room for an answer made from the claims."""

    claims: Claims
    key: VerifyingKey
    answer: Any = None


class Verifier:
    """Verifies the access tokens of one issuer for one audience. Safe to use from several threads.

    A token that was accepted is remembered by its bytes (bounded: ``SEEN_TOKENS_BYTES``); each time it comes again its
    expiry, its key and what has been revoked are looked at anew, and only the signature is not.
    """

    def __init__(
        self,
        keys: Mapping[str, Any] | str,
        issuer: str,
        audience: str,
        leeway_s: int = 0,
        *,
        revocations: Revocations | None = None,
        cache_bytes: int = SEEN_TOKENS_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """In: ``keys`` a JWKS (RFC 7517 section 5) as a dict, or its URL: https, or http to this machine; ``issuer``
        and ``audience`` exactly as in the tokens; ``leeway_s`` seconds (0 to 60) that a token outlives its ``exp``;
        ``revocations`` that are asked at every verification; ``cache_bytes`` for tokens that were accepted (0: none is
        remembered); ``clock`` seconds since 1970 UTC.

        Keys that cannot verify these tokens are skipped. From a URL nothing is fetched yet: the first verification
        does, then a background thread before the issuer's max-age is over.
        Raises KeyRefused when no key is left, a ``kid`` stands twice or the URL cannot be used; TypeError or ValueError
        for a leeway or cache that is not whole or out of range, an issuer or audience that is no text.
        """
        if isinstance(keys, str):
            self._source: JwksClient | None = JwksClient(keys, self.use_keys)
            key_set = KeySet({})
        elif isinstance(keys, Mapping):
            self._source = None
            key_set = KeySet.from_jwks(keys)
        else:
            raise KeyRefused("keys must be a JWKS as a dict, or the URL of one")
        self._configure(key_set, issuer, audience, leeway_s, revocations, cache_bytes, clock)

    @classmethod
    def from_keys(
        cls,
        keys: KeySet,
        issuer: str,
        audience: str,
        *,
        revocations: Revocations | None = None,
        clock: Callable[[], float] = time.time,
    ) -> "Verifier":
        """A verifier over keys that are parsed already, for the server itself."""
        verifier = cls.__new__(cls)
        verifier._source = None
        verifier._configure(keys, issuer, audience, 0, revocations, SEEN_TOKENS_BYTES, clock)
        return verifier

    def _configure(
        self,
        keys: KeySet,
        issuer: str,
        audience: str,
        leeway_s: int,
        revocations: Revocations | None,
        cache_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        if type(leeway_s) is not int:
            raise TypeError("leeway_s must be whole seconds")
        if not 0 <= leeway_s <= MAX_LEEWAY_S:
            raise ValueError(f"leeway_s must be 0 to {MAX_LEEWAY_S}")
        if type(issuer) is not str or type(audience) is not str:
            raise TypeError("issuer and audience must be str")
        if not issuer or not audience:
            raise ValueError("issuer and audience must not be empty")
        self._jws = JwsVerifier(keys)
        self._issuer = issuer
        self._audience = audience
        self._leeway_s = leeway_s
        self._clock = clock
        self._revocations = Revocations() if revocations is None else revocations
        self.checked = 0
        """How many tokens were looked at whole: the cache of good ones did not hold them."""
        self._seen = core.SeenTokens(cache_bytes, self._is_still_good)
        self._revocations.watch(self._look_again)

    def use_keys(self, keys: KeySet) -> None:
        """Verify with these keys from now on; a token of a key that is gone is refused at once."""
        self._jws = JwsVerifier(keys)
        self._look_again()

    def _look_again(self) -> None:
        self._seen.invalidate()

    @property
    def keys(self) -> KeySet:
        """The keys in use now; ``.skipped`` counts those of the JWKS that were passed over."""
        return self._jws.keys

    def verify(self, token: str | bytes) -> Claims:
        """The claims of a valid access token. With keys from a URL it waits when they have to be fetched first.

        Raises TokenRefused (its ``code`` says why), KeysUnavailable when no keys could be fetched yet, or TypeError.
        """
        source = self._source
        if source is None:
            return self.accept(token).claims
        if source.must_wait():
            self._jws.check_shape(token_bytes(token))  # nobody waits for what no key could make good
            source.fetch()
        asked = self._jws
        try:
            return self._accept_fetched(source, token).claims
        except TokenRefused as refusal:
            if not self._is_worth_a_fetch(source, asked, token, refusal):
                raise
        source.fetch()
        return self._accept_fetched(source, token).claims

    async def verify_async(self, token: str | bytes) -> Claims:
        """As ``verify``, but the event loop goes on while keys are fetched. It waits for nothing else."""
        source = self._source
        if source is None:
            return self.accept(token).claims
        if source.must_wait():
            self._jws.check_shape(token_bytes(token))
            await source.fetch_async()
        asked = self._jws
        try:
            return self._accept_fetched(source, token).claims
        except TokenRefused as refusal:
            if not self._is_worth_a_fetch(source, asked, token, refusal):
                raise
        await source.fetch_async()
        return self._accept_fetched(source, token).claims

    def _is_worth_a_fetch(
        self, source: JwksClient, asked: JwsVerifier, token: str | bytes, refusal: TokenRefused
    ) -> bool:
        """Whether others have brought newer keys meanwhile, or the token names a key that may be fetched."""
        if refusal.code != "key" or not asked.is_of_unknown_key(token_bytes(token)):
            return False
        return asked is not self._jws or source.may_fetch()

    def _accept_fetched(self, source: JwksClient, token: str | bytes) -> Accepted:
        if not source.has_keys:
            raise KeysUnavailable(source.last_error or "the JWKS has not been fetched yet")
        return self.accept(token)

    def accept(self, token: str | bytes) -> Accepted:
        """As ``verify``, without ever fetching; what it gives is remembered with the token. Raises TokenRefused."""
        data = token if type(token) is bytes and len(token) <= MAX_TOKEN_BYTES else token_bytes(token)
        now_s = int(self._clock())
        accepted: Accepted | None = self._seen.get(data, now_s)
        return self._accept_unseen(data, now_s) if accepted is None else accepted

    def _accept_unseen(self, token: bytes, now_s: int) -> Accepted:
        self.checked += 1
        epoch = self._seen.epoch  # before anything is looked at: what changes meanwhile is asked about again
        key, typ, payload = self._jws.verify(token)
        claims = check_access_claims(typ, payload, self._issuer, self._audience, now_s, self._leeway_s)
        if self._revocations.is_revoked(claims):
            raise TokenRefused("revoked")
        accepted = Accepted(claims, key)
        self._seen.put(token, accepted, claims.sub, claims.exp + self._leeway_s, _size(token, claims), epoch, now_s)
        return accepted

    def _is_still_good(self, accepted: Accepted) -> bool:
        return self._jws.keys.holds(accepted.key) and not self._revocations.is_revoked(accepted.claims)


def _size(token: bytes, claims: Claims) -> int:
    """What an accepted token occupies at most, with its claims and the answer of ``/verify``.

    The payload and its texts take its length each, but one wide character makes four bytes of every other of its text;
    in a header every character of subject and scope may become ``%XX``.
    """
    payload = claims.payload
    texts = 1 if payload.isascii() and b"\\" not in payload else 7
    headers = 3 * (len(claims.sub) + len(claims.scope or ""))
    return _ENTRY_BYTES + len(token) + (1 + texts) * len(payload) + headers + _AUDIENCE_BYTES * len(claims.aud)
