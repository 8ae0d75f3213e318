"""Runners are started, run coroutines in their workers' loops, and are closed or stopped."""

import asyncio

from measure import arguments, check

from aiointerpreters import Queue, Runner
from workfns import coroutines


async def one_round() -> None:
    source: Queue[int] = Queue(2)
    target: Queue[int] = Queue(2)
    try:
        async with Runner(workers=2) as runner:
            doubling = runner.submit(coroutines.double_all, source, target)
            await source.aput(21)
            assert await target.aget() == 42
            await asyncio.gather(*(runner.run(coroutines.add, n) for n in range(20)))
            raise LookupError
    except LookupError:
        assert doubling.cancelled()
    async with Runner(workers=1) as runner:
        await runner.run(coroutines.identity_of_a_thread)


options = arguments(warm_up=10, rounds=60, allowed=6)
with asyncio.Runner() as loop_runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
