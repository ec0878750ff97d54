"""A node of a fleet that shares one bucket: ``python -m tests.limits.sharing URL LIMIT SECONDS``.

It says "ready", waits for a line, works, and prints what it saw as JSON.
"""

import asyncio
import json
import sys
import time

from fastauth.limits import Limit, LocalBuckets, RedisBuckets

CALLERS = 32


async def main(url: str, text: str, seconds: float) -> None:
    """Take from one bucket, many at a time, about 3,000 a second."""
    limit = Limit.parse(text)
    admitted = 0
    async with RedisBuckets(url, LocalBuckets(1024)) as buckets:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        before = buckets.link.commands
        start_us = time.monotonic_ns() // 1000

        async def take() -> tuple[int, int]:
            admitted = taken = 0
            while time.monotonic_ns() // 1000 < start_us + seconds * 1e6:
                admitted += (await buckets.take("the one", limit)).allowed
                taken += 1
                await asyncio.sleep(0.008)
            return admitted, taken

        counts = await asyncio.gather(*(take() for _ in range(CALLERS)))
        end_us = time.monotonic_ns() // 1000
        admitted, taken = (sum(column) for column in zip(*counts, strict=True))
        commands = buckets.link.commands - before
    told = {"admitted": admitted, "taken": taken, "commands": commands, "start_us": start_us, "end_us": end_us}
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
