"""``/verify``: is this access token good? No I/O; made for nginx ``auth_request``, Traefik and Envoy ``ext_authz``."""

from collections.abc import Awaitable
from typing import Final

import msgspec

from fastauth.core import Decision
from fastauth.endpoints.bearer import bearer_token
from fastauth.endpoints.http import JSON, NO_STORE, Request, Response, header_value
from fastauth.endpoints.openapi import Operation
from fastauth.endpoints.problems import INVALID_TOKEN
from fastauth.endpoints.rate_limit import AddressLimit
from fastauth.jose.claims import Claims
from fastauth.jose.refusals import TokenRefused
from fastauth.verifier import Verifier


class VerifiedClaims(msgspec.Struct, omit_defaults=True):
    """The claims as they were signed (RFC 9068 section 2.2)."""

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


OPERATION: Final = Operation(
    summary="Is this access token good? Any method, for proxies that ask before they pass a request on",
    answers={200: VerifiedClaims},
    problems=(401, 429),
    security="bearer",
)


class VerifyEndpoint:
    """Answers with the token's claims, and with headers that a proxy can pass on."""

    def __init__(self, verifier: Verifier, per_address: AddressLimit | None) -> None:
        self._accept = verifier.accept
        self._per_address = per_address

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        """A refused token gets one and the same 401. Raises TokenMissing when none came, BearerTwice for two.

        Waits for nothing, but for Redis now and then where a limit is shared through it. Raises RateLimited.
        """
        if self._per_address is not None:
            decision = self._per_address.take(request)
            if not isinstance(decision, Decision):
                return self._verify_later(request, self._per_address, decision)
            self._per_address.judge(request, decision)
        return self._verify(request)

    async def _verify_later(
        self, request: Request, per_address: AddressLimit, decision: Awaitable[Decision]
    ) -> Response:
        per_address.judge(request, await decision)
        return self._verify(request)

    def _verify(self, request: Request) -> Response:
        try:
            accepted = self._accept(bearer_token(request))
        except TokenRefused:
            return INVALID_TOKEN
        answer: Response | None = accepted.answer
        if answer is None:  # made once a token, then kept beside its claims
            answer = accepted.answer = _answer(accepted.claims)
        return answer


def _answer(claims: Claims) -> Response:
    headers = (
        JSON,
        NO_STORE,
        (b"x-auth-subject", header_value(claims.sub)),
        (b"x-auth-scope", header_value(claims.scope or "")),
    )
    return Response(200, headers, claims.payload)
