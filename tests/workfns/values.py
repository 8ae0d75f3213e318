"""Values in, values out."""

import functools
import os
import threading
from typing import Any


def echo(value: Any) -> Any:
    """Give back what came."""
    return value


def add(left: int, right: int = 1) -> int:
    """Add two numbers."""
    return left + right


def square(number: int) -> int:
    return number * number


def describe(value: Any) -> tuple[str, str]:
    """The value's exact type and repr, as the worker sees them."""
    return f"{type(value).__module__}.{type(value).__qualname__}", repr(value)


def everything(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def apply(function: Any, *args: Any) -> Any:
    return function(*args)


def apply_all(function: Any, args: Any) -> Any:
    return function(*args)


def lock() -> Any:
    return threading.Lock()


def unsendable_deep_inside() -> Any:
    return {"key": [0, 1, 2, threading.Lock()]}


def numbers_up_to(limit: int) -> Any:
    yield from range(limit)


def nested_list(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def depth_of(value: Any) -> int:
    depth = 0
    while value:
        (value,) = value
        depth += 1
    return depth


def zeros(size: int) -> bytes:
    return bytes(size)


def letters(size: int) -> str:
    return "x" * size


def total(items: Any) -> Any:
    return sum(items)


def doubled(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return 2 * function(*args, **kwargs)

    return wrapper


@doubled
def decorated(number: int) -> int:
    """Say twice the number."""
    return number


class Arithmetic:
    """Methods of every kind."""

    class Inner:
        @staticmethod
        def negate(number: int) -> int:
            return -number

    def __init__(self, base: int = 0) -> None:
        self.base = base

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arithmetic) and self.base == other.base

    def __call__(self, number: int) -> int:
        return self.base * number

    def plus(self, number: int) -> int:
        return self.base + number

    @staticmethod
    def cube(number: int) -> int:
        return number**3

    @classmethod
    def name(cls) -> str:
        return cls.__name__


class Derived(Arithmetic):
    pass


async def coroutine_function() -> int:
    return 1


async def asynchronous_generator() -> Any:
    yield 1


def shadowed() -> str:
    return "the one that was meant"


original_shadowed = shadowed


def shadowed() -> str:  # type: ignore[no-redef]
    return "another one of this name"


def process_id() -> int:
    return os.getpid()


async def run_in_process(number: int) -> int:
    from aiointerpreters import Runner

    async with Runner(workers=1) as runner:
        return await runner.options(where="process").run(square, number)
