"""The simulated fleet: its clock, its core, its Redis beside the real script, and what holds of every plan."""

import asyncio
import random
from typing import Any

import msgspec
import pytest

from benchmarks.load.calibration import Spent, mean, mean_of
from benchmarks.load.two_nodes import Real, compared, difference, figures_of
from benchmarks.scaling_page import busy_table, telling, two_nodes_table, verdict
from benchmarks.simulation.fleet import Outcome, Plan, figures, simulated
from benchmarks.simulation.node import Cost, Costs, Others
from benchmarks.simulation.processor import HASHES, LOOP, OTHERS, Processor, weights
from benchmarks.simulation.redis_store import RedisStore, SimulatedBuckets, SimulatedLink, VirtualTable, leased
from benchmarks.simulation.virtual_time import NothingLeft, VirtualLoop, simulate
from fastauth.limits import Limit
from fastauth.rehearsal.clients import LEFT
from tests.limits.test_lua import AT_A_MOMENT
from tests.redis_servers import running_redis

NOTHING = Cost(0.0)
COSTS = Costs(
    login=Cost(0.002, 0.001, 0.001),
    sent_away=Cost(0.0006, 0.0003),
    login_limited=Cost(0.0004, 0.0002),
    refresh=Cost(0.002, 0.001, 0.001),
    verify=Cost(0.0002, 0.0001),
    verify_limited=Cost(0.0001, 0.0001),
    hash_s=0.025,
    idle=0.02,
)
ONLY_HASHES = msgspec.structs.replace(COSTS, login=NOTHING, sent_away=NOTHING, login_limited=NOTHING, idle=0.0)


def here() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def answers(outcome: Outcome, lane: str) -> dict[int, int]:
    return outcome.samples[lane].counts()


# The clock and the core


def test_time_jumps_to_what_happens_next() -> None:
    async def waits() -> list[float]:
        times = []
        for seconds in (0.5, 3_600.0, 1e-7):
            await asyncio.sleep(seconds)
            times.append(here().time())
        assert here().time_ns() == round(times[-1] * 1e9)
        return times

    assert simulate(waits()) == pytest.approx([0.5, 3_600.5, 3_600.5000001], abs=1e-9)


def test_what_can_never_happen_is_an_error_and_an_error_comes_through() -> None:
    async def waits() -> None:
        await asyncio.get_running_loop().create_future()

    async def fails() -> None:
        raise LookupError("x")

    with pytest.raises(NothingLeft):
        simulate(waits())
    with pytest.raises(LookupError):
        simulate(fails())


def test_a_core_is_shared_by_weight_and_first_come_first_served_within_a_kind() -> None:
    async def runs() -> list[tuple[str, float]]:
        core, ended = Processor(here(), weights(5)), []

        async def one(name: str, kind: int, cost_s: float) -> None:
            await core.run(kind, cost_s)
            ended.append((name, here().time()))

        await asyncio.gather(one("hash", HASHES, 1.0), one("loop", LOOP, 0.6), one("later", LOOP, 0.4))
        assert not core.is_busy(LOOP)
        assert core.busy_s == pytest.approx([1.0, 1.0, 0.0])
        await one("alone", OTHERS, 0.25)
        return ended

    share = 1 / (1 + 1.25**-5)
    names, times = zip(*simulate(runs()), strict=True)
    assert names == ("loop", "later", "hash", "alone")
    assert times == pytest.approx([0.6 / share, 1.0 / share, 2.0, 2.25])


# Redis and leases


@pytest.mark.integration
def test_a_bucket_is_emptied_and_filled_as_by_the_script_in_redis() -> None:
    chance = random.Random(7)
    steps: list[tuple[int, str, tuple[int, ...]]] = []
    now_us = 1_000_000
    for _ in range(300):
        now_us += chance.choice((0, 1, 700, 5_000, 400_000))
        if chance.random() < 0.15:
            steps.append((now_us, "give_back", (3_000, chance.randint(1, 5))))
        else:
            part, count = chance.choice(((0, 1), (0, 3), (4, 10), (4, 100)))
            steps.append((now_us, "take", (3_000, 40, chance.randint(1, 3), part, 0, count)))

    async def ours() -> list[tuple[int, ...]]:
        loop = here()
        store = RedisStore(loop, 0.0, 0.0)
        told: list[tuple[int, ...]] = []
        for moment_us, op, numbers in steps:
            await asyncio.sleep(moment_us / 1e6 - loop.time())
            told.append(store.answer(op, "key", numbers))
        return told

    with running_redis() as server, server.client() as client:
        base_us = 1_800_000_000_000_000  # the script sets times to live by it
        theirs = [
            tuple(client.eval(AT_A_MOMENT, 1, "key", op, *numbers, base_us + moment_us))
            for moment_us, op, numbers in steps
        ]
    assert simulate(ours()) == theirs


