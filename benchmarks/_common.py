"""What these programs share: a function to call, ways to time calls of it, and printing."""

import asyncio
import contextlib
import gc
import os
import platform
import resource
import site
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_CHILDREN as CHILDREN
from resource import RUSAGE_SELF as SELF
from statistics import quantiles

HERE = Path(__file__).parent

type Call = Callable[[int], Awaitable[object]]
type Thunk = Callable[[], Awaitable[object]]  # a call with its arguments


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


async def gathered(call: Call, calls: int = 5000) -> list[float]:
    """Await thousands of calls at once with `asyncio.gather`; calls per second."""
    gc.collect()
    began = time.perf_counter()
    await asyncio.gather(*(call(number) for number in range(calls)))
    return [calls / (time.perf_counter() - began)]


async def alternating(
    first: Thunk, second: Thunk, calls: int = 300, seconds: float = 0.5
) -> tuple[list[float], list[float]]:
    """Await the two by turns; the durations of each, in microseconds.

    Results are dropped in between, and that isn't counted: the event loop keeps one until the task
    is suspended the next time, so that it would be the other call's time.
    """
    clock = time.perf_counter
    of_first: list[float] = []
    of_second: list[float] = []
    end = clock() + seconds
    with no_collections():
        for _ in range(calls):
            for call, samples in ((first, of_first), (second, of_second)):
                began = clock()
                await call()
                done = clock()
                samples.append((done - began) * 1e6)
                await asyncio.sleep(0)
            if done > end:
                break
    return of_first, of_second


async def in_a_block(call: Thunk, calls: int = 300, seconds: float = 0.5) -> float:
    """Await one call after another; the mean duration of one, in microseconds.

    The dropping of results is counted here, as all that a call leaves for later.
    """
    with no_collections():
        began = now = time.perf_counter()
        done = 0
        while done < calls and now < began + seconds:
            await call()
            done += 1
            now = time.perf_counter()
    return (now - began) / done * 1e6


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Collect garbage now, and not meanwhile: else it meets whoever's turn it happens to be."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def percentile(samples: Sequence[float], percent: int) -> float:
    """Return a percentile; of one sample, that sample."""
    return quantiles(samples, n=100)[percent - 1] if len(samples) > 1 else samples[0]


# ---- the standard library's executors ----


def process_pool(workers: int) -> Executor:
    """Return a pool of processes, started afresh: forking a process with interpreters fails."""
    return ProcessPoolExecutor(workers, get_context("spawn"))


def interpreter_pools(workers: int) -> list[Executor]:
    """Return the standard library's pool of interpreters, if this Python has it."""
    if sys.version_info >= (3, 14):
        from concurrent.futures import InterpreterPoolExecutor

        # Its interpreters don't inherit sys.path, and must find what is called.
        return [
            InterpreterPoolExecutor(workers, initializer=site.addsitedir, initargs=(str(HERE),))
        ]
    return []


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


def processor() -> str:
    """Return the processor's name, as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"


def show(text: str = "") -> None:
    """Print at once, also into a pipe."""
    print(text)
    sys.stdout.flush()


def ratio(times: float) -> str:
    """Format how many times as long something takes."""
    return f"{times:.2f}" if times < 10 else f"{times:,.0f}"


def duration(microseconds: float) -> str:
    """Format a duration, in microseconds or milliseconds."""
    if abs(microseconds) < 10_000:
        return f"{microseconds:,.{1 if abs(microseconds) < 100 else 0}f} us"
    return f"{microseconds / 1000:,.0f} ms"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that is Markdown, and that can be read as it is."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in (header, rule, *rows):
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        show(f"| {' | '.join([first, *others])} |")
    show()


def at_most(what: str, value: float, limit: float) -> None:
    """Print whether a target is met."""
    met = "met" if value <= limit else "MISSED"
    show(f"- {what}: {ratio(value)}, at most {limit:g} wanted: {met}")


def at_least(what: str, value: float, limit: float) -> None:
    """Print whether a target is met."""
    met = "met" if value >= limit else "MISSED"
    show(f"- {what}: {ratio(value)}, at least {limit:g} wanted: {met}")
