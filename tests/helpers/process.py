"""What the operating system says of this process (Linux), and waiting for what nobody announces."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from aiointerpreters import Queue, QueueEmpty, Runner
from helpers.limits import SOON

LINUX = sys.platform.startswith("linux")


def native_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def thread_names() -> list[str]:
    """Those that the system knows them by."""
    names = []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            names.append((thread / "comm").read_text().strip())
    return names


def children() -> set[int]:
    """This process's, those among them that have ended and were not waited for."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just gone
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def wait_once() -> None:
    """The first wait in the main thread makes a pipe that stays; closing a runner may need none."""
    with contextlib.suppress(QueueEmpty):
        Queue[None]().get(timeout=0.001)


def target(fd: str) -> str:
    """What a descriptor is, by its number."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "closed"


def eventually(condition: Callable[[], bool]) -> bool:
    """For what the system announces to nobody: that a thread is gone, say."""
    pause = threading.Event()
    for _ in range(int(SOON / 0.01)):
        if condition():
            return True
        pause.wait(0.01)
    return condition()


def at_rest(runner: Runner) -> bool:
    """Wait until all its workers have been set up and idle."""
    return eventually(lambda: runner.stats().idle == runner.workers)


async def until(condition: Callable[[], bool]) -> bool:
    """As `eventually`, in a running loop. A test of promptness waits on `Signals` instead."""
    for _ in range(int(SOON / 0.01)):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return condition()
