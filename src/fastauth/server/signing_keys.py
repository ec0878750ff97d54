"""This installation's signing keys: made, rotated, loaded, and followed by every worker while it serves."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, cast

import msgspec

from fastauth.domain.errors import FastauthError, MasterKeyRefused
from fastauth.domain.ports import KeyStore, LeaseStore, RingPolicy, StoredKey
from fastauth.endpoints.audit import SILENT, Audit
from fastauth.jose.algorithms import Algorithm
from fastauth.jose.keyring import KeyRing, unwrap_key, wrap_key
from fastauth.jose.keys import SigningKey
from fastauth.jose.refusals import KeyRefused
from fastauth.jose.rotation import (
    KeyLife,
    RotationRefused,
    State,
    activation_ms,
    active_kid,
    compromise_plan,
    is_rotation_due,
    lives_of,
    next_change_ms,
    removal_ms,
    waiting_key,
)
from fastauth.jose.wrapping import MasterKey
from fastauth.server.settings import Settings
from fastauth.server.telemetry import get_log

POLL_S: Final = 0.25
LEASE: Final = "rotation"
LEASE_S: Final = 10.0
_SAME_FAILURE_LOG_S: Final = 60.0
_NONCE_BYTES: Final = 12


class ListedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as ``fastauth keys list`` shows it; never its private half."""

    kid: str
    alg: str
    state: State
    published_ms: int
    activates_ms: int
    retires_ms: int | None
    removes_ms: int | None


class Rotation(msgspec.Struct, frozen=True):
    """What a rotation came to: the key that will sign, from when, and whether it was waiting already."""

    kid: str
    activates_ms: int
    existed: bool


