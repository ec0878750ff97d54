"""The small interfaces through which the rules and the endpoints reach storage; one a capability.

Every method may raise ``Unavailable``; a driver's own exception never leaves its backend.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from fastauth.domain.clients import Client
from fastauth.domain.sessions import Session
from fastauth.domain.users import User


class NotAdded(msgspec.Struct, frozen=True):
    """Whom ``add_missing`` passed over: how many have an account, and the names that only look like another's."""

    existing: int
    lookalikes: Sequence[str]


class UserStore(Protocol):
    """Accounts, found by canonical name or by subject.

    What disables or deletes an account or gives it another password also ends its sessions, in the same transaction;
    every change is told on the ``RevocationBus``.
    """

    async def find_by_name(self, name: str) -> User | None: ...

    async def find_by_sub(self, sub: str) -> User | None: ...

    async def find_by_identity(self, source: str, subject: str) -> User | None:
        """The account of somebody whom an external source knows under this id."""
        ...

    async def list_users(self, after: str, limit: int) -> Sequence[User]:
        """At most ``limit`` users in the order of their names, those behind the name ``after``."""
        ...

    async def count(self) -> int: ...

    async def add(self, user: User, skeleton: str) -> None:
        """Raises Conflict when the name, or one that looks like it, or the identity is taken."""
        ...

    async def add_missing(self, users: Sequence[tuple[User, str]]) -> NotAdded:
        """Add (user, skeleton) pairs in one transaction, passing over those that exist or look like one that does."""
        ...

    async def set_disabled(self, name: str, disabled: bool, now_s: int) -> None:
        """Raises NotFound."""
        ...

    async def set_password_hash(self, name: str, password_hash: str, now_s: int) -> None:
        """Another password: the next credential generation. Raises NotFound."""
        ...

    async def replace_password_hash(self, sub: str, old: str, new: str, now_s: int) -> bool:
        """Swap ``old`` for ``new``, a hash of the same password; False, with nothing changed, when it is no longer
        ``old``.
        """
        ...

    async def delete(self, name: str, now_s: int) -> None:
        """Raises NotFound."""
        ...

    async def slowest_scheme(self) -> str | None:
        """The dearest password scheme that any user has (``Scheme.identifier``), or None without users."""
        ...


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A signing key at rest: the public half as JWK JSON, the private half wrapped under the master key.

    Times in milliseconds since 1970 UTC; ``jose/rotation.py`` says what follows from them. ``wrapped_private`` is empty
    once the key is removed and its private half erased.
    """

    kid: str
    alg: str
    public_jwk: str
    wrapped_private: bytes
    published_ms: int
    activates_ms: int
    removes_ms: int | None = None


class RingPolicy(msgspec.Struct, frozen=True):
    """How the servers of this database sign: known to commands too, whose own settings may be others."""

    alg: str
    publish_ahead_s: int


class KeyStore(Protocol):
    """The key ring at rest. Its version is another one after every change."""

    def now_ms(self) -> int:
        """The time by which its times are meant, as far as it is known without asking: milliseconds since 1970 UTC.
        All nodes have the same, whatever their own clocks say.
        """
        ...

    async def load_keys(self) -> tuple[int, Sequence[StoredKey]]:
        """The version, and every key in the order of activation."""
        ...

    async def ring_version(self) -> int:
        """The version alone: cheap enough to ask several times a second."""
        ...

    async def change_ring(self, version: int, new_key: StoredKey | None, removals: Mapping[str, int]) -> bool:
        """Add a key, and set ``removes_ms`` of others by ``kid``; all of it, or, when the ring is no longer the one of
        ``version``, nothing. Out: whether it was done.
        """
        ...

    async def find_policy(self) -> RingPolicy | None:
        """What the last server to start signs with, None before the first."""
        ...

    async def save_policy(self, policy: RingPolicy) -> None:
        """Replace it. The version stays."""
        ...

    async def erase_private(self, kids: Sequence[str]) -> None:
        """Forget the private halves of keys that are removed. The version stays: nobody uses them."""
        ...


class SessionStore(Protocol):
    """Sessions, each with its family of refresh tokens: the record of truth for what may be refreshed.

    What ends a session also tells it on the ``RevocationBus``, in the same transaction, until its last access token
    has expired.
    """

    async def add(self, session: Session, credential_generation: int) -> bool:
        """False, with nothing added, when the user is gone, disabled, or has another password by now."""
        ...

    async def find(self, sid: str) -> Session | None: ...

    async def rotate(self, session: Session, token_hash: bytes) -> bool:
        """Store what the session has become, by ONE conditional update: False, with nothing changed, unless its newest
        token is still the one of ``token_hash``.
        """
        ...

    async def end(self, sid: str, now_s: int, tokens_until_s: int = 0) -> bool:
        """End a session; its access tokens die even if there is none by now. In: until when it has some at least, as
        far as the caller knows. Out: whether there was such a session.
        """
        ...

    async def end_all(self, sub: str, now_s: int) -> int:
        """End every session of a user; out: how many."""
        ...

    async def purge(self, now_s: int, limit: int) -> int:
        """Forget at most ``limit`` sessions that are over, with their access tokens; out: how many."""
        ...

    async def wipe_successors(self, rotated_before_ms: int, limit: int) -> int:
        """Forget the sealed successors of at most ``limit`` sessions last refreshed before a time; out: how many."""
        ...


class ClientStore(Protocol):
    """Registered clients. Every change is told on the ``RevocationBus``."""

    async def find(self, client_id: str) -> Client | None: ...

    async def find_by_name(self, name: str) -> Client | None: ...

    async def list_clients(self, after: str, limit: int) -> Sequence[Client]:
        """At most ``limit`` clients in the order of their names, those behind the name ``after``."""
        ...

    async def add(self, client: Client) -> None:
        """Raises Conflict when the name is taken."""
        ...

    async def set_disabled(self, client_id: str, disabled: bool, now_s: int) -> None:
        """All access tokens of a disabled client are refused; those from before stay so when it is enabled again.

        Raises NotFound.
        """
        ...

    async def set_secret(self, client_id: str, secret_hash: bytes, old_until_s: int, now_s: int) -> None:
        """Another secret; the one that it follows stays good until ``old_until_s``. Raises NotFound."""
        ...

    async def delete(self, client_id: str, now_s: int) -> None:
        """All its access tokens are refused. Raises NotFound."""
        ...


NewsKind = Literal["jti", "sid", "client_id", "user", "client"]


class News(msgspec.Struct, frozen=True):
    """Something that every worker has to know at once.

    ``kind`` says of what ``name`` is the id: an access token, a session or a client whose tokens are refused (of a
    client those issued until ``issued_until_s``), or a user or client whose row has changed. Nobody needs to know it
    after ``until_s``. Times in seconds since 1970 UTC.
    """

    seq: int
    kind: NewsKind
    name: str
    issued_until_s: int
    until_s: int


class RevocationBus(Protocol):
    """What ended before its time, and what changed, told to every worker of every node in the order it happened."""

    async def revoke_token(self, jti: str, until_s: int) -> None:
        """One access token. In: when it expires."""
        ...

    async def read_after(self, seq: int, limit: int) -> Sequence[News]:
        """At most ``limit`` pieces of news behind the number ``seq``, oldest first."""
        ...

    async def wait(self) -> None:
        """Return when there may be news, and after a second at the latest. Raises Unavailable."""
        ...

    async def purge(self, now_s: int, limit: int) -> int:
        """Forget at most ``limit`` pieces of news that nobody needs any more; out: how many."""
        ...


class LeaseStore(Protocol):
    """Work that only one process of the whole installation does at a time."""

    async def take(self, name: str, holder: str, ttl_s: float) -> bool:
        """Whether ``holder`` does the work of this name from now on, and nobody else for ``ttl_s`` unless it is given
        back. Whoever has it may take it again.
        """
        ...

    async def give_back(self, name: str, holder: str) -> None:
        """Let others take it at once; nothing happens to a lease of somebody else."""
        ...
