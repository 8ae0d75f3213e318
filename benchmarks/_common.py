"""What the benchmarks share: a function to call, ways to time calls of it, and printing.

The original package's side (`_original.py`) runs this too, with another `aiointerpreters` on its
path: so nothing here imports ours.
"""

import asyncio
import contextlib
import gc
import os
import platform
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from resource import RUSAGE_CHILDREN as CHILDREN
from resource import RUSAGE_SELF as SELF
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


def used_cpu() -> tuple[float, float]:
    """Return the CPU seconds used so far: by the whole machine; by us and our ended children."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _iowait, *interrupts = map(int, stat.readline().split()[1:9])
    machine_wide = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return machine_wide, sum(sum(resource.getrusage(who)[:2]) for who in (SELF, CHILDREN))


@contextlib.contextmanager
def watching_others() -> Iterator[None]:
    """Print how much of the machine others used meanwhile: with much of it, measure again."""
    began, (machine_before, ours_before) = time.perf_counter(), used_cpu()
    yield
    took, (machine_after, ours_after) = time.perf_counter() - began, used_cpu()
    others = (machine_after - machine_before) - (ours_after - ours_before)
    show(f"Other programs kept {max(0, others / took):.2f} of {cores()} cores busy meanwhile.\n")


# ---- printing ----


def cores() -> int:
    """Return how many cores we may use."""
    return len(os.sched_getaffinity(0))


def machine() -> str:
    """Describe where this runs, in a line."""
    try:
        ours = version("aiointerpreters")
    except PackageNotFoundError:
        ours = "not installed"
    return (
        f"CPython {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{cores()} cores, aiointerpreters {ours}"
    )


def show(text: str = "") -> None:
    """Print at once, also into a pipe."""
    print(text)
    sys.stdout.flush()
