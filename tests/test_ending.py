"""However a program ends, it ends promptly, with its own status, and without a word from us.

Each test is a program of its own, which must end within a limit. They are made of
  - a shape: how the runner is held (`with`, `async with`, or started and left open),
  - the work: what the workers are doing (nothing; `while True: pass`; that, and more queued),
  - an ending: what the program does then.
"""

import os
import signal
import textwrap

import pytest

from helpers.process import LINUX
from helpers.programs import Ended, Program

PREAMBLE = """\
import asyncio, gc, os, signal, sys, threading, time
from aiointerpreters import Runner
from workfns import values, waiting

# Even where the tests run in the background, with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

announced, announce = os.pipe()

wait, hold = os.pipe()

def see_signals():
    # asyncio misses a Ctrl-C in the very instant in which the loop falls asleep, until something
    # else wakes it; unless it has a handler of its own, for which signals write to its socket.
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)

async def begin_idle(runner):
    see_signals()
    # All workers are up afterwards. One that still starts may call eval(), which makes
    # CPython forget that it is to end by KeyboardInterrupt: its flag is the process's.
    calls = [runner.submit(waiting.wait_at, announce, wait, 9) for _ in range(runner.workers)]
    for _ in calls:
        os.read(announced, 1)
    os.write(hold, bytes(len(calls)))
    assert await asyncio.gather(*calls) == [9] * len(calls)

async def begin_spinning(runner):
    see_signals()
    for _ in range(runner.workers):
        keep.append(runner.submit(waiting.announce_and_spin, announce))
    for _ in range(runner.workers):
        os.read(announced, 1)

async def begin_queued(runner):
    await begin_spinning(runner)
    keep.extend(runner.submit(values.square, n) for n in range(100))

keep = []
"""

SHAPES = {
    "with": """
        async def main():
            with Runner(workers=2) as runner:
                await begin(runner)
                ENDING
    """,
    "with start": """
        async def main():
            with Runner(workers=2).start() as runner:
                await begin(runner)
                ENDING
    """,
    "async with": """
        async def main():
            async with Runner(workers=2) as runner:
                await begin(runner)
                ENDING
    """,
    "with around the loop": """
        async def inside(runner):
            await begin(runner)
            ENDING

        async def main():
            raise AssertionError("not used")

        def run_main():
            with Runner(workers=2) as runner:
                asyncio.run(inside(runner))
    """,
    "open": """
        async def main():
            runner = Runner(workers=2).start()
            keep.append(runner)
            await begin(runner)
            ENDING
    """,
}

WORK = ["idle", "spinning", "queued"]


def write(shape: str, work: str, ending: str) -> str:
    body = textwrap.dedent(SHAPES[shape])
    lines = []
    for line in body.splitlines():
        if line.strip() == "ENDING":
            indent = " " * (len(line) - len(line.lstrip()))
            lines += [indent + part for part in textwrap.dedent(ending).strip().splitlines()]
        else:
            lines.append(line)
    body = "\n".join(lines)
    if "def run_main" not in body:
        body += "\ndef run_main():\n    asyncio.run(main())\n"
    return (
        PREAMBLE
        + f"begin = begin_{work}\n"
        + body
        + '\nif __name__ == "__main__":\n    run_main()\n'
    )


def assert_interrupted(ended: Ended) -> None:
    """As a Python program ends that doesn't catch KeyboardInterrupt."""
    ended.assert_ended(-signal.SIGINT)
    assert ended.err.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("shape", SHAPES)
class TestEndings:
    def test_an_exception_in_the_block(self, shape: str, work: str, program: Program) -> None:
        ended = program(write(shape, work, 'raise LookupError("in the block")'))
        ended.assert_ended(1)
        assert ended.err.rstrip().endswith("LookupError: in the block")

    def test_sys_exit_in_the_block(self, shape: str, work: str, program: Program) -> None:
        program(write(shape, work, "sys.exit(3)")).assert_ended(3)

    def test_ctrl_c(self, shape: str, work: str, program: Program) -> None:
        ending = 'print("ready", flush=True)\nawait asyncio.Event().wait()'
        assert_interrupted(program(write(shape, work, ending), interrupt=True))

    def test_ctrl_c_while_awaiting_a_call(self, shape: str, work: str, program: Program) -> None:
        ending = """
            spinning = asyncio.create_task(runner.run(waiting.announce_and_spin, announce))
            print("ready", flush=True)
            await spinning
        """
        assert_interrupted(program(write(shape, work, ending), interrupt=True))

    def test_os_exit(self, shape: str, work: str, program: Program) -> None:
        program(write(shape, work, "os._exit(4)")).assert_ended(4)


