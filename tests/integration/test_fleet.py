"""Two nodes on one PostgreSQL and one Redis: races, news, keys, clocks, and each dependency failing in every way."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from fastauth.server.diagnosis import has_autogroups
from tests.fault_proxy import FAULTS, Fault, FaultProxy, fault_proxy
from tests.integration.running import (
    CHEAP,
    FASTAUTH,
    FULL,
    Answer,
    RunningServer,
    cheap_hash,
    environment,
    fastauth,
    free_port,
    running_server,
    wait_for,
)
from tests.integration.test_sessions import NO_LIMITS, connected, logout_bytes, refresh_bytes
from tests.postgres_servers import PostgresServer, running_postgres
from tests.redis_servers import RedisServer, running_redis

PASSWORD: Final = "correct horse battery staple"
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
USERS: Final = 4
AHEAD_S: Final = 2
LOCKED_S: Final = 5 if FULL else 3  # three tries take 2.4 s
BOUND_S: Final = 1.0
RECOVERY_S: Final = 2.0
SETTINGS: Final = {
    **CHEAP,
    **NO_LIMITS,
    # So high that nobody is refused, and asked of Redis at every login and refresh.
    "FASTAUTH_LIMITS__LOGIN_PER_IP": "100000/s burst 100000",
    "FASTAUTH_LIMITS__REFRESH_PER_IP": "100000/s burst 100000",
    "FASTAUTH_ISSUER": "https://auth.example",
    "FASTAUTH_MASTER_KEY": "A" * 43,
    "FASTAUTH_TOKENS__JWKS_MAX_AGE_S": "1",
    "FASTAUTH_TOKENS__PUBLISH_AHEAD_S": f"{AHEAD_S}",
}


class Fleet(NamedTuple):
    """``a`` and ``b`` reach PostgreSQL and Redis through proxies; ``env`` is of an operator who does not."""

    a: RunningServer
    b: RunningServer
    postgres: PostgresServer
    redis: RedisServer
    to_postgres: FaultProxy
    to_redis: FaultProxy
    env: dict[str, str]

    def command(self, *arguments: str, stdin: str | None = None) -> str:
        done = fastauth(*arguments, data_dir=self.a.data_dir.parent / "operator", env=self.env, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(running_postgres(durable=True))
        redis = stack.enter_context(running_redis())
        to_postgres = stack.enter_context(fault_proxy(postgres.port))
        to_redis = stack.enter_context(fault_proxy(redis.port))
        env = {**SETTINGS, "FASTAUTH_DATABASE_URL": postgres.url(), "FASTAUTH_REDIS_URL": redis.url}
        proxied = {
            **env,
            "FASTAUTH_DATABASE_URL": postgres.url().replace(str(postgres.port), str(to_postgres.port)),
            "FASTAUTH_REDIS_URL": redis.url.replace(str(redis.port), str(to_redis.port)),
        }
        lines = "".join(
            json.dumps({"username": f"u{number}", "password_hash": cheap_hash(PASSWORD)}) + "\n"
            for number in range(USERS)
        )
        (folder / "users.jsonl").write_text(lines)
        done = fastauth("user", "import", str(folder / "users.jsonl"), data_dir=folder / "operator", env=env)
        assert done.returncode == 0, done.stderr
        a, b = (stack.enter_context(running_server(folder / name, env=proxied)) for name in "ab")
        yield Fleet(a, b, postgres, redis, to_postgres, to_redis, env)


def granted(node: RunningServer, name: str = "u0") -> dict[str, Any]:
    answer = node.login(name, PASSWORD)
    assert answer.status == 200, answer.body
    tokens: dict[str, Any] = answer.json
    return tokens


def refreshed(node: RunningServer, token: str) -> Answer:
    return node.request("POST", "/token", f"grant_type=refresh_token&refresh_token={token}", FORM)


def took(work: Callable[[], Answer]) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = work()
    return answer, time.monotonic() - began


# ------------------------------------------------------------------ races


def test_fifty_refreshes_of_one_token_over_two_nodes_have_one_new_head(
    fleet: Fleet, record_property: Callable[[str, object], None]
) -> None:
    """SECURITY 69: the history is one line, and what is older than the predecessor ends it."""
    rounds = 1_000 if FULL else 40

    async def race() -> None:
        token = granted(fleet.a)["refresh_token"]
        history = [token]
        async with connected(fleet.a, 25) as on_a, connected(fleet.b, 25) as on_b:
            for _ in range(rounds):
                answers = await asyncio.gather(*(node.send(refresh_bytes(token)) for node in (*on_a, *on_b)))
                assert [answer.status for answer in answers] == [200] * 50
                (token,) = {answer.json["refresh_token"] for answer in answers}
                history.append(token)
            assert len(set(history)) == rounds + 1
            assert (await on_a[0].send(refresh_bytes(history[-3]))).json["error"] == "invalid_grant"
            assert (await on_b[0].send(refresh_bytes(token))).status == 400

    asyncio.run(race())
    record_property("rounds_of_races", rounds)


# ------------------------------------------------------------------ news


def test_what_is_ended_on_one_node_is_refused_on_the_other_within_a_second(
    fleet: Fleet, record_property: Callable[[str, object], None]
) -> None:
    delays = []

    async def ends() -> None:
        async with connected(fleet.a, 1) as (a,), connected(fleet.b, 1) as (b,):
            for _ in range(200 if FULL else 20):
                token = granted(fleet.a)["token"]
                request = f"GET /verify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
                assert (await b.send(request)).status == 200
                assert (await a.send(logout_bytes(token))).status == 204
                began = time.monotonic()
                while (await b.send(request)).status == 200:
                    assert time.monotonic() - began < BOUND_S
                delays.append(time.monotonic() - began)

    asyncio.run(ends())
    ms = sorted(round(delay * 1000, 2) for delay in delays)
    record_property("revocation_ms", {"tries": len(ms), "p50": statistics.median(ms), "p99": ms[-3], "max": ms[-1]})


def test_what_a_command_does_to_a_user_reaches_both_nodes_within_a_second(fleet: Fleet) -> None:
    tokens = granted(fleet.a, "u1")
    fleet.command("user", "disable", "u1")
    began = time.monotonic()
    for node in (fleet.a, fleet.b):
        wait_for(lambda node=node: node.verify(tokens["token"]).status == 401)
    assert time.monotonic() - began < BOUND_S
    assert fleet.b.login("u1", PASSWORD).status == 401
    assert refreshed(fleet.b, tokens["refresh_token"]).status == 400
    fleet.command("user", "enable", "u1")
    assert granted(fleet.b, "u1")


def test_news_that_were_told_while_a_node_was_cut_off_are_caught_up_with(fleet: Fleet) -> None:
    tokens = granted(fleet.b)
    fleet.to_postgres.set("drop")
    direct = fastauth("user", "disable", "u0", data_dir=fleet.a.data_dir.parent / "operator", env=fleet.env)
    assert direct.returncode == 0
    try:
        time.sleep(0.6)
        assert fleet.b.verify(tokens["token"]).status == 200  # nobody could tell it
        staleness = float(
            next(
                line.split()[1]
                for line in fleet.b.request("GET", "/metrics").body.decode().splitlines()
                if line.startswith("fastauth_revocation_staleness_seconds ")
            )
        )
        assert staleness > 0.5
    finally:
        fleet.to_postgres.set("none")
    began = time.monotonic()
    wait_for(lambda: fleet.b.verify(tokens["token"]).status == 401)
    assert time.monotonic() - began < RECOVERY_S
    fleet.command("user", "enable", "u0")


# ------------------------------------------------------------------ keys


def test_a_key_is_rotated_over_both_nodes_without_a_failed_verification(fleet: Fleet) -> None:
    """SECURITY 72, the small form: what either node signs either node verifies, at every moment."""
    old = granted(fleet.a)["token"]
    fleet.command("keys", "rotate")
    heads, until = set(), time.monotonic() + AHEAD_S + 1
    while time.monotonic() < until:
        for signing, other in ((fleet.a, fleet.b), (fleet.b, fleet.a)):
            token = granted(signing)["token"]
            assert other.verify(token).status == 200
            assert signing.verify(old).status == 200
            heads.add(token.partition(".")[0])
    assert len(heads) == 2


def test_after_a_compromise_both_nodes_refuse_the_old_key_within_two_seconds(fleet: Fleet) -> None:
    old = granted(fleet.a)["token"]
    fleet.command("keys", "rotate", "--now")
    began = time.monotonic()
    for node in (fleet.a, fleet.b):
        wait_for(lambda node=node: node.verify(old).status == 401)
    assert time.monotonic() - began < 2
    assert fleet.b.verify(granted(fleet.a)["token"]).status == 200


# ------------------------------------------------------------------ one node at a time, and clocks


def test_one_worker_of_all_nodes_keeps_house(fleet: Fleet) -> None:
    wait_for(lambda: fleet.postgres.sql("SELECT count(*) FROM leases WHERE name = 'housekeeping'") == "1", 30)
    holders = {fleet.postgres.sql("SELECT holder FROM leases WHERE name = 'housekeeping'") for _ in range(3)}
    assert len(holders) == 1


FAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.mark.parametrize("offset_s", [60, -60])
def test_a_node_whose_clock_is_a_minute_off_harms_nobody(fleet: Fleet, tmp_path: Path, offset_s: int) -> None:
    """Tokens of each are good on the other, and a repeated refresh gets its successor and ends no session."""
    if FAKETIME is None:
        assert os.environ.get("CI") != "true", "libfaketime is not installed; run: apt-get install -y libfaketime"
        pytest.skip("libfaketime is not installed; run: apt-get install -y libfaketime")
    skewed = {
        **fleet.env,
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME": f"{offset_s:+d}s",
    }
    with running_server(tmp_path / "skewed", env=skewed) as other:
        stamp = json.loads(_payload(granted(other)["token"]))["iat"]
        assert abs(stamp - time.time() - offset_s) < 5, "the clock is not skewed at all"
        for one, two in ((fleet.a, other), (other, fleet.a)):
            tokens = granted(one)
            assert two.verify(tokens["token"]).status == 200
            first = refreshed(one, tokens["refresh_token"])
            again = refreshed(two, tokens["refresh_token"])
            assert (first.status, again.status) == (200, 200)
            assert first.json["refresh_token"] == again.json["refresh_token"]
            third = refreshed(two, first.json["refresh_token"])
            assert refreshed(one, third.json["refresh_token"]).status == 200
            assert one.request("POST", "/logout", headers={"Authorization": f"Bearer {tokens['token']}"}).status == 204
            wait_for(lambda two=two, tokens=tokens: two.verify(tokens["token"]).status == 401)


def _payload(token: str) -> bytes:
    import base64

    part = token.split(".")[1]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


# ------------------------------------------------------------------ dependencies that fail


class Trouble(NamedTuple):
    """How a dependency fails; ``is_fatal`` if nothing that needs it can work meanwhile."""

    begin: Callable[[Fleet], object]
    end: Callable[[Fleet], object]
    is_fatal: bool = True


def _proxied(name: str, fault: Fault) -> Trouble:
    delay_s = 0.01 if fault in ("delay", "jitter") else 0.2
    return Trouble(
        lambda fleet: getattr(fleet, name).set(fault, delay_s),
        lambda fleet: getattr(fleet, name).set("none"),
        is_fatal=fault not in ("delay", "jitter"),
    )


_locker: list["subprocess.Popen[bytes]"] = []


def _lock_tables(fleet: Fleet) -> None:
    sql = f"BEGIN; LOCK TABLE users, sessions IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({LOCKED_S}); COMMIT"
    _locker.append(subprocess.Popen(fleet.postgres._psql(sql, "fastauth"), stdout=subprocess.DEVNULL))
    wait_for(lambda: fleet.postgres.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'") != "0")


def _unlock_tables(_fleet: Fleet) -> None:
    _locker.pop().wait(10)


def _terminate_backends(fleet: Fleet) -> None:
    fleet.postgres.sql(
        "SELECT count(pg_terminate_backend(pid, 1000)) FROM pg_stat_activity WHERE application_name = 'fastauth'"
    )


# The others are slower variants of these.
OFTEN: Final = ("delay", "drop", "reset", "garbage")
TROUBLES: Final[dict[str, Trouble]] = {
    "postgres stopped": Trouble(lambda fleet: fleet.postgres.stop(), lambda fleet: fleet.postgres.start()),
    "postgres frozen": Trouble(lambda fleet: fleet.postgres.pause(), lambda fleet: fleet.postgres.resume()),
    "postgres killed": Trouble(lambda fleet: fleet.postgres.kill(), lambda fleet: fleet.postgres.start()),
    "postgres tables locked": Trouble(_lock_tables, _unlock_tables),
    "postgres backends terminated": Trouble(_terminate_backends, lambda _: None, is_fatal=False),
    **{f"postgres {fault}": _proxied("to_postgres", fault) for fault in FAULTS if FULL or fault in OFTEN},
}
REDIS_TROUBLES: Final[dict[str, Trouble]] = {
    "redis stopped": Trouble(lambda fleet: fleet.redis.stop(), lambda fleet: fleet.redis.start()),
    "redis frozen": Trouble(lambda fleet: fleet.redis.pause(), lambda fleet: fleet.redis.resume()),
    **{f"redis {fault}": _proxied("to_redis", fault) for fault in FAULTS if FULL or fault in ("reset", "garbage")},
}


def _memory_mib(node: RunningServer) -> float:
    status = Path(f"/proc/{node.workers()[0]}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def _descriptors(node: RunningServer) -> int:
    return len(list(Path(f"/proc/{node.workers()[0]}/fd").iterdir()))


@pytest.mark.parametrize("name", list(TROUBLES))
def test_whatever_happens_to_the_database_tokens_are_verified_and_all_else_is_refused_in_time(
    fleet: Fleet, name: str, record_property: Callable[[str, object], None]
) -> None:
    """SECURITY 76, 77, 85: 503 and Retry-After in under a second, back in under two, and nothing piles up."""
    trouble = TROUBLES[name]
    tokens = granted(fleet.a)
    before_mib, files = _memory_mib(fleet.a), _descriptors(fleet.a)
    slowest: dict[str, float] = {"auth": 0.0, "refresh": 0.0, "verify": 0.0, "jwks": 0.0}
    refresh_token = tokens["refresh_token"]
    trouble.begin(fleet)
    try:
        for _ in range(3):
            answer, slow_s = took(lambda: fleet.b.verify(tokens["token"]))
            assert answer.status == 200
            slowest["verify"] = max(slowest["verify"], slow_s)
            answer, slow_s = took(lambda: fleet.b.request("GET", "/.well-known/jwks.json"))
            assert answer.status == 200
            slowest["jwks"] = max(slowest["jwks"], slow_s)
            answer, slow_s = took(lambda: refreshed(fleet.a, refresh_token))
            slowest["refresh"] = max(slowest["refresh"], slow_s)
            if trouble.is_fatal:
                assert (answer.status, answer.headers.get("retry-after")) == (503, "1"), answer.body
            else:
                assert answer.status == 200, answer.body
            answer, slow_s = took(lambda: fleet.b.login("u2", PASSWORD))
            slowest["auth"] = max(slowest["auth"], slow_s)
            assert answer.status == (503 if trouble.is_fatal else 200), answer.body
            if trouble.is_fatal:
                assert answer.headers["retry-after"] == "1"
    finally:
        trouble.end(fleet)
    back_s = 0.0
    if trouble.is_fatal:
        began = time.monotonic()
        for node in (fleet.a, fleet.b):
            wait_for(lambda node=node: node.login("u2", PASSWORD).status == 200)
        back_s = time.monotonic() - began
        assert back_s < RECOVERY_S
    again = refreshed(fleet.b, refresh_token)  # whatever became of the tries: one family, and it goes on
    if again.status == 200:
        assert refreshed(fleet.a, again.json["refresh_token"]).status == 200
    else:  # a repetition after the grace ends it, as it must
        assert name in ("postgres tables locked",), again.body
    assert max(slowest["auth"], slowest["refresh"]) < BOUND_S
    assert max(slowest["verify"], slowest["jwks"]) < 0.2
    wait_for(lambda: _descriptors(fleet.a) <= files + 12)
    assert _memory_mib(fleet.a) < before_mib + 5
    connections = fleet.postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fastauth'")
    assert int(connections) <= 2 * 11 + 2
    record_property(
        "fault",
        {
            "name": name,
            "slowest_ms": {k: round(v * 1000) for k, v in slowest.items()},
            "back_s": round(back_s, 2),
            "is_fatal": trouble.is_fatal,
        },
    )


@pytest.mark.parametrize("name", list(REDIS_TROUBLES))
def test_whatever_happens_to_redis_logins_and_refreshes_go_on(
    fleet: Fleet, name: str, record_property: Callable[[str, object], None]
) -> None:
    """SECURITY 73, 74, 85."""
    trouble = REDIS_TROUBLES[name]
    tokens = granted(fleet.a)
    slowest = {"auth": 0.0, "refresh": 0.0, "verify": 0.0}
    trouble.begin(fleet)
    try:
        for _ in range(3):
            for key, work in {
                "verify": lambda: fleet.b.verify(tokens["token"]),
                "auth": lambda: fleet.b.login("u2", PASSWORD),
                "refresh": lambda: refreshed(fleet.a, tokens["refresh_token"]),
            }.items():
                answer, slow_s = took(work)
                assert answer.status == 200, answer.body
                slowest[key] = max(slowest[key], slow_s)
    finally:
        trouble.end(fleet)
    assert max(slowest.values()) < 0.5
    began = time.monotonic()
    wait_for(lambda: all(b"redis" not in node.request("GET", "/readyz").body for node in (fleet.a, fleet.b)))
    record_property(
        "fault",
        {
            "name": name,
            "slowest_ms": {k: round(v * 1000) for k, v in slowest.items()},
            "back_s": round(time.monotonic() - began, 2),
            "is_fatal": False,
        },
    )


def test_a_storm_against_a_frozen_database_is_answered_and_leaves_nothing_behind(fleet: Fleet) -> None:
    """SECURITY 77: more requests than the pool has connections, all at once; no pile-up."""
    tokens = [granted(fleet.a)["refresh_token"] for _ in range(60)]
    files = _descriptors(fleet.a)

    async def storm() -> tuple[list[int], float]:
        async with connected(fleet.a, 60) as connections:
            began = time.monotonic()
            answers = await asyncio.gather(
                *(one.send(refresh_bytes(token)) for one, token in zip(connections, tokens, strict=True))
            )
            return [answer.status for answer in answers], time.monotonic() - began

    fleet.postgres.pause()
    try:
        for _ in range(3):
            statuses, slow_s = asyncio.run(storm())
            assert set(statuses) == {503}
            assert slow_s < BOUND_S + 0.3
    finally:
        fleet.postgres.resume()
    wait_for(lambda: fleet.a.login("u2", PASSWORD).status == 200, RECOVERY_S)
    wait_for(lambda: _descriptors(fleet.a) <= files + 12)


def test_when_the_answer_to_a_commit_is_lost_a_retry_stays_in_the_one_family(fleet: Fleet) -> None:
    """SECURITY 78: the server has committed, and nobody was told."""
    for _ in range(20 if FULL else 2):
        tokens = granted(fleet.a)
        sessions = fleet.postgres.sql("SELECT count(*) FROM sessions")
        fleet.to_postgres.set("half_open")
        assert refreshed(fleet.a, tokens["refresh_token"]).status == 503
        fleet.to_postgres.set("none")
        for node in (fleet.a, fleet.b):
            wait_for(lambda node=node: node.login("u3", "wrong").status == 401)
        answers = [refreshed(node, tokens["refresh_token"]) for node in (fleet.b, fleet.a, fleet.b)]
        assert [answer.status for answer in answers] == [200] * 3
        assert len({answer.json["refresh_token"] for answer in answers}) == 1
        assert fleet.postgres.sql("SELECT count(*) FROM sessions") == sessions


def test_a_database_that_is_killed_in_the_middle_of_commits_loses_no_session_and_doubles_none(fleet: Fleet) -> None:
    """SECURITY 78, 81: whoever was refused repeats the last token and goes on in the same family."""
    count = 16

    async def storm(tokens: list[str]) -> list[str]:
        async with connected(fleet.a, count // 2) as on_a, connected(fleet.b, count // 2) as on_b:

            async def go_on(index: int) -> str:
                connection = (*on_a, *on_b)[index]
                while True:
                    answer = await connection.send(refresh_bytes(tokens[index]))
                    if answer.status != 200:
                        assert answer.status == 503, answer.body
                        return tokens[index]
                    tokens[index] = answer.json["refresh_token"]

            loops = asyncio.gather(*(go_on(index) for index in range(count)))
            await asyncio.sleep(0.4)
            await asyncio.to_thread(fleet.postgres.kill)
            return await asyncio.wait_for(loops, 10)

    tokens = [granted(fleet.a)["refresh_token"] for _ in range(count)]
    sessions = fleet.postgres.sql("SELECT count(*) FROM sessions")
    for _ in range(10 if FULL else 1):
        tokens = asyncio.run(storm(tokens))
        fleet.postgres.start()
        wait_for(lambda: fleet.a.login("u3", "wrong").status == 401)
        wait_for(lambda: fleet.b.login("u3", "wrong").status == 401)
        for index, token in enumerate(tokens):
            answers = [refreshed(node, token) for node in (fleet.b, fleet.a)]
            assert [answer.status for answer in answers] == [200, 200], [answer.body for answer in answers]
            (tokens[index],) = {answer.json["refresh_token"] for answer in answers}
        assert fleet.postgres.sql("SELECT count(*) FROM sessions") == sessions


def test_a_node_that_hears_nothing_for_too_long_says_so(fleet: Fleet, tmp_path: Path) -> None:
    env = {**fleet.env, "FASTAUTH_REVOCATION__MAX_STALE_S": "2"}
    env["FASTAUTH_DATABASE_URL"] = env["FASTAUTH_DATABASE_URL"].replace(
        str(fleet.postgres.port), str(fleet.to_postgres.port)
    )
    with running_server(tmp_path / "stale", env=env) as node:
        assert node.request("GET", "/readyz").status == 200
        fleet.to_postgres.set("drop")
        try:
            wait_for(lambda: node.request("GET", "/readyz").status == 503, 5)
            assert node.request("GET", "/readyz").json == {"status": "stale"}
            assert fleet.a.request("GET", "/readyz").status == 200  # off by default
        finally:
            fleet.to_postgres.set("none")
        wait_for(lambda: node.request("GET", "/readyz").status == 200, RECOVERY_S + 1)


# ------------------------------------------------------------------ schema


def refused(tmp_path: Path, env: dict[str, str]) -> str:
    command = [FASTAUTH, "serve", "--port", "1", "--data-dir", str(tmp_path / "node")]
    done = subprocess.run(command, env=environment(**env), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    return done.stderr


def test_serve_refuses_a_database_without_a_schema_and_one_it_does_not_know(fleet: Fleet, tmp_path: Path) -> None:
    env = {**fleet.env, "FASTAUTH_DATABASE_URL": fleet.postgres.create("fresh")}
    assert "run: fastauth migrate" in refused(tmp_path, env)
    processes = [
        subprocess.Popen(
            [FASTAUTH, "migrate", "--data-dir", str(tmp_path / f"m{number}")],
            env=environment(**env),
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert "is 0006 already" in fastauth("migrate", data_dir=tmp_path / "m0", env=env).stdout
    fleet.postgres.sql("UPDATE alembic_version SET version_num = '9999'", "fresh")
    assert "does not know" in refused(tmp_path, env)


def test_nodes_go_on_and_can_be_restarted_while_a_newer_version_expands_the_schema(
    fleet: Fleet, tmp_path: Path
) -> None:
    token = granted(fleet.a)["refresh_token"]
    fleet.postgres.sql("ALTER TABLE users ADD COLUMN nickname text; ALTER TABLE sessions ADD COLUMN label text")
    fleet.postgres.sql("UPDATE alembic_version SET version_num = '0006'; UPDATE schema_info SET revision = '0006'")
    try:
        again = refreshed(fleet.b, token)
        assert again.status == 200
        with running_server(tmp_path / "restarted", env=fleet.env) as node:
            assert refreshed(node, again.json["refresh_token"]).status == 200
            assert granted(node)
    finally:
        fleet.postgres.sql("UPDATE alembic_version SET version_num = '0006'; UPDATE schema_info SET revision = '0006'")


# ------------------------------------------------------------------ a pooler in between


@pytest.fixture
def pooled(fleet: Fleet, tmp_path: Path) -> Iterator[str]:
    """The URL of a PgBouncer in transaction mode with fewer connections than a node would open."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        assert os.environ.get("CI") != "true", "pgbouncer is not installed; run: apt-get install -y pgbouncer"
        pytest.skip("pgbouncer is not installed; run: apt-get install -y pgbouncer")
    port = free_port()
    settings = Path(tempfile.mkdtemp(prefix="fastauth-pgbouncer-")) / "pgbouncer.ini"
    settings.parent.chmod(0o755)
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={fleet.postgres.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {settings.parent}/users\npool_mode = transaction\ndefault_pool_size = 3\n"
    )
    (settings.parent / "users").write_text('"fastauth" ""\n')
    for path in (settings, settings.parent / "users"):
        path.chmod(0o644)
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"] if os.geteuid() == 0 else []
    process = subprocess.Popen([*as_user, program, "-q", str(settings)], stderr=subprocess.DEVNULL, cwd="/")
    try:
        wait_for(lambda: listens(port))
        yield f"postgresql://fastauth@127.0.0.1:{port}/fastauth"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(settings.parent)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_a_node_works_through_a_pooler_in_transaction_mode(fleet: Fleet, pooled: str, tmp_path: Path) -> None:
    # Debian's PgBouncer is older than 1.21, the first that knows prepared statements.
    options = {"FASTAUTH_DATABASE__PGBOUNCER": "1", "FASTAUTH_DATABASE__PREPARED_STATEMENTS": "0"}
    with running_server(tmp_path / "pooled", env={**fleet.env, **options, "FASTAUTH_DATABASE_URL": pooled}) as node:
        tokens = granted(node)
        assert refreshed(fleet.a, tokens["refresh_token"]).status == 200
        assert refreshed(node, tokens["refresh_token"]).status == 200
        headers = {"Authorization": f"Bearer {tokens['token']}"}
        assert fleet.a.request("POST", "/logout", headers=headers).status == 204
        began = time.monotonic()
        wait_for(lambda: node.verify(tokens["token"]).status == 401)
        assert time.monotonic() - began < BOUND_S

        async def race() -> None:
            async with connected(node, 30) as connections:
                token = granted(node)["refresh_token"]
                for _ in range(5):
                    answers = await asyncio.gather(*(one.send(refresh_bytes(token)) for one in connections))
                    assert [answer.status for answer in answers] == [200] * 30
                    (token,) = {answer.json["refresh_token"] for answer in answers}

        asyncio.run(race())


