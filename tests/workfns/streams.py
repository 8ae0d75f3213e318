"""Generators, and what else can be iterated over."""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from workfns import waiting


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


def letters(text: str) -> str:
    """No generator, but something to iterate over."""
    return text


def nothing_to_iterate_over() -> int:
    return 5


def words(*args: Any, **kwargs: Any) -> Iterator[Any]:
    yield args
    yield kwargs


def guarded(fd: int, count: int, mark: bytes = b"f") -> Iterator[int]:
    """Leave a mark when it is closed."""
    try:
        yield from range(count)
    finally:
        os.write(fd, mark)


def slowly_guarded(fd: int, count: int) -> Iterator[int]:
    """Leave a mark when closing begins, and another when it ends, some bytecodes later."""
    try:
        yield from range(count)
    finally:
        os.write(fd, b"(")
        for _ in range(300_000):
            pass
        os.write(fd, b")")


def endless(fd: int) -> Iterator[int]:
    number = 0
    try:
        while True:
            yield number
            number += 1
    finally:
        os.write(fd, b"f")


def spin_after(fd: int, announce_fd: int, count: int) -> Iterator[int]:
    """After some items, run without end, and without giving another one."""
    try:
        yield from range(count)
        waiting.announce_and_spin(announce_fd)
    finally:
        os.write(fd, b"f")


def gated(announce_fd: int, wait_fd: int, before: int, after: int) -> Iterator[int]:
    """Wait at the gate after the first items."""
    yield from range(before)
    waiting.wait_at(announce_fd, wait_fd)
    yield from range(before, before + after)


def counted(fd: int, count: int) -> Iterator[int]:
    """Leave a mark before each item."""
    for number in range(count):
        os.write(fd, b".")
        yield number


def failing_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise LookupError("after the items")


def raising(error: BaseException) -> Iterator[int]:
    yield 0
    raise error


def unsendable_after(fd: int, count: int) -> Iterator[Any]:
    try:
        yield from range(count)
        yield {"key": [0, (item for item in ())]}
        yield "never reached"
    finally:
        os.write(fd, b"f")


def unbuildable() -> Iterator[Any]:
    from workfns.classes import RaisesWhenRebuilt

    yield 1
    yield RaisesWhenRebuilt()
    yield 2


def blobs(size: int, count: int) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number % 251]) * size


def ignoring_its_end(fd: int) -> Iterator[int]:
    while True:
        try:
            yield 1
        except GeneratorExit:
            os.write(fd, b"i")


class Closeable:
    """An iterator with a `close` of its own."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.next = 0

    def __iter__(self) -> "Closeable":
        return self

    def __next__(self) -> int:
        self.next += 1
        return self.next

    def close(self) -> None:
        os.write(self.fd, b"c")


def closeable(fd: int) -> Closeable:
    return Closeable(fd)


async def asynchronous(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def asynchronous_guarded(fd: int, announce_fd: int, count: int) -> AsyncIterator[int]:
    """After some items, wait for ever; leave a mark when it is closed, in two steps."""
    import asyncio

    try:
        for number in range(count):
            yield number
        os.write(announce_fd, b".")
        await asyncio.get_running_loop().create_future()
    finally:
        os.write(fd, b"(")
        await asyncio.sleep(0)
        os.write(fd, b")")


async def asynchronous_failing_after(fd: int, count: int) -> AsyncIterator[Any]:
    try:
        for number in range(count):
            yield number
        yield {"key": (item for item in ())}
    finally:
        os.write(fd, b"f")
