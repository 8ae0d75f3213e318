"""What is added to making bare interpreters, from nothing to the first result of each worker.

    python benchmarks/start_up.py                  # --rounds 15 --workers 8

    bare         as many threads make interpreters, configured as a worker's (src/floors); no more
    a builtin    a Runner starts, each worker has begun a call of `os.read`, all results are here
    a function   the same with one of a module of the user's, which each worker imports first

A new process for every sample, by turns. The wall-clock time, and the CPU time of all the process's
threads, which other programs disturb less. Modules are compiled beforehand, as installed ones are.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from _common import machine, show, watching_others
from _start_up_work import attend

SIDES = ("bare", "a builtin", "a function")


def bare(workers: int) -> tuple[float, float]:
    """Milliseconds of wall-clock and CPU time."""
    from aiointerpreters import _floors

    used: list[float] = []
    began = time.process_time()
    took = _floors.interpreters(workers, lambda: used.append(time.process_time() - began))
    return took, used[0] * 1e3


async def first_results(
    workers: int, function: Callable[..., bytes], *args: int
) -> tuple[float, float]:
    """The same of a Runner."""
    from aiointerpreters import Runner

    read, write = os.pipe()
    began, used = time.perf_counter(), time.process_time()
    async with Runner(workers=workers) as runner:
        calls = [runner.submit(function, read, *args) for _ in range(workers)]
        while runner.stats().busy < workers:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.0005)
        os.write(write, b"." * workers)
        await asyncio.gather(*calls)
        return (time.perf_counter() - began) * 1e3, (time.process_time() - used) * 1e3


def measure(side: str, workers: int) -> tuple[float, float]:
    if side == "bare":
        return bare(workers)
    if side == "a builtin":
        return asyncio.run(first_results(workers, os.read, 1))
    return asyncio.run(first_results(workers, attend))


def main(rounds: int, workers: int) -> None:
    show(machine())
    environment = {**os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    samples: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    for number in range(rounds + 1):
        for side, of_side in samples.items():
            command = [sys.executable, str(Path(__file__).resolve()), "--measure", side]
            command += ["--workers", str(workers)]
            output = subprocess.check_output(command, env=environment, text=True)
            if number:  # the first one compiles
                of_side.append(json.loads(output))
    show(f"{workers} workers, {rounds} rounds, medians\n")
    show("| | wall clock | against bare | CPU time | against bare |")
    show("| --- | --- | --- | --- | --- |")
    floors = [median(column) for column in zip(*samples["bare"], strict=True)]
    for side, of_side in samples.items():
        columns = [median(column) for column in zip(*of_side, strict=True)]
        cells = [
            f"{value:.1f} ms | {value / floor:.2f}"
            for value, floor in zip(columns, floors, strict=True)
        ]
        show(f"| {side} | {' | '.join(cells)} |")
    show()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--measure", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.workers)))
    else:
        with watching_others():
            main(3 if options.quick else options.rounds, options.workers)
