"""How long a pool takes from nothing to the first result of each of its workers.

For 1, 2, 8 and 32 workers: each pool is made in a fresh process that has imported what it needs,
and calls a function that returns once all workers have begun it (`_meeting.py`). So each worker has
found its function and run it; then the clock stops.

The floor is what CPython takes to make as many interpreters, configured like a worker's, on as many
threads at once, and nothing else (src/floors/interpreters.c).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from ._harness import Measure, Row, Samples, Settings, SideError, Table, Turn, side_process
from ._meeting import Meeting
from ._sides import OURS, SIDES, Call

ANY_LOOP = True

COUNTS = (1, 2, 8, 32)
FLOOR = "(bare interpreters)"
EMPTY = "(asyncio alone)"  # a process in which nothing has been started


async def measure(settings: Settings) -> list[Table]:
    """Measure all pools."""
    counts = COUNTS[2:3] if settings.quick else COUNTS
    names = [name for name in (*POOLS, FLOOR) if name == FLOOR or _is_here(settings, name)]
    rows = [Row(name, {}, {}) for name in names]
    for round_number in range(settings.rounds):
        for place in range(len(rows)):
            row = rows[(place + round_number) % len(rows)]
            for count in counts:
                column = _column(count)
                if column in row.notes:
                    continue
                turn = Turn(bare, (column, count)) if row.side == FLOOR else None
                turn = turn or Turn(from_nothing, (row.side, column, count), limit=20)
                try:
                    async with side_process(settings, EMPTY) as process:
                        samples = (await process.turn(turn))[column]
                        assert not isinstance(samples, str)
                        row.samples.setdefault(column, []).extend(samples)
                except SideError as error:
                    row.notes[column] = str(error)
    title = "Start-up: from nothing to the first result of each worker"
    return [Table("start-up", title, "", [Measure(_column(n), "ms") for n in counts], rows)]


def _column(count: int) -> str:
    return f"{count} worker" if count == 1 else f"{count} workers"


def _is_here(settings: Settings, name: str) -> bool:
    side = SIDES.get(name)
    is_wanted = name == OURS[0] or settings.wants(name)
    return is_wanted and side is not None and side.missing(settings) is None


# ---- in the fresh process ----


async def from_nothing(_: object, name: str, column: str, workers: int) -> Samples:
    """Time a pool's start, in milliseconds."""
    opener = POOLS[name]()
    with Meeting() as meeting:
        began = time.perf_counter()
        async with opener(workers) as call:
            await meeting.hold(call, workers)
            took = time.perf_counter() - began
    return {column: [took * 1e3]}


async def bare(_: object, column: str, threads: int) -> Samples:
    """Time the floor."""
    from .. import _floors

    return {column: [_floors.interpreters(threads)]}


# ---- the pools: each imports what it needs, and returns what makes one ----


def _runner() -> Callable[[int], Any]:
    from .. import Runner

    @asynccontextmanager
    async def open_runner(workers: int) -> AsyncIterator[Call]:
        async with Runner(workers=workers) as runner:
            yield runner.run

    return open_runner


@asynccontextmanager
async def _open_executor(make: Callable[[int], Executor], workers: int) -> AsyncIterator[Call]:
    with make(workers) as pool:
        yield partial(asyncio.get_running_loop().run_in_executor, pool)


def _threads() -> Callable[[int], Any]:
    return partial(_open_executor, ThreadPoolExecutor)


def _interpreters() -> Callable[[int], Any]:
    from concurrent.futures import InterpreterPoolExecutor  # type: ignore[attr-defined,unused-ignore]

    return partial(_open_executor, InterpreterPoolExecutor)


def _processes() -> Callable[[int], Any]:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    context = get_context("spawn")
    return partial(_open_executor, lambda workers: ProcessPoolExecutor(workers, context))


def _loky() -> Callable[[int], Any]:
    import loky

    return partial(_open_executor, loky.ProcessPoolExecutor)


POOLS: dict[str, Callable[[], Callable[[int], Any]]] = {
    "run": _runner,
    "ThreadPoolExecutor": _threads,
    "InterpreterPoolExecutor": _interpreters,
    "ProcessPoolExecutor": _processes,
    "loky": _loky,
}
