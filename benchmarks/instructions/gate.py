"""The second half of ``make bench``: instructions a call, compared with the committed record.

Counts mean something only beside those of the same versions on the same kind of processor. Where these differ, that is
said and nothing compared: the exit code is 0, for whoever builds elsewhere has done nothing wrong.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.instructions.callgrind import CountingFailed, instructions, versions
from benchmarks.instructions.workloads import WORKLOADS
from benchmarks.load.render import render_if_possible
from benchmarks.machine import describe

RECORD: Final = Path(__file__).parent / "record.json"
TOLERANCE: Final = 0.03
_NAMES: Final = tuple(workload.name for workload in WORKLOADS)


def differences(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """What makes counts incomparable, one line each."""
    return [
        f"{name}: {then.get(name, 'none')} in the record, {now.get(name, 'none')} here"
        for name in sorted({*now, *then})
        if now.get(name) != then.get(name)
    ]


def judge(counted: Mapping[str, float], recorded: Mapping[str, float]) -> tuple[list[str], bool]:
    """The table's lines, and whether no workload takes more instructions than the record's and the tolerance."""
    lines, is_good = [f"{'instructions a call':<48}{'now':>12}{'record':>12}"], True
    for name, now in counted.items():
        then = recorded.get(name)
        if then is None:
            lines.append(f"{name:<48}{now:>12,.0f}{'-':>12}   not in the record")
            continue
        change = now / then - 1
        remark = "   ROSE" if change > TOLERANCE else "   fell: record it" if change < -TOLERANCE else ""
        is_good &= change <= TOLERANCE
        lines.append(f"{name:<48}{now:>12,.0f}{then:>12,.0f}{change:>+9.1%}{remark}")
    return lines, is_good


def main(
    arguments: Sequence[str] | None = None,
    count: Callable[[Sequence[str]], dict[str, float]] = instructions,
) -> int:
    """Out: the exit code. ``--record`` replaces the record; ``--against`` compares with another file."""
    parser = argparse.ArgumentParser(prog="benchmarks.instructions.gate")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--against", type=Path, default=RECORD)
    parser.add_argument("--only", action="append", choices=_NAMES, help="a workload; again for more")
    asked = parser.parse_args(arguments)
    if asked.record and asked.only:
        parser.error("a record has all workloads")
    try:
        here = versions()
        old: dict[str, Any] = json.loads(asked.against.read_text()) if asked.against.exists() else {}
        other = differences(here, old.get("versions", {}))
        if other and not asked.record:
            print("INSTRUCTIONS NOT COMPARED: the record is of other versions (make bench RECORD=1 makes one of these)")
            print("\n".join(f"  {line}" for line in other))
            return 0
        counted = count(asked.only or _NAMES)
    except CountingFailed as failure:
        print(f"fastauth: {failure}", file=sys.stderr)
        return 1
    lines, is_good = judge(counted, {} if other else old["instructions"])
    print("\n".join(lines))
    if asked.record:
        record = {**describe(), "versions": here, "instructions": counted}
        asked.against.write_text(json.dumps(record, indent=2) + "\n")
        if asked.against == RECORD:
            render_if_possible()
            print("say in CHANGELOG.md, under Benchmarks, why the record changed; tests/benchmarks says the line")
        return 0
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
