"""Calls that log and warn, and that context variables follow."""

import asyncio
import logging
import warnings

from measure import arguments, check

from aiointerpreters import Runner
from workfns import context, logs
from workfns.context import request_id


class Counter(logging.Handler):
    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


async def one_round() -> None:
    for number in range(20):
        request_id.set([number] * 100)
        assert await runner.run(context.seen) == ([number] * 100, "nobody")
        await runner.run(logs.log_many, "app", 10, "x" * 1_000)
        await runner.run(logs.log_extra, "app")
        await runner.run(logs.log_exception, "app")
        await runner.run(logs.warn_always, "again and again", 2)


counter = Counter()
logging.root.addHandler(counter)
warnings.simplefilter("ignore")
options = arguments(warm_up=20, rounds=100, allowed=4)
with asyncio.Runner() as loop_runner, Runner(workers=1, context=[request_id]) as runner:
    check(
        lambda: loop_runner.run(one_round()),
        warm_up=options.warm_up,
        rounds=options.rounds,
        allowed=options.allowed,
    )
assert counter.count > options.rounds * 20, counter.count
