"""From measured costs and a plan to machines: how many nodes, what Redis and what PostgreSQL a launch needs.

Pure arithmetic over a record of ``benchmarks.load.costs``; ``docs/scaling.md`` says the formulae in words. By hand,
from the newest record: ``python -m benchmarks.scaling --logins 1667/s --verify 100000/s --cores-per-node 8``.
"""

import argparse
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks.load.render import newest

POOL_CONNECTIONS: Final = 10
"""Of a worker to PostgreSQL, the default of ``pool_size``."""
FEED_CONNECTIONS: Final = 1
"""Of a worker, for the feed of revocations."""

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_RATE: Final = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)(?:/([0-9]*)([smhd]))?")
_MOST_PER_S: Final = 1e9
_FAR: Final = 100.0  # times the plan: by then it is another plan
_CHEAPEST: Final = "cheapest-for-tests"
_CHEAP_LOGIN, _DEAR_LOGIN = "login, cheapest hash", "login, OWASP hash"


class PlanRefused(ValueError):
    """A plan that cannot be meant, or that the record has no figures for; the text says why."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be borne: requests a second of each kind, and for how many seconds logins come.

    ``unseen_share`` of the validations bring a token that this worker has not seen; ``hash_profile`` and ``alg`` as
    fastauth's settings have them; ``utilisation`` is how busy a core may be, ``spare_nodes`` how many may be lost.
    """

    logins_per_s: float = 0.0
    over_s: float = 600.0
    refreshes_per_s: float = 0.0
    clients_per_s: float = 0.0
    introspections_per_s: float = 0.0
    verifications_per_s: float = 0.0
    unseen_share: float = 0.01
    hash_profile: str = "owasp"
    alg: str = "RS256"
    utilisation: float = 0.6
    cores_per_node: int = 8
    spare_nodes: int = 1

    @property
    def rates(self) -> dict[str, float]:
        """Requests a second, by the journeys of the record."""
        unseen_per_s = self.unseen_share * self.verifications_per_s
        return {
            _CHEAP_LOGIN if self.hash_profile == _CHEAPEST else _DEAR_LOGIN: self.logins_per_s,
            "refresh": self.refreshes_per_s,
            "client_credentials": self.clients_per_s,
            "introspect": self.introspections_per_s,
            "verify, seen": self.verifications_per_s - unseen_per_s,
            "verify, unseen": unseen_per_s,
        }

    def cores_and_nodes(self, busy_cores: float) -> tuple[float, int]:
        """How many cores there have to be, and in how many nodes, spare ones included."""
        cores = busy_cores / self.utilisation
        return cores, math.ceil(cores / self.cores_per_node - 1e-9) + self.spare_nodes

    def check(self) -> None:
        """Raises PlanRefused."""
        rates = (self.logins_per_s, self.refreshes_per_s, self.clients_per_s, self.introspections_per_s)
        for rate in (*rates, self.verifications_per_s, self.over_s):
            if not 0 <= rate < _MOST_PER_S:
                raise PlanRefused(f"{rate}: rates and times are from 0 to {_MOST_PER_S:.0e}")
        if not 0 <= self.unseen_share <= 1:
            raise PlanRefused("the unseen share is from 0 to 1")
        if not 0 < self.utilisation <= 1:
            raise PlanRefused("the utilisation is above 0 and at most 1")
        if not (1 <= self.cores_per_node <= 1024 and 0 <= self.spare_nodes <= 1024):
            raise PlanRefused("a node has 1 to 1024 cores, and 0 to 1024 nodes may be spare")


class Need(NamedTuple):
    """What a plan needs. Cores are those that are busy, before headroom, but for ``node_cores``, which are to be there.

    ``fewest_nodes`` would do where workers do not slow each other down at all: the measured machine has but two cores,
    which everything else shares with them. ``*_per_s`` are per second; ``redis_core`` is the part of Redis's one
    thread, ``redis_times`` how many times the plan it would bear at the plan's utilisation; ``commits_per_sync`` how
    many commits one sync of the disk must carry when syncs follow each other.
    """

    hash_cores: float
    loop_cores: float
    node_cores: float
    nodes: int
    fewest_nodes: int
    hash_memory_mib: float
    redis_commands_per_s: float
    redis_core: float
    redis_times: float
    redis_mbit_per_s: float
    postgres_transactions_per_s: float
    postgres_writes_per_s: float
    postgres_cores: float
    commits_per_sync: float
    wal_mb_per_s: float
    connections: int
    sessions_gb: float
    http_in_mbit_per_s: float
    http_out_mbit_per_s: float


