"""What single operations cost: a hash, a signature, a sync of the disk, a command of Redis, a bucket's memory.

By processor time where that is what counts, so that whatever else runs on the machine changes little.
"""

import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Final

from benchmarks.load.resources import Rig
from benchmarks.load.servers import LOAD_CORE, SERVER_CORE, on_core
from fastauth.backends.passwords import PROFILES, Profile, hash_password
from fastauth.jose.keys import SigningKey

BUCKETS: Final = 10_000
_INNER_OF_TAKE: Final = 3  # TIME, GET, SET
# RFC 9106 section 4, the first recommended option; it is not a profile of fastauth.
TWO_GIB: Final = Profile(2 << 20, 1, 4)


def single_costs(rig: Rig, folder: Path, seconds: float) -> dict[str, Any]:
    """All of them but ``bucket_bytes``, as members of the record. In: a folder on the disk that is meant, and about how
    long each may take.
    """
    return {
        "hashes": hashes(),
        "hash_beside": hash_beside(),
        "signatures": signatures(seconds / 4),
        "sync_s": sync_s(folder),
        "redis_inner_s": redis_inner_s(rig, round(20_000 * seconds)),
    }


def busy_core(core: str, seconds: float) -> "subprocess.Popen[bytes]":
    """A process that hashes on a core for so long."""
    program = (
        "import sys, time; from fastauth.backends.passwords import *; end = time.monotonic() + float(sys.argv[1])\n"
        "while time.monotonic() < end: hash_password('', PROFILES['owasp'])"
    )
    return subprocess.Popen(["taskset", "-c", core, sys.executable, "-c", program, str(seconds)])


def hashes() -> dict[str, dict[str, float]]:
    """What a hash takes of a core, by profile, and how much memory."""
    told = {}
    profiles: dict[str, Profile] = {**{str(name): one for name, one in PROFILES.items()}, "rfc9106-2gib": TWO_GIB}
    for name, profile in profiles.items():
        times = []
        for _ in range(1 if profile is TWO_GIB else 5):
            began_s = time.process_time()
            hash_password("", profile)
            times.append(time.process_time() - began_s)
        told[name] = {"cpu_s": statistics.median(times), "memory_mib": profile.memory_kib / 1024}
    return told


def hash_beside() -> float:
    """How many times as much processor time a hash takes while the other core, which shares its caches, hashes too."""
    with on_core(SERVER_CORE):
        alone_s = hash_cpu_s()
        with busy_core(LOAD_CORE, 3.0):
            time.sleep(0.8)  # until it has begun
            beside_s = hash_cpu_s()
        return beside_s / alone_s


def hash_cpu_s() -> float:
    """What a hash takes of a core: the median of some, here and now."""
    times = []
    for _ in range(31):
        began_s = time.process_time()
        hash_password("", PROFILES["owasp"])
        times.append(time.process_time() - began_s)
    return statistics.median(times)


def signatures(seconds: float) -> dict[str, dict[str, float]]:
    """What a signature takes of a core, and its check, by algorithm."""
    told: dict[str, dict[str, float]] = {}
    for alg in ("RS256", "ES256"):
        key, data = SigningKey.generate(alg), bytes(500)
        signature, check = key.sign(data), key.verifying_key().is_signature
        assert check(signature, data)
        with on_core(SERVER_CORE):
            told[alg] = {
                "sign_s": _cpu_s(partial(key.sign, data), seconds),
                "check_s": _cpu_s(partial(check, signature, data), seconds),
            }
    return told


def _cpu_s(call: Callable[[], object], seconds: float) -> float:
    count, began_s = 0, time.process_time()
    while (used_s := time.process_time() - began_s) < seconds:
        call()
        count += 1
    return used_s / count


def sync_s(folder: Path) -> float:
    """What it takes to have eight more KiB on the disk, the median of many: fdatasync(2)."""
    times = []
    descriptor = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for _ in range(200):
            os.write(descriptor, bytes(8192))
            began_s = time.perf_counter()
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - began_s)
    finally:
        os.close(descriptor)
    return statistics.median(times)


def redis_inner_s(rig: Rig, commands: int) -> float:
    """What a command inside a script takes of Redis when it has no pause: by ``take``, from as many connections as
    a fleet has.
    """
    with rig.redis.client() as client:
        sha = client.script_load(resources.files("fastauth.limits.shared").joinpath("buckets.lua").read_text())
        before = client.info("cpu")
        words = ["EVALSHA", sha, "1", "fastauth:limit:__rand_int__", "take", "1000", "1000", "1", "0", "0", "1"]
        options = ["-p", str(rig.redis.port), "-c", "50", "-n", str(commands), "-r", str(BUCKETS), "-q"]
        pin = ["taskset", "-c", SERVER_CORE]
        subprocess.run([*pin, "redis-benchmark", *options, *words], check=True, capture_output=True)
        after = client.info("cpu")
        client.flushdb()
    used_s = sum(after[name] - before[name] for name in ("used_cpu_sys", "used_cpu_user"))
    return float(used_s / commands / _INNER_OF_TAKE)


def bucket_bytes(rig: Rig) -> float:
    """What a bucket takes of Redis's memory."""
    with rig.redis.client() as client:
        before = client.info("memory")["used_memory"]
        with client.pipeline(transaction=False) as pipeline:
            for _ in range(BUCKETS):
                pipeline.set(f"fastauth:limit:{secrets.token_hex(16)}", f"{time.time_ns() // 1000}", px=600_000)
            pipeline.execute()
        return float((client.info("memory")["used_memory"] - before) / BUCKETS)
