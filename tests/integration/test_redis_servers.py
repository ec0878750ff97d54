"""What the tests on Redis rest on: the servers start quickly, do what they are told, and are gone afterwards."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.integration.running import is_alive, wait_for
from tests.redis_servers import RedisServer, require_redis, running_redis, running_sentinel

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


def test_a_restarted_server_has_its_port_and_nothing_else(server: RedisServer) -> None:
    pid = server.pid
    server.client().set("a", "1")
    server.set(maxmemory="2mb", maxmemory_policy="noeviction")
    assert server.command("CONFIG", "GET", "maxmemory*")["maxmemory"] == str(2 * 1024 * 1024)
    before = time.monotonic()
    server.restart()
    assert time.monotonic() - before < 1
    assert server.pid != pid
    assert not is_alive(pid)
    assert redis.from_url(server.url).dbsize() == 0
    assert server.command("CONFIG", "GET", "maxmemory")["maxmemory"] == "0"


def test_a_killed_server_refuses_and_a_stopped_one_starts_again(server: RedisServer) -> None:
    for end in (server.kill, server.stop):
        end()
        assert not server.is_running
        with pytest.raises(redis.ConnectionError):
            server.client().ping()
        server.start()
        assert server.client().ping()


def test_a_paused_server_is_silent_until_it_is_resumed(server: RedisServer) -> None:
    server.pause()
    with pytest.raises(redis.TimeoutError):
        redis.from_url(server.url, socket_timeout=0.1, retry=None).ping()
    server.resume()
    assert server.client().ping()


def test_a_server_that_is_paused_when_the_test_fails_ends_too() -> None:
    with contextlib.suppress(ZeroDivisionError), running_redis() as server:
        server.pause()
        raise ZeroDivisionError
    assert not is_alive(server.pid)
    assert not server.folder.exists()


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(AssertionError, match="no-such-option"), running_redis("--no-such-option", "1"):
        pass


def test_a_replica_has_the_data_and_keeps_it_as_a_master(server: RedisServer) -> None:
    server.client().set("a", "1")
    with running_redis() as replica:
        replica.become_replica_of(server)
        assert replica.client().get("a") == "1"
        with pytest.raises(redis.ReadOnlyError):
            replica.client().set("a", "2")
        server.set(min_replicas_to_write=2)
        with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
            server.client().set("a", "2")
        replica.become_master()
        assert replica.client().set("a", "2")


def test_a_password_and_a_unix_socket() -> None:
    with running_redis(password="p@ss/word", unixsocket=True) as server:
        assert redis.from_url(server.url).ping()
        assert redis.from_url(server.unix_url).ping()
        with pytest.raises(redis.AuthenticationError):
            redis.from_url(server.url.replace(server.userinfo, ""), retry=None).ping()  # else it tries for seconds


def test_sentinels_know_one_another_and_both_servers() -> None:
    with running_sentinel(3) as running:
        assert [sentinel.master_port() for sentinel in running.sentinels] == [running.master.port] * 3
        assert all(sentinel.knows(running.replica, 3) for sentinel in running.sentinels)
        assert running.url.endswith(f"127.0.0.1:{running.sentinels[2].port}/mymaster/0")


def test_a_server_does_not_outlive_a_killed_test_process(tmp_path: Path) -> None:
    require_redis()
    script = """if True:
        import time
        from tests.redis_servers import running_redis
        with running_redis() as server:
            print(server.pid, flush=True)
            server.pause()
            time.sleep(60)
    """
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # nobody is left to remove the server's folder
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))
