"""``make chaos``: every scenario for longer, a dated record, and ``docs/chaos.md`` rendered from it."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.machine import RESULTS, ROOT, describe
from tests.chaos.scenarios import SCENARIOS

PAGE: Final = ROOT / "docs" / "chaos.md"
TEMPLATE: Final = Path(__file__).with_name("chaos.md")
_KINDS: Final = ("verify", "login", "refresh")


def table(record: dict[str, Any]) -> str:
    """A row a scenario."""

    def row(report: dict[str, Any]) -> str:
        cells = []
        for kind in _KINDS:
            one = report["requests"][kind]
            cells.append(
                f"{one['sent']:,} / {one['answered']:,} / {one['refused']:,} / {one['failed'] + one['lost']:,}"
            )
        back = "-" if report["back_s"] is None else f"{report['back_s']} s"
        lost = sum(report["requests"][kind]["lost"] for kind in _KINDS)
        may = "none" if not report["may_lose"] else f"{lost} of at most {report['may_lose']}: {report['because']}"
        return f"| {report['scenario']} | {' | '.join(cells)} | {may} | {back} |"

    head = "| what happened | verify | login | refresh | may be lost | as before after |"
    return "\n".join([head, f"|{' --- |' * 6}", *map(row, record["reports"])])


def main() -> None:
    """Run, record, render."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    reports = []
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory() as folder:
            report = scenario(Path(folder), options.seconds)
        print(report, flush=True)
        reports.append(msgspec.to_builtins(report))
    record = {**describe(), "seconds": options.seconds, "reports": reports}
    print(table(record))
    if record["revision"].endswith("-dirty"):
        print("not recorded: that takes a clean revision")
        return
    path = RESULTS / f"{record['date'][:10]}-chaos.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    page = TEMPLATE.read_text().format(
        table=table(record), source=path.name, revision=record["revision"], seconds=options.seconds
    )
    PAGE.write_text(page)
    print(f"recorded in {path.relative_to(ROOT)}, rendered in {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
