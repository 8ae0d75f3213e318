"""Runner: starting, calling, running in parallel, ending, preparing its workers."""

import asyncio
import contextvars
import inspect
import os
import tempfile
import threading
from typing import Any

import pytest

from aiointerpreters import (
    BrokenRunner,
    InterpreterError,
    NotShareableError,
    Runner,
    RunnerError,
)
from helpers.gate import Gate, Trace
from helpers.limits import SOON
from helpers.process import LINUX
from helpers.programs import Program
from workfns import failing, values, waiting, worker


class TestCalling:
    def test_run_gives_the_functions_result(self, runner: Runner) -> None:
        async def main() -> None:
            assert await runner.run(values.square, 7) == 49

        asyncio.run(main())

    def test_positional_and_keyword_arguments_arrive(self, runner: Runner) -> None:
        async def main() -> None:
            got = await runner.run(values.everything, 1, "two", three=3, four=(4,))
            assert got == ((1, "two"), {"three": 3, "four": (4,)})
            assert await runner.submit(values.everything) == ((), {})

        asyncio.run(main())

    def test_keyword_arguments_keep_their_order(self, runner: Runner) -> None:
        async def main() -> None:
            names = [f"name_{n}" for n in reversed(range(50))]
            _, kwargs = await runner.run(values.everything, **dict.fromkeys(names))
            assert list(kwargs) == names

        asyncio.run(main())

    def test_keywords_may_have_the_names_of_our_own_parameters(self, runner: Runner) -> None:
        async def main() -> None:
            names = {"fn": 1, "self": 2, "function": 3, "args": 4, "kwargs": 5, "timeout": 6}
            assert await runner.run(values.everything, **names) == ((), names)
            assert await runner.submit(values.everything, **names) == ((), names)
            assert await runner.wrap(values.everything)(**names) == ((), names)

        asyncio.run(main())

    def test_run_gives_a_coroutine_that_starts_when_it_is_awaited(
        self, runner: Runner, trace: Trace
    ) -> None:
        async def main() -> None:
            coroutine = runner.run(waiting.leave_mark, trace.fd)
            assert asyncio.iscoroutine(coroutine)
            assert inspect.isawaitable(coroutine)
            assert inspect.iscoroutinefunction(runner.run)
            await runner.run(values.square, 1)
            coroutine.close()
            await runner.drain()
            assert trace.marks() == b""

        asyncio.run(main())

    def test_submit_starts_at_once_and_gives_a_future_of_the_running_loop(
        self, runner: Runner, gate: Gate
    ) -> None:
        async def main() -> None:
            future = runner.submit(waiting.wait_at, *gate.fds, "done")
            assert isinstance(future, asyncio.Future)
            assert future.get_loop() is asyncio.get_running_loop()
            await gate.reached()
            assert not future.done()
            gate.open()
            assert await future == "done"
            assert future.result() == "done"

        asyncio.run(main())

    def test_several_can_await_one_future(self, runner: Runner, gate: Gate) -> None:
        async def main() -> None:
            with gate:
                future = runner.submit(waiting.wait_at, *gate.fds, "done")

                async def wait() -> object:
                    return await future

                waiters = [asyncio.create_task(wait()) for _ in range(5)]
                await gate.reached()
            assert await asyncio.gather(*waiters, future) == ["done"] * 6

        asyncio.run(main())

    def test_callbacks_run_in_the_context_in_which_they_were_added(self, runner: Runner) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

        async def main() -> None:
            seen = asyncio.get_running_loop().create_future()
            variable.set("outer")
            future = runner.submit(values.square, 3)
            other = contextvars.copy_context()
            other.run(variable.set, "other")
            future.add_done_callback(lambda _: seen.set_result(variable.get()), context=other)
            assert await future == 9
            assert await seen == "other"
            assert variable.get() == "outer"

        asyncio.run(main())

    def test_a_future_calls_back_in_the_loops_thread(self, runner: Runner) -> None:
        async def main() -> None:
            called = asyncio.get_running_loop().create_future()
            future = runner.submit(values.square, 3)
            future.add_done_callback(
                lambda f: called.set_result((f.result(), threading.current_thread()))
            )
            assert await called == (9, threading.current_thread())

        asyncio.run(main())

    def test_many_tasks(self, runner: Runner) -> None:
        async def main() -> None:
            numbers = range(20_000)
            futures = [runner.submit(values.square, n) for n in numbers]
            assert await asyncio.gather(*futures) == [n * n for n in numbers]
            runs = (runner.run(values.square, n) for n in range(3_000))
            assert await asyncio.gather(*runs) == [n * n for n in range(3_000)]

        asyncio.run(main())

    def test_calls_one_after_another(self, runner: Runner) -> None:
        async def main() -> None:
            for n in range(2_000):
                assert await runner.run(values.square, n) == n * n

        asyncio.run(main())


