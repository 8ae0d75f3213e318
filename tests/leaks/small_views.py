"""Views by the thousand: what each of them needs, apart from its memory, is given back."""

import asyncio

from measure import arguments, check

from aiointerpreters import Runner
from workfns import values, views

DATA = bytearray(1_000)


async def one_round() -> None:
    whole = memoryview(DATA)
    for got in (
        await runner.run(values.echo, [whole[n : n + 1] for n in range(1_000)]),
        await asyncio.gather(*(runner.run(views.make, 10) for _ in range(200))),
        await asyncio.gather(*(runner.run(values.echo, whole[n:]) for n in range(200))),
    ):
        assert type(got[0]) is memoryview


options = arguments(warm_up=20, rounds=100, allowed=4)
with asyncio.Runner() as loop_runner, Runner(workers=2) as runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
DATA.append(0)  # nobody holds it