@pytest.mark.parametrize("flags", [(), ("-X", "dev")], ids=["", "dev"])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "open"])
def test_leaving_the_block(shape: str, flags: tuple[str, ...], program: Program) -> None:
    ended = program(write(shape, "idle", 'print("left", flush=True)'), flags=flags)
    ended.assert_fine()
    assert ended.out == "left\n"


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "open"])
def test_leaving_the_block_with_accepted_work(shape: str, program: Program) -> None:
    """It is done before the program ends."""
    ending = """
        for n in range(50):
            runner.submit(waiting.leave_mark, 1, b"mark ")
    """
    ended = program(write(shape, "idle", ending))
    ended.assert_fine()
    assert ended.out == "mark " * 50


@pytest.mark.parametrize("work", WORK)
def test_the_program_ends_with_an_open_runner(work: str, program: Program) -> None:
    program(write("open", work, "pass")).assert_ended(0)


@pytest.mark.parametrize("work", WORK)
def test_the_program_ends_with_an_open_runner_and_awaited_calls(
    work: str, program: Program
) -> None:
    ending = """
        keep.append(asyncio.create_task(runner.run(waiting.announce_and_spin, announce)))
        await asyncio.sleep(0)
    """
    program(write("open", work, ending)).assert_ended(0)


def test_the_program_ends_with_a_runner_that_was_just_started(program: Program) -> None:
    program("""
        from aiointerpreters import Runner
        runner = Runner(workers=4).start()
    """).assert_ended(0)


def test_the_program_ends_with_a_runner_that_was_never_started(program: Program) -> None:
    program("""
        from aiointerpreters import Runner
        runner = Runner(workers=4)
    """).assert_fine()


def test_the_program_ends_with_workers_that_prepare_themselves(program: Program) -> None:
    program("""
        import os
        from aiointerpreters import Runner
        from workfns import waiting
        announced, announce = os.pipe()
        runner = Runner(
            workers=2, initializer=waiting.announce_and_spin, initargs=(announce,)
        ).start()
        os.read(announced, 1)
    """).assert_ended(0)


def test_the_program_ends_with_several_open_runners(program: Program) -> None:
    program("""
        import asyncio
        from aiointerpreters import Runner
        runners = [Runner(workers=2).start() for _ in range(5)]
        for runner in runners:
            asyncio.run(runner.run(abs, -1))
    """).assert_ended(0)


def test_the_interpreter_ends_while_a_loop_still_runs_in_a_daemon_thread(
    program: Program,
) -> None:
    """That thread may still say that its runner is gone."""
    ended = program("""
        import asyncio, threading
        from aiointerpreters import Runner
        from workfns import values

        async def main():
            async with Runner(workers=2) as runner:
                while True:
                    calls = (runner.run(values.square, n) for n in range(20))
                    assert await asyncio.gather(*calls) == [n * n for n in range(20)]
                    going.set()

        going = threading.Event()
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        assert going.wait(10)
    """)
    assert ended.status == 0, ended.err
    assert "Fatal Python error" not in ended.err


def test_a_thread_that_is_waited_for_ends_its_work(program: Program) -> None:
    """The main thread is at its end; another one, no daemon, goes on calling."""
    ended = program("""
        import asyncio, threading
        from aiointerpreters import Runner
        from workfns import values

        async def main():
            async with Runner(workers=2) as runner:
                going.set()
                for n in range(500):
                    assert await runner.run(values.square, n) == n * n
            print("ended", flush=True)

        going = threading.Event()
        threading.Thread(target=lambda: asyncio.run(main())).start()
        assert going.wait(10)
    """)
    ended.assert_fine()
    assert ended.out == "ended\n"


