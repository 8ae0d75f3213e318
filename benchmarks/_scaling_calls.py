"""What scaling.py measures of calls; runs as a program of its own, on so many processors.

    python benchmarks/_scaling_calls.py costs --cores 2       # what a call costs, on either side
    python benchmarks/_scaling_calls.py closed --cores 2      # throughput, to check the model by
    python benchmarks/_scaling_calls.py loops --cores 2       # several event loops in threads

Prints JSON. The processors are chosen before any thread is started, so that the package finds as
many as it would on such a machine: on one, nobody spins.

*Costs* are CPU time of one thread, in microseconds a call: unlike wall time, that means the same
whether or not the worker has a core of its own. *Closed*: as many coroutines as `map` would have
on their way by default, each of which awaits one call after another.
"""

import argparse
import asyncio
import gc
import json
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median, quantiles
from typing import Any

from _scaling_work import burn, give_back, occupy, thread_cpu_ns

from aiointerpreters import Runner
from aiointerpreters._bench._loops import LOOPS

WORKERS = (1, 2, 4, 8)
TASKS_US = (0, 10, 100, 1_000, 10_000)
#: Arguments and results, by what the tables call them.
PAYLOADS: dict[str, object] = {
    "none": None,
    "small": {"id": 1, "name": "a name", "tags": ("a", "b", "c"), "score": 0.5, "text": "x" * 100},
}
CALLS = 2_000
SPIN_US = 50.0  # how long an idle worker spins (docs/architecture.md)


def in_flight(workers: int) -> int:
    """How many calls are on their way: what `map` has by default."""
    return max(2 * workers, 16)


# ---- what a call costs ----


def await_all(runner: Runner, before: int, calls: int) -> None:
    """Wait in a way that lets no result be delivered: the loop stands still."""
    while runner.stats().done < before + calls:
        time.sleep(0.001)


async def submit_and_deliver(runner: Runner, payload: object) -> tuple[float, float]:
    """Submit calls in a row, wait until all are done, and let all be delivered at once."""
    done = runner.stats().done
    clock = time.thread_time_ns
    began = clock()
    futures = [runner.submit(give_back, payload) for _ in range(CALLS)]
    submitted = clock()
    await_all(runner, done, CALLS)
    waited = clock()
    await futures[-1]
    delivered = clock()
    return (submitted - began) / CALLS / 1e3, (delivered - waited) / CALLS / 1e3


async def worker_side(runner: Runner, payload: object) -> float:
    """Queue calls for one worker that is held up meanwhile: its CPU time for all, by two stamps."""
    held = runner.submit(occupy, 0.03)
    first = runner.submit(thread_cpu_ns)
    calls = [runner.submit(give_back, payload) for _ in range(CALLS)]
    last = runner.submit(thread_cpu_ns)
    await held
    await asyncio.gather(*calls)
    return (await last - await first) / CALLS / 1e3


async def loop_cpu(awaitable: Awaitable[object], calls: int) -> float:
    """Return the CPU time of the loop's thread per call."""
    began = time.thread_time_ns()
    await awaitable
    return (time.thread_time_ns() - began) / calls / 1e3


async def one_after_another(runner: Runner, calls: int) -> None:
    """Call for so long that worker and loop both sleep while they wait for each other."""
    for _ in range(calls):
        await runner.run(burn, 200_000)


