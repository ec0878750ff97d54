"""What workers tell of themselves."""

import asyncio
import os
from pathlib import Path

import pytest

from fastauth.server.workers import BEAT_S, Heartbeat, WorkerState, WorkerTable, monotonic_us


def test_what_one_writes_all_read(tmp_path: Path) -> None:
    path = tmp_path / "workers"
    first, second = WorkerTable(path, 2), WorkerTable(path, 2)
    state = WorkerState(pid=7, born_us=5, beat_us=monotonic_us(), waiting_login=3, breaker_http=2)
    first.write(4, state)
    assert second.read(4) == state
    assert [second.read(row).pid for row in range(second.rows) if row != 4] == [0] * (second.rows - 1)


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    WorkerTable(tmp_path / "workers")
    assert (tmp_path / "workers").stat().st_mode & 0o777 == 0o600


def test_those_live_who_have_told_of_themselves_lately() -> None:
    table = WorkerTable(None, 2)
    now_us = monotonic_us()
    table.write(0, WorkerState(pid=1, born_us=20, beat_us=now_us))
    table.write(1, WorkerState(pid=2, born_us=10, beat_us=now_us - 1_000_000))
    table.write(2, WorkerState(pid=3, born_us=30, beat_us=now_us - 10_000_000))
    assert [state.pid for state in table.living()] == [2, 1]
    table.clear(1)
    assert [state.pid for state in table.living()] == [1]


@pytest.mark.parametrize("workers", [1, 5, 64])
def test_a_reader_need_not_know_how_many_workers_there_are(tmp_path: Path, workers: int) -> None:
    written = WorkerTable(tmp_path / "workers", workers)
    written.write(written.rows - 1, WorkerState(pid=9, beat_us=monotonic_us()))
    found = WorkerTable.of_running(tmp_path / "workers")
    assert found.rows == written.rows
    assert [state.pid for state in found.living()] == [9]


def test_a_reader_makes_no_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        WorkerTable.of_running(tmp_path / "workers")
    assert not list(tmp_path.iterdir())


def test_a_heart_beats_as_long_as_the_loop_turns_and_leaves_its_row_empty() -> None:
    table = WorkerTable(None)

    def look(state: WorkerState) -> None:
        state.hashing += 1

    async def run() -> list[WorkerState]:
        heart = Heartbeat(table, 1, look)
        seen = [table.read(1)]
        while table.read(1).hashing < 3:  # noqa: ASYNC110 - the loop itself has to turn
            await asyncio.sleep(BEAT_S / 5)
        seen.append(table.read(1))
        heart.close()
        await asyncio.sleep(2 * BEAT_S)
        return seen

    first, later = asyncio.run(run())
    assert first.pid == os.getpid()
    assert first.born_us <= first.beat_us < later.beat_us
    assert later.born_us == first.born_us
    assert (first.hashing, later.hashing) == (1, 3)
    assert table.read(1) == WorkerState()
