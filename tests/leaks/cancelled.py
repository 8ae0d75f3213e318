"""Tasks are cancelled: queued, running, and as their results arrive."""

import asyncio

from measure import arguments, check

from aiointerpreters import Runner
from workfns import values


async def one_round() -> None:
    futures = [runner.submit(values.echo, [n] * 100) for n in range(500)]
    tasks = [asyncio.create_task(runner.run(values.zeros, 1_000)) for _ in range(100)]
    await futures[0]
    for future in [*futures[::2], *tasks[::2]]:
        future.cancel()
    await asyncio.wait([*futures, *tasks])


options = arguments(warm_up=20, rounds=200, allowed=4)
with asyncio.Runner() as loop_runner, Runner(workers=2) as runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
