"""`map` and `stream`: to their end, left early, failing midway, cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from stage import Actor

from workfns import stress


class InputFails(Exception):
    pass


def inputs(numbers: range, fails: bool) -> Iterator[int]:
    yield from numbers
    if fails:
        raise InputFails


async def inputs_async(numbers: range, fails: bool) -> AsyncIterator[int]:
    for n in numbers:
        if n % 7 == 0:
            await asyncio.sleep(0)
        yield n
    if fails:
        raise InputFails


async def map_to_the_end(actor: Actor) -> None:
    await _map(actor, "map", leaves=False)


async def map_and_leave(actor: Actor) -> None:
    await _map(actor, "left map", leaves=True)


async def _map(actor: Actor, kind: str, leaves: bool) -> None:
    dice, ledger = actor.dice, actor.ledger
    numbers = range(dice.choice([0, 3, 50, 500]))
    is_ordered = dice.random() < 0.6
    input_fails, call_fails = dice.random() < 0.1, dice.random() < 0.1
    source = dice.choice([inputs, inputs_async])(numbers, input_fails)
    fails_at = dice.randrange(len(numbers) + 1) if call_fails else len(numbers)
    if fails_at < len(numbers):
        source = dice.choice([inputs, inputs_async])(range(-1, -len(numbers) - 1, -1), False)
        expected: list[int] = []
    else:
        expected = [2 * n for n in numbers]
    view = actor.options(actor.runner())
    results = view.map(
        stress.double_or_refuse,
        source,
        concurrency=dice.choice([None, None, 1, 4, 200]),
        ordered=is_ordered,
    )
    leaves_at = dice.randrange(len(numbers) + 1) if leaves else len(numbers) + 1
    got: list[int] = []
    failure = None
    try:
        if leaves and dice.random() < 0.5:
            async for result in results:  # and dropped, to be collected
                got.append(result)
                if len(got) > leaves_at:
                    break
        elif leaves and dice.random() < 0.5:
            await _cancel_midway(actor, results, got)
        else:
            async with contextlib.aclosing(results):
                async for result in results:
                    got.append(result)
                    if len(got) > leaves_at:
                        break
    except (InputFails, stress.Refused) as error:
        failure = error
    what = f"map({len(numbers)}, {is_ordered=}, {input_fails=}, {fails_at=}, {leaves=})"
    fits = got == expected[: len(got)] if is_ordered else set(got) <= set(expected)
    is_whole = len(got) == len(expected)
    if not fits or (not leaves and not is_whole):
        actor.act.run.fail(f"{what} gave {len(got)} results: {got[:20]}..., {failure!r}")
    if not leaves:
        wanted = stress.Refused if fails_at < len(numbers) else InputFails if input_fails else None
        if (failure and type(failure)) is not wanted:
            actor.act.run.fail(f"{what} ended with {failure!r}")
    ledger.begun += len(got)
    ledger.ended += len(got)
    ledger.kinds[kind] += len(got)


async def _cancel_midway(actor: Actor, results: Any, got: list[Any]) -> None:
    """Cancel the consumer."""

    async def consume() -> None:
        async for result in results:
            got.append(result)

    task = asyncio.create_task(consume())
    await actor.turns(30)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def stream_to_the_end(actor: Actor) -> None:
    await _stream(actor, leaves=False)


async def stream_and_leave(actor: Actor) -> None:
    await _stream(actor, leaves=True)


async def _stream(actor: Actor, leaves: bool) -> None:
    dice, ledger = actor.dice, actor.ledger
    number = dice.choice([0, 1, 100, 1_000])
    fails = dice.random() < 0.2
    flags = memoryview(bytearray(2))
    fn = dice.choice([stress.numbers, stress.numbers, stress.numbers_async])
    names = ("steady", "renewed", "elastic", "resized", "options")
    view = actor.options(actor.runner(*names)).options(buffer=dice.choice([1, 10, 128]))
    stream = view.stream(fn, number, fails, flags)
    got: list[int] = []
    failure = None
    leaves_at = dice.randrange(number + 1) if leaves else number + 1
    ledger.begin()
    try:
        if leaves and dice.random() < 0.3:
            await _cancel_midway(actor, stream, got)
        elif leaves and dice.random() < 0.3:
            async for item in stream:
                got.append(item)
                if len(got) > leaves_at:
                    break
        else:
            async with contextlib.aclosing(stream):
                async for item in stream:
                    got.append(item)
                    if len(got) > leaves_at:
                        break
                    if dice.random() < 0.01:
                        await actor.turns(3)
            # It was begun, and has been closed.
            if got and not flags[0]:
                actor.act.run.fail(f"{fn.__name__} was not closed after {len(got)} of {number}")
    except stress.Refused as error:
        failure = error
    ledger.end("stream")
    ledger.kinds["(items)"] += len(got)
    what = f"stream({fn.__name__}, {number}, {fails=}, {leaves=})"
    if got != list(range(len(got))) or (not leaves and len(got) != number):
        actor.act.run.fail(f"{what} gave {len(got)} items: {got[:20]}..., {failure!r}")
    if not leaves and (failure is not None) is not fails:
        actor.act.run.fail(f"{what} ended with {failure!r}")
    del stream
    if got:
        await actor.until(lambda: flags[0] == 1, f"{what} was not closed in the end")
