"""Limits of a running server: who is refused, for how long, and what happens when Redis goes."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.running import (
    CHEAP,
    FULL,
    Answer,
    KeepAlive,
    RunningServer,
    cheap_hash,
    copy_without_users,
    import_lines,
    login_bytes,
    running_server,
    wait_for,
)
from tests.redis_servers import RedisServer, running_redis

pytestmark = pytest.mark.integration

PASSWORD = "correct horse battery staple"
SLOW = {**CHEAP, "FASTAUTH_LIMITS__LOGIN_PER_USER": "1/m burst 3"}


def data_with(path: Path, *names: str) -> Path:
    copy_without_users(path)
    import_lines(path, [{"username": name, "password_hash": cheap_hash(PASSWORD)} for name in names])
    return path


def metric(server: RunningServer, limit: str, decision: str) -> int:
    lines = server.request("GET", "/metrics").body.decode().splitlines()
    start = f'fastauth_limit_decisions_total{{decision="{decision}",limit="{limit}"}} '
    return next(int(float(line.removeprefix(start))) for line in lines if line.startswith(start))


def post(server: RunningServer, name: str, password: str, **headers: str) -> Answer:
    body = json.dumps({"username": name, "password": password})
    return server.request("POST", "/auth", body, {"Content-Type": "application/json", **headers})


async def all_at_once(port: int, requests: list[bytes]) -> Counter[int]:
    """The statuses of requests that are under way at the same time, each on a connection of its own."""

    async def one(request: bytes) -> int:
        connection = await KeepAlive.open(port)
        try:
            return (await connection.send(request)).status
        finally:
            await connection.close()

    return Counter(await asyncio.gather(*(one(request) for request in requests)))


# ------------------------------------------------------------------ one node


def test_out_of_the_box_an_account_bears_ten_failures_and_an_address_sixty_attempts(tmp_path: Path) -> None:
    env = {
        **CHEAP,
        "FASTAUTH_LIMITS__LOGIN_PER_IP": "30/m burst 60",
        "FASTAUTH_LIMITS__LOGIN_PER_USER": "10/m burst 10",
    }
    with running_server(data_with(tmp_path / "data", "alice"), env=env) as server:
        statuses = [server.login("alice", "wrong").status for _ in range(12)]
        assert statuses == [401] * 10 + [429] * 2
        others = [server.login(f"user{number}", "wrong").status for number in range(50)]
        assert others[:48] == [401] * 48
        assert 429 in others[48:]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Three failures a minute and account; it believes the proxy on this machine."""
    env = {**SLOW, "FASTAUTH_PROXY__TRUSTED": "loopback", "FASTAUTH_LIMITS__LOGIN_PER_IP": "100/m burst 60"}
    env["FASTAUTH_LIMITS__RATELIMIT_FIELDS"] = "1"
    names = [f"user{number}" for number in range(10)]
    with running_server(data_with(tmp_path_factory.mktemp("limits") / "data", *names), env=env) as running:
        yield running


def fail_until_refused(server: RunningServer, name: str, **headers: str) -> Answer:
    answers = [post(server, name, "wrong", **headers) for _ in range(4)]
    assert [answer.status for answer in answers] == [401, 401, 401, 429]
    return answers[-1]


def test_a_refusal_is_the_same_for_names_that_exist_and_names_that_do_not(server: RunningServer) -> None:
    answers = [fail_until_refused(server, name) for name in ("user0", "nobody", "no such name")]
    assert {answer.body for answer in answers} == {answers[0].body}
    varying = {"date", "retry-after", "ratelimit"}
    shapes = [{name: value for name, value in answer.headers.items() if name not in varying} for answer in answers]
    assert shapes == [shapes[0]] * 3
    assert all(58 <= int(answer.headers["retry-after"]) <= 60 for answer in answers)
    assert answers[0].json["code"] == "rate_limited"


def test_any_spelling_of_a_name_is_one_budget(server: RunningServer) -> None:
    statuses = [server.login(name, "wrong").status for name in ("user1", "USER1", "Ｕser1", "user1")]
    assert statuses == [401, 401, 401, 429]


def test_the_owner_gets_in_from_a_known_device_while_the_account_is_under_attack(server: RunningServer) -> None:
    owner = server.login("user2", PASSWORD)
    cookie = owner.headers["set-cookie"].partition(";")[0]
    assert all(word in owner.headers["set-cookie"] for word in ("__Host-", "Secure", "HttpOnly", "SameSite", "Path=/"))
    token = post(server, "user2", PASSWORD, **{"Login-Device": "new"}).headers["login-device"]
    fail_until_refused(server, "user2")
    assert server.login("user2", PASSWORD).status == 429
    assert post(server, "user2", PASSWORD, Cookie=f"a=b; {cookie}; c=d").status == 200
    assert post(server, "user2", PASSWORD, **{"Login-Device": token}).status == 200
    # It is a budget of its own and no pass, and of no use for another account.
    assert post(server, "user3", "wrong", **{"Login-Device": token}).status == 401
    fail_until_refused(server, "user2", **{"Login-Device": token})
    assert post(server, "user2", PASSWORD, Cookie=cookie).status == 200
    assert "set-cookie" not in post(server, "user2", "wrong", Cookie=cookie).headers


