"""The workers themselves: what they keep, how many there are, how they are renewed."""

from __future__ import annotations

import asyncio

from ledger import equals
from stage import Actor

from workfns import stress


async def count_in_workers(actor: Actor) -> None:
    """No call of a worker sees the same number; at the end of the act, none is missing."""
    dice, ledger, act = actor.dice, actor.ledger, actor.act
    name = dice.choice(["steady", "renewed", "elastic", "resized", "options"])
    runner = act.runners[name]
    most = 3 if name == "renewed" and act.max_tasks < 50 else 100
    calls = [
        ledger.call(
            "counting",
            runner.run(stress.count),
            ("count",),
            lambda result, error: error is None and result[1] > 0,
        )
        for _ in range(min(most, dice.choice([1, 20, 100])))
    ]
    for life, number in await asyncio.gather(*calls):
        if name == "renewed" and number > act.max_tasks:
            act.run.fail(f"call {number} of a worker with max_tasks={act.max_tasks}")
        with act.lives_lock:
            counts = act.lives.setdefault(life, [0, 0, 0])
            counts[0] += 1
            counts[1] = max(counts[1], number)
            counts[2] += number


async def recycle(actor: Actor) -> None:
    runner = actor.runner("resized", "resized", "options")
    done = runner.recycle()
    await actor.turns(5)
    if actor.dice.random() < 0.3:
        done.cancel()
        return
    n = actor.dice.randrange(100)
    await actor.ledger.call("recycling", runner.run(stress.double, n), ("double", n), equals(n + n))
    await done


async def resize(actor: Actor) -> None:
    runner = actor.runner("resized")
    runner.resize(actor.dice.randrange(1, 5))
    await actor.pause(0.1)


async def let_idle(actor: Actor) -> None:
    """So that workers end, and others have to be started."""
    dice, runner = actor.dice, actor.runner("elastic")
    for _ in range(5):
        n = dice.randrange(100)
        await actor.ledger.call(
            "elastic", runner.run(stress.double, n), ("double", n), equals(n + n)
        )
        await actor.pause(0.05)


async def look_at_stats(actor: Actor) -> None:
    for name, runner in actor.act.runners.items():
        stats = runner.stats()
        counts = [field for field in stats if isinstance(field, int)]
        if min(counts) < 0 or stats.queued > stats.pending or stats.replaced > stats.started:
            actor.act.run.fail(f"{name} counts {stats}")
        repr(runner)
    # Which can last as long as others call.
    waiting = asyncio.ensure_future(actor.runner().drain())
    await asyncio.wait([waiting], timeout=0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    if not waiting.cancelled():
        waiting.result()
