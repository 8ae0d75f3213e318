"""Coroutine functions in workers."""

from __future__ import annotations

import asyncio
from typing import Any

from ledger import Burst, equals, raises
from stage import Actor
from stopping import CANCELLED

from aiointerpreters import Queue
from workfns import coroutines, stress

#: Elsewhere asyncio would be imported over and over, which takes long.
LASTING = ("steady", "steady", "options", "resized")


async def coroutines_to_their_end(actor: Actor) -> None:
    dice, ledger = actor.dice, actor.ledger
    runner = actor.runner(*LASTING)
    calls = []
    for _ in range(dice.choice([1, 20, 60])):
        n = dice.randrange(2**40)
        match dice.randrange(6):
            case 0:
                calls.append(
                    ledger.call(
                        "coroutines",
                        runner.run(stress.refuse_async, n),
                        ("refuse_async", n),
                        raises(stress.Refused, n),
                    )
                )
            case 1:
                depth = dice.randrange(4)
                calls.append(
                    ledger.call(
                        "coroutines",
                        runner.run(stress.nest_async, n, depth),
                        ("nest_async", n, depth),
                        equals(n * 2**depth),
                    )
                )
            case _:
                turns = dice.choice([0, 0, 1, 10])
                calls.append(
                    ledger.call(
                        "coroutines",
                        runner.run(stress.double_async, n, turns),
                        ("double_async", n, turns),
                        equals(n + n),
                    )
                )
    await asyncio.gather(*calls)


async def many_coroutines(actor: Actor) -> None:
    dice = actor.dice
    submit = actor.runner("steady").submit
    burst = Burst(actor.ledger, "coroutines")
    for n in range(dice.choice([20, 200])):
        burst.submit(submit, stress.double_async, (n,), equals(n + n))
    await burst.all_ended()


async def cancel_coroutines(actor: Actor) -> None:
    dice = actor.dice
    runner = actor.runner("steady", "resized")
    burst = Burst(actor.ledger, "cancelled coroutines")
    results = {"sleep": "slept", "turn": "turned", "spin": "spun"}
    for _ in range(dice.choice([1, 10, 30])):
        way = dice.choice(list(results))
        seconds = dice.choice([1_000, 0.002 * dice.random()])
        flags = memoryview(bytearray(2))
        # What is cancelled while it computes is interrupted, and so may be its `finally`
        # if it does not end soon: then nothing is known of the second flag.
        if way != "spin":
            actor.act.flags.append((("coroutine", way, seconds), flags))
        burst.submit(
            runner.submit,
            stress.stay_async,
            (flags, way, seconds),
            equals(results[way]),
            allowed=CANCELLED,
        )
    await actor.pause(0.01)
    for future in burst.futures:
        future.cancel()
        await actor.turns(1)
    await burst.all_ended()


async def coroutine_time_limits(actor: Actor) -> None:
    dice, ledger = actor.dice, actor.ledger
    runner = actor.runner("steady")
    calls = []
    for _ in range(dice.choice([1, 10])):
        seconds = 0.002 * dice.random()
        limit = max(0, seconds + dice.uniform(-0.001, 0.001))
        name = dice.choice(["timeout", "deadline"])
        flags = memoryview(bytearray(2))
        actor.act.flags.append((("coroutine", seconds, name, limit), flags))
        view = runner.options(**{name: limit})
        calls.append(
            ledger.call(
                "coroutine time limits",
                view.run(stress.stay_async, flags, "sleep", seconds),
                ("stay_async", seconds, name, limit),
                equals("slept"),
                (TimeoutError,),
            )
        )
    await asyncio.gather(*calls)


async def coroutines_with_queues(actor: Actor) -> None:
    dice, ledger = actor.dice, actor.ledger
    runner = actor.runner("steady", "resized")
    source: Queue[Any] = Queue(dice.choice([0, 1, 5]))
    target: Queue[Any] = Queue(dice.choice([0, 1, 5]))
    number = dice.choice([0, 10, 100])
    call = asyncio.create_task(
        ledger.call(
            "queue servers",
            runner.run(stress.double_all_async, source, target),
            ("double_all_async", number),
            equals(number),
        )
    )

    async def put() -> None:
        for n in range(number):
            await source.aput(n)
        await source.aput(None)

    putting = asyncio.create_task(put())
    for n in range(number):
        item = await target.aget()
        if item != 2 * n:
            actor.act.run.fail(f"{item!r} came through the queue in place of {2 * n}")
    await putting
    await call


async def nested_runner(actor: Actor) -> None:
    runner = actor.runner("steady")
    await actor.ledger.call(
        "nested runner", runner.run(coroutines.run_a_runner), ("run_a_runner",), equals(42)
    )
