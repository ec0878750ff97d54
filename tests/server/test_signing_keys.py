"""The signing keys of a real database: made once, rotated by one of many, and followed by all."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastauth.backends.sqlite.database import Database
from fastauth.backends.sqlite.keys import SqliteKeyStore
from fastauth.backends.sqlite.leases import SqliteLeaseStore
from fastauth.domain.errors import MasterKeyRefused, Unavailable
from fastauth.domain.ports import StoredKey
from fastauth.jose.keyring import KeyRing
from fastauth.jose.keys import SigningKey
from fastauth.jose.refusals import KeyRefused
from fastauth.jose.rotation import KNOWN_AFTER_MS, LONGEST_TOKEN_LIFE_S, NODE_SKEW_S, REMOVED_AFTER_MS, RotationRefused
from fastauth.jose.wrapping import MasterKey
from fastauth.server import signing_keys
from fastauth.server.settings import load_settings
from fastauth.server.signing_keys import POLL_S, SigningKeys
from tests.conformance.user_store import run

T = 1_800_000_000_000
AHEAD_MS = 362_000
PERIOD_MS = 90 * 86_400_000
GONE_MS = (LONGEST_TOKEN_LIFE_S + NODE_SKEW_S) * 1000
ERASED_MS = 2 * NODE_SKEW_S * 1000
MASTER = MasterKey(bytes(32))


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now_ms = T

    def __call__(self) -> int:
        return self.now_ms


class Store(SqliteKeyStore):
    """A real store that can fail, and into which somebody else can come between two steps."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.failure: Exception | None = None
        self.reads = 0
        self.before_change: list[Callable[[], Any]] = []

    async def load_keys(self) -> tuple[int, Sequence[StoredKey]]:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        return await super().load_keys()

    async def ring_version(self) -> int:
        if self.failure is not None:
            raise self.failure
        return await super().ring_version()

    async def change_ring(self, version: int, new_key: StoredKey | None, removals: Mapping[str, int]) -> bool:
        while self.before_change:
            await self.before_change.pop()()
        return await super().change_ring(version, new_key, removals)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


@pytest.fixture
def other_stores(database_file: Path, database: Database) -> Iterator[list[Store]]:
    """Those of three other processes."""
    opened = [Database(database_file) for _ in range(3)]
    yield [Store(one) for one in opened]
    for one in opened:
        one.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followers look often, and rotate as soon as it is due."""
    monkeypatch.setattr(signing_keys, "POLL_S", 0.005)


def keys_on(store: SqliteKeyStore, clock: Clock, master: MasterKey = MASTER, **tokens: str) -> SigningKeys:
    """The signing keys of one process. Ed25519, because making an RSA key takes long."""
    named = {f"FASTAUTH_TOKENS__{name.upper()}": value for name, value in {"alg": "Ed25519", **tokens}.items()}
    return SigningKeys(
        store, SqliteLeaseStore(store._database), lambda may_create: master, load_settings(None, named, {}), clock
    )


def states(keys: SigningKeys) -> dict[str, str]:
    return {key.kid: key.state for key in run(keys.listed())}


@contextlib.asynccontextmanager
async def following(keys: SigningKeys) -> AsyncIterator[list[KeyRing]]:
    """The rings that are handed over while it follows."""
    rings: list[KeyRing] = []
    task = asyncio.create_task(keys.follow(rings.append))
    try:
        yield rings
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], Any]) -> float:
    """Wait until it is true; out: how long that took, in seconds."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < 10, "the condition did not come true"
        await asyncio.sleep(0.001)
    return time.monotonic() - started


def longer_than(rings: list[KeyRing], count: int) -> bool:
    return len(rings) > count


def change(database: Database, sql: str, *parameters: object) -> None:
    """Somebody who can write to the database does, and every process is told."""

    def work(connection: Any) -> None:
        connection.execute(sql, parameters)
        connection.execute("UPDATE key_ring SET version = version + 1")

    run(database.write(work))


# ------------------------------------------------------------------ made, rotated, retired


