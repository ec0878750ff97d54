"""Too many logins on a real server: who is served, who is sent away and how, and what everybody else notices."""

import asyncio
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastauth.backends.hash_permits import HashBounds, HashPermits
from fastauth.backends.passwords import PROFILES, check_password, hash_password
from fastauth.rehearsal.arrivals import steady
from fastauth.rehearsal.clients import FixedRequests, Logins, RefreshChains, TicketLogins
from fastauth.rehearsal.open_loop import Stream, drive
from fastauth.rehearsal.samples import Result, Samples, served_order
from tests.integration.running import (
    FULL,
    RunningServer,
    copy_without_users,
    import_lines,
    running_server,
    verify_bytes,
)

pytestmark = pytest.mark.integration

SECONDS = 20 if FULL else 2
USERS = [[f"user{number}", "pw"] for number in range(400)]
# Whoever was sent away before would keep the place of that time.
OTHERS = [[f"other{number}", "pw"] for number in range(1_600)]


def filled(data_dir: Path) -> Path:
    """Users with the hash of the default profile: a few hundred logins a second are a storm."""
    real = hash_password("pw", PROFILES["owasp"])
    import_lines(
        copy_without_users(data_dir), [{"username": name, "password_hash": real} for name, _ in USERS + OTHERS]
    )
    return data_dir


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(filled(tmp_path_factory.mktemp("overload"))) as server:
        yield server


@pytest.fixture(scope="module")
def hash_s() -> float:
    """What a check of a password takes here: what a storm is depends on the machine."""
    real, times = hash_password("pw", PROFILES["owasp"]), []
    for _ in range(5):
        began = time.perf_counter()
        check_password("pw", real)
        times.append(time.perf_counter() - began)
    return min(times)


def a_storm_per_s(hash_s: float) -> float:
    """Four times what all cores can hash."""
    return 4 * len(os.sched_getaffinity(0)) / hash_s


def counted(server: RunningServer, metric: str) -> dict[str, int]:
    """One family of counters, by its labels."""
    text = server.request("GET", "/metrics").body.decode()
    return {labels: int(float(value)) for labels, value in re.findall(rf"{metric}\{{(.*?)\}} ([\d.]+)", text)}


def hash_jobs(server: RunningServer) -> dict[str, int]:
    """What became of hash jobs so far."""
    return {labels.split('"')[1]: count for labels, count in counted(server, "fastauth_hash_jobs_total").items()}


def hash_seconds(server: RunningServer) -> float:
    """For how long threads have been busy with hashes so far."""
    (total,) = re.findall(
        r"^fastauth_hash_seconds_sum ([\d.e+-]+)", server.request("GET", "/metrics").body.decode(), re.M
    )
    return float(total)


def driven(server: RunningServer, *streams: Stream) -> Result:
    return asyncio.run(drive(server.port, streams))


# First, while nobody else has been sent away and is waited for.
def test_of_those_who_wait_whoever_came_first_is_served_first_ticket_holders_too(
    server: RunningServer, hash_s: float
) -> None:
    arrivals = steady(1, min(len(OTHERS), a_storm_per_s(hash_s)))
    stream = Stream("login", TicketLogins(OTHERS), arrivals, 1, most_connections=len(OTHERS), patience_s=20)
    result = driven(server, stream)["login"]
    assert set(result.by_client().counts()) == {200}  # everybody gets in, in the end
    assert max(result.attempt) > 0  # not all of them at once
    order = served_order(result)
    assert order.pairs > 100
    assert order.overtaken <= 0.01 * order.pairs


def served_per_second(samples: Samples) -> float:
    """From the start until the last one was served."""
    ends_s = [row.due_s + row.took_s for row in samples.rows() if row.status == 200]
    return len(ends_s) / max(ends_s)


def test_ten_times_the_load_leaves_the_logins_that_can_be_served_and_an_honest_answer_to_all_others(
    server: RunningServer,
) -> None:
    crowd = Logins(USERS)
    few = driven(server, Stream("login", crowd, steady(0.2, 100), patience_s=3))["login"]
    capacity = served_per_second(few)
    result = driven(server, Stream("login", crowd, steady(SECONDS, 10 * capacity), 1, most_connections=600))["login"]
    assert set(result.counts()) == {200, 503}  # nobody is left without an answer
    assert served_per_second(result) > 0.4 * capacity


