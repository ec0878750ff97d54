"""The table of targets: ratios by round, what counts as met, and that a second run is compared."""

from typing import Any

from benchmarks.load.side_by_side import ORDER
from benchmarks.load.targets import OF_SERVERS, by_round, figures_of, rows_of_targets, targets_table

ONCE = {"worker MiB": [50.0], "start to ready s": [0.9, 1.0, 1.1]}
VERIFY_HELLO = OF_SERVERS[1]


def run_of(**changed: list[float]) -> dict[str, Any]:
    rounds = {row: [1_000.0, 2_000.0, 4_000.0] for row in ORDER} | ONCE
    rounds |= {name.replace("_", " "): values for name, values in changed.items()}
    return {"rounds": rounds, "figures": figures_of({"rounds": rounds})}


def test_every_row_of_a_target_is_one_that_is_measured() -> None:
    run = run_of()
    for target in OF_SERVERS:
        value = target.value(run["figures"])
        assert value == value, target.work  # none is NaN: no row has another name there


def test_rows_of_targets_are_all_that_a_target_reads_and_nothing_else() -> None:
    rows = rows_of_targets()
    assert {"verify RS256", "go validate", "hash OWASP s", "worker MiB"} <= rows
    assert rows < {*ORDER, *ONCE}


def test_a_ratio_is_taken_within_each_round_and_not_between_medians() -> None:
    # The machine is twice as fast in each round as in the one before; only once was verify slower than hello.
    run = run_of(verify_RS256=[1_000.0, 2_000.0, 2_000.0])
    assert by_round(VERIFY_HELLO, run) == [0.5, 1.0, 1.0]


def test_met_is_what_both_runs_say_and_a_second_run_that_differs_is_counted() -> None:
    first, second = run_of(), run_of(verify_RS256=[800.0, 1_600.0, 3_200.0])
    table = targets_table({**first, "again": second})
    hello = next(line for line in table.splitlines() if "bare granian hello" in line)
    assert "1.00 x" in hello
    assert "**1 of 2**" in hello
    assert "0.80 (-20%)" in hello
    assert f"In 3 of these {len(OF_SERVERS) - 2} ratios" in table
    assert "in 0 of the 2 figures that are no ratios" in table
    same = targets_table({**first, "again": first})
    assert "In 0 of these" in same


def test_a_baseline_that_is_absent_is_told_and_its_rows_are_no_failure() -> None:
    run = run_of()
    for row in [row for row in run["rounds"] if row.startswith("node ")]:
        del run["rounds"][row]
    run["figures"] = figures_of(run)
    table = targets_table({**run, "again": run})
    absent = [line for line in table.splitlines() if "absent" in line]
    assert len(absent) == 5
    assert all("node" in line and "**no**" not in line for line in absent)
