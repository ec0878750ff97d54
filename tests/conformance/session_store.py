"""The promises of ``SessionStore``."""

import asyncio
import secrets
from typing import Any

import msgspec
import pytest

from fastauth.domain.ports import RevocationBus, SessionStore, UserStore
from fastauth.domain.refresh_tokens import RefreshToken
from fastauth.domain.sessions import Rotation, Session, SessionRules
from tests.conformance.user_store import run, user

NOW_S = 1_800_000_000
RULES = SessionRules(idle_s=1_000, max_s=5_000, grace_s=10, access_ttl_s=300, per_family=None)


def begun(sub: str = "sub-alice", now_s: int = NOW_S) -> tuple[Session, RefreshToken]:
    return RULES.begin(sub, "fastauth", "user a", now_s, secrets.token_bytes)


def rotation_of(session: Session, token: RefreshToken, now_s: int = NOW_S) -> Rotation:
    outcome = RULES.refresh(session, token, now_s * 1_000_000, secrets.token_bytes)
    assert isinstance(outcome, Rotation)
    return outcome


def is_same(found: Session | None, expected: Session) -> bool:
    """Whether they are equal; times that are kept by another clock may come back a little different."""
    if found is None or abs(found.rotated_at_ms - expected.rotated_at_ms) > 500:
        return False
    if abs(found.pace_us - expected.pace_us) > 500_000:
        return False
    return msgspec.structs.replace(found, rotated_at_ms=expected.rotated_at_ms, pace_us=expected.pace_us) == expected


