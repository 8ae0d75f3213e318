"""A program that forks while its workers live: the parent goes on, and the child is a program.

What test_ending.py holds already: children that end at once, and multiprocessing's.
"""

import os
import textwrap

import pytest

from helpers.forking import busy
from helpers.programs import Ended, Program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

PREAMBLE = """\
import asyncio, gc, os, sys, threading, warnings
from aiointerpreters import Runner, RunnerError
from helpers.process import at_rest
from workfns import values, waiting

announced, announce = os.pipe()
wait, hold = os.pipe()

def status_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def refuses(call):
    try:
        result = call()
    except RunnerError as error:
        assert "fork" in str(error), error
    else:
        raise AssertionError(f"no error, but {result}")

async def use_own_runner():
    async with Runner(workers=2) as own:
        assert await asyncio.gather(*(own.run(values.square, n) for n in range(20))) == [
            n * n for n in range(20)
        ]

"""

#: CPython warns of every fork in a program with threads.
FLAGS = ("-W", "ignore::DeprecationWarning")


def run(program: Program, source: str) -> Ended:
    return program(PREAMBLE + textwrap.dedent(source), flags=FLAGS)


class TestTheChild:
    def test_it_is_refused_the_runner_in_every_way(self, program: Program) -> None:
        ended = run(
            program,
            """
            async def in_child(runner):
                refuses(lambda: runner.submit(abs, -1))
                for call in (
                    lambda: runner.run(abs, -1),
                    lambda: runner.wrap(abs)(-1),
                    runner.drain,
                ):
                    try:
                        async with asyncio.timeout(5):
                            await call()
                    except RunnerError as error:
                        assert "fork" in str(error), error
                    else:
                        raise AssertionError("no error")
                async with asyncio.timeout(5):
                    await runner.aclose()
                runner.close()
                repr(runner)

            runner = Runner(workers=2).start()
            assert asyncio.run(runner.run(values.square, 3)) == 9
            assert at_rest(runner)
            if not (child := os.fork()):
                asyncio.run(in_child(runner))
                os._exit(7)
            assert status_of(child) == 7
            assert asyncio.run(runner.run(values.square, 4)) == 16
            runner.close()
            """,
        )
        ended.assert_fine()

    def test_it_drops_the_runner_in_silence(self, program: Program) -> None:
        ended = run(
            program,
            """
            runner = Runner(workers=2).start()
            assert asyncio.run(runner.run(values.square, 3)) == 9
            assert at_rest(runner)
            if not (child := os.fork()):
                warnings.simplefilter("error")
                del runner
                gc.collect()
                sys.exit(7)
            assert status_of(child) == 7
            runner.close()
            """,
        )
        ended.assert_fine()

    @pytest.mark.parametrize(
        ("end", "status"),
        [
            ("os._exit(7)", 7),
            ("os.execv(sys.executable, [sys.executable, '-c', 'raise SystemExit(7)'])", 7),
            ("os.kill(os.getpid(), 9)", -9),
            ("os.abort()", -6),
        ],
    )
    def test_it_may_end_at_once_in_any_way_while_the_parents_calls_run(
        self, end: str, status: int, program: Program
    ) -> None:
        """Not by sys.exit(): in a running loop asyncio itself hangs in the child then."""
        ended = run(
            program,
            f"""
            async def main():
                async with Runner(workers=1) as runner:
                    running = runner.submit(waiting.wait_at, announce, wait, "done")
                    queued = [runner.submit(values.square, n) for n in range(50)]
                    os.read(announced, 1)
                    if not (child := os.fork()):
                        {end}
                    assert status_of(child) == {status}
                    os.write(hold, b".")
                    assert await running == "done"
                    assert await asyncio.gather(*queued) == [n * n for n in range(50)]

            asyncio.run(main())
            """,
        )
        assert ended.status == 0, ended.err

    def test_it_starts_runners_of_its_own_and_so_does_its_child(self, program: Program) -> None:
        ended = run(
            program,
            """
            with Runner(workers=2) as runner:
                assert asyncio.run(runner.run(values.square, 3)) == 9
                assert at_rest(runner)
                if not (child := os.fork()):
                    asyncio.run(use_own_runner())
                    with Runner(workers=1) as own:
                        assert asyncio.run(own.run(values.square, 3)) == 9
                        if not (grandchild := os.fork()):
                            refuses(lambda: asyncio.run(own.run(abs, -1)))
                            refuses(lambda: asyncio.run(runner.run(abs, -1)))
                            asyncio.run(use_own_runner())
                            sys.exit(8)
                        assert status_of(grandchild) == 8
                        assert asyncio.run(own.run(values.square, 4)) == 16
                    sys.exit(7)
                assert status_of(child) == 7
                assert asyncio.run(runner.run(values.square, 4)) == 16
            """,
        )
        ended.assert_fine()

    def test_it_starts_a_runner_of_its_own_and_leaves_it_open(self, program: Program) -> None:
        ended = run(
            program,
            """
            with Runner(workers=2) as runner:
                assert asyncio.run(runner.run(values.square, 3)) == 9
                assert at_rest(runner)
                if not (child := os.fork()):
                    own = Runner(workers=1).start()
                    assert asyncio.run(own.run(values.square, 3)) == 9
                    sys.exit(7)
                assert status_of(child) == 7
            """,
        )
        assert ended.status == 0, ended.err


