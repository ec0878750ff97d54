"""When the requests of an open loop are due, and what wakes the generator then."""

import contextlib
import ctypes
import math
import os
import random
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, count
from typing import Final, NamedTuple

_CLOCK_MONOTONIC: Final = 1
_ABSOLUTE: Final = 1  # TFD_TIMER_ABSTIME
_ROUNDING: Final = 1e-9  # of a request: what sums of products may be off by


class Segment(NamedTuple):
    """So many seconds, over which the rate goes in a straight line from one number of requests a second to another."""

    seconds: float
    from_per_second: float
    to_per_second: float


def steady(seconds: float, per_second: float) -> list[Segment]:
    """A schedule of one rate."""
    return [Segment(seconds, per_second, per_second)]


def arrivals(segments: Iterable[Segment], poisson_seed: int | None = None) -> "array[float]":
    """All of ``due_times`` at once."""
    return array("d", due_times(segments, poisson_seed))


def due_times(segments: Iterable[Segment], poisson_seed: int | None = None) -> Iterator[float]:
    """In: the schedule; out: the seconds from its start at which requests are due, in order.

    Evenly spaced, the first at once; with a seed a Poisson process of these rates, the same one for the same seed.
    """
    marks = _even_marks() if poisson_seed is None else _poisson_marks(poisson_seed)
    mark, expected, began_s = next(marks), 0.0, 0.0
    for segment in segments:
        here = segment.seconds * (segment.from_per_second + segment.to_per_second) / 2
        while mark < expected + here - _ROUNDING:
            yield began_s + _seconds_until(mark - expected, segment)
            mark = next(marks)
        expected += here
        began_s += segment.seconds


def _even_marks() -> Iterator[float]:
    return map(float, count())


def _poisson_marks(seed: int) -> Iterator[float]:
    chance = random.Random(seed)  # noqa: S311 - a schedule, no secret
    return accumulate(iter(lambda: chance.expovariate(1.0), None))


def _seconds_until(requests: float, segment: Segment) -> float:
    """From the segment's start until so many requests are expected: the root of a quadratic that bears equal rates."""
    if requests <= 0:
        return 0.0
    seconds, start, end = segment
    root = math.sqrt(max(0.0, start * start + 2 * (end - start) * requests / seconds))
    return 2 * requests / (start + root)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


_libc = ctypes.CDLL(None, use_errno=True)


class Alarm:
    """A timer of the kernel as a file descriptor: an event loop's own timers round to a millisecond."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._value = _Itimerspec()
        self._set: Callable[..., int] = _libc.timerfd_settime
        self._pointer = ctypes.byref(self._value)

    def set(self, at_s: float) -> None:
        """The descriptor is readable once the monotonic clock says so, and not before."""
        whole = int(at_s)
        self._value.it_value.tv_sec = whole
        self._value.it_value.tv_nsec = int((at_s - whole) * 1e9)
        self._set(self.fd, _ABSOLUTE, self._pointer, None)

    def clear(self) -> None:
        """It is not readable until it was set again."""
        with contextlib.suppress(BlockingIOError):  # it was set again already
            os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)
