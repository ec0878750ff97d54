"""Bearer tokens for Starlette's AuthenticationMiddleware: ``request.user`` and ``request.auth``."""

try:
    from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
    from starlette.requests import HTTPConnection
    from starlette.responses import PlainTextResponse, Response
except ImportError as error:
    raise ImportError("fastauth.verifier.starlette needs Starlette: pip install starlette") from error

from fastauth.jose.claims import Claims
from fastauth.verifier import Verifier
from fastauth.verifier.bearer import PROBLEM_JSON, Bearer, BearerRefused, scopes_of


class TokenUser(BaseUser):
    """Whom a token speaks of."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims

    @property
    def is_authenticated(self) -> bool:
        """Always: nobody else has one."""
        return True

    @property
    def identity(self) -> str:
        """The token's ``sub``."""
        return self.claims.sub

    @property
    def display_name(self) -> str:
        """``preferred_username`` where the token has one, else the ``sub``."""
        members = self.claims
        return str(members["preferred_username"]) if "preferred_username" in members else members.sub


class BearerBackend(AuthenticationBackend):
    """For ``AuthenticationMiddleware(app, backend=BearerBackend(verifier), on_error=on_error)``.

    A request without a token is anonymous; ``@requires`` judges it. A good token gives its scopes, and
    ``authenticated`` as is the custom with Starlette.
    """

    def __init__(self, verifier: Verifier, *, realm: str = "fastauth") -> None:
        """Raises ValueError for a realm that does not fit into a challenge."""
        self._bearer = Bearer(verifier, realm)

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Raises AuthenticationError, whose cause is the answer that ``on_error`` gives."""
        try:
            claims = await self._bearer.find_async(conn.headers.getlist("authorization"))
        except BearerRefused as refusal:
            raise AuthenticationError(str(refusal)) from refusal
        if claims is None:
            return None
        return AuthCredentials(["authenticated", *sorted(scopes_of(claims))]), TokenUser(claims)


def on_error(conn: HTTPConnection, error: Exception) -> Response:
    """The answer to an AuthenticationError: what RFC 6750 says, or for another backend's error Starlette's own."""
    refusal = error.__cause__
    if not isinstance(refusal, BearerRefused):
        return PlainTextResponse(str(error), 400)
    return Response(refusal.body, refusal.status, refusal.headers, PROBLEM_JSON)
