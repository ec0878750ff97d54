"""Part of ``make bench-load``: what each fault of PostgreSQL and Redis does to two nodes, and how late revocations are.

Both come from ``tests/integration/test_fleet.py`` at its full counts. Writes a dated JSON record to
``benchmarks/results`` and renders ``benchmarks/README.md``.
"""

import ast
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree  # our own tests wrote it

from benchmarks.load.render import fleet_faults_table, publish
from benchmarks.machine import ROOT, describe

TESTS: Final = "tests/integration/test_fleet.py"


def measured_by_tests(path: str, folder: Path) -> dict[str, Any]:
    """What tests of a file measured at full counts: a list under "faults" for what is measured once a fault.

    Raises CalledProcessError when one of them fails.
    """
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", path, f"--junitxml={report}"]
    command += ["-o", "junit_family=xunit1"]  # the one that has properties
    subprocess.run([*command, "--timeout", "900"], env={**os.environ, "FASTAUTH_TEST_FULL": "1"}, cwd=ROOT, check=True)
    measured: dict[str, Any] = {"faults": []}
    for node in ElementTree.parse(report).iter("property"):  # noqa: S314
        value = ast.literal_eval(node.attrib["value"])
        if node.attrib["name"] in ("fault", "identity_fault"):
            measured["faults"].append(value)
        else:
            measured[node.attrib["name"]] = value
    return measured


def main() -> None:
    """Measure, record, render."""
    with tempfile.TemporaryDirectory() as folder:
        record = {**describe(), **measured_by_tests(TESTS, Path(folder))}
    print(fleet_faults_table(record))
    publish("fleet", record, is_whole=True)


if __name__ == "__main__":
    main()
