"""Runners are opened, used a little, and closed: two in each round."""

import asyncio
import contextlib

from measure import arguments, check

from aiointerpreters import Runner
from workfns import failing, values


async def one_round() -> None:
    async with Runner(workers=2) as runner:
        assert await runner.run(values.square, 3) == 9
        assert await runner.run(values.echo, {"a": [1, b"x"]}) == {"a": [1, b"x"]}
        with contextlib.suppress(ZeroDivisionError):
            await runner.run(failing.divide_by_zero)
    with Runner(workers=1).start() as runner:
        left = runner.submit(values.square, 5)
    assert await left == 25
    await runner.aclose()


options = arguments(warm_up=10, rounds=100, allowed=6)
check(
    lambda: asyncio.run(one_round()),
    warm_up=options.warm_up,
    rounds=options.rounds,
    allowed=options.allowed,
)
