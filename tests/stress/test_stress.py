"""A random mixture of everything, in several loops and threads at once.

Each call has an outcome that is known beforehand, or was cancelled; each must end once, with
that outcome. A failure prints the seed; AIO_STRESS_SEED repeats it (as far as threads allow),
AIO_STRESS_SECONDS says how long to go on.
"""

import asyncio
import gc
import os
import random
import threading
import time
from typing import Any

import pytest
from plain import random_call

from aiointerpreters import BrokenRunner, Runner, RunnerError
from helpers.limits import SLOWNESS, SOON
from workfns import values, worker

SECONDS = float(os.environ.get("AIO_STRESS_SECONDS", "10"))
SEED = int(os.environ.get("AIO_STRESS_SEED") or random.SystemRandom().randrange(2**32))


class Round:
    """Some loops in some threads that share a runner, until somebody closes it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.runner = Runner(workers=self.dice.randrange(1, 5)).start()
        self.failures: list[str] = []
        self.ended = 0
        self.closed_in_the_middle = self.dice.random() < 0.5

    def play(self) -> None:
        threads = [
            threading.Thread(target=self.run_loop, args=(self.dice.randrange(2**32),))
            for _ in range(self.dice.randrange(1, 4))
        ]
        for thread in threads:
            thread.start()
        if self.closed_in_the_middle:
            self.dice.choice([self.close_soon, self.close_now])()
        for thread in threads:
            thread.join(SOON * 2)
            assert not thread.is_alive(), "a loop hangs"
        self.runner.close()
        assert not self.failures, self.failures[:5]

    def close_now(self) -> None:
        self.runner.close(cancel_pending=self.dice.random() < 0.5)

    def close_soon(self) -> None:
        threading.Event().wait(self.dice.random() * 0.02)
        self.close_now()

    def run_loop(self, seed: int) -> None:
        dice = random.Random(seed)
        try:
            for _ in range(dice.randrange(1, 4)):
                asyncio.run(self.use_runner(dice), debug=dice.random() < 0.3)
        except BaseException as error:
            self.failures.append(repr(error))

    async def use_runner(self, dice: random.Random) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.failures.append(str(context)))
        pending: list[asyncio.Task[None]] = []
        for _ in range(dice.randrange(1, 80)):
            pending.append(asyncio.create_task(self.one_call(random.Random(dice.random()))))
            if dice.random() < 0.3:
                await asyncio.sleep(0)
            if dice.random() < 0.05:
                await self.runner.drain()
        if dice.random() < 0.1:
            for _ in range(10):  # left behind when the loop closes
                try:
                    self.runner.submit(values.square, 1)
                except RunnerError:
                    break
        if dice.random() < 0.1:
            self.closed_in_the_middle = True
            await self.runner.aclose(cancel_pending=dice.random() < 0.5)
        _, late = await asyncio.wait(pending, timeout=SOON)
        if late:
            self.failures.append(f"{len(late)} calls never ended")
        for task in pending:
            if task.done() and task.exception():
                self.failures.append(repr(task.exception()))

    async def one_call(self, dice: random.Random) -> None:
        function, args, kwargs, expected = random_call(dice)
        cancelling = dice.random() < 0.3
        result: Any = None
        error: BaseException | None = None
        ends = 0
        try:
            if dice.random() < 0.5:
                call: asyncio.Future[Any] = asyncio.ensure_future(
                    self.runner.run(function, *args, **kwargs)
                )
            else:
                call = self.runner.submit(function, *args, **kwargs)
        except RunnerError as refused:
            error, ends = refused, 1
        else:

            def count(_: object) -> None:
                nonlocal ends
                ends += 1

            call.add_done_callback(count)
            if cancelling:
                for _ in range(dice.randrange(5)):
                    await asyncio.sleep(0)
                call.cancel()
            await asyncio.wait([call])
            await asyncio.sleep(0)
            if call.cancelled():
                error = asyncio.CancelledError()
            else:
                error = call.exception()
                result = None if error else call.result()
        if ends != 1:
            self.failures.append(f"{function} ended {ends} times")
        if isinstance(error, asyncio.CancelledError):
            if not cancelling and not self.closed_in_the_middle:
                self.failures.append(f"{function} was cancelled by nobody")
        elif type(error) is RunnerError and "clos" in str(error) and self.closed_in_the_middle:
            pass  # came too late
        elif not expected(result, error):
            self.failures.append(f"{function} {args!r:.100} gave {result!r:.100} {error!r}")
        self.ended += 1


@pytest.mark.timeout((SECONDS + 60) * SLOWNESS)
def test_each_call_ends_once_with_its_own_outcome() -> None:
    print(f"AIO_STRESS_SEED={SEED}")
    dice = random.Random(SEED)
    end = time.monotonic() + SECONDS * 0.7
    rounds = calls = 0
    while time.monotonic() < end or not rounds:
        one = Round(dice.randrange(2**32))
        one.play()
        rounds += 1
        calls += one.ended
    gc.collect()
    print(f"{rounds} rounds, {calls} calls")
    assert calls


@pytest.mark.timeout((SECONDS + 60) * SLOWNESS)
def test_starting_and_closing_at_random_moments() -> None:
    print(f"AIO_STRESS_SEED={SEED}")
    dice = random.Random(SEED)
    end = time.monotonic() + SECONDS * 0.3

    async def main() -> None:
        initializer = dice.choice([None, None, worker.prepare, worker.fail_to_prepare])
        runner = Runner(workers=dice.randrange(1, 5), initializer=initializer).start()
        calls = [asyncio.create_task(runner.run(values.square, n)) for n in range(5)]
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        match dice.randrange(4):
            case 0:
                runner.close(cancel_pending=dice.random() < 0.5)
                runner.close()
            case 1:
                closing = asyncio.create_task(runner.aclose())
                await asyncio.sleep(0)
                closing.cancel()
            case 2:
                await runner.aclose(cancel_pending=dice.random() < 0.5)
            case 3:
                await asyncio.to_thread(runner.close)
        got = await asyncio.gather(*calls, return_exceptions=True)
        for n, result in enumerate(got):
            if isinstance(result, BaseException):
                assert isinstance(result, (RunnerError, asyncio.CancelledError)), result
                broken = isinstance(result, BrokenRunner)
                assert not broken or initializer is worker.fail_to_prepare
            else:
                assert result == n * n
                assert initializer is not worker.fail_to_prepare
        await runner.aclose()

    rounds = 0
    while time.monotonic() < end or not rounds:
        asyncio.run(main())
        rounds += 1
    print(f"{rounds} rounds")
