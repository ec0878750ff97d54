"""Real Redis servers (7 or newer) as processes: one alone, a master under sentinels, a cluster.

A server lives in a temporary folder of its own, is ended by its own pid, and ends with the process that started it.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.integration.running import wait_for

PACKAGES: Final = {"redis-server": "redis-server", "redis-sentinel": "redis-sentinel"}
MASTER_NAME: Final = "mymaster"

# A dead parent's children are ended when the thread that started them ends, so one thread that lasts starts them all.
_starter: Final = ThreadPoolExecutor(1, "redis-starter")
_given_ports: Final[set[int]] = set()


def has_redis() -> bool:
    """Whether this machine has the programs."""
    return all(map(shutil.which, PACKAGES))


def require_redis() -> None:
    """Skip the test where a program is missing; with ``CI=true`` fail it."""
    for program, package in PACKAGES.items():
        if shutil.which(program) is None:
            missing = f"{program} is not installed; run: apt-get install -y {package}"
            if os.environ.get("CI") == "true":
                pytest.fail(missing)
            pytest.skip(missing)


def _redis_port() -> int:
    """A free port whose cluster bus port, 10000 above it, is free too.

    Both lie below the ports that the kernel gives to outgoing connections: it would take the port of a server that is
    down for a moment, and a client that tries to connect to such a port can even be connected to itself.
    """
    while True:
        port = random.randrange(10_000, 22_768)
        with contextlib.suppress(OSError), socket.socket() as client_side, socket.socket() as bus:
            client_side.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            if port not in _given_ports:
                _given_ports.add(port)
                return port


class RedisServer:
    """One redis-server on 127.0.0.1. It keeps nothing on disk unless ``arguments`` (of its command line) say so."""

    def __init__(
        self, *arguments: str, port: int | None = None, unixsocket: bool = False, password: str | None = None
    ) -> None:
        require_redis()
        self.port = port or _redis_port()
        self.password = password
        self.folder = Path(tempfile.mkdtemp(prefix="fastauth-redis-"))
        self.unixsocket = self.folder / "redis.sock"  # exists only if asked for
        self._process: subprocess.Popen[bytes] | None = None
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "save": "", "appendonly": "no"}
        options |= {"repl-diskless-sync-delay": "0"}  # else a replica waits five seconds for others to join it
        options |= {"shutdown-timeout": "0", "hz": "100"}  # else SIGTERM waits for replicas, and is seen 0.1 s later
        if unixsocket:
            options["unixsocket"] = str(self.unixsocket)
        if password is not None:
            options |= {"requirepass": password, "masterauth": password}
        self._command = ["redis-server"]
        for name, value in options.items():
            self._command += [f"--{name}", value]
        self._command += arguments

    @property
    def url(self) -> str:
        """Its address for ``redis.from_url``, with the password if it has one."""
        return f"redis://{self.userinfo}127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The same over the Unix socket."""
        return f"unix://{self.userinfo}{self.unixsocket}?db=0"

    @property
    def userinfo(self) -> str:
        """What stands before the host in a URL."""
        return "" if self.password is None else f":{quote(self.password, safe='')}@"

    @property
    def pid(self) -> int:
        """The process id; of the last process if none runs."""
        assert self._process is not None, "never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives, be it paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it logged since it was made."""
        return (self.folder / "log.txt").read_text()

    def start(self) -> None:
        """Return when it answers. The port is the same every time. Raises AssertionError if it ends instead."""
        assert not self.is_running, "it runs already"
        self._process = _starter.submit(self._spawn).result()
        wait_for(lambda: self._answers() or not self.is_running)
        assert self.is_running, f"redis ended with {self._process.returncode}: {self.log}"

    def _spawn(self) -> "subprocess.Popen[bytes]":
        # setpriv becomes the server: same pid. A preexec_fn would do the same, but Python warns of it among threads.
        setpriv = shutil.which("setpriv")
        tied = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        with (self.folder / "log.txt").open("a") as log:
            return subprocess.Popen([*tied, *self._command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _answers(self) -> bool:
        """Whether it is this process that answers: another one may have been quicker to take the port."""
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError), self.client() as client:
            return int(client.info("server")["process_id"]) == self.pid
        return False

    def kill(self) -> None:
        """SIGKILL, and wait. Works on a paused server too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, timeout_s: float = 10.0) -> None:
        """SIGTERM, and wait; SIGKILL if that takes too long."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def restart(self) -> None:
        """Kill it and start it on the same port, without its data and without what ``set`` changed."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Stop it and remove its folder."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def pause(self) -> None:
        """SIGSTOP: the kernel still accepts connections for it, and nothing answers on them."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_for(lambda: Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A new client that answers in ``str``, never tries again and gives up after two seconds."""
        return redis.Redis(
            port=self.port,
            host="127.0.0.1",
            password=self.password,
            decode_responses=True,
            socket_timeout=2,
            socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )

    def command(self, *words: str | int) -> Any:
        """The answer to one command on a connection of its own."""
        with self.client() as client:
            return client.execute_command(*words)

    def set(self, **config: str | int) -> None:
        """``CONFIG SET``; an underscore stands for the dash of a name: ``set(maxmemory_policy="noeviction")``."""
        for name, value in config.items():
            self.command("CONFIG", "SET", name.replace("_", "-"), value)

    def replication(self) -> dict[str, Any]:
        """``INFO replication``; empty when nobody answers."""
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError), self.client() as client:
            state: dict[str, Any] = client.info("replication")
            return state
        return {}

    def become_replica_of(self, master: "RedisServer") -> None:
        """``REPLICAOF``, and wait until the data is here and the master counts this replica as a good one."""
        self.command("REPLICAOF", "127.0.0.1", master.port)
        wait_for(lambda: self.replication().get("master_link_status") == "up")
        wait_for(lambda: self.port in _online_replicas(master))

    def become_master(self) -> None:
        """``REPLICAOF NO ONE``; the data stays."""
        self.command("REPLICAOF", "NO", "ONE")


