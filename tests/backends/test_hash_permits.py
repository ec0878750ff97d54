"""How many hashes all workers of a server compute at once, and in how much memory.

Started as ``python -m tests.backends.test_hash_permits``, this file is a worker of its own.
"""

import contextlib
import json
import mmap
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastauth import core
from fastauth.backends.hash_permits import HashBounds, HashPermits, memory_limit_kib
from fastauth.domain.errors import Unavailable
from tests.cases import each

BOUNDS = HashBounds(jobs=3, memory_kib=10)
SIZES = (1, 2, 3, 5, 12)  # in KiB; the last is more than all of them together may have
WORKERS = 4
HAMMERING_S = 0.3
TIMEOUT_S = 20.0  # never reached in a test that passes


def at_once() -> bool:
    """For who does not want to wait."""
    return False


def within(seconds: float = TIMEOUT_S) -> Callable[[], bool]:
    """For who does not want to wait for ever."""
    end_s = time.monotonic() + seconds
    return lambda: time.monotonic() < end_s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "permits"


def of_workers(path: Path, count: int, bounds: HashBounds = BOUNDS) -> list[HashPermits]:
    return [HashPermits(bounds, count, path) for _ in range(count)]


class Waiter:
    """Somebody who waits for a permit in a thread; in the line already when this has been made."""

    def __init__(self, permits: HashPermits, memory_kib: int = 1) -> None:
        self._is_in_line = threading.Event()
        self._go_on = within()
        self.has_one = False
        self._thread = threading.Thread(target=self._take, args=(permits, memory_kib), daemon=True)
        self._thread.start()
        assert self._is_in_line.wait(TIMEOUT_S)

    def _take(self, permits: HashPermits, memory_kib: int) -> None:
        self.has_one = permits.take(memory_kib, self._goes_on)

    def _goes_on(self) -> bool:
        self._is_in_line.set()  # it is asked by those who wait, and by nobody else
        return self._go_on()

    def gives_up(self) -> None:
        self._go_on = at_once
        self._thread.join(TIMEOUT_S)

    def gets_one(self) -> bool:
        """Once it has one, or has waited in vain."""
        self._thread.join(TIMEOUT_S)
        return self.has_one


# ------------------------------------------------------------------ one worker


def test_one_may_take_as_many_as_there_are_and_no_more() -> None:
    permits = HashPermits(BOUNDS)
    assert [permits.take(1, at_once) for _ in range(4)] == [True, True, True, False]
    assert permits.running == 3
    permits.give_back(1)
    assert permits.running == 2
    assert permits.take(1, at_once)
    assert not permits.take(1, at_once)


def test_the_memory_of_all_of_them_is_bounded_too() -> None:
    permits = HashPermits(BOUNDS)
    assert [permits.take(size, at_once) for size in (5, 5, 1)] == [True, True, False]
    permits.give_back(5)
    assert [permits.take(size, at_once) for size in (6, 4, 1)] == [False, True, True]


def test_one_that_is_larger_than_all_may_be_runs_alone() -> None:
    permits = HashPermits(BOUNDS)
    assert permits.take(1, at_once)
    assert not permits.take(12, at_once)
    permits.give_back(1)
    assert permits.take(12, at_once)
    assert not permits.take(0, at_once)
    permits.give_back(12)
    assert permits.take(1, at_once)
    assert permits.running == 1


def test_a_refusal_takes_nothing() -> None:
    permits = HashPermits(BOUNDS)
    for _ in range(3):
        permits.take(1, at_once)
    for _ in range(100):
        assert not permits.take(1, at_once)
    for _ in range(3):
        permits.give_back(1)
    assert permits.running == 0
    assert permits.take(10, at_once)


def test_who_waits_gets_the_next_one() -> None:
    permits = HashPermits(HashBounds(1, 10))
    assert permits.take(1, at_once)
    waiter = Waiter(permits)
    assert not waiter.has_one
    permits.give_back(1)
    assert waiter.gets_one()
    assert permits.running == 1


def test_who_waits_does_so_until_nobody_wants_it_any_more() -> None:
    permits = HashPermits(HashBounds(1, 10))
    permits.take(1, at_once)
    answers = [True, True, True, False]
    assert not permits.take(1, lambda: answers.pop(0))
    assert answers == []
    assert permits.running == 1


