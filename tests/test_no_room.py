"""The system has no room for another thread."""

from textwrap import dedent

import pytest

from helpers.process import LINUX
from helpers.programs import Ended, Program

pytestmark = pytest.mark.skipif(not LINUX, reason="limits threads as Linux does")

PREAMBLE = """\
import asyncio, os, sys
from aiointerpreters import Runner, RunnerError
from helpers import thread_limit
from helpers.gate import Gate
from helpers.process import until
from workfns import control, coroutines, values

GRACE = 0.3  # long enough to take the room for threads away, once those that watch are there

thread_limit.prepare()
if not thread_limit.is_effective():
    print("no limit")
    sys.exit()

async def get_stuck(runner, gate, call):
    await gate.reached()
    call.cancel()
    thread_limit.allow(False)
    assert await until(lambda: runner.stats().stuck == 1)

"""


def run(program: Program, source: str) -> Ended:
    ended = program(PREAMBLE + dedent(source))
    ended.assert_ended()
    if ended.out == "no limit\n":
        pytest.skip("threads can't be limited here")
    return ended


def test_a_call_whose_limits_nobody_could_enforce_is_refused(program: Program) -> None:
    run(
        program,
        """
        async def main():
            async with Runner(workers=1) as runner:
                assert await runner.run(values.square, 3) == 9
                thread_limit.allow(False)
                for limit in ("timeout", "deadline"):
                    limited = runner.options(**{limit: 1000.0})
                    for function in (values.square, coroutines.echo):
                        try:
                            limited.submit(function, 4)
                        except RunnerError as error:
                            assert "no room for the thread that enforces" in str(error), error
                        else:
                            raise AssertionError(limit)
                await runner.drain()
                assert await runner.run(values.square, 4) == 16
                thread_limit.allow(True)
                for limit in ("timeout", "deadline"):
                    assert await runner.options(**{limit: 1000.0}).run(values.square, 5) == 25

        asyncio.run(main())
        """,
    )


@pytest.mark.parametrize("at_first", [True, False])
def test_recycling_fails_where_no_successor_can_be_started(
    at_first: bool, program: Program
) -> None:
    run(
        program,
        f"""
        announced, announce = os.pipe()

        async def main():
            runner = Runner(workers=2, initializer=control.prepare_with_index, initargs=(announce,))
            async with runner:
                assert await runner.run(values.square, 3) == 9
                assert await until(lambda: runner.stats().idle == 2)
                os.read(announced, 2)
                if not {at_first}:
                    recycled = runner.recycle()
                    os.read(announced, 1)  # one has come
                thread_limit.allow(False)
                if {at_first}:
                    recycled = runner.recycle()
                try:
                    await recycled
                except RunnerError as error:
                    assert "not all workers were replaced" in str(error), error
                else:
                    # The second one was quicker.
                    assert not {at_first} and runner.stats().started == 4
                for n in range(10):
                    assert await runner.run(values.square, n) == n * n
                assert await until(lambda: runner.stats().idle == 2)
                thread_limit.allow(True)
                before = runner.stats().started
                await runner.recycle()
                assert runner.stats().started == before + 2

        asyncio.run(main())
        """,
    )


def test_queued_calls_are_run_by_a_stuck_worker_that_could_not_be_replaced(
    program: Program,
) -> None:
    ended = run(
        program,
        """
        async def main():
            async with Runner(workers=1, grace_period=GRACE) as runner:
                gate = Gate()
                call = runner.submit(control.read_until, *gate.fds, 1)
                queued = [runner.submit(values.square, n) for n in range(5)]
                await get_stuck(runner, gate, call)
                gate.open()
                assert await asyncio.gather(*queued) == [0, 1, 4, 9, 16]
                # It has come back for good.
                assert await runner.run(values.square, 7) == 49
                thread_limit.allow(True)
                assert await runner.run(coroutines.echo, 8) == 8
                assert (runner.stats().started, runner.stats().stuck) == (1, 0)

        asyncio.run(main())
        """,
    )
    assert "no room for another one in its place" in ended.err


def test_or_by_another_one_as_soon_as_there_is_room(program: Program) -> None:
    run(
        program,
        """
        async def main():
            async with Runner(workers=1, grace_period=GRACE) as runner:
                gate = Gate()
                with gate:
                    call = runner.submit(control.read_until, *gate.fds, 1)
                    queued = [runner.submit(values.square, n) for n in range(5)]
                    await get_stuck(runner, gate, call)
                    thread_limit.allow(True)
                    assert await asyncio.gather(*queued) == [0, 1, 4, 9, 16]
                    assert (runner.stats().started, runner.stats().stuck) == (2, 1)
                assert await until(lambda: runner.stats().stuck == 0)

        asyncio.run(main())
        """,
    )


def test_calls_for_which_no_worker_is_left_fail(program: Program) -> None:
    run(
        program,
        """
        async def main():
            async with Runner(workers=1, concurrency=1, grace_period=GRACE) as runner:
                gate = Gate()
                call = runner.submit(coroutines.stay_in_c, *gate.fds)
                queued = [runner.submit(coroutines.echo, n) for n in range(5)]
                await get_stuck(runner, gate, call)
                gate.open()
                for one in await asyncio.gather(*queued, return_exceptions=True):
                    assert isinstance(one, RunnerError), one
                    assert "the runner has no worker" in str(one), one
                try:
                    runner.submit(values.square, 3)
                except RunnerError as error:
                    assert "no room" in str(error), error
                else:
                    raise AssertionError("no error")
                thread_limit.allow(True)
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())
        """,
    )


def test_an_interruption_comes_when_there_is_room_for_it(program: Program) -> None:
    run(
        program,
        """
        async def main():
            async with Runner(workers=1, grace_period=GRACE) as runner:
                gate = Gate()
                limited = runner.options(timeout=1000.0)  # so that somebody keeps the time
                call = limited.submit(control.go_on, "spin_in_a_loop", gate.fds[0], 1)
                await gate.reached()
                thread_limit.allow(False)
                call.cancel()
                assert await until(lambda: runner.stats().stuck == 1)
                thread_limit.allow(True)
                assert await until(lambda: runner.stats().stuck == 0)
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())
        """,
    )
