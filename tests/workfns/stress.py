"""What the stress program calls in workers.

Which imports this in every worker, so it imports little itself.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from aiointerpreters import Interrupted, worker

if TYPE_CHECKING:
    from aiointerpreters import Queue

request: ContextVar[int] = ContextVar("request", default=-1)


class Refused(Exception):
    """What these functions raise."""


class StressWarning(UserWarning):
    pass


def double(number: int) -> int:
    return number + number


def refuse(number: int) -> None:
    raise Refused(number)


def double_or_refuse(number: int) -> int:
    if number < 0:
        raise Refused(number)
    return number + number


def value_of_request() -> int:
    return request.get()


# ---- the worker's life ----


def life() -> Any:
    """What this worker keeps: a name that no other worker has, ever, and counts."""
    state = worker().state
    if not hasattr(state, "life"):
        # In the end the counts, which are set before: code may be interrupted between the two.
        state.calls = state.records = state.warnings = 0
        state.life = os.urandom(8).hex()
    return state


def count() -> tuple[str, int]:
    """How many times this has been called in this worker."""
    state = life()
    state.calls += 1
    return state.life, state.calls


def log(number: int) -> tuple[str, int]:
    """Log so many records; each tells the worker, and its number among those of the worker."""
    import logging

    logger = logging.getLogger("stress")
    state = life()
    for _ in range(number):
        logger.info("%s %d", state.life, state.records)
        state.records += 1
    return state.life, state.records


def warn(number: int) -> tuple[str, int]:
    state = life()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for _ in range(number):
            warnings.warn(f"{state.life} {state.warnings}", StressWarning, stacklevel=1)
            state.warnings += 1
    return state.life, state.warnings


# ---- what is stopped ----


def spin(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "spun"


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def compute_in_c(seconds: float) -> str:
    """In calls of C of some milliseconds, which have to end before anything can be raised."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        re.match(r"(a+)+$", "a" * 14 + "b")
        sum(range(100_000))
    return "computed"


def nap_often(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.0001)
    return "napped"


def wait_for_an_item(queue: Queue[Any], seconds: float) -> str:
    from aiointerpreters import QueueEmpty

    try:
        queue.get(timeout=seconds)
    except QueueEmpty:
        return "none came"
    return "one came"


def stay_until_told(flags: Any, way: str, seconds: float) -> str:
    """Set the first flag at the beginning, and the second in the end."""
    try:
        flags[0] += 1
        return str(STOPPABLE[way](seconds))
    finally:
        flags[1] += 1


STOPPABLE = {function.__name__: function for function in (spin, sleep, compute_in_c, nap_often)}


def swallow(seconds: float) -> str:
    """Can't be interrupted for so long."""
    end = time.monotonic() + seconds
    while True:
        try:
            while time.monotonic() < end:
                pass
            return "swallowed"
        except Interrupted:
            pass


def stop_when_asked(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            while time.monotonic() < end:
                if worker().should_stop():
                    return "asked"
        except Interrupted:
            pass
    return "not asked"


# ---- values ----


def fill(view: memoryview, byte: int) -> int:
    view[:] = bytes([byte]) * len(view)
    return len(view)


def lend(size: int, byte: int) -> memoryview:
    return memoryview(bytearray([byte]) * size)


def look_up(table: dict[int, Any], key: int) -> Any:
    return table[key]


# ---- queues ----


def double_all(source: Queue[Any], target: Queue[Any]) -> int:
    """Until None comes."""
    number = 0
    while (item := source.get()) is not None:
        target.put(2 * item)
        number += 1
    return number


async def double_all_async(source: Queue[Any], target: Queue[Any]) -> int:
    number = 0
    while (item := await source.aget()) is not None:
        await target.aput(2 * item)
        number += 1
    return number


# ---- streams ----


def numbers(number: int, fails: bool = False, flags: Any = None) -> Iterator[int]:
    try:
        yield from range(number)
        if fails:
            raise Refused(number)
    finally:
        if flags is not None:
            flags[0] += 1


async def numbers_async(number: int, fails: bool = False, flags: Any = None) -> AsyncIterator[int]:
    import asyncio

    try:
        for n in range(number):
            if n % 10 == 0:
                await asyncio.sleep(0)
            yield n
        if fails:
            raise Refused(number)
    finally:
        if flags is not None:
            flags[0] += 1


# ---- coroutines ----


async def double_async(number: int, turns: int = 0) -> int:
    import asyncio

    for _ in range(turns):
        await asyncio.sleep(0)
    return number + number


async def refuse_async(number: int) -> None:
    import asyncio

    await asyncio.sleep(0)
    raise Refused(number)


async def nest_async(number: int, depth: int) -> int:
    """As many tasks as nodes in a tree of two branches."""
    import asyncio

    if depth == 0:
        return number
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(nest_async(number, depth - 1)) for _ in range(2)]
    return sum(task.result() for task in tasks)


async def stay_async(flags: Any, way: str, seconds: float) -> str:
    import asyncio

    try:
        flags[0] += 1
        if way == "sleep":
            await asyncio.sleep(seconds)
            return "slept"
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if way == "turn":
                await asyncio.sleep(0)
        return "turned" if way == "turn" else "spun"
    finally:
        flags[1] += 1


# ---- initializers ----


def fail_to_start(number: int) -> None:
    raise Refused(number)