# ------------------------------------------------------------------ doctor


def test_the_doctor_finds_what_is_broken_and_says_what_to_do(fleet: Fleet) -> None:
    done = fastauth("doctor", data_dir=fleet.a.data_dir, env=fleet.env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "PostgreSQL" in done.stdout
    assert "Redis 7" in done.stdout
    assert "broken" not in done.stdout
    assert ("autogroups can make it wait" in done.stdout) == has_autogroups()
    nowhere = {
        "FASTAUTH_DATABASE_URL": "postgresql://u:s3cr3t@127.0.0.1:1/x",
        "FASTAUTH_REDIS_URL": "redis://:s3cr3t@127.0.0.1:1/0",
    }
    done = fastauth("doctor", "--json", data_dir=fleet.a.data_dir, env={**fleet.env, **nowhere})
    assert done.returncode == 1
    states = {finding["subject"]: finding for finding in map(json.loads, done.stdout.splitlines())}
    for subject in ("database", "redis"):
        assert states[subject]["state"] == "broken"
        assert states[subject]["advice"]
    assert "s3cr3t" not in done.stdout + done.stderr
    other_key = fastauth("doctor", data_dir=fleet.a.data_dir, env={**fleet.env, "FASTAUTH_MASTER_KEY": "B" * 43})
    assert other_key.returncode == 1
    assert "broken   signing keys" in other_key.stdout
