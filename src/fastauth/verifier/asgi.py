"""Bearer tokens for any ASGI application: a middleware without a framework."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from fastauth.verifier import Verifier
from fastauth.verifier.bearer import PROBLEM_JSON, Bearer, BearerRefused, as_scopes

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CLAIMS: Final = "fastauth.claims"
_DENIAL: Final = "websocket.http.response"


class BearerMiddleware:
    """Lets through what brings a good token with the scopes wanted; its claims are in ``scope["fastauth.claims"]``.

    Bodies and answers pass untouched, in both directions. A WebSocket is refused before it is accepted: with the same
    answer where the server can send one, with a plain 403 where not.
    """

    def __init__(
        self,
        app: App,
        verifier: Verifier,
        *,
        scopes: str | Iterable[str] = (),
        realm: str = "fastauth",
        exclude: Iterable[str] = (),
    ) -> None:
        """In: ``exclude`` the exact paths that need no token: there none is looked at and the claims are None.

        Raises ValueError for a scope or a realm that does not fit into a challenge, TypeError for one path in place of
        several, ValueError for a path that does not begin with a slash.
        """
        self._app = app
        self._bearer = Bearer(verifier, realm)
        self._scopes = as_scopes(scopes)
        if isinstance(exclude, str | bytes):  # its letters would be taken for paths, and "/" be public
            raise TypeError('exclude is a list of paths: ["/health"]')
        self._exclude = frozenset(exclude)
        if not all(path.startswith("/") for path in self._exclude):
            raise ValueError("a path of exclude begins with a slash")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises NotImplementedError for a kind of connection that ASGI did not have when this was written."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] not in ("http", "websocket"):
            raise NotImplementedError(f"cannot check tokens of {scope['type']}")
        claims = None
        if scope["path"] not in self._exclude:
            values = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"authorization"]
            try:
                claims = self._bearer.require(await self._bearer.find_async(values), self._scopes)
            except BearerRefused as refusal:
                return await _refuse(refusal, scope, receive, send)
        return await self._app({**scope, CLAIMS: claims}, receive, send)


async def _refuse(refusal: BearerRefused, scope: Scope, receive: Receive, send: Send) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if _DENIAL not in (scope.get("extensions") or {}):
            return await send({"type": "websocket.close"})  # before an accept: the server answers 403
        kind = _DENIAL
    body = refusal.body
    fields = {**refusal.headers, "Content-Type": PROBLEM_JSON, "Content-Length": str(len(body))}
    headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
    return None
