"""One table for all processes: exact under contention, whole after a kill, and defined for every file it may find."""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastauth import core
from fastauth.limits import Limit, LocalBuckets, TableRefused
from fastauth.limits.local import _HEADER
from tests.cases import each
from tests.integration.running import FULL

LIMIT = Limit.parse("20/m burst 40")
PURE = core.IMPLEMENTATION == "python"


@contextlib.contextmanager
def hammering(
    path: Path, capacity: int, work: str, *arguments: Any, count: int = 4
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ready to begin; they are ended with the block."""
    command = [sys.executable, "-m", "tests.limits.hammering", work, str(path), str(capacity)]
    processes = [
        subprocess.Popen(
            [*command, *(str(argument(number) if callable(argument) else argument) for argument in arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def results(processes: list[subprocess.Popen[str]]) -> list[Any]:
    """Let them begin together; out: what each of them printed."""
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate(timeout=100)[0]) for process in processes]


# ------------------------------------------------------------------ contention


@pytest.mark.integration
@pytest.mark.parametrize("limit", ["1000/s burst 50", "100000/s burst 1000", "1/h burst 7"])
def test_four_processes_on_one_bucket_get_the_burst_and_what_regrew_to_the_unit(tmp_path: Path, limit: str) -> None:
    rate = Limit.parse(limit)
    with hammering(tmp_path / "table", 1024, "one_bucket", limit, 10 if FULL else 0.5) as processes:
        told = results(processes)
    admitted = sum(one["admitted"] for one in told)
    elapsed_us = max(one["end_us"] for one in told) - min(one["start_us"] for one in told)
    assert admitted <= rate.burst + elapsed_us // rate.emission_us
    shortest_us = min(one["end_us"] for one in told) - max(one["start_us"] for one in told)
    assert admitted >= rate.burst + 0.9 * (shortest_us // rate.emission_us) - 50


@pytest.mark.integration
@pytest.mark.parametrize("together", [2, 3])
def test_a_new_key_that_is_inserted_by_all_in_the_same_microsecond_has_one_bucket(
    tmp_path: Path, together: int
) -> None:
    count = 200 if PURE else {2: 20_000, 3: 300}[together]  # three on two cores wait for each other for whole ticks
    for round_number in range(20 if FULL else 1):
        path, capacity = tmp_path / f"table {round_number}", count + 3_000
        work = (path, capacity, "new_keys", count, lambda number: number + 9, together)
        with hammering(*work, count=together) as processes:
            told = results(processes)
        admitted = Counter(number for got in told for number in got)
        assert LocalBuckets(capacity, path).evictions == 0
        assert admitted == dict.fromkeys(range(count), 1)
        assert all(len(got) > count // 100 for got in told)  # they did race


@pytest.mark.integration
def test_a_process_killed_at_any_moment_leaves_nothing_stuck(tmp_path: Path) -> None:
    path, chance = tmp_path / "table", random.Random(1)
    for _ in range(40 if FULL else 3):
        with hammering(path, 64, "until_killed", lambda number: number) as processes:
            for process in processes:
                assert process.stdin
                process.stdin.write("go\n")
                process.stdin.flush()
            time.sleep(chance.uniform(0.02, 0.1))
    buckets = LocalBuckets(64, path)
    started = time.monotonic()
    for number in range(200):
        assert buckets.take(f"key {number}", Limit.parse("1000000/s burst 1000"), 500).allowed or PURE
        until_us = (time.monotonic_ns() // 1000 // 100_000 + 5) * 100_000  # none of theirs
        assert buckets.hold(f"held {number}", until_us) == 1
        assert buckets.release(f"held {number}", until_us) == 0
    assert time.monotonic() - started < 2


def test_a_child_shares_a_table_without_a_file() -> None:
    buckets = LocalBuckets(64)
    limit = Limit.parse("1/h burst 3")
    pid = os.fork()
    if pid == 0:
        os._exit(10 + buckets.take("key", limit, 2).allowed)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 11
    assert [buckets.take("key", limit).allowed for _ in range(2)] == [True, False]


# ------------------------------------------------------------------ the file


def test_a_table_keeps_what_it_knew_for_who_opens_it_next(tmp_path: Path) -> None:
    path = tmp_path / "table"
    first = LocalBuckets(64, path)
    assert first.take("key", LIMIT, 40).allowed
    again = LocalBuckets(64, path)
    assert not again.take("key", LIMIT).allowed
    assert again.id == first.id != LocalBuckets(64).id
    del first
    assert not LocalBuckets(64, path).take("key", LIMIT).allowed


def altered(header: bytes, **fields: Any) -> bytes:
    names = ("magic", "layout", "unused", "capacity", "boot", "hash_key")
    return _HEADER.pack(*({**dict(zip(names, _HEADER.unpack(header), strict=True)), **fields}).values())


@each(
    "damage",
    [
        lambda whole: altered(whole[: _HEADER.size], boot=bytes(16)) + whole[_HEADER.size :],
        lambda whole: altered(whole[: _HEADER.size], magic=b"notours!") + whole[_HEADER.size :],
        lambda whole: altered(whole[: _HEADER.size], layout=99) + whole[_HEADER.size :],
        lambda whole: whole[:-16],
        lambda whole: whole + b"x",
        lambda whole: whole[:20],
        lambda _: b"",
        lambda _: b"\xff" * 10_000,
    ],
)
def test_a_table_of_another_boot_or_of_no_sense_is_replaced_by_an_empty_one(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / f"table {damage.__code__.co_firstlineno}"
    old = LocalBuckets(64, path)
    assert old.take("key", LIMIT, 40).allowed
    path.write_bytes(damage(path.read_bytes()))
    new = LocalBuckets(64, path)
    assert new.take("key", LIMIT, 40).allowed
    assert not LocalBuckets(64, path).take("key", LIMIT).allowed
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob(".*"))


def test_a_table_of_another_size_is_not_joined_and_not_destroyed(tmp_path: Path) -> None:
    LocalBuckets(64, tmp_path / "table").take("key", LIMIT, 40)
    with pytest.raises(TableRefused, match="made for 64 buckets, not 128; all its users must say the same"):
        LocalBuckets(100, tmp_path / "table")
    assert not LocalBuckets(33, tmp_path / "table").take("key", LIMIT).allowed


def test_a_path_that_cannot_be_a_table_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "open to others").touch(0o644)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("directory", "link", "open to others", "fifo", "missing/table"):
        with pytest.raises(TableRefused) as refusal:
            LocalBuckets(64, tmp_path / name)
        assert str(refusal.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(refusal.value)
    assert not (tmp_path / "elsewhere").exists()


@each("capacity", [0, 15, -1, 2**28 + 1, 2**63, 1.5, True, None, "64"])
def test_a_capacity_that_cannot_be_is_refused(capacity: Any) -> None:
    with pytest.raises(ValueError, match="capacity must be an int from 16 to 268435456"):
        LocalBuckets(capacity)


@pytest.mark.integration
def test_processes_that_make_the_file_at_the_same_time_share_one_table(tmp_path: Path) -> None:
    for number in range(20 if FULL else 2):
        with hammering(tmp_path / f"table {number}", 64, "one_bucket", "1/h burst 5", 0.05) as processes:
            assert sum(one["admitted"] for one in results(processes)) == 5


def test_what_nobody_uses_gives_its_memory_back_and_is_there_again_when_it_is_opened(tmp_path: Path) -> None:
    path = Path("/dev/shm") / f"fastauth-test-{os.getpid()}"  # noqa: S108 - not every file system has holes
    try:
        buckets = LocalBuckets(1 << 15, path)
        assert buckets.take("key", LIMIT, 40).allowed
        buckets.take("gone at once", Limit.parse("1000000/s burst 1"))
        full = path.stat().st_blocks
        buckets.trim()
        assert path.stat().st_blocks <= full // 20
        again = LocalBuckets(1 << 15, path)
        assert path.stat().st_blocks == full
        assert not again.take("key", LIMIT).allowed
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.skipif(PURE, reason="a minute of twin")
def test_a_million_live_keys_fit_32_mebibytes(tmp_path: Path) -> None:
    capacity = 1 << (20 if FULL else 16)
    buckets = LocalBuckets(capacity, tmp_path / "table")
    assert (tmp_path / "table").stat().st_size == core.TABLE_HEADER_BYTES + 32 * capacity
    limit = Limit.parse("1/d burst 2")
    for number in range(capacity):
        buckets.take(f"ip:{number}", limit)
    assert buckets.evictions == 0
    sample = random.Random(1).sample(range(capacity), 1_000)
    assert all(buckets.peek(f"ip:{number}", limit).remaining == 0 for number in sample)


def test_keys_that_meet_in_one_table_part_in_another() -> None:
    first, second = LocalBuckets(16), LocalBuckets(16)
    assert first.id != second.id
    limit = Limit.parse("1/d burst 1")
    for buckets in (first, second):
        for number in range(64):
            buckets.take(f"key {number}", limit)
    kept = [
        {number for number in range(64) if not buckets.peek(f"key {number}", limit).allowed}
        for buckets in (first, second)
    ]
    assert len(kept[0]) == len(kept[1]) == 32
    assert kept[0] != kept[1] or first.evictions == second.evictions == 32
