"""Which workers are to be replaced though they live."""

import os

import pytest

from fastauth.server.watchdog import Watchdog, private_memory_kib
from fastauth.server.workers import WorkerState
from tests.cases import each

PID = 4_711
BORN_S = 1_000.0
SILENT_S, MOST_KIB, START_S, EVERY_S = 10.0, 1_000, 60.0, 1.0


class Kennel:
    """A watchdog that looks once a second, and the memory that it finds."""

    def __init__(self, silent_s: float | None = SILENT_S, most_kib: int | None = MOST_KIB) -> None:
        self.memory_kib: int | None = 500
        self.now_s = BORN_S
        self._watchdog = Watchdog(silent_s, most_kib, START_S, lambda _pid: self.memory_kib)

    def look(self, beat_s: float | None, pid: int = PID) -> str:
        """In: when the worker told of itself, None for never."""
        self._watchdog.begin(self.now_s, EVERY_S)
        state = WorkerState() if beat_s is None else WorkerState(pid=pid, beat_us=int(beat_s * 1e6))
        return self._watchdog.judge(PID, BORN_S, state, self.now_s)

    def watch(self, seconds: float, beat_s: float | None, pid: int = PID) -> list[str]:
        """What was said, once each second."""
        verdicts = []
        for _ in range(int(seconds)):
            self.now_s += EVERY_S
            verdicts.append(self.look(beat_s, pid))
        return verdicts

    def forget(self) -> bool:
        return self._watchdog.forget(PID)


@pytest.fixture
def kennel() -> Kennel:
    kennel = Kennel()
    kennel.look(BORN_S)
    return kennel


def test_a_worker_that_tells_of_itself_is_well(kennel: Kennel) -> None:
    for _ in range(100):
        kennel.now_s += EVERY_S
        assert kennel.look(kennel.now_s - 0.3) == "well"


def test_one_that_is_silent_for_too_long_is_wedged_and_then_hopeless(kennel: Kennel) -> None:
    verdicts = kennel.watch(SILENT_S + 3, beat_s=BORN_S)
    assert verdicts == ["well"] * int(SILENT_S) + ["wedged", "hopeless", "hopeless"]


def test_one_that_was_only_late_is_well_again(kennel: Kennel) -> None:
    assert kennel.watch(SILENT_S + 1, beat_s=BORN_S)[-1] == "wedged"
    assert kennel.look(kennel.now_s) == "well"
    again = kennel.watch(SILENT_S + 2, beat_s=kennel.now_s)
    assert again[-2:] == ["wedged", "hopeless"]


def test_one_that_starts_has_the_time_that_a_start_may_take(kennel: Kennel) -> None:
    verdicts = kennel.watch(START_S + 1, beat_s=None)
    assert verdicts == ["well"] * int(START_S) + ["wedged"]


def test_what_a_predecessor_told_is_not_a_sign_of_life(kennel: Kennel) -> None:
    verdicts = kennel.watch(START_S + 1, beat_s=BORN_S, pid=PID - 1)
    assert verdicts == ["well"] * int(START_S) + ["wedged"]


def test_when_everybody_was_stopped_everybody_has_the_time_to_wake_up(kennel: Kennel) -> None:
    kennel.now_s += 3_600.0  # the machine was suspended: nobody has looked, and nobody has told
    assert kennel.look(BORN_S) == "well"
    assert kennel.watch(SILENT_S + 1, beat_s=BORN_S) == ["well"] * int(SILENT_S) + ["wedged"]


def test_one_that_has_grown_too_large_is_said_to_be(kennel: Kennel) -> None:
    kennel.memory_kib = MOST_KIB
    assert kennel.look(BORN_S) == "well"
    kennel.memory_kib = MOST_KIB + 1
    assert [kennel.look(BORN_S) for _ in range(4)] == ["well", "well", "large", "large"]
    kennel.memory_kib = MOST_KIB  # it has given some back
    assert kennel.look(BORN_S) == "well"
    kennel.memory_kib = MOST_KIB + 1
    assert kennel.look(BORN_S) == "well"
    kennel.memory_kib = None  # it has just ended
    assert kennel.look(BORN_S) == "well"


def test_what_is_off_is_not_looked_at() -> None:
    kennel = Kennel(silent_s=None, most_kib=None)
    kennel.memory_kib = 1 << 40
    assert set(kennel.watch(1_000, beat_s=BORN_S)) == {"well"}


def test_who_is_forgotten_begins_anew(kennel: Kennel) -> None:
    assert kennel.watch(SILENT_S + 1, beat_s=BORN_S)[-1] == "wedged"
    assert kennel.forget()
    assert not kennel.forget()
    kennel.now_s += EVERY_S
    assert kennel.look(BORN_S) == "wedged"


def test_the_private_memory_of_a_process_is_what_the_kernel_says() -> None:
    before = private_memory_kib(os.getpid())
    ballast = bytearray(os.urandom(1)) * (64 << 20)
    after = private_memory_kib(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(64 << 10, rel=0.1)
    assert len(ballast) == 64 << 20


@each("pid", [0, 1 << 22, -1])
def test_a_process_that_is_not_there_has_no_memory(pid: int) -> None:
    assert private_memory_kib(pid) is None
