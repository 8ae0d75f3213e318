"""Threads that a worker's functions leave running do not hold up the runner, nor are they lost."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import Runner
from helpers.gate import Gate, Signals, Trace
from helpers.process import LINUX
from helpers.programs import Program
from workfns import abuse, worker

CLOSE = {
    "close": """
runner = Runner(workers=1).start()
asyncio.run(runner.run(FUNCTION))
runner.close()
""",
    "with": """
with Runner(workers=1) as runner:
    asyncio.run(runner.run(FUNCTION))
""",
    "async with": """
async def main():
    async with Runner(workers=1) as runner:
        await runner.run(FUNCTION)
asyncio.run(main())
""",
    "initializer": """
with Runner(workers=1, initializer=INITIALIZER) as runner:
    asyncio.run(runner.run(abs, -1))
""",
}


def write(way: str, function: str, *arguments: str) -> str:
    body = CLOSE[way].replace("FUNCTION", ", ".join((function, *arguments)))
    initargs = "".join(argument + "," for argument in arguments)
    body = body.replace("INITIALIZER", f"{function}, initargs=({initargs})")
    return (
        "import asyncio, atexit, os, signal, threading, time\n"
        "from aiointerpreters import Runner\n"
        "from workfns import abuse, worker\n"
        "announced, announce = os.pipe()\n"
        "wait, hold = os.pipe()\n"
    ) + body


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> Callable[[], str]:
    """`said()`: what was printed to stderr, and what was warned of."""

    def said() -> str:
        warnings = "".join(f"{w.category.__name__}: {w.message}\n" for w in recwarn)
        return capfd.readouterr().err + warnings

    return said


class TestThatEndByThemselves:
    def test_they_finish_what_they_do_and_nothing_is_said(
        self, gate: Gate, trace: Trace, said: Callable[[], str]
    ) -> None:
        async def main() -> None:
            with gate:
                runner = Runner(workers=1).start()
                await runner.run(worker.leave_a_thread_behind, *gate.fds, trace.fd)
                await gate.reached()
                closing = asyncio.create_task(runner.aclose())
                await asyncio.sleep(0)
            await closing

        asyncio.run(main())
        assert trace.marks() == b"t"
        assert said() == ""

    def test_an_executor_finishes_its_work_and_nothing_is_said(
        self, trace: Trace, said: Callable[[], str]
    ) -> None:
        marks = [(trace.fd, mark) for mark in (b"1", b"2", b"3")]
        with Runner(workers=1) as runner:
            assert asyncio.run(runner.run(abuse.leave_an_executor, *marks)) == 42
        assert trace.marks() == b"123"
        assert said() == ""

    def test_an_executor_is_given_up_with_the_runner(self, said: Callable[[], str]) -> None:
        with pytest.raises(LookupError), Runner(workers=1) as runner:
            assert asyncio.run(runner.run(abuse.leave_an_executor)) == 42
            raise LookupError
        assert said() == ""


class TestThatSpin:
    @pytest.mark.parametrize("way", CLOSE)
    def test_they_are_interrupted_and_named_and_the_program_ends(
        self, way: str, program: Program
    ) -> None:
        ended = program(write(way, "abuse.leave_a_spinning_thread", "announce") + "print('closed')")
        assert (ended.status, ended.out) == (0, "closed\n"), ended.err
        assert "RuntimeWarning" in ended.err
        assert "spinner" in ended.err
        assert "Traceback" not in ended.err

    def test_what_is_raised_in_them_is_interrupted(self, signals: Signals) -> None:
        with Runner(workers=1) as runner:
            asyncio.run(runner.run(abuse.leave_a_spinning_thread, signals.fd))
            assert signals.arrive_blocking() == b"."
        assert signals.arrive_blocking() == b"I"

    def test_several_in_several_workers(self, signals: Signals) -> None:
        async def main() -> None:
            async with Runner(workers=2) as runner:
                calls = [runner.submit(abuse.leave_a_spinning_thread, signals.fd) for _ in range(6)]
                await asyncio.gather(*calls)
                await signals.arrive(6)
            assert await signals.arrive(6) == b"I" * 6

        asyncio.run(main())

    def test_they_are_given_up_with_the_runner_and_nothing_is_said(
        self, signals: Signals, said: Callable[[], str]
    ) -> None:
        with pytest.raises(LookupError), Runner(workers=1) as runner:
            asyncio.run(runner.run(abuse.leave_a_spinning_thread, signals.fd))
            signals.arrive_blocking()
            raise LookupError
        assert said() == ""

    def test_a_program_ends_that_leaves_its_runner_open(self, program: Program) -> None:
        program("""
            import asyncio, os
            from aiointerpreters import Runner
            from workfns import abuse
            announced, announce = os.pipe()
            runner = Runner(workers=1).start()
            asyncio.run(runner.run(abuse.leave_a_spinning_thread, announce))
            """).assert_fine()

    def test_ctrl_c_ends_the_wait_for_them(self, program: Program) -> None:
        """Whether it comes while they may still end by themselves, or later."""
        source = write("close", "abuse.leave_a_spinning_thread", "announce")
        source = source.replace("runner.close()", "print('ready', flush=True)\nrunner.close()")
        source = "import signal\nsignal.signal(2, signal.default_int_handler)\n" + source
        ended = program(source, interrupt=True)
        # What a worker imports just then may make CPython forget that it is to end by the signal.
        assert ended.status in (-signal.SIGINT, 1), ended.err
        ended.assert_quiet()
        assert ended.err.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("leave", [abuse.leave_a_blocked_thread, abuse.leave_a_stubborn_thread])
class TestThatDoNotEnd:
    def test_the_runner_ends_and_names_them(
        self, leave: Callable[..., Any], gate: Gate, said: Callable[[], str]
    ) -> None:
        with gate:
            with Runner(workers=2) as runner:
                asyncio.run(runner.run(leave, *gate.fds))
                gate.reached_blocking()
            text = said()
        assert "RuntimeWarning" in text
        assert "blocked" in text or "stubborn" in text

    def test_aclose_ends_and_the_loop_goes_on(self, leave: Callable[..., Any], gate: Gate) -> None:
        async def main() -> None:
            async with gate:
                async with Runner(workers=1) as runner:
                    await runner.run(leave, *gate.fds)
                    await gate.reached()
                async with Runner(workers=1) as runner:
                    assert await runner.run(abs, -1) == 1

        asyncio.run(main())

    def test_the_worker_ends_when_they_do(
        self, leave: Callable[..., Any], gate: Gate, signals: Signals
    ) -> None:
        with gate:
            with Runner(workers=1) as runner:
                asyncio.run(runner.run(worker.mark_at_exit, signals.fd, b"x"))
                asyncio.run(runner.run(leave, *gate.fds))
                gate.reached_blocking()
            assert not signals.any_came()
        assert signals.arrive_blocking() == b"x"

    @pytest.mark.skipif(not LINUX, reason="counts threads in /proc")
    def test_the_end_of_the_program_waits_for_them(
        self, leave: Callable[..., Any], program: Program
    ) -> None:
        """And ends their worker then."""
        source = write("close", f"abuse.{leave.__name__}", "announce", "wait") + (
            "def release():\n"
            "    os.write(1, b'ending ')\n"
            "    os.close(hold)\n"
            "atexit.register(release)\n"
        )
        mark = "asyncio.run(runner.run(worker.mark_at_exit, 1, b'ended'))\n"
        source = source.replace("asyncio.run(", mark + "asyncio.run(", 1)
        ended = program(source)
        assert (ended.status, ended.out) == (0, "ending ended"), ended.err


def test_ctrl_c_ends_a_program_that_waits_for_a_thread_without_end(program: Program) -> None:
    ended = program(
        write("close", "abuse.leave_a_thread_in_an_event")
        + """
