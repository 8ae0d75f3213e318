"""Real work: how much faster it gets with workers, and from which task size on they pay.

Three tables. All work is of `_tasks.py`; the amounts of work that take 10 us, 30 us … 100 ms are
found once, on the loop's thread of this process, and are then the same for all sides. Whatever is
compared with the loop alone or with one worker is measured in the side's own process, by turns.

*Speed-up*: tasks per second of a pool, at most 8 in flight for each worker, against the same tasks
called on the loop's thread one after another, in which nothing else happens.

*Two workers against one*: the same, of a pool of one worker beside a pool of all. The floor is what
the machine gives: as many processes that do the tasks and nothing else, against one of them.

*Break-even size*: the smallest size of a task at which a busy program gains by offloading it. The
loop has other work all the time: coroutines that each do 5 us of plain Python between two
`await asyncio.sleep(0)`. A fixed amount of that is to be done, of as many seconds as the tasks
take; and M tasks are to be done. Measured is the time until all of both is done:

    on the loop    each task is called by a coroutine, beside those of the other work, with no
                   `await` in between: so a task costs the loop its own duration, and no more
    offloaded      `await call(task)`, at most 8 in flight for each worker, beside the other work

The ratio of these times is taken at sizes from 3 us to 10 ms. The break-even size is where it
crosses 1, interpolated between the two sizes beside it (on logarithmic scales). As the loop never
idles, and half of all work is its own, waiting costs nothing: what counts is what a call costs the
loop's thread, and whether the workers take part of its time or of its core. With two cores the
ratio can't go below 0.5.

The last columns have no other work: single calls, one awaited after another. Nothing can be gained
there; what a task loses is the way there and back. They say how much a call of 100 us takes longer
than on the loop, and the size of a task for which that is a tenth.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from statistics import median
from typing import Any

from ._alone import Alone
from ._harness import (
    Entry,
    Measure,
    Row,
    Samples,
    Settings,
    Table,
    Turn,
    alternate,
    no_collections,
)
from ._sides import OURS, PEERS, SIDES, Call, Opened
from ._tasks import KINDS, integrate, sized

#: Seconds.
SIZES = (10e-6, 30e-6, 100e-6, 300e-6, 1e-3, 10e-3, 100e-3)
BREAK_EVEN_SIZES = (3e-6, 10e-6, 30e-6, 100e-6, 300e-6, 1e-3, 10e-3)
SCALING_SIZES = (1e-3, 10e-3, 100e-3)
#: The size of the tasks whose kinds are compared.
ORDINARY = 1e-3
STEP = 5e-6
BREAK_EVEN, ADDED, TENTH = "break-even", "added to a lone call", "a tenth of"

IN_FLIGHT = 8  # for each worker
NUMBERS = "numbers"


@dataclass(frozen=True)
class Plan:
    """A table to be, and what its sides do for it."""

    table: Table  # without rows
    turns: Callable[[str], list[Turn]]  # of a side
    sides: tuple[str, ...]


async def measure(settings: Settings) -> list[Table]:
    """Measure all sides: each is opened once, for all tables."""
    settings = replace(settings, rounds=min(settings.rounds, 5))  # they are long ones
    plans = [speed_up(settings), scaling(settings), break_even(settings)]
    entries = [
        Entry(
            side,
            EMPTY if side == FLOOR else side,
            [turn for plan in plans if side in plan.sides for turn in plan.turns(side)],
        )
        for side in (*ALL, FLOOR)
        if side == OURS[0] or settings.wants(EMPTY if side == FLOOR else side)
    ]
    rows = await alternate(settings, entries, warm_up=not settings.quick)
    tables = [
        replace(plan.table, rows=[_part(row, plan) for row in rows if row.side in plan.sides])
        for plan in plans
    ]
    tables[-1] = replace(tables[-1], rows=[_with_break_even(row) for row in tables[-1].rows])
    return tables


def _part(row: Row, plan: Plan) -> Row:
    """Return what of a row belongs to a table. Its turns are of the kind that has its name."""
    samples = {
        measure.name: row.samples[key]
        for measure in plan.table.measures
        if (key := _key(plan.table.name, measure.name)) in row.samples
    }
    failure = row.notes.get(plan.table.name) or row.notes.get("")
    return Row(row.side, samples, {"": failure} if failure else {})


def _key(table: str, measure: str) -> str:
    """What a measure is called among those of all tables."""
    return f"{table}: {measure}"


def label(size: float) -> str:
    """Name a size."""
    return f"{size * 1e6:g} us" if size < 1e-3 else f"{size * 1e3:g} ms"


#: The original's calls take 10 ms each, and its process can't open a second side.
ALL = (*OURS, *(peer for peer in PEERS if not peer.startswith("original")))
FLOOR = "(processes alone)"
EMPTY = "(asyncio alone)"  # a process in which nothing has been started
SCALED = (OURS[0], "InterpreterPoolExecutor", "ProcessPoolExecutor", FLOOR)


# ---- speed-up --------------------------------------------------------------------------------


def speed_up(settings: Settings) -> Plan:
    """Compare pools with the loop alone."""
    sizes = SIZES[:4:3] if settings.quick else SIZES
    seconds = 0.02 if settings.quick else 0.2
    loads = [(kind, kind, sized(kind, [ORDINARY])[0], ORDINARY) for kind in KINDS]
    loads += [
        (label(size), NUMBERS, amount, size)
        for size, amount in zip(sizes, sized(NUMBERS, sizes), strict=True)
        if size != ORDINARY
    ]
    table = Table(
        "speed-up",
        f"Speed-up against the loop alone, {settings.workers} workers",
        f"First tasks of {label(ORDINARY)} of all kinds; then numbers, by size.",
        [Measure(name, "", less_is_better=False) for name, *_ in loads],
        [],
    )
    turns = [
        Turn(
            against_the_loop,
            (_key(table.name, name), kind, amount, _count(seconds, size)),
            kind=table.name,
        )
        for name, kind, amount, size in loads
    ]
    return Plan(table, lambda _: turns, ALL)


async def against_the_loop(side: Opened, name: str, kind: str, amount: int, count: int) -> Samples:
    """How many times as many tasks a second the side does as the loop alone."""
    function, arguments = _task(kind, amount)
    with no_collections():
        alone = await _timed_gather(_on_loop, 1, function, arguments, count)
        pooled = await _timed_gather(
            side.call, IN_FLIGHT * side.workers, function, arguments, count
        )
    return {name: [alone / pooled]}


# ---- two workers against one -----------------------------------------------------------------


def scaling(settings: Settings) -> Plan:
    """Compare all workers with one."""
    sizes = SCALING_SIZES[:1] if settings.quick else SCALING_SIZES
    seconds = 0.02 if settings.quick else 0.4
    loads = [
        (f"{kind}, {label(size)}", kind, amount, size)
        for kind in KINDS
        for size, amount in zip(sizes, sized(kind, sizes), strict=True)
        if size < 0.1 or kind == NUMBERS
    ]
    table = Table(
        "scaling",
        f"Speed-up of {settings.workers} workers against one",
        "",
        [Measure(name, "", less_is_better=False) for name, *_ in loads],
        [],
    )

    def turns(side: str) -> list[Turn]:
        is_floor = side == FLOOR
        function: Callable[..., Any] = without_a_pool if is_floor else against_one_worker
        first = () if is_floor else (side,)
        return [
            Turn(
                function,
                (*first, _key(table.name, name), kind, amount, _count(seconds, size)),
                kind=table.name,
            )
            for name, kind, amount, size in loads
        ]

    return Plan(table, turns, SCALED)


async def against_one_worker(
    side: Opened, side_name: str, name: str, kind: str, amount: int, count: int
) -> Samples:
    """How many times as many tasks a second the side does as another one with one worker."""
    function, arguments = _task(kind, amount)
    async with _kept_open(side_name) as one:
        with no_collections():
            took = [
                await _timed_gather(pool.call, IN_FLIGHT * pool.workers, function, arguments, count)
                for pool in (one, side)
            ]
    return {name: [took[0] / took[1]]}


async def without_a_pool(side: Opened, name: str, kind: str, amount: int, count: int) -> Samples:
    """The same of processes that do nothing else."""
    processes = _alone(side.workers)
    one = processes.take(1, kind, amount, count)
    return {name: [side.workers * one / processes.take(side.workers, kind, amount, count)]}


@cache
def _alone(workers: int) -> Alone:
    return Alone(workers)


_opened: dict[str, Opened] = {}


@asynccontextmanager
async def _kept_open(side_name: str) -> AsyncIterator[Opened]:
    """A second pool, with one worker, for as long as the process lives."""
    if side_name not in _opened:
        opening = SIDES[side_name].open(1)
        _opened[side_name] = await opening.__aenter__()
        _openings.append(opening)
    yield _opened[side_name]


_openings: list[Any] = []  # never left: the process ends first


# ---- the break-even size ---------------------------------------------------------------------


def break_even(settings: Settings) -> Plan:
    """Compare a busy loop that offloads its tasks with one that doesn't."""
    sizes = BREAK_EVEN_SIZES[1:6:2] if settings.quick else BREAK_EVEN_SIZES
    seconds = 0.01 if settings.quick else 0.04
    step, *amounts = sized(NUMBERS, (STEP, *sizes))
    table = Table(
        "break-even",
        "Break-even size of a task, on a loop that has other work",
        "By size: the time for tasks and other work, against the time with the tasks on the loop.\n"
        "A lone call has a loop that idles: what offloading adds, and the size of which that is a "
        "tenth.",
        [
            Measure(BREAK_EVEN, "us"),
            *(Measure(label(size), "") for size in sizes),
            Measure(ADDED, "us"),
            Measure(TENTH, "us"),
        ],
        [],
    )
    turns = [
        Turn(
            busy_loop,
            (_key(table.name, label(size)), amount, _count(seconds, size), step),
            kind=table.name,
        )
        for size, amount in zip(sizes, amounts, strict=True)
    ]
    keys = (_key(table.name, ADDED), _key(table.name, TENTH))
    turns.append(Turn(lone_calls, (*keys, sized(NUMBERS, [100e-6])[0]), kind=table.name))
    return Plan(table, lambda _: turns, ALL)


