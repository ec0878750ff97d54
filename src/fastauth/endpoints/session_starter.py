"""How a login becomes a session."""

from collections.abc import Callable

from fastauth.domain.clients import BUILT_IN_CLIENT
from fastauth.domain.identity import Identity
from fastauth.domain.ports import SessionStore
from fastauth.domain.refresh_tokens import RefreshToken
from fastauth.domain.sessions import Session, SessionRules
from fastauth.domain.users import User
from fastauth.endpoints.http import Request


class SessionStarter:
    """Begins the sessions of the built-in public client."""

    def __init__(
        self, store: SessionStore, rules: SessionRules, default_scope: str, random_bytes: Callable[[int], bytes]
    ) -> None:
        """In: the scope of users without one of their own."""
        self._store = store
        self._rules = rules
        self._default_scope = default_scope
        self._random_bytes = random_bytes

    def begin(self, user: User, now_s: int, identity: Identity | None = None) -> tuple[Session, RefreshToken]:
        """A session that is not stored yet, and its first refresh token. In: what an external source says of him."""
        scope, claims = user.scope or self._default_scope, None
        if identity is not None:
            scope = " ".join(dict.fromkeys((*scope.split(), *identity.scopes)))
            claims = identity.claims
        return self._rules.begin(user.sub, BUILT_IN_CLIENT, scope, now_s, self._random_bytes, claims)

    async def save(self, session: Session, user: User, request: Request) -> bool:
        """False when the user is gone, disabled, or has another password since the row that was checked. In: the
        request of the login.

        Raises Unavailable.
        """
        del request  # for whoever stands in between, and traces it
        return await self._store.add(session, user.credential_generation)
