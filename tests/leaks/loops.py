"""One runner is used by one event loop after another, some closed with work pending."""

import asyncio

from measure import arguments, check

from aiointerpreters import Runner
from workfns import values


async def use() -> None:
    assert await asyncio.gather(*(runner.run(values.square, n) for n in range(5))) == [
        n * n for n in range(5)
    ]


async def leave() -> None:
    for n in range(5):
        runner.submit(values.echo, [n] * 100)


def one_round() -> None:
    asyncio.run(use())
    asyncio.run(leave())
    asyncio.run(runner.drain())


options = arguments(warm_up=50, rounds=300, allowed=4)
with Runner(workers=2) as runner:
    check(one_round, warm_up=options.warm_up, rounds=options.rounds, allowed=options.allowed)
