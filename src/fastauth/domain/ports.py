"""The small interfaces through which the rules and the endpoints reach storage; one a capability.

Every method may raise ``Unavailable``; a driver's own exception never leaves its backend.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from fastauth.domain.users import User


class NotAdded(msgspec.Struct, frozen=True):
    """Whom ``add_missing`` passed over: how many have an account, and the names that only look like another's."""

    existing: int
    lookalikes: Sequence[str]


class UserStore(Protocol):
    """Accounts, found by canonical name or by subject."""

    async def find_by_name(self, name: str) -> User | None: ...

    async def list_users(self, after: str, limit: int) -> Sequence[User]:
        """At most ``limit`` users in the order of their names, those behind the name ``after``."""
        ...

    async def count(self) -> int: ...

    async def add(self, user: User, skeleton: str) -> None:
        """Raises Conflict when the name, or one that looks like it, is taken."""
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

    async def delete(self, name: str) -> None:
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
