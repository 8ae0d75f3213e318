"""Shared values are made, used in all workers, and dropped."""

import asyncio
import contextlib

from measure import arguments, check

from aiointerpreters import NotShareableError, Runner, Shared
from workfns import classes, shared, values


async def one_round() -> None:
    for n in range(20):
        table = Shared({"n": n, "view": memoryview(bytearray(100_000)), "data": bytes(100_000)})
        calls = [runner.submit(shared.look_up, table, "n") for _ in range(10)]
        assert await asyncio.gather(*calls) == [n] * 10
        nested = [Shared(classes.Point(n)), {"table": (table,)}]
        runner.submit(values.describe, nested).cancel()
        with contextlib.suppress(NotShareableError):
            Shared([bytes(100_000), values.lock()])
        Shared(bytearray(100_000))


options = arguments(warm_up=20, rounds=100, allowed=6)
with asyncio.Runner() as loop_runner, Runner(workers=2) as runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
