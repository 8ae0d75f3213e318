"""What the benchmarks share: a function to call, ways to time calls of it, and printing.

The original package's side (`_original.py`) runs this too, with another `aiointerpreters` on its
path: so nothing here imports ours.
"""

import asyncio
import contextlib
import gc
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import quantiles

HERE = Path(__file__).parent

type Call = Callable[[int], Awaitable[object]]


def noop(value: int) -> int:
    """What is called: nothing but the way there and back is measured."""
    return value


# ---- timing: each gives samples, and stops early when `seconds` have passed ----


async def back_to_back(call: Call, calls: int = 2000, seconds: float = 0.5) -> list[float]:
    """Await one call after another; the duration of each, in microseconds."""
    clock = time.perf_counter
    samples = []
    end = clock() + seconds
    for number in range(calls):
        began = clock()
        await call(number)
        done = clock()
        samples.append((done - began) * 1e6)
        if done > end:
            break
    return samples


async def after_pause(call: Call, calls: int = 200, seconds: float = 0.5) -> list[float]:
    """Do the same, with a pause of 1 ms before each call: the workers have gone to sleep."""
    clock = time.perf_counter
    samples = []
    end = clock() + seconds
    for number in range(calls):
        await asyncio.sleep(0.001)
        began = clock()
        await call(number)
        done = clock()
        samples.append((done - began) * 1e6)
        if done > end:
            break
    return samples


async def gathered(call: Call, calls: int = 5000) -> list[float]:
    """Await thousands of calls at once with `asyncio.gather`; calls per second."""
    gc.collect()
    began = time.perf_counter()
    await asyncio.gather(*(call(number) for number in range(calls)))
    return [calls / (time.perf_counter() - began)]


MEASURES = {"back to back": back_to_back, "after 1 ms": after_pause, "gather": gathered}


def percentile(samples: Sequence[float], percent: int) -> float:
    """Return a percentile; of one sample, that sample."""
    return quantiles(samples, n=100)[percent - 1] if len(samples) > 1 else samples[0]


def event_loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return what makes a loop, by name: asyncio's own, and uvloop's where it is installed."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    with contextlib.suppress(ImportError):
        import uvloop

        loops["uvloop"] = uvloop.new_event_loop
    return loops


# ---- this process, as Linux sees it ----


def memory() -> float:
    """Return this process's resident memory in MiB."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def open_files() -> int:
    """Return how many file descriptors are open."""
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    """Return how many native threads there are."""
    return len(os.listdir("/proc/self/task"))


# ---- printing ----


def machine() -> str:
    """Describe where this runs, in a line."""
    try:
        ours = version("aiointerpreters")
    except PackageNotFoundError:
        ours = "not installed"
    return (
        f"CPython {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{len(os.sched_getaffinity(0))} cores, aiointerpreters {ours}"
    )


def show(text: str = "") -> None:
    """Print at once, also into a pipe."""
    print(text)
    sys.stdout.flush()
