"""Functions of a module that can't be imported in a subinterpreter: faulthandler refuses that."""

import asyncio
import faulthandler
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

from aiointerpreters import current_worker, worker

REQUEST: ContextVar[str] = ContextVar("REQUEST", default="none")

assert faulthandler  # which is all that it is here for


def pid() -> int:
    return os.getpid()


def pid_of(_: Any) -> int:
    return os.getpid()


def echo(value: Any) -> Any:
    return value


def square(number: int) -> int:
    return number * number


def reciprocal(number: float) -> float:
    return 1 / number


def kind_of(value: Any) -> str:
    return type(value).__name__


class Value:
    """Of a class whose module can't be imported in a worker."""


class OwnError(Exception):
    def __init__(self, first: int, second: str) -> None:
        super().__init__(f"{first} {second}")
        self.first = first
        self.second = second


def fail() -> None:
    try:
        raise KeyError("the cause")
    except KeyError as error:
        failure = OwnError(7, "seven")
        failure.add_note("a note")
        raise failure from error


def leave(status: int) -> None:
    os._exit(status)


def exit_politely() -> None:
    sys.exit(3)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def limit_files(size: int) -> int:
    """Let files, and memory that is shared, be no larger than that; the process's id."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return os.getpid()


def unsendable() -> Any:
    return {"key": [1, sys._getframe()]}


def say_and_hang(path: str) -> None:
    """Tell one's pid to who reads a FIFO, and never end."""
    with open(path, "w") as fifo:
        fifo.write(f"{os.getpid()}\n")
    while True:
        time.sleep(1000)


def hang() -> None:
    while True:
        time.sleep(1000)


def say_and_spin(path: str) -> None:
    with open(path, "w") as fifo:
        fifo.write(f"{os.getpid()}\n")
    while True:
        pass


def wait_for(path: str) -> str:
    """Wait until somebody writes to a FIFO."""
    with open(path) as fifo:
        return fifo.read()


def add_in_place(view: memoryview) -> int:
    view[0] += 1
    return view[0]


async def async_square(number: int) -> int:
    await asyncio.sleep(0)
    return number * number


def count(stop: int) -> Iterator[int]:
    yield from range(stop)


def count_for_ever(path: str) -> Iterator[int]:
    """Write to a file when it is closed."""
    try:
        number = 0
        while True:
            yield number
            number += 1
    finally:
        with open(path, "w") as file:
            file.write("closed")


def count_and_fail(stop: int) -> Iterator[int]:
    yield from range(stop)
    raise OwnError(1, "one")


async def async_count(stop: int) -> AsyncIterator[int]:
    for number in range(stop):
        await asyncio.sleep(0)
        yield number


def remember(value: Any) -> None:
    worker().state.value = value


def remembered() -> Any:
    found = current_worker()
    return None if found is None else getattr(found.state, "value", None)


def worker_name() -> str:
    return worker().name


def request() -> str:
    return REQUEST.get()


def warn() -> None:
    warnings.warn("from a process", UserWarning, stacklevel=1)


def fail_to_begin() -> None:
    raise OSError("this initializer fails")