signal.signal(signal.SIGINT, signal.default_int_handler)
ending = threading.Event()

def interrupt():
    ending.wait()
    while True:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)

threading.Thread(target=interrupt, daemon=True).start()
atexit.register(ending.set)
print("closed", flush=True)
"""
    )
    assert (ended.status, ended.out) == (-signal.SIGINT, "closed\n"), ended.err
    assert "eternal" in ended.err


@pytest.mark.parametrize("flag", ["error", "ignore"])
def test_the_programs_filters_for_warnings_are_respected(flag: str, program: Program) -> None:
    ended = program(write("close", "abuse.leave_a_spinning_thread", "announce"), flags=["-W", flag])
    assert ended.status == 0, ended.err
    assert ("RuntimeWarning" in ended.err) is (flag == "error")


def test_they_are_ended_even_if_our_modules_were_removed(
    signals: Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with Runner(workers=1) as runner:
        asyncio.run(runner.run(abuse.leave_a_spinning_thread, signals.fd))
        asyncio.run(runner.run(abuse.forget_our_modules))
    assert signals.arrive_blocking(2) == b".I"
    assert "ignored" not in capfd.readouterr().err  # the worker warns of them itself


def test_a_daemon_thread_is_refused_in_the_call(runner: Runner) -> None:
    with pytest.raises(RuntimeError, match="daemon threads are disabled"):
        asyncio.run(runner.run(abuse.start_a_daemon_thread))
    assert asyncio.run(runner.run(os.getpid)) == os.getpid()