def test_in_a_storm_of_logins_everything_else_is_answered_as_before(server: RunningServer, hash_s: float) -> None:
    granted = [server.login("user0", "pw").json for _ in range(20)]
    client = [
        Stream("verify", FixedRequests([verify_bytes(granted[0]["token"])]), steady(SECONDS, 200)),
        Stream(
            "jwks",
            FixedRequests([b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
            steady(SECONDS, 50),
        ),
        Stream("refresh", RefreshChains([one["refresh_token"] for one in granted]), steady(SECONDS, 15)),
    ]
    storm = Stream("login", Logins(USERS), steady(SECONDS, max(400, a_storm_per_s(hash_s))), most_connections=400)
    result = driven(server, storm, *client)
    for name in ("verify", "jwks", "refresh"):
        assert set(result[name].counts()) == {200}, name
        assert result[name].quantile_ms(0.99) < 250, name
    assert result["login"].counts()[503] > 100


def test_nobody_is_hashed_who_has_left_before(server: RunningServer, hash_s: float) -> None:
    before, before_s = hash_jobs(server), hash_seconds(server)
    burst_s, patience_s = 0.1, min(0.1, 3 * hash_s)
    burst = steady(burst_s, 1_000)
    result = driven(server, Stream("login", Logins(USERS), burst, patience_s=patience_s, connections=100))
    left = result["login"].counts()[-1]
    assert left > 3
    after = {outcome: count - before[outcome] for outcome, count in hash_jobs(server).items()}
    assert after["left"] > 0
    # While anybody is there the threads are busy, and when the last one leaves, each of them is with one hash, or takes
    # one more before the event loop has heard of it. Without a look at who has left they would be busy for a second.
    spent_s = hash_seconds(server) - before_s
    each_s = spent_s / (after["hashed"] + after["hashed_for_nobody"])
    assert spent_s <= len(os.sched_getaffinity(0)) * (burst_s + patience_s + 2 * each_s + 0.05)


def test_workers_share_the_permits_of_one_machine(tmp_path: Path) -> None:
    with running_server(filled(tmp_path), env={"FASTAUTH_WORKERS": "3"}) as server:
        watcher = HashPermits(HashBounds(64, 1 << 30), 3, server.data_dir / "fastauth.permits")
        most: list[int] = []

        async def watch(load: "asyncio.Task[Result]") -> None:
            while not load.done():
                most.append(watcher.running)
                await asyncio.sleep(0.002)

        async def both() -> Result:
            load = asyncio.create_task(drive(server.port, [Stream("login", Logins(USERS), steady(SECONDS, 300))]))
            await watch(load)
            return await load

        counts = asyncio.run(both())["login"].counts()
        watcher.close()
    assert counts[200] > 20
    # Whoever finds none free has told of one for a moment, which a look from outside may see.
    assert sorted(most)[int(0.95 * len(most))] <= len(os.sched_getaffinity(0))


def test_a_refusal_says_when_to_come_back_and_that_is_true(server: RunningServer) -> None:
    storm = Stream("login", Logins(USERS), steady(2, 400), most_connections=600, patience_s=5)

    async def ask_in_the_middle() -> tuple[int, str]:
        load = asyncio.create_task(drive(server.port, [storm]))
        await asyncio.sleep(1.5)
        refused = await asyncio.to_thread(server.login, "user1", "pw")
        await load
        assert refused.status == 503
        return int(refused.headers["retry-after"]), refused.json["ticket"]

    retry_after_s, ticket = asyncio.run(ask_in_the_middle())
    body = json.dumps({"username": "user1", "password": "pw"})
    time.sleep(max(0, retry_after_s - 0.5))  # the time that was named; the storm took the other half second
    headers = {"Content-Type": "application/json", "Login-Ticket": ticket}
    assert server.request("POST", "/auth", body, headers).status == 200
    admitted = counted(server, "fastauth_lane_decisions_total")
    assert admitted['decision="admitted_with_ticket",lane="login"'] >= 1
