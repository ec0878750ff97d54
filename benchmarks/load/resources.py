"""What a node, its Redis and its PostgreSQL have used so far, read from the kernel and from themselves.

Processor time is that of ``/proc/PID/task/*/schedstat``, in nanoseconds; what has ended is not in it.
"""

import contextlib
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.integration.running import RunningServer
from tests.postgres_servers import PostgresServer
from tests.redis_servers import RedisServer

# What ``buckets.lua`` runs in Redis; fastauth sends none of these by themselves.
_INNER: Final = frozenset({"time", "get", "set", "del", "zadd", "zcard", "zrem", "zremrangebyscore", "pexpire"})
_NICE: Final = 16  # of the fields behind the name in /proc/PID/stat (proc(5))


class NodeTime(NamedTuple):
    """Seconds of a core: of threads as urgent as the event loop's, and of the nicer ones, which hash."""

    loop_s: float
    hash_s: float


def _threads(pid: int) -> list[tuple[int, float]]:
    """Of each thread how nice it is and the seconds it ran."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            found.append((int(fields[_NICE]), int((task / "schedstat").read_text().split()[0]) / 1e9))
    return found


def processes_s(pids: list[int]) -> float:
    """Seconds of a core that these processes have used; one that has ended counts nothing."""
    total_s = 0.0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            total_s += sum(ran_s for _, ran_s in _threads(pid))
    return total_s


def node_time(workers: list[int]) -> NodeTime:
    """Of the workers of a server."""
    loop_s = hash_s = 0.0
    for pid in workers:
        threads = _threads(pid)
        least = min(nice for nice, _ in threads)
        loop_s += sum(ran_s for nice, ran_s in threads if nice == least)
        hash_s += sum(ran_s for nice, ran_s in threads if nice > least)
    return NodeTime(loop_s, hash_s)


class Reading(NamedTuple):
    """Counters since the beginning; two of them differ by what was used in between.

    ``redis_commands`` came over the network, ``redis_inner`` ran in scripts; ``write_transactions`` are those that
    PostgreSQL gave a number.
    """

    loop_s: float
    hash_s: float
    redis_s: float
    redis_commands: float
    redis_inner: float
    redis_in_bytes: float
    redis_out_bytes: float
    postgres_s: float
    write_transactions: float
    wal_bytes: float

    def since(self, earlier: "Reading") -> "Reading":
        return Reading(*(now - before for now, before in zip(self, earlier, strict=True)))

    def less(self, idle_per_s: "Reading", seconds: float) -> "Reading":
        """Without what would have been used all the same."""
        return Reading(*(mine - seconds * idle for mine, idle in zip(self, idle_per_s, strict=True)))

    def per(self, count: float) -> dict[str, float]:
        """Each as a part; what noise made negative is nothing."""
        return {name: max(0.0, value) / count for name, value in self._asdict().items()}


class Rig:
    """PostgreSQL and Redis beside a node, and how they are read."""

    def __init__(self, postgres: PostgresServer, redis: RedisServer) -> None:
        self.postgres = postgres
        self.redis = redis
        self._postgres_s: dict[int, float] = {}
        self._client = redis.client()
        first, second = self._redis(), self._redis()
        self._own_in = second["total_net_input_bytes"] - first["total_net_input_bytes"]
        self._own_out = second["total_net_output_bytes"] - first["total_net_output_bytes"]
        self._asked = 0

    def _redis(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.info("stats", "cpu", "commandstats")
        return found

    def read(self, workers: list[int], *, is_end: bool = False) -> Reading:
        """In: the workers of the node; whether this ends a measurement. Times are read next to it, the rest, which
        costs something, on the far side.
        """
        if is_end:
            times, postgres_s = node_time(workers), self._of_postgres_s()
            told, database = self._redis(), self._database()
        else:
            database, told = self._database(), self._redis()
            times, postgres_s = node_time(workers), self._of_postgres_s()
        calls = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in told.items() if "cmdstat_" in name}
        inner = sum(count for name, count in calls.items() if name in _INNER)
        self._asked += 1
        return Reading(
            *times,
            told["used_cpu_sys"] + told["used_cpu_user"],
            sum(calls.values()) - inner - calls.get("info", 0),
            inner,
            told["total_net_input_bytes"] - self._asked * self._own_in,
            told["total_net_output_bytes"] - self._asked * self._own_out,
            postgres_s,
            *database,
        )

    def _of_postgres_s(self) -> float:
        """Of all its processes so far; one that has ended counts what it had used when it was last looked at."""
        for pid in self.postgres.processes():
            self._postgres_s[pid] = max(self._postgres_s.get(pid, 0.0), processes_s([pid]))
        return sum(self._postgres_s.values())

    def _database(self) -> tuple[float, float]:
        numbered, wal = self.postgres.sql(
            "SELECT pg_snapshot_xmax(pg_current_snapshot()), pg_current_wal_insert_lsn() - '0/0'"
        ).split("|")
        return float(numbered), float(wal)

    def statistics(self) -> dict[str, float]:
        """What PostgreSQL counts of its rows, transactions and syncs; whole only while no node is connected, because a
        connection tells of itself at its end, or much later.
        """
        told = self.postgres.sql(
            "SELECT tup_inserted + tup_updated + tup_deleted, xact_commit, (SELECT wal_sync FROM pg_stat_wal) "
            "FROM pg_stat_database WHERE datname = 'fastauth'"
        ).split("|")
        return dict(zip(("rows_written", "transactions", "syncs"), map(float, told), strict=True))


def settled(server: RunningServer, count: int = 1) -> list[int]:
    """The workers of a server, once so many work."""
    return server.workers_that_work(count)
