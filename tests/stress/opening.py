"""Runners that live but shortly, and end in every way."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

from ledger import Burst, Ledger, equals, raises
from stage import Actor
from stopping import RESULTS

from aiointerpreters import BrokenRunner, Runner, RunnerError
from workfns import stress, worker

#: How calls may end in a runner that somebody else closes.
CLOSED = (asyncio.CancelledError, RunnerError)


class Leaves(Exception):
    """Leaves a block."""


def short_runner(dice: random.Random, **more: Any) -> Runner:
    options: dict[str, Any] = {"workers": dice.choice([1, 1, 2, 3]), "grace_period": 0.05}
    if dice.random() < 0.3:
        options |= {"min_workers": 0, "idle_timeout": dice.choice([0, 0.001])}
    if dice.random() < 0.3:
        options |= {"max_tasks_per_worker": dice.choice([1, 3])}
    if dice.random() < 0.3:
        options |= {"max_pending": dice.choice([1, 5])}
    if dice.random() < 0.3:
        options |= {"initializer": worker.prepare, "initargs": (1,), "preload": ["json"]}
    if dice.random() < 0.2:
        options |= {"logging": False}
    return Runner(**(options | more))


def some_calls(
    actor: Actor, ledger: Ledger, runner: Runner, allowed: tuple[type[BaseException], ...]
) -> Burst:
    dice = actor.dice
    burst = Burst(ledger, "short-lived")
    for _ in range(dice.randrange(12)):
        match dice.randrange(4):
            case 0:
                way, seconds = dice.choice(list(RESULTS)), 0.01 * dice.random()
                call = runner.run(stress.STOPPABLE[way], seconds)
                what, outcome = (way, seconds), equals(RESULTS[way])
            case 1 if dice.random() < 0.2:
                n = dice.randrange(100)
                call = runner.run(stress.double_async, n)
                what, outcome = ("double_async", n), equals(n + n)
            case 2:
                n = dice.randrange(100)
                call = runner.run(stress.refuse, n)
                what, outcome = ("refuse", n), raises(stress.Refused, n)
            case _:
                n = dice.randrange(100)
                call = runner.run(stress.double, n)
                what, outcome = ("double", n), equals(n + n)
        ledger.begin()
        burst.add(asyncio.create_task(call), what, outcome, allowed)
    return burst


async def open_and_close(actor: Actor) -> None:
    await _open_and_close(actor, actor.ledger)


async def _open_and_close(actor: Actor, ledger: Ledger) -> None:
    """Leaving the block lets all that was accepted finish."""
    dice = actor.dice
    async with short_runner(dice) as runner:
        burst = some_calls(actor, ledger, runner, ())
        match dice.randrange(3):
            case 0:
                await burst.all_ended()
            case 1:
                # Each is accepted, once it need not wait for a slot.
                await actor.turns(3)
                if runner.max_pending is not None:
                    await burst.all_ended()
                await asyncio.sleep(0)
                await runner.drain()
            case _:
                await asyncio.sleep(0)
                if runner.max_pending is not None:
                    await burst.all_ended()
    await burst.all_ended()


async def leave_by_an_exception(actor: Actor) -> None:
    dice = actor.dice
    try:
        async with short_runner(dice) as runner:
            burst = some_calls(actor, actor.ledger, runner, CLOSED)
            await actor.pause(0.02)
            await actor.turns(3)
            raise Leaves
    except Leaves:
        pass
    await burst.all_ended()
    stats = runner.stats()
    if stats.pending > stats.stuck:  # what can't be stopped is still to end
        actor.act.run.fail(f"closed, but {stats}")


async def close_in_other_ways(actor: Actor) -> None:
    dice = actor.dice
    runner = short_runner(dice).start()
    burst = some_calls(actor, actor.ledger, runner, CLOSED)
    await actor.turns(5)
    match dice.randrange(5):
        case 0:
            runner.close(cancel_pending=dice.random() < 0.5)
            runner.close()
        case 1:
            closing = asyncio.create_task(runner.aclose())
            await actor.turns(2)
            closing.cancel()
            await asyncio.wait([closing])
        case 2:
            await runner.aclose(cancel_pending=dice.random() < 0.5)
        case 3:
            await asyncio.to_thread(runner.close)
        case _:
            done = asyncio.get_running_loop().create_future()
            loop = asyncio.get_running_loop()

            def close() -> None:
                runner.close(cancel_pending=True)
                loop.call_soon_threadsafe(done.set_result, None)

            actor.act.jobs.put(close)
            await done
    await burst.all_ended()
    await runner.aclose()


async def broken(actor: Actor) -> None:
    """All calls fail: those that wait already, and those that come later."""
    dice = actor.dice
    n = dice.randrange(100)
    options = dice.choice(
        [{"initializer": stress.fail_to_start, "initargs": (n,)}, {"preload": ["no_such_module"]}]
    )
    runner = short_runner(dice, **({"initializer": None, "preload": ()} | options)).start()
    burst = Burst(actor.ledger, "broken")
    for _ in range(dice.randrange(1, 5)):
        actor.ledger.begin()
        call = asyncio.create_task(runner.run(stress.double, 1))
        burst.add(call, ("double", 1), raises(BrokenRunner))
        await actor.turns(1)
    await burst.all_ended()
    await runner.aclose()


# ---- in a plain thread ----


def lose_a_loop(actor: Actor) -> None:
    """A loop is closed while its calls are pending; they run, and nobody is told."""
    dice = actor.dice

    async def main() -> None:
        for name in ("steady", "renewed", "elastic", "impatient"):
            runner = actor.act.runners[name]
            for _ in range(dice.randrange(10)):
                runner.submit(stress.double, 1)
            if dice.random() < 0.3:
                runner.submit(stress.sleep, 0.002)
            if dice.random() < 0.1:
                late = runner.options(deadline=0.001).submit(stress.sleep, 0.002)
                late.add_done_callback(lambda late: late.cancelled() or late.exception())
        if dice.random() < 0.2:
            actor.act.runners["steady"].submit(stress.double_async, 1)
        await actor.turns(3)

    asyncio.run(main())


def use_a_short_loop(actor: Actor) -> None:
    dice, ledger = actor.dice, actor.ledger

    async def main() -> None:
        runner = actor.runner()
        calls = [
            ledger.call("short loops", runner.run(stress.double, n), ("double", n), equals(n + n))
            for n in range(dice.choice([1, 20]))
        ]
        await asyncio.gather(*calls)

    asyncio.run(main())


def open_and_close_in_a_thread(actor: Actor) -> None:
    dice, ledger = actor.dice, actor.ledger

    async def main(runner: Runner) -> None:
        n = dice.randrange(100)
        await ledger.call("short-lived", runner.run(stress.double, n), ("double", n), equals(n + n))
        if dice.random() < 0.5:
            runner.submit(stress.sleep, 0.01 * dice.random())  # nobody is told

    try:
        with short_runner(dice).start() as runner:
            asyncio.run(main(runner))
            if dice.random() < 0.5:
                raise Leaves
    except Leaves:
        pass


def open_a_loop_for_runners(actor: Actor) -> None:
    asyncio.run(_open_and_close(actor, actor.ledger))


def close_at_once(actor: Actor) -> None:
    runner = short_runner(actor.dice).start()
    threading.Event().wait(actor.dice.choice([0, 0.005]))
    runner.close(cancel_pending=True)
