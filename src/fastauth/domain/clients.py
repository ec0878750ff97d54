"""What a client is: a program that authenticates with a secret of its own (RFC 6749 section 2)."""

import hmac
import re
import secrets
from collections.abc import Callable
from hashlib import blake2b
from typing import Final, Literal, get_args

import msgspec

from fastauth.domain.errors import ClientRefused

GrantName = Literal["client_credentials"]
Introspection = Literal["own", "any"]

GRANTS: Final = get_args(GrantName)
BUILT_IN_CLIENT: Final = "fastauth"
"""The public client to which ``/auth`` sessions belong; it has no secret."""
PURPOSE: Final = b"fastauth/v1/client-secret"
SECRET_PREFIX: Final = "fa_cs_"
"""So that scanners for leaked secrets, and people, see what it is."""

ALL_TOKENS_S: Final = 1 << 62
"""Later than any token was issued."""

_SECRET_BYTES: Final = 32
_KEY_BYTES: Final = 32
_HASH_BYTES: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A registered client.

    ``client_id`` is opaque and never reused; ``grants`` what it may ask ``/token`` for; ``scope`` the most that its
    tokens may have, None for tokens without one; ``introspect`` which tokens it may look at beside its own and those
    meant for it. ``old_secret_hash`` is good until ``old_secret_until_s``, while a secret is being replaced. Times in
    seconds since 1970 UTC.
    """

    client_id: str
    name: str
    secret_hash: bytes
    old_secret_hash: bytes | None = None
    old_secret_until_s: int = 0
    grants: tuple[GrantName, ...] = ()
    scope: str | None = None
    introspect: Introspection = "own"
    disabled: bool = False
    created_at_s: int
    updated_at_s: int

    def __repr__(self) -> str:  # the hashes never reach a log or a traceback
        return f"Client(client_id={self.client_id!r}, name={self.name!r}, disabled={self.disabled})"


class ClientSecrets:
    """Makes and checks the secrets of one installation.

    Secrets are random, so a fast keyed hash is enough (BLAKE2b with a key, RFC 7693): a leaked database gives nothing
    to guess at. In: ``key`` 32 secret bytes for ``PURPOSE``.
    """

    def __init__(self, key: bytes, random_text: Callable[[int], str] = secrets.token_urlsafe) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError("the key must be 32 bytes")
        self._key = key
        self._random_text = random_text

    def make(self, client_id: str) -> tuple[str, bytes]:
        """A new secret with 256 random bits, and the hash that is stored of it."""
        secret = SECRET_PREFIX + self._random_text(_SECRET_BYTES)
        return secret, self._hash(client_id, secret)

    def is_right(self, client: Client | None, client_id: str, secret: str, now_s: int) -> bool:
        """Whether the secret is this client's; an unknown client (None) costs the same work.

        In: the id as it was sent.
        """
        computed = self._hash(client_id, secret)
        if client is None:
            hmac.compare_digest(computed, bytes(len(computed)))
            return False
        is_current = hmac.compare_digest(computed, client.secret_hash)
        if client.old_secret_hash is None:
            return is_current
        is_old = hmac.compare_digest(computed, client.old_secret_hash)
        return is_current or (is_old and now_s < client.old_secret_until_s)

    def _hash(self, client_id: str, secret: str) -> bytes:
        # The length first, so that no two pairs make one message.
        name, text = client_id.encode("utf-8", "surrogatepass"), secret.encode("utf-8", "surrogatepass")
        message = b"%d:%b:%b" % (len(name), name, text)
        return blake2b(message, digest_size=_HASH_BYTES, key=self._key).digest()


def check_client_name(name: str) -> str:
    """The name by which an operator knows a client. Raises ClientRefused."""
    if not _NAME.fullmatch(name):
        raise ClientRefused("a client's name is 1 to 64 letters, digits and . _ -, the first a letter or digit")
    return name
