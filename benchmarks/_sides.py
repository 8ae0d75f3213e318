"""The sides that values.py compares: our runner, and the standard library's two isolated pools."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from _common import interpreter_pools, process_pool
from _work import nap

from aiointerpreters import Runner

OURS = "await runner.run(f, x)"


@dataclass(frozen=True)
class Side:
    """One way to call a function in a worker."""

    name: str
    call: Callable[..., Awaitable[object]]
    workers: int
    isolated_memory: bool = False  # a process: it can't be sent a memoryview

    async def in_every_worker(self, function: Callable[..., object], *args: object) -> None:
        """Call it in each worker; it must take long enough for that."""
        await asyncio.gather(*(self.call(function, *args) for _ in range(2 * self.workers)))


@asynccontextmanager
async def all_sides(workers: int) -> AsyncIterator[list[Side]]:
    """Start all workers of every side there is, ours first in the list."""
    loop = asyncio.get_running_loop()

    def executor(pool: Executor, isolated_memory: bool = False) -> Side:
        call = partial(loop.run_in_executor, pool)
        return Side(type(pool).__name__, call, workers, isolated_memory)

    async with AsyncExitStack() as stack:
        # First of all the processes: nothing is forked once there are interpreters.
        peers = [executor(stack.enter_context(process_pool(workers)), isolated_memory=True)]
        await peers[0].in_every_worker(nap, 0.1)
        for pool in interpreter_pools(workers):
            peers.insert(0, executor(stack.enter_context(pool)))
        runner = await stack.enter_async_context(Runner(workers=workers))
        sides = [Side(OURS, runner.run, workers), *peers]
        for side in sides:
            await side.in_every_worker(nap, 0.1)
        yield sides