def _online_replicas(master: RedisServer) -> list[int]:
    replication = master.replication()
    replicas = [replication[f"slave{number}"] for number in range(replication.get("connected_slaves", 0))]
    return [replica["port"] for replica in replicas if replica["state"] == "online"]


class RedisSentinel(RedisServer):
    """One redis-sentinel. It keeps what it knows in its folder, so that a restarted one still knows it."""

    def __init__(self, master: RedisServer, quorum: int, down_after_ms: int, failover_timeout_ms: int) -> None:
        super().__init__()
        self._down_after_ms = down_after_ms
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\n"
            f"bind 127.0.0.1\n"
            f"dir {self.folder}\n"
            f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master.port} {quorum}\n"
            f"sentinel down-after-milliseconds {MASTER_NAME} {down_after_ms}\n"
            f"sentinel failover-timeout {MASTER_NAME} {failover_timeout_ms}\n"
            + (f"sentinel auth-pass {MASTER_NAME} {master.password}\n" if master.password is not None else "")
        )
        self._command = ["redis-sentinel", str(config)]

    def start(self) -> None:
        """Start it, with the periods of a test instead of those of a data center."""
        super().start()
        periods = {"info-period": 200, "ask-period": 100, "publish-period": 100}
        # It pings and reconnects once in this period; what takes two of them must not look like a server that is down.
        # Five of them are how old the last INFO of a good replica may be, and in a failover that comes every second.
        periods["ping-period"] = min(1_000, self._down_after_ms * 3 // 10)
        # A sentinel that was not scheduled for two seconds would do nothing for thirty; tests run on busy machines.
        periods |= {"tilt-trigger": 20_000, "tilt-period": 1_000}
        self.command("SENTINEL", "DEBUG", *(word for period in periods.items() for word in period))

    def master_port(self) -> int:
        """The port of the server that it tells clients to write to."""
        return int(self.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)[1])

    def knows(self, replica: RedisServer, sentinels: int) -> bool:
        """Whether it could fail over to this replica, and knows all of the sentinels."""
        with self.client() as client:
            state = client.sentinel_master(MASTER_NAME)
            replicas = client.sentinel_slaves(MASTER_NAME)
        return state["num-other-sentinels"] == sentinels - 1 and any(
            known["port"] == replica.port and known["flags"] == "slave" and known["master-link-status"] == "ok"
            for known in replicas
        )


