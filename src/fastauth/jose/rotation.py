"""The life of a signing key: next -> active -> retired -> removed.

    next      published in the JWKS, does not sign: others fetch it before they meet a token of it
    active    published, signs; there is exactly one
    retired   published, does not sign any more: its last tokens may still be alive
    removed   gone from the JWKS; a token of it is refused

A state is never stored. It follows from three times of each key and the clock, so every worker of every node comes to
the same answer without a leader, and a change that was interrupted has either happened or not. Times are milliseconds
since 1970 UTC.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

import msgspec

from fastauth.domain.errors import FastauthError

# A token may live for as long as any setting allows: the setting may have been higher when the key signed.
LONGEST_TOKEN_LIFE_S: Final = 86_400
# Clocks of nodes differ by so much at most: one may begin to sign, or another still sign, so much off the time.
NODE_SKEW_S: Final = 60
_RETIRED_FOR_MS: Final = (LONGEST_TOKEN_LIFE_S + NODE_SKEW_S) * 1000
# The compromise path: all workers know the new key, then all sign with it, then the old ones are refused.
KNOWN_AFTER_MS: Final = 750
REMOVED_AFTER_MS: Final = 1_250
# A node whose clock is behind still loads a key for so long after it was removed.
_ERASED_AFTER_MS: Final = 2 * NODE_SKEW_S * 1000

State = Literal["next", "active", "retired", "removed"]


class KeyTimes(Protocol):
    """What decides the state of a key."""

    @property
    def kid(self) -> str: ...
    @property
    def alg(self) -> str: ...
    @property
    def activates_ms(self) -> int:
        """From when it signs."""
        ...

    @property
    def removes_ms(self) -> int | None:
        """When somebody decided that it be removed; None for the usual course."""
        ...


class RotationRefused(FastauthError):
    """A change that would break tokens in use, or that cannot be made; the text says which and what to do."""

    code = "rotation_refused"


class KeyLife(msgspec.Struct, frozen=True):
    """One key's way through the states. ``retires_ms`` None: nobody follows it yet."""

    kid: str
    alg: str
    activates_ms: int
    retires_ms: int | None
    removes_ms: int | None

    def state_at(self, now_ms: int) -> State:
        """The state at a time."""
        if self.removes_ms is not None and now_ms >= self.removes_ms:
            return "removed"
        if now_ms < self.activates_ms:
            return "next"
        if self.retires_ms is None or now_ms < self.retires_ms:
            return "active"
        return "retired"

    def is_erasable_at(self, now_ms: int) -> bool:
        """Whether no node needs the private half any more."""
        return self.removes_ms is not None and now_ms >= self.removes_ms + _ERASED_AFTER_MS


def _in_order(keys: Sequence[KeyTimes]) -> list[KeyTimes]:
    return sorted(keys, key=lambda key: (key.activates_ms, key.kid))


def _ever_signs(key: KeyTimes) -> bool:
    return key.removes_ms is None or key.removes_ms > key.activates_ms


def lives_of(keys: Sequence[KeyTimes], now_ms: int) -> list[KeyLife]:
    """The lives of all keys, in the order in which they sign.

    A key retires when the next one that signs at all becomes active. If no key's time has come (the clock was set back)
    the first that waits signs all the same: a server without a key helps nobody.
    """
    ordered = _in_order(keys)
    lives = []
    for at, key in enumerate(ordered):
        retires_ms = next((later.activates_ms for later in ordered[at + 1 :] if _ever_signs(later)), None)
        ends = [] if retires_ms is None else [retires_ms + _RETIRED_FOR_MS]
        if key.removes_ms is not None:  # one that was removed before it signed stays so when the clock is set back
            ends.append(key.removes_ms if _ever_signs(key) else min(key.removes_ms, now_ms))
        lives.append(KeyLife(key.kid, key.alg, key.activates_ms, retires_ms, min(ends, default=None)))
    states = [life.state_at(now_ms) for life in lives]
    if "active" not in states and "next" in states:
        first = states.index("next")
        lives[first] = msgspec.structs.replace(lives[first], activates_ms=now_ms)
    return lives


def active_kid(lives: Sequence[KeyLife], now_ms: int) -> str:
    """The key that signs. Raises RotationRefused when there is none."""
    for life in reversed(lives):
        if life.state_at(now_ms) == "active":
            return life.kid
    raise RotationRefused("the key ring has no key that may sign; run: fastauth keys rotate --now")