def at_utilisation(journey: Mapping[str, Any], name: str, utilisation: float) -> float:
    """A cost of one request at some utilisation of the node: on the straight line between the two that were measured,
    and no further than these.
    """
    calm, busy = journey["moderate"], journey["saturated"]
    width = busy["node_cores"] - calm["node_cores"]
    part = 1.0 if width <= 0 else min(1.0, max(0.0, (utilisation - calm["node_cores"]) / width))
    return float(calm[name] + part * (busy[name] - calm[name]))


def efficiency(record: Mapping[str, Any], name: str) -> float:
    """Requests of a node's core-second with two workers on two cores, as a part of those with one on one; at most 1."""
    one, two = (record["workers"][name][count] for count in ("one", "two"))
    return min(1.0, float((one["loop_s"] + one["hash_s"]) / (two["loop_s"] + two["hash_s"])))


def hash_s(record: Mapping[str, Any], profile: str, alg: str) -> float:
    """What a login takes of the core of a hash thread: the hash, as much around it as was measured around the OWASP
    hash, and the signature. Raises PlanRefused.
    """
    if profile not in record["hashes"]:
        raise PlanRefused(f"{profile}: no such hash was measured; there are {', '.join(record['hashes'])}")
    if profile == _CHEAPEST:
        measured_s = record["journeys"][_CHEAP_LOGIN]["saturated"]["hash_s"]
    else:
        hashes = record["hashes"]
        around_s = record["journeys"][_DEAR_LOGIN]["saturated"]["hash_s"] - hashes["owasp"]["cpu_s"]
        measured_s = hashes[profile]["cpu_s"] + max(0.0, around_s)
    return max(0.0, float(measured_s) + _signature_s(record, "sign_s", alg))


def _signature_s(record: Mapping[str, Any], what: str, alg: str) -> float:
    """How much more it takes than with RS256, with which journeys were measured. Raises PlanRefused."""
    signatures = record["signatures"]
    if alg not in signatures:
        raise PlanRefused(f"{alg}: no such signature was measured; there are {', '.join(signatures)}")
    return float(signatures[alg][what] - signatures["RS256"][what])


class _Load(NamedTuple):
    """Requests a second of each journey, and what the record says of one; each method gives the sum a second."""

    journeys: Mapping[str, Any]
    rates: Mapping[str, float]

    def times(self, name: str) -> float:
        """Of what all nodes share, and many use at once: as where it was busiest."""
        shared = {row: _CHEAP_LOGIN if row == _DEAR_LOGIN else row for row in self.rates}
        return sum(rate * float(self.journeys[shared[row]]["saturated"][name]) for row, rate in self.rates.items())

    def counts(self, name: str) -> float:
        """As where nothing came together: each worker sees few requests at a time."""
        return sum(rate * float(self.journeys[row]["moderate"][name]) for row, rate in self.rates.items())

    def whole(self, name: str) -> float:
        """Of what is the same at any load."""
        return sum(rate * float(self.journeys[row][name]) for row, rate in self.rates.items())


