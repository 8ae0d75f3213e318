"""Running work is interrupted, in Python code and in waits; some of it as it ends."""

import asyncio
import os

from measure import arguments, check

from aiointerpreters import Runner
from workfns import control, values

announced, announce = os.pipe()
trace, mark = os.pipe()


async def one_round() -> None:
    for way in ("spin_in_a_loop", "sleep_long", "get_from_an_empty_queue"):
        futures = [runner.submit(control.go_on, way, announce, mark) for _ in range(2)]
        for _ in futures:
            os.read(announced, 1)
        for future in futures:
            future.cancel()
    ending = [runner.submit(control.sleep_at_least, 0.001) for _ in range(4)]
    await asyncio.sleep(0.001)
    for future in ending:
        future.cancel()
    assert await runner.run(values.square, 3) == 9
    await runner.drain()
    os.read(trace, 100)


options = arguments(warm_up=20, rounds=200, allowed=4)
with asyncio.Runner() as loop_runner, Runner(workers=2, grace_period=60) as runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
    assert runner.stats().started == 2