def test_of_several_first_starts_at_once_all_have_the_one_key_that_was_made(
    store: Store, other_stores: list[Store], clock: Clock
) -> None:
    async def all_at_once() -> list[KeyRing]:
        return await asyncio.gather(*(keys_on(one, clock).load() for one in (store, *other_stores)))

    rings = run(all_at_once())
    assert len({ring.active.kid for ring in rings}) == len({ring.jwks for ring in rings}) == 1
    assert states(keys_on(store, clock)) == {rings[0].active.kid: "active"}


def test_the_next_key_is_published_at_once_and_signs_when_everybody_has_fetched_it(store: Store, clock: Clock) -> None:
    keys = keys_on(store, clock)
    first = run(keys.load()).active.kid
    made = run(keys.rotate())
    assert (made.activates_ms, made.existed) == (T + AHEAD_MS, False)
    again = run(keys_on(store, clock).rotate())
    assert (again.kid, again.activates_ms, again.existed) == (made.kid, T + AHEAD_MS, True)
    for now_ms, active in ((T, first), (T + AHEAD_MS - 1, first), (T + AHEAD_MS, made.kid)):
        clock.now_ms = now_ms
        ring = run(keys.load())
        assert ring.active.kid == active
        assert list(ring.verifying.by_kid) == [key["kid"] for key in json.loads(ring.jwks)["keys"]] == [first, made.kid]
    clock.now_ms = T + AHEAD_MS + GONE_MS
    assert list(run(keys.load()).verifying.by_kid) == [made.kid]


def test_after_a_compromise_there_is_one_new_key_and_no_token_of_another_is_taken(store: Store, clock: Clock) -> None:
    keys = keys_on(store, clock)
    first = run(keys.load()).active.kid
    waiting = run(keys.rotate()).kid
    made = run(keys.rotate_now())
    assert made.activates_ms == T + KNOWN_AFTER_MS
    seen = []
    for clock.now_ms in (T, T + KNOWN_AFTER_MS, T + REMOVED_AFTER_MS):
        ring = run(keys.load())
        seen.append((ring.active.kid, set(ring.verifying.by_kid)))
    assert waiting not in {first, made.kid}
    assert seen == [(first, {first, made.kid}), (made.kid, {first, made.kid}), (made.kid, {made.kid})]


def test_retiring_goes_by_the_rules_and_a_second_time_it_says_so(store: Store, clock: Clock) -> None:
    keys = keys_on(store, clock)
    first = run(keys.load()).active.kid
    second = run(keys.rotate()).kid
    with pytest.raises(RotationRefused, match="this key signs"):
        run(keys.retire(first, at_once=True))
    assert run(keys.retire(second, at_once=False)) == "removed"
    assert run(keys.retire(second, at_once=False)) == "removed_before"
    third = run(keys.rotate()).kid
    clock.now_ms += AHEAD_MS
    with pytest.raises(RotationRefused, match="still be alive"):
        run(keys.retire(first, at_once=False))
    assert run(keys.retire(first, at_once=True)) == "removed"
    assert states(keys) == {first: "removed", second: "removed", third: "active"}
    made = run(keys.rotate_now())
    with pytest.raises(RotationRefused, match="rotate --now"):
        run(keys.retire(made.kid, at_once=True))


def test_without_keys_commands_refuse_and_make_nothing(store: Store, clock: Clock) -> None:
    keys = keys_on(store, clock)
    for work in (keys.rotate(), keys.rotate_now(), keys.retire("k", at_once=True), keys.load_existing()):
        with pytest.raises(RotationRefused, match="no signing key yet"):
            run(work)
    assert run(keys.listed()) == []


def test_another_algorithm_in_the_settings_publishes_a_next_key_of_it_once(store: Store, clock: Clock) -> None:
    old = run(keys_on(store, clock).load()).active
    for _ in range(3):  # restarts
        keys = keys_on(store, clock, alg="ES256")
        assert run(keys.load()).active.kid == old.kid
        run(keys.start_serving())
    assert [(key.alg, key.state) for key in run(keys.listed())] == [("Ed25519", "active"), ("ES256", "next")]
    clock.now_ms += AHEAD_MS
    assert run(keys.load()).active.alg == "ES256"