def need(record: Mapping[str, Any], plan: Plan) -> Need:
    """What a plan needs by a record's costs. Raises PlanRefused."""
    plan.check()
    load = _Load(record["journeys"], plan.rates)
    signs_s, checks_s = _signature_s(record, "sign_s", plan.alg), _signature_s(record, "check_s", plan.alg)
    more_s = {"refresh": signs_s, "client_credentials": signs_s, "verify, unseen": checks_s}

    alone_hashing = plan.logins_per_s * hash_s(record, plan.hash_profile, plan.alg)
    alone_looping = sum(
        rate * max(0.0, at_utilisation(load.journeys[row], "loop_s", plan.utilisation) + more_s.get(row, 0.0))
        for row, rate in plan.rates.items()
    )
    hashing = alone_hashing / efficiency(record, _DEAR_LOGIN)
    looping = alone_looping / efficiency(record, "verify, seen")
    node_cores, nodes = plan.cores_and_nodes(hashing + looping)
    _, fewest_nodes = plan.cores_and_nodes(alone_hashing + alone_looping)
    workers, idle = nodes * plan.cores_per_node, record["idle_per_s"]
    writes_per_s = load.counts("write_transactions")
    inner_per_s = load.counts("redis_inner") + workers * idle["redis_inner"]
    calm = load.journeys[_CHEAP_LOGIN]["saturated"]
    calm_s, full_s = calm["redis_s"] / calm["redis_inner"], record["redis_inner_s"]
    return Need(
        hash_cores=hashing,
        loop_cores=looping,
        node_cores=node_cores,
        nodes=nodes,
        fewest_nodes=fewest_nodes,
        hash_memory_mib=plan.cores_per_node * record["hashes"][plan.hash_profile]["memory_mib"],
        redis_commands_per_s=load.counts("redis_commands") + workers * idle["redis_commands"],
        redis_core=busy_part(inner_per_s, calm_s, full_s),
        redis_times=bearable_per_s(plan.utilisation, calm_s, full_s) / inner_per_s if inner_per_s > 0 else math.inf,
        redis_mbit_per_s=(load.counts("redis_in_bytes") + load.counts("redis_out_bytes")) * 8 / 1e6,
        postgres_transactions_per_s=load.whole("transactions"),
        postgres_writes_per_s=writes_per_s,
        postgres_cores=load.times("postgres_s") + workers * idle["postgres_s"],
        commits_per_sync=writes_per_s * record["sync_s"],
        wal_mb_per_s=load.counts("wal_bytes") / 1e6,
        connections=workers * (POOL_CONNECTIONS + FEED_CONNECTIONS),
        sessions_gb=plan.logins_per_s * plan.over_s * record["state"]["session_bytes"] / 1e9,
        http_in_mbit_per_s=load.whole("http_in_bytes") * 8 / 1e6,
        http_out_mbit_per_s=load.whole("http_out_bytes") * 8 / 1e6,
    )


def busy_part(per_s: float, calm_s: float, full_s: float) -> float:
    """How busy one thread is with so many commands a second, of which one takes ``calm_s`` when it is all but idle,
    ``full_s`` when it has no pause, and in between what the straight line says; above 1 it cannot do them.
    """
    if per_s * full_s >= 1 or full_s >= calm_s:
        return per_s * full_s
    return per_s * calm_s / (1 + per_s * (calm_s - full_s))


def bearable_per_s(utilisation: float, calm_s: float, full_s: float) -> float:
    """With how many commands a second one thread is so busy: ``busy_part`` the other way round."""
    return utilisation / (full_s if full_s >= calm_s else calm_s - utilisation * (calm_s - full_s))


def growth(needed: Need, plan: Plan, postgres_cores: int = 16) -> dict[str, float]:
    """How many times the plan each part that does not grow with the nodes would bear, the least first.

    Redis has one thread; PostgreSQL one primary of so many cores, and one sync at a time, which carries the commits of
    half of the connections at the most (the other half is between two commits).
    """
    bounds = {
        "PostgreSQL's cores": (plan.utilisation * postgres_cores, needed.postgres_cores),
        "syncs of PostgreSQL's disk": (needed.connections / 2, needed.commits_per_sync),
    }
    times = {name: have / used if used > 0 else math.inf for name, (have, used) in bounds.items()}
    times["Redis's one thread"] = needed.redis_times
    return dict(sorted(times.items(), key=lambda item: item[1]))


