"""Runners are opened and closed, and their results live longer: one in each round."""

import asyncio
import os

from measure import arguments, check

from aiointerpreters import Runner
from workfns import values, views, worker


async def one_round() -> None:
    data = bytearray(1_000_000)
    read, write = os.pipe()
    async with Runner(workers=1) as runner:
        view = await runner.run(views.make, 1_000_000, 7)
        await runner.run(views.keep, memoryview(data))
        echo = await runner.run(values.echo, memoryview(data))
        await runner.run(worker.mark_at_exit, write, b"x")
    assert view[-1] == 7
    del view, echo
    # Its thread ends a little later: wait for the interpreter, at least.
    assert await asyncio.to_thread(os.read, read, 1) == b"x"
    os.close(read)
    os.close(write)


options = arguments(warm_up=10, rounds=80, allowed=6)
with asyncio.Runner() as loop_runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
