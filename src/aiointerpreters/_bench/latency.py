"""How long one call takes, there and back, with nothing else in flight.

Back to back, workers and loop may still be awake from the call before. After a pause everything
sleeps: then two cores have to be woken, one for the worker and one for the loop. The pause is the
loop's own (`asyncio.sleep`), and the call is timed after it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from ._harness import Entry, Measure, Samples, Settings, Table, Turn, alternate, no_collections
from ._sides import OURS, PEERS, Opened
from ._work import noop

type Numbered = Callable[[int], Awaitable[object]]

MEASURES = [
    Measure("back to back", "us", tail=True),
    Measure("after 1 ms", "us", tail=True),
    Measure("after 5 ms", "us", tail=True),
]


async def measure(settings: Settings) -> list[Table]:
    """Measure all sides."""
    seconds = 0.1 if settings.quick else 0.4
    calls = [Turn(round_trips, (seconds,))]
    entries = [Entry(name, name, calls) for name in (*OURS, *PEERS) if settings.wants(name)]
    rows = await alternate(settings, entries)
    return [Table("round-trip", "Round trip", "", MEASURES, rows)]


async def round_trips(side: Opened, seconds: float) -> Samples:
    """Call at these three rates, each for so long at most."""
    call = side.call
    return {
        "back to back": await back_to_back(lambda number: call(noop, number), seconds),
        "after 1 ms": await after_pause(lambda number: call(noop, number), 0.001, seconds),
        "after 5 ms": await after_pause(lambda number: call(noop, number), 0.005, seconds),
    }


async def back_to_back(call: Numbered, seconds: float, calls: int = 2000) -> list[float]:
    """Await one call after another; the duration of each, in microseconds."""
    clock = time.perf_counter
    samples = []
    with no_collections():
        end = clock() + seconds
        for number in range(calls):
            began = clock()
            await call(number)
            done = clock()
            samples.append((done - began) * 1e6)
            if done > end:
                break
    return samples


async def after_pause(call: Numbered, pause: float, seconds: float) -> list[float]:
    """Do the same, with a pause before each call."""
    clock = time.perf_counter
    samples: list[float] = []
    with no_collections():
        end = clock() + seconds
        while clock() < end:
            await asyncio.sleep(pause)
            began = clock()
            await call(len(samples))
            samples.append((clock() - began) * 1e6)
    return samples