class TestWithAsyncio:
    def test_gather(self, runner: Runner) -> None:
        async def main() -> None:
            got = await asyncio.gather(runner.run(values.add, 5), runner.run(values.add, left=6))
            assert got == [6, 7]

        asyncio.run(main())

    def test_task_group(self, runner: Runner) -> None:
        async def main() -> None:
            square = runner.wrap(values.square)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(square(n)) for n in range(10)]
            assert [task.result() for task in tasks] == [n * n for n in range(10)]

        asyncio.run(main())

    def test_a_failure_in_a_task_group_cancels_the_others(self, runner: Runner, gate: Gate) -> None:
        async def main() -> None:
            with gate:
                with pytest.raises(ExceptionGroup) as caught:
                    async with asyncio.TaskGroup() as group:
                        held = group.create_task(runner.run(waiting.wait_at, *gate.fds))
                        await gate.reached()
                        group.create_task(runner.run(failing.divide_by_zero))
                assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
                assert held.cancelled()

        asyncio.run(main())

    def test_wait_as_completed_and_shield(self, runner: Runner, gate: Gate) -> None:
        async def main() -> None:
            with gate:
                held = runner.submit(waiting.wait_at, *gate.fds, "last")
                quick = runner.submit(values.square, 2)
                done, pending = await asyncio.wait(
                    [held, quick], return_when=asyncio.FIRST_COMPLETED
                )
                assert (done, pending) == ({quick}, {held})
                gate.open()
                assert await asyncio.shield(held) == "last"
                runs = [runner.run(values.square, n) for n in range(5)]
                squares = [await run for run in asyncio.as_completed(runs)]
                assert sorted(squares) == [0, 1, 4, 9, 16]

        asyncio.run(main())

    def test_eager_tasks(self, runner: Runner) -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            tasks = [asyncio.create_task(runner.run(values.square, n)) for n in range(5)]
            assert await asyncio.gather(*tasks) == [0, 1, 4, 9, 16]

        asyncio.run(main())

    def test_the_loop_goes_on_while_workers_compute(self, runner: Runner, gate: Gate) -> None:
        async def main() -> None:
            with gate:
                held = [runner.submit(waiting.wait_at, *gate.fds) for _ in range(2)]
                await gate.reached(2)
                for _ in range(100):
                    await asyncio.sleep(0)
                assert not any(future.done() for future in held)

        asyncio.run(main())


class TestWrap:
    def test_a_wrapped_function_is_awaited_like_the_function_is_called(
        self, runner: Runner
    ) -> None:
        async def main() -> None:
            add = runner.wrap(values.add)
            assert await add(1, 2) == 3
            assert await add(1, right=5) == 6
            assert await add(left=3) == 4

        asyncio.run(main())

    def test_a_wrapped_function_keeps_name_doc_and_signature(self, runner: Runner) -> None:
        add = runner.wrap(values.add)
        assert inspect.iscoroutinefunction(add)
        assert inspect.signature(add) == inspect.signature(values.add)
        assert add.__name__ == "add"
        assert add.__qualname__ == "add"
        assert add.__module__ == values.__name__
        assert add.__doc__ == "Add two numbers."
        assert add.__wrapped__ is values.add  # type: ignore[attr-defined]

    def test_wrap_works_before_the_runner_is_started(self) -> None:
        async def main() -> None:
            runner = Runner(workers=1)
            square = runner.wrap(values.square)
            async with runner:
                assert await square(4) == 16

        asyncio.run(main())

    def test_wrapping_what_has_no_name(self, runner: Runner) -> None:
        from functools import partial

        async def main() -> None:
            assert await runner.wrap(partial(values.add, 10))(5) == 15

        asyncio.run(main())


