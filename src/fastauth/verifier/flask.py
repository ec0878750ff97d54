"""Bearer tokens for Flask: a decorator for views; the claims are in ``flask.g.claims``."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

try:
    from flask import Response, current_app, g, request
except ImportError as error:
    raise ImportError("fastauth.verifier.flask needs Flask: pip install flask") from error

from fastauth.verifier import Verifier
from fastauth.verifier.bearer import PROBLEM_JSON, Bearer, BearerRefused, as_scopes

P = ParamSpec("P")


def require_token(
    verifier: Verifier, *scopes: str, realm: str = "fastauth"
) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """A decorator, to stand below ``@app.route``: the view runs only for a good token that has all ``scopes``.

    Views may be coroutines (flask[async]). Raises ValueError for a scope or a realm that no challenge can hold.
    """
    bearer = Bearer(verifier, realm)
    wanted = as_scopes(scopes)

    def decorate(view: Callable[P, Any]) -> Callable[P, Any]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                g.claims = bearer.require(bearer.find(request.headers.getlist("Authorization")), wanted)
            except BearerRefused as refusal:
                return Response(refusal.body, refusal.status, refusal.headers, content_type=PROBLEM_JSON)
            return current_app.ensure_sync(view)(*args, **kwargs)

        return guarded

    return decorate
