"""Calls with time limits: kept, missed while queued or running, met at the last moment; and given
up with their loop."""

import asyncio
import contextlib
import sys

from measure import arguments, check

from aiointerpreters import Runner, _core
from workfns import control, values

LONG = 1_000.0


def submit(
    pool: _core.Pool, timeout: float | None, deadline: float | None, fn: object, *args: object
) -> "asyncio.Future[object]":
    return pool.submit_with(fn, args, {}, 0, timeout, deadline, None)


async def one_round(pool: _core.Pool) -> None:
    kept = [submit(pool, LONG, LONG, values.square, n) for n in range(50)]
    kept += [submit(pool, LONG, None, values.square, n) for n in range(50)]
    met = [submit(pool, 0.0002, 0.001, control.sleep_at_least, 0.0002) for _ in range(20)]
    missed = [submit(pool, 0.001, None, control.sleep_long)]
    missed += [submit(pool, None, 0.002, control.sleep_long) for _ in range(3)]
    missed += [submit(pool, None, 0.0, values.square, n) for n in range(20)]
    cancelled = [submit(pool, LONG, LONG, values.square, n) for n in range(50)]
    for future in cancelled:
        future.cancel()
    for future in [*met, *missed]:
        with contextlib.suppress(TimeoutError):
            await future
    assert len(await asyncio.gather(*kept)) == 100


async def leave(pool: _core.Pool) -> None:
    for n in range(20):
        submit(pool, LONG, LONG, values.square, n)
        late = submit(pool, None, 0.0005, values.square, n)
        late.add_done_callback(lambda future: future.cancelled() or future.exception())


def rounds() -> None:
    loop_runner.run(one_round(pool))
    asyncio.run(leave(pool))


options = arguments(warm_up=40, rounds=200, allowed=4)
with asyncio.Runner() as loop_runner, Runner(workers=2, grace_period=60) as runner:
    pool = runner._pool
    assert pool is not None
    check(rounds, warm_up=options.warm_up, rounds=options.rounds, allowed=options.allowed)
    if runner.stats().started != 2:
        sys.exit(f"workers were replaced: {runner.stats()}")