async def chains(runner: Runner, chain_count: int, calls: int) -> None:
    """Many coroutines, each of which awaits one call after another: a busy server."""

    async def chain() -> None:
        for _ in range(calls // chain_count):
            await runner.run(give_back, None)

    await asyncio.gather(*(chain() for _ in range(chain_count)))


async def mapped(runner: Runner, calls: int) -> None:
    async for _ in runner.map(give_back, range(calls), concurrency=CALLS):
        pass


async def submitted(runner: Runner, calls: int) -> None:
    futures = [runner.submit(give_back, None) for _ in range(calls)]
    for future in futures:
        await future


async def gathered(runner: Runner, calls: int) -> None:
    await asyncio.gather(*(runner.run(give_back, None) for _ in range(calls)))


async def costs(rounds: int) -> dict[str, Any]:
    """Measure what a call costs the loop's thread and the worker's."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    async with Runner(workers=1) as runner:
        for number in range(rounds + 1):
            gc.collect()
            gc.disable()
            if number == 1:
                found.clear()  # the first round is the warm-up
            for name, payload in PAYLOADS.items():
                submit, deliver = await submit_and_deliver(runner, payload)
                note(f"submit_{name}", submit)
                note(f"deliver_{name}", deliver)
                note(f"worker_{name}", await worker_side(runner, payload))
            note("by_submit", await loop_cpu(submitted(runner, CALLS), CALLS))
            note("by_gather", await loop_cpu(gathered(runner, CALLS), CALLS))
            note("by_map", await loop_cpu(mapped(runner, CALLS), CALLS))
            note("by_run", await loop_cpu(chains(runner, 500, 2 * CALLS), 2 * CALLS))
            note("by_run_awake", await loop_cpu(chains(runner, 1, CALLS), CALLS))
            note("by_run_alone", await loop_cpu(one_after_another(runner, 100), 100))
            gc.enable()
    return {name: round(median(samples), 3) for name, samples in found.items()}


# ---- throughput ----


async def closed_loop(runner: Runner, chain_count: int, task_ns: int, seconds: float) -> Any:
    """Let so many coroutines call for so long; return calls a second, and percentiles in us."""
    clock = time.perf_counter
    function: Callable[[int], object] = burn if task_ns else give_back
    latencies: list[float] = []
    end = clock() + seconds / 2  # first the warm-up

    async def chain() -> None:
        before = clock()
        while before < end:
            await runner.run(function, task_ns)
            now = clock()
            latencies.append(now - before)
            before = now

    async def all_chains() -> None:
        await asyncio.gather(*(chain() for _ in range(chain_count)))

    await all_chains()
    latencies.clear()
    gc.collect()
    began, cpu_began = clock(), time.thread_time()
    end = began + seconds
    await all_chains()
    took, loop_busy = clock() - began, time.thread_time() - cpu_began
    cuts = quantiles(latencies, n=100)
    return {
        "rate": round(len(latencies) / took, 1),
        "loop_use": round(loop_busy / took, 3),
        "p50": round(cuts[49] * 1e6, 1),
        "p99": round(cuts[98] * 1e6, 1),
    }


async def closed(seconds: float) -> list[dict[str, Any]]:
    """Measure the throughput for numbers of workers and sizes of tasks."""
    cases = []
    for workers in WORKERS:
        async with Runner(workers=workers) as runner:
            await asyncio.gather(*(runner.run(occupy, 0.02) for _ in range(workers)))  # start
            for task_us in TASKS_US:
                result = await closed_loop(runner, in_flight(workers), task_us * 1_000, seconds)
                cases.append({"workers": workers, "task_us": task_us, **result})
    return cases


# ---- several loops ----


async def busy(runner: Runner, end: float) -> int:
    """Let 200 coroutines call until then; return how often they have."""
    calls = 0

    async def chain() -> None:
        nonlocal calls
        while time.perf_counter() < end:
            await runner.run(give_back, None)
            calls += 1

    await asyncio.gather(*(chain() for _ in range(200)))
    return calls


async def loops(seconds: float) -> dict[str, float]:
    """Share a runner between event loops in threads; return calls a second, by their number."""
    found: dict[str, list[float]] = {}
    with Runner(workers=1).start() as runner, ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for count in (1, 2, 4):
                end = time.perf_counter() + seconds
                in_threads = [
                    pool.submit(lambda end: asyncio.run(busy(runner, end)), end)
                    for _ in range(count)
                ]
                rate = sum(each.result() for each in in_threads) / seconds
                found.setdefault(str(count), []).append(rate)
    return {count: round(median(rates)) for count, rates in found.items()}


def restrict(cores: int) -> None:
    """Use so many processors, in this process and what it starts."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["costs", "closed", "loops"])
    parser.add_argument("--cores", type=int, required=True)
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.4)
    options = parser.parse_args()
    restrict(options.cores)
    measure: Callable[[], Any] = {
        "costs": lambda: costs(options.rounds),
        "closed": lambda: closed(options.seconds),
        "loops": lambda: loops(options.seconds),
    }[options.what]
    with asyncio.Runner(loop_factory=LOOPS[options.loop]) as runner:
        print(json.dumps(runner.run(measure())))


if __name__ == "__main__":
    main()
