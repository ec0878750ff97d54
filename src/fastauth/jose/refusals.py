"""Why a token or a key is refused. No message ever contains the token or the key."""

from typing import Literal, cast

from fastauth.domain.errors import FastauthError

TokenCode = Literal[
    "expired",
    "not_yet_valid",
    "signature",
    "algorithm",
    "key",
    "issuer",
    "audience",
    "type",
    "malformed",
    "too_large",
    "revoked",
]

_TOKEN_TEXTS: dict[TokenCode, str] = {
    "expired": "the token has expired",
    "not_yet_valid": "the token is not valid yet",
    "signature": "the signature does not match",
    "algorithm": "the algorithm is not the key's",
    "key": "the key is not known",
    "issuer": "the token was made by another issuer",
    "audience": "the token is for another audience",
    "type": "the token is of another type",
    "malformed": "not a well-formed token",
    "too_large": "the token is too large",
    "revoked": "the token has been revoked",
}


class TokenRefused(FastauthError):
    """A token that must not be accepted; the instance's ``code`` says why, for a program."""

    code = "token_refused"

    def __init__(self, code: TokenCode) -> None:
        super().__init__(_TOKEN_TEXTS[code])
        self.code = code

    def __reduce__(self) -> tuple[type["TokenRefused"], tuple[TokenCode]]:
        """It crosses to other processes (a pool's worker raises it)."""
        return TokenRefused, (cast("TokenCode", self.code),)


class KeyRefused(FastauthError):
    """A key that must not be used; the text says why."""

    code = "key_refused"


class KeysUnavailable(FastauthError):
    """The issuer's keys could not be fetched yet: a token can be neither accepted nor refused."""

    code = "keys_unavailable"
