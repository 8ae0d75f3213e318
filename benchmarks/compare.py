"""Whether ordinary calls are as fast as in another build of this package.

    git worktree add ../before <commit> && make -C ../before build
    python benchmarks/compare.py ../before/build/3.14/venv/bin/python     # --rounds 15

The two builds take turns, each time in a new process, so that a change of the machine's mood meets
both. A table shows the medians over the rounds, and how many times as much the present build has:
of the duration, less is better; of calls per second, more.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from itertools import chain
from pathlib import Path
from statistics import median

from _common import back_to_back, gathered, machine, noop, show, watching_others

MEASURES = ("`await run(noop, n)`, us", "gather of `run`, calls/s", "gather of `submit`, calls/s")


async def measure() -> list[float]:
    """Return one round's medians, of the build that this process imports."""
    from aiointerpreters import Runner

    async with Runner(workers=2) as runner:
        await back_to_back(lambda n: runner.run(noop, n), calls=3000, seconds=2)
        once = await back_to_back(lambda n: runner.run(noop, n), calls=20_000, seconds=2)
        runs = [await gathered(lambda n: runner.run(noop, n)) for _ in range(12)]
        submits = [await gathered(lambda n: runner.submit(noop, n)) for _ in range(12)]
    return [median(samples) for samples in (once, chain(*runs), chain(*submits))]


def measure_with(python: str) -> list[float]:
    command = [python, str(Path(__file__).resolve()), "--measure"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    measured: list[float] = json.loads(output)
    return measured


def main(other: str, rounds: int) -> None:
    show(machine())
    sides: dict[str, list[list[float]]] = {other: [], sys.executable: []}
    for _ in range(rounds):
        for python, samples in sides.items():
            samples.append(measure_with(python))
    show(f"two workers, {rounds} rounds of each build by turns\n")
    show("| | the other build | this build | ratio |\n| --- | --- | --- | --- |")
    theirs, ours = (list(zip(*samples, strict=True)) for samples in sides.values())
    for name, before, after in zip(MEASURES, theirs, ours, strict=True):
        ratio = median(after) / median(before)
        show(f"| {name} | {median(before):,.2f} | {median(after):,.2f} | {ratio:.3f} |")
    show()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", nargs="?", help="the other build's Python")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(asyncio.run(measure())))
    elif options.other is None:
        show("compare.py needs another build's Python to compare with: passed over")
    else:
        with watching_others():
            main(options.other, options.rounds)
