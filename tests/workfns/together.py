"""Functions for short calls, of which some are not."""

import os
import threading
import time
from typing import Any

from workfns import waiting


def square_or_wait(number: int, stop: int, announce_fd: int, wait_fd: int) -> int:
    """At `stop`, announce it, and wait for the gate."""
    if number == stop:
        waiting.wait_at(announce_fd, wait_fd)
    return number * number


def square_or_spin(number: int, stop: int, fd: int) -> int:
    """At `stop`, run without end."""
    if number == stop:
        waiting.mark_and_spin(fd)
    return number * number


def square_or_meet(number: int, first: int, fds: tuple[int, int, int, int], limit: float) -> Any:
    """At `first` and the number after it: true if the two run at the same time."""
    if number == first:
        return waiting.meet(fds[1], fds[2], limit)
    if number == first + 1:
        return waiting.meet(fds[3], fds[0], limit)
    return number * number


def fail_at(number: int, stop: int, fd: int) -> int:
    """Fail at `stop`; after it, leave a mark if the next number is run."""
    if number == stop:
        raise LookupError(f"at {number}")
    if number == stop + 1:
        os.write(fd, b"!")
    return number


def unsendable_at(number: int, stop: int) -> Any:
    return {"key": [0, threading.Lock()]} if number == stop else number


class Poisoned:
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> Any:
    raise LookupError("refuses to be rebuilt")


def poisoned_at(number: int, stop: int) -> Any:
    return Poisoned() if number == stop else number


def large_at_times(number: int) -> Any:
    """Results of every size, and such as lend memory."""
    if number % 50 == 7:
        return bytes([number % 251]) * 100_000
    if number % 50 == 8:
        return memoryview(bytes([number % 251]) * 1_000)
    if number % 50 == 9:
        return [str(number)] * 2_000
    return number


def do(what: str, value: Any) -> Any:
    """For tests with random calls."""
    match what:
        case "fail":
            raise LookupError(value)
        case "slow":
            time.sleep(0.002)
        case "large":
            return [value] * 5_000
        case "unsendable":
            return [value, threading.Lock()]
    return value


def total(*numbers: int, scale: int = 1) -> int:
    return scale * sum(numbers)


def raise_deeply(number: int) -> int:
    if number == 700:
        _raise()
    return number


def _raise() -> None:
    raise LookupError("deep")


def none_at(number: int) -> None:
    """Nothing, but it takes a call."""