def test_a_runner_can_be_closed_at_exit(program: Program) -> None:
    program("""
        import asyncio, atexit
        from aiointerpreters import Runner
        runner = Runner(workers=2).start()
        atexit.register(runner.close)
        asyncio.run(runner.run(abs, -1))
    """).assert_fine()


@pytest.mark.parametrize("work", WORK)
def test_a_runner_can_be_closed_by_the_finalizer_of_an_object(work: str, program: Program) -> None:
    program(
        write("open", work, "keep.append(Owner(runner))").replace(
            "keep = []",
            """
class Owner:
    def __init__(self, runner):
        self.runner = runner

    def __del__(self):
        self.runner.close(cancel_pending=True)

keep = []
""",
        )
    ).assert_ended(0)


@pytest.mark.parametrize("how", ["close", "with", "async with"])
def test_ctrl_c_while_the_program_waits_for_its_workers(how: str, program: Program) -> None:
    """The block was left without an exception; work goes on without end. A Ctrl-C ends it."""
    leave = {
        "close": """
            runner = Runner(workers=2).start()
            asyncio.run(begin(runner))
            print("ready", flush=True)
            runner.close()
        """,
        "with": """
            with Runner(workers=2) as runner:
                asyncio.run(begin(runner))
                print("ready", flush=True)
        """,
        "async with": """
            async def main():
                async with Runner(workers=2) as runner:
                    await begin(runner)
                    print("ready", flush=True)
            asyncio.run(main())
        """,
    }[how]
    source = PREAMBLE + "begin = begin_spinning\n" + textwrap.dedent(leave)
    assert_interrupted(program(source, interrupt=True))


@pytest.mark.parametrize("work", WORK)
def test_ctrl_c_in_uvloop(work: str, program: Program) -> None:
    pytest.importorskip("uvloop")
    ending = 'print("ready", flush=True)\nawait asyncio.Event().wait()'
    source = write("async with", work, ending).replace("asyncio.run(main())", "uvloop.run(main())")
    assert_interrupted(program("import uvloop\n" + source, interrupt=True))


def test_a_program_that_catches_ctrl_c_goes_on(program: Program) -> None:
    ended = program(
        """
        import asyncio, os, signal
        from aiointerpreters import Runner
        from workfns import values, waiting

        signal.signal(signal.SIGINT, signal.default_int_handler)
        announced, announce = os.pipe()

        async def spin():
            async with Runner(workers=1) as runner:
                # Or asyncio might miss a Ctrl-C while it falls asleep.
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
                spinning = runner.submit(waiting.announce_and_spin, announce)
                os.read(announced, 1)
                print("ready", flush=True)
                await spinning

        async def calculate():
            async with Runner(workers=1) as runner:
                return await runner.run(values.square, 7)

        try:
            asyncio.run(spin())
        except KeyboardInterrupt:
            print(asyncio.run(calculate()))
        """,
        interrupt=True,
    )
    ended.assert_fine()
    assert ended.out == "ready\n49\n"


USE_UP = """
import resource

def use_up_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        while True:
            os.dup(0)
    except OSError:
        pass
"""


class TestWithoutAFreeDescriptor:
    """A program that has used up its file descriptors can still end."""

    @pytest.mark.parametrize("work", WORK)
    def test_it_ends_with_an_open_runner(self, work: str, program: Program) -> None:
        source = USE_UP + write("open", work, "pass") + "    use_up_descriptors()\n"
        program(source).assert_ended(0)

    def test_it_closes_its_runner(self, program: Program) -> None:
        ending = """
    use_up_descriptors()
    keep[0].close()
    print("closed")
"""
        ended = program(USE_UP + write("open", "idle", "pass") + ending)
        ended.assert_ended(0)
        assert ended.out == "closed\n"

    def test_ctrl_c_while_it_waits_for_its_workers(self, program: Program) -> None:
        ending = """
    use_up_descriptors()
    print("ready", flush=True)
    keep[0].close()
"""
        source = USE_UP + write("open", "spinning", "pass") + ending
        assert_interrupted(program(source, interrupt=True))


