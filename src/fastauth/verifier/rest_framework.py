"""Bearer tokens for Django REST framework: ``request.user`` and ``request.auth``; settings as in ``django.py``."""

from collections.abc import Sequence
from typing import Any

try:
    from rest_framework.authentication import BaseAuthentication
    from rest_framework.exceptions import APIException, AuthenticationFailed, PermissionDenied
    from rest_framework.permissions import BasePermission
    from rest_framework.request import Request
except ImportError as error:
    raise ImportError(
        "fastauth.verifier.rest_framework needs Django REST framework: pip install djangorestframework"
    ) from error

from fastauth.jose.claims import Claims
from fastauth.verifier.bearer import BearerRefused, as_scopes
from fastauth.verifier.django import header_values, project_bearer


class TokenUser:
    """Whom a token speaks of; not a row of the database."""

    is_authenticated = True
    is_anonymous = False
    is_active = True
    is_staff = False
    is_superuser = False

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.pk = self.id = claims.sub

    def __str__(self) -> str:
        return str(self.pk)


class BearerAuthentication(BaseAuthentication):  # type: ignore[misc]
    """``request.auth`` are the claims, ``request.user`` is what ``user_of`` makes of them."""

    def user_of(self, claims: Claims) -> Any:
        """The user of a good token; override it to look one up. May raise AuthenticationFailed."""
        return TokenUser(claims)

    def authenticate(self, request: Request) -> tuple[Any, Claims] | None:
        """None without a token. Raises AuthenticationFailed, or APIException with status 400 or 503."""
        try:
            claims = project_bearer().find(header_values(request))
        except BearerRefused as refusal:
            request.fastauth_challenge = refusal.challenge
            raise _as_exception(refusal) from refusal
        return None if claims is None else (self.user_of(claims), claims)

    def authenticate_header(self, request: Request) -> str:
        """The challenge of a 401: REST framework asks for it after the refusal, and of another instance."""
        return getattr(request, "fastauth_challenge", None) or project_bearer().plain_challenge


class HasScope(BasePermission):  # type: ignore[misc]
    """Allows tokens that have all scopes: ``permission_classes = [HasScope.of("reports")]``; alone, any good token.

    It raises rather than say no, or the answer could not name the scope: in ``IsAdminUser | HasScope`` it stands last.
    """

    scopes: Sequence[str] = ()

    @classmethod
    def of(cls, *scopes: str) -> type["HasScope"]:
        """The permission for these scopes. Raises ValueError for one that no challenge can hold."""
        return type(cls.__name__, (cls,), {"scopes": as_scopes(scopes)})

    def has_permission(self, request: Request, view: Any) -> bool:
        """False without a token. Raises PermissionDenied, which carries RFC 6750's challenge."""
        if not isinstance(request.auth, Claims):
            return False
        try:
            project_bearer().require(request.auth, self.scopes)
        except BearerRefused as refusal:
            raise _as_exception(refusal) from refusal
        return True


def _as_exception(refusal: BearerRefused) -> APIException:
    kind = {401: AuthenticationFailed, 403: PermissionDenied}.get(refusal.status, APIException)
    exception = kind(str(refusal), refusal.code)
    exception.status_code = refusal.status
    # REST framework's handler makes WWW-Authenticate and Retry-After of these two
    exception.auth_header = refusal.challenge
    exception.wait = refusal.retry_after_s
    return exception