def _with_break_even(row: Row) -> Row:
    """Add what follows from the ratios."""
    ratios = [
        (size, median(row.samples[label(size)]))
        for size in BREAK_EVEN_SIZES
        if label(size) in row.samples
    ]
    samples, notes = dict(row.samples), dict(row.notes)
    if ratios:
        size = crossing(ratios)
        if size is None:
            notes[BREAK_EVEN] = f"never pays, up to {label(ratios[-1][0])}"
        else:
            samples[BREAK_EVEN] = [size * 1e6]
    return Row(row.side, samples, notes)


def crossing(ratios: Sequence[tuple[float, float]]) -> float | None:
    """Return the size at which the ratio gets below 1 for good; None if it doesn't."""
    if ratios[-1][1] >= 1:
        return None
    found = ratios[0][0]
    for (smaller, before), (larger, after) in pairwise(ratios):
        if before >= 1 > after:
            part = math.log(before) / (math.log(before) - math.log(after))
            found = smaller * (larger / smaller) ** part
    return found


async def busy_loop(side: Opened, name: str, amount: int, count: int, step: int) -> Samples:
    """Time the tasks beside other work: offloaded, against on the loop."""
    in_flight = IN_FLIGHT * side.workers
    took = {}
    with no_collections():
        steps = await _steps_that_take(step, count, amount)
        for call in (_on_loop, side.call):
            began = time.perf_counter()
            await asyncio.gather(
                *(_other_work(steps // 4, step) for _ in range(4)),
                *_drivers(call, in_flight, integrate, (amount,), count),
            )
            took[call] = time.perf_counter() - began
    return {name: [took[side.call] / took[_on_loop]]}


async def _steps_that_take(step: int, count: int, amount: int) -> int:
    """How many steps of the other work take as long as so many tasks?"""
    began = time.perf_counter()
    await asyncio.gather(*_drivers(_on_loop, 1, integrate, (amount,), min(count, 200)))
    tasks = (time.perf_counter() - began) * count / min(count, 200)
    began = time.perf_counter()
    await asyncio.gather(*(_other_work(100, step) for _ in range(4)))
    return max(4, round(tasks / (time.perf_counter() - began) * 400))


async def _other_work(steps: int, step: int) -> None:
    for _ in range(steps):
        integrate(step)
        await asyncio.sleep(0)


async def lone_calls(
    side: Opened, added_name: str, tenth_name: str, amount: int, calls: int = 200
) -> Samples:
    """Time single calls of a task: on the loop, and offloaded."""
    clock = time.perf_counter
    took: dict[Call, list[float]] = {_on_loop: [], side.call: []}
    with no_collections():
        for call, durations in took.items():
            for _ in range(calls):
                began = clock()
                await call(integrate, amount)
                durations.append(clock() - began)
    added = (median(took[side.call]) - median(took[_on_loop])) * 1e6
    return {added_name: [added], tenth_name: [10 * added]}


# ---- running tasks ---------------------------------------------------------------------------


def _count(seconds: float, size: float) -> int:
    """How many tasks: for so long on one core, but an even share for each of several workers.

    Of small ones not as many, as some peers take a hundred times their size for each.
    """
    return max(8, min(1000, round(seconds / size)))


@cache
def _task(kind: str, amount: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return KINDS[kind].function, KINDS[kind].arguments(amount)


async def _on_loop(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


async def _timed_gather(
    call: Call, in_flight: int, function: Callable[..., Any], args: tuple[Any, ...], count: int
) -> float:
    began = time.perf_counter()
    await asyncio.gather(*_drivers(call, in_flight, function, args, count))
    return time.perf_counter() - began


def _drivers(
    call: Call, in_flight: int, function: Callable[..., Any], args: tuple[Any, ...], count: int
) -> list[Any]:
    """Return coroutines that call the function so many times together, each one at a time."""

    async def driver(calls: Iterable[int]) -> None:
        for _ in calls:
            await call(function, *args)

    calls = iter(range(count))
    return [driver(calls) for _ in range(min(in_flight, count))]
