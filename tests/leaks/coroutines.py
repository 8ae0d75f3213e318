"""Coroutines in workers: they return, fail, are cancelled waiting and running, use a queue."""

import asyncio

from measure import arguments, check

from aiointerpreters import Queue, Runner
from workfns import coroutines, values


async def one_round() -> None:
    # One for each worker, whose loop gets descriptors with it that it keeps.
    queues: list[tuple[Queue[int], Queue[int]]] = [(Queue(2), Queue(2)) for _ in range(2)]
    doubling = [runner.submit(coroutines.double_all, *pair) for pair in queues]
    sleeping = [runner.submit(asyncio.sleep, 3600) for _ in range(30)]
    calls = [runner.submit(coroutines.add, [n] * 50, [n]) for n in range(200)]
    failing = [runner.submit(coroutines.fail, "text") for _ in range(20)]
    for n in range(10):
        for source, target in queues:
            await source.aput(n)
            await target.aget()
    for future in [*sleeping, *calls[::3]]:
        future.cancel()
    for source, _ in queues:
        await source.aput(-1)
    await asyncio.wait([*doubling, *sleeping, *calls, *failing])
    for future in failing:
        assert isinstance(future.exception(), ValueError)
    await runner.run(values.square, 2)


options = arguments(warm_up=20, rounds=100, allowed=4)
with asyncio.Runner() as loop_runner, Runner(workers=2, concurrency=40) as runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