class TestParallelism:
    @pytest.mark.parametrize("workers", [2, 5])
    def test_as_many_tasks_as_workers_run_at_the_same_time(self, workers: int, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=workers) as runner, gate:
                futures = [runner.submit(waiting.wait_at, *gate.fds) for _ in range(workers)]
                await gate.reached(workers)
                gate.open()
                await asyncio.gather(*futures)

        asyncio.run(main())

    def test_no_more_tasks_than_workers_run_at_the_same_time(
        self, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            async with Runner(workers=2) as runner, gate:
                held = [runner.submit(waiting.wait_at, *gate.fds) for _ in range(2)]
                await gate.reached(2)
                queued = [runner.submit(waiting.leave_mark, trace.fd) for _ in range(10)]
                identities = [runner.submit(worker.identity) for _ in range(100)]
                await asyncio.sleep(0)
                assert trace.marks() == b""
                gate.open()
                await asyncio.gather(*held, *queued)
                assert trace.marks() == b"." * 10
                assert len(set(await asyncio.gather(*identities))) <= 2

        asyncio.run(main())

    def test_two_tasks_can_wait_for_each_other(self) -> None:
        async def main() -> None:
            a_hears, b_tells = os.pipe()
            b_hears, a_tells = os.pipe()
            async with Runner(workers=2) as runner:
                met = await asyncio.gather(
                    runner.run(waiting.meet, a_tells, a_hears, SOON),
                    runner.run(waiting.meet, b_tells, b_hears, SOON),
                )
            for fd in (a_hears, b_tells, b_hears, a_tells):
                os.close(fd)
            assert met == [True, True]

        asyncio.run(main())

    def test_each_worker_has_a_gil_of_its_own(self) -> None:
        async def main(fd: int) -> None:
            meet = waiting.meet_without_giving_up_the_gil
            async with Runner(workers=2) as runner:
                met = await asyncio.gather(
                    runner.run(meet, fd, 0, 1, SOON), runner.run(meet, fd, 1, 0, SOON)
                )
            assert met == [True, True]

        with tempfile.TemporaryFile() as file:
            file.write(bytes(2))
            file.flush()
            asyncio.run(main(file.fileno()))

    def test_tasks_start_in_the_order_in_which_they_were_submitted(
        self, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                marks = [bytes([n]) for n in range(200)]
                for mark in marks:
                    runner.submit(waiting.leave_mark, trace.fd, mark)
                gate.open()
                await held
                await runner.drain()
                assert trace.marks() == b"".join(marks)

        asyncio.run(main())

    def test_a_worker_is_an_interpreter_of_its_own_that_keeps_its_state(self) -> None:
        async def main() -> None:
            worker.calls = 100
            async with Runner(workers=1) as runner:
                assert [await runner.run(worker.count_calls) for _ in range(3)] == [1, 2, 3]
            assert worker.calls == 100

        asyncio.run(main())

    def test_a_worker_can_run_an_event_loop_of_its_own(self, runner: Runner) -> None:
        assert asyncio.run(runner.run(worker.run_an_event_loop)) == 42

    def test_a_worker_can_start_threads(self, runner: Runner) -> None:
        assert asyncio.run(runner.run(worker.run_a_thread)) == 42

    def test_a_worker_can_run_a_subprocess(self, runner: Runner) -> None:
        assert asyncio.run(runner.run(worker.run_a_subprocess)) == "42\n"

    def test_the_functions_of_a_worker_may_wait_for_a_runner_in_vain_only_with_an_error(
        self, program: Program
    ) -> None:
        """A runner inside a worker works, or says that it doesn't; it never hangs."""
        ended = program("""
            import asyncio
            from aiointerpreters import AioInterpretersError, Runner
            from workfns import worker

            async def main():
                async with Runner(workers=1) as runner:
                    try:
                        assert await runner.run(worker.start_a_runner) == 1
                    except (AioInterpretersError, ImportError) as error:
                        print(type(error).__name__, error)
                    assert await runner.run(abs, -2) == 2

            asyncio.run(main())
        """)
        ended.assert_fine()


class TestOptions:
    def test_workers_is_by_default_what_the_process_may_use(self) -> None:
        assert Runner().workers == os.process_cpu_count()
        assert Runner(workers=None).workers == os.process_cpu_count()

    def test_workers_and_name_are_readable(self) -> None:
        runner = Runner(workers=3, name="pages")
        assert (runner.workers, runner.name) == (3, "pages")

    @pytest.mark.parametrize("workers", [0, -1, -(2**70)])
    def test_fewer_than_one_worker_is_a_value_error(self, workers: int) -> None:
        with pytest.raises(ValueError, match="workers"):
            Runner(workers=workers)

    @pytest.mark.parametrize("workers", ["2", 1.5, [1]])
    def test_a_number_of_workers_that_is_no_int_is_a_type_error(self, workers: object) -> None:
        with pytest.raises(TypeError):
            Runner(workers=workers)  # type: ignore[arg-type]

    def test_options_are_given_by_name(self) -> None:
        with pytest.raises(TypeError):
            Runner(3)  # type: ignore[misc]

    def test_a_runner_shows_what_it_is(self) -> None:
        assert "Runner" in repr(Runner(workers=1, name="pages"))


class TestStarting:
    def test_start_gives_the_runner_itself(self) -> None:
        runner = Runner(workers=1)
        assert runner.start() is runner
        assert asyncio.run(runner.run(values.square, 2)) == 4
        runner.close()

    def test_with_start(self) -> None:
        runner = Runner(workers=1)
        with runner.start() as same:
            assert same is runner
            assert asyncio.run(runner.run(values.square, 2)) == 4

    def test_with_starts_what_is_not_started(self) -> None:
        with Runner(workers=1) as runner:
            assert asyncio.run(runner.run(values.square, 2)) == 4

    def test_async_with(self) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                assert await runner.run(values.square, 2) == 4
            async with Runner(workers=1).start() as runner:
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())

    def test_what_is_no_string_in_the_import_path_is_passed_over(self, program: Program) -> None:
        """As Python's own import does."""
        ended = program("""
            import asyncio, pathlib, sys
            sys.path[1:1] = [pathlib.Path("/somewhere"), None, b"bytes"]
            from aiointerpreters import Runner
            from workfns import values, worker

            async def main():
                async with Runner(workers=1) as runner:
                    assert await runner.run(values.square, 3) == 9
                    path = (await runner.run(worker.surroundings))["path"]
                    assert path == [entry for entry in sys.path if type(entry) is str]

            asyncio.run(main())
        """)
        ended.assert_fine()

    def test_starting_twice_is_an_error(self) -> None:
        with Runner(workers=1).start() as runner:
            with pytest.raises(RunnerError):
                runner.start()
            assert asyncio.run(runner.run(values.square, 2)) == 4

    def test_starting_after_closing_is_an_error(self) -> None:
        runner = Runner(workers=1).start()
        runner.close()
        with pytest.raises(RunnerError, match="closed"):
            runner.start()
        with pytest.raises(RunnerError, match="closed"), runner:
            pass

    def test_a_runner_that_is_not_started_says_so(self) -> None:
        async def main() -> None:
            runner = Runner(workers=1)
            with pytest.raises(RunnerError, match="start"):
                await runner.run(values.square, 1)
            with pytest.raises(RunnerError, match="start"):
                runner.submit(values.square, 1)
            with pytest.raises(RunnerError, match="start"):
                await runner.wrap(values.square)(1)

        asyncio.run(main())

    def test_a_closed_runner_says_so(self) -> None:
        async def main() -> None:
            runner = Runner(workers=1).start()
            await runner.aclose()
            with pytest.raises(RunnerError, match="closed"):
                await runner.run(values.square, 1)
            with pytest.raises(RunnerError, match="closed"):
                runner.submit(values.square, 1)

        asyncio.run(main())

    def test_without_a_running_loop_a_runner_says_so(self, runner: Runner) -> None:
        with pytest.raises(RunnerError, match="loop"):
            runner.submit(values.square, 1)
        coroutine = runner.run(values.square, 1)
        with pytest.raises(RunnerError, match="loop"):
            coroutine.send(None)

    def test_errors_of_misuse_are_runtime_errors(self) -> None:
        assert issubclass(RunnerError, RuntimeError)
        assert issubclass(NotShareableError, (RunnerError, TypeError))
        assert issubclass(NotShareableError, TypeError)
        assert issubclass(BrokenRunner, RunnerError)
        assert not issubclass(InterpreterError, RunnerError)


class TestClosing:
    def test_leaving_with_lets_accepted_work_finish(self, gate: Gate, trace: Trace) -> None:
        """In a loop, `with` does not block: the results still arrive."""

        async def main() -> None:
            with gate:
                with Runner(workers=1).start() as runner:
                    held = runner.submit(waiting.wait_at, *gate.fds, "held")
                    await gate.reached()
                    queued = [runner.submit(waiting.leave_mark, trace.fd) for _ in range(5)]
                with pytest.raises(RunnerError, match="clos"):
                    runner.submit(values.square, 1)
                assert not held.done()
                gate.open()
                assert await held == "held"
                assert await asyncio.gather(*queued) == [b"."] * 5

        asyncio.run(main())

    def test_leaving_async_with_waits_for_accepted_work(self, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(workers=2) as runner:
                futures = [runner.submit(waiting.leave_mark, trace.fd) for _ in range(50)]
            assert trace.marks() == b"." * 50
            assert await asyncio.gather(*futures) == [b"."] * 50

        asyncio.run(main())

    def test_after_aclose_every_future_is_done(self) -> None:
        async def main() -> None:
            runner = Runner(workers=2).start()
            futures = [runner.submit(values.square, n) for n in range(500)]
            await runner.aclose()
            assert all(future.done() for future in futures)
            assert [future.result() for future in futures] == [n * n for n in range(500)]

        asyncio.run(main())

    def test_close_without_a_loop_waits_for_accepted_work(self, gate: Gate, trace: Trace) -> None:
        runner = Runner(workers=1).start()

        async def main() -> None:
            runner.submit(waiting.wait_at, *gate.fds)
            await gate.reached()
            for _ in range(20):
                runner.submit(waiting.leave_mark, trace.fd)

        with gate:
            asyncio.run(main())
        runner.close()
        assert trace.marks() == b"." * 20

    def test_close_in_a_loop_does_not_block_it(self, gate: Gate) -> None:
        async def main() -> None:
            with gate:
                runner = Runner(workers=1).start()
                held = runner.submit(waiting.wait_at, *gate.fds, "held")
                await gate.reached()
                runner.close()
                gate.open()
                assert await held == "held"
                await runner.aclose()

        asyncio.run(main())

    def test_closing_is_idempotent(self) -> None:
        async def main() -> None:
            runner = Runner(workers=1).start()
            runner.close()
            runner.close()
            await runner.aclose()
            await asyncio.gather(runner.aclose(), runner.aclose())
            runner.close(cancel_pending=True)
            return runner

        asyncio.run(main()).close()

    def test_closing_inside_the_block_is_fine(self) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                await runner.aclose()
            with Runner(workers=1) as runner:
                runner.close()

        asyncio.run(main())
        with Runner(workers=1) as runner:
            runner.close()

    def test_a_runner_that_was_never_started_can_be_closed(self) -> None:
        runner = Runner(workers=1)
        runner.close()
        asyncio.run(Runner(workers=1).aclose())

    def test_cancel_pending_cancels_what_is_queued_and_finishes_what_runs(
        self, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            with gate:
                runner = Runner(workers=1).start()
                held = runner.submit(waiting.wait_at, *gate.fds, "held")
                await gate.reached()
                queued = [runner.submit(waiting.leave_mark, trace.fd) for _ in range(10)]
                closing = asyncio.create_task(runner.aclose(cancel_pending=True))
                got = await asyncio.gather(*queued, return_exceptions=True)
                assert {type(error) for error in got} == {asyncio.CancelledError}
                assert not held.done()
                gate.open()
                assert await held == "held"
                await closing
                assert trace.marks() == b""

        asyncio.run(main())

    def test_an_exception_in_the_block_cancels_what_is_queued(
        self, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            with gate:
                with pytest.raises(LookupError, match="in the block"):
                    with Runner(workers=1) as runner:
                        runner.submit(waiting.wait_at, *gate.fds)
                        await gate.reached()
                        queued = [runner.submit(waiting.leave_mark, trace.fd) for _ in range(10)]
                        raise LookupError("in the block")
                got = await asyncio.gather(*queued, return_exceptions=True)
                assert {type(error) for error in got} == {asyncio.CancelledError}
                gate.open()
                await runner.aclose()
                assert trace.marks() == b""

        asyncio.run(main())

    def test_an_exception_in_the_block_interrupts_what_runs(self, gate: Gate) -> None:
        async def main() -> None:
            with pytest.raises(LookupError, match="in the block"):
                async with Runner(workers=2) as runner:
                    spinning = [
                        runner.submit(waiting.announce_and_spin, gate.fds[0]) for _ in range(2)
                    ]
                    queued = runner.submit(values.square, 1)
                    await gate.reached(2)
                    raise LookupError("in the block")
            await asyncio.wait([*spinning, queued])
            assert queued.cancelled()

        asyncio.run(main())

    def test_threads_that_tasks_left_behind_are_waited_for(self, gate: Gate, trace: Trace) -> None:
        async def main() -> None:
            runner = Runner(workers=1).start()
            with gate:
                await runner.run(worker.leave_a_thread_behind, *gate.fds, trace.fd)
                await gate.reached()
                closing = asyncio.create_task(runner.aclose())
                await asyncio.sleep(0)
                assert not closing.done()
            await closing
            assert trace.marks() == b"t"

        asyncio.run(main())

    def test_what_tasks_registered_at_exit_runs_when_their_worker_ends(self, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                await runner.run(worker.mark_at_exit, trace.fd, b"1")
                await runner.run(worker.mark_at_exit, trace.fd, b"2")
                assert trace.marks() == b""
            assert trace.marks() == b"21"

        asyncio.run(main())

    def test_aclose_can_be_cancelled_and_awaited_again(self, gate: Gate) -> None:
        async def main() -> None:
            runner = Runner(workers=1).start()
            with gate:
                held = runner.submit(waiting.wait_at, *gate.fds, "held")
                await gate.reached()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await runner.aclose()
                assert not held.done()
                again = asyncio.create_task(runner.aclose())
                await asyncio.sleep(0)
                assert not again.done()
            assert await held == "held"
            await again

        asyncio.run(main())

    def test_two_runners_do_not_disturb_each_other(self) -> None:
        async def main() -> None:
            async with Runner(workers=1) as outer:
                async with Runner(workers=1) as inner:
                    squares = [
                        runner.submit(values.square, n)
                        for n in range(50)
                        for runner in (inner, outer)
                    ]
                assert await asyncio.gather(*squares) == [n * n for n in range(50) for _ in "12"]
                assert await outer.run(values.square, 3) == 9

        asyncio.run(main())

    @pytest.mark.skipif(not LINUX, reason="counts threads in /proc")
    def test_closing_ends_the_workers_threads(self, program: Program) -> None:
        program("""
            import asyncio
            from aiointerpreters import Runner
            from helpers.process import eventually, native_threads

            before = native_threads()
            runner = Runner(workers=4).start()
            assert asyncio.run(runner.run(abs, -1)) == 1
            assert native_threads() >= before + 4
            runner.close()
            assert eventually(lambda: native_threads() <= before)
        """).assert_fine()


class TestDrain:
    def test_drain_waits_for_all_accepted_work_and_leaves_the_runner_usable(
        self, trace: Trace
    ) -> None:
        async def main() -> None:
            async with Runner(workers=2) as runner:
                for _ in range(100):
                    runner.submit(waiting.leave_mark, trace.fd)
                await runner.drain()
                assert trace.marks() == b"." * 100
                assert await runner.run(values.square, 2) == 4
                await runner.drain()

        asyncio.run(main())

    def test_after_drain_every_future_of_this_loop_is_done(self, runner: Runner) -> None:
        async def main() -> None:
            for n in range(300):
                futures = [runner.submit(values.square, k) for k in range(n % 30 + 1)]
                await runner.drain()
                assert all(future.done() for future in futures)

        asyncio.run(main())

    def test_drain_waits_while_something_runs(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                draining = asyncio.create_task(runner.drain())
                for _ in range(100):
                    await asyncio.sleep(0)
                assert not draining.done()
                gate.open()
                await draining
                assert held.done()

        asyncio.run(main())

    def test_drain_of_an_idle_runner_returns(self, runner: Runner) -> None:
        asyncio.run(runner.drain())

    def test_several_may_drain_at_once(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                draining = [asyncio.create_task(runner.drain()) for _ in range(5)]
                await asyncio.sleep(0)
                draining[0].cancel()
                gate.open()
                await asyncio.gather(*draining[1:])

        asyncio.run(main())

    def test_drain_does_not_mind_failures(self, runner: Runner) -> None:
        async def main() -> None:
            future = runner.submit(failing.divide_by_zero)
            await runner.drain()
            assert isinstance(future.exception(), ZeroDivisionError)

        asyncio.run(main())


class TestPreparing:
    def test_the_initializer_runs_once_in_each_worker_before_its_first_task(
        self, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            async with Runner(
                workers=3, initializer=worker.prepare_with_mark, initargs=(trace.fd,)
            ) as runner:
                with gate:
                    futures = [
                        runner.submit(waiting.mark_and_wait, trace.fd, b"t", *gate.fds)
                        for _ in range(3)
                    ]
                    await gate.reached(3)
                await asyncio.gather(*futures)
                await asyncio.gather(*(runner.run(values.square, n) for n in range(100)))
            marks = trace.marks()
            assert sorted(marks) == sorted(b"iiittt")
            assert marks.startswith(b"i")

        asyncio.run(main())

    def test_the_initializer_prepares_its_worker_with_the_arguments_given(self) -> None:
        async def main() -> None:
            async with Runner(
                workers=1, initializer=worker.prepare, initargs=("a", {"b": [1]})
            ) as runner:
                assert await runner.run(worker.what_was_prepared) == [("a", {"b": [1]})]
            assert worker.prepared == []

        asyncio.run(main())

    def test_preloaded_modules_are_imported_before_the_first_task(self) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                assert not await runner.run(worker.has_module, "colorsys")
            async with Runner(workers=1, preload=["colorsys", "xml.dom.minidom"]) as runner:
                assert await runner.run(worker.has_module, "colorsys")
                assert await runner.run(worker.has_module, "xml.dom.minidom")

        asyncio.run(main())

    @pytest.mark.parametrize("workers", [1, 4])
    def test_an_initializer_that_raises_breaks_the_runner(self, workers: int) -> None:
        async def main() -> None:
            async with Runner(
                workers=workers, initializer=worker.fail_to_prepare, initargs=("no luck",)
            ) as runner:
                for _ in range(3):
                    with pytest.raises(BrokenRunner) as caught:
                        await runner.run(values.square, 1)
                    assert isinstance(caught.value.__cause__, LookupError)
                    assert caught.value.__cause__.args == ("no luck",)
                await runner.drain()

        asyncio.run(main())

    def test_calls_that_are_pending_when_a_runner_breaks_fail_with_it(self) -> None:
        async def main() -> None:
            async with Runner(workers=2, initializer=worker.fail_to_prepare) as runner:
                calls = (runner.run(values.square, n) for n in range(20))
                errors = await asyncio.gather(*calls, return_exceptions=True)
                assert {type(error) for error in errors} == {BrokenRunner}

        asyncio.run(main())

    def test_a_preload_that_fails_breaks_the_runner(self) -> None:
        async def main() -> None:
            async with Runner(workers=2, preload=["no_such_module_anywhere"]) as runner:
                with pytest.raises(BrokenRunner) as caught:
                    await runner.run(values.square, 1)
                assert isinstance(caught.value.__cause__, ModuleNotFoundError)
                assert caught.value.__cause__.name == "no_such_module_anywhere"

        asyncio.run(main())

    def test_an_initializer_that_exits_breaks_the_runner_and_nothing_else(self) -> None:
        async def main() -> None:
            async with Runner(workers=2, initializer=worker.exit_while_preparing) as runner:
                with pytest.raises(BrokenRunner):
                    await runner.run(values.square, 1)

        asyncio.run(main())

    def test_a_broken_runner_is_a_broken_executor(self) -> None:
        from concurrent.futures import BrokenExecutor

        assert issubclass(BrokenRunner, BrokenExecutor)

    def test_an_initializer_that_cannot_be_sent_is_an_error_at_the_start(self) -> None:
        with pytest.raises(RunnerError, match="coroutine"):
            Runner(workers=1, initializer=values.coroutine_function).start()

    def test_initargs_that_cannot_be_sent_are_an_error_at_the_start(self) -> None:
        with pytest.raises(NotShareableError, match="lock"):
            Runner(workers=1, initializer=worker.prepare, initargs=(threading.Lock(),)).start()


def test_a_forked_child_says_that_the_runner_is_not_its_own(program: Program) -> None:
    ended = program(
        """
        import asyncio, os, sys
        from aiointerpreters import Runner, RunnerError
        from helpers.process import at_rest

        async def in_child(runner):
            try:
                runner.start()
            except RunnerError:
                pass
            else:
                raise AssertionError("no error")
            try:
                runner.submit(abs, -1)
            except RunnerError as error:
                assert "fork" in str(error), error
            else:
                raise AssertionError("no error")
            try:
                await runner.run(abs, -1)
            except RunnerError as error:
                assert "fork" in str(error), error
            else:
                raise AssertionError("no error")

        runner = Runner(workers=2).start()
        assert asyncio.run(runner.run(abs, -1)) == 1
        assert at_rest(runner)
        child = os.fork()
        if not child:
            asyncio.run(in_child(runner))
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert asyncio.run(runner.run(abs, -2)) == 2
        runner.close()
        """,
        flags=["-W", "ignore::DeprecationWarning"],
    )
    ended.assert_fine()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": "3"}, "workers must be an integer or None, not str"),
        ({"initializer": 5}, "initializer must be callable, not int"),
        ({"initargs": 5}, "initargs must be a tuple of arguments, not int"),
        ({"preload": 5}, "preload must be a tuple of names of modules, not int"),
        ({"preload": [1]}, "preload must be names of modules: 1 is none"),
    ],
)
def test_options_of_a_wrong_type_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Runner(**options)


def test_an_initarg_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(NotShareableError, match=r"initargs\[1\]: lock cannot be sent"):
        Runner(initializer=print, initargs=(1, threading.Lock())).start()


@pytest.mark.parametrize("attempt", range(3))
def test_workers_may_import_datetime_at_the_same_time(program: Program, attempt: int) -> None:
    ended = program(
        """
        import asyncio
        import importlib
        from aiointerpreters import Runner

        async def main():
            async with Runner(workers=4) as runner:
                calls = (runner.run(importlib.import_module, "datetime") for _ in range(16))
                await asyncio.gather(*calls, return_exceptions=True)  # modules can't be sent

        if __name__ == "__main__":
            asyncio.run(main())
        """
    )

    ended.assert_fine()