class SessionStoreSuite:
    """Give ``sessions``, ``users`` and ``bus`` one empty database."""

    @pytest.fixture
    def users(self) -> UserStore:
        raise NotImplementedError

    @pytest.fixture
    def sessions(self) -> SessionStore:
        raise NotImplementedError

    @pytest.fixture
    def bus(self) -> RevocationBus:
        raise NotImplementedError

    @pytest.fixture
    def alice(self, users: UserStore) -> None:
        run(users.add(user("alice"), "alice"))

    def added(self, sessions: SessionStore, **begin: Any) -> tuple[Session, RefreshToken]:
        session, token = begun(**begin)
        assert run(sessions.add(session, 0))
        return session, token

    def ended(self, bus: RevocationBus) -> list[tuple[str, int]]:
        return [(news.name, news.until_s) for news in run(bus.read_after(0, 1_000)) if news.kind == "sid"]

    @pytest.mark.usefixtures("alice")
    def test_an_added_session_is_found_whole(self, sessions: SessionStore) -> None:
        session, token = self.added(sessions)
        assert run(sessions.find(token.sid)) == session
        full = rotation_of(session, token).session
        assert run(sessions.rotate(full, session.token_hash))
        assert is_same(run(sessions.find(token.sid)), full)
        paced = msgspec.structs.replace(full, pace_us=NOW_S * 1_000_000 + 7)
        assert run(sessions.rotate(paced, full.token_hash))
        assert is_same(run(sessions.find(token.sid)), paced)
        for other in ("", token.sid + " ", token.sid.lower() + "x", "x" * 22):
            assert run(sessions.find(other)) is None

    def test_the_claims_of_a_session_outlive_its_rotations(self, sessions: SessionStore, alice: None) -> None:
        token_bytes = secrets.token_bytes
        session, token = RULES.begin("sub-alice", "fastauth", "user", NOW_S, token_bytes, b'{"department":"x"}')
        assert run(sessions.add(session, 0))
        assert run(sessions.rotate(rotation_of(session, token).session, session.token_hash))
        found = run(sessions.find(session.sid))
        assert found is not None
        assert found.claims == b'{"department":"x"}'

    def test_nobody_gets_a_session_who_is_gone_disabled_or_has_another_password(
        self, users: UserStore, sessions: SessionStore
    ) -> None:
        run(users.add(user("alice", credential_generation=3), "alice"))
        run(users.add(user("mallory", disabled=True), "mallory"))
        for sub, generation in (("sub-alice", 2), ("sub-alice", 4), ("sub-mallory", 0), ("sub-nobody", 0)):
            session, token = begun(sub)
            assert not run(sessions.add(session, generation))
            assert run(sessions.find(token.sid)) is None
        session, token = begun("sub-alice")
        assert run(sessions.add(session, 3))

    @pytest.mark.usefixtures("alice")
    def test_of_many_rotations_of_one_token_one_wins(self, sessions: SessionStore) -> None:
        session, token = self.added(sessions)
        rotations = [rotation_of(session, token) for _ in range(50)]

        async def race() -> list[bool]:
            return await asyncio.gather(
                *(sessions.rotate(rotation.session, session.token_hash) for rotation in rotations)
            )

        won = run(race())
        assert won.count(True) == 1
        assert is_same(run(sessions.find(token.sid)), rotations[won.index(True)].session)

    @pytest.mark.usefixtures("alice")
    def test_a_rotation_of_an_old_token_or_an_ended_session_changes_nothing(self, sessions: SessionStore) -> None:
        session, token = self.added(sessions)
        first = rotation_of(session, token)
        assert run(sessions.rotate(first.session, session.token_hash))
        assert not run(sessions.rotate(rotation_of(session, token).session, session.token_hash))
        assert is_same(run(sessions.find(token.sid)), first.session)
        assert run(sessions.end(token.sid, NOW_S))
        second = rotation_of(first.session, first.token)
        assert not run(sessions.rotate(second.session, first.session.token_hash))
        assert run(sessions.find(token.sid)) is None

    @pytest.mark.usefixtures("alice")
    def test_an_ended_session_is_told_until_its_last_access_token_has_expired(
        self, sessions: SessionStore, bus: RevocationBus
    ) -> None:
        _, token = self.added(sessions)
        assert run(sessions.end(token.sid, NOW_S))
        assert not run(sessions.end(token.sid, NOW_S))
        assert run(sessions.find(token.sid)) is None
        assert self.ended(bus) == [(token.sid, NOW_S + 300)]
        assert not run(sessions.end("of-another-time", NOW_S, NOW_S + 77))
        assert self.ended(bus)[1:] == [("of-another-time", NOW_S + 77)]
        old, _ = begun()
        assert run(sessions.add(old, 0))
        assert run(sessions.end(old.sid, NOW_S + 300))
        assert len(self.ended(bus)) == 2

    def test_all_sessions_of_a_user_end_together_and_nobody_elses(
        self, users: UserStore, sessions: SessionStore, bus: RevocationBus
    ) -> None:
        for name in ("alice", "bob"):
            run(users.add(user(name), name))
        mine = [self.added(sessions)[0].sid for _ in range(3)]
        others, _ = self.added(sessions, sub="sub-bob")
        assert run(sessions.end_all("sub-alice", NOW_S)) == 3
        assert run(sessions.end_all("sub-alice", NOW_S)) == 0
        assert sorted(self.ended(bus)) == sorted((sid, NOW_S + 300) for sid in mine)
        assert run(sessions.find(others.sid)) == others

    @pytest.mark.parametrize("how", ["disable", "delete", "set_password"])
    def test_what_happens_to_an_account_ends_its_sessions(
        self, users: UserStore, sessions: SessionStore, bus: RevocationBus, how: str
    ) -> None:
        run(users.add(user("alice"), "alice"))
        session, token = self.added(sessions)
        if how == "disable":
            run(users.set_disabled("alice", True, NOW_S))
        elif how == "delete":
            run(users.delete("alice", NOW_S))
        else:
            run(users.set_password_hash("alice", user("alice").password_hash, NOW_S))
        assert run(sessions.find(token.sid)) is None
        assert self.ended(bus) == [(token.sid, NOW_S + 300)]
        changed = [news.name for news in run(bus.read_after(0, 10)) if news.kind == "user"]
        assert changed == ["sub-alice"]
        assert not run(sessions.rotate(rotation_of(session, token).session, session.token_hash))

    def test_enabling_an_account_ends_nothing(
        self, users: UserStore, sessions: SessionStore, bus: RevocationBus
    ) -> None:
        run(users.add(user("alice"), "alice"))
        session, _ = self.added(sessions)
        run(users.set_disabled("alice", False, NOW_S))
        assert run(sessions.find(session.sid)) == session
        assert [news.kind for news in run(bus.read_after(0, 10))] == ["user"]

    @pytest.mark.usefixtures("alice")
    def test_sessions_that_are_over_are_forgotten_in_small_batches(self, sessions: SessionStore) -> None:
        over = [self.added(sessions, now_s=NOW_S)[0].sid for _ in range(5)]
        alive = self.added(sessions, now_s=NOW_S + 500)[0].sid
        assert run(sessions.purge(NOW_S + 1_000, 3)) == 0
        assert [run(sessions.purge(NOW_S + 1_001, 3)) for _ in range(3)] == [3, 2, 0]
        assert [run(sessions.find(sid)) for sid in over] == [None] * 5
        assert run(sessions.find(alive)) is not None

    @pytest.mark.usefixtures("alice")
    def test_a_session_with_access_tokens_is_kept_until_they_have_expired(self, sessions: SessionStore) -> None:
        session, _ = begun()
        assert run(sessions.add(msgspec.structs.replace(session, tokens_until_s=NOW_S + 2_000), 0))
        assert run(sessions.purge(NOW_S + 1_500, 10)) == 0
        assert run(sessions.purge(NOW_S + 2_001, 10)) == 1

    @pytest.mark.usefixtures("alice")
    def test_sealed_successors_are_wiped_after_the_grace_in_small_batches(self, sessions: SessionStore) -> None:
        sids = []
        for at_s in (NOW_S, NOW_S, NOW_S, NOW_S + 100):
            session, token = self.added(sessions)
            assert run(sessions.rotate(rotation_of(session, token, at_s).session, session.token_hash))
            sids.append(token.sid)
        before_ms = (NOW_S + 50) * 1_000
        assert [run(sessions.wipe_successors(before_ms, 2)) for _ in range(3)] == [2, 1, 0]
        found = [run(sessions.find(sid)) for sid in sids]
        assert [session is not None and session.sealed_successor is not None for session in found] == [False] * 3 + [
            True
        ]