def test_a_key_of_another_algorithm_that_waits_longer_is_not_overtaken(store: Store, clock: Clock) -> None:
    run(keys_on(store, clock).load())
    run(keys_on(store, clock, publish_ahead_s="5000").rotate())
    keys = keys_on(store, clock, alg="ES256")
    for _ in range(3):
        run(keys.load())
        run(keys.start_serving())
    listed = run(keys.listed())
    assert [key.alg for key in listed] == ["Ed25519", "Ed25519", "ES256"]
    assert listed[-1].activates_ms == T + 5_000_001
    assert run(keys.rotate()).existed


@pytest.mark.usefixtures("quick")
def test_nodes_that_want_different_algorithms_add_a_key_at_each_start_and_none_while_they_run(
    store: Store, clock: Clock
) -> None:
    nodes = [keys_on(store, clock, alg=alg) for alg in ("RS256", "ES256")]
    for node in nodes:
        run(node.load())
        run(node.start_serving())

    async def follow_together() -> None:
        async with following(nodes[0]), following(nodes[1]):
            for _ in range(5):
                clock.now_ms += AHEAD_MS + 1
                await asyncio.sleep(0.02)

    run(follow_together())
    assert [key.alg for key in run(nodes[0].listed())] == ["RS256", "ES256"]


def test_a_command_rotates_as_the_servers_do_whatever_its_own_settings_are(store: Store, clock: Clock) -> None:
    server = keys_on(store, clock, alg="ES256", publish_ahead_s="5000")
    run(server.load())
    run(server.start_serving())
    command = keys_on(store, clock)
    made = run(command.rotate())
    assert made.activates_ms == T + 5_000_000
    run(command.rotate_now())
    assert {key.alg for key in run(command.listed())} == {"ES256"}


def test_a_server_that_publishes_for_a_shorter_time_than_before_rotates_as_before_once_more(
    store: Store, clock: Clock
) -> None:
    before = keys_on(store, clock, publish_ahead_s="5000")
    run(before.load())
    run(before.start_serving())
    shorter = keys_on(store, clock, alg="ES256", publish_ahead_s="400")
    run(shorter.load())
    run(shorter.start_serving())
    assert run(shorter.listed())[-1].activates_ms == T + 5_000_000


# ------------------------------------------------------------------ others change the ring meanwhile


def test_a_rotation_that_another_was_faster_with_adds_nothing(
    store: Store, other_stores: list[Store], clock: Clock
) -> None:
    run(keys_on(store, clock).load())
    store.before_change.append(keys_on(other_stores[0], clock).rotate)
    made = run(keys_on(store, clock).rotate())
    assert made.existed
    assert list(states(keys_on(store, clock)).values()) == ["active", "next"]


def test_a_compromise_also_removes_what_was_published_while_its_key_was_made(
    store: Store, other_stores: list[Store], clock: Clock
) -> None:
    run(keys_on(store, clock).load())
    store.before_change.append(keys_on(other_stores[0], clock).rotate)
    made = run(keys_on(store, clock).rotate_now())
    clock.now_ms += REMOVED_AFTER_MS
    assert [kid for kid, state in states(keys_on(store, clock)).items() if state != "removed"] == [made.kid]


def test_two_compromises_at_once_leave_one_key_that_signs(
    store: Store, other_stores: list[Store], clock: Clock
) -> None:
    run(keys_on(store, clock).load())

    async def both() -> None:
        await asyncio.gather(keys_on(store, clock).rotate_now(), keys_on(other_stores[0], clock).rotate_now())

    run(both())
    clock.now_ms += REMOVED_AFTER_MS
    assert sorted(states(keys_on(store, clock)).values()) == ["active", "removed", "removed"]


