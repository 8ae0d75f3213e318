"""Whatever a function does in its worker, the call has an outcome, and the runner one too."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiointerpreters import InterpreterError, Runner
from helpers.gate import Signals, Trace
from helpers.programs import Program
from workfns import abuse, failing, values, worker


@pytest.fixture
def one() -> Iterator[Callable[..., Any]]:
    """`one(fn, …)`: the result of a call in a runner of one worker, made for this test."""
    with Runner(workers=1) as runner:
        yield lambda fn, /, *args: asyncio.run(runner.run(fn, *args))


DISABLED = "daemon threads are disabled"
ISOLATED = "not supported (for isolated|within) subinterpreters"


class TestRefused:
    """By CPython; the error reaches the caller, and the worker goes on."""

    @pytest.mark.parametrize(
        ("function", "args", "error", "message"),
        [
            (abuse.start_a_daemon_thread, (), RuntimeError, DISABLED),
            (abuse.fork, (), RuntimeError, ISOLATED),
            (abuse.become_another_program, (), RuntimeError, ISOLATED),
            (abuse.run_a_subprocess_with_a_hook, (), RuntimeError, ISOLATED),
            (abuse.run_a_multiprocessing_process, ("fork",), RuntimeError, ISOLATED),
            (abuse.make_a_multiprocessing_pool, (), RuntimeError, DISABLED),
            (abuse.put_into_a_multiprocessing_queue, (), RuntimeError, DISABLED),
            (abuse.handle_signals, (), ValueError, "main thread of the main interpreter"),
            (abuse.set_wakeup_fd, (), ValueError, "main thread of the main interpreter"),
            (abuse.import_module, ("faulthandler",), ImportError, "faulthandler"),
            (abuse.import_module, ("readline",), ImportError, "readline"),
            (abuse.import_module, ("_tracemalloc",), ImportError, "_tracemalloc"),
        ],
    )
    def test_it_is_an_error_in_the_call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        error: type[Exception],
        message: str,
        one: Callable[..., Any],
    ) -> None:
        assert one(worker.count_calls) == 1
        with pytest.raises(error, match=message):
            one(function, *args)
        assert one(worker.count_calls) == 2

    def test_a_process_pool_is_broken_and_the_worker_is_not(self, one: Callable[..., Any]) -> None:
        from concurrent.futures import BrokenExecutor

        with pytest.raises(BrokenExecutor):
            one(abuse.use_a_process_pool)
        assert one(abs, -1) == 1


class TestProcesses:
    """Those that are begun from nothing, not from a copy of this one, can be started."""

    def test_a_spawned_process(self, one: Callable[..., Any]) -> None:
        assert one(abuse.spawn_and_wait) == 5

    def test_a_shell(self, one: Callable[..., Any]) -> None:
        assert one(abuse.run_in_a_shell) == 3

    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_a_multiprocessing_process(self, method: str, program: Program) -> None:
        ended = program(f"""
            import asyncio
            from aiointerpreters import Runner
            from workfns import abuse

            if __name__ == "__main__":
                with Runner(workers=1) as runner:
                    call = runner.run(abuse.run_a_multiprocessing_process, {method!r})
                    assert asyncio.run(call) == 5
            """)
        ended.assert_fine()


class TestEndings:
    """None of them ends anything but the call."""

    @pytest.mark.parametrize(
        ("function", "type_name"),
        [
            (failing.exit_with, "SystemExit"),
            (failing.interrupt, "KeyboardInterrupt"),
            (failing.stop_generator, "GeneratorExit"),
        ],
    )
    def test_the_worker_goes_on(
        self, function: Callable[..., Any], type_name: str, one: Callable[..., Any]
    ) -> None:
        args = (3,) if function is failing.exit_with else ()
        assert one(worker.count_calls) == 1
        with pytest.raises(InterpreterError, match=type_name):
            one(function, *args)
        assert one(worker.count_calls) == 2

    def test_an_error_in_a_thread_of_the_worker_is_printed(
        self, one: Callable[..., Any], capfd: pytest.CaptureFixture[str]
    ) -> None:
        one(abuse.fail_in_a_thread)
        said = capfd.readouterr().err
        assert "Exception in thread failing" in said
        assert "ZeroDivisionError" in said

    def test_or_goes_to_the_workers_own_hook(
        self, one: Callable[..., Any], signals: Signals, capfd: pytest.CaptureFixture[str]
    ) -> None:
        one(abuse.fail_in_a_thread, signals.fd)
        assert signals.arrive_blocking(17) == b"ZeroDivisionError"
        assert capfd.readouterr().err == ""


class TestSignals:
    def test_a_signal_that_a_worker_sends_is_handled_by_the_main_thread(
        self, one: Callable[..., Any]
    ) -> None:
        heard = threading.Event()
        before = signal.signal(signal.SIGUSR1, lambda *_: heard.set())
        try:
            one(abuse.send_a_signal, signal.SIGUSR1)
            assert heard.wait(0)
            heard.clear()
            one(abuse.raise_a_signal, signal.SIGUSR1)
            assert heard.wait(0)
        finally:
            signal.signal(signal.SIGUSR1, before)

    def test_ctrl_c_from_a_worker_interrupts_the_program(self, program: Program) -> None:
        ended = program("""
            import asyncio, signal
            from aiointerpreters import Runner
            from workfns import abuse

            signal.signal(signal.SIGINT, signal.default_int_handler)

            async def main():
                async with Runner(workers=1) as runner:
                    # Or asyncio might miss a Ctrl-C while it falls asleep.
                    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
                    await runner.run(abuse.send_a_signal, signal.SIGINT)
                    await asyncio.Event().wait()

            asyncio.run(main())
            """)
        ended.assert_ended(-signal.SIGINT)

    def test_a_worker_that_blocks_signals_does_so_for_its_own_thread(
        self, one: Callable[..., Any]
    ) -> None:
        assert {signal.SIGINT, signal.SIGTERM} <= set(one(abuse.block_signals))
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


class TestStateOfTheInterpreter:
    """What a function changes in its interpreter stays in that worker, and harms no other."""

    @pytest.mark.parametrize(
        "function",
        [
            abuse.replace_streams,
            abuse.remove_streams,
            abuse.close_streams,
            abuse.forget_paths,
            abuse.forget_our_modules,
            abuse.forget_threading,
            abuse.collect_no_garbage,
            abuse.trace_everything,
            abuse.monitor_everything,
            abuse.limit_recursion,
            abuse.switch_rarely,
            abuse.make_warnings_errors,
        ],
        ids=lambda function: function.__name__,
    )
    @pytest.mark.parametrize("failing_call", [False, True], ids=["", "failing"])
    def test_the_worker_goes_on_and_the_program_ends_in_silence(
        self, function: Callable[..., Any], failing_call: bool, program: Program
    ) -> None:
        expect = "ZeroDivisionError" if failing_call else "nothing"
        ended = program(f"""
            import asyncio
            from aiointerpreters import Runner
            from workfns import abuse, values

            async def main():
                async with Runner(workers=1) as runner:
                    await runner.run(abuse.{function.__name__})
                    for n in range(3):
                        assert await runner.run(values.square, n) == n * n
                        assert await runner.run(values.echo, [1, "two", {{3: 4.0}}])
                    if {failing_call}:
                        try:
                            await runner.run(divmod, 1, 0)
                        except ZeroDivisionError as error:
                            print(type(error).__name__)
                    else:
                        print("nothing")

            asyncio.run(main())
            """)
        ended.assert_fine()
        assert ended.out == expect + "\n"

    def test_what_is_printed_to_a_replaced_stream_stays_there(
        self, one: Callable[..., Any], capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert one(abuse.replace_streams) == "into nothing\n"
        one(print, "still into nothing")
        print("here")
        assert capfd.readouterr() == ("here\n", "")

    def test_a_hook_that_is_none_hides_no_error(self, one: Callable[..., Any]) -> None:
        with pytest.raises(ValueError, match="without a hook"):
            one(abuse.set_no_excepthook)
        assert one(abs, -1) == 1

    def test_a_tracer_that_raises_fails_calls_with_its_error(self, one: Callable[..., Any]) -> None:
        one(abuse.trace_and_raise)
        with pytest.raises(LookupError, match="the tracer"):
            one(values.square, 3)
        # CPython takes off a tracer that has raised.
        assert one(values.square, 3) == 9

    def test_any_recursion(self, one: Callable[..., Any]) -> None:
        assert one(abuse.allow_any_recursion, 5_000) == 5_000

    @pytest.mark.parametrize(
        "function", [abuse.forget_all_modules, abuse.break_builtins, abuse.audit_with_errors]
    )
    def test_a_wrecked_worker_fails_its_calls_and_the_others_go_on(
        self, function: Callable[..., Any], program: Program
    ) -> None:
        ended = program(f"""
            import asyncio
            from aiointerpreters import Runner
            from workfns import abuse, failing, values

            async def main():
                async with Runner(workers=1) as wrecked, Runner(workers=1) as other:
                    await wrecked.run(abuse.{function.__name__})
                    for function in (values.square, failing.throw):
                        try:
                            await wrecked.run(function, 3)
                        except Exception as error:
                            print("failed")
                    assert await other.run(values.square, 3) == 9

            asyncio.run(main())
            """)
        assert (ended.status, ended.out) == (0, "failed\n" * 2), ended.err

    def test_an_error_that_can_not_be_told_well_is_told_somehow(
        self, one: Callable[..., Any]
    ) -> None:
        with pytest.raises(InterpreterError, match="ValueError: told somehow"):
            one(abuse.hide_failures_module)


class TestStateOfTheProcess:
    """A process has one working directory and one environment, whoever changes them."""

    def test_the_working_directory_is_everybodys(
        self, one: Callable[..., Any], tmp_path: Path
    ) -> None:
        before = os.getcwd()
        try:
            assert Path(one(abuse.change_directory, str(tmp_path))) == tmp_path
            assert Path.cwd() == tmp_path
        finally:
            os.chdir(before)

    def test_os_environ_is_the_workers_own_but_new_workers_begin_with_its_change(
        self, one: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = "AIO_TEST_ABUSE"
        monkeypatch.setenv(name, "before")
        with Runner(workers=1) as runner:
            assert one(worker.environment_variable, name) == "before"
            asyncio.run(runner.run(abuse.set_environment_variable, name, "changed"))
            assert one(worker.environment_variable, name) == "before"
            assert os.environ[name] == "before"
        with Runner(workers=1) as runner:
            assert asyncio.run(runner.run(worker.environment_variable, name)) == "changed"


class TestTheWorkersEnd:
    def test_a_handler_that_fails_at_exit_is_printed_and_the_runner_ends(
        self, one: Callable[..., Any], trace: Trace, program: Program
    ) -> None:
        ended = program("""
            import asyncio
            from aiointerpreters import Runner
            from workfns import abuse, worker

            async def main():
                async with Runner(workers=1) as runner:
                    await runner.run(worker.mark_at_exit, 1, b"mark")
                    await runner.run(abuse.fail_at_exit)
                    await runner.run(abuse.exit_at_exit)

            asyncio.run(main())
            """)
        assert (ended.status, ended.out) == (0, "mark"), ended.err
        assert ended.err.count("Exception ignored in atexit callback") == 2
        assert "ZeroDivisionError" in ended.err

    @pytest.mark.parametrize("exits", [False, True])
    def test_what_raises_when_it_is_deleted_is_printed_and_the_runner_ends(
        self, exits: bool, program: Program
    ) -> None:
        ended = program(f"""
            import asyncio
            from aiointerpreters import Runner
            from workfns import abuse, values

            with Runner(workers=1) as runner:
                asyncio.run(runner.run(abuse.keep_what_raises_when_deleted, {exits}))
                assert asyncio.run(runner.run(values.square, 3)) == 9
            print("closed")
            """)
        assert (ended.status, ended.out) == (0, "closed\n"), ended.err
        assert "Exception ignored" in ended.err
        assert ("SystemExit" if exits else "LookupError: deleted") in ended.err

    @pytest.mark.skipif(sys.version_info < (3, 14), reason="3.13 may abort: python/cpython#128639")
    def test_a_thread_that_is_started_at_exit_does_not_hold_it_up(self, program: Program) -> None:
        ended = program("""
            import asyncio, os
            from aiointerpreters import Runner
            from workfns import abuse

            wait, announce = os.pipe()
            with Runner(workers=1) as runner:
                asyncio.run(runner.run(abuse.start_a_thread_at_exit, announce))
            print("closed")
            """)
        assert (ended.status, ended.out) == (0, "closed\n"), ended.err

    def test_a_loop_with_pending_tasks(self, program: Program) -> None:
        ended = program("""
            import asyncio
            from aiointerpreters import Runner
            from workfns import abuse

            with Runner(workers=1) as runner:
                assert asyncio.run(runner.run(abuse.leave_a_loop_with_pending_tasks)) == 42
            print("closed")
            """)
        assert (ended.status, ended.out) == (0, "closed\n"), ended.err


class TestARunnerInAWorker:
    """It works; and ends with its worker, if it was not closed."""

    def test_it_is_left_open(self, program: Program) -> None:
        program("""
            import asyncio
            from aiointerpreters import Runner
            from workfns import abuse

            with Runner(workers=2) as runner:
                assert asyncio.run(runner.run(abuse.leave_a_runner_open)) == 1
                assert asyncio.run(runner.run(abs, -2)) == 2
            """).assert_ended(0)

    @pytest.mark.parametrize("close", ["runner.close()", "pass"])
    def test_it_is_left_open_with_work_without_end(self, close: str, program: Program) -> None:
        program(f"""
            import asyncio, os
            from aiointerpreters import Runner
            from workfns import abuse

            announced, announce = os.pipe()
            runner = Runner(workers=1).start()
            assert asyncio.run(runner.run(abuse.leave_a_runner_open, announce)) == 1
            os.read(announced, 1)
            {close}
            """).assert_ended(0)

    def test_it_was_closed_and_is_stopped_with_its_worker(self, program: Program) -> None:
        program("""
            import asyncio, os
            from aiointerpreters import Runner
            from workfns import abuse

            announced, announce = os.pipe()
            runner = Runner(workers=1).start()
            asyncio.run(runner.run(abuse.close_a_runner_at_work, announce))
            os.read(announced, 1)
            """).assert_ended(0)

    @pytest.mark.parametrize("close", [False, True])
    def test_it_has_threads_that_never_end(self, close: bool, program: Program) -> None:
        """Which holds up neither runner."""
        ended = program(f"""
            import asyncio, os
            from aiointerpreters import Runner
            from workfns import abuse

            with Runner(workers=1) as runner:
                call = runner.run(abuse.leave_a_runner_with_a_thread_in_an_event, {close})
                asyncio.run(call)
            os.write(1, b"closed")
            os._exit(5)
            """)
        assert (ended.status, ended.out) == (5, "closed"), ended.err
        assert "eternal" in ended.err
