"""Functions that are tagged where they are defined, and what tells where code runs."""

import threading
from typing import Any

from aiointerpreters import current_worker, interpreter
from aiointerpreters.executors import interpreter as the_same

assert the_same is interpreter


@interpreter
def square(number: int) -> int:
    """Square a number."""
    return number * number


@interpreter
async def coroutine_square(number: int) -> int:
    return number * number


@interpreter
@interpreter
def cube(number: int) -> int:
    return number**3


def where() -> str:
    """The name of the worker or thread that runs this."""
    worker = current_worker()
    return threading.current_thread().name if worker is None else worker.name


def where_with(*args: Any, **kwargs: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    return where(), args, kwargs


@interpreter
def where_tagged() -> str:
    return where()


def apply(function: Any, *args: Any) -> tuple[str, Any]:
    return where(), function(*args)


_count = 0


def count() -> int:
    """How often this was called in this interpreter."""
    global _count
    _count += 1
    return _count


places: set[str] = set()


def note_place(*places_fd: int) -> None:
    """An initializer."""
    places.add(where())


def was_noted() -> bool:
    return bool(places)


def fail() -> None:
    raise LookupError("in the initializer")
