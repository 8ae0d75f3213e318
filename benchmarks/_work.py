"""What the workers run in values.py: they import this by name, so it imports little itself."""

import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

MB = 1_000_000


class BlockingQueue(Protocol):
    """What ours and the standard library's queue have in common."""

    def put(self, item: Any, /) -> None:
        """Wait for room."""

    def get(self) -> Any:
        """Wait for an item."""


@dataclass
class Record:
    """A class of a user's own; instances cross by pickle."""

    name: str
    score: float
    tags: list[str] = field(default_factory=list)


def some_bytes(size: int) -> bytes:
    """Return bytes in memory of their own: zeros might be pages that don't exist yet."""
    return bytes(range(250)) * (size // 250)


def ignore(value: object) -> None:
    """Take a value."""


def echo(value: object) -> object:
    """Take a value and give it back."""
    return value


def nap(seconds: float) -> None:
    """Keep a worker occupied, so that the next call starts another one."""
    time.sleep(seconds)


# ---- large results, over memory that stays in the worker ----


@cache
def stored(size: int) -> bytearray:
    """Return a buffer that this worker made at its first call."""
    return bytearray(some_bytes(size))


@cache
def stored_bytes(size: int) -> bytes:
    """Return the same as `bytes`."""
    return some_bytes(size)


def store(size: int, views: bool) -> None:
    """Make the buffer ready; and keep this worker occupied, so that each has its turn."""
    if views:
        stored(size)
    else:
        stored_bytes(size)
    time.sleep(0.2)


def give_none(size: int) -> None:
    """Return nothing."""


def give_view(size: int) -> memoryview:
    """Return a view of the buffer."""
    return memoryview(stored(size))


def give_bytes(size: int) -> bytes:
    """Return what a process can return instead."""
    return stored_bytes(size)


# ---- queues ----


def produce(queue: BlockingQueue, item: object, count: int) -> None:
    """Put an item so many times."""
    put = queue.put
    for _ in range(count):
        put(item)


def return_balls(there: BlockingQueue, back: BlockingQueue) -> None:
    """Send each item back, until None comes."""
    while (ball := there.get()) is not None:
        back.put(ball)


# ---- a lexicon ----


def look_up(lexicon: dict[str, int], text: str) -> int:
    """Add up what a lexicon says of a text's words."""
    return sum(lexicon.get(word, 0) for word in text.split())
