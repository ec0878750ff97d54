"""Minting access tokens: RFC 9068 claims under a header that is built once, and one signature."""

from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec

from fastauth.domain.sessions import Session
from fastauth.jose import base64url
from fastauth.jose.algorithms import Algorithm
from fastauth.jose.claims import ACCESS_TOKEN_TYPE
from fastauth.jose.keys import SigningKey
from fastauth.jose.rotation import LONGEST_TOKEN_LIFE_S, NODE_SKEW_S

_ID_BYTES: Final = 16
_JITTER_BYTES: Final = 4
_FOLLOWED_WITHIN_S: Final = 2  # every worker has read a change of the ring by then

Seconds = Annotated[int, msgspec.Meta(ge=1, le=10 * 365 * 86_400)]


class TokenSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[tokens]``: what is issued, and for how long. Times in seconds."""

    alg: Algorithm = "RS256"
    access_ttl_s: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_TOKEN_LIFE_S)] = 3_600
    expiry_jitter_s: Annotated[int, msgspec.Meta(ge=0, le=LONGEST_TOKEN_LIFE_S - 1)] = 0
    """A token lives up to so much shorter, by chance, so that a crowd that came together does not return together."""
    refresh_idle_s: Seconds = 14 * 86_400
    refresh_max_s: Seconds = 90 * 86_400
    refresh_grace_s: Annotated[int, msgspec.Meta(ge=0, le=60)] = 10
    audience: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None
    user_scope: str = "user"
    jwks_max_age_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 300
    """How long others may keep the JWKS."""
    publish_ahead_s: Annotated[int, msgspec.Meta(ge=1, le=30 * 86_400)] | None = None
    """How long a new key is published before it signs; None: ``jwks_max_age_s`` and what clocks may differ by."""
    rotate_every_s: Annotated[int, msgspec.Meta(ge=3_600)] | Literal["off"] = 90 * 86_400

    @property
    def publishes_ahead_s(self) -> int:
        """``publish_ahead_s``, or its default."""
        return self.publish_ahead_s or self.jwks_max_age_s + NODE_SKEW_S + _FOLLOWED_WITHIN_S

    @property
    def rotation_period_s(self) -> int | None:
        """``rotate_every_s``, None for off."""
        return None if self.rotate_every_s == "off" else self.rotate_every_s


class _AccessTokenClaims(msgspec.Struct, kw_only=True, omit_defaults=True):
    """RFC 9068 section 2.2, and for a person ``sid``, ``auth_time`` and ``preferred_username``."""

    iss: str
    sub: str
    aud: str
    exp: int
    iat: int
    jti: str
    client_id: str
    scope: str | None = None
    sid: str | None = None
    auth_time: int | None = None
    preferred_username: str | None = None


_encode = msgspec.json.Encoder().encode


class IssuedToken(msgspec.Struct, frozen=True):
    """A token, and how long it lives."""

    text: str
    ttl_s: int

    def __repr__(self) -> str:  # the token never reaches a log or a traceback
        return f"IssuedToken(ttl_s={self.ttl_s})"


class Issuer:
    """Makes the tokens of one issuer with one key at a time. Safe to use from several threads."""

    def __init__(
        self,
        key: SigningKey,
        issuer: str,
        settings: TokenSettings,
        token_bytes: Callable[[int], bytes],
    ) -> None:
        """In: ``token_bytes`` gives that many random bytes (``secrets.token_bytes``)."""
        self._issuer = issuer
        self._audience = settings.audience or issuer
        self._token_bytes = token_bytes
        self._ttl_s = settings.access_ttl_s
        self._jitter_s = min(settings.expiry_jitter_s, settings.access_ttl_s - 1)
        self.use_key(key)

    def use_key(self, key: SigningKey) -> None:
        """Sign with this key from now on; a token that is being made keeps the one it began with."""
        header = {"alg": key.alg, "typ": ACCESS_TOKEN_TYPE, "kid": key.kid}
        self._signing = (base64url.encode(msgspec.json.encode(header)) + b".", key)

    @property
    def is_slow(self) -> bool:
        """Whether a signature takes so long that it belongs off the event loop."""
        return self._signing[1].alg == "RS256"

    def issue_user_token(self, session: Session, username: str, scope: str, now_s: int) -> IssuedToken:
        """An access token of a person's session, which it does not outlive.

        In: the session as it is stored now; ``scope`` of this token; ``now_s`` seconds since 1970 UTC. About 1 ms with
        RSA, the GIL released: call it off the event loop.
        """
        ttl_s = max(1, min(self._ttl_s - self._jitter(), session.tokens_until_s - now_s))
        return self._issue(
            _AccessTokenClaims(
                iss=self._issuer,
                sub=session.sub,
                aud=self._audience,
                exp=now_s + ttl_s,
                iat=now_s,
                jti=self._random_id(),
                client_id=session.client_id,
                scope=scope,
                sid=session.sid,
                auth_time=session.auth_time_s,
                preferred_username=username,
            ),
            ttl_s,
            session.claims,
        )

    def issue_client_token(self, client_id: str, scope: str | None, now_s: int) -> IssuedToken:
        """An access token of a client itself, whose ``sub`` it is too (RFC 9068 section 2.2). In: as above."""
        ttl_s = self._ttl_s - self._jitter()
        return self._issue(
            _AccessTokenClaims(
                iss=self._issuer,
                sub=client_id,
                aud=self._audience,
                exp=now_s + ttl_s,
                iat=now_s,
                jti=self._random_id(),
                client_id=client_id,
                scope=scope,
            ),
            ttl_s,
        )

    def _issue(self, claims: _AccessTokenClaims, ttl_s: int, more: bytes | None = None) -> IssuedToken:
        """In: further claims, a JSON object that is not empty and has none of ours."""
        header, key = self._signing
        payload = _encode(claims)
        if more is not None:
            payload = payload[:-1] + b"," + more[1:]
        signed = header + base64url.encode(payload)
        return IssuedToken((signed + b"." + base64url.encode(key.sign(signed))).decode(), ttl_s)

    def _jitter(self) -> int:
        if not self._jitter_s:
            return 0
        return int.from_bytes(self._token_bytes(_JITTER_BYTES)) % (self._jitter_s + 1)

    def _random_id(self) -> str:
        return base64url.encode(self._token_bytes(_ID_BYTES)).decode()
