"""Calls that are cancelled, or run out of time, at any moment of their life."""

from __future__ import annotations

import asyncio
from typing import Any

from ledger import Burst, equals
from stage import Actor

from aiointerpreters import Queue, RunnerFull
from workfns import stress

CANCELLED = (asyncio.CancelledError,)
RESULTS = {"spin": "spun", "sleep": "slept", "compute_in_c": "computed", "nap_often": "napped"}


async def cancel_small_calls(actor: Actor) -> None:
    """Queued ones, those that run just now, and those whose results are on their way."""
    dice = actor.dice
    submit = actor.runner("steady", "renewed", "elastic", "resized", "impatient").submit
    burst = Burst(actor.ledger, "cancelled")
    for n in range(dice.choice([5, 50, 200])):
        burst.submit(submit, stress.double, (n,), equals(n + n), allowed=CANCELLED)
    await actor.turns(10)
    for future in dice.sample(burst.futures, len(burst.futures) * dice.randrange(1, 4) // 3):
        future.cancel()
        if dice.random() < 0.02:
            await asyncio.sleep(0)
    await burst.all_ended()


async def cancel_tasks(actor: Actor) -> None:
    dice, ledger = actor.dice, actor.ledger
    runner = actor.runner()
    burst = Burst(ledger, "cancelled")
    for n in range(dice.choice([1, 20])):
        task = asyncio.create_task(runner.run(stress.double, n))
        burst.add(task, ("double", n), equals(n + n), CANCELLED)
        ledger.begin()
    await actor.turns(20)
    for task in dice.sample(burst.futures, len(burst.futures) // 2 + 1):
        task.cancel()
    await burst.all_ended()


async def interrupt_running_calls(actor: Actor) -> None:
    """Whatever begins comes to its `finally`; which the end of the act checks."""
    dice = actor.dice
    runner = actor.runner("steady", "renewed", "elastic", "resized", "impatient")
    burst = Burst(actor.ledger, "interrupted")
    for _ in range(dice.choice([1, 1, 3])):
        way = dice.choice(list(RESULTS))
        flags = memoryview(bytearray(2))
        # What doesn't end by itself in the time until it is cancelled, and what may.
        seconds = dice.choice([1_000, 0.005 * dice.random()])
        future = burst.submit(
            runner.submit,
            stress.stay_until_told,
            (flags, way, seconds),
            equals(RESULTS[way]),
            allowed=CANCELLED,
        )
        if runner is not actor.act.runners["impatient"]:
            # Where there is next to no grace, an interruption may hit the very `finally`.
            actor.act.flags.append(((way, seconds), flags))
    await actor.pause(0.02)
    for future in burst.futures:
        future.cancel()
        await actor.turns(2)
    await burst.all_ended()


async def cancel_waits_for_queues(actor: Actor) -> None:
    dice = actor.dice
    queue: Queue[Any] = Queue()
    burst = Burst(actor.ledger, "queue waits")
    runner = actor.runner("steady", "renewed", "elastic")
    for _ in range(dice.choice([1, 3])):
        seconds = dice.choice([0.001, 0.01])
        burst.submit(
            runner.submit,
            stress.wait_for_an_item,
            (queue, seconds),
            lambda result, error: error is None and result in ("one came", "none came"),
            allowed=CANCELLED,
        )
    await actor.pause(0.01)
    for future in burst.futures:
        match dice.randrange(3):
            case 0:
                future.cancel()
            case 1:
                queue.put(1)
            case _:
                await actor.turns(3)
    await burst.all_ended()


async def get_stuck(actor: Actor) -> None:
    """Work that can't be interrupted, whose worker is replaced, and which does end."""
    dice = actor.dice
    runner = actor.runner("impatient")
    burst = Burst(actor.ledger, "stuck")
    fn, result = dice.choice([(stress.swallow, "swallowed"), (stress.stop_when_asked, "not asked")])
    for _ in range(dice.choice([1, 1, 2])):
        seconds = 0.05 * dice.random()
        outcome = equals(result)
        burst.submit(runner.submit, fn, (seconds,), outcome, allowed=CANCELLED)
    await actor.pause(0.03)
    for future in burst.futures:
        future.cancel()
    await burst.all_ended()
    n = dice.randrange(100)
    await actor.ledger.call(
        "after stuck", runner.run(stress.double, n), ("double", n), equals(n + n)
    )


async def time_limits(actor: Actor) -> None:
    """That pass around the very moment at which the call ends, long before, long after."""
    dice, ledger = actor.dice, actor.ledger
    runner = actor.runner()
    calls = []
    for _ in range(dice.choice([1, 5])):
        way = dice.choice(list(RESULTS))
        seconds = dice.choice([0, 0.001, 0.003])
        about = max(0.0, seconds + dice.uniform(-0.0005, 0.0005))
        limit = dice.choice([about, about, about, 0, 0.0001, 0.02])
        name = dice.choice(["timeout", "deadline", "asyncio"])
        flags = memoryview(bytearray(2))
        if runner is not actor.act.runners["impatient"]:
            actor.act.flags.append(((way, seconds, name, limit), flags))
        args = (flags, way, seconds)

        def is_as_expected(
            result: Any, error: BaseException | None, way: str = way, name: str = name
        ) -> bool:
            if error is None:
                return bool(result == RESULTS[way])
            if name == "asyncio":
                return type(error) is TimeoutError
            return type(error) is TimeoutError and f"({name})" in str(error)

        async def limited(args: Any = args, name: str = name, limit: float = limit) -> Any:
            if name == "asyncio":
                async with asyncio.timeout(limit):
                    return await runner.run(stress.stay_until_told, *args)
            view = runner.options(**{name: limit})
            return await view.run(stress.stay_until_told, *args)

        what = ("stay_until_told", way, seconds, name, limit)
        calls.append(ledger.call("time limits", limited(), what, is_as_expected))
    await asyncio.gather(*calls)


async def small_time_limits(actor: Actor) -> None:
    dice = actor.dice
    runner = actor.runner("steady", "elastic", "renewed")
    burst = Burst(actor.ledger, "time limits")
    deadline = dice.choice([0, 0.0001, 0.001])
    view = runner.options(deadline=deadline, priority=dice.randrange(-1, 2))
    for n in range(100):
        burst.submit(view.submit, stress.double, (n,), equals(2 * n), allowed=(TimeoutError,))
    await burst.all_ended()


async def more_than_max_pending(actor: Actor) -> None:
    dice, ledger = actor.dice, actor.ledger
    runner = actor.runner("options")
    burst = Burst(ledger, "max_pending")
    for n in range(dice.choice([5, 400])):
        burst.submit(
            actor.options(runner).submit,
            stress.double,
            (n,),
            equals(2 * n),
            refused=(RunnerFull,),
        )
    tasks = Burst(ledger, "max_pending")
    for n in range(dice.choice([5, 50])):
        view = runner.options(deadline=0.001) if dice.random() < 0.1 else runner
        ledger.begin()
        allowed = (asyncio.CancelledError, TimeoutError)
        tasks.add(
            asyncio.create_task(view.run(stress.double, n)), ("double", n), equals(2 * n), allowed
        )
    await actor.turns(10)
    for task in dice.sample(tasks.futures, len(tasks.futures) // 3):
        task.cancel()
    await burst.all_ended()
    await tasks.all_ended()
