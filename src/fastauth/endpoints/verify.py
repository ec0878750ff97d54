"""``/verify``: is this access token good? No I/O; made for nginx ``auth_request``, Traefik and Envoy ``ext_authz``."""

from fastauth.endpoints.errors import TokenMissing
from fastauth.endpoints.http import JSON, NO_STORE, Request, Response, header_value
from fastauth.endpoints.problems import INVALID_TOKEN
from fastauth.jose.claims import Claims
from fastauth.jose.refusals import TokenRefused
from fastauth.verifier import Verifier


class VerifyEndpoint:
    """Answers with the token's claims, and with headers that a proxy can pass on."""

    def __init__(self, verifier: Verifier) -> None:
        self._accept = verifier.accept

    def __call__(self, request: Request) -> Response:
        """Raises TokenMissing when no bearer token came; a refused token gets one and the same 401."""
        scheme, _, token = request.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            raise TokenMissing
        try:
            accepted = self._accept(token)
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
