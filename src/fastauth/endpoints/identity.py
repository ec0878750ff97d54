"""Who is asked whether a password is right, in which order, and whose account here that makes it."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from fastauth.domain.errors import Conflict, Unavailable
from fastauth.domain.identity import LOCAL, Identity, Route, Verdict
from fastauth.domain.users import User, skeleton
from fastauth.endpoints.audit import Audit
from fastauth.endpoints.http import Request

_SUB_BYTES: Final = 16
_NO_TIME_LEFT_S: Final = 0.005


class Source(Protocol):
    """An external source, guarded: it answers within the time that it is given."""

    async def check(self, name: str, password: str, within_s: float) -> Verdict: ...


class Users(Protocol):
    """Where accounts are, perhaps through a cache."""

    async def find_by_identity(self, source: str, subject: str) -> User | None: ...
    async def add(self, user: User, skeleton: str) -> None: ...


class Log(Protocol):
    """The part of a structlog logger that is needed here."""

    def info(self, event: str, **values: Any) -> Any: ...
    def warning(self, event: str, **values: Any) -> Any: ...


class IdentityChain:
    """The sources in their order. A name that one does not know is asked of the next; a refusal is final."""

    def __init__(
        self,
        order: Sequence[str],
        sources: Mapping[str, Source],
        routes: Sequence[Route],
        deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """In: ``order`` of names, ``local`` for the own database; ``deadline_s`` for all of them together."""
        self._order = tuple(order)
        self._sources = sources
        self._routes = tuple(routes)
        self._deadline_s = deadline_s
        self._clock = clock

    def is_local(self, name: str, user: User | None) -> bool:
        """Whether the own database decides, without anybody else being asked. In: the account of this name, if any."""
        order = self._order_of(name)
        return order[0] == LOCAL and (len(order) == 1 or (user is not None and user.source == LOCAL))

    async def ask(self, name: str, password: str, user: User | None) -> Identity | Literal["local", "refused"]:
        """In: the account of this name, if any. Out: an identity, a refusal, or that the own database decides.

        While a source is down, those behind it are asked for their own accounts only: it might have refused the others.
        Raises its Unavailable when nobody else has decided.
        """
        ends_s = self._clock() + self._deadline_s
        down: Unavailable | None = None
        order = self._order_of(name)
        for source in order:
            is_theirs = user is not None and user.source == source
            if source == LOCAL:
                if is_theirs:
                    return "local"
                continue
            if down is not None and not is_theirs:
                continue
            try:
                verdict = await self._check(source, name, password, ends_s - self._clock())
            except Unavailable as error:
                down = down or error
                continue
            if verdict != "unknown":
                return verdict
        if down is not None:
            raise down
        return "local" if order[-1] == LOCAL else "refused"

    async def _check(self, source: str, name: str, password: str, within_s: float) -> Verdict:
        if within_s < _NO_TIME_LEFT_S:
            raise Unavailable(source, "those before it have used up the time")
        return await self._sources[source].check(name, password, within_s)

    def _order_of(self, name: str) -> tuple[str, ...]:
        for route in self._routes:
            if route.matches(name):
                return (route.source,)
        return self._order


class ExternalAccounts:
    """The accounts of those whom a source vouches for: (source, subject) is the key, and ``sub`` is ours."""

    def __init__(
        self,
        users: Users,
        log: Log,
        audit: Audit,
        random_bytes: Callable[[int], bytes],
        clock: Callable[[], float],
        *,
        provisions: bool,
    ) -> None:
        """In: whether somebody who has no account yet gets one."""
        self._users = users
        self._log = log
        self._audit = audit
        self._random_bytes = random_bytes
        self._clock = clock
        self._provisions = provisions

    async def find(self, identity: Identity, name: str, request: Request) -> User | None:
        """The account, made at the first login under the canonical ``name``; None when there is to be none.

        A name that belongs to another account stays with it: a source never takes one over.
        """
        user = await self._users.find_by_identity(identity.source, identity.subject)
        if user is not None:
            return user
        if not self._provisions:
            self._log.warning(
                "no_account",
                request_id=request.id,
                source=identity.source,
                hint="fastauth user add NAME --source --subject",
            )
            return None
        now_s = int(self._clock())
        user = User(
            sub=self._random_bytes(_SUB_BYTES).hex(),
            name=name,
            password_hash="",
            source=identity.source,
            subject=identity.subject,
            created_at_s=now_s,
            updated_at_s=now_s,
        )
        try:
            await self._users.add(user, skeleton(name))
        except Conflict:
            winner = await self._users.find_by_identity(identity.source, identity.subject)
            if winner is None:
                self._log.warning(
                    "name_taken",
                    request_id=request.id,
                    source=identity.source,
                    hint="another account has this name, or alike",
                )
            return winner  # of two first logins at the same time
        self._log.info("user_provisioned", request_id=request.id, source=identity.source, sub=user.sub)
        self._audit.record("user_added", request, sub=user.sub, name=user.name, source=identity.source)
        return user
