"""How the event loop takes turns with the other threads of its process."""

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fastauth.server import loop_turns
from fastauth.server.loop_turns import LoopTurns
from tests.cases import each


def in_a_thread(work: Callable[[], None]) -> None:
    """The policy of the tests' own thread stays as it is."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again outside
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    for failure in failures:
        raise failure


def policy() -> int:
    return os.sched_getscheduler(0)


@each("given", [os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE])
def test_only_the_usual_policy_is_replaced_and_new_threads_inherit_it(given: int) -> None:
    wanted = os.SCHED_BATCH if given == os.SCHED_OTHER else given

    def work() -> None:
        os.sched_setscheduler(0, given, os.sched_param(0))
        turns = LoopTurns()
        assert policy() == wanted
        inherited: list[int] = []
        in_a_thread(lambda: inherited.append(policy()))
        assert inherited == [wanted]
        with turns.interrupting():
            assert policy() == given
        assert policy() == wanted

    in_a_thread(work)


def test_it_interrupts_from_the_first_long_job_to_the_end_of_the_last() -> None:
    def work() -> None:
        loop, turns = threading.get_native_id(), LoopTurns()

        def compute() -> None:
            with turns.interrupting():
                assert os.sched_getscheduler(loop) == os.SCHED_OTHER
                assert policy() == os.SCHED_BATCH  # the loop's, and not this thread's
                with turns.interrupting():  # as another thread's
                    pass
                assert os.sched_getscheduler(loop) == os.SCHED_OTHER

        in_a_thread(compute)
        assert policy() == os.SCHED_BATCH
        with pytest.raises(ZeroDivisionError), turns.interrupting():
            raise ZeroDivisionError
        assert policy() == os.SCHED_BATCH

    in_a_thread(work)


def test_granians_threads_take_turns_with_the_loop_and_no_others_do() -> None:
    def work() -> None:
        turns, has_ended, started = LoopTurns(), threading.Event(), queue.SimpleQueue[int]()

        def wait(name: str) -> None:
            (Path("/proc/self/task") / str(threading.get_native_id()) / "comm").write_text(name)
            started.put(threading.get_native_id())
            has_ended.wait()

        threads = [threading.Thread(target=wait, args=(name,)) for name in ("tokio-rt-worker", "other")]
        found = []
        for thread in threads:
            thread.start()
            found.append(started.get())
        try:
            with turns.interrupting():
                assert [os.sched_getscheduler(thread) for thread in found] == [os.SCHED_OTHER, os.SCHED_BATCH]
            assert [os.sched_getscheduler(thread) for thread in found] == [os.SCHED_BATCH, os.SCHED_BATCH]
        finally:
            has_ended.set()
            for thread in threads:
                thread.join()
        with turns.interrupting():  # also when one of them has ended
            assert policy() == os.SCHED_OTHER

    in_a_thread(work)


def test_threads_that_come_and_go_and_a_missing_proc_fail_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def work() -> None:
        turns, has_ended = LoopTurns(), threading.Event()

        def come_and_go() -> None:
            while not has_ended.is_set():
                in_a_thread(lambda: None)

        busy = threading.Thread(target=come_and_go)
        busy.start()
        try:
            for _ in range(300):
                monkeypatch.setattr(turns, "_looks_at_s", 0.0)
                with turns.interrupting():
                    assert policy() == os.SCHED_OTHER
                assert policy() == os.SCHED_BATCH
        finally:
            has_ended.set()
            busy.join()
        monkeypatch.setattr(loop_turns, "_TASKS", tmp_path / "missing")
        monkeypatch.setattr(turns, "_looks_at_s", 0.0)
        with turns.interrupting():
            assert policy() == os.SCHED_OTHER
        assert policy() == os.SCHED_BATCH

    in_a_thread(work)


@each("forbidden", ["sched_getscheduler", "sched_setscheduler"])
def test_a_sandbox_that_forbids_it_is_no_error(monkeypatch: pytest.MonkeyPatch, forbidden: str) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, forbidden, refuse)

    def work() -> None:
        with LoopTurns().interrupting():
            pass

    in_a_thread(work)
