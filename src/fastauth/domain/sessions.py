"""Sessions: a login, and the family of refresh tokens that descends from it (RFC 9700 section 4.14.2).

A refresh token is good once: it is exchanged for its successor. Its immediate predecessor may be presented again for a
short grace, because answers get lost and tabs race, and gives the same successor. Anything older is proof that two
parties hold tokens of the session, and ends it.
"""

import hmac
from typing import Final

import msgspec

from fastauth import core
from fastauth.domain.errors import FastauthError, InvalidGrant
from fastauth.domain.limits import Limit
from fastauth.domain.refresh_tokens import RandomBytes, RefreshToken

# How far the clock of another node, which may have rotated last, can be ahead of this one's.
_CLOCK_SKEW_MS: Final = 60_000


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session as it is stored.

    ``scope`` is the most that its tokens may have; ``expires_at_s`` when it ends however busy it is, ``ends_at_s`` when
    it ends if nobody refreshes it before; ``tokens_until_s`` when the last of its access tokens expires. Of the newest
    refresh token and of its predecessor only hashes are kept, and for the grace the newest one sealed under the
    predecessor. ``claims`` is the JSON of what an external source adds to the access tokens, ``pace_us`` the arrival
    time of the bucket (``core.gcra``) that limits how often it is refreshed.
    Times since 1970 UTC.
    """

    sid: str
    sub: str
    client_id: str
    scope: str
    auth_time_s: int
    expires_at_s: int
    ends_at_s: int
    tokens_until_s: int
    token_hash: bytes
    parent_hash: bytes | None = None
    sealed_successor: bytes | None = None
    claims: bytes | None = None
    rotated_at_ms: int = 0
    pace_us: int = 0

    def is_newest(self, token: RefreshToken, now_s: int) -> bool:
        """Whether the session lives and this is the token to be exchanged next."""
        return now_s < self.ends_at_s and hmac.compare_digest(token.hash, self.token_hash)

    def __repr__(self) -> str:  # the hashes never reach a log or a traceback
        return f"Session(sid={self.sid!r}, sub={self.sub!r}, client_id={self.client_id!r})"


class Rotation(msgspec.Struct, frozen=True):
    """The presented token is the newest: what the session becomes, and the token that is newest then; ``pace`` is what
    the bucket of the session says to it, None without a limit.
    """

    session: Session
    token: RefreshToken
    pace: core.Decision | None


class Replay(msgspec.Struct, frozen=True):
    """The presented token was exchanged a moment ago: the same successor again."""

    token: RefreshToken


class RefreshReused(FastauthError):
    """A token that was exchanged long ago came again: somebody has a copy, and the session must end."""

    code = "refresh_reused"


class SessionRules(msgspec.Struct, frozen=True, kw_only=True):
    """For how long sessions and their tokens are good. Times in seconds; ``per_family`` None for no limit."""

    idle_s: int
    max_s: int
    grace_s: int
    access_ttl_s: int
    per_family: Limit | None

    def begin(
        self,
        sub: str,
        client_id: str,
        scope: str,
        now_s: int,
        random_bytes: RandomBytes,
        claims: bytes | None = None,
    ) -> tuple[Session, RefreshToken]:
        """A new session of somebody who has just logged in, and its first refresh token."""
        token = RefreshToken.new(random_bytes)
        expires_at_s = now_s + self.max_s
        session = Session(
            sid=token.sid,
            sub=sub,
            client_id=client_id,
            scope=scope,
            auth_time_s=now_s,
            expires_at_s=expires_at_s,
            ends_at_s=min(now_s + self.idle_s, expires_at_s),
            tokens_until_s=min(now_s + self.access_ttl_s, expires_at_s),
            token_hash=token.hash,
            claims=claims,
        )
        return session, token

    def refresh(
        self, session: Session, presented: RefreshToken, now_us: int, random_bytes: RandomBytes
    ) -> Rotation | Replay:
        """What a presented token of this session leads to; nothing is changed yet.

        Raises InvalidGrant for a session that has ended, RefreshReused.
        """
        if session.ends_at_s <= now_us // 1_000_000:
            raise InvalidGrant("the refresh token has expired")
        if hmac.compare_digest(presented.hash, session.token_hash):
            return self._rotate(session, presented, now_us, random_bytes)
        successor = self._replayed(session, presented, now_us // 1000)
        if successor is None:
            raise RefreshReused("the refresh token is no longer good")
        return Replay(successor)

    def _rotate(self, session: Session, presented: RefreshToken, now_us: int, random_bytes: RandomBytes) -> Rotation:
        now_s = now_us // 1_000_000
        successor = presented.successor(random_bytes)
        pace, pace_us = self._paced(session, now_us)
        rotated = msgspec.structs.replace(
            session,
            ends_at_s=min(now_s + self.idle_s, session.expires_at_s),
            tokens_until_s=min(now_s + self.access_ttl_s, session.expires_at_s),
            token_hash=successor.hash,
            parent_hash=session.token_hash,
            sealed_successor=presented.seal(successor, random_bytes) if self.grace_s else None,
            rotated_at_ms=now_us // 1000,
            pace_us=pace_us,
        )
        return Rotation(rotated, successor, pace)

    def _paced(self, session: Session, now_us: int) -> tuple[core.Decision | None, int]:
        """The bucket at this refresh. Only exchanges count; that others race for one costs the session nothing."""
        limit = self.per_family
        if limit is None:
            return None, 0
        # No refresh leaves the bucket further ahead: a clock has been set back, and nobody is locked out for that.
        is_of_another_time = session.pace_us > now_us + limit.window_us + _CLOCK_SKEW_MS * 1000
        pace_us = 0 if is_of_another_time else session.pace_us
        allowed, pace_us, *rest = core.gcra(pace_us, now_us, limit.emission_us, limit.burst, 1)
        return core.Decision(allowed, *rest), pace_us

    def _replayed(self, session: Session, presented: RefreshToken, now_ms: int) -> RefreshToken | None:
        if session.parent_hash is None or session.sealed_successor is None:
            return None
        if not hmac.compare_digest(presented.hash, session.parent_hash):
            return None
        if not -_CLOCK_SKEW_MS <= now_ms - session.rotated_at_ms <= self.grace_s * 1000:
            return None
        return presented.unseal(session.sealed_successor)
