"""Views cross, there and back, are kept a while, and dropped on either side."""

import asyncio

from measure import arguments, check

from aiointerpreters import Runner
from workfns import pickled, values, views

MIB = 2**20


async def one_round() -> None:
    data = [bytearray(MIB) for _ in range(20)]
    calls = (
        runner.run(values.echo, [memoryview(each), views.Record(memoryview(each))]) for each in data
    )
    got = await asyncio.gather(*calls)
    await runner.run(views.keep, *(memoryview(each) for each in data))
    lent = [await runner.run(views.make, MIB, 7) for _ in range(20)]
    assert all(view[0] == 7 for view in lent)
    await asyncio.gather(*(runner.run(views.part_of, view, 5, 10) for view in lent))
    assert bytes((await runner.run(pickled.bundle, MIB)).buffer.memory[:1]) == b"\0"
    circle = [lent, got]
    circle.append(circle)
    cancelled = [runner.submit(views.make, MIB) for _ in range(10)]
    await asyncio.sleep(0)
    for future in cancelled[::2]:
        future.cancel()
    await asyncio.wait(cancelled)
    await runner.run(views.drop_kept)


# Results of cancelled calls may lie about until the loop runs again.
options = arguments(warm_up=10, rounds=60, allowed=30)
with asyncio.Runner() as loop_runner, Runner(workers=1) as runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
