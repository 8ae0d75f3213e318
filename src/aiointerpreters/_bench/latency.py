"""How long one call takes, there and back, with nothing else in flight.

Back to back, workers and loop may still be awake from the call before. After a pause everything
sleeps: then two cores have to be woken, one for the worker and one for the loop. The pause is the
loop's own (`asyncio.sleep`), and the call is timed after it.

The floors: `(futex and eventfd)` is a call's way in C alone, without Python, the thread being where
the kernel puts it, or on another core; `(asyncio alone)` is the loop that wakes itself, through an
eventfd and `add_reader`.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

from ._harness import Entry, Measure, Samples, Settings, Table, Turn, alternate, no_collections
from ._sides import OURS, PEERS, Opened
from ._work import noop

type Numbered = Callable[[int], Awaitable[object]]

BACK_TO_BACK = "back to back"
#: Measures, and the seconds of quiet before each call.
PAUSES = {"after 1 ms": 0.001, "after 5 ms": 0.005}
MEASURES = [Measure(name, "us", tail=True) for name in (BACK_TO_BACK, *PAUSES)]

ALONE = "(asyncio alone)"
RAW = "(futex and eventfd)"
APART = "(futex and eventfd, on another core)"
SPINNING = "(futex and eventfd, the thread spinning)"
SPIN_NS = 100_000

NOTE = """\
(futex and eventfd): in C, wake a thread that writes an eventfd, and wait for that in epoll. Left
alone, the kernel may wake it on the same core, where no worker could run beside the loop.
(asyncio alone): the loop wakes itself through an eventfd and add_reader."""


async def measure(settings: Settings) -> list[Table]:
    """Measure all sides."""
    seconds = 0.05 if settings.quick else 0.3

    def entry(row: str, side: str, function: Callable[..., Awaitable[Samples]]) -> Entry:
        return Entry(
            row, side, [Turn(function, (name, seconds)) for name in (BACK_TO_BACK, *PAUSES)]
        )

    entries = [
        entry(name, name, round_trips)
        for name in (*OURS, *PEERS)
        if name == OURS[0] or settings.wants(name)
    ]
    if settings.wants(ALONE):
        entries.append(entry(ALONE, ALONE, loop_wakes))
    if settings.wants(RAW):
        entries.append(entry(RAW, RAW, thread_wakes))
        entries.append(entry(APART, RAW, thread_on_another_core_wakes))
        entries.append(entry(SPINNING, RAW, spinning_thread_wakes))
    rows = await alternate(settings, entries)
    return [Table("round-trip", "Round trip, one call in flight", NOTE, MEASURES, rows)]


async def round_trips(side: Opened, measure: str, seconds: float) -> Samples:
    """Call for so long at most."""
    call = side.call
    return await timed_calls(lambda number: call(noop, number), measure, seconds)


async def timed_calls(call: Numbered, measure: str, seconds: float) -> Samples:
    pause = PAUSES.get(measure)
    if pause is None:
        return {measure: await back_to_back(call, seconds)}
    return {measure: await after_pause(call, pause, seconds)}


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


# ---- floors ----


async def loop_wakes(_side: Opened, measure: str, seconds: float) -> Samples:
    """The loop wakes itself."""
    loop = asyncio.get_running_loop()
    eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    woken = loop.create_future()

    def on_readable() -> None:
        os.eventfd_read(eventfd)
        woken.set_result(None)

    async def wake_up(number: int) -> int:
        nonlocal woken
        woken = loop.create_future()
        os.eventfd_write(eventfd, 1)
        await woken
        return number

    loop.add_reader(eventfd, on_readable)
    try:
        return await timed_calls(wake_up, measure, seconds)
    finally:
        loop.remove_reader(eventfd)
        os.close(eventfd)


async def thread_wakes(_side: Opened, measure: str, seconds: float) -> Samples:
    """A thread is woken, and wakes this one."""
    return {measure: woken_thread(measure, seconds)}


async def thread_on_another_core_wakes(_side: Opened, measure: str, seconds: float) -> Samples:
    """The same, on cores of their own: a worker is to run beside the loop."""
    return {measure: woken_thread(measure, seconds, apart=True)}


async def spinning_thread_wakes(_side: Opened, measure: str, seconds: float) -> Samples:
    """The same, while the thread spins."""
    if measure in PAUSES:
        return {}
    return {measure: woken_thread(measure, seconds, spin_ns=SPIN_NS, apart=True)}


def woken_thread(
    measure: str, seconds: float, spin_ns: int = 0, apart: bool = False
) -> list[float] | str:
    """Return microseconds, or why there are none."""
    from .._floors import wake

    pause = PAUSES.get(measure)
    rounds = 2000 if pause is None else max(1, round(seconds / pause))
    try:
        return wake(rounds, spin_ns, round((pause or 0) * 1e9), apart)
    except OSError as error:
        return f"needs two cores, and Linux: {error}"
