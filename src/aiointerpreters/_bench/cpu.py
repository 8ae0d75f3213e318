"""CPU time that a pool uses while it has next to nothing to do.

*Idle*: after a burst of calls, nothing is called for 5 s. Counted are the CPU time, and how often
any thread has woken up: one that polls wakes up, even if it takes no time to speak of.

*1,000 calls a second*: a call of a function that does nothing, started every millisecond when a
timer of the kernel's (a descriptor, as a client's request would be) tells the loop so. In such a
program nearly all time passes in waiting: a pool that spins instead shows here. The row of the loop
alone has the timer, and no calls; "no spinning" is ours, started with AIOINTERPRETERS_SPIN=0.

All is of the process and those that it has started, by the kernel's exact accounts.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from ._harness import Entry, Measure, Samples, Settings, Table, Turn, alternate
from ._processes import cpu_seconds, tree, wake_ups
from ._sides import OURS, PEERS, Opened
from ._work import noop

RATE = 1_000
NO_SPINNING, FLOOR = "run, no spinning", "(asyncio alone)"
BUSY, DONE = "CPU time", "calls"


async def measure(settings: Settings) -> list[Table]:
    """Measure all sides."""
    if not sys.platform.startswith("linux"):
        return []
    idle, paced = (0.3, 0.3) if settings.quick else (5.0, 1.0)
    names = [OURS[0], NO_SPINNING, *OURS[1:], *PEERS]
    sides = [name for name in names if name in names[:2] or settings.wants(name)]
    working = await alternate(
        settings,
        [
            *(Entry(name, name, [Turn(with_calls, (paced,), limit=paced + 5)]) for name in sides),
            Entry(FLOOR, FLOOR, [Turn(without_calls, (paced,))]),
        ],
        warm_up=not settings.quick,
    )
    once = replace(settings, rounds=1)
    resting = await alternate(
        once,
        [
            *(Entry(name, name, [Turn(at_rest, (idle, True))]) for name in sides),
            Entry(FLOOR, FLOOR, [Turn(at_rest, (idle, False))]),
        ],
        warm_up=False,
    )
    return [
        Table(
            "cpu-lightly-loaded",
            "CPU time at 1,000 calls a second",
            "",
            [Measure(BUSY, "ms/s"), Measure(DONE, "/s", less_is_better=False)],
            working,
        ),
        Table(
            "cpu-idle",
            f"CPU time while idle, in {idle:g} s",
            "The loop's own timer, which ends the measurement, wakes it once.",
            [Measure("CPU time", "ms"), Measure("wake-ups", "")],
            resting,
        ),
    ]


# ---- at rest ----


async def at_rest(side: Opened, seconds: float, calls: bool) -> Samples:
    """Measure what is used while nothing is called."""
    if calls:
        for _ in range(10):
            await side.in_every_worker(noop)
    await asyncio.sleep(0.2)  # what still tidies up after the calls
    processes = tree()
    woken = wake_ups(processes)
    began = cpu_seconds(processes)
    await asyncio.sleep(seconds)
    used = cpu_seconds(processes) - began
    return {"CPU time": [used * 1e3], "wake-ups": [float(wake_ups(processes) - woken)]}


# ---- at a steady rate ----


async def with_calls(side: Opened, seconds: float) -> Samples:
    """Measure what a steady rate of calls takes."""
    calls: set[asyncio.Future[object]] = set()

    def start_call() -> None:
        call = asyncio.ensure_future(side.call(noop, 1))
        calls.add(call)
        call.add_done_callback(calls.discard)

    samples = await _paced(start_call, seconds)
    if calls:
        await asyncio.wait(calls)
    return samples


async def without_calls(_: Opened, seconds: float) -> Samples:
    """Measure what the timer alone takes."""
    return await _paced(lambda: None, seconds)


async def _paced(action: Callable[[], object], seconds: float) -> Samples:
    """Do it 1,000 times a second; the CPU time for a second, and how often it was done."""
    loop = asyncio.get_running_loop()
    wanted = round(RATE * seconds)
    done = 0
    ended = loop.create_future()
    timer = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

    def on_time() -> None:
        nonlocal done
        for _ in range(int.from_bytes(os.read(timer, 8), sys.byteorder)):
            action()
            done += 1
        if done >= wanted and not ended.done():
            ended.set_result(None)

    loop.add_reader(timer, on_time)
    processes = tree()
    try:
        began, used = time.perf_counter(), cpu_seconds(processes)
        os.timerfd_settime(timer, initial=1 / RATE, interval=1 / RATE)
        await ended
        used, took = cpu_seconds(processes) - used, time.perf_counter() - began
    finally:
        loop.remove_reader(timer)
        os.close(timer)
    return {BUSY: [used / took * 1e3], DONE: [done / took]}
