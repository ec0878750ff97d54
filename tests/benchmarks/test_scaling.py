"""The arithmetic from costs to machines, by examples that were computed by hand."""

import copy
import math
from typing import Any

import pytest

from benchmarks.scaling import (
    Plan,
    PlanRefused,
    at_utilisation,
    bearable_per_s,
    busy_part,
    efficiency,
    growth,
    growth_line,
    hash_s,
    need,
    needs_table,
    per_second,
)
from tests.cases import each

ZERO = {
    "node_cores": 0.2,
    "loop_s": 0.0,
    "hash_s": 0.0,
    "redis_s": 0.0,
    "redis_commands": 0.0,
    "redis_inner": 0.0,
    "redis_in_bytes": 0.0,
    "redis_out_bytes": 0.0,
    "postgres_s": 0.0,
    "write_transactions": 0.0,
    "wal_bytes": 0.0,
}


def journey(calm: dict[str, float], busy: dict[str, float], **whole: float) -> dict[str, Any]:
    """A record of one; what is not said is nothing."""
    return {
        "moderate": {**ZERO, **calm},
        "saturated": {**ZERO, "node_cores": 1.0, **busy},
        "http_in_bytes": 0,
        "http_out_bytes": 0,
        "transactions": 0.0,
        "rows_written": 0.0,
        **whole,
    }


LOGIN = {
    "redis_commands": 3.0,
    "redis_inner": 12.0,
    "redis_in_bytes": 700.0,
    "redis_out_bytes": 50.0,
    "postgres_s": 0.001,
    "write_transactions": 1.0,
    "wal_bytes": 600.0,
    "redis_s": 0.000240,
}
RECORD: dict[str, Any] = {
    "journeys": {
        "login, cheapest hash": journey(
            {**LOGIN, "loop_s": 0.004}, {**LOGIN, "loop_s": 0.002, "hash_s": 0.001}, transactions=3.0
        ),
        "login, OWASP hash": journey(
            {**LOGIN, "loop_s": 0.006},
            {**LOGIN, "loop_s": 0.002, "hash_s": 0.030},
            http_in_bytes=125,
            http_out_bytes=1250,
            transactions=3.0,
        ),
        "refresh": journey({"loop_s": 0.002}, {"loop_s": 0.002}),
        "client_credentials": journey({"loop_s": 0.001}, {"loop_s": 0.001}),
        "introspect": journey({"loop_s": 0.0002}, {"loop_s": 0.0002}),
        "verify, seen": journey({"loop_s": 0.0001}, {"loop_s": 0.00005}, http_in_bytes=1000, http_out_bytes=500),
        "verify, unseen": journey({"loop_s": 0.0003}, {"loop_s": 0.0001}, http_in_bytes=1000, http_out_bytes=500),
    },
    "idle_per_s": dict.fromkeys(ZERO, 0.0),
    "workers": {
        name: {"one": {"loop_s": 0.001, "hash_s": 0.0}, "two": {"loop_s": 0.00125, "hash_s": 0.0}}
        for name in ("login, OWASP hash", "verify, seen")
    },
    "hashes": {
        "owasp": {"cpu_s": 0.028, "memory_mib": 19.0},
        "rfc9106-2gib": {"cpu_s": 3.0, "memory_mib": 2048.0},
        "cheapest-for-tests": {"cpu_s": 0.00005, "memory_mib": 0.0},
    },
    "signatures": {"RS256": {"sign_s": 0.001, "check_s": 0.00003}, "ES256": {"sign_s": 0.0001, "check_s": 0.0001}},
    "sync_s": 0.001,
    "redis_inner_s": 0.000002,
    "state": {"session_bytes": 500.0, "bucket_bytes": 170.0},
}


def test_a_cost_lies_on_the_line_between_the_two_loads_and_never_beyond() -> None:
    login = RECORD["journeys"]["login, OWASP hash"]
    assert at_utilisation(login, "loop_s", 0.6) == pytest.approx(0.004)  # half way from 0.2 to 1.0
    assert at_utilisation(login, "loop_s", 0.1) == 0.006
    assert at_utilisation(login, "loop_s", 1.0) == 0.002


def test_a_launch_of_logins() -> None:
    plan = Plan(logins_per_s=1_000.0, over_s=1_000.0, utilisation=0.6, cores_per_node=8)
    needed = need(RECORD, plan)
    assert efficiency(RECORD, "verify, seen") == pytest.approx(0.8)
    assert needed.hash_cores == pytest.approx(1_000 * 0.030 / 0.8)  # 37.5
    assert needed.loop_cores == pytest.approx(1_000 * 0.004 / 0.8)  # 5
    assert needed.node_cores == pytest.approx(42.5 / 0.6)  # 70.8
    assert needed.nodes == 9 + 1
    assert needed.fewest_nodes == math.ceil(34 / 0.6 / 8) + 1 == 9  # the same without the 0.8
    assert needed.hash_memory_mib == 8 * 19
    assert needed.redis_commands_per_s == 3_000
    assert needed.redis_mbit_per_s == pytest.approx(1_000 * 750 * 8 / 1e6)
    assert needed.postgres_transactions_per_s == 3_000
    assert needed.postgres_writes_per_s == 1_000
    assert needed.postgres_cores == pytest.approx(1.0)
    assert needed.commits_per_sync == pytest.approx(1.0)
    assert needed.wal_mb_per_s == pytest.approx(0.6)
    assert needed.connections == 10 * 8 * 11
    assert needed.sessions_gb == pytest.approx(0.5)
    assert (needed.http_in_mbit_per_s, needed.http_out_mbit_per_s) == (1.0, 10.0)


