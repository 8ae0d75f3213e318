"""Calls from anyio, on asyncio and trio: ours, and anyio's own into interpreters and threads.

    python benchmarks/anyio_backends.py      # --rounds 3, --calls 1000

Two figures for each, the median of the rounds, which take turns: `await` of a call that does
nothing, one after the other; and so many of them in one task group.
`anyio.to_interpreter` makes an interpreter for each call of a burst that finds none idle, and keeps
them: its bursts have a hundred calls.
"""

import argparse
import functools
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import anyio
from _common import duration, machine, noop, percentile, show, table
from anyio import to_interpreter, to_thread

from aiointerpreters.anyio import run_sync

type Side = Callable[..., Awaitable[Any]]

SIDES: dict[str, tuple[Side, int]] = {
    "run_sync": (run_sync, 1),
    "anyio.to_interpreter": (to_interpreter.run_sync, 10),
    "anyio.to_thread": (to_thread.run_sync, 1),
}


async def one_after_another(call: Side, calls: int) -> float:
    """The median of a call, in microseconds."""
    times = []
    for number in range(calls):
        begun = time.perf_counter()
        await call(noop, number)
        times.append((time.perf_counter() - begun) * 1e6)
    return percentile(times, 50)


async def all_at_once(call: Side, calls: int) -> float:
    """Calls per second."""
    begun = time.perf_counter()
    async with anyio.create_task_group() as group:
        for number in range(calls):
            group.start_soon(call, noop, number)
    return calls / (time.perf_counter() - begun)


async def measure(rounds: int, calls: int) -> list[list[str]]:
    trips: dict[str, list[float]] = {name: [] for name in SIDES}
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    for call, divisor in SIDES.values():
        await one_after_another(call, 20)
        await all_at_once(call, calls // divisor)
    for _ in range(rounds):
        for name, (call, divisor) in SIDES.items():
            trips[name].append(await one_after_another(call, calls))
            rates[name].append(await all_at_once(call, calls // divisor))
    return [
        [name, duration(median(trips[name])), f"{median(rates[name]) / 1000:.1f} k/s"]
        for name in SIDES
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    show(machine())
    for backend in ("asyncio", "trio"):
        show(f"\n{backend}")
        rows = anyio.run(functools.partial(measure, options.rounds, options.calls), backend=backend)
        table(["", "one after another", "at once"], rows)


if __name__ == "__main__":
    main()