def test_the_times_are_counted_from_when_the_key_is_published_however_long_it_took_to_make(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from before, ``rotate --now`` would sign with a key that no other worker has seen."""
    keys = keys_on(store, clock)
    run(keys.load())
    generate = SigningKey.generate

    def slowly(alg: Any) -> SigningKey:
        clock.now_ms += 5_000
        return generate(alg)

    monkeypatch.setattr(SigningKey, "generate", slowly)
    assert run(keys.rotate()).activates_ms == clock.now_ms + AHEAD_MS
    assert run(keys.rotate_now()).activates_ms == clock.now_ms + KNOWN_AFTER_MS
    assert [key.published_ms for key in run(keys.listed())] == [T, clock.now_ms, T + 5_000]  # by activation


# ------------------------------------------------------------------ following


def test_a_change_by_another_process_is_in_use_within_the_poll_time(
    store: Store, other_stores: list[Store], clock: Clock, record_property: Callable[[str, object], None]
) -> None:
    async def work() -> float:
        keys = keys_on(store, clock)
        await keys.load()
        async with following(keys) as rings:
            made = await keys_on(other_stores[0], clock).rotate()
            took_s = await until(lambda: rings)
            assert made.kid in rings[0].verifying.by_kid
            return took_s

    took_s = run(work())
    record_property("followed_s", round(took_s, 3))
    assert took_s < POLL_S + 0.75  # but for a machine that is busy, a quarter of a second


@pytest.mark.usefixtures("quick")
def test_a_state_that_changes_by_time_alone_is_handed_over_once(store: Store, clock: Clock) -> None:
    async def work() -> None:
        keys = keys_on(store, clock)
        first = (await keys.load()).active.kid
        second = (await keys.rotate()).kid
        async with following(keys) as rings:
            await until(lambda: len(rings) == 1)  # the second is published
            for now_ms, active in ((T + AHEAD_MS - 1, first), (T + AHEAD_MS, second), (T + AHEAD_MS + GONE_MS, second)):
                clock.now_ms = now_ms
                if now_ms != T + AHEAD_MS - 1:
                    count = len(rings)
                    await until(partial(longer_than, rings, count))
                assert rings[-1].active.kid == active
            assert len(rings) == 3
            assert list(rings[-1].verifying.by_kid) == [second]

    run(work())


@pytest.mark.usefixtures("quick")
def test_a_change_is_not_missed_when_something_else_has_read_the_ring_since(store: Store, clock: Clock) -> None:
    async def work() -> None:
        keys = keys_on(store, clock)
        await keys.load()
        second = (await keys.rotate()).kid  # reads, and makes a change of its own
        async with following(keys) as rings:
            await until(lambda: rings)
            clock.now_ms = T + AHEAD_MS
            await keys.listed()  # reads beyond the time at which the second one signs
            await until(lambda: rings[-1].active.kid == second)

    run(work())


@pytest.mark.usefixtures("quick")
def test_of_several_followers_one_rotates_when_the_period_is_over_and_all_sign_with_its_key(
    store: Store, other_stores: list[Store], clock: Clock
) -> None:
    async def work() -> None:
        workers = [keys_on(one, clock) for one in (store, *other_stores)]
        for keys in workers:
            await keys.load()
        async with contextlib.AsyncExitStack() as stack:
            rings = [await stack.enter_async_context(following(keys)) for keys in workers]
            clock.now_ms = T + PERIOD_MS - AHEAD_MS - 1
            await asyncio.sleep(0.02)
            assert not any(rings)
            clock.now_ms += 1
            await until(lambda: all(rings))
            reads = [one.reads for one in (store, *other_stores)]
            clock.now_ms = T + PERIOD_MS
            await until(lambda: all(one.reads > was for one, was in zip((store, *other_stores), reads, strict=True)))
            await until(lambda: len({ring[-1].active.kid for ring in rings}) == 1)
            await asyncio.sleep(0.02)
        listed = await workers[0].listed()
        assert [(key.state, key.activates_ms) for key in listed] == [("retired", T), ("active", T + PERIOD_MS)]
        assert {ring[-1].active.kid for ring in rings} == {listed[1].kid}

    run(work())


def test_a_worker_that_waits_for_its_turn_to_rotate_goes_on_following(
    store: Store, other_stores: list[Store], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once slept for up to 2 s, in which it missed ``rotate --now``."""
    monkeypatch.setattr(signing_keys, "POLL_S", 0.005)

    async def work() -> None:
        assert await SqliteLeaseStore(store._database).take(signing_keys.LEASE, "another worker", 60)
        keys = keys_on(store, clock, alg="ES256")
        await keys_on(other_stores[0], clock).load()
        await keys.load()
        async with following(keys) as rings:
            for count in (1, 2):
                made = await keys_on(other_stores[0], clock).rotate_now()
                await until(partial(longer_than, rings, count - 1))
                assert made.kid in rings[-1].verifying.by_kid

    run(work())


@pytest.mark.usefixtures("quick")
def test_while_the_database_does_not_answer_the_last_ring_stays_and_the_failure_is_told_once(
    store: Store, other_stores: list[Store], clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> float:
        keys = keys_on(store, clock)
        await keys.load()
        await keys.rotate()
        async with following(keys) as rings:
            await until(lambda: rings)
            store.failure = Unavailable("database", "disk on fire")
            clock.now_ms += AHEAD_MS  # a change is due, which must not make it look without a pause
            reads = store.reads
            took_s = await until(lambda: store.reads >= reads + 10)
            assert len(rings) == 1
            store.failure = RuntimeError("can't start new thread")
            await until(lambda: store.reads >= reads + 15)
            store.failure = None
            await until(lambda: len(rings) == 2)
            return took_s

    assert run(work()) > 10 * 0.004
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in told] == ["key_ring_not_followed"] * 2
    assert [line["reason"] for line in told] == ["database is unavailable: disk on fire", "RuntimeError"]


@pytest.mark.usefixtures("quick")
def test_a_ring_that_cannot_be_used_leaves_the_last_one_in_use_until_it_is_mended(
    store: Store, database: Database, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = keys_on(store, clock)
    run(keys.load())
    _, (row,) = run(store.load_keys())
    change(database, "UPDATE signing_keys SET kid = 'x'")

    async def work() -> None:
        async with following(keys) as rings:
            reads = store.reads
            await until(lambda: store.reads >= reads + 3)
            assert rings == []
            await database.write(lambda connection: connection.execute("UPDATE signing_keys SET kid = ?", (row.kid,)))
            await until(lambda: rings)
            assert rings[0].active.kid == row.kid

    run(work())
    (line,) = capsys.readouterr().err.splitlines()
    assert "master key" in json.loads(line)["reason"]


# ------------------------------------------------------------------ what is at rest


def test_a_wrapped_key_under_another_kid_is_refused(store: Store, database: Database, clock: Clock) -> None:
    keys = keys_on(store, clock)
    run(keys.load())
    run(keys.rotate())
    first, second = run(keys.listed())
    change(
        database,
        "UPDATE signing_keys SET wrapped_private = (SELECT wrapped_private FROM signing_keys WHERE kid = ?)"
        " WHERE kid = ?",
        second.kid,
        first.kid,
    )
    with pytest.raises(MasterKeyRefused):
        run(keys_on(store, clock).load())


def test_a_key_sealed_under_a_kid_that_is_not_its_own_is_refused(
    store: Store, database: Database, clock: Clock, signing_key: SigningKey
) -> None:
    run(keys_on(store, clock).load())
    sealed = MASTER.wrap(signing_key.to_der(), "stolen", bytes(12))
    change(database, "UPDATE signing_keys SET kid = 'stolen', wrapped_private = ?", sealed)
    with pytest.raises(KeyRefused, match="kid"):
        run(keys_on(store, clock).load())


def test_a_public_half_that_was_changed_in_the_database_is_never_published(
    store: Store, database: Database, clock: Clock, other_key: SigningKey
) -> None:
    ring = run(keys_on(store, clock).load())
    change(database, "UPDATE signing_keys SET public_jwk = ?", other_key.public_jwk_json())
    again = run(keys_on(store, clock).load())
    assert (again.jwks, list(again.verifying.by_kid)) == (ring.jwks, [ring.active.kid])
    assert again.verifying.by_kid[ring.active.kid].thumbprint == ring.active.kid


def test_another_master_key_is_refused_and_cannot_add_a_key_that_would_lock_every_server_out(
    store: Store, clock: Clock
) -> None:
    run(keys_on(store, clock).load())
    before = run(store.load_keys())
    wrong = keys_on(store, clock, MasterKey(b"\1" * 32))
    for work in (wrong.load(), wrong.rotate(), wrong.rotate_now()):
        with pytest.raises(MasterKeyRefused, match=r"not the one that wrapped.*restore master\.key"):
            run(work)
    assert run(store.load_keys()) == before


def test_a_damaged_row_does_not_keep_a_compromise_from_being_ended(
    store: Store, database: Database, clock: Clock
) -> None:
    keys = keys_on(store, clock)
    run(keys.load())
    second = run(keys.rotate()).kid
    change(database, "UPDATE signing_keys SET wrapped_private = x'00' WHERE kid = ?", second)
    made = run(keys_on(store, clock).rotate_now())
    clock.now_ms += REMOVED_AFTER_MS
    assert run(keys_on(store, clock).load()).active.kid == made.kid


def wrapped(database: Database) -> list[bool]:
    """Of each key, in order, whether its private half is there."""
    rows = database.read("SELECT length(wrapped_private) FROM signing_keys ORDER BY activates_ms")
    return [length > 0 for (length,) in rows]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("was_down", [False, True], ids=["while it runs", "at the next start"])
def test_the_private_half_of_a_removed_key_is_erased(
    store: Store, database: Database, clock: Clock, was_down: bool
) -> None:
    keys = keys_on(store, clock)
    run(keys.load())
    run(keys.rotate_now())

    async def work() -> None:
        if was_down:
            clock.now_ms = T + REMOVED_AFTER_MS + ERASED_MS
            await keys.load()
        async with following(keys) as rings:
            if not was_down:
                clock.now_ms = T + REMOVED_AFTER_MS
                await until(lambda: rings and len(rings[-1].verifying.by_kid) == 1)
                clock.now_ms = T + REMOVED_AFTER_MS + ERASED_MS - 1
                await asyncio.sleep(0.02)
                assert all(wrapped(database))
                clock.now_ms += 1
            await until(lambda: wrapped(database) == [False, True])

    run(work())


@pytest.mark.usefixtures("quick")
def test_a_key_that_was_erased_stays_removed_when_the_clock_is_set_back(
    store: Store, database: Database, clock: Clock
) -> None:
    """A clock that ran ahead for a while; it once kept the server from starting."""
    keys = keys_on(store, clock)
    first = run(keys.load()).active.kid
    made = run(keys.rotate_now())
    clock.now_ms = T + REMOVED_AFTER_MS + ERASED_MS
    run(keys.load())

    async def erase() -> None:
        async with following(keys):
            await until(lambda: wrapped(database) == [False, True])

    run(erase())
    for clock.now_ms in (T + REMOVED_AFTER_MS, T, T - 10**9):
        ring = run(keys_on(store, clock).load())
        assert (ring.active.kid, list(ring.verifying.by_kid)) == (made.kid, [made.kid])
        assert states(keys_on(store, clock)) == {first: "removed", made.kid: "active"}


@pytest.mark.usefixtures("quick")
def test_a_node_whose_clock_runs_ahead_destroys_nothing(store: Store, database: Database, clock: Clock) -> None:
    keys = keys_on(store, clock)
    first = run(keys.load()).active.kid
    run(keys.rotate())
    ahead = Clock()
    ahead.now_ms += AHEAD_MS + GONE_MS + ERASED_MS
    hasty = keys_on(store, ahead)

    async def follow_for_a_while() -> None:
        async with following(hasty):
            await asyncio.sleep(0.05)

    run(hasty.load())
    run(follow_for_a_while())
    assert all(wrapped(database))
    assert run(keys_on(store, clock).load()).active.kid == first
