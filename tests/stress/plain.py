"""Plain calls, with values and errors of all kinds, by submit, run, wrap."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable
from typing import Any

from ledger import Burst, Outcome, equals, gives, raises
from stage import Actor

from aiointerpreters import InterpreterError, NotShareableError
from workfns import classes, failing, stress, values

type Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Outcome]


def random_value(dice: random.Random, depth: int = 3) -> Any:
    match dice.randrange(12 if depth else 7):
        case 0:
            return dice.randrange(-(2 ** dice.randrange(1, 200)), 2 ** dice.randrange(1, 200))
        case 1:
            return dice.random()
        case 2:
            return "".join(chr(dice.randrange(0x11000)) for _ in range(dice.randrange(20)))
        case 3:
            return dice.randbytes(dice.choice([0, 5, 500, 500, 50_000]))
        case 4:
            return dice.choice([None, True, False, (), "", 0])
        case 5:
            return classes.Point(dice.randrange(10))
        case 6:
            return memoryview(bytearray(dice.randbytes(dice.choice([1, 100, 10_000]))))
        case 7 | 8:
            return [random_value(dice, depth - 1) for _ in range(dice.randrange(5))]
        case 9:
            return tuple(random_value(dice, depth - 1) for _ in range(dice.randrange(5)))
        case 10:
            return {n: random_value(dice, depth - 1) for n in range(dice.randrange(5))}
        case _:
            return {dice.random() for _ in range(dice.randrange(5))}


def random_call(dice: random.Random) -> Call:
    match dice.randrange(20):
        case 0:
            return failing.divide_by_zero, (), {}, raises(ZeroDivisionError)
        case 1:
            return failing.throw, (failing.Own(1),), {}, raises(failing.Own, 1)
        case 2:
            return values.lock, (), {}, raises(NotShareableError)
        case 3:
            argument = [random_value(dice), values.lock()]
            return values.echo, (argument,), {}, raises(NotShareableError)
        case 4:
            return failing.exit_with, (3,), {}, raises(InterpreterError)
        case 5:
            number = dice.randrange(5)
            return (lambda: number), (), {}, gives(number)
        case 6:
            return failing.raise_group, (), {}, raises(ExceptionGroup)
        case 7:
            number = dice.randrange(3_000)
            return values.total, (list(range(number)),), {}, gives(sum(range(number)))
        case 8:
            return classes.move, (classes.Point(1),), {"by": 5}, gives(classes.Point(6, 5))
        case 9:
            return failing.raise_with_causes, (), {}, raises(ValueError, "the top")
        case 10:
            outcome = raises(failing.BrokenReduce, "broken")
            return failing.raise_broken, ("BrokenReduce",), {}, outcome
        case 11:
            held = [dice.randrange(5)]  # which can change: the pickle is made for each call
            return functools.partial(lambda a, b: [*held, a, b], 1), (2,), {}, gives([*held, 1, 2])
        case _:
            value = random_value(dice)
            return values.echo, (value,), {}, gives(value)


#: So many calls are made up beforehand, which takes longer than to call.
REPERTOIRE = [random_call(random.Random(n)) for n in range(400)]


async def many_small_calls(actor: Actor) -> None:
    dice = actor.dice
    steady, renewed = actor.act.runners["steady"], actor.act.runners["renewed"]
    runner = actor.runner("elastic", "renewed") if dice.random() < 0.1 else steady
    submit = actor.options(runner).submit
    burst = Burst(actor.ledger, "small")
    # To start a worker takes as long as some thousands of calls.
    for _ in range(dice.choice([10, 40]) if runner is renewed else dice.choice([10, 100, 500])):
        number = dice.randrange(2**70)
        burst.submit(submit, stress.double, (number,), equals(number + number))
    await burst.all_ended()


async def some_small_calls(actor: Actor) -> None:
    runner = actor.runner()
    numbers = range(actor.dice.choice([1, 10, 50]))
    results = asyncio.gather(
        *(
            actor.ledger.call("run", runner.run(stress.double, n), ("double", n), equals(n + n))
            for n in numbers
        )
    )
    if await results != [n + n for n in numbers]:
        actor.act.run.fail("results came in another order")


async def calls_of_all_kinds(actor: Actor) -> None:
    dice, ledger = actor.dice, actor.ledger
    runner = actor.options(actor.runner())
    for _ in range(dice.randrange(1, 6)):
        calls = []
        for _ in range(dice.choice([1, 5, 30])):
            fn, args, kwargs, outcome = dice.choice(REPERTOIRE)
            if dice.random() < 0.5 or isinstance(fn, functools.partial):
                call = runner.run(fn, *args, **kwargs)
            else:
                call = runner.wrap(fn)(*args, **kwargs)
            calls.append(ledger.call("all kinds", call, (fn, args, kwargs), outcome))
        await asyncio.gather(*calls)


async def submitted_calls_of_all_kinds(actor: Actor) -> None:
    dice = actor.dice
    submit = actor.options(actor.runner("steady", "renewed", "elastic", "resized")).submit
    burst = Burst(actor.ledger, "all kinds")
    for _ in range(dice.choice([10, 50])):
        fn, args, kwargs, outcome = dice.choice(REPERTOIRE)
        burst.submit(submit, fn, args, outcome, kwargs=kwargs)
    await burst.all_ended()
