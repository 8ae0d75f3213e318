"""`Executor` beside the standard library's executors, for code without an event loop, and with one.

    python benchmarks/executor.py [--calls 2000]

Two workers each, calls that do nothing. Takes some seconds.
"""

import argparse
import asyncio
import concurrent.futures
import operator
import statistics
import time
from collections.abc import Callable
from typing import Any

from aiointerpreters import Executor

SIDES: dict[str, Callable[[int], concurrent.futures.Executor]] = {
    "Executor": Executor,
    "ThreadPoolExecutor": concurrent.futures.ThreadPoolExecutor,
}
if hasattr(concurrent.futures, "InterpreterPoolExecutor"):
    SIDES["InterpreterPoolExecutor"] = concurrent.futures.InterpreterPoolExecutor


def median_us(call: Callable[[], object], times: int) -> float:
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent) * 1e6


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(executor: concurrent.futures.Executor, calls: int) -> dict[str, str]:
    def round_trip() -> None:
        executor.submit(operator.neg, 1).result()

    def map_all(chunksize: int = 1) -> None:
        results = list(executor.map(operator.neg, range(10_000), chunksize=chunksize))
        assert results[-1] == -9_999

    def complete_all() -> None:
        futures = [executor.submit(operator.neg, n) for n in range(5_000)]
        for future in concurrent.futures.as_completed(futures):
            future.result()

    async def await_each() -> float:
        loop, spent = asyncio.get_running_loop(), []
        for _ in range(calls):
            began = time.perf_counter()
            await loop.run_in_executor(executor, operator.neg, 1)
            spent.append(time.perf_counter() - began)
        return statistics.median(spent) * 1e6

    round_trip()
    return {
        "submit to result": f"{median_us(round_trip, calls):.1f} us",
        "map of 10,000": f"{seconds(map_all) * 1000:.0f} ms",
        "in chunks of 100": f"{seconds(lambda: map_all(100)) * 1000:.0f} ms",
        "as_completed of 5,000": f"{seconds(complete_all) * 1000:.0f} ms",
        "run_in_executor": f"{asyncio.run(await_each()):.0f} us",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2_000, help="one after another")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    for name, make in SIDES.items():
        with make(2) as executor:
            rows[name] = measure(executor, options.calls)
    titles = list(rows["Executor"])
    print("|  | " + " | ".join(titles) + " |")
    print("|---" * (len(titles) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()
