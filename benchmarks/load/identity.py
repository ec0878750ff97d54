"""Part of ``make bench-load``: what each fault of an identity source does to others, and what the guards cost.

The faults come from ``tests/integration/test_identity_faults.py`` at its full counts. Writes a dated JSON record to
``benchmarks/results`` and renders ``benchmarks/README.md``.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.load.fleet import measured_by_tests
from benchmarks.load.render import identity_faults_table, identity_line, publish
from benchmarks.machine import describe
from fastauth.breaker import CircuitBreaker
from fastauth.domain.breaker import BreakerRules
from fastauth.domain.identity import parse_routes
from fastauth.domain.users import User
from fastauth.endpoints.identity import IdentityChain

CALLS: Final = 200_000
ROUNDS: Final = 5


async def overhead_us() -> dict[str, float]:
    """Microseconds that the guards add to a login of a local account: medians of rounds."""
    order = ("local", "http", "ldap")
    chain = IdentityChain(order, {}, parse_routes("*@corp.example=http,svc-*=local", order), 5.0)
    user = User(sub="1", name="ann", password_hash="$", created_at_s=0, updated_at_s=0)
    breaker = CircuitBreaker("database", BreakerRules())

    async def nothing() -> None:
        pass

    rounds: dict[str, list[float]] = {"chain": [], "breaker": []}
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(CALLS):
            chain.is_local("ann", user)
        rounds["chain"].append(time.perf_counter() - began)
        began = time.perf_counter()
        for _ in range(CALLS):
            await nothing()
        bare = time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(CALLS):
            await breaker.call(nothing, lambda error: True)
        rounds["breaker"].append(time.perf_counter() - began - bare)
    return {name: round(statistics.median(values) / CALLS * 1e6, 2) for name, values in rounds.items()}


def main() -> None:
    """Measure, record, render."""
    with tempfile.TemporaryDirectory() as folder:
        measured = measured_by_tests("tests/integration/test_identity_faults.py", Path(folder))
    record: dict[str, Any] = {**describe(), "overhead_us": asyncio.run(overhead_us()), **measured}
    print(identity_faults_table(record))
    print(identity_line(record))
    publish("identity", record, is_whole=True)


if __name__ == "__main__":
    main()
