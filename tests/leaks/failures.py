"""Tasks fail, in every way."""

import asyncio

from measure import arguments, check

from aiointerpreters import Runner
from workfns import classes, failing, values

LOCK = values.lock()
FAILING = [
    (failing.divide_by_zero, ()),
    (failing.raise_with_causes, ()),
    (failing.raise_with_notes, ()),
    (failing.raise_group, ()),
    (failing.raise_holding_a_lock, ()),
    (failing.raise_two_arguments, ()),
    (failing.raise_broken, ("BrokenEverything",)),
    (failing.raise_broken, ("BrokenWhenRebuilt",)),
    (failing.exit_with, (3,)),
    (failing.interrupt, ()),
    (values.unsendable_deep_inside, ()),
    (classes.raising_when_rebuilt, ()),
    (values.square, ()),
    (values.echo, ([bytes(1_000), classes.Point(1), values.lock()],)),
    (values.echo, (classes.RaisesWhenRebuilt(),)),
    (values.asynchronous_generator, ()),
    (lambda held=LOCK: held, ()),
]


async def one_round() -> None:
    for function, args in FAILING:
        try:
            await runner.run(function, *args)
        except Exception:
            pass
        else:
            raise AssertionError(f"{function} did not fail")


options = arguments(warm_up=100, rounds=600, allowed=4)
with asyncio.Runner() as loop_runner, Runner(workers=1) as runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
