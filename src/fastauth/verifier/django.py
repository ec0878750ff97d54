"""Bearer tokens for Django: a middleware for ``request.claims``, decorators for views, both sync and async.

settings.py::

    AUTH = "https://auth.example"
    FASTAUTH = {"KEYS": f"{AUTH}/.well-known/jwks.json", "ISSUER": AUTH, "AUDIENCE": "https://api.example"}
    MIDDLEWARE = [..., "fastauth.verifier.django.BearerMiddleware"]

``LEEWAY_S`` and ``REALM`` may be added; ``VERIFIER`` with a Verifier takes the place of all but ``REALM``.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

try:
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured
    from django.core.signals import setting_changed
    from django.http import HttpRequest, HttpResponse
except ImportError as error:
    raise ImportError("fastauth.verifier.django needs Django: pip install django") from error

from fastauth.verifier import Verifier
from fastauth.verifier.bearer import PROBLEM_JSON, Bearer, BearerRefused, as_scopes

View = Callable[..., Any]


@cache
def project_bearer() -> Bearer:
    """The one of this project, so that keys are fetched once. Raises ImproperlyConfigured."""
    options = getattr(settings, "FASTAUTH", {})
    try:
        verifier = options.get("VERIFIER") or Verifier(
            options["KEYS"], options["ISSUER"], options["AUDIENCE"], options.get("LEEWAY_S", 0)
        )
        return Bearer(verifier, options.get("REALM", "fastauth"))
    except KeyError as error:
        raise ImproperlyConfigured(f"settings.FASTAUTH has no {error}") from None


def header_values(request: HttpRequest) -> list[str]:
    """The Authorization fields; a server that got several has joined them by commas."""
    value = request.META.get("HTTP_AUTHORIZATION")
    return [] if value is None else [value]


def refuse(refusal: BearerRefused) -> HttpResponse:
    """The answer as Django sends it."""
    return HttpResponse(refusal.body, status=refusal.status, headers=refusal.headers, content_type=PROBLEM_JSON)


class BearerMiddleware:
    """Sets ``request.claims``: the claims of a good token, None without a token. A bad token is refused here."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: View) -> None:
        """Raises ImproperlyConfigured."""
        self._get_response = get_response
        self._bearer = project_bearer()
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self._is_async:
            return self._call_async(request)
        try:
            request.claims = self._bearer.find(header_values(request))
        except BearerRefused as refusal:
            return refuse(refusal)
        return self._get_response(request)

    async def _call_async(self, request: HttpRequest) -> HttpResponse:
        try:
            request.claims = await self._bearer.find_async(header_values(request))
        except BearerRefused as refusal:
            return refuse(refusal)
        return await self._get_response(request)


def require_scope(*scopes: str) -> Callable[[View], View]:
    """A decorator: the view runs only for a good token that has all ``scopes``.

    Raises ValueError for a scope that no challenge can hold; the view ImproperlyConfigured without the middleware.
    """
    wanted = as_scopes(scopes)

    def refusal_of(request: HttpRequest) -> HttpResponse | None:
        if not hasattr(request, "claims"):
            raise ImproperlyConfigured("MIDDLEWARE has no fastauth.verifier.django.BearerMiddleware")
        try:
            project_bearer().require(request.claims, wanted)
        except BearerRefused as refusal:
            return refuse(refusal)
        return None

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            refused = refusal_of(request)
            return view(request, *args, **kwargs) if refused is None else refused

        @wraps(view)
        async def guarded_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            refused = refusal_of(request)
            return await view(request, *args, **kwargs) if refused is None else refused

        return guarded_async if iscoroutinefunction(view) else guarded

    return decorate


def require_token(view: View) -> View:
    """A decorator: the view runs only for a good token, whatever its scopes."""
    return require_scope()(view)


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "FASTAUTH":
        project_bearer.cache_clear()


setting_changed.connect(_forget)  # for tests that override settings
