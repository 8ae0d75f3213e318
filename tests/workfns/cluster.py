"""What tasks of Dask and Ray do in the tests."""

import os
import socket

from aiointerpreters import current_worker


def where(number: int) -> tuple[int, str | None]:
    """The process, and the name of the worker in it."""
    worker = current_worker()
    return os.getpid(), None if worker is None else worker.name


def square(number: int) -> int:
    return number * number


def total(numbers: list[int]) -> int:
    return sum(numbers)


def add(first: int, second: int, *, third: int = 0) -> int:
    return first + second + third


def length(data: bytes, times: int) -> int:
    return len(data) * times


class OddError(Exception):
    """One whose arguments aren't its constructor's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{number} is odd")
        self.number = number

    def __reduce__(self) -> tuple[type, tuple[int], dict[str, object]]:
        return type(self), (self.number,), self.__dict__


def refuse(number: int) -> int:
    error = OddError(number)
    error.add_note("seen in a worker")
    raise error


def unsendable() -> socket.socket:
    return socket.socket()


def import_psutil() -> None:
    import psutil  # noqa: F401


def spin(fifo: str) -> None:
    """Say so when it begins, compute for ever, and say what ended it."""
    descriptor = os.open(fifo, os.O_WRONLY)
    try:
        os.write(descriptor, b"begun\n")
        while True:
            pass
    except BaseException as error:
        os.write(descriptor, type(error).__name__.encode())
        raise
    finally:
        os.close(descriptor)


def meet(fifo: str, mode: str) -> tuple[int, str | None]:
    """Wait for one that opens the other end, and so runs at the same time."""
    with open(fifo, mode):
        return where(0)
