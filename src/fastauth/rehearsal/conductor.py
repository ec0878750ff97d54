"""The generators of a rehearsal, from the side of the command: starts them, splits the load among them, adds up what
they tell.
"""

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import msgspec

from fastauth.rehearsal.errors import RehearsalRefused
from fastauth.rehearsal.generator import Ended, LaneLoad, Opening, Report, Run, Stop, Told
from fastauth.rehearsal.plan import Lane

_encode: Final = msgspec.json.Encoder().encode
_END_S: Final = 5.0
_GONE: Final = Ended("a generator ended unexpectedly", 0)


class Conductor:
    """Generators that wait for runs; a context manager, at whose end they are gone."""

    def __init__(self, openings: Sequence[Opening]) -> None:
        """In: one for each generator."""
        self._reports: queue.Queue[Report] = queue.Queue()
        self._processes = []
        for opening in openings:
            # A session of its own: Ctrl-C is for the command alone, which asks them to stop.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fastauth.rehearsal.generator"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            self._processes.append(process)
            threading.Thread(target=self._listen, args=(process,), daemon=True).start()
            self._send(process, opening)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            with contextlib.suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()
        for process in self._processes:
            try:
                process.wait(_END_S)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()

    def run(self, seconds: float, loads: Mapping[Lane, LaneLoad], told: Callable[[Told], None]) -> int:
        """Hold one run to its end; out: how many sessions can still be refreshed. KeyboardInterrupt leaves it under
        way: ``stop``, then ``finish``. Raises RehearsalRefused if a generator could not hold it.
        """
        count = len(self._processes)
        for number, process in enumerate(self._processes):
            self._send(process, Run(seconds, {lane: _share(load, number, count) for lane, load in loads.items()}))
        self._under_way = count
        return self.finish(told)

    def stop(self) -> None:
        """Offer nothing more."""
        for process in self._processes:
            self._send(process, Stop())

    def finish(self, told: Callable[[Told], None]) -> int:
        """As ``run``, of one that is under way."""
        error, sessions = None, 0
        while self._under_way:
            report = self._reports.get()
            if isinstance(report, Told):
                told(report)
            else:
                self._under_way -= 1
                error = error or report.error
                sessions += report.sessions_left
        if error is not None:
            raise RehearsalRefused(error)
        return sessions

    def _send(self, process: "subprocess.Popen[bytes]", order: Opening | Run | Stop) -> None:
        with contextlib.suppress(BrokenPipeError):  # ``_listen`` tells of its end
            if process.stdin is not None:
                process.stdin.write(_encode(order) + b"\n")
                process.stdin.flush()

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        decode = msgspec.json.Decoder(Report).decode
        with contextlib.suppress(ValueError, OSError):
            for line in process.stdout or ():
                self._reports.put(decode(line))
        self._reports.put(_GONE)


def _share(load: LaneLoad, number: int, count: int) -> LaneLoad:
    """What one of so many generators does of a load; their requests lie between one another's."""
    return LaneLoad(
        load.per_s / count,
        max(1, load.connections // count),
        max(1, load.most_connections // count),
        number / load.per_s,
    )


def shares(opening: Opening, count: int) -> list[Opening]:
    """The same for each of so many generators; no session is with two of them."""
    return [
        msgspec.structs.replace(
            opening,
            users=opening.users[number:] + opening.users[:number],
            refresh_tokens=opening.refresh_tokens[number::count],
        )
        for number in range(count)
    ]
