"""Rows that a worker keeps for a short while, until it hears that they have changed.

Every worker hears of a change within a second (``server/revocation_feed.py``); the short life of an entry is for the
case that it does not. What is not there is never remembered.
"""

import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from fastauth.domain.clients import Client
from fastauth.domain.ports import ClientStore, UserStore
from fastauth.domain.users import User

R = TypeVar("R")

TTL_S: Final = 10.0
MAX_ROWS: Final = 4_096


class RowCache(Generic[R]):
    """Rows by key, bounded in number and in age."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._rows: dict[str, tuple[R, float]] = {}
        self._clock = clock
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> R | None:
        """None for a row that is not kept, or was for too long."""
        kept = self._rows.get(key)
        if kept is None:
            return None
        if self._clock() >= kept[1]:
            del self._rows[key]
            return None
        return kept[0]

    def put(self, key: str, row: R, epoch: int) -> None:
        """Keep a row. In: the ``epoch`` before it was read: if anything was forgotten since, it may be outdated."""
        if epoch != self.epoch:
            return
        if len(self._rows) >= MAX_ROWS:  # the oldest entry goes; what is in use comes back with the next read
            del self._rows[next(iter(self._rows))]
        self._rows[key] = (row, self._clock() + TTL_S)

    def forget(self, key: str) -> None:
        """The row has changed."""
        self.epoch += 1
        self._rows.pop(key, None)


class CachedUsers:
    """The accounts as logins and refreshes read them."""

    def __init__(self, store: UserStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._by_sub: RowCache[User] = RowCache(clock)
        self._subs: RowCache[str] = RowCache(clock)
        self._by_identity: RowCache[str] = RowCache(clock)
        self._slowest: RowCache[str | None] = RowCache(clock)

    async def find_by_name(self, name: str) -> User | None:
        """As ``UserStore``."""
        sub = self._subs.get(name)
        user = None if sub is None else self._by_sub.get(sub)
        if user is not None and user.name == name:
            return user
        epoch = self._by_sub.epoch
        return self._keep(await self._store.find_by_name(name), epoch)

    async def find_by_sub(self, sub: str) -> User | None:
        """As ``UserStore``."""
        user = self._by_sub.get(sub)
        if user is not None:
            return user
        epoch = self._by_sub.epoch
        return self._keep(await self._store.find_by_sub(sub), epoch)

    async def find_by_identity(self, source: str, subject: str) -> User | None:
        """As ``UserStore``."""
        key = f"{source}:{subject}"
        sub = self._by_identity.get(key)
        user = None if sub is None else self._by_sub.get(sub)
        if user is not None:
            return user
        epoch = self._by_sub.epoch
        user = self._keep(await self._store.find_by_identity(source, subject), epoch)
        if user is not None:
            self._by_identity.put(key, user.sub, self._by_identity.epoch)
        return user

    async def add(self, user: User, skeleton: str) -> None:
        """As ``UserStore``."""
        await self._store.add(user, skeleton)

    async def find_again(self, user: User) -> User | None:
        """The account of this name as it is in the database now."""
        self.forget(user.sub)
        return await self.find_by_name(user.name)

    async def slowest_scheme(self) -> str | None:
        """As ``UserStore``; it may lag behind an import for the life of an entry."""
        kept = self._slowest.get("")
        if kept is None:
            kept = await self._store.slowest_scheme()
            self._slowest.put("", kept, self._slowest.epoch)
        return kept

    async def replace_password_hash(self, sub: str, old: str, new: str, now_s: int) -> bool:
        """As ``UserStore``."""
        is_replaced = await self._store.replace_password_hash(sub, old, new, now_s)
        self.forget(sub)
        return is_replaced

    def forget(self, sub: str) -> None:
        """The account has changed."""
        self._by_sub.forget(sub)

    def _keep(self, user: User | None, epoch: int) -> User | None:
        if user is not None:
            self._by_sub.put(user.sub, user, epoch)
            self._subs.put(user.name, user.sub, self._subs.epoch)
        return user


class CachedClients:
    """The clients as ``/token``, ``/introspect`` and ``/revoke`` read them."""

    def __init__(self, store: ClientStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._rows: RowCache[Client] = RowCache(clock)

    async def find(self, client_id: str) -> Client | None:
        """As ``ClientStore``."""
        client = self._rows.get(client_id)
        if client is None:
            epoch = self._rows.epoch
            client = await self._store.find(client_id)
            if client is not None:
                self._rows.put(client_id, client, epoch)
        return client

    def forget(self, client_id: str) -> None:
        """The client has changed."""
        self._rows.forget(client_id)