def test_the_client_is_the_first_untrusted_hop_and_no_header_of_its_own_changes_that(server: RunningServer) -> None:
    def statuses(*forwarded: str) -> Counter[int]:
        answers = [post(server, "nobody-at-all", "", **{"X-Forwarded-For": hops}) for hops in forwarded]
        return Counter(answer.status for answer in answers)

    spoofed = [f"198.51.100.{number}, 192.0.2.7" for number in range(80)]
    assert statuses(*spoofed)[429] > 10
    assert statuses(*(f"192.0.3.{number}" for number in range(80)))[429] == 0
    assert statuses(*(f"2001:db8::{number:x}" for number in range(1, 81)))[429] > 10


def test_the_fields_tell_what_is_left_on_every_answer(server: RunningServer) -> None:
    headers = {"X-Forwarded-For": "192.0.2.99"}
    for answer in (post(server, "user4", PASSWORD, **headers), post(server, "user4", "", **headers)):
        assert answer.headers["ratelimit-policy"] == '"login_per_ip";q=60;w=36'
        assert answer.headers["ratelimit"].startswith('"login_per_ip";r=')


def test_decisions_are_counted_by_limit_and_only_operators_read_them(server: RunningServer) -> None:
    before = metric(server, "login_per_user", "refused")
    fail_until_refused(server, "user5")
    assert metric(server, "login_per_user", "refused") == before + 1
    assert server.request("GET", "/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status == 403


def test_guesses_at_the_same_time_never_exceed_the_budget(tmp_path: Path) -> None:
    count = 1_000 if FULL else 150
    with running_server(data_with(tmp_path / "data", "alice"), "--workers", "2", env=SLOW) as server:
        statuses = asyncio.run(all_at_once(server.port, [login_bytes("alice", f"guess {n}") for n in range(count)]))
        assert statuses[401] == 3
        assert statuses[429] + statuses[503] == count - 3


def test_correct_logins_at_the_same_time_all_pass_though_they_are_more_than_the_budget(tmp_path: Path) -> None:
    count = 1_000 if FULL else 150
    with running_server(data_with(tmp_path / "data", "alice"), "--workers", "2", env=SLOW) as server:
        for _ in range(count // 50):  # no more at once than the hash queue takes
            assert asyncio.run(all_at_once(server.port, [login_bytes("alice", PASSWORD)] * 50)) == {200: 50}


def test_waiting_as_told_admits_and_a_lockout_ends_by_itself(tmp_path: Path) -> None:
    env = {**CHEAP, "FASTAUTH_LIMITS__LOGIN_PER_USER": "1/s burst 2", "FASTAUTH_LIMITS__LOGIN_PER_IP": "2/s burst 6"}
    with running_server(data_with(tmp_path / "data", "alice"), env=env) as server:
        while (answer := server.login("alice", "wrong")).status == 401:
            pass
        assert answer.status == 429
        time.sleep(int(answer.headers["retry-after"]))
        assert server.login("alice", PASSWORD).status == 200
        while (answer := server.login("alice", PASSWORD)).status == 200:
            pass
        assert answer.status == 429
        time.sleep(int(answer.headers["retry-after"]))
        assert server.login("alice", PASSWORD).status == 200


def test_a_shadow_refuses_nobody_and_is_counted(tmp_path: Path) -> None:
    env = {
        **CHEAP,
        "FASTAUTH_LIMITS__LOGIN_PER_USER": "1/m burst 1 shadow",
        "FASTAUTH_LIMITS__LOGIN_PER_IP": "1/m burst 1 shadow",
    }
    with running_server(data_with(tmp_path / "data", "alice"), env=env) as server:
        assert [server.login("alice", "wrong").status for _ in range(4)] == [401] * 4
        assert metric(server, "login_per_user", "would_refuse") == 3
        assert metric(server, "login_per_ip", "would_refuse") == 3


def is_alive_again(server: RunningServer) -> bool:
    try:
        return server.request("GET", "/livez").status == 200
    except OSError:  # nobody listens between two workers
        return False


def test_a_killed_worker_and_a_restart_leave_the_limits_as_they_were(tmp_path: Path) -> None:
    data = data_with(tmp_path / "data", "alice")
    with running_server(data, "--workers", "2", env=SLOW) as server:
        fail_until_refused(server, "alice")
        first, second = server.workers()
        for pid in (first, second):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(set(server.workers()) - {first, second}) == 2)
        wait_for(lambda: is_alive_again(server))
        assert server.login("alice", PASSWORD).status == 429
        server.stop()
        with running_server(data, env=SLOW) as again:
            assert again.login("alice", PASSWORD).status == 429


def test_verifications_are_limited_by_address_when_that_is_asked_for(tmp_path: Path) -> None:
    env = {**CHEAP, "FASTAUTH_LIMITS__VERIFY_PER_IP": "1/m burst 5"}
    with running_server(data_with(tmp_path / "data", "alice"), env=env) as server:
        token = server.login("alice", PASSWORD).json["token"]
        assert [server.verify(token).status for _ in range(7)] == [200] * 5 + [429] * 2


# ------------------------------------------------------------------ two nodes on one Redis


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


def ready_state(server: RunningServer) -> dict[str, object]:
    answer = server.request("GET", "/readyz")
    assert answer.status == 200
    state: dict[str, object] = answer.json
    return state


DEGRADED = {"status": "ready", "degraded": ["redis"]}


@pytest.mark.parametrize("tier", ["exact", "leased"])
def test_two_nodes_share_a_limit(tmp_path: Path, redis: RedisServer, tier: str) -> None:
    env = {**SLOW, "FASTAUTH_REDIS_URL": redis.url, "FASTAUTH_LIMITS__VERIFY_PER_IP": f"1/m burst 20 {tier}"}
    with (
        running_server(data_with(tmp_path / "a", "alice"), env=env) as one,
        running_server(data_with(tmp_path / "b", "alice"), env=env) as two,
    ):
        statuses = Counter(server.request("GET", "/verify").status for _ in range(20) for server in (one, two))
        assert 18 <= statuses[401] <= 20  # a lease of the other node may lie idle
        assert [one.login("alice", "wrong").status, two.login("alice", "wrong").status] == [401, 401]
        assert [one.login("alice", "wrong").status, two.login("alice", "wrong").status] == [401, 429]


def test_without_redis_a_node_guards_its_share_says_so_once_and_recovers(tmp_path: Path, redis: RedisServer) -> None:
    env = {**SLOW, "FASTAUTH_REDIS_URL": redis.url, "FASTAUTH_LIMITS__LOGIN_PER_IP": "1000/s burst 1000"}
    with running_server(data_with(tmp_path / "data", "alice", "bob"), env=env) as server:
        assert ready_state(server) == {"status": "ready"}
        fail_until_refused(server, "alice")
        redis.pause()
        started = time.monotonic()
        assert server.login("bob", PASSWORD).status == 200
        assert time.monotonic() - started < 1
        assert ready_state(server) == DEGRADED
        assert server.login("alice", PASSWORD).status == 429  # the failures that Redis knew are known here
        fail_until_refused(server, "bob")
        redis.resume()
        wait_for(lambda: ready_state(server) == {"status": "ready"}, 5)
        assert server.login("bob", PASSWORD).status == 429  # and what was counted here is known to Redis
        redis.kill()
        wait_for(lambda: ready_state(server) == DEGRADED, 5)
        assert server.login("alice", PASSWORD).status == 429
        redis.start()
        wait_for(lambda: ready_state(server) == {"status": "ready"}, 5)
        assert server.login("alice", PASSWORD).status == 429
        redis.client().flushall()
        assert server.login("alice", PASSWORD).status == 429
        assert (server.log.count("redis_lost"), server.log.count("redis_back")) == (2, 2)
        metrics = server.request("GET", "/metrics").body.decode()
        assert 'fastauth_redis_changes_total{change="lost"} 2.0' in metrics


def test_a_server_starts_without_redis_and_finds_it_later(tmp_path: Path, redis: RedisServer) -> None:
    redis.kill()
    env = {**SLOW, "FASTAUTH_REDIS_URL": redis.url}
    with running_server(data_with(tmp_path / "data", "alice"), env=env) as server:
        assert ready_state(server) == DEGRADED
        assert server.login("alice", PASSWORD).status == 200
        redis.start()
        wait_for(lambda: ready_state(server) == {"status": "ready"}, 5)
        assert server.log.count("redis_lost") == 1


def test_keys_in_redis_expire_and_name_nobody(tmp_path: Path, redis: RedisServer) -> None:
    env = {**SLOW, "FASTAUTH_REDIS_URL": redis.url, "FASTAUTH_REDIS_PREFIX": "eu:auth"}
    with running_server(data_with(tmp_path / "data", "alice"), env=env) as server:
        server.login("alice", "wrong")
        client = redis.client()
        wait_for(lambda: any("failed" in key for key in client.scan_iter()))
        for key in client.scan_iter():
            assert key.startswith("eu:auth:")
            assert "alice" not in key
            assert "127.0.0.1" not in key
            assert client.pttl(key) > 0
