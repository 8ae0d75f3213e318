"""Time limits that are over at the very moment at which a call begins, ends or is given up."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import Runner, _core
from helpers.forking import busy
from helpers.gate import Gate, Trace
from helpers.limits import SLOWNESS, SOON
from helpers.programs import Program
from workfns import control, values

PATIENT = 10 * SOON


@pytest.fixture(autouse=True)
def _watch(silent: Callable[[], None]) -> Callable[[], None]:
    return silent


def submit(
    runner: Runner,
    limits: tuple[float | None, float | None],
    fn: Callable[..., Any],
    *args: Any,
) -> asyncio.Future[Any]:
    """`limits`: timeout and deadline."""
    pool = runner._pool
    assert isinstance(pool, _core.Pool)
    return pool.submit_with(fn, args, {}, 0, *limits, None)


@pytest.mark.timeout(90 * SLOWNESS)
@pytest.mark.parametrize("which", ["timeout", "deadline", "both"])
def test_each_call_ends_once_with_its_result_or_a_time_out(
    which: str, silent: Callable[[], None]
) -> None:
    """Limits around the time that the calls take, which moves to where half of them are late."""
    dice = random.Random(13)
    outcomes: Counter[str] = Counter()
    callbacks = 0

    def count(_: object) -> None:
        nonlocal callbacks
        callbacks += 1

    async def main() -> None:
        silent()
        limit = 0.0005
        calls = 0
        end = time.monotonic() + 3
        async with Runner(workers=2, grace_period=PATIENT) as runner:
            while time.monotonic() < end:
                futures = []
                for _ in range(10):
                    late = limit * (0.5 + dice.random())
                    early = limit * (0.5 + dice.random())
                    limits = {
                        "timeout": (late, None),
                        "deadline": (None, late),
                        "both": (early, late),
                    }[which]
                    future = submit(runner, limits, values.echo, list(range(500)))
                    future.add_done_callback(count)
                    futures.append(future)
                untouched = runner.submit(values.square, 3)
                for future in futures:
                    calls += 1
                    try:
                        assert await future == list(range(500))
                    except TimeoutError as error:
                        named = "timeout" if "(timeout)" in str(error) else "deadline"
                        assert which in (named, "both")
                        outcomes[named] += 1
                        limit *= 1.02
                    else:
                        outcomes["result"] += 1
                        limit *= 0.98
                assert await untouched == 9
            assert runner.stats().started == 2
        assert callbacks == calls == outcomes.total()

    asyncio.run(main())
    assert outcomes["result"]
    assert outcomes["timeout"] or outcomes["deadline"]


@pytest.mark.timeout(90 * SLOWNESS)
def test_cancelling_as_the_time_is_over(silent: Callable[[], None]) -> None:
    dice = random.Random(17)

    async def main() -> None:
        silent()
        seen: set[type] = set()
        end = time.monotonic() + 2
        async with Runner(workers=2, grace_period=PATIENT) as runner:
            while time.monotonic() < end:
                limit = 0.001
                futures = [submit(runner, (None, limit), control.sleep_long) for _ in range(4)]
                await asyncio.sleep(limit * (0.5 + dice.random()))
                for future in futures:
                    future.cancel()
                for result in await asyncio.gather(*futures, return_exceptions=True):
                    assert isinstance(result, (TimeoutError, asyncio.CancelledError))
                    seen.add(type(result))
                assert await runner.run(values.square, 3) == 9
            assert runner.stats().started == 2
        assert seen

    asyncio.run(main())


def test_a_loop_may_be_closed_with_armed_limits(
    gate: Gate, trace: Trace, silent: Callable[[], None]
) -> None:
    """Some of them are over afterwards, when there is nobody to tell."""

    async def leave(runner: Runner) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        submit(runner, (0.005, 0.01), control.read_until, *gate.fds, trace.fd)
        for n in range(50):
            submit(runner, (None, 0.005), values.square, n)
            submit(runner, (1_000, 1_000), values.square, n)

    async def use(runner: Runner) -> None:
        silent()
        assert await submit(runner, (1_000, 1_000), values.square, 3) == 9
        with pytest.raises(TimeoutError):
            await submit(runner, (0.001, None), control.sleep_long)

    with Runner(workers=2) as runner, gate:
        for _ in range(5):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(leave(runner))
            loop.close()
        gate.open()
        asyncio.run(use(runner))


def test_a_runner_may_be_stopped_with_armed_limits(silent: Callable[[], None]) -> None:
    async def main() -> None:
        silent()
        for n in range(20):
            futures: list[asyncio.Future[Any]] = []
            with pytest.raises(LookupError):
                async with Runner(workers=1, grace_period=PATIENT) as runner:
                    futures += [submit(runner, (0.002, 0.02), control.sleep_long) for _ in "12"]
                    futures += [submit(runner, (1_000, 1_000), values.square, 3) for _ in "12"]
                    await asyncio.sleep(n * 0.0002)
                    raise LookupError
            for result in await asyncio.gather(*futures, return_exceptions=True):
                assert isinstance(result, (TimeoutError, asyncio.CancelledError))

    asyncio.run(main())


@busy
def test_a_process_may_fork_with_armed_limits(program: Program) -> None:
    ended = program("""
        import asyncio, os, sys, warnings
        from aiointerpreters import Runner, RunnerError
        from workfns import control, values

        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads

        async def use(runner):
            try:
                await runner._pool.submit_with(control.sleep_long, (), {}, 0, 0.01, None, None)
            except TimeoutError:
                print("timed out")

        async def main():
            runner = Runner(workers=1).start()
            call = runner._pool.submit_with(control.sleep_long, (), {}, 0, 0.2, 0.3, None)
            other = runner._pool.submit_with(values.square, (3,), {}, 0, 1000.0, 1000.0, None)
            await asyncio.sleep(0.01)
            child = os.fork()
            if child == 0:
                return True, None
            try:
                await call
            except TimeoutError:
                print("timed out")
            print(await other)
            await runner.aclose()
            return False, child

        with asyncio.Runner() as loop_runner:
            is_child, child = loop_runner.run(main())
            if is_child:
                with Runner(workers=1) as own:
                    new_loop = asyncio.new_event_loop()
                    new_loop.run_until_complete(use(own))
                sys.stdout.flush()
                os._exit(0)
            sys.stdout.flush()
            assert os.waitpid(child, 0)[1] == 0
    """)
    ended.assert_ended(0)
    assert sorted(ended.out.split("\n")) == ["", "9", "timed out", "timed out"]