def test_of_the_threads_of_one_worker_who_asked_first_gets_the_next_one() -> None:
    permits = HashPermits(HashBounds(1, 10))
    assert permits.take(1, at_once)
    waiters = [Waiter(permits) for _ in range(4)]
    for number, waiter in enumerate(waiters):
        permits.give_back(1)
        assert waiter.gets_one()
        assert not any(later.has_one for later in waiters[number + 1 :])


def test_who_asks_now_does_not_overtake_those_of_its_worker_who_wait() -> None:
    permits = HashPermits(HashBounds(2, 10))
    assert permits.take(6, at_once)
    large = Waiter(permits, 6)
    assert not permits.take(1, at_once)
    permits.give_back(6)
    assert large.gets_one()
    assert permits.take(1, at_once)


def test_threads_of_one_worker_never_have_more_than_there_are() -> None:
    permits, most, lock = HashPermits(HashBounds(2, 100)), [0, 0], threading.Lock()
    goes_on = within(0.1)

    def work() -> None:
        while goes_on():
            if permits.take(1, goes_on):
                with lock:
                    most[0] += 1
                    most[1] = max(most)
                time.sleep(0.0005)
                with lock:
                    most[0] -= 1
                permits.give_back(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert most == [0, 2]
    assert permits.running == 0


# ------------------------------------------------------------------ several workers


def test_workers_on_one_file_share_what_there_is(path: Path) -> None:
    first, second = of_workers(path, 2)
    assert [worker.take(1, at_once) for worker in (first, second, first)] == [True] * 3
    assert not first.take(1, at_once)
    assert not second.take(1, at_once)
    assert first.running == second.running == 3
    first.give_back(1)
    assert second.take(1, at_once)
    assert first.running == 3


def test_workers_on_one_file_share_the_memory(path: Path) -> None:
    first, second = of_workers(path, 2)
    assert first.take(6, at_once)
    assert not second.take(5, at_once)
    assert not second.take(12, at_once)
    assert second.take(4, at_once)
    first.give_back(6)
    second.give_back(4)
    assert second.take(12, at_once)
    assert not first.take(0, at_once)


def test_workers_on_two_files_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    first, second = (HashPermits(BOUNDS, 2, tmp_path / name) for name in "ab")
    assert all(worker.take(1, at_once) for worker in (first, second) for _ in range(3))
    assert HashPermits(BOUNDS).take(1, at_once)


def test_nobody_else_may_read_the_file(path: Path) -> None:
    HashPermits(BOUNDS, 2, path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_more_workers_than_there_are_to_be_are_refused(path: Path) -> None:
    """One more than they are may be: it dies while its successor starts."""
    workers = [HashPermits(BOUNDS, 2, path) for _ in range(3)]
    with pytest.raises(Unavailable, match="more workers"):
        HashPermits(BOUNDS, 2, path)
    assert [worker.take(1, at_once) for worker in workers] == [True] * 3


def test_a_permit_goes_to_the_worker_that_waits_and_has_less(path: Path) -> None:
    rich, poor = of_workers(path, 2, HashBounds(2, 10))
    assert [rich.take(1, at_once) for _ in range(2)] == [True, True]
    waiter = Waiter(poor)
    rich.give_back(1)
    assert not rich.take(1, at_once)
    assert waiter.gets_one()
    rich.give_back(1)
    assert rich.take(1, at_once)  # now it is nobody else's turn


def test_of_two_who_have_as_little_it_is_the_turn_of_who_got_something_less_lately(path: Path) -> None:
    one, other = of_workers(path, 2, HashBounds(1, 10))
    assert one.take(1, at_once)
    waiter = Waiter(other)
    one.give_back(1)
    assert not one.take(1, at_once)
    assert waiter.gets_one()
    waiter = Waiter(one)
    other.give_back(1)
    assert not other.take(1, at_once)
    assert waiter.gets_one()


def test_one_who_has_given_up_holds_nobody_up(path: Path) -> None:
    one, other = of_workers(path, 2, HashBounds(1, 10))
    assert one.take(1, at_once)
    waiter = Waiter(other)
    waiter.gives_up()
    assert not waiter.has_one
    one.give_back(1)
    assert one.take(1, at_once)


def test_one_who_waits_and_does_nothing_about_it_holds_others_up_for_a_moment_only(path: Path) -> None:
    """It may have been stopped by a signal."""
    one, other = of_workers(path, 2, HashBounds(1, 10))
    go_on = threading.Event()
    assert one.take(1, at_once)

    class Stopped(Waiter):
        def _goes_on(self) -> bool:
            super()._goes_on()
            return not go_on.wait(TIMEOUT_S)

    stopped = Stopped(other)
    one.give_back(1)
    assert not one.take(1, at_once)
    assert one.take(1, within())
    go_on.set()
    assert not stopped.gets_one()


def test_two_workers_that_want_as_much_get_as_much(path: Path) -> None:
    workers, got = of_workers(path, 2, HashBounds(2, 10)), [0, 0]
    goes_on = within(0.4)

    def work(which: int) -> None:
        while goes_on() and workers[which].take(1, goes_on):
            got[which] += 1
            time.sleep(0.002)
            workers[which].give_back(1)

    # The second has twice as many who want one, and began earlier.
    threads = [threading.Thread(target=work, args=(which,)) for which in (1, 1, 1, 1, 0, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert min(got) > 10
    assert abs(got[0] - got[1]) <= 0.3 * max(got)
    assert workers[0].running == 0


# ------------------------------------------------------------------ real processes


class Process:
    """A worker in a process of its own."""

    def __init__(self, work: str, path: Path, *arguments: object) -> None:
        command = [sys.executable, "-m", "tests.backends.test_hash_permits", work, str(path), *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def tell(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and until nothing is left of it."""
        self._process.kill()
        self._process.wait(TIMEOUT_S)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture
def holder(path: Path) -> Iterator[Process]:
    """A worker of two, which holds two of three permits and waits for one more than there may be."""
    with Process("hold", path) as process:
        assert process.line() == "holds"
        yield process


def test_what_a_killed_worker_held_is_free_again_within_half_a_second(path: Path, holder: Process) -> None:
    permits = HashPermits(BOUNDS, 2, path)
    assert permits.running == 2
    assert not permits.take(12, at_once)
    holder.kill()
    assert permits.running == 2  # nobody has looked
    began_s = time.monotonic()
    assert permits.take(12, within())
    assert time.monotonic() - began_s < 0.5
    assert permits.running == 1


def test_a_worker_that_lives_keeps_what_it_holds_however_long_others_wait(path: Path, holder: Process) -> None:
    permits = HashPermits(BOUNDS, 2, path)
    assert not permits.take(12, within(0.25))  # longer than they take to look for the dead
    assert permits.running == 2
    holder.tell()
    assert holder.line() == "gave back"
    assert permits.take(12, at_once)


def test_the_successor_of_a_killed_worker_begins_with_nothing(path: Path, holder: Process) -> None:
    other = HashPermits(BOUNDS, 2, path)
    holder.kill()
    successors = [HashPermits(BOUNDS, 2, path) for _ in range(2)]  # its own row and the one to spare
    assert other.running == 0
    assert all(worker.take(1, at_once) for worker in (other, *successors))
    assert not other.take(1, at_once)


def test_never_are_there_more_than_may_be_however_many_workers_ask(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Process("hammer", path, seed)) for seed in range(WORKERS)]
        assert [worker.line() for worker in workers] == ["ready"] * WORKERS
        for worker in workers:
            worker.tell()
        held: list[list[tuple[int, int, int]]] = [json.loads(worker.line()) for worker in workers]
    changes = sorted(
        change
        for start_ns, end_ns, size in (one for of_worker in held for one in of_worker)
        for change in ((start_ns, 1, size), (end_ns, -1, -size))
    )
    jobs = memory_kib = 0
    seen = set()
    for _, one, size in changes:
        jobs += one
        memory_kib += size
        seen.add((jobs, memory_kib))
        assert jobs <= BOUNDS.jobs
        assert memory_kib <= BOUNDS.memory_kib or jobs == 1
    assert (jobs, memory_kib) == (0, 0)
    assert {jobs for jobs, _ in seen} == {0, 1, 2, 3}
    assert (1, 12) in seen
    assert min(len(of_worker) for of_worker in held) > 5
    assert HashPermits(BOUNDS, WORKERS, path).running == 0


def test_of_two_who_take_the_last_one_at_the_same_moment_at_most_one_gets_it(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Process("in_step", path)) for _ in range(2)]
        assert [worker.line() for worker in workers] == ["ready"] * 2
        for worker in workers:
            worker.tell()
        rounds, won = zip(*(json.loads(worker.line()) for worker in workers), strict=True)
    assert rounds[0] == rounds[1] > 0
    assert not set(won[0]) & set(won[1])
    assert won[0] or won[1]
    assert HashPermits(BOUNDS, 2, path).running == 0


# ------------------------------------------------------------------ bounds


@each("each_kib", [1, 19 * 1024, 1 << 40])
def test_there_are_as_many_as_cores_unless_the_memory_is_short_and_never_none(each_kib: int) -> None:
    cores = len(os.sched_getaffinity(0))
    bounds = HashBounds.of_machine(64, each_kib)
    assert bounds.memory_kib == 64 * 1024
    assert bounds.jobs == max(1, min(cores, 64 * 1024 // each_kib))


def test_without_a_budget_it_is_a_quarter_of_the_memory() -> None:
    physical_kib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    assert 0 < memory_limit_kib() <= physical_kib
    assert HashBounds.of_machine(None, 1).memory_kib == memory_limit_kib() // 4


def test_a_hash_without_memory_is_no_division_by_nothing() -> None:
    assert HashBounds.of_machine(1, 0).jobs >= 1


# ------------------------------------------------------------------ what the processes do


def hold(path: Path) -> None:
    """Take two of three, and wait for more than there may be; give them back when told."""
    permits = HashPermits(BOUNDS, 2, path)
    assert permits.take(1, at_once)
    assert permits.take(2, at_once)
    waiter = Waiter(permits, 12)
    print("holds", flush=True)
    sys.stdin.readline()
    waiter.gives_up()
    permits.give_back(1)
    permits.give_back(2)
    print("gave back", flush=True)
    sys.stdin.readline()


def hammer(path: Path, seed: int) -> None:
    """Take permits with two threads; out: for each from when to when it was surely held, in ns, and its size."""
    permits, held = HashPermits(BOUNDS, WORKERS, path), []
    print("ready", flush=True)
    sys.stdin.readline()
    goes_on = within(HAMMERING_S)

    def work(chance: random.Random) -> None:
        while goes_on():
            size = chance.choice(SIZES)
            if permits.take(size, goes_on):
                start_ns = time.monotonic_ns()
                time.sleep(chance.random() * 0.004)
                held.append((start_ns, time.monotonic_ns(), size))
                permits.give_back(size)

    threads = [threading.Thread(target=work, args=(random.Random(2 * seed + which),)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(held), flush=True)


def in_step(path: Path) -> None:
    """Take the only permit at the same moment as another, again and again; out: how often, and when this one got it."""
    permits = HashPermits(HashBounds(1, 10), 2, path)
    with open(os.open(f"{path}.steps", os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:  # noqa: PTH123 - by who comes first
        file.truncate(mmap.PAGESIZE)
        steps = core.SharedCounters(mmap.mmap(file.fileno(), mmap.PAGESIZE), os.dup(file.fileno()))
    print("ready", flush=True)
    sys.stdin.readline()
    step, rounds, won, goes_on, waits = 0, 0, [], within(HAMMERING_S), within()

    def together() -> None:
        nonlocal step
        step += 2
        steps.add(0)
        while steps.read(0) < step and waits():
            pass

    while True:
        if not goes_on():
            steps.add(1)
        together()
        if steps.read(1):  # one of the two has had enough
            break
        is_mine = permits.take(1, at_once)
        together()
        if is_mine:
            won.append(rounds)
            permits.give_back(1)
        rounds += 1
    print(json.dumps([rounds, won]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        hold(Path(sys.argv[2]))
    elif sys.argv[1] == "hammer":
        hammer(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        in_step(Path(sys.argv[2]))
