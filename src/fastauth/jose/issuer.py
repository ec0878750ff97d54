"""Minting access tokens: RFC 9068 claims under a header that is built once, and one signature."""

from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec

from fastauth.domain.users import User
from fastauth.jose import base64url
from fastauth.jose.keys import SigningKey

ACCESS_TOKEN_TYPE: Final = "at+jwt"  # RFC 9068 section 2.1
BUILT_IN_CLIENT: Final = "fastauth"  # the public client to which /auth sessions belong
_ID_BYTES: Final = 16

Seconds = Annotated[int, msgspec.Meta(ge=1, le=10 * 365 * 86_400)]


class TokenSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[tokens]``: what is issued, and for how long. Times in seconds."""

    alg: Literal["RS256", "ES256", "Ed25519"] = "RS256"
    access_ttl_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 3_600
    refresh_idle_s: Seconds = 14 * 86_400
    refresh_max_s: Seconds = 90 * 86_400
    refresh_grace_s: Annotated[int, msgspec.Meta(ge=0, le=60)] = 10
    audience: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None
    user_scope: str = "user"


class _AccessTokenClaims(msgspec.Struct, kw_only=True):
    """RFC 9068 section 2.2, and for a person ``sid``, ``auth_time`` and ``preferred_username``."""

    iss: str
    sub: str
    aud: str
    exp: int
    iat: int
    jti: str
    client_id: str
    scope: str
    sid: str
    auth_time: int
    preferred_username: str


class Issuer:
    """Makes the tokens of one issuer with one key. Safe to use from several threads."""

    def __init__(
        self,
        key: SigningKey,
        issuer: str,
        settings: TokenSettings,
        token_bytes: Callable[[int], bytes],
    ) -> None:
        """In: ``token_bytes`` gives that many random bytes (``secrets.token_bytes``)."""
        self._key = key
        self._issuer = issuer
        self._audience = settings.audience or issuer
        self._user_scope = settings.user_scope
        self._token_bytes = token_bytes
        self.ttl_s = settings.access_ttl_s
        header = {"alg": key.alg, "typ": ACCESS_TOKEN_TYPE, "kid": key.kid}
        self._header = base64url.encode(msgspec.json.encode(header)) + b"."

    def issue_user_token(self, user: User, now_s: int) -> str:
        """An access token for a person who has just logged in.

        In: ``now_s`` seconds since 1970 UTC. About 1 ms, with the GIL released: call it off the event loop.
        """
        claims = _AccessTokenClaims(
            iss=self._issuer,
            sub=user.sub,
            aud=self._audience,
            exp=now_s + self.ttl_s,
            iat=now_s,
            jti=self._random_id(),
            client_id=BUILT_IN_CLIENT,
            scope=user.scope or self._user_scope,
            sid=self._random_id(),
            auth_time=now_s,
            preferred_username=user.name,
        )
        signed = self._header + base64url.encode(msgspec.json.encode(claims))
        return (signed + b"." + base64url.encode(self._key.sign(signed))).decode()

    def _random_id(self) -> str:
        return base64url.encode(self._token_bytes(_ID_BYTES)).decode()