def per_second(text: str) -> float:
    """A rate from ``1667/s``, ``1000000/10m`` or a bare number a second. Raises ValueError."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"not a rate: {text}; write one as 1667/s or 1000000/10m")
    seconds = int(found[2] or 1) * _SECONDS[found[3]] if found[3] else 1
    if not seconds:
        raise ValueError(f"not a rate: {text}; nothing comes in no time")
    return float(found[1].replace(",", "").replace("_", "")) / seconds


def needs_table(columns: Mapping[str, Need]) -> str:
    """Needs side by side, each under its name."""

    def row(name: str, write: Any) -> str:
        return f"| {name} | {' | '.join(write(one) for one in columns.values())} |"

    rows = [
        row("cores busy with hashes", lambda one: f"{one.hash_cores:.1f}"),
        row("cores busy with event loops", lambda one: f"{one.loop_cores:.1f}"),
        row("cores to have, with headroom", lambda one: f"{one.node_cores:.0f}"),
        row("**nodes**, spare ones included", lambda one: f"**{one.nodes}**"),
        row("nodes if workers did not slow each other down", lambda one: f"{one.fewest_nodes}"),
        row("memory of a node for hashes", lambda one: f"{one.hash_memory_mib:.0f} MiB"),
        row("Redis: commands/s", lambda one: f"{one.redis_commands_per_s:,.0f}"),
        row("Redis: part of its one thread", lambda one: f"{one.redis_core:.2f}"),
        row("Redis: network", lambda one: f"{one.redis_mbit_per_s:.1f} Mbit/s"),
        row("PostgreSQL: transactions/s", lambda one: f"{one.postgres_transactions_per_s:,.0f}"),
        row("PostgreSQL: of those, commits/s", lambda one: f"{one.postgres_writes_per_s:,.0f}"),
        row("PostgreSQL: cores busy", lambda one: f"{one.postgres_cores:.1f}"),
        row("PostgreSQL: commits for each sync of this disk", lambda one: f"{one.commits_per_sync:.1f}"),
        row("PostgreSQL: WAL", lambda one: f"{one.wal_mb_per_s:.2f} MB/s"),
        row("PostgreSQL: connections", lambda one: f"{one.connections:,}"),
        row("PostgreSQL: sessions stored", lambda one: f"{one.sessions_gb:.2f} GB"),
        row("HTTP in", lambda one: f"{one.http_in_mbit_per_s:.1f} Mbit/s"),
        row("HTTP out", lambda one: f"{one.http_out_mbit_per_s:.1f} Mbit/s"),
    ]
    return f"| needs | {' | '.join(columns)} |\n|{' --- |' * (1 + len(columns))}\n" + "\n".join(rows)


def growth_line(needed: Need, plan: Plan) -> str:
    """What is full first as the plan grows."""
    times = [f"{name} at {much:,.1f} x" for name, much in growth(needed, plan).items() if much < _FAR]
    return "; ".join(times) if times else f"nothing within {_FAR:.0f} times as much"


def main() -> None:
    """Print what a plan needs."""
    parser = argparse.ArgumentParser(description="what a launch needs, by the newest measured costs")
    parser.add_argument("--logins", type=per_second, default=0.0, metavar="RATE", help="1667/s, or 1000000/10m")
    parser.add_argument("--over", type=float, default=600.0, metavar="SECONDS", help="for how long logins come")
    parser.add_argument("--refreshes", type=per_second, default=0.0, metavar="RATE")
    parser.add_argument("--clients", type=per_second, default=0.0, metavar="RATE", help="client_credentials")
    parser.add_argument("--introspect", type=per_second, default=0.0, metavar="RATE")
    parser.add_argument("--verify", type=per_second, default=0.0, metavar="RATE")
    parser.add_argument("--unseen", type=float, default=0.01, metavar="PART", help="of the validations")
    parser.add_argument("--hash", default="owasp", metavar="PROFILE")
    parser.add_argument("--alg", default="RS256")
    parser.add_argument("--utilisation", type=float, default=0.6, metavar="PART", help="how busy a core may be")
    parser.add_argument("--cores-per-node", type=int, default=8, metavar="COUNT")
    parser.add_argument("--spare-nodes", type=int, default=1, metavar="COUNT", help="how many may be lost")
    parser.add_argument("--costs", type=Path, help="another record than the newest")
    options = parser.parse_args()
    plan = Plan(
        logins_per_s=options.logins,
        over_s=options.over,
        refreshes_per_s=options.refreshes,
        clients_per_s=options.clients,
        introspections_per_s=options.introspect,
        verifications_per_s=options.verify,
        unseen_share=options.unseen,
        hash_profile=options.hash,
        alg=options.alg,
        utilisation=options.utilisation,
        cores_per_node=options.cores_per_node,
        spare_nodes=options.spare_nodes,
    )
    try:
        record = json.loads((options.costs or newest("*-costs.json")).read_text())
        needed = need(record, plan)
    except (PlanRefused, OSError) as error:
        parser.error(str(error))
    print(needs_table({"this plan": needed}))
    print(f"\nFull first: {growth_line(needed, plan)}")


if __name__ == "__main__":
    main()
