"""The baseline: what most people would write in Python, PyJWT on granian, as good as they would make it.

``POST /auth`` checks a password and answers with an RS256 token, as the Go baseline does; ``/validate`` checks such a
bearer token and returns its claims; ``/hello`` does nothing and shows what the HTTP server alone can do, ``/form`` the
same with a request body. The key is made and parsed once, at import; ``/token`` prints a token to send.

What it deliberately does not do: it hashes, limits, stores and revokes nothing, and remembers no token.
"""

import hmac
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

_PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_PUBLIC = _PRIVATE.public_key()
_ISSUER = "http://127.0.0.1"
_USERS = {"admin": "correct horse battery staple"}
_MAX_BODY = 64 << 10
_Receive = Callable[[], Awaitable[dict[str, Any]]]


def _token(username: str = "somebody") -> str:
    now = int(time.time())
    claims = {"iss": _ISSUER, "sub": username, "aud": _ISSUER, "iat": now, "exp": now + 3600, "scope": "user"}
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


async def _auth(receive: _Receive) -> tuple[int, bytes]:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False) and len(body) <= _MAX_BODY
    try:
        login = json.loads(body) if len(body) <= _MAX_BODY else None
        username, password = login["username"], login["password"].encode()  # type: ignore[index]
        stored = _USERS.get(username)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return 400, b'{"error":"invalid request body"}'
    if stored is None or not hmac.compare_digest(stored.encode(), password):
        return 401, b'{"error":"invalid username or password"}'
    return 200, json.dumps({"token": _token(username)}).encode()


async def app(
    scope: dict[str, Any],
    receive: _Receive,
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """A plain ASGI application."""
    if scope["path"] == "/validate":
        status, body = _validate(scope["headers"])
    elif scope["path"] == "/auth" and scope["method"] == "POST":
        status, body = await _auth(receive)
    elif scope["path"] == "/token":
        status, body = 200, _token().encode()
    elif scope["path"] == "/form":
        status, body = 200, b"%d" % len((await receive())["body"])
    else:
        status, body = 200, b"hello"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