class TestTheFork:
    @busy
    def test_it_comes_from_another_thread(self, program: Program) -> None:
        ended = run(
            program,
            """
            def fork():
                if not (child := os.fork()):
                    refuses(lambda: asyncio.run(runner.run(abs, -1)))
                    asyncio.run(use_own_runner())
                    os._exit(7)
                statuses.append(status_of(child))

            async def main():
                calls = [runner.submit(values.square, n) for n in range(100)]
                await asyncio.to_thread(fork)
                assert await asyncio.gather(*calls) == [n * n for n in range(100)]

            statuses = []
            with Runner(workers=2) as runner:
                asyncio.run(main())
            assert statuses == [7]
            """,
        )
        ended.assert_fine()

    def test_it_comes_from_another_thread_whose_child_ends_normally(self, program: Program) -> None:
        ended = run(
            program,
            """
            def fork():
                child = os.fork()
                if child:
                    statuses.append(status_of(child))

            parent = os.getpid()
            statuses = []
            with Runner(workers=2) as runner:
                assert asyncio.run(runner.run(values.square, 3)) == 9
                assert at_rest(runner)
                thread = threading.Thread(target=fork)
                thread.start()
                thread.join()
                if os.getpid() == parent:
                    assert asyncio.run(runner.run(values.square, 4)) == 16
                    assert statuses == [0], statuses
            """,
        )
        ended.assert_fine()

    @busy
    def test_it_comes_while_the_workers_start(self, program: Program) -> None:
        ended = run(
            program,
            """
            for _ in range(10):
                with Runner(workers=2) as runner:
                    if not (child := os.fork()):
                        refuses(lambda: asyncio.run(runner.run(abs, -1)))
                        os._exit(7)
                    assert status_of(child) == 7
                    assert asyncio.run(runner.run(values.square, 4)) == 16
            """,
        )
        ended.assert_fine()

    @busy
    def test_it_comes_while_results_stream_in(self, program: Program) -> None:
        ended = run(
            program,
            """
            async def main():
                async with Runner(workers=2) as runner:
                    children = []
                    for n in range(10):
                        calls = [runner.submit(values.square, n) for n in range(200)]
                        await calls[n]
                        if not (child := os.fork()):
                            os._exit(7)
                        children.append(child)
                        assert await asyncio.gather(*calls) == [n * n for n in range(200)]
                    assert [status_of(child) for child in children] == [7] * 10

            asyncio.run(main())
            """,
        )
        ended.assert_fine()
