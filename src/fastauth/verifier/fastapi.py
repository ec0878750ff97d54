"""Bearer tokens for FastAPI: a dependency that gives the claims and stands in the OpenAPI document."""

try:
    from fastapi import HTTPException, WebSocketException
    from fastapi.openapi.models import HTTPBearer
    from fastapi.requests import HTTPConnection
    from fastapi.security import SecurityScopes
    from fastapi.security.base import SecurityBase
except ImportError as error:
    raise ImportError("fastauth.verifier.fastapi needs FastAPI: pip install fastapi") from error

from fastauth.jose.claims import Claims
from fastauth.verifier import Verifier
from fastauth.verifier.bearer import Bearer, BearerRefused, as_scopes

POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class BearerAuth(SecurityBase):
    """The dependency: ``Depends(auth)``, or ``Security(auth, scopes=["reports"])`` for tokens with these scopes."""

    def __init__(self, verifier: Verifier, *, realm: str = "fastauth", scheme_name: str = "fastauth") -> None:
        """In: ``scheme_name`` as in the OpenAPI document. Raises ValueError for a realm that no challenge can hold."""
        self.model = HTTPBearer(bearerFormat="JWT")
        self.scheme_name = scheme_name
        self._bearer = Bearer(verifier, realm)

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Claims:
        """The claims of the request's token. Raises HTTPException; for a WebSocket whose server cannot send such an
        answer WebSocketException, which becomes a 403."""
        try:
            claims = await self._bearer.find_async(connection.headers.getlist("authorization"))
            return self._bearer.require(claims, as_scopes(security_scopes.scopes))
        except BearerRefused as refusal:
            is_websocket = connection.scope["type"] == "websocket"
            if is_websocket and "websocket.http.response" not in (connection.scope.get("extensions") or {}):
                raise WebSocketException(POLICY_VIOLATION) from refusal
            raise HTTPException(refusal.status, str(refusal), refusal.headers) from refusal
