"""A module whose import, in a worker, waits at a gate; and is noted when it has ended."""

import os

from aiointerpreters import current_worker

if current_worker() is not None:
    announce_fd, wait_fd, mark_fd = map(int, os.environ["AIO_TEST_IMPORTING"].split())
    os.write(announce_fd, b".")
    os.read(wait_fd, 1)
    for _ in range(1000):
        pass
    os.write(mark_fd, b"i")


def square(number: int) -> int:
    return number * number


async def square_soon(number: int) -> int:
    return number * number
