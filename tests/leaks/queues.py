"""Queues are made, filled, drained, left full, shut down and dropped, here and in workers."""

import asyncio
import contextlib

from measure import arguments, check

from aiointerpreters import NotShareableError, Queue, QueueEmpty, Runner
from workfns import queues, values


async def one_round() -> None:
    for maxsize in (0, 5):
        queue = Queue(maxsize)
        producing = runner.submit(queues.put_numbers, queue, "name", 200)
        assert [await queue.aget() for _ in range(200)][-1] == ("name", 199)
        await producing
        inner = await runner.run(queues.make, 0, bytes(100_000), memoryview(bytearray(100_000)))
        queue.put([inner, memoryview(bytearray(100_000)), "x" * 100_000])
        waiting = [asyncio.create_task(Queue().aget()) for _ in range(20)]
        waiting += [asyncio.create_task(queue.aput(n)) for n in range(20)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        with contextlib.suppress(NotShareableError):
            queue.put([bytes(100_000), values.lock()])
        with contextlib.suppress(QueueEmpty):
            Queue().get(timeout=0.0001)
        inner.shutdown()
    for _ in range(100):
        Queue().put(bytes(10_000))


options = arguments(warm_up=20, rounds=100, allowed=5)
with asyncio.Runner() as loop_runner, Runner(workers=1) as runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
