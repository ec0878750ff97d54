"""Bearer tokens over HTTP without a framework: the header, the scopes, the challenges (RFC 6750).

Every adapter hands over the values of the Authorization fields, sends what ``BearerRefused`` says, and decides nothing.
"""

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final, Literal

import msgspec

from fastauth.jose.claims import Claims
from fastauth.jose.refusals import KeysUnavailable, TokenRefused
from fastauth.verifier import Verifier

PROBLEM_JSON: Final = "application/problem+json"
RETRY_AFTER_S: Final = 5

BearerCode = Literal["token_missing", "token_refused", "bad_request", "insufficient_scope", "keys_unavailable"]

# status, RFC 6750's error code, text. The texts stand in quoted-strings too: no quotes, no backslashes.
_ANSWERS: Final[dict[BearerCode, tuple[int, str | None, str]]] = {
    "token_missing": (401, None, "Send the access token as: Authorization: Bearer TOKEN."),
    "token_refused": (401, "invalid_token", "The access token is invalid."),
    "bad_request": (400, "invalid_request", "Send one Authorization header with one access token."),
    "insufficient_scope": (403, "insufficient_scope", "The access token does not allow this."),
    "keys_unavailable": (503, None, "Tokens cannot be checked right now; try again after the time in Retry-After."),
}
_QUOTABLE: Final = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class BearerRefused(Exception):
    """A request that must not pass, and the whole answer to it; nothing in it comes from the request.

    ``challenge`` is the value of WWW-Authenticate, None where there is nothing to authenticate. Why a token was
    refused is not the sender's business; for the log it is the ``code`` of ``__cause__``.
    """

    def __init__(self, code: BearerCode, realm: str, scopes: Sequence[str] = ()) -> None:
        self.status, error, detail = _ANSWERS[code]
        super().__init__(detail)
        self.code = code
        self.retry_after_s = RETRY_AFTER_S if self.status == 503 else None
        self.challenge = None if self.status == 503 else _challenge(realm, error, detail, scopes)

    @property
    def headers(self) -> dict[str, str]:
        """The header fields of the answer, but for those of its body."""
        headers = {"Cache-Control": "no-store"}
        if self.challenge is not None:
            headers["WWW-Authenticate"] = self.challenge
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        return headers

    @property
    def body(self) -> bytes:
        """The answer's body (RFC 9457), of type ``PROBLEM_JSON``."""
        title = HTTPStatus(self.status).phrase
        problem = {"type": "about:blank", "title": title, "status": self.status, "code": self.code, "detail": str(self)}
        return msgspec.json.encode(problem)


class Bearer:
    """Reads and judges the tokens of requests, for one verifier and one realm."""

    def __init__(self, verifier: Verifier, realm: str = "fastauth") -> None:
        """In: ``realm`` as it stands in every challenge. Raises ValueError for one that would need quoting."""
        if not _QUOTABLE.fullmatch(realm):
            raise ValueError("realm must be printable ASCII without quotes and backslashes")
        self._verifier = verifier
        self._realm = realm

    def find(self, values: Sequence[str]) -> Claims | None:
        """The claims of the request's token; None when it brings none.

        In: the values of all its Authorization fields. Raises BearerRefused: ``token_refused``, ``bad_request`` or
        ``keys_unavailable``.
        """
        token = self.read(values)
        try:
            return None if token is None else self._verifier.verify(token)
        except (TokenRefused, KeysUnavailable) as error:
            raise self._refusal(error) from error

    async def find_async(self, values: Sequence[str]) -> Claims | None:
        """The same for an event loop: it waits only while keys are fetched."""
        token = self.read(values)
        try:
            return None if token is None else await self._verifier.verify_async(token)
        except (TokenRefused, KeysUnavailable) as error:
            raise self._refusal(error) from error

    def require(self, claims: Claims | None, scopes: Sequence[str] = ()) -> Claims:
        """The same claims. Raises BearerRefused: ``token_missing`` for None, ``insufficient_scope`` unless the token
        has every one of ``scopes`` (those of ``as_scopes``)."""
        if claims is None:
            raise BearerRefused("token_missing", self._realm)
        if not scopes_of(claims).issuperset(scopes):
            raise BearerRefused("insufficient_scope", self._realm, scopes)
        return claims

    def read(self, values: Sequence[str]) -> str | None:
        """The bearer token in a request's Authorization fields (RFC 6750 section 2.1); None when there is none, or
        credentials of another scheme (RFC 9110 section 11.1: a scheme has no case).

        Raises BearerRefused: ``bad_request`` for two fields, also when a server has joined them with a comma, which no
        token has (two parties would each believe another), ``token_refused`` when it is not one word.
        """
        if len(values) > 1:
            raise BearerRefused("bad_request", self._realm)
        scheme, _, token = values[0].strip(" \t").partition(" ") if values else ("", "", "")
        if scheme.lower() != "bearer":
            return None
        token = token.lstrip(" ")
        if "," in token:
            raise BearerRefused("bad_request", self._realm)
        if not token or " " in token:  # any other character is the verifier's to judge
            raise BearerRefused("token_refused", self._realm)
        return token

    @property
    def plain_challenge(self) -> str:
        """WWW-Authenticate for a request that brought nothing."""
        return _challenge(self._realm)

    def _refusal(self, error: TokenRefused | KeysUnavailable) -> BearerRefused:
        code: BearerCode = "token_refused" if isinstance(error, TokenRefused) else "keys_unavailable"
        return BearerRefused(code, self._realm)


def as_scopes(scopes: str | Iterable[str]) -> tuple[str, ...]:
    """Scopes as a program configures them: a list of names, or one text with spaces as OAuth writes it.

    Raises ValueError for a name that RFC 6749 section 3.3 does not allow.
    """
    names = tuple(scopes.split(" ") if isinstance(scopes, str) else scopes)
    for name in names:
        if not _SCOPE_TOKEN.fullmatch(name):
            raise ValueError("a scope must be visible ASCII without spaces, quotes and backslashes")
    return names


def scopes_of(claims: Claims) -> frozenset[str]:
    """The scopes of a token as whole words."""
    return frozenset((claims.scope or "").split(" ")) - {""}


def _challenge(realm: str, error: str | None = None, detail: str = "", scopes: Sequence[str] = ()) -> str:
    challenge = f'Bearer realm="{realm}"'
    if error is not None:  # a request without any token is told no error (RFC 6750 section 3.1)
        challenge += f', error="{error}", error_description="{detail}"'
    return f'{challenge}, scope="{" ".join(scopes)}"' if scopes else challenge
