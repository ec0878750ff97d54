"""The baseline: what most people would write in Python, PyJWT on granian, as good as they would make it.

``/validate`` checks an RS256 bearer token and returns its claims; ``/hello`` does nothing and shows what the HTTP
server alone can do, ``/form`` the same with a request body. The key is made at import; the token to send is printed by
``/token``.
"""

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

_PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_PUBLIC = _PRIVATE.public_key()
_ISSUER = "http://127.0.0.1"


def _token() -> str:
    now = int(time.time())
    claims = {"iss": _ISSUER, "sub": "somebody", "aud": _ISSUER, "iat": now, "exp": now + 3600, "scope": "user"}
    return jwt.encode(claims, _PRIVATE, algorithm="RS256")


def _validate(headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
    authorization = dict(headers).get(b"authorization", b"").decode()
    if not authorization.startswith("Bearer "):
        return 401, b'{"error":"missing token"}'
    try:
        claims = jwt.decode(authorization[7:], _PUBLIC, algorithms=["RS256"], audience=_ISSUER, issuer=_ISSUER)
    except jwt.InvalidTokenError as error:
        return 401, json.dumps({"error": str(error)}).encode()
    return 200, json.dumps(claims).encode()


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """A plain ASGI application."""
    if scope["path"] == "/validate":
        status, body = _validate(scope["headers"])
    elif scope["path"] == "/token":
        status, body = 200, _token().encode()
    elif scope["path"] == "/form":
        status, body = 200, b"%d" % len((await receive())["body"])
    else:
        status, body = 200, b"hello"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
