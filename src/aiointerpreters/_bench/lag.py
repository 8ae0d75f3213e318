"""How late the event loop is while all workers are busy.

For each side, its workers are kept busy with tasks of 1 ms, 8 in flight for each, while a timer of
the loop is due every millisecond. Its lag is how much later than due it runs; where it is so late
that further times have passed, each of them counts, with its own lag: so a loop that stands still
for 20 ms has 20 bad samples, and not one. Shown are medians, over the rounds, of each round's
median, 99th percentile and maximum.

asyncio rounds timeouts up to a millisecond: so an idle loop has a lag of up to one, and that is the
floor. In the row below it the loop is idle, too, and as many other processes as there are workers
keep the cores busy: what is left then is the kernel's scheduler.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ._harness import Entry, Measure, Samples, Settings, Table, Turn, alternate, percentile
from ._sides import OURS, PEERS, Opened
from ._tasks import integrate, sized

PERIOD = 1e-3
TASK = 1e-3
IN_FLIGHT = 8  # for each worker

IDLE, BUSY_CORES = "(idle loop)", "(idle loop, busy cores)"
EMPTY = "(asyncio alone)"

MEASURES = [Measure("p50", "ms"), Measure("p99", "ms"), Measure("max", "ms")]


async def measure(settings: Settings) -> list[Table]:
    """Measure all sides."""
    seconds = 0.2 if settings.quick else 1.0
    (amount,) = sized("numbers", [TASK])
    saturated = [Turn(under_load, (seconds, amount))]
    entries = [
        Entry(name, name, saturated)
        for name in (*OURS, *PEERS)
        if name == OURS[0] or settings.wants(name)
    ]
    entries.append(Entry(IDLE, EMPTY, [Turn(idle, (seconds,))]))
    entries.append(Entry(BUSY_CORES, EMPTY, [Turn(beside_busy_cores, (seconds,))]))
    rows = await alternate(settings, entries, warm_up=not settings.quick)
    title = "Lag of the event loop, workers saturated with tasks of 1 ms"
    return [Table("lag", title, "", MEASURES, rows)]


async def under_load(side: Opened, seconds: float, amount: int) -> Samples:
    """Measure with all workers busy."""
    running = True

    async def keep_busy() -> None:
        while running:
            await side.call(integrate, amount)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT * side.workers):
            group.create_task(keep_busy())
        await asyncio.sleep(0.05)
        samples = await lags(seconds)
        running = False
    return _summary(samples)


async def idle(_: Opened, seconds: float) -> Samples:
    """Measure with nothing else to do."""
    return _summary(await lags(seconds))


async def beside_busy_cores(side: Opened, seconds: float) -> Samples:
    """Measure while other programs, as many as there are workers, use the cores."""
    with busy_processes(side.workers):
        await asyncio.sleep(0.1)
        return _summary(await lags(seconds))


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Have so many programs use the cores."""
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-Sc", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def _summary(lags: list[float]) -> Samples:
    return {
        "p50": [percentile(lags, 50)],
        "p99": [percentile(lags, 99)],
        "max": [max(lags)],
    }


async def lags(seconds: float) -> list[float]:
    """Return the lag of each time at which the ticker was due, in milliseconds."""
    loop = asyncio.get_running_loop()
    samples: list[float] = []
    ended = loop.create_future()
    due = loop.time() + PERIOD
    end = due + seconds

    def tick() -> None:
        nonlocal due
        now = loop.time()
        while due <= now:
            samples.append((now - due) * 1e3)
            due += PERIOD
        if due < end:
            loop.call_at(due, tick)
        else:
            ended.set_result(None)

    loop.call_at(due, tick)
    await ended
    return samples
