"""How many calls a second: thousands of them in flight at once.

`gather` is `asyncio.gather` over all the calls, as most programs have it. `map` is what a side
offers of its own for many items; ours takes items only as fast as it is consumed, while the
executors' has an iterator that blocks, so that a thread consumes it.
"""

import asyncio
import time

from ._harness import Entry, Measure, Samples, Settings, Table, Turn, alternate, no_collections
from ._sides import OURS, PEERS, Opened
from ._work import noop

MEASURES = [
    Measure("gather", "1/s", less_is_better=False),
    Measure("map", "1/s", less_is_better=False),
]
ALONE = "(asyncio alone)"
FUTURES = "(asyncio alone: finished futures)"


async def measure(settings: Settings) -> list[Table]:
    """Measure all sides."""
    calls = 1_000 if settings.quick else 5_000
    entries = [
        Entry(name, name, [Turn(many_calls, (calls, name != "submit"))])
        for name in (*OURS, *PEERS)
        if name == OURS[0] or settings.wants(name)
    ]
    if settings.wants(ALONE):
        entries += [
            Entry(ALONE, ALONE, [Turn(trivial_coroutines, (calls,))]),
            Entry(FUTURES, ALONE, [Turn(finished_futures, (calls,))]),
        ]
    rows = await alternate(settings, entries)
    note = (
        f"{calls:,} calls at once. anyio.to_interpreter makes an interpreter for each call of a "
        "burst, and\nis asked for 100 at once; aiomultiprocess for 1,000, as it polls."
    )
    return [Table("throughput", "Calls per second", note, MEASURES, rows)]


async def many_calls(side: Opened, calls: int, with_map: bool) -> Samples:
    """Await so many calls at once, by both ways."""
    calls = min(calls, side.burst)
    samples: Samples = {"gather": [await gathered(side, calls)]}
    if with_map and side.map is not None:
        samples["map"] = [await mapped(side, calls)]
    return samples


async def gathered(side: Opened, calls: int) -> float:
    """Return calls per second of a gather."""
    call = side.call
    with no_collections():
        began = time.perf_counter()
        await asyncio.gather(*(call(noop, number) for number in range(calls)))
        return calls / (time.perf_counter() - began)


async def mapped(side: Opened, calls: int) -> float:
    """Return calls per second of the side's own map."""
    assert side.map is not None
    with no_collections():
        began = time.perf_counter()
        async for _ in side.map(noop, range(calls)):
            pass
        return calls / (time.perf_counter() - began)


async def trivial_coroutines(_side: Opened, calls: int) -> Samples:
    """What a gather of tasks takes by itself."""

    async def trivial(number: int) -> int:
        return number

    with no_collections():
        began = time.perf_counter()
        await asyncio.gather(*(trivial(number) for number in range(calls)))
        return {"gather": [calls / (time.perf_counter() - began)]}


async def finished_futures(_side: Opened, calls: int) -> Samples:
    """What a gather of futures takes by itself."""
    loop = asyncio.get_running_loop()

    def finished(number: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = loop.create_future()
        future.set_result(number)
        return future

    with no_collections():
        began = time.perf_counter()
        await asyncio.gather(*(finished(number) for number in range(calls)))
        return {"gather": [calls / (time.perf_counter() - began)]}
