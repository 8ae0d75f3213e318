"""100 MB of bytes to a worker and back: how long, and how long the event loop stands still."""

import asyncio
import ctypes
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from statistics import median

from _common import Thunk, at_most, duration, no_collections, ratio, show, table
from _sides import OURS, Side, all_sides
from _work import MB, echo, nap, some_bytes

SIZE = 100 * MB
NEW, TOUCHED = "(2 copies into new memory)", "(2 copies into memory in use)"
NO_VALUES, DROPPED = "(a worker sleeps meanwhile)", "(dropping the result)"
NOTES = """
- *there and back*: `await runner.run(echo, data)`. *longest stall*: the longest time between two
  runs of a callback that always asks the loop to run it again; the median of the rounds, and the
  worst. Timed in calls of their own, as this callback keeps a core busy.
- *2 copies into new memory*: `bytes(view)` twice. This is the least that a new object costs, as the
  kernel has to find and clear its pages. *Into memory in use*: `memmove` twice to the same place,
  what the copying alone takes.
- *a worker sleeps meanwhile*: the longest stall with no large values, for as long as ours takes.
  More than that, nobody can be blamed for.
- *dropping the result* is not in the other rows. Whoever drops 100 MB gives its pages back to the
  kernel: on the loop that is a stall of its own, that no pool can take away.
"""


class Ticker:
    """Measures how long the event loop stands still at worst."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last = self._longest = 0.0
        self._handle: asyncio.Handle | None = None

    def _tick(self) -> None:
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._last)
        self._last = now
        self._handle = self._loop.call_soon(self._tick)

    async def longest_stall(self, call: Thunk) -> tuple[float, object]:
        """Await a call; the longest stall in microseconds, and the result."""
        self._longest = 0.0
        self._last = time.perf_counter()
        self._tick()
        await asyncio.sleep(0)  # it ticks: from here on the call is on its own
        result = await call()
        await asyncio.sleep(0)  # a last tick, after what came with the result
        if self._handle is not None:
            self._handle.cancel()
        return self._longest * 1e6, result


def timed(function: Callable[[], object]) -> float:
    """Time a call, without the dropping of its result; in microseconds."""
    with no_collections():
        began = time.perf_counter()
        _kept = function()
        return (time.perf_counter() - began) * 1e6


class Copies:
    """The yardsticks: two copies of the data."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._view = memoryview(data)
        self._touched = (ctypes.c_char * len(data)).from_buffer(bytearray(data))

    def into_new_memory(self) -> object:
        """Make two new objects."""
        return bytes(self._view), bytes(self._view)

    def into_memory_in_use(self) -> None:
        """Copy twice to where something has been written before."""
        for _ in range(2):
            ctypes.memmove(self._touched, self._data, len(self._data))


type Durations = dict[str, list[float]]  # a row's name -> microseconds


async def one_round(
    sides: list[Side], data: bytes, copies: Copies, took: Durations, stalls: Durations
) -> None:
    """Take each side's time, and its longest stall."""
    # Results are kept here, and dropped when nothing is measured: dropping 100 MB is munmap(), and
    # its time is paid by whoever drops it.
    kept: list[object] = []
    ticker = Ticker()
    for side in sides:
        with no_collections():
            began = time.perf_counter()
            kept.append(await side.call(echo, data))
            took[side.name].append((time.perf_counter() - began) * 1e6)
            await asyncio.sleep(0)  # now the loop has forgotten it
            began = time.perf_counter()
            kept.clear()
            took[DROPPED].append((time.perf_counter() - began) * 1e6)

            stall, result = await ticker.longest_stall(partial(side.call, echo, data))
            stalls[side.name].append(stall)
            assert result == data
            del result
    took[NEW].append(timed(copies.into_new_memory))
    took[TOUCHED].append(timed(copies.into_memory_in_use))
    with no_collections():
        seconds = took[OURS][-1] / 1e6
        stall, _ = await ticker.longest_stall(partial(sides[0].call, nap, seconds))
        stalls[NO_VALUES].append(stall)


def report(took: Durations, stalls: Durations) -> None:
    """Print the table and the targets."""
    new, touched = median(took[NEW]), median(took[TOUCHED])
    ours = median(took[OURS])
    names = [name for name in took if not name.startswith("(")]
    rows = []
    for name in [*names, NEW, TOUCHED, DROPPED, NO_VALUES]:
        row = [name, "", "", "", "", "", ""]
        if name in took:
            middle = median(took[name])
            against = (ours, new, touched)
            row[1:5] = duration(middle), *(ratio(middle / other) for other in against)
        if name in stalls:
            row[5:] = duration(median(stalls[name])), duration(max(stalls[name]))
        rows.append(row)
    show("100 MB of bytes to a worker and back\n")
    table(
        ["", "there and back", "against run", "new copies", "copies", "longest stall", "worst"],
        rows,
    )
    at_most("there and back against 2 copies into new memory", ours / new, 1.2)
    at_most("there and back against 2 copies into memory in use", ours / touched, 1.2)
    at_most("longest stall in ms, median", median(stalls[OURS]) / 1000, 1)
    at_most("longest stall in ms, worst", max(stalls[OURS]) / 1000, 1)
    show()


async def measure(workers: int, rounds: int, seconds: float) -> None:
    """Let the sides take turns; the first round only warms up."""
    data = some_bytes(SIZE)
    copies = Copies(data)
    took: Durations = defaultdict(list)
    stalls: Durations = defaultdict(list)
    async with all_sides(workers) as sides:
        await one_round(sides, data, copies, defaultdict(list), defaultdict(list))
        for _ in range(rounds):
            await one_round(sides, data, copies, took, stalls)
    report(took, stalls)
    show(NOTES.strip())
