"""Values that are sent once and used in many calls."""

import atexit
import os
import weakref
from dataclasses import dataclass
from typing import Any

kept: list[Any] = []


class Mourned:
    """Leaves a mark when it is rebuilt in an interpreter, and another when it is gone there."""

    def __init__(self, fd: int, name: str = "") -> None:
        self.fd = fd
        self.name = name

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)
        os.write(self.fd, b"m")
        weakref.finalize(self, os.write, self.fd, b"g").atexit = False


@dataclass
class Holder:
    value: Any
    name: str = ""


def identity(value: Any) -> int:
    return id(value)


def type_and_identity(value: Any) -> tuple[str, int]:
    return type(value).__name__, id(value)


def identities(*args: Any, **kwargs: Any) -> list[int]:
    """Of the value, wherever it is."""
    found = []
    rest: list[Any] = [kwargs, *reversed(args)]
    while rest:
        item = rest.pop()
        if isinstance(item, (list, tuple)) and not isinstance(item, Lexicon):
            rest += item
        elif isinstance(item, dict):
            rest += item.values()
        elif isinstance(item, Holder):
            rest.append(item.value)
        else:
            found.append(id(item))
    return found


class Lexicon(list):  # type: ignore[type-arg]
    """A list that `identities` does not look into."""


def look_up(table: Any, key: Any) -> Any:
    return table[key]


def name_of(value: Mourned) -> str:
    return value.name


def hold(announce_fd: int, wait_fd: int, value: Any) -> str:
    os.write(announce_fd, b".")
    os.read(wait_fd, 1)
    return str(value.name)


def is_same(left: Any, right: Any) -> bool:
    return left is right


def change(value: Any) -> None:
    value.append("changed")


def fill(value: Any, byte: int) -> None:
    view = value["view"]
    view[:] = bytes([byte]) * len(view)


def read(value: Any) -> bytes:
    return bytes(value["view"])


def keep_own(size: int) -> None:
    """A shared value of this worker, which lends its memory to it."""
    from aiointerpreters import Shared

    kept.append(Shared(bytes(size)))


def get_at_exit(queue: Any, count: int) -> None:
    """Get items when this worker ends, and hold none of them."""
    for _ in range(count):
        atexit.register(queue.get_nowait)


def apply(function: Any, *args: Any) -> Any:
    return function(*args)


def nothing(*things: Any) -> None:
    pass
