"""The rules of sessions: what a refresh token leads to, and for how long."""

import secrets

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastauth.domain.errors import InvalidGrant
from fastauth.domain.limits import Limit
from fastauth.domain.refresh_tokens import RefreshToken
from fastauth.domain.sessions import RefreshReused, Replay, Rotation, Session, SessionRules
from tests.cases import each

NOW_S = 1_800_000_000
NOW_US = NOW_S * 1_000_000
RULES = SessionRules(idle_s=1_000, max_s=5_000, grace_s=10, access_ttl_s=300, per_family=None)


def begun(rules: SessionRules = RULES) -> tuple[Session, RefreshToken]:
    return rules.begin("sub-alice", "fastauth", "user", NOW_S, secrets.token_bytes)


def refreshed(
    session: Session, token: RefreshToken, after_s: float = 0, rules: SessionRules = RULES
) -> Rotation | Replay:
    return rules.refresh(session, token, NOW_US + round(after_s * 1_000_000), secrets.token_bytes)


def rotated(session: Session, token: RefreshToken, after_s: float = 0, rules: SessionRules = RULES) -> Rotation:
    outcome = refreshed(session, token, after_s, rules)
    assert isinstance(outcome, Rotation)
    return outcome


def test_a_session_begins_with_one_token_of_which_only_the_hash_is_kept() -> None:
    session, token = begun()
    assert (session.sid, session.sub, session.client_id, session.scope) == (token.sid, "sub-alice", "fastauth", "user")
    assert (session.auth_time_s, session.expires_at_s, session.ends_at_s) == (NOW_S, NOW_S + 5_000, NOW_S + 1_000)
    assert session.tokens_until_s == NOW_S + 300
    assert session.token_hash == token.hash
    assert (session.parent_hash, session.sealed_successor) == (None, None)
    stored = msgspec.msgpack.encode(session)
    assert token.secret not in stored
    assert token.handle not in stored


def test_the_newest_token_is_exchanged_for_its_successor() -> None:
    session, token = begun()
    rotation = rotated(session, token, 100)
    assert rotation.token != token
    assert rotation.token.sid == session.sid
    after = rotation.session
    assert (after.token_hash, after.parent_hash) == (rotation.token.hash, token.hash)
    assert (after.ends_at_s, after.expires_at_s) == (NOW_S + 1_100, NOW_S + 5_000)
    assert after.tokens_until_s == NOW_S + 400
    assert (after.auth_time_s, after.scope, after.sub) == (session.auth_time_s, session.scope, session.sub)
    assert rotation.token.secret not in msgspec.msgpack.encode(after)


def test_two_exchanges_of_one_token_have_two_successors_until_one_of_them_is_stored() -> None:
    session, token = begun()
    assert rotated(session, token).token != rotated(session, token).token


@each("after_s", [0, 0.001, 5, 10])
def test_within_the_grace_the_predecessor_gives_the_very_same_successor(after_s: float) -> None:
    session, token = begun()
    rotation = rotated(session, token)
    for _ in range(3):
        outcome = refreshed(rotation.session, token, after_s)
        assert isinstance(outcome, Replay)
        assert outcome.token.text == rotation.token.text


@each("after_s", [10.001, 11, 60, 999])
def test_after_the_grace_the_predecessor_is_a_copy(after_s: float) -> None:
    session, token = begun()
    rotation = rotated(session, token)
    with pytest.raises(RefreshReused):
        refreshed(rotation.session, token, after_s)


def test_only_the_immediate_predecessor_has_a_grace() -> None:
    session, first = begun()
    second = rotated(session, first)
    third = rotated(second.session, second.token)
    assert isinstance(refreshed(third.session, second.token), Replay)
    with pytest.raises(RefreshReused):
        refreshed(third.session, first)


def test_a_forged_token_with_the_right_handle_is_a_copy_too() -> None:
    session, token = begun()
    with pytest.raises(RefreshReused):
        refreshed(session, token.successor(secrets.token_bytes))


def test_without_a_grace_nothing_is_sealed_and_a_token_is_good_once() -> None:
    rules = msgspec.structs.replace(RULES, grace_s=0)
    session, token = begun(rules)
    rotation = rotated(session, token, rules=rules)
    assert rotation.session.sealed_successor is None
    with pytest.raises(RefreshReused):
        refreshed(rotation.session, token, rules=rules)


def test_a_successor_that_was_wiped_is_given_no_more() -> None:
    session, token = begun()
    rotation = rotated(session, token)
    wiped = msgspec.structs.replace(rotation.session, sealed_successor=None)
    with pytest.raises(RefreshReused):
        refreshed(wiped, token)


