"""Many tasks go through one runner."""

import asyncio

from measure import arguments, check

from aiointerpreters import Runner
from workfns import values

BATCH = 1_000


async def one_round() -> None:
    futures = [runner.submit(values.square, n) for n in range(BATCH // 2)]
    calls = (runner.run(values.echo, (n, "text", [n])) for n in range(BATCH // 2))
    assert await asyncio.gather(*futures) == [n * n for n in range(BATCH // 2)]
    assert (await asyncio.gather(*calls))[-1] == (BATCH // 2 - 1, "text", [BATCH // 2 - 1])


options = arguments(warm_up=20, rounds=100, allowed=4)
with asyncio.Runner() as loop_runner, Runner(workers=2) as runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
