"""Functions that wait, meet and leave marks, so that tests need no clock."""

import mmap
import os
import select
import sys
import time
from typing import Any


def wait_at(announce_fd: int, wait_fd: int, result: Any = None) -> Any:
    """Announce that this call runs; return once the gate is open."""
    os.write(announce_fd, b".")
    os.read(wait_fd, 1)
    return result


def fail_after(announce_fd: int, wait_fd: int) -> None:
    wait_at(announce_fd, wait_fd)
    raise ValueError("failed after the gate")


def unsendable_after(announce_fd: int, wait_fd: int) -> Any:
    wait_at(announce_fd, wait_fd)
    return (item for item in ())


def leave_mark(fd: int, mark: bytes = b".") -> bytes:
    os.write(fd, mark)
    return mark


def mark_and_wait(fd: int, mark: bytes, announce_fd: int, wait_fd: int) -> None:
    leave_mark(fd, mark)
    wait_at(announce_fd, wait_fd)


def announce_and_spin(announce_fd: int) -> None:
    os.write(announce_fd, b".")
    while True:
        pass


def meet(tell_fd: int, hear_fd: int, limit: float) -> bool:
    """True if the other call, that holds the other ends, runs at the same time as this one."""
    os.write(tell_fd, b".")
    return bool(select.select([hear_fd], [], [], limit)[0])


def meet_without_giving_up_the_gil(fd: int, mine: int, theirs: int, limit: float) -> bool:
    """True if the other call runs while this one never lets go of its GIL.

    The two see each other through a shared mapping, whose reading releases nothing, and the
    switch interval is an hour: under one common GIL, the first to run would keep the other out.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    try:
        with mmap.mmap(fd, 2) as shared:
            shared[mine] = 1
            end = time.monotonic() + limit
            while not shared[theirs]:
                if time.monotonic() > end:
                    return False
            return True
    finally:
        sys.setswitchinterval(interval)


def mark_and_spin(fd: int) -> None:
    """Leave a mark, run without end, and leave another one in the end."""
    os.write(fd, b"(")
    try:
        while True:
            pass
    finally:
        os.write(fd, b")")


def pause(seconds: float) -> float:
    """Take that long, in steps that an interruption can come between."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)
    return seconds