class TestCollected:
    @pytest.mark.skipif(not LINUX, reason="counts threads in /proc")
    def test_a_runner_that_is_collected_open_warns_and_its_threads_end(
        self, program: Program
    ) -> None:
        ended = program(
            """
            import asyncio, gc, warnings
            from aiointerpreters import Runner
            from helpers.process import eventually, native_threads
            from workfns import values

            before = native_threads()
            runner = Runner(workers=3).start()
            assert asyncio.run(runner.run(values.square, 3)) == 9
            assert native_threads() >= before + 3
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                del runner
                gc.collect()
            assert [warning.category for warning in caught] == [ResourceWarning], caught
            assert "Runner" in str(caught[0].message)
            assert eventually(lambda: native_threads() <= before)
            """
        )
        ended.assert_fine()

    @pytest.mark.parametrize("work", WORK)
    def test_a_runner_is_collected_while_its_workers_work(
        self, work: str, program: Program
    ) -> None:
        ending = """
            keep.clear()
            del runner
            gc.collect()
        """
        source = write("open", work, ending)
        source = source.replace("    keep.append(runner)\n", "")
        program(source).assert_ended(0)

    def test_a_runner_that_was_never_started_is_collected_in_silence(
        self, program: Program
    ) -> None:
        program(
            "from aiointerpreters import Runner\nRunner(workers=2)\n",
            flags=["-W", "error", "-X", "dev"],
        ).assert_fine()

    def test_a_closed_runner_is_collected_in_silence(self, program: Program) -> None:
        program(
            """
            import asyncio, gc
            from aiointerpreters import Runner

            async def main():
                with Runner(workers=2) as runner:
                    assert await runner.run(abs, -1) == 1
                async with Runner(workers=2) as runner:
                    assert await runner.run(abs, -1) == 1

            asyncio.run(main())
            gc.collect()
            """,
            flags=["-W", "error", "-X", "dev"],
        ).assert_fine()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
