"""The requests that every adapter must answer alike, and what RFC 6750 wants to hear."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from fastauth import Claims, Verifier
from fastauth.jose.keys import SigningKey
from fastauth.jose.refusals import KeysUnavailable
from tests.jose.making import AUDIENCE, ISSUER, NOW_S, claims_with, token_of


class Answer(NamedTuple):
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def challenge(self) -> str | None:
        """WWW-Authenticate."""
        return self.headers.get("www-authenticate")


Ask = Callable[[Sequence[str]], Answer]
"""Sends these Authorization fields to what wants the scope ``reports``."""


class Tokens:
    """Good ones and bad ones."""

    def __init__(self, key: SigningKey, other: SigningKey) -> None:
        self.good = token_of(key, payload=claims_with(scope="user reports")).decode()
        self.poor = token_of(key, payload=claims_with(scope="user reports:all my.reports")).decode()
        self.bare = token_of(key, payload=claims_with(scope=None)).decode()
        self.expired = token_of(key, payload=claims_with(scope="reports", exp=NOW_S - 1)).decode()
        body, _, signature = self.good.rpartition(".")
        self.forged = f"{body}.{token_of(other).decode().rpartition('.')[2]}"
        self.cut = f"{body}.{signature[:-4]}"


class DarkVerifier(Verifier):
    """One that never got its keys."""

    def __init__(self) -> None:
        pass

    def verify(self, token: str | bytes) -> Claims:
        raise KeysUnavailable("never fetched")

    async def verify_async(self, token: str | bytes) -> Claims:
        raise KeysUnavailable("never fetched")


def verifier_of(key: SigningKey) -> Verifier:
    """A verifier whose clock stands still."""
    return Verifier({"keys": [key.public_jwk]}, ISSUER, AUDIENCE, clock=lambda: NOW_S)


def check_good(ask: Ask, tokens: Tokens) -> None:
    """A good token passes however its scheme is written."""
    for scheme in ("Bearer ", "bearer ", "BEARER ", "bEaReR  "):
        assert ask([scheme + tokens.good]).status == 200, scheme


def check_refusals(ask: Ask, tokens: Tokens, realm: str = "fastauth") -> None:
    """Every refusal has the status and the challenge of RFC 6750 section 3.1, and says nothing of the request."""
    check_anonymous(ask, realm)
    check_invalid(ask, tokens, realm)
    check_doubled(ask, tokens, realm)
    check_insufficient(ask, tokens, realm)


def check_anonymous(ask: Ask, realm: str = "fastauth") -> None:
    """A request without a bearer token learns what is wanted, and no error."""
    for values in ([], ["Basic YWxhZGRpbjpvcGVu"], ["Bearerx abc"], [""]):
        answer = ask(values)
        assert (answer.status, answer.challenge) == (401, f'Bearer realm="{realm}"'), values


def check_invalid(ask: Ask, tokens: Tokens, realm: str = "fastauth") -> None:
    """All bad tokens get one and the same answer."""
    bad = ["", "x.y.z", tokens.expired, tokens.forged, tokens.cut, f"{tokens.good} {tokens.good}", "é\xff\xa0", "\xa0"]
    answers = {_silent(ask, [f"Bearer {token}"]) for token in bad}
    assert answers == {(401, _challenge(realm, "invalid_token", "The access token is invalid."))}


def check_doubled(ask: Ask, tokens: Tokens, realm: str = "fastauth") -> None:
    """Two fields are refused, whether the server hands on both or has joined them; none is picked."""
    refused = (400, _challenge(realm, "invalid_request", "Send one Authorization header with one access token."))
    field = f"Bearer {tokens.good}"
    for values in ([field, field], [field, "Basic abc"], [f"{field}, {field}"], [f"{field},{field}"]):
        assert _silent(ask, values) == refused
    assert ask(["Basic abc", field]).status in (400, 401)  # joined, it is one field of another scheme


def check_insufficient(ask: Ask, tokens: Tokens, realm: str = "fastauth") -> None:
    """Scopes count as whole words, and a token may have none."""
    challenge = _challenge(realm, "insufficient_scope", "The access token does not allow this.") + ', scope="reports"'
    for token in (tokens.poor, tokens.bare):
        assert _silent(ask, [f"Bearer {token}"]) == (403, challenge)


def check_unavailable(answer: Answer) -> None:
    """Without keys nothing is known of the token: 503, and when to ask again."""
    assert (answer.status, answer.challenge) == (503, None)
    assert int(answer.headers["retry-after"]) > 0


def _challenge(realm: str, error: str, text: str) -> str:
    return f'Bearer realm="{realm}", error="{error}", error_description="{text}"'


def _silent(ask: Ask, values: Sequence[str]) -> tuple[int, str | None]:
    answer = ask(values)
    said = "\n".join((*answer.headers.values(), answer.body))
    for word in _words(values):
        assert word not in said, "the answer quotes the request"
    return answer.status, answer.challenge


def _words(values: Sequence[str]) -> Iterator[str]:
    for value in values:
        yield from (part for word in value.split()[1:] for part in word.split(".") if len(part) > 8)