@each(("behind_s", "is_replay"), [(1, True), (60, True), (61, False), (7_200, False)])
def test_a_node_whose_clock_is_behind_a_little_replays_and_a_clock_that_jumped_does_not(
    behind_s: int, is_replay: bool
) -> None:
    session, token = begun()
    rotation = rotated(session, token, 100)
    if is_replay:
        assert isinstance(refreshed(rotation.session, token, 100 - behind_s), Replay)
    else:
        with pytest.raises(RefreshReused):
            refreshed(rotation.session, token, 100 - behind_s)


def test_a_session_that_nobody_refreshes_ends() -> None:
    session, token = begun()
    assert isinstance(refreshed(session, token, 999.9), Rotation)
    for after_s in (1_000, 1_001, 10**6):
        with pytest.raises(InvalidGrant):
            refreshed(session, token, after_s)


def test_a_session_ends_however_busy_it_is_and_its_access_tokens_with_it() -> None:
    session, token = begun()
    for after_s in range(500, 5_000, 500):
        rotation = rotated(session, token, after_s)
        session, token = rotation.session, rotation.token
        assert session.ends_at_s <= NOW_S + 5_000
        assert session.tokens_until_s <= NOW_S + 5_000
    assert isinstance(refreshed(session, token, 4_999), Rotation)
    with pytest.raises(InvalidGrant):
        refreshed(session, token, 5_000)


def test_an_old_token_of_a_session_that_has_ended_is_just_invalid() -> None:
    session, first = begun()
    second = rotated(session, first)
    with pytest.raises(InvalidGrant):
        refreshed(second.session, first, 2_000)


def test_exchanges_are_limited_and_the_limit_is_kept_with_the_session() -> None:
    rules = msgspec.structs.replace(RULES, per_family=Limit.parse("1/m burst 3"))
    session, token = begun(rules)
    for _ in range(3):
        rotation = rotated(session, token, rules=rules)
        assert rotation.pace is not None
        assert rotation.pace.allowed
        session, token = rotation.session, rotation.token
    refused = rotated(session, token, rules=rules)
    assert refused.pace is not None
    assert not refused.pace.allowed
    assert 59_000_000 < refused.pace.retry_after_us <= 60_000_000
    later = rotated(session, token, 60, rules)
    assert later.pace is not None
    assert later.pace.allowed


def test_whoever_races_for_a_token_or_retries_costs_the_session_nothing() -> None:
    rules = msgspec.structs.replace(RULES, per_family=Limit.parse("1/m burst 2"))
    session, token = begun(rules)
    rotation = rotated(session, token, rules=rules)
    for _ in range(10):
        assert isinstance(refreshed(rotation.session, token, rules=rules), Replay)


def test_a_clock_that_jumped_back_locks_no_session_out() -> None:
    rules = msgspec.structs.replace(RULES, per_family=Limit.parse("1/m burst 2"))
    session, token = begun(rules)
    for _ in range(2):
        ahead = rotated(session, token, 800, rules)
        session, token = ahead.session, ahead.token
    assert ahead.pace is not None
    refused = rotated(session, token, 790, rules).pace  # clocks of two nodes may differ
    assert refused is not None
    assert not refused.allowed
    pace = rotated(session, token, 0, rules).pace
    assert pace is not None
    assert pace.allowed


def test_a_clock_that_jumped_back_a_long_way_locks_no_session_out_for_longer_than_its_window() -> None:
    rules = msgspec.structs.replace(RULES, per_family=Limit.parse("1/m burst 2"))
    session, token = begun(rules)
    ahead = rotated(session, token, 800, rules)
    session, token = ahead.session, ahead.token
    pace = rotated(session, token, -50_000, rules).pace
    assert pace is not None
    assert pace.retry_after_us <= 120_000_000


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.floats(0, 400)), max_size=12))
def test_whatever_is_presented_there_is_one_line_of_descent(steps: list[tuple[int, float]]) -> None:
    """Presenting the nth token from the end: the newest moves the line, its parent repeats it, older ones end it."""
    session, token = begun()
    line, now_s, rotated_at_s = [token], 0.0, -1_000.0
    for back, wait_s in steps:
        now_s += wait_s
        presented = line[-1 - min(back, len(line) - 1)]
        try:
            outcome = refreshed(session, presented, now_s)
        except InvalidGrant:
            assert session.ends_at_s <= NOW_S + now_s
            return
        except RefreshReused:
            assert presented is not line[-1]
            assert len(line) > 2 or now_s - rotated_at_s >= RULES.grace_s - 0.002
            return
        if isinstance(outcome, Rotation):
            assert presented is line[-1]
            session, rotated_at_s = outcome.session, now_s
            line.append(outcome.token)
        else:
            assert presented is line[-2]
            assert outcome.token == line[-1]
            assert now_s - rotated_at_s <= RULES.grace_s + 0.002


def test_nothing_printed_of_a_session_is_a_hash() -> None:
    session, token = begun()
    assert token.hash.hex() not in repr(session)
    assert "token_hash" not in repr(session)
