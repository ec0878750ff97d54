"""A process that takes tokens from a shared table as fast as it can: ``python -m tests.limits.hammering``.

It says "ready", waits for a line on standard input, works, and prints what it saw as JSON.
"""

import json
import mmap
import os
import random
import sys
import time

from fastauth import core
from fastauth.limits import Limit, LocalBuckets


def one_bucket(buckets: LocalBuckets, limit: str, seconds: float) -> dict[str, int]:
    """Take from one bucket; out: how many tokens were got, and from when to when, in microseconds."""
    rate = Limit.parse(limit)
    admitted = 0
    start_us = time.monotonic_ns() // 1000
    end_us = start_us + int(seconds * 1e6)
    while time.monotonic_ns() // 1000 < end_us:
        for _ in range(20):
            admitted += buckets.take("the one", rate).allowed
    return {"admitted": admitted, "start_us": start_us, "end_us": time.monotonic_ns() // 1000}


def new_keys(buckets: LocalBuckets, count: int, seed: int, in_step: int) -> list[int]:
    """Take one token of each of many new buckets that hold one; out: which were got.

    So many processes take from each key in the same microsecond. Other buckets come and go around it within some more,
    so that slots are free at one moment and not at the next.
    """
    once, brief = Limit.parse("1/d burst 1"), Limit.parse("1000000/s burst 50")
    chance = random.Random(seed)
    path = f"{buckets.path}.steps"
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:  # noqa: PTH123 - made by who comes first
        file.truncate(mmap.PAGESIZE)
        steps = core.SharedCounters(mmap.mmap(file.fileno(), mmap.PAGESIZE), os.dup(file.fileno()))
    got = []
    for number in range(count):
        for _ in range(chance.randrange(3)):
            buckets.take(f"brief {chance.randrange(2000)}", brief, 1 + chance.randrange(50))
        key = f"new {number}"
        steps.add(0)
        while steps.read(0) < in_step * (number + 1):
            pass
        if buckets.take(key, once).allowed:
            got.append(number)
    return got


def until_killed(buckets: LocalBuckets, seed: int) -> None:
    """Everything that changes a table, on a few keys, for ever."""
    rate = Limit.parse("1000000/s burst 1000")
    chance = random.Random(seed)
    while True:
        key = f"key {chance.randrange(200)}"
        buckets.take(key, rate)
        buckets.charge(key, rate)
        until_us = (time.monotonic_ns() // 1000 // 100_000 + 2) * 100_000
        buckets.hold(f"held {key} {until_us}", until_us)
        buckets.release(f"held {key} {until_us}", until_us)


def main() -> None:
    """Read the work from the arguments."""
    work, path, capacity, *arguments = sys.argv[1:]
    buckets = LocalBuckets(int(capacity), path)
    print("ready", flush=True)
    sys.stdin.readline()
    if work == "one_bucket":
        print(json.dumps(one_bucket(buckets, arguments[0], float(arguments[1]))))
    elif work == "new_keys":
        print(json.dumps(new_keys(buckets, *map(int, arguments))))
    else:
        until_killed(buckets, int(arguments[0]))


if __name__ == "__main__":
    main()