class SigningKeys:
    """The keys of one database under one master key. Each process has its own and follows the others' changes."""

    def __init__(
        self,
        store: KeyStore,
        leases: LeaseStore,
        load_master: Callable[[bool], MasterKey],
        settings: Settings,
        clock: Callable[[], int] | None = None,
        audit: Audit = SILENT,
    ) -> None:
        """In: ``load_master`` gives the master key, and makes one if its argument says that it may; ``clock`` in
        milliseconds since 1970 UTC, None for the store's.
        """
        self._store = store
        self._load_master = load_master
        self._settings = settings.tokens
        self._clock = clock or store.now_ms
        self._parsed: dict[str, SigningKey] = {}
        self._version = 0
        self._used_version = 0
        self._stored: tuple[StoredKey, ...] = ()
        self._lives: list[KeyLife] = []
        self._read_ms = 0
        self._changes_ms: int | None = None  # of the ring in use, like _used_version; the others are as last read
        self._leases = leases
        self._holder = secrets.token_hex(8)
        self._told: tuple[str, float] = ("", 0.0)
        self._audit = audit

    async def load(self) -> KeyRing:
        """The ring as it is now; on the first start a master key and a signing key are made.

        Raises MasterKeyRefused, KeyRefused, RotationRefused or Unavailable.
        """
        if not await self._read():
            now_ms = self._clock()
            key = await asyncio.to_thread(SigningKey.generate, self._settings.alg)
            # Nobody has fetched anything yet, so it signs at once; if another process was first, its key stays.
            if await self._store.change_ring(self._version, self._wrap(key, now_ms, now_ms, may_create=True), {}):
                self._tell_rotated(key, now_ms, "first_start")
            await self._read()
        return self._ring()

    async def load_existing(self) -> KeyRing:
        """As ``load``, but nothing is made: for commands. Raises RotationRefused where there are no keys."""
        await self._require_keys()
        return self._ring()

    async def start_serving(self) -> None:
        """After ``load``: record how this server signs, and publish the next key if its time has come or another
        algorithm is wanted. Only here: nodes that disagree for a while must not rotate against each other for ever.
        """
        before = await self._store.find_policy()
        mine = RingPolicy(self._settings.alg, self._settings.publishes_ahead_s)
        if before != mine:
            await self._store.save_policy(mine)
        if self._is_due(self._settings.alg):
            ahead_s = max(mine.publish_ahead_s, before.publish_ahead_s if before else 0)
            await self._rotate(
                None, self._settings.alg, ahead_s, "start"
            )  # others may still keep the JWKS as long as before

    async def rotate(self, key: SigningKey | None = None) -> Rotation:
        """Publish the next key; it signs when everybody has had the time to fetch it. Raises as ``load``.

        In: a key that was made already, or None. A command follows the settings of the servers, not its own.
        """
        return await self._rotate(key, *await self._policy(), "command" if key is None else "schedule")

    async def _policy(self) -> tuple[Algorithm, int]:
        """The algorithm of the servers, and for how long a key is published first."""
        policy = await self._store.find_policy()
        if policy is None:
            return self._settings.alg, self._settings.publishes_ahead_s
        return cast("Algorithm", policy.alg), max(self._settings.publishes_ahead_s, policy.publish_ahead_s)

    async def _rotate(self, key: SigningKey | None, alg: Algorithm, ahead_s: int, reason: str) -> Rotation:
        while True:
            await self._require_keys()
            now_ms = self._clock()
            if (waiting := waiting_key(self._lives, now_ms, alg)) is not None:
                return Rotation(waiting.kid, waiting.activates_ms, True)
            if key is None:  # it takes so long that the plan has to be made afterwards
                key = await self._make_key(alg)
                continue
            activates_ms = activation_ms(self._stored, now_ms, ahead_s)
            if await self._store.change_ring(self._version, self._wrap(key, now_ms, activates_ms), {}):
                self._tell_rotated(key, activates_ms, reason)
                return Rotation(key.kid, activates_ms, False)

    async def rotate_now(self) -> Rotation:
        """The compromise path: a new key signs at once, every other is refused within 2 s. Raises as ``load``."""
        await self._require_keys()
        key = await self._make_key((await self._policy())[0])
        while True:
            await self._require_keys()
            now_ms = self._clock()
            activates_ms, removals = compromise_plan(self._stored, now_ms)
            if await self._store.change_ring(self._version, self._wrap(key, now_ms, activates_ms), removals):
                self._tell_rotated(key, activates_ms, "compromise", removed=list(removals))
                return Rotation(key.kid, activates_ms, False)

    async def retire(self, kid: str, *, at_once: bool) -> Literal["removed", "removed_before"]:
        """Take a key out of the JWKS. Raises RotationRefused for one in use, and as ``load``."""
        while True:
            await self._require_keys()
            removes_ms = removal_ms(self._stored, kid, self._clock(), at_once=at_once)
            if removes_ms is None:
                return "removed_before"
            if await self._store.change_ring(self._version, None, {kid: removes_ms}):
                self._audit.record("key_retired", kid=kid, at_once=at_once)
                return "removed"

    async def listed(self) -> list[ListedKey]:
        """Every key, in the order in which they sign. Raises Unavailable."""
        await self._read()
        published = {key.kid: key.published_ms for key in self._stored}
        return [
            ListedKey(
                kid=life.kid,
                alg=life.alg,
                state=life.state_at(self._read_ms),
                published_ms=published[life.kid],
                activates_ms=life.activates_ms,
                retires_ms=life.retires_ms,
                removes_ms=life.removes_ms,
            )
            for life in self._lives
        ]

    async def follow(self, use: Callable[[KeyRing], None]) -> None:
        """For ever: hand every new ring to ``use`` within ``POLL_S`` of the change, and rotate when it is time.

        While the database does not answer, or a ring cannot be used, the last good one stays.
        """
        making: asyncio.Task[SigningKey] | None = None
        while True:
            await asyncio.sleep(self._until_next_look_s())
            try:
                if await self._has_changed():
                    await self._read()
                    use(self._ring())
                if making is None and self._is_due() and await self._is_my_turn():
                    making = asyncio.create_task(
                        self._make_key((await self._policy())[0])
                    )  # following goes on meanwhile
                if making is not None and making.done():
                    made, making = making, None
                    await self.rotate(made.result())
                await self._erase_removed()
            except Exception as error:  # noqa: BLE001 - whatever it is, a worker that follows no more must not come of it
                self._tell(str(error) if isinstance(error, FastauthError) else type(error).__name__)
                await asyncio.sleep(POLL_S)

    def _until_next_look_s(self) -> float:
        if self._changes_ms is None:
            return POLL_S
        return min(POLL_S, max(0.0, (self._changes_ms - self._clock()) / 1000))

    async def _has_changed(self) -> bool:
        if self._changes_ms is not None and self._clock() >= self._changes_ms:
            return True
        return await self._store.ring_version() != self._used_version

    def _is_due(self, alg: Algorithm | None = None) -> bool:
        """Whether the newest key is old enough or, with ``alg``, of another algorithm."""
        tokens = self._settings
        return is_rotation_due(
            self._lives,
            self._clock(),
            alg=alg,
            period_s=tokens.rotation_period_s,
            publish_ahead_s=tokens.publishes_ahead_s,
        )

    async def _is_my_turn(self) -> bool:
        """Every worker of every node finds at the same time that a rotation is due, and one of them is enough."""
        return await self._leases.take(LEASE, self._holder, LEASE_S)

    async def _read(self) -> bool:
        """Read the rows; whether there are any."""
        self._version, stored = await self._store.load_keys()
        self._read_ms = now_ms = self._clock()
        alive = {life.kid for life in lives_of(stored, now_ms) if life.state_at(now_ms) != "removed"}
        # The clock was set back: what has been erased stays removed.
        self._stored = tuple(
            msgspec.structs.replace(row, removes_ms=now_ms) if row.kid in alive and not row.wrapped_private else row
            for row in stored
        )
        self._lives = lives_of(self._stored, now_ms)
        return bool(stored)

    async def _require_keys(self) -> None:
        if not await self._read():
            raise RotationRefused("there is no signing key yet; the first start of fastauth serve makes one")

    def _ring(self) -> KeyRing:
        """The ring of what was read, which is in use from now on."""
        published = {life.kid for life in self._lives if life.state_at(self._read_ms) != "removed"}
        keys = [self._parse(row) for row in self._stored if row.kid in published]
        ring = KeyRing(keys, active_kid(self._lives, self._read_ms))
        self._parsed = {key.kid: key for key in keys}
        self._used_version = self._version
        self._changes_ms = next_change_ms(self._lives, self._read_ms)
        return ring

    def _parse(self, row: StoredKey) -> SigningKey:
        if row.kid in self._parsed:
            return self._parsed[row.kid]
        return unwrap_key(row, self._load_master(False))

    async def _make_key(self, alg: Algorithm) -> SigningKey:
        """A new key, unless the master key is not the one of the ring: what another has wrapped locks every server out.

        Raises MasterKeyRefused or KeyRefused.
        """
        refusal: FastauthError | None = None
        for row in self._stored:
            if row.wrapped_private:
                try:
                    self._parse(row)
                    break
                except (MasterKeyRefused, KeyRefused) as error:  # one row may be damaged, and have to be replaced
                    refusal = error
        else:
            if refusal is not None:
                raise refusal
        return await asyncio.to_thread(SigningKey.generate, alg)

    def _wrap(self, key: SigningKey, now_ms: int, activates_ms: int, *, may_create: bool = False) -> StoredKey:
        return wrap_key(key, self._load_master(may_create), secrets.token_bytes(_NONCE_BYTES), now_ms, activates_ms)

    async def _erase_removed(self) -> None:
        """Only of keys that somebody removed: that the usual course is over may be the error of one node's clock, and
        erasing cannot be undone.
        """
        now_ms = self._clock()
        erasable = {life.kid for life in self._lives if life.is_erasable_at(now_ms)}
        decided = {row.kid for row in self._stored if row.removes_ms is not None}
        kids = [row.kid for row in self._stored if row.kid in erasable & decided and row.wrapped_private]
        if kids:
            await self._store.erase_private(kids)
            self._stored = tuple(
                msgspec.structs.replace(row, wrapped_private=b"") if row.kid in kids else row for row in self._stored
            )

    def _tell_rotated(self, key: SigningKey, activates_ms: int, reason: str, removed: Sequence[str] = ()) -> None:
        signs_from = datetime.fromtimestamp(activates_ms / 1000, UTC).isoformat(timespec="seconds")
        self._audit.record(
            "key_rotated",
            kid=key.kid,
            alg=key.alg,
            signs_from=signs_from.replace("+00:00", "Z"),
            reason=reason,
            removed=removed,
        )

    def _tell(self, reason: str) -> None:
        last, at = self._told
        if reason != last or time.monotonic() - at >= _SAME_FAILURE_LOG_S:
            self._told = (reason, time.monotonic())
            get_log().error("key_ring_not_followed", reason=reason)