def test_redis_is_as_busy_as_the_line_between_idle_and_saturated_says() -> None:
    # 12,000 inner commands a second, of 20 us when idle and 2 us when saturated: f = 0.24 - 0.216 f.
    needed = need(RECORD, Plan(logins_per_s=1_000.0))
    assert needed.redis_core == pytest.approx(0.24 / 1.216)
    assert busy_part(12_000, 20e-6, 2e-6) == pytest.approx(0.24 / 1.216)
    assert busy_part(500_000, 20e-6, 2e-6) == pytest.approx(1.0)  # full as soon as the saturated cost says so
    assert busy_part(1_000_000, 20e-6, 2e-6) == pytest.approx(2.0)  # more than it can do
    assert busy_part(0, 20e-6, 2e-6) == 0
    for busy in (0.1, 0.6, 0.99):
        assert busy_part(bearable_per_s(busy, 20e-6, 2e-6), 20e-6, 2e-6) == pytest.approx(busy)
        assert busy_part(bearable_per_s(busy, 2e-6, 3e-6), 2e-6, 3e-6) == pytest.approx(busy)


def test_validations_seen_and_unseen() -> None:
    needed = need(RECORD, Plan(verifications_per_s=100_000.0, unseen_share=0.1, spare_nodes=0, cores_per_node=4))
    # Half way: 75 us and 200 us.
    assert needed.loop_cores == pytest.approx((90_000 * 0.000075 + 10_000 * 0.0002) / 0.8)
    assert needed.nodes == math.ceil(needed.node_cores / 4) == 5
    assert needed.hash_cores == needed.postgres_writes_per_s == needed.sessions_gb == 0
    assert needed.http_in_mbit_per_s == pytest.approx(800)


def test_other_hashes_and_signatures() -> None:
    assert hash_s(RECORD, "owasp", "RS256") == pytest.approx(0.030)
    assert hash_s(RECORD, "owasp", "ES256") == pytest.approx(0.0291)
    assert hash_s(RECORD, "rfc9106-2gib", "RS256") == pytest.approx(3.002)  # what was around the OWASP hash stays
    assert hash_s(RECORD, "cheapest-for-tests", "RS256") == pytest.approx(0.001)
    plan = Plan(refreshes_per_s=1_000.0, clients_per_s=1_000.0, introspections_per_s=1_000.0)
    assert need(RECORD, plan).loop_cores == pytest.approx((2.0 + 1.0 + 0.2) / 0.8)
    es256 = Plan(refreshes_per_s=1_000.0, clients_per_s=1_000.0, introspections_per_s=1_000.0, alg="ES256")
    assert need(RECORD, es256).loop_cores == pytest.approx((1.1 + 0.1 + 0.2) / 0.8)
    unseen = Plan(verifications_per_s=1_000.0, unseen_share=1.0, alg="ES256")
    assert need(RECORD, unseen).loop_cores == pytest.approx((0.2 + 0.07) / 0.8)


def test_idle_workers_are_counted_and_a_gain_from_two_workers_is_not() -> None:
    record = copy.deepcopy(RECORD)
    record["idle_per_s"].update(redis_commands=2.0, postgres_s=0.01)
    record["workers"]["verify, seen"]["two"]["loop_s"] = 0.0005
    needed = need(record, Plan(verifications_per_s=1.0, cores_per_node=10))  # one node and a spare one
    assert (needed.nodes, needed.redis_commands_per_s) == (2, 40)
    assert needed.postgres_cores == pytest.approx(0.2)
    assert efficiency(record, "verify, seen") == 1


def test_what_is_full_first() -> None:
    plan = Plan(logins_per_s=1_000.0)
    needed = need(RECORD, plan)
    times = growth(needed, plan, postgres_cores=4)
    assert list(times) == sorted(times, key=lambda name: times[name])
    # 0.6 busy by commands of 20 - 0.6 x 18 us: 65,217 a second, of which the plan has 12,000.
    assert times["Redis's one thread"] == pytest.approx(0.6 / 9.2e-6 / 12_000)
    assert times["PostgreSQL's cores"] == pytest.approx(2.4)
    assert times["syncs of PostgreSQL's disk"] == pytest.approx(440)
    assert growth_line(needed, plan).startswith("Redis's one thread at 5.4 x")
    assert "nothing" in growth_line(need(RECORD, Plan()), Plan())


def test_a_table_has_a_column_for_each_plan() -> None:
    table = needs_table({"a": need(RECORD, Plan()), "b": need(RECORD, Plan(logins_per_s=10.0))})
    assert {line.count("|") for line in table.splitlines()} == {4}


@each(
    "plan",
    [
        Plan(logins_per_s=-1.0),
        Plan(logins_per_s=math.nan),
        Plan(verifications_per_s=1e9),
        Plan(unseen_share=1.1),
        Plan(utilisation=0.0),
        Plan(cores_per_node=0),
        Plan(spare_nodes=-1),
        Plan(hash_profile="md5"),
        Plan(alg="none"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(plan: Plan) -> None:
    with pytest.raises(PlanRefused):
        need(RECORD, plan)


@each(("text", "rate"), [("1667/s", 1667), ("1,000,000/10m", 1e6 / 600), ("60/m", 1), ("2.5", 2.5), ("3_600/1h", 1)])
def test_rates_as_text(text: str, rate: float) -> None:
    assert per_second(text) == pytest.approx(rate)


@each("text", ["", "x", "1/y", "-1/s", "1/0s", "1e3", "nan", "1/s/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a rate"):
        per_second(text)
