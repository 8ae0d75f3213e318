"""Ten sums of squares: one after another on the event loop, then in a Runner, timed.

    python examples/sums.py

The smallest complete program: a plain function, `Runner.wrap` to make it awaitable, and a
`TaskGroup` to await ten calls at once. Each worker is a subinterpreter with a GIL of its own, so
the second half is about as many times faster as there are cores.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aiointerpreters import Runner

CALLS = 10
TERMS = 3_000_000


def sum_of_squares(terms: int) -> int:
    """Return 0² + 1² + … + (terms - 1)², the slow way."""
    return sum(i * i for i in range(terms))


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long the block took."""
    start = time.perf_counter()
    yield
    print(f"{what:40}{time.perf_counter() - start:7.2f} s")


async def main() -> None:
    """Do the same work twice, and check that the sums agree."""
    with timed(f"{CALLS} sums on the event loop"):
        single = [sum_of_squares(TERMS) for _ in range(CALLS)]

    with Runner().start() as runner:
        parallel_sum = runner.wrap(sum_of_squares)  # the same signature, awaitable
        with timed(f"{CALLS} sums in a Runner of {runner.workers} workers"):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(parallel_sum(TERMS)) for _ in range(CALLS)]

    assert [task.result() for task in tasks] == single


# A worker loads this file too, to find `sum_of_squares`, but without this part.
if __name__ == "__main__":
    asyncio.run(main())
