"""Large results and arguments cross, are dropped, cancelled, and left behind by their loop."""

import asyncio

from measure import arguments, check

from aiointerpreters import Runner
from workfns import blobs, values

MIB = 2**20


async def use() -> None:
    for kind in ("bytes", "bytearray", "ascii", "latin-1", "two bytes", "four bytes"):
        got = await runner.run(blobs.make, kind, 2 * MIB)
        assert type(await runner.run(values.echo, {"a": [got]})) is dict
    cancelled = [runner.submit(values.zeros, 4 * MIB) for _ in range(8)]
    await asyncio.wait([cancelled[0]])
    for future in cancelled:
        future.cancel()
    del cancelled


async def leave() -> None:
    for _ in range(4):
        runner.submit(values.zeros, 4 * MIB)
        runner.submit(values.echo, bytes(4 * MIB))


def one_round() -> None:
    asyncio.run(use())
    asyncio.run(leave())
    asyncio.run(runner.drain())


# Some of 4 MiB each are on their way at any time.
options = arguments(warm_up=10, rounds=60, allowed=40)
with Runner(workers=2) as runner:
    check(one_round, warm_up=options.warm_up, rounds=options.rounds, allowed=options.allowed)
