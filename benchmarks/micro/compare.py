"""``make bench``: run the micro benchmarks, print the ratios, and fail when one fell by more than 15 %.

Microseconds of a shared machine mean nothing the next day; each row is a ratio to something else measured in the same
run: the twin for the core, raw ``cryptography`` for the tokens.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.load.render import render
from benchmarks.machine import ROOT, describe

RECORD = Path(__file__).parent / "record.json"
TOLERANCE = 0.15
# row: (benchmark, what it is compared with); the ratio is how many times faster the first is.
ROWS = {
    "bucket decision, Cython : twin": ("test_a_bucket_decision[cython]", "test_a_bucket_decision[python]"),
    "claim times, Cython : twin": ("test_the_times_of_a_token[cython]", "test_the_times_of_a_token[python]"),
    "member scan, Cython : twin": (
        "test_the_member_scan_of_a_login_body[cython]",
        "test_the_member_scan_of_a_login_body[python]",
    ),
    "issue RS256 : raw sign": ("test_issue", "test_raw_sign"),
    "verify RS256, unseen : raw verify": ("test_verify_an_unseen_token", "test_raw_verify"),
}


def measure() -> dict[str, Any]:
    """Run the benchmarks; out: their fastest times in microseconds by test name."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "benchmark.json"
        command = [
            sys.executable,
            "-m",
            "pytest",
            str(ROOT / "benchmarks" / "micro"),
            "-q",
            "--benchmark-columns=min,median",
        ]
        subprocess.run([*command, f"--benchmark-json={output}"], cwd=ROOT, check=True)
        runs = json.loads(output.read_text())["benchmarks"]
    return {run["name"]: run["stats"]["min"] * 1e6 for run in runs}


def main() -> int:
    """Out: the exit code. ``--record`` replaces the committed record."""
    times = measure()
    ratios = {row: round(times[other] / times[ours], 3) for row, (ours, other) in ROWS.items()}
    recorded = json.loads(RECORD.read_text())["ratios"] if RECORD.exists() else {}
    fallen = [row for row, ratio in ratios.items() if ratio < recorded.get(row, 0) * (1 - TOLERANCE)]
    print(f"\n{'ratio':<36}{'now':>8}{'record':>8}")
    for row, ratio in ratios.items():
        print(f"{row:<36}{ratio:>8}{recorded.get(row, '-'):>8}{'   FELL' if row in fallen else ''}")
    if "--record" in sys.argv:
        document = {**describe(), "ratios": ratios, "microseconds": {name: round(us, 3) for name, us in times.items()}}
        RECORD.write_text(json.dumps(document, indent=2) + "\n")
        render()
        return 0
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
