"""Large values cross, there and back."""

import asyncio

from measure import arguments, check

from aiointerpreters import Runner
from workfns import classes, values

MIB = 2**20
PAYLOADS = [
    bytes(8 * MIB),
    "x" * (8 * MIB),
    "漢" * (4 * MIB),
    bytearray(8 * MIB),
    memoryview(bytearray(8 * MIB)),
    [str(n) for n in range(50_000)],
    {n: (n, [n]) for n in range(20_000)},
    classes.OutOfBand(bytes(8 * MIB)),
    [classes.Point(n) for n in range(1_000)],
    1 << (8 * MIB),
]


async def one_round() -> None:
    for payload in PAYLOADS:
        assert type(await runner.run(values.echo, payload)) is type(payload)
    cancelled = runner.submit(values.echo, PAYLOADS[0])
    await asyncio.sleep(0)
    cancelled.cancel()


options = arguments(warm_up=5, rounds=20, allowed=10)
with asyncio.Runner() as loop_runner, Runner(workers=1) as runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
