"""What has been revoked before it expired, in memory: asked at every verification, without I/O."""

import inspect
import threading
import weakref
from collections.abc import Callable
from typing import Literal

from fastauth.jose.claims import MAX_LEEWAY_S, Claims

Kind = Literal["jti", "sid", "sub", "client_id"]


class Revocations:
    """The tokens, sessions, subjects and clients whose access tokens are refused. Safe to use from several threads.

    A revoked ``jti`` or ``sid`` refuses its tokens whenever they were made; a revoked ``sub`` or ``client_id`` those
    that were issued until then (``iat`` at or before the second of the revocation, or none), so that a user who logs in
    again is let in.
    """

    def __init__(self) -> None:
        # name -> (tokens issued until then are refused, nothing is alive after)
        self._revoked: dict[Kind, dict[str, tuple[float, int]]] = {"jti": {}, "sid": {}, "sub": {}, "client_id": {}}
        self._is_empty = True  # as nearly always: then nothing is looked up
        # second -> what nobody needs after it, so that forgetting never looks through everything
        self._due: dict[int, list[tuple[Kind, str]]] = {}
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], Callable[[], None] | None]] = []

    def __len__(self) -> int:
        return sum(len(names) for names in self._revoked.values())

    def revoke_token(self, jti: str, until_s: int) -> None:
        """One token. In: when it expires, in seconds since 1970 UTC; it is remembered until then."""
        self._revoke("jti", jti, float("inf"), until_s)

    def revoke_session(self, sid: str, until_s: int) -> None:
        """Every token of a session. In: when the last of them expires."""
        self._revoke("sid", sid, float("inf"), until_s)

    def revoke_subject(self, sub: str, issued_until_s: int, until_s: int) -> None:
        """Every token of a subject issued until a time. In: that time, and when the last of them expires."""
        self._revoke("sub", sub, issued_until_s, until_s)

    def revoke_client(self, client_id: str, issued_until_s: int, until_s: int) -> None:
        """Every token of a client issued until a time. In: that time, and when the last of them expires."""
        self._revoke("client_id", client_id, issued_until_s, until_s)

    def replace_client(self, client_id: str, issued_until_s: int, until_s: int) -> None:
        """As ``revoke_client``, but what was said of the client before counts no more: one that was disabled for all
        time, and is enabled again, gets tokens that are good.
        """
        self._revoke("client_id", client_id, issued_until_s, until_s, replaces=True)

    def forget_expired(self, now_s: int) -> None:
        """Drop what no living token can have any more, at any verifier's leeway. To be called now and then."""
        with self._lock:
            for until_s in [until_s for until_s in self._due if until_s + MAX_LEEWAY_S <= now_s]:
                for kind, name in self._due.pop(until_s):
                    entry = self._revoked[kind].get(name)
                    if entry is not None and entry[1] <= until_s:  # not revoked for longer meanwhile
                        del self._revoked[kind][name]
            self._is_empty = not len(self)

    def is_revoked(self, claims: Claims) -> bool:
        """Whether a token with these claims must be refused."""
        if self._is_empty:
            return False
        revoked = self._revoked
        return (
            _is_hit(revoked["jti"], claims.jti, claims.iat)
            or _is_hit(revoked["sid"], claims.sid, claims.iat)
            or _is_hit(revoked["sub"], claims.sub, claims.iat)
            or _is_hit(revoked["client_id"], claims.client_id, claims.iat)
        )

    def watch(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` after every revocation. A method is let go of with its object."""
        is_method = inspect.ismethod(changed)
        self._watchers.append(weakref.WeakMethod(changed) if is_method else lambda: changed)

    def _revoke(self, kind: Kind, name: str, issued_until_s: float, until_s: int, *, replaces: bool = False) -> None:
        with self._lock:
            before_s, known_until_s = self._revoked[kind].get(name, (0.0, 0))
            if replaces:
                before_s = 0.0
            self._is_empty = False
            until_s = max(known_until_s, until_s)
            self._revoked[kind][name] = (max(before_s, issued_until_s), until_s)
            if known_until_s != until_s:
                self._due.setdefault(until_s, []).append((kind, name))
            self._watchers = [watcher for watcher in self._watchers if watcher() is not None]
            watchers = list(self._watchers)
        for watcher in watchers:
            if (changed := watcher()) is not None:
                changed()


def _is_hit(names: dict[str, tuple[float, int]], name: str | None, iat_s: int | None) -> bool:
    if name is None or not names:
        return False
    entry = names.get(name)
    return entry is not None and (iat_s is None or iat_s <= entry[0])