class TestFork:
    """Forking a program with threads is at one's own risk; we must not make it worse."""

    FLAGS = ("-W", "ignore::DeprecationWarning")

    @pytest.mark.parametrize("work", WORK)
    @pytest.mark.parametrize("end", ["sys.exit(5)", "os._exit(5)"])
    def test_the_child_ends_with_its_own_status(
        self, work: str, end: str, program: Program
    ) -> None:
        fork = f"""
            runner = Runner(workers=2).start()
            asyncio.run(begin_{work}(runner))
            child = os.fork()
            if not child:
                {end}
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
            sys.exit(6)
        """
        program(PREAMBLE + textwrap.dedent(fork), flags=self.FLAGS).assert_ended(6)

    def test_a_child_of_a_running_loop_ends_with_its_own_status(self, program: Program) -> None:
        ending = """
            child = os.fork()
            if not child:
                os._exit(5)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
            assert await runner.run(values.square, 4) == 16
            sys.exit(6)
        """
        program(write("open", "idle", ending), flags=self.FLAGS).assert_ended(6)

    def test_a_child_outside_of_the_loop_ends_normally(self, program: Program) -> None:
        ended = program(
            """
            import asyncio, os
            from aiointerpreters import Runner
            from helpers.process import at_rest
            from workfns import values

            runner = Runner(workers=2).start()
            assert asyncio.run(runner.run(values.square, 3)) == 9
            assert at_rest(runner)
            child = os.fork()
            if child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert asyncio.run(runner.run(values.square, 4)) == 16
                runner.close()
                print("parent")
            else:
                runner.close()
                print("child")
            """,
            flags=self.FLAGS,
        )
        ended.assert_fine()
        assert ended.out == "child\nparent\n"

    def test_a_child_can_start_a_runner_of_its_own(self, program: Program) -> None:
        ended = program(
            """
            import asyncio, os
            from aiointerpreters import Runner
            from helpers.process import at_rest
            from workfns import values

            async def use():
                async with Runner(workers=2) as own:
                    return await own.run(values.square, 5)

            with Runner(workers=2) as runner:
                assert asyncio.run(runner.run(values.square, 3)) == 9
                assert at_rest(runner)
                child = os.fork()
                if not child:
                    print(asyncio.run(use()), flush=True)
                    os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert asyncio.run(runner.run(values.square, 4)) == 16
            """,
            flags=self.FLAGS,
        )
        ended.assert_fine()
        assert ended.out == "25\n"

    def test_leaving_the_block_in_the_child(self, program: Program) -> None:
        ended = program(
            """
            import asyncio, os
            from aiointerpreters import Runner
            from helpers.process import at_rest
            from workfns import values

            with Runner(workers=2) as runner:
                assert asyncio.run(runner.run(values.square, 3)) == 9
                assert at_rest(runner)
                child = os.fork()
            if child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            """,
            flags=self.FLAGS,
        )
        ended.assert_fine()

    def test_a_multiprocessing_child_by_fork(self, program: Program) -> None:
        ended = program(
            """
            import asyncio, multiprocessing
            from aiointerpreters import Runner
            from helpers.process import at_rest
            from workfns import values

            def main():
                context = multiprocessing.get_context("fork")
                with Runner(workers=2) as runner:
                    assert asyncio.run(runner.run(values.square, 3)) == 9
                    assert at_rest(runner)
                    child = context.Process(target=values.square, args=(3,))
                    child.start()
                    child.join()
                    assert child.exitcode == 0
                    with context.Pool(2) as pool:
                        assert pool.map(values.square, range(10)) == [n * n for n in range(10)]
                    assert asyncio.run(runner.run(values.square, 4)) == 16

            if __name__ == "__main__":
                main()
            """,
            flags=self.FLAGS,
        )
        ended.assert_fine()

    def test_a_subprocess_of_uvloop_can_be_started(self, program: Program) -> None:
        """It forks more like os.fork than like subprocess does."""
        pytest.importorskip("uvloop")
        ended = program("""
            import asyncio, sys
            import uvloop
            from aiointerpreters import Runner
            from helpers.process import at_rest

            async def main():
                async with Runner(workers=2) as runner:
                    assert await runner.run(abs, -1) == 1
                    assert at_rest(runner)
                    process = await asyncio.create_subprocess_exec(
                        sys.executable, "-c", "raise SystemExit(5)"
                    )
                    assert await process.wait() == 5, process.returncode
                    assert await runner.run(abs, -2) == 2

            uvloop.run(main())
        """)
        ended.assert_fine()

    def test_a_subprocess_can_be_started_and_does_not_inherit_our_descriptors(
        self, program: Program
    ) -> None:
        ended = program("""
            import asyncio, subprocess, sys
            from aiointerpreters import Runner
            from workfns import values

            async def main():
                async with Runner(workers=2) as runner:
                    assert await runner.run(values.square, 3) == 9
                    listed = subprocess.check_output(
                        [sys.executable, "-c", "import os; print(os.listdir('/proc/self/fd'))"],
                        close_fds=False,
                        text=True,
                    )
                    assert len(eval(listed)) <= 4, listed
                    assert await runner.run(values.square, 4) == 16

            asyncio.run(main())
        """)
        if LINUX:
            ended.assert_fine()


def test_the_package_is_imported_and_nothing_more(program: Program) -> None:
    """No thread, no file descriptor, before a runner starts."""
    ended = program("""
        from helpers.process import LINUX, native_threads, open_fds
        if LINUX:
            before = native_threads(), open_fds()
        import aiointerpreters
        runner = aiointerpreters.Runner(workers=2)
        if LINUX:
            assert (native_threads(), open_fds()) == before
    """)
    ended.assert_fine()


def test_a_program_may_end_while_it_is_being_interrupted_again_and_again(
    program: Program,
) -> None:
    ended = program(
        write(
            "async with",
            "spinning",
            """
            def interrupt():
                for _ in range(20):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.001)
            threading.Thread(target=interrupt).start()
            await asyncio.Event().wait()
            """,
        )
    )
    assert ended.status in (-signal.SIGINT, 1), ended.err
    assert "Fatal Python error" not in ended.err