class Sentinels:
    """A master, its replica and the sentinels that watch them."""

    def __init__(self, master: RedisServer, replica: RedisServer, sentinels: list[RedisSentinel]) -> None:
        self.master = master
        self.replica = replica
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """``redis+sentinel://127.0.0.1:P1,127.0.0.1:P2/mymaster/0``."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{self.master.userinfo}{hosts}/{MASTER_NAME}/0"

    def wait_for_failover(self, timeout_s: float = 30.0) -> None:
        """Return when every running sentinel names the replica, and it takes writes; ``master`` is then that server.

        A server that comes back after that is made a replica by the sentinels soon afterwards.
        """
        sentinels = [sentinel for sentinel in self.sentinels if sentinel.is_running]
        wait_for(lambda: all(sentinel.master_port() == self.replica.port for sentinel in sentinels), timeout_s)
        wait_for(lambda: self.replica.replication().get("role") == "master", timeout_s)
        self.master, self.replica = self.replica, self.master


@contextlib.contextmanager
def running_redis(
    *arguments: str, port: int | None = None, unixsocket: bool = False, password: str | None = None
) -> Iterator[RedisServer]:
    """One server from its first answer to its end; ``arguments`` are of redis-server: ``"--maxmemory", "2mb"``."""
    with _running(RedisServer(*arguments, port=port, unixsocket=unixsocket, password=password)) as server:
        yield server


@contextlib.contextmanager
def running_sentinel(
    sentinels: int = 1, *, password: str | None = None, down_after_ms: int = 500, failover_timeout_ms: int = 3_000
) -> Iterator[Sentinels]:
    """A master, a replica that has its data, and sentinels that know all of them; more than half must agree."""
    with contextlib.ExitStack() as stack:
        master, replica = (stack.enter_context(running_redis(password=password)) for _ in range(2))
        replica.become_replica_of(master)
        watching = []
        for _ in range(sentinels):
            sentinel = RedisSentinel(master, sentinels // 2 + 1, down_after_ms, failover_timeout_ms)
            watching.append(stack.enter_context(_running(sentinel)))
        wait_for(lambda: all(sentinel.knows(replica, sentinels) for sentinel in watching))
        yield Sentinels(master, replica, watching)


@contextlib.contextmanager
def running_cluster(nodes: int = 3, *arguments: str, password: str | None = None) -> Iterator[list[RedisServer]]:
    """Masters without replicas that share the slots evenly, in the order of the slots.

    A new cluster takes two seconds: its masters refuse to write for that long after they started.
    """
    with contextlib.ExitStack() as stack:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", *arguments)
        cluster = [stack.enter_context(running_redis(*options, password=password)) for _ in range(nodes)]
        for number, node in enumerate(cluster):  # each of them knows its slots, and the first one introduces them
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            slots = 16_384 * number // nodes, 16_384 * (number + 1) // nodes - 1
            node.command("CLUSTER", "ADDSLOTSRANGE", *slots)
            if number:
                node.command("CLUSTER", "MEET", "127.0.0.1", cluster[0].port)
        wait_for(lambda: all(_is_whole(node, nodes) for node in cluster))
        yield cluster


def _is_whole(node: RedisServer, nodes: int) -> bool:
    with node.client() as client:
        info = client.cluster("INFO")
    return bool(info["cluster_state"] == "ok" and int(info["cluster_size"]) == nodes)


@contextlib.contextmanager
def _running(server: RedisServer) -> Iterator[Any]:
    with contextlib.closing(server):
        server.start()
        yield server