def test_leased_buckets_never_admit_more_than_there_was_and_equal_calls_are_one_command() -> None:
    limit, seconds = leased("200/s burst 100"), 5.0

    async def hammered() -> tuple[int, int, int]:
        loop = here()
        store = RedisStore(loop, 0.0005, 0.00002)
        nodes = [
            SimulatedBuckets(loop, SimulatedLink(loop, store, 3), VirtualTable(64, lambda: loop.time_ns() // 1000))
            for _ in range(3)
        ]
        admitted = asked = 0

        async def asks(buckets: SimulatedBuckets) -> None:
            nonlocal admitted, asked
            while loop.time() < seconds:
                decision = await buckets.take("all", limit)
                admitted += decision.allowed
                asked += 1
                await asyncio.sleep(0.004)

        await asyncio.gather(*(asks(node) for node in nodes for _ in range(2)))
        exact = Limit.parse("1/m burst 5 exact")
        before = store.commands
        decisions = await asyncio.gather(*(nodes[0].take("one", exact) for _ in range(8)))
        assert [decision.allowed for decision in decisions] == [True] * 5 + [False] * 3
        assert store.commands == before + 1
        for node in nodes:
            await node.close()
        return admitted, asked, store.leases

    admitted, asked, leases = simulate(hammered())
    most = 100 + 200 * seconds
    assert 0.95 * most <= admitted <= most
    assert asked > 5_000
    assert leases < asked


# Fleets


def test_a_lone_node_at_low_load_is_an_m_d_1_queue() -> None:
    service_s, per_s = 0.025, 16.0
    plan = Plan(nodes=1, seconds=90.0, logins_per_s=per_s, seed=3)
    samples = simulated(plan, ONLY_HASHES).samples["login"]
    assert set(samples.status) == {200}
    free_s, waits_s = 0.0, []
    for due_s, took_s in zip(samples.due_s, samples.took_s, strict=True):
        waits_s.append(max(0.0, free_s - due_s))  # Lindley
        free_s = due_s + waits_s[-1] + service_s
        assert took_s == pytest.approx(waits_s[-1] + service_s, abs=1e-6)
    busy = service_s * len(samples) / plan.seconds
    assert sum(waits_s) / len(waits_s) == pytest.approx(busy * service_s / (2 * (1 - busy)), rel=0.2)  # M/D/1


def test_every_request_has_one_answer_and_every_node_its_part() -> None:
    plan = Plan(
        nodes=2,
        seconds=3.0,
        logins_per_s=200.0,
        refreshes_per_s=20.0,
        verifications_per_s=300.0,
        login_limit="100/s burst 50",
        verify_limit="100/s burst 100",
        is_one_machine=True,
    )
    outcome = simulated(plan, COSTS)
    for lane, samples in outcome.samples.items():
        by_nodes = sum(count for node in outcome.served for name, count in node.items() if name.startswith(lane))
        left = answers(outcome, lane).get(LEFT, 0)
        assert by_nodes <= len(samples) <= by_nodes + left
        assert 0 not in samples.status
        assert outcome.fairness(lane) > 0.8
    assert {200, 429, 503} <= set(answers(outcome, "login"))
    assert answers(outcome, "verify")[200] <= 100 + 100 * outcome.ended_s
    # A request that a login limit admits is one that came, not one that was served.
    asked = answers(outcome, "login")
    assert asked[200] + asked[503] <= 50 + 100 * outcome.ended_s
    assert all(0.0 <= part <= 1.0 + 1e-6 for node in outcome.busy for part in node)
    assert outcome.leases > 0
    told = figures(outcome, plan)
    assert set(told["lanes"]) == {"login", "refresh", "verify"}
    assert told["lanes"]["refresh"]["answers"] == {"200": len(outcome.samples["refresh"])}


def test_who_is_sent_away_comes_back_with_the_ticket_until_all_are_in() -> None:
    outcome = simulated(Plan(nodes=2, seconds=3.0, logins_per_s=160.0), COSTS)
    clients = outcome.samples["login"].by_client()
    served = clients.counts().get(200, 0)
    assert served >= 0.97 * len(clients)  # the rest had no patience in the queue
    assert answers(outcome, "login")[503] > 100
    assert max(outcome.samples["login"].attempt) < 20
    assert outcome.ended_s > 1.5 * 3.0
    gone = simulated(Plan(nodes=2, seconds=3.0, logins_per_s=160.0, returns=False), COSTS)
    assert set(gone.samples["login"].attempt) == {0}


def test_more_nodes_never_serve_less_and_one_seed_is_one_outcome() -> None:
    def goodput(nodes: int) -> float:
        plan = Plan(nodes=nodes, seconds=3.0, logins_per_s=100.0, returns=False)
        return simulated(plan, COSTS).samples["login"].good(3.0) / plan.seconds

    by_nodes = [goodput(nodes) for nodes in (1, 2, 3, 4)]
    assert by_nodes == sorted(by_nodes)
    assert by_nodes[1] > 1.7 * by_nodes[0]
    plan = Plan(nodes=2, seconds=2.0, logins_per_s=120.0, verifications_per_s=50.0, verify_limit="20/s burst 20")
    assert simulated(plan, COSTS) == simulated(plan, COSTS)
    assert simulated(plan, COSTS) != simulated(msgspec.structs.replace(plan, seed=2), COSTS)


def test_a_storm_of_validations_leaves_logins_their_part_of_the_core() -> None:
    costs = msgspec.structs.replace(COSTS, verify=Cost(0.002), verify_limited=NOTHING)
    plan = Plan(nodes=1, seconds=3.0, logins_per_s=60.0, verifications_per_s=600.0, returns=False, patience_s=1.0)
    loops, hashes, _ = simulated(plan, costs).busy[0]
    assert loops > 0.6
    assert hashes > 0.05


def test_what_stands_beside_the_nodes_runs_where_the_kernel_would_wake_it() -> None:
    async def placed() -> list[list[bool]]:
        others = Others()
        others.processors = [Processor(here(), weights(0)) for _ in range(2)]
        others.are_here = True
        one, two = others.processors
        one.do(HASHES, 0.02, lambda: None)
        found = []
        for _ in range(3):  # the idle one; then, as none is, one after the other
            others.do(0.001)
            found.append([one.is_busy(OTHERS), two.is_busy(OTHERS)])
        with pytest.raises(ValueError, match=r"takes -0\.001 s"):
            one.do(LOOP, -0.001, lambda: None)
        return found

    assert simulate(placed()) == [[False, True], [True, True], [True, True]]


# Beside a real run


def test_what_is_spent_anyway_is_no_cost_and_a_mean_is_cut_off_last() -> None:
    idle = Spent(seconds=2.0, loop_s=0.02, hash_s=0.0, others_s=0.04, redis_s=0.01, redis_commands=4)
    used = Spent(seconds=4.0, loop_s=0.54, hash_s=1.0, others_s=0.38, redis_s=0.12, redis_commands=108)
    assert used.less(idle) == pytest.approx((4.0, 0.5, 1.0, 0.3, 0.1, 100))
    assert mean_of([{"a": 1.0, "b": {"c": 2.0}}, {"a": 3.0, "b": {"c": None}}]) == {"a": 2.0, "b": {"c": None}}
    low = msgspec.structs.replace(COSTS, sent_away=Cost(-0.0002, 0.0001), hash_beside=0.98)
    high = msgspec.structs.replace(COSTS, sent_away=Cost(0.0006, 0.0005), hash_beside=1.06)
    assert msgspec.structs.astuple(mean([low, high]).sent_away) == pytest.approx((0.0002, 0.0003, 0.0))
    assert mean([low, high]).hash_beside == pytest.approx(1.02)
    assert mean([low]).sent_away == Cost(0.0, 0.0001)
    assert mean([low]).hash_beside == 1.0


def test_each_round_is_simulated_by_the_calibrations_around_it() -> None:
    plan = Plan(nodes=2, seconds=3.0, logins_per_s=40.0)
    slower = msgspec.structs.replace(COSTS, hash_s=0.035)
    busy = {"loops": 0.1, "hashes": 1.2, "others": 0.0}
    reals = [
        Real(simulated(msgspec.structs.replace(plan, seed=1), COSTS).samples, busy),
        Real(simulated(msgspec.structs.replace(plan, seed=2), mean([COSTS, slower])).samples, busy),
    ]
    point = compared("a load", reals, plan, [COSTS, COSTS, slower])
    assert point["rounds"]["measured"] == point["rounds"]["simulated"]
    low, high = point["by_single_calibrations"]["login"]["p50_ms"]
    assert low < point["simulated"]["login"]["p50_ms"] < high


def test_figures_and_differences() -> None:
    plan = Plan(nodes=2, seconds=3.0, logins_per_s=160.0, verifications_per_s=100.0, verify_limit="40/s burst 20")
    outcome = simulated(plan, COSTS)
    told = figures_of(outcome.samples, plan.seconds)
    assert set(told) == {"login", "verify"}
    assert (
        sum(told["verify"][name] for name in ("admitted", "sent_away", "limited", "lost")) == told["verify"]["requests"]
    )
    slower: dict[str, Any] = {**told["login"], "goodput_per_s": 2 * told["login"]["goodput_per_s"], "sent_away": 0}
    assert difference(slower, told["login"], "goodput_per_s") == -0.5
    assert difference(slower, told["login"], "sent_away") is None  # a part of nothing
    assert difference(slower, told["login"], "limited") is None  # too few of both
    point = compared(
        "a load", [Real(outcome.samples, {"loops": 0.1, "hashes": 1.2, "others": 0.0})], plan, [COSTS, COSTS]
    )
    assert {value for lane in point["difference"].values() for value in lane.values()} <= {0.0, None}
    assert set(telling(point)) == {
        ("login", "sent_away"),
        ("login", "goodput_per_s"),
        ("login", "ended_s"),
        ("verify", "limited"),
        ("verify", "admitted"),
    }
    record = {"points": [point]}
    assert "5 of them are within 15%. Not counted, " in verdict(record)
    point["difference"]["login"]["sent_away"] = -0.4
    assert "4 of them are within 15%; not within: 503 of login, a load (-40%: " in verdict(record)
    assert {line.count("|") for line in two_nodes_table(record).splitlines()} == {10}
    assert "1.20 / " in busy_table(record)
