"""The examples of docs/limits.md do what they say."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.redis_servers import running_redis

TEXT: Final = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
EXAMPLES: Final = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def run(program: str) -> str:
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def test_the_local_example_admits_what_it_says_and_then_tells_when_to_come_back(tmp_path: Path) -> None:
    program = EXAMPLES[0].replace("/dev/shm/my-service", str(tmp_path / "table"))  # noqa: S108
    assert [run(program) for _ in range(2)] == ["", ""]
    taking = program.replace("decision =", "for _ in range(40):\n    decision =")
    assert re.fullmatch(r"429, Retry-After: [123]\n", run(taking))


@pytest.mark.integration
def test_the_shared_example_and_the_guesses_run_on_a_redis() -> None:
    with running_redis() as redis:
        shared = EXAMPLES[1].replace("redis://127.0.0.1:6379/0", redis.url)
        assert run(shared) == "True 199\n"
        guesses = shared.replace("asyncio.run(main())", "") + EXAMPLES[2] + GUESSING.replace("URL", redis.url)
        assert run(guesses) == "[True, False, False, False]\n"


GUESSING: Final = """

async def is_right(account: str, password: str) -> bool:
    return password == "right"


async def guess() -> None:
    async with RedisBuckets("URL", LocalBuckets()) as buckets:
        budget = GuessBudget(Limit.parse("1/h burst 2"), buckets.local, buckets)
        print([await check(budget, "a", password) for password in ("right", "x", "y", "right")])


asyncio.run(guess())
"""
