"""What is not copied: queues, shared values, memoryviews."""

from __future__ import annotations

import asyncio
from typing import Any

from ledger import Burst, equals
from stage import Actor

from aiointerpreters import Queue, QueueFull, QueueShutDown, Shared
from workfns import queues, stress, values


async def queue_through_a_thread(actor: Actor) -> None:
    """From a loop to a plain thread and back."""
    dice = actor.dice
    source: Queue[Any] = Queue(dice.choice([0, 1, 5]))
    target: Queue[Any] = Queue(dice.choice([0, 1, 5]))
    actor.act.jobs.put(lambda: stress.double_all(source, target))
    await _send_through(actor, source, target, dice.choice([1, 20, 200]))


async def queue_through_a_worker(actor: Actor) -> None:
    dice, ledger = actor.dice, actor.ledger
    source: Queue[Any] = Queue(dice.choice([0, 1, 5]))
    target: Queue[Any] = Queue(dice.choice([0, 1, 5]))
    number = dice.choice([0, 20, 200])
    runner = actor.runner("steady", "renewed", "elastic", "resized")
    call = asyncio.create_task(
        ledger.call(
            "queue servers",
            runner.run(stress.double_all, source, target),
            ("double_all", number),
            equals(number),
        )
    )
    await _send_through(actor, source, target, number)
    await call


async def _send_through(actor: Actor, source: Any, target: Any, number: int) -> None:
    dice = actor.dice

    async def put() -> None:
        for n in range(number):
            match dice.randrange(4):
                case 0:
                    try:
                        source.put_nowait(n)
                    except QueueFull:
                        await source.aput(n)
                case 1:
                    task = asyncio.create_task(source.aput(n))
                    await actor.turns(3)
                    task.cancel()
                    await asyncio.wait([task])
                    if task.cancelled():
                        await source.aput(n)
                case _:
                    await source.aput(n)
        await source.aput(None)

    putting = asyncio.create_task(put())
    n = 0
    while n < number:
        if dice.random() < 0.1:
            task = asyncio.create_task(target.aget())
            await actor.turns(3)
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                continue
            item = task.result()
        else:
            item = await target.aget()
        if item != 2 * n:
            actor.act.run.fail(f"{item!r} came through the queue in place of {2 * n}")
        n += 1
    await putting
    actor.ledger.kinds["(items)"] += number


async def queue_that_is_shut_down(actor: Actor) -> None:
    """While workers and coroutines wait in it."""
    dice, ledger = actor.dice, actor.ledger
    queue: Queue[Any] = Queue()
    items = [dice.randrange(1_000) for _ in range(dice.randrange(50))]
    runner = actor.runner("steady", "renewed")
    calls = [
        asyncio.create_task(
            ledger.call(
                "queue takers",
                runner.run(queues.take_all, queue),
                ("take_all", len(items)),
                lambda result, error: error is None,
            )
        )
        for _ in range(dice.choice([1, 2, 4]))
    ]

    async def take() -> list[Any]:
        taken = []
        try:
            while True:
                taken.append(await queue.aget())
        except QueueShutDown:
            return taken

    takers = [asyncio.create_task(take()) for _ in range(2)]
    for item in items:
        queue.put(item)
        await actor.turns(1)
    queue.shutdown()
    got = [item for taken in await asyncio.gather(*calls, *takers) for item in taken]
    if sorted(got) != sorted(items):
        actor.act.run.fail(f"{len(items)} items were put, {len(got)} were taken")


async def shared_values(actor: Actor) -> None:
    dice = actor.dice
    table: Any = {n: dice.randrange(1_000) for n in range(dice.choice([1, 100, 1_000]))}
    shared = Shared(table)
    burst = Burst(actor.ledger, "shared")
    for _ in range(dice.choice([1, 2, 3])):
        runner = actor.runner("steady", "renewed", "elastic", "resized", "impatient")
        for _ in range(dice.choice([1, 10, 50])):
            key = dice.randrange(len(table))
            burst.submit(runner.submit, stress.look_up, (shared, key), equals(table[key]))
    del shared
    await burst.all_ended()


async def views_to_workers(actor: Actor) -> None:
    dice, ledger = actor.dice, actor.ledger
    runner = actor.runner("steady", "renewed", "elastic", "resized")
    for _ in range(dice.randrange(1, 10)):
        memory = bytearray(dice.choice([1, 1_000, 100_000]))
        byte = dice.randrange(256)
        with memoryview(memory) as view:
            await ledger.call(
                "views",
                runner.run(stress.fill, view, byte),
                ("fill", len(memory), byte),
                equals(len(memory)),
            )
        if memory.count(byte) != len(memory):
            actor.act.run.fail("a view was not filled")


async def views_of_workers(actor: Actor) -> None:
    """Some are kept, and others that were kept before are looked at and dropped."""
    dice, ledger, kept = actor.dice, actor.ledger, actor.act.views
    runner = actor.runner("steady", "renewed", "elastic", "resized", "impatient")
    for _ in range(dice.randrange(1, 10)):
        size, byte = dice.choice([1, 1_000, 50_000]), dice.randrange(256)
        view = await ledger.call(
            "views",
            runner.run(stress.lend, size, byte),
            ("lend", size, byte),
            lambda result, error, size=size: error is None and len(result) == size,
        )
        kept.append((view, byte))
    for view, byte in list(kept[-20:]):
        if bytes(view) != bytes([byte]) * len(view):
            actor.act.run.fail(f"a view of {len(view)} times {byte} has changed")
    del view
    del kept[: max(0, len(kept) - dice.choice([0, 20, 50]))]


async def large_values(actor: Actor) -> None:
    dice, ledger = actor.dice, actor.ledger
    runner = actor.runner("steady", "resized")
    size = dice.choice([40_000, 600_000, 2_000_000])
    value = dice.choice([bytes(size), "x" * size, bytearray(size)])
    call = runner.run(values.echo, value)
    await ledger.call("large", call, ("echo", type(value), size), equals(value))
