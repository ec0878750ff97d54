"""The gate of ``make bench``: what makes it fail, what it refuses to compare, and how it counts."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from benchmarks.instructions import gate
from benchmarks.instructions.callgrind import CountingFailed, instructions
from benchmarks.micro import compare
from benchmarks.micro.compare import ROWS, Measured, still_fallen
from tests.cases import each

NAME = "bucket arithmetic"
HERE = {"python": "3.11.7", "valgrind": "valgrind-3.19.0"}


@pytest.fixture(autouse=True)
def versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "versions", lambda: HERE)


def exit_code(folder: Path, then: float, now: float, versions: dict[str, str] = HERE) -> int:
    """What the gate says of a workload that took ``then`` in the record and takes ``now``."""
    record = folder / "record.json"
    record.write_text(json.dumps({"versions": versions, "instructions": {NAME: then}}))

    def count(names: Sequence[str]) -> dict[str, float]:
        return dict.fromkeys(names, now)

    return gate.main(["--against", str(record), "--only", NAME], count)


def test_a_tenth_more_instructions_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(tmp_path, 1_000, 1_100) == 1
    assert "+10.0%   ROSE" in capsys.readouterr().out


def test_as_many_pass_and_so_do_fewer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(tmp_path, 1_000, 1_000) == 0
    assert exit_code(tmp_path, 1_000, 1_029) == 0
    assert "ROSE" not in capsys.readouterr().out
    assert exit_code(tmp_path, 1_000, 900) == 0
    assert "fell: record it" in capsys.readouterr().out


def test_other_versions_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(tmp_path, 1, 1_000, {**HERE, "python": "3.12.0"}) == 0
    told = capsys.readouterr().out
    assert "NOT COMPARED" in told
    assert "python: 3.12.0 in the record, 3.11.7 here" in told
    assert "ROSE" not in told


def test_a_failure_to_count_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(names: Sequence[str]) -> dict[str, float]:
        raise CountingFailed("valgrind is missing")

    record = tmp_path / "record.json"
    record.write_text(json.dumps({"versions": HERE, "instructions": {}}))
    assert gate.main(["--against", str(record)], fail) == 1
    assert capsys.readouterr().err == "fastauth: valgrind is missing\n"


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is missing")
def test_what_is_really_counted_passes_as_it_is_and_fails_against_a_tenth_less(tmp_path: Path) -> None:
    counted = instructions([NAME])[NAME]
    assert 100 < counted < 100_000
    assert exit_code(tmp_path, counted, counted) == 0
    assert exit_code(tmp_path, counted / 1.1, counted) == 1


@each(
    ("ours", "is_fallen", "tries"),
    [([1.0], False, 1), ([1.3, 1.25, 1.01], False, 3), ([1.3, 1.25, 1.2, 1.2], True, 4)],
)
def test_a_row_that_falls_is_measured_again_and_fails_only_if_no_try_is_fast_enough(
    capsys: pytest.CaptureFixture[str], ours: list[float], is_fallen: bool, tries: int
) -> None:
    row = next(row for row in ROWS if row.guarded and not row.is_counted)
    asked: list[list[str]] = []

    def again(names: Iterable[str]) -> Measured:
        asked.append(list(names))
        return {row.ours: ours[len(asked) - 1], row.other: 12.0}, {}

    times = {row.ours: 1.4, row.other: 10.0}  # 7.1, then up to 10 : 1.0
    assert still_fallen(times, {row.name: 10.0}, again) == ([row] if is_fallen else [])
    assert asked == [[row.ours, row.other]] * tries
    assert times == {row.ours: min(ours), row.other: 10.0}  # of each the fastest
    assert f"measured again, because they fell: {row.name}" in capsys.readouterr().out


def test_nothing_is_measured_again_when_nothing_fell() -> None:
    row = next(row for row in ROWS if row.guarded and not row.is_counted)
    assert still_fallen({row.ours: 1.0, row.other: 9.0}, {row.name: 10.0}, compare.measure) == []


@each(
    ("target", "ratio", "record", "is_fallen"),
    [(3, 6.1, 12.0, False), (3, 5.9, 12.0, True), (3, 2.9, 4.0, True), (None, 2.1, 4.0, False), (None, 1.9, 4.0, True)],
)
def test_a_kernel_beside_its_twin_fails_below_its_target_or_half_of_the_record(
    target: float | None, ratio: float, record: float, is_fallen: bool
) -> None:
    row = next(row for row in ROWS if row.is_counted and row.target == target)
    times = {row.ours: 1.0, row.other: ratio}

    def again(names: Iterable[str]) -> Measured:
        return dict(times), {}

    assert still_fallen(dict(times), {row.name: record}, again) == ([row] if is_fallen else [])
