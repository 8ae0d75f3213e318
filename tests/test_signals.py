"""Signals end a program promptly, at whatever moment they come, and never by a crash."""

import signal
import textwrap

import pytest

from helpers.programs import Program

PREAMBLE = """\
import asyncio, os, signal, sys, threading, time
from aiointerpreters import Runner
from workfns import values, waiting

signal.signal(signal.SIGINT, signal.default_int_handler)
announced, announce = os.pipe()

def send(number, delay):
    # Again, should the exception be raised where exceptions are ignored, as in a finalizer.
    def target():
        time.sleep(delay)
        while True:
            os.kill(os.getpid(), number)
            time.sleep(3)
    threading.Thread(target=target, daemon=True).start()
"""

#: What a program does over and over: with all that can be interrupted.
LIVES = {
    "start and close": """
while True:
    Runner(workers=2).start().close()
""",
    "gather": """
async def main():
    async with Runner(workers=2) as runner:
        while True:
            await asyncio.gather(*(runner.run(values.square, n) for n in range(20)))
asyncio.run(main())
""",
    "drain and aclose": """
async def main():
    while True:
        runner = Runner(workers=1).start()
        for n in range(20):
            runner.submit(values.square, n)
        await runner.drain()
        runner.submit(values.square, 1)
        await runner.aclose()
asyncio.run(main())
""",
    "with": """
async def main(runner):
    await asyncio.gather(*(runner.run(values.square, n) for n in range(20)))
while True:
    with Runner(workers=2) as runner:
        asyncio.run(main(runner))
""",
}

MILLISECONDS = [0, 3, 10, 20, 35, 50, 80, 120]


@pytest.mark.parametrize("milliseconds", MILLISECONDS)
@pytest.mark.parametrize("life", LIVES)
class TestAtAnyMoment:
    def test_ctrl_c(self, life: str, milliseconds: int, program: Program) -> None:
        ended = program(PREAMBLE + f"send(signal.SIGINT, {milliseconds / 1000})" + LIVES[life])
        # A worker that just starts may make CPython forget that it is to end by the signal.
        assert ended.status in (-signal.SIGINT, 1), ended.err
        assert "KeyboardInterrupt" in ended.err
        assert "Fatal Python error" not in ended.err

    def test_a_handler_that_exits(self, life: str, milliseconds: int, program: Program) -> None:
        handle = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        source = PREAMBLE + handle + f"send(signal.SIGTERM, {milliseconds / 1000})" + LIVES[life]
        ended = program(source)
        assert ended.status == 3, ended.err
        assert "Fatal Python error" not in ended.err


@pytest.mark.parametrize("life", LIVES)
def test_sigterm_without_a_handler_kills_the_program(life: str, program: Program) -> None:
    ended = program(PREAMBLE + "send(signal.SIGTERM, 0.02)" + LIVES[life])
    assert (ended.status, ended.err) == (-signal.SIGTERM, "")


HANDLED = {
    "in the loop": """
async def main():
    async with Runner(workers=1) as runner:
        spinning = runner.submit(waiting.announce_and_spin, announce)
        os.read(announced, 1)
        HANDLE
        os.kill(os.getpid(), signal.SIGTERM)
        await spinning
asyncio.run(main())
""",
    "in close()": """
async def begin():
    spinning = runner.submit(waiting.announce_and_spin, announce)
    os.read(announced, 1)

runner = Runner(workers=1).start()
asyncio.run(begin())
HANDLE
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
runner.close()
""",
    "in a with block": """
async def begin():
    spinning = runner.submit(waiting.announce_and_spin, announce)
    os.read(announced, 1)

with Runner(workers=1) as runner:
    asyncio.run(begin())
    HANDLE
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
""",
}


@pytest.mark.parametrize("where", HANDLED)
def test_a_handler_that_exits_stops_work_without_end(where: str, program: Program) -> None:
    handle = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))"
    program(PREAMBLE + HANDLED[where].replace("HANDLE", handle)).assert_ended(3)


@pytest.mark.parametrize("where", ["in close()", "in a with block"])
def test_an_exception_of_a_handler_comes_out(where: str, program: Program) -> None:
    source = PREAMBLE + (
        "def handle(*_):\n    raise LookupError('from the handler')\n"
        + HANDLED[where].replace("HANDLE", "signal.signal(signal.SIGTERM, handle)")
    )
    ended = program(source)
    ended.assert_ended(1)
    assert ended.err.rstrip().endswith("LookupError: from the handler")


def test_a_handler_that_returns_changes_nothing(program: Program) -> None:
    ended = program(
        PREAMBLE
        + textwrap.dedent("""
            def handle(*_):
                handled.append(1)

            async def main():
                async with Runner(workers=2) as runner:
                    send(signal.SIGUSR1, 0)
                    while not handled:
                        calls = (runner.run(values.square, n) for n in range(9))
                        assert await asyncio.gather(*calls) == [n * n for n in range(9)]
                    await runner.drain()

            handled = []
            signal.signal(signal.SIGUSR1, handle)
            asyncio.run(main())
            """)
    )
    ended.assert_fine()


def test_asyncios_own_handling_of_ctrl_c_cancels_the_main_task(program: Program) -> None:
    """What it awaits is cancelled, its cleanup may await more, and KeyboardInterrupt comes out."""
    ended = program(
        PREAMBLE
        + textwrap.dedent("""
            async def main():
                async with Runner(workers=1) as runner:
                    # Or asyncio might miss a Ctrl-C while it falls asleep.
                    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
                    spinning = runner.submit(waiting.announce_and_spin, announce)
                    os.read(announced, 1)
                    async with Runner(workers=1) as other:
                        print("ready", flush=True)
                        try:
                            await spinning
                        except asyncio.CancelledError:
                            print(await other.run(values.square, 7), flush=True)
                            raise

            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                print("interrupted")
            """),
        interrupt=True,
    )
    ended.assert_fine()
    assert ended.out == "ready\n49\ninterrupted\n"


def test_a_signal_during_the_wait_for_workers_at_the_programs_end(program: Program) -> None:
    """The runner was closed in the background; its work is not finished at the second Ctrl-C."""
    ended = program(
        PREAMBLE
        + textwrap.dedent("""
            import atexit

            async def main():
                runner = Runner(workers=1).start()
                runner.submit(waiting.announce_and_spin, announce)
                os.read(announced, 1)
                runner.close()

            asyncio.run(main())
            atexit.register(send, signal.SIGINT, 0.05)
            """)
    )
    assert ended.status in (0, -signal.SIGINT), ended.err
    assert "Fatal Python error" not in ended.err
