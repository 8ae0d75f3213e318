"""Functions that use an Executor of their own, in a worker."""

from typing import Any

from aiointerpreters import Executor
from workfns import values

kept: list[Executor] = []


def sum_of_squares(count: int) -> int:
    with Executor(2) as executor:
        return sum(executor.map(values.square, range(count)))


def leave_one_open() -> int:
    executor = Executor(1)
    kept.append(executor)
    return executor.submit(values.square, 3).result()


def want_a_process() -> Any:
    with Executor(1, unsupported="process") as executor:
        name: Any = ("module", "workfns.refusing", "pid")
        return executor.submit(name).result()