def next_change_ms(lives: Sequence[KeyLife], now_ms: int) -> int | None:
    """When the state of some key changes next, or its private half can be erased, if nothing else happens."""
    times = [time for life in lives for time in (life.activates_ms, life.retires_ms) if time is not None]
    ends = [life.removes_ms for life in lives if life.removes_ms is not None]
    times += ends + [end + _ERASED_AFTER_MS for end in ends]
    return min((time for time in times if time > now_ms), default=None)


def is_rotation_due(
    lives: Sequence[KeyLife], now_ms: int, *, alg: str | None, period_s: int | None, publish_ahead_s: int
) -> bool:
    """Whether it is time to publish a next key: the newest is of another algorithm than is wanted (None: any will do),
    or signs and will have done so for ``period_s`` by the time that the next one may.
    """
    newest = _newest(lives, now_ms)
    if newest is None or (alg is not None and newest.alg != alg):
        return True
    if newest.state_at(now_ms) == "next":
        return False
    return period_s is not None and now_ms >= newest.activates_ms + (period_s - publish_ahead_s) * 1000


def waiting_key(lives: Sequence[KeyLife], now_ms: int, alg: str) -> KeyLife | None:
    """The newest key, if it is published and waits to sign with ``alg``: there is nothing to rotate to beyond it."""
    newest = _newest(lives, now_ms)
    return newest if newest is not None and newest.alg == alg and newest.state_at(now_ms) == "next" else None


def _newest(lives: Sequence[KeyLife], now_ms: int) -> KeyLife | None:
    return next((life for life in reversed(lives) if life.state_at(now_ms) in ("next", "active")), None)


def activation_ms(keys: Sequence[KeyTimes], now_ms: int, publish_ahead_s: int) -> int:
    """When a key published now will sign: after every other, for what waits was promised its turn.

    ``publish_ahead_s`` is longer than anybody may keep the JWKS.
    """
    newest_ms = max((key.activates_ms for key in keys if _ever_signs(key)), default=now_ms)
    return max(now_ms + publish_ahead_s * 1000, newest_ms + 1)


def compromise_plan(keys: Sequence[KeyTimes], now_ms: int) -> tuple[int, Mapping[str, int]]:
    """``keys rotate --now``: when the new key signs, and when each other key is removed: all of them, at once.

    One that waits to sign never will; the others are refused when every worker has had the time to sign with the new.
    """
    removals = {}
    for life in lives_of(keys, now_ms):
        removes_ms = now_ms if life.state_at(now_ms) == "next" else now_ms + REMOVED_AFTER_MS
        if life.removes_ms is None or life.removes_ms > removes_ms:
            removals[life.kid] = removes_ms
    # Behind those that still sign; only where the clock was set back there are any later ones.
    signing = [key.activates_ms for key in keys if key.activates_ms < removals.get(key.kid, key.removes_ms or 0)]
    return max(now_ms + KNOWN_AFTER_MS, max(signing, default=now_ms) + 1), removals


def removal_ms(keys: Sequence[KeyTimes], kid: str, now_ms: int, *, at_once: bool) -> int | None:
    """``keys retire``: when the key is to be removed; None when it is removed already.

    A key that never signed goes at once, the active one never, a retired one once its last token has expired
    or, with ``at_once``, before. Raises RotationRefused.
    """
    life = next((life for life in lives_of(keys, now_ms) if life.kid == kid), None)
    if life is None:
        raise RotationRefused("there is no key of this kid; fastauth keys list shows all")
    state = life.state_at(now_ms)
    if state == "removed":
        return None
    if state == "active":
        raise RotationRefused(
            "this key signs; run fastauth keys rotate, and it retires when the next one takes over "
            "(if it is compromised: fastauth keys rotate --now)"
        )
    if state == "retired" and not at_once:
        raise RotationRefused(
            "tokens of this key may still be alive; it is removed by itself when the last has expired "
            "(to refuse them from now on: fastauth keys retire KID --now)"
        )
    heirs = [key for key in _in_order(keys) if key.kid != kid and _ever_signs(key)]
    if not heirs or heirs[-1].removes_ms is not None:  # as after rotate --now, until the new key signs
        raise RotationRefused(
            "this key takes over from one that is being removed, and no other would sign; "
            "run fastauth keys rotate --now to replace both"
        )
    return now_ms
