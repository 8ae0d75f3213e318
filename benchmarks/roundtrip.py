"""How long `await runner.run(noop, 1)` takes, beside every other way out of an event loop.

    python benchmarks/roundtrip.py                    # on asyncio's loop, and on uvloop if there
    python benchmarks/roundtrip.py --with-original    # also the original aiointerpreters 0.5.0
    python benchmarks/roundtrip.py --json FILE        # also every sample

All sides have the same number of workers (two), are started before the first measure, and take
turns within one run, so that a change of the machine's mood meets all of them. A table shows:

    back to back   the median (and the 99th percentile) of calls awaited one after another
    after 1 ms     the same with a pause of 1 ms before each call, so the workers are asleep
    gather         calls per second of `asyncio.gather` over 5,000 calls, median of the rounds

and "ratio" says how many times as long it takes as the first row.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

from _common import (
    HERE,
    MEASURES,
    Call,
    event_loops,
    interpreter_pools,
    machine,
    noop,
    percentile,
    process_pool,
    ratio,
    show,
    watching_others,
)

from aiointerpreters import Runner

ORIGINAL = HERE.parent / "build" / "original-0.5.0"

type Measure = Callable[[str], Awaitable[list[float]]]  # a measure's name -> its samples
type Samples = dict[str, dict[str, list[float]]]  # a side's name -> a measure's name -> samples


# ---- the sides -------------------------------------------------------------------------------


def local(call: Call) -> Measure:
    """A side that runs in this process."""
    return lambda name: MEASURES[name](call)


def executor(pool: Executor) -> Measure:
    """Any executor of the standard library, called as asyncio's users do."""
    loop = asyncio.get_running_loop()
    return local(lambda number: loop.run_in_executor(pool, noop, number))


@asynccontextmanager
async def asyncio_alone() -> AsyncIterator[Measure]:
    """The floor: the loop wakes itself through an eventfd; and a gather of trivial coroutines."""
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

    async def trivial(number: int) -> int:
        return number

    loop.add_reader(eventfd, on_readable)
    try:
        yield lambda name: MEASURES[name](trivial if name == "gather" else wake_up)
    finally:
        loop.remove_reader(eventfd)
        os.close(eventfd)


@asynccontextmanager
async def original(workers: int, loop_name: str) -> AsyncIterator[Measure]:
    """The original package, measured by itself in a process of its own, when it is asked."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, HERE / "_original.py", str(workers), loop_name),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ORIGINAL, HERE)))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=2**24,  # of a line: it holds all samples of a measure
    )

    async def measure(name: str) -> list[float]:
        assert child.stdin
        assert child.stdout
        child.stdin.write(f"{name}\n".encode())
        samples: list[float] = json.loads(await child.stdout.readline())
        return samples

    try:
        yield measure
    finally:
        child.terminate()
        await child.wait()


def install_original() -> None:
    """Put the original package into a folder below build/."""
    if ORIGINAL.exists():
        return
    show(f"Installing aiointerpreters 0.5.0 into {ORIGINAL} …")
    found = subprocess.run([HERE.parent / "tools" / "uv"], stdout=subprocess.PIPE, check=True)
    install = [found.stdout.decode().strip(), "pip", "install", "--python", sys.executable]
    subprocess.run([*install, "--target", ORIGINAL, "aiointerpreters==0.5.0"], check=True)


@asynccontextmanager
async def all_sides(workers: int, loop_name: str) -> AsyncIterator[dict[str, Measure]]:
    """Start every side that there is here."""
    async with AsyncExitStack() as stack:
        # First of all: uvloop forks to start a process, and the child of a process that has
        # subinterpreters crashes (python/cpython#101437).
        theirs = None
        if ORIGINAL.exists() and sys.version_info >= (3, 14):
            theirs = await stack.enter_async_context(original(workers, loop_name))
        runner = await stack.enter_async_context(Runner(workers=workers))
        threads = stack.enter_context(ThreadPoolExecutor(workers))
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(workers))
        sides = {
            "await runner.run(f, x)": local(lambda number: runner.run(noop, number)),
            "await runner.submit(f, x)": local(lambda number: runner.submit(noop, number)),
            "ThreadPoolExecutor": executor(threads),
            "asyncio.to_thread": local(lambda number: asyncio.to_thread(noop, number)),
        }
        for interpreters in interpreter_pools(workers):
            sides["InterpreterPoolExecutor"] = executor(stack.enter_context(interpreters))
        sides["ProcessPoolExecutor"] = executor(stack.enter_context(process_pool(workers)))
        if theirs:
            sides["original aiointerpreters 0.5.0"] = theirs
        sides["(asyncio alone)"] = await stack.enter_async_context(asyncio_alone())
        yield sides


# ---- measuring and printing ------------------------------------------------------------------


async def measure_all(workers: int, rounds: int, loop_name: str) -> Samples:
    """Let the sides take turns; the first round only warms up."""
    samples: Samples = defaultdict(lambda: defaultdict(list))
    async with all_sides(workers, loop_name) as sides:
        for round_number in range(rounds + 1):
            for name in MEASURES:
                for side, measure in sides.items():
                    of_this_turn = await measure(name)
                    if round_number:
                        samples[side][name] += of_this_turn
    return samples


def print_table(samples: Samples) -> None:
    """Print one row for each side, and its ratio to the first."""
    row = "{:32}{:>11}{:>11}{:>8}{:>13}{:>11}{:>8}{:>13}{:>8}".format
    show(row("", "back to back", "p99", "ratio", "after 1 ms", "p99", "ratio", "gather", "ratio"))
    show("-" * 116)
    first = next(iter(samples.values()))
    for side, measured in samples.items():
        cells = []
        for name in ("back to back", "after 1 ms"):
            middle = median(measured[name])
            cells += [
                f"{middle:,.1f} us",
                f"{percentile(measured[name], 99):,.0f} us",
                ratio(middle / median(first[name])),
            ]
        rate = median(measured["gather"])
        cells += [f"{rate:,.0f}/s", ratio(median(first["gather"]) / rate)]
        show(row(side, *cells))


def main() -> None:
    """Run the benchmark on each event loop."""
    loops = event_loops()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--loop", choices=loops, action="append", help="default: all there are")
    parser.add_argument("--with-original", action="store_true", help="install the original first")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    options = parser.parse_args()

    if options.with_original:
        install_original()
    if sys.version_info < (3, 14):
        show("No rows for InterpreterPoolExecutor and the original package: they need Python 3.14.")
    elif not ORIGINAL.exists():
        show("No row for the original package: it isn't installed (--with-original installs it).")
    if "uvloop" not in loops:
        show("No table for uvloop: it isn't installed.")

    results = {}
    for loop_name in options.loop or loops:
        show(f"\n{loop_name} loop, {options.workers} workers, {machine()}")
        with (
            watching_others(),
            asyncio.Runner(loop_factory=loops[loop_name]) as loop_runner,
        ):
            measuring = measure_all(options.workers, options.rounds, loop_name)
            results[loop_name] = loop_runner.run(measuring)
            print_table(results[loop_name])
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "loops": results}))


# Processes and interpreters load this file as well, without this part.
if __name__ == "__main__":
    main()
