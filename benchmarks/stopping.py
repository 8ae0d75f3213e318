"""How soon running work stops when its caller is cancelled, in every worker at once.

    python benchmarks/stopping.py            # --rounds 200, --workers 2

Each round starts one call in every worker, waits until all of them run, cancels their callers, and
measures from there

    caller    until the last caller has been released
    stopped   until the last `finally` block has been reached in its worker
    next      until each worker has run a call again

and checks that the workers are the same ones as before. The interpreter's switch interval, 5 ms, is
what a Python loop lets others wait for its GIL: so that is what "stopped" can be for one.
"""

import argparse
import asyncio
import os
import struct
import time
from collections.abc import Callable
from statistics import median

from _common import duration, machine, percentile, show, watching_others

from aiointerpreters import Queue, Runner, worker


def spin() -> None:
    while True:
        pass


async def spin_in_coroutine() -> None:
    spin()


async def wait_in_coroutine() -> None:
    await asyncio.sleep(3600)


def get_nothing() -> None:
    Queue[int]().get()


def sleep() -> None:
    time.sleep(3600)


def report_end(name: str, started: int, stopped: int) -> None:
    """Run one of the above; tell by a byte that it runs, and by a time that it has ended."""
    try:
        os.write(started, b".")
        globals()[name]()
    finally:
        os.write(stopped, struct.pack("d", time.perf_counter()))


async def report_end_of_coroutine(name: str, started: int, stopped: int) -> None:
    try:
        os.write(started, b".")
        await globals()[name]()
    finally:
        os.write(stopped, struct.pack("d", time.perf_counter()))


def rest(seconds: float) -> str:
    """Keep the worker busy, so that each gets one of these; its name, and how old it is."""
    time.sleep(seconds)
    state = worker().state
    state.calls = getattr(state, "calls", 0) + 1
    return worker().name


KINDS: dict[str, tuple[Callable[..., object], str]] = {
    "`while True: pass`": (report_end, "spin"),
    "`time.sleep(3600)`": (report_end, "sleep"),
    "`Queue.get()`": (report_end, "get_nothing"),
    "a coroutine that awaits": (report_end_of_coroutine, "wait_in_coroutine"),
    "a coroutine in `while True: pass`": (report_end_of_coroutine, "spin_in_coroutine"),
}


class Pipe:
    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    async def receive(self, size: int) -> bytes:
        return await asyncio.to_thread(self._receive, size)

    def _receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            received += os.read(self.read, size - len(received))
        return received


async def measure(runner: Runner, kind: str, rounds: int) -> list[list[float]]:
    function, name = KINDS[kind]
    started, stopped = Pipe(), Pipe()
    samples: list[list[float]] = [[], [], []]
    for _ in range(rounds):
        calls = [
            runner.submit(function, name, started.write, stopped.write)
            for _ in range(runner.workers)
        ]
        await started.receive(runner.workers)
        await asyncio.sleep(0.001)  # well into it
        cancelled_at = time.perf_counter()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        samples[0].append(time.perf_counter() - cancelled_at)
        nexts = [runner.submit(rest, 0.0) for _ in range(runner.workers)]
        await asyncio.wait(nexts)
        samples[2].append(time.perf_counter() - cancelled_at)
        ends = struct.unpack(f"{runner.workers}d", await stopped.receive(8 * runner.workers))
        samples[1].append(max(ends) - cancelled_at)
        await runner.drain()  # or a coroutine may be sent to a worker whose last one is ending
    return samples


async def main(rounds: int, workers: int) -> None:
    show(machine())
    show(f"{workers} workers, {rounds} rounds; median (99th percentile) of each\n")
    show("| what runs in every worker | caller | stopped | next |\n| --- | --- | --- | --- |")
    for kind in KINDS:
        async with Runner(workers=workers) as runner:
            await asyncio.gather(*(runner.run(rest, 0.05) for _ in range(workers)))
            columns = [
                f"{duration(median(times) * 1e6)} ({duration(percentile(times, 99) * 1e6)})"
                for times in await measure(runner, kind, rounds)
            ]
            names = await asyncio.gather(*(runner.run(rest, 0.05) for _ in range(workers)))
            stats = runner.stats()
            assert stats.started == workers, f"workers were replaced: {stats}"
            assert len(set(names)) == workers, names
        show(f"| {kind} | {' | '.join(columns)} |")
    show()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    options = parser.parse_args()
    with watching_others():
        asyncio.run(main(options.rounds // (10 if options.quick else 1), options.workers))
