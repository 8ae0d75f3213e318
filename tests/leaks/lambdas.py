"""Lambdas and closures are called, each but once: what a worker keeps of them has a limit.

A thousand in each round; `--rounds 1000` makes a million.
"""

import asyncio

from measure import arguments, check

from aiointerpreters import Runner
from workfns import by_value

BATCH = 1_000


async def one_round() -> None:
    global count
    start, count = count, count + BATCH
    calls = [runner.submit(lambda n=n: n, *()) for n in range(start, count - 20)]
    assert await asyncio.gather(*calls) == list(range(start, count - 20))
    for n in range(count - 20, count):
        # And of different code, with something large in it, as argument and as result.
        function = eval(f"lambda data=bytes(10_000): {n}")
        assert await runner.run(function) == n
        assert await runner.run(by_value.apply, function) == n
        assert (await runner.run(by_value.adder, n))(1) == n + 1


count = 0
options = arguments(warm_up=20, rounds=60, allowed=6)
with asyncio.Runner() as loop_runner, Runner(workers=1) as runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
