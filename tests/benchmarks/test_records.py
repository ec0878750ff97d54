"""Each committed record is named in CHANGELOG.md, with what changed: no figure moves without a word."""

import json
import subprocess
from pathlib import Path

from benchmarks.machine import RESULTS, ROOT


def committed() -> list[Path]:
    """The dated records, without those that a run has just left here; all of them where there is no git."""
    listed = subprocess.run(["git", "ls-files", "-z", "."], cwd=RESULTS, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\0")
    return [path for path in sorted(RESULTS.glob("*.json")) if listed.returncode or path.name in names]


def records() -> list[Path]:
    """Those that ``make bench`` compares with, and the newest of each kind of the others."""
    newest = {path.stem[len("2026-01-01-") :]: path for path in committed()}
    compared = [ROOT / "benchmarks" / name / "record.json" for name in ("micro", "instructions")]
    return compared + [path for kind, path in sorted(newest.items()) if kind != "micro"]  # micro: the copy of a run


def line_of(path: Path) -> str:
    """How the changelog's line about a record begins."""
    revision = json.loads(path.read_text())["revision"]
    return f"- `{path.relative_to(ROOT / 'benchmarks')}` at {revision}: "


def test_each_record_has_a_line_in_the_changelog() -> None:
    _, _, section = (ROOT / "CHANGELOG.md").read_text().partition("\n### Benchmarks\n")
    lines = section.splitlines()
    missing = []
    for path in records():
        begin = line_of(path)
        if not any(line.startswith(begin) and len(line) > len(begin) for line in lines):
            missing.append(begin + "WHY IT CHANGED")
    assert not missing, "add to CHANGELOG.md, under ### Benchmarks:\n" + "\n".join(missing)
