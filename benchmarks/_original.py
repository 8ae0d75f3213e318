"""The original package (0.5.0 from PyPI) as one side of roundtrip.py, in a process of its own.

It has our package's name, so the two can't be imported together. For each line on standard input,
a measure's name, it prints that measure's samples as a line of JSON.
"""

import asyncio
import json
import sys

from _common import MEASURES, event_loops, noop

from aiointerpreters.runner import Runner


async def main(workers: int) -> None:
    """Answer until standard input ends."""
    with Runner(workers=workers).start() as runner:
        await runner.run(noop, 0)
        for line in sys.stdin:
            samples = await MEASURES[line.strip()](lambda number: runner.run(noop, number))
            print(json.dumps(samples), flush=True)


if __name__ == "__main__":
    workers, loop_name = sys.argv[1:]
    with asyncio.Runner(loop_factory=event_loops()[loop_name]) as loop_runner:
        loop_runner.run(main(int(workers)))
