"""Workers are replaced: after a call each, by recycling, by idling out, by resizing. Two or more in
each round."""

import asyncio

from measure import arguments, check

from aiointerpreters import Runner
from helpers.process import until
from workfns import values


async def one_round() -> None:
    assert await renewing.run(values.square, 3) == 9
    await recycled.recycle()
    assert await recycled.run(values.square, 3) == 9
    assert await elastic.run(values.square, 3) == 9
    await asyncio.sleep(0)
    recycled.resize(2)
    recycled.resize(1)
    for runner in (renewing, recycled):
        assert await until(lambda: runner.stats().retiring == 0)  # noqa: B023
    stats = elastic.stats
    assert await until(lambda: sum(stats()[3:7]) == 0)


options = arguments(warm_up=10, rounds=60, allowed=6)
with asyncio.Runner() as loop_runner:
    with (
        Runner(workers=1, max_tasks_per_worker=1) as renewing,
        Runner(workers=1) as recycled,
        Runner(workers=1, min_workers=0, idle_timeout=0.001) as elastic,
    ):
        check(
            lambda: loop_runner.run(one_round()),
            warm_up=options.warm_up,
            rounds=options.rounds,
            allowed=options.allowed,
        )
