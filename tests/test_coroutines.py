"""`async def` functions in workers: many share a worker's event loop."""

import asyncio
import functools
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import (
    BrokenRunner,
    InterpreterError,
    NotShareableError,
    Queue,
    Runner,
    RunnerError,
    get_module_info,
)
from helpers.gate import Gate, Signals, Trace
from helpers.limits import SOON
from helpers.process import LINUX, eventually, native_threads, open_fds, thread_names
from helpers.programs import Program
from workfns import coroutines, values, waiting, worker


class TestCalls:
    CALLABLES = (
        pytest.param(coroutines.add, (20, 22), id="function"),
        pytest.param(functools.partial(coroutines.add, 20), (22,), id="partial"),
        pytest.param(coroutines.Base.twice, (21,), id="static method"),
        pytest.param(coroutines.Base(40).add, (2,), id="bound method"),
        pytest.param(coroutines.Base(40), (2,), id="instance with async __call__"),
        pytest.param(coroutines.awaitable_of, (42,), id="function that returns an awaitable"),
        pytest.param(asyncio.sleep, (0, 42), id="asyncio's own"),
    )

    @pytest.mark.parametrize(("function", "args"), CALLABLES)
    def test_what_is_called_like_a_coroutine_function_can_be_run(
        self, function: Callable[..., Any], args: tuple[Any, ...], call: Callable[..., Any]
    ) -> None:
        assert call(function, *args) == 42
        assert call(function, *args) == 42

    def test_a_class_method(self, call: Callable[..., Any]) -> None:
        assert call(coroutines.Base.made, 7).base == 7

    def test_keyword_arguments(self, call: Callable[..., Any]) -> None:
        assert call(coroutines.add, right="b", left="a") == "ab"

    def test_a_closure_goes_by_value(self, call: Callable[..., Any]) -> None:
        pytest.importorskip("cloudpickle")
        assert call(coroutines.adder(40), 2) == 42

    def test_wrap(self, runner: Runner) -> None:
        add = runner.wrap(coroutines.add)
        assert asyncio.run(add(20, 22)) == 42  # type: ignore[comparison-overlap]

    def test_by_the_names_that_get_module_info_gives(self, runner: Runner) -> None:
        info = get_module_info(coroutines.add)
        assert asyncio.run(runner.run_module_function(info, 20, 22)) == 42

    def test_large_values(self, call: Callable[..., Any]) -> None:
        value = [bytes(1_000_000), "x" * 1_000_000, {"view": bytearray(100_000)}]
        assert call(coroutines.echo, value) == value
        assert bytes(call(coroutines.echo, memoryview(b"x" * 100_000))) == b"x" * 100_000

    def test_functions_of_the_main_script(self, program: Program) -> None:
        program(
            """
            import asyncio
            from aiointerpreters import Runner, get_module_info

            async def double(number):
                await asyncio.sleep(0)
                return 2 * number

            async def main():
                async with Runner(workers=1) as runner:
                    print(await runner.run(double, 21))
                    print(await runner.run_module_function(get_module_info(double), 4))

            if __name__ == "__main__":
                asyncio.run(main())
            """
        ).assert_fine()

    @pytest.mark.parametrize(
        "function",
        [coroutines.generate, functools.partial(coroutines.generate)],
    )
    def test_an_asynchronous_generator_function_is_refused_with_a_hint(
        self, function: Callable[..., Any], call: Callable[..., Any], runner: Runner
    ) -> None:
        with pytest.raises(RunnerError, match="stream"):
            call(function)
        with pytest.raises(RunnerError, match="stream"):
            call(get_module_info(coroutines.generate))
        if not isinstance(function, functools.partial):
            with pytest.raises(RunnerError, match="stream"):
                runner.wrap(function)

    def test_a_coroutine_function_is_no_initializer(self) -> None:
        with pytest.raises(RunnerError, match="coroutine function"):
            Runner(workers=1, initializer=coroutines.add).start()


class TestErrors:
    def test_an_exception_arrives_as_itself(self, call: Callable[..., Any]) -> None:
        with pytest.raises(ValueError, match="some text") as caught:
            call(coroutines.fail, "some text")
        assert caught.value.__notes__ == ["noted"]
        assert isinstance(caught.value.__cause__, KeyError)
        assert "in fail" in str(caught.value.__cause__.__cause__)

    @pytest.mark.parametrize(
        "name", ["KeyboardInterrupt", "SystemExit", "CancelledError", "GeneratorExit"]
    )
    def test_what_would_be_mistaken_fails_that_call_only(
        self, name: str, call: Callable[..., Any]
    ) -> None:
        with pytest.raises(InterpreterError, match="text") as caught:
            call(coroutines.raise_it, name)
        assert caught.value.type_name.endswith(name)
        assert call(coroutines.add, 1, 2) == 3

    def test_a_coroutine_that_cancels_itself(self, call: Callable[..., Any]) -> None:
        with pytest.raises(InterpreterError, match="CancelledError"):
            call(coroutines.cancel_itself)

    def test_an_interrupted_that_nobody_asked_for(self, call: Callable[..., Any]) -> None:
        with pytest.raises(InterpreterError, match="Interrupted"):
            call(coroutines.raise_interrupted)

    @pytest.mark.parametrize("method", ["send", "throw", "close"])
    def test_a_coroutine_that_touches_its_own_call(
        self, method: str, call: Callable[..., Any]
    ) -> None:
        assert "already executing" in call(coroutines.touch_its_own_call, method)
        assert call(coroutines.add, 1, 2) == 3

    def test_a_result_that_cannot_cross(self, call: Callable[..., Any]) -> None:
        with pytest.raises(NotShareableError, match="result: lock"):
            call(coroutines.return_a_lock)

    def test_an_argument_that_cannot_cross(self, call: Callable[..., Any]) -> None:
        with pytest.raises(NotShareableError, match=r"args\[0\]"):
            call(coroutines.echo, threading.Lock())

    def test_what_is_no_awaitable(self, call: Callable[..., Any]) -> None:
        with pytest.raises(TypeError, match="await"):
            call(coroutines.not_awaitable)

    def test_wrong_arguments(self, call: Callable[..., Any]) -> None:
        with pytest.raises(TypeError, match="argument"):
            call(coroutines.echo, 1, 2, 3)

    def test_a_worker_in_which_asyncio_cannot_be_imported(self) -> None:
        async def main() -> None:
            async with Runner(workers=1, initializer=coroutines.break_asyncio) as runner:
                calls = (runner.run(coroutines.add, n) for n in range(5))
                for outcome in await asyncio.gather(*calls, return_exceptions=True):
                    assert isinstance(outcome, ImportError), outcome
                assert await runner.run(values.square, 3) == 9
                with pytest.raises(ImportError):
                    await runner.run(coroutines.add, 1)

        asyncio.run(main())

    def test_for_want_of_a_descriptor_a_call_fails_and_the_next_one_does_not(
        self, program: Program
    ) -> None:
        ended = program(
            """
            import asyncio, contextlib, os, resource
            from aiointerpreters import InterpreterError, Runner
            from workfns import coroutines, failing

            async def main():
                async with Runner(workers=1, concurrency=2) as runner:
                    with contextlib.suppress(ZeroDivisionError):
                        await runner.run(failing.divide_by_zero)
                    taken = []
                    with contextlib.suppress(OSError):
                        while True:
                            taken.append(os.dup(0))
                    calls = [runner.submit(coroutines.add, n) for n in range(5)]
                    await asyncio.wait(calls)
                    for fd in taken:
                        os.close(fd)
                    assert all(type(call.exception()) is InterpreterError for call in calls)
                    print(calls[0].exception())
                    assert await runner.run(coroutines.add, 1, 2) == 3

            resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
            asyncio.run(main())
            """
        )
        ended.assert_fine()
        assert "no room for" in ended.out

    def test_a_worker_that_cannot_start(self) -> None:
        async def main() -> None:
            runner = Runner(workers=2, initializer=worker.fail_to_prepare)
            with runner.start():
                calls = [runner.submit(coroutines.add, n) for n in range(5)]
                for outcome in await asyncio.gather(*calls, return_exceptions=True):
                    assert isinstance(outcome, BrokenRunner), outcome
                with pytest.raises(BrokenRunner):
                    runner.submit(coroutines.add, 1)

        asyncio.run(main())


class TestSharingALoop:
    def test_a_hundred_wait_at_one_gate_in_one_worker(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                calls = [runner.submit(coroutines.wait_at, *gate.fds, n) for n in range(100)]
                await gate.reached(100)
                gate.open()
                assert await asyncio.gather(*calls) == list(range(100))

        asyncio.run(main())

    def test_a_worker_has_one_loop_on_one_thread(self) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                found = {await runner.run(coroutines.identity) for _ in range(5)}
                calls = (runner.run(coroutines.identity) for _ in range(5))
                found |= set(await asyncio.gather(*calls))
                assert len(found) == 1
                (_, thread, _), *_ = found
                assert thread != await runner.run(worker.identity)

        asyncio.run(main())

    def test_no_more_than_allowed_at_a_time(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1, concurrency=3) as runner, gate:
                calls = [runner.submit(coroutines.wait_at, *gate.fds, n) for n in range(10)]
                await gate.reached(3)
                await runner.run(values.square, 1)
                assert not gate.more_arrived()
                gate.open()
                assert await asyncio.gather(*calls) == list(range(10))
                assert await runner.run(coroutines.highest_peak) == 3

        asyncio.run(main())

    def test_they_are_spread_over_the_workers(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=3) as runner, gate:
                calls = [runner.submit(coroutines.wait_and_identify, *gate.fds) for _ in range(30)]
                await gate.reached(30)
                more = [runner.submit(coroutines.wait_and_identify, *gate.fds) for _ in range(30)]
                await gate.reached(30)
                gate.open()
                found = Counter(await asyncio.gather(*calls, *more))
                assert sorted(found.values()) == [20, 20, 20]

        asyncio.run(main())

    def test_those_that_wait_for_a_place_come_in_order(self, gate: Gate, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(workers=1, concurrency=1) as runner, gate:
                runner.submit(coroutines.wait_at, *gate.fds)
                await gate.reached()
                marks = [bytes([n]) for n in range(50)]
                calls = [runner.submit(coroutines.leave_mark, trace.fd, mark) for mark in marks]
                gate.open()
                await asyncio.gather(*calls)
                assert trace.marks() == b"".join(marks)

        asyncio.run(main())

    def test_they_go_on_while_a_plain_call_spins_in_the_same_worker(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                spinning = runner.submit(coroutines.spin_until_flag, gate.fds[0])
                await gate.reached()
                await runner.run(coroutines.set_flag)
                assert await spinning == "saw it"

        asyncio.run(main())

    def test_plain_calls_go_on_while_coroutines_wait(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                waiting_ones = [runner.submit(coroutines.wait_at, *gate.fds) for _ in range(10)]
                await gate.reached(10)
                assert await runner.run(values.square, 7) == 49
                gate.open()
                await asyncio.gather(*waiting_ones)

        asyncio.run(main())

    def test_each_runs_in_a_context_of_its_own(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                names = [str(n) for n in range(10)]
                calls = [runner.submit(coroutines.set_context, name, *gate.fds) for name in names]
                await gate.reached(10)
                gate.open()
                assert await asyncio.gather(*calls) == [("unset", name) for name in names]
                later = await runner.run(coroutines.set_context, "later", *gate.fds)
                assert later == ("unset", "later")

        asyncio.run(main())

    def test_asyncio_is_not_loaded_in_a_worker_that_runs_no_coroutine(self) -> None:
        def loops() -> int:
            # Since 3.14 the system hears of it when Python renames a thread.
            return sum(name in {"aio-loop", "loop"} for name in thread_names()) if LINUX else 0

        async def main() -> None:
            async with Runner(workers=1) as runner:
                before = loops()
                assert await runner.run(values.square, 2) == 4
                assert not await runner.run(worker.has_module, "asyncio")
                assert loops() == before
                await runner.run(asyncio.sleep, 0)
                assert await runner.run(worker.has_module, "asyncio")
                if LINUX:
                    assert loops() == before + 1

        asyncio.run(main())

    def test_a_task_shows_the_functions_name_and_stack(self, call: Callable[..., Any]) -> None:
        text, stack = call(coroutines.describe_own_task)
        assert "describe_own_task" in text
        assert "describe_own_task" in stack

    def test_many_calls(self, runner: Runner) -> None:
        async def main() -> None:
            calls = (runner.run(coroutines.add, n, 1) for n in range(2_000))
            assert await asyncio.gather(*calls) == [n + 1 for n in range(2_000)]

        asyncio.run(main())


class TestCancelling:
    @pytest.fixture(autouse=True)
    def _watch(self, silent: Callable[[], None]) -> None:
        self.silent = silent

    def test_one_that_waits_for_a_place_never_runs(self, gate: Gate, trace: Trace) -> None:
        async def main() -> None:
            self.silent()
            async with Runner(workers=1, concurrency=1) as runner, gate:
                held = runner.submit(coroutines.wait_at, *gate.fds, "held")
                await gate.reached()
                first, second, third = (
                    runner.submit(coroutines.leave_mark, trace.fd, mark)
                    for mark in (b"1", b"2", b"3")
                )
                assert first.cancel()
                assert third.cancel()
                for cancelled in (first, third):
                    with pytest.raises(asyncio.CancelledError):
                        await cancelled
                gate.open()
                await second
                assert await held == "held"
            assert trace.marks() == b"2"

        asyncio.run(main())

    def test_one_that_runs_gets_cancelled_error_and_cleans_up(
        self, gate: Gate, signals: Signals
    ) -> None:
        async def main() -> None:
            self.silent()
            async with Runner(workers=1) as runner, gate:
                call = asyncio.create_task(
                    runner.run(coroutines.mark_cancellation, *gate.fds, signals.fd)
                )
                await gate.reached()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                assert await signals.arrive(2) == b"cf"
                await runner.drain()
                assert await runner.run(coroutines.add, 1, 2) == 3

        asyncio.run(main())

    def test_only_that_one_is_cancelled(self, gate: Gate, signals: Signals) -> None:
        async def main() -> None:
            self.silent()
            async with Runner(workers=1) as runner, gate:
                others = [runner.submit(coroutines.wait_at, *gate.fds, n) for n in range(10)]
                call = runner.submit(coroutines.mark_cancellation, *gate.fds, signals.fd)
                await gate.reached(11)
                call.cancel()
                assert await signals.arrive(2) == b"cf"
                gate.open()
                assert await asyncio.gather(*others) == list(range(10))

        asyncio.run(main())

    def test_by_a_timeout(self, gate: Gate, signals: Signals) -> None:
        async def main() -> None:
            self.silent()

            async def expire_then(limit: asyncio.Timeout) -> None:
                await gate.reached()
                limit.reschedule(0)

            async with Runner(workers=1) as runner, gate:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(None) as limit:
                        call = runner.run(coroutines.mark_cancellation, *gate.fds, signals.fd)
                        expiring = asyncio.create_task(expire_then(limit))
                        await call
                await expiring
                assert await signals.arrive(2) == b"cf"

        asyncio.run(main())

    def test_by_the_failure_of_a_task_group(self, gate: Gate, signals: Signals) -> None:
        async def main() -> None:
            self.silent()

            async def fail_then() -> None:
                await gate.reached()
                raise LookupError

            async with Runner(workers=2) as runner, gate:
                with pytest.raises(ExceptionGroup):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(
                            runner.run(coroutines.mark_cancellation, *gate.fds, signals.fd)
                        )
                        group.create_task(fail_then())
                assert await signals.arrive(2) == b"cf"

        asyncio.run(main())

    def test_one_that_swallows_it_runs_to_its_end(self, gate: Gate, signals: Signals) -> None:
        async def main() -> None:
            self.silent()
            async with Runner(workers=1) as runner, gate:
                call = runner.submit(coroutines.swallow_one_cancellation, *gate.fds, signals.fd)
                await gate.reached()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                assert await signals.arrive() == b"e"
                await runner.drain()

        asyncio.run(main())

    def test_as_soon_as_it_has_been_submitted(self, trace: Trace) -> None:
        async def main() -> None:
            self.silent()
            async with Runner(workers=2) as runner:
                await runner.run(coroutines.add, 1)
                for _ in range(10):
                    for _ in range(300):
                        runner.submit(asyncio.sleep, 3600).cancel()
                    calls = [runner.submit(asyncio.sleep, 3600) for _ in range(300)]
                    await asyncio.sleep(0)
                    for call in calls:
                        call.cancel()
                await runner.drain()
                assert await runner.run(coroutines.add, 1, 2) == 3

        asyncio.run(main())

    def test_one_that_keeps_the_loop_is_interrupted(self, gate: Gate, signals: Signals) -> None:
        async def main() -> None:
            self.silent()
            async with Runner(workers=1) as runner, gate:
                other = runner.submit(coroutines.wait_at, *gate.fds, "other")
                await gate.reached()
                for _ in range(5):
                    call = runner.submit(coroutines.spin, gate.fds[0], signals.fd)
                    await gate.reached()
                    call.cancel()
                    assert await signals.arrive(2) == b"cf"
                gate.open()
                assert await other == "other"
                await runner.drain()

        asyncio.run(main())

    def test_one_that_blocks_the_loop_in_a_queue_is_interrupted(
        self, gate: Gate, signals: Signals
    ) -> None:
        async def main() -> None:
            self.silent()
            async with Runner(workers=1) as runner, gate:
                queue: Queue[int] = Queue()
                call = runner.submit(coroutines.block_in_get, queue, gate.fds[0], signals.fd)
                await gate.reached()
                call.cancel()
                assert await signals.arrive() == b"c"
                queue.put(1)
                assert await runner.run(coroutines.add, 1, 2) == 3
                assert queue.qsize() == 1

        asyncio.run(main())

    def test_while_a_plain_call_is_cancelled_nothing_else_is(
        self, gate: Gate, signals: Signals
    ) -> None:
        async def main() -> None:
            self.silent()
            async with Runner(workers=1) as runner, gate:
                plain = runner.submit(waiting.wait_at, *gate.fds)
                call = runner.submit(coroutines.wait_at, *gate.fds, "kept")
                await gate.reached(2)
                plain.cancel()
                assert await runner.run(coroutines.add, 1, 2) == 3
                gate.open()
                assert await call == "kept"

        asyncio.run(main())


class TestInside:
    def test_gather(self, call: Callable[..., Any]) -> None:
        assert call(coroutines.gather_squares, 50) == [n * n for n in range(50)]

    def test_a_task_group_that_fails(self, call: Callable[..., Any], trace: Trace) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            call(coroutines.fail_in_a_group, trace.fd)
        assert isinstance(caught.value.exceptions[0], LookupError)
        assert trace.marks() == b"w"

    def test_timeout(self, call: Callable[..., Any]) -> None:
        assert call(coroutines.time_out_inside) == "timed out"

    def test_to_thread(self, call: Callable[..., Any]) -> None:
        loops, others = call(coroutines.identity_of_a_thread)
        assert loops != others

    def test_a_subprocess(self, call: Callable[..., Any]) -> None:
        assert call(coroutines.run_a_subprocess) == "42"

    def test_queues(self, runner: Runner) -> None:
        async def main() -> None:
            source: Queue[int] = Queue(3)
            target: Queue[int] = Queue(3)
            doubling = runner.submit(coroutines.double_all, source, target)

            async def feed() -> None:
                for number in [*range(500), -1]:
                    await source.aput(number)

            feeding = asyncio.create_task(feed())
            assert [await target.aget() for _ in range(500)] == [2 * n for n in range(500)]
            await feeding
            assert await doubling == 500

        asyncio.run(main())

    def test_queues_between_coroutines_of_several_workers(self) -> None:
        async def main() -> None:
            async with Runner(workers=2) as runner:
                queues: list[Queue[int]] = [Queue(2) for _ in range(9)]
                stages = [
                    runner.submit(coroutines.double_all, source, target)
                    for source, target in itertools.pairwise(queues)
                ]

                async def feed() -> None:
                    for _ in range(100):
                        await queues[0].aput(1)

                feeding = asyncio.create_task(feed())
                assert [await queues[-1].aget() for _ in range(100)] == [2**8] * 100
                await feeding
                for queue in queues[:-1]:
                    await queue.aput(-1)
                assert await asyncio.gather(*stages) == [100] * 8

        asyncio.run(main())


class TestTasksLeftBehind:
    def test_they_go_on_as_long_as_the_worker(self, gate: Gate, signals: Signals) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                left = await runner.run(coroutines.leave_a_task, *gate.fds, signals.fd)
                assert left == "left it"
                await gate.reached()
                await runner.drain()
                gate.open()
                assert await signals.arrive() == b"d"

        asyncio.run(main())

    def test_they_are_cancelled_at_the_end(self, gate: Gate, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                await runner.run(coroutines.leave_a_task, *gate.fds, trace.fd)
                await gate.reached()
                await runner.aclose()
                assert trace.marks() == b"c"

        asyncio.run(main())

    def test_generators_are_closed_at_the_end(self, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                assert await runner.run(coroutines.leave_a_generator, trace.fd) == 1
            assert trace.marks() == b"g"

        asyncio.run(main())

    @pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt"])
    def test_one_that_exits_does_not_end_the_loop(self, name: str) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                await runner.run(coroutines.leave_a_task_that_exits, name)
                for n in range(10):
                    assert await runner.run(coroutines.add, n, 1) == n + 1

        asyncio.run(main())

    def test_one_that_fails_at_the_end_is_told_of(self, program: Program) -> None:
        ended = program(
            """
            import asyncio, sys
            from aiointerpreters import Runner
            from workfns import coroutines

            async def main():
                async with Runner(workers=1) as runner:
                    await runner.run(coroutines.leave_a_failing_task, 1)

            asyncio.run(main())
            """
        )
        ended.assert_ended()
        assert ended.out == "f"
        assert "LookupError: while it was cancelled" in ended.err


class TestEnd:
    def test_a_runner_that_is_closed_finishes_them(self, gate: Gate) -> None:
        async def main() -> None:
            async with gate:
                async with Runner(workers=2, concurrency=2) as runner:
                    calls = [runner.submit(coroutines.wait_at, *gate.fds, n) for n in range(10)]
                    await gate.reached(4)
                    runner.close()
                    with pytest.raises(RunnerError, match="closed"):
                        runner.submit(coroutines.add, 1)
                    gate.open()
                assert [call.result() for call in calls] == list(range(10))

        asyncio.run(main())

    def test_a_runner_that_is_closed_before_its_workers_are_ready_finishes_them(self) -> None:
        async def main() -> None:
            async with Runner(workers=3, concurrency=2) as runner:
                calls = [runner.submit(coroutines.add, n, 1) for n in range(20)]
            assert [call.result() for call in calls] == list(range(1, 21))

        asyncio.run(main())

    def test_cancel_pending_cancels_those_without_a_place(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1, concurrency=2) as runner, gate:
                calls = [runner.submit(coroutines.wait_at, *gate.fds, n) for n in range(10)]
                await gate.reached(2)
                runner.close(cancel_pending=True)
                gate.open()
                await runner.aclose()
                assert [call.result() for call in calls[:2]] == [0, 1]
                assert all(call.cancelled() for call in calls[2:])

        asyncio.run(main())

    def test_drain_waits_for_them(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1, concurrency=1) as runner, gate:
                calls = [runner.submit(coroutines.wait_at, *gate.fds, n) for n in range(3)]
                await gate.reached()
                draining = asyncio.ensure_future(runner.drain())
                await asyncio.sleep(0)
                assert not draining.done()
                gate.open()
                await draining
                assert [call.result() for call in calls] == [0, 1, 2]

        asyncio.run(main())

    def test_a_runner_that_is_stopped_cancels_them(self, gate: Gate, trace: Trace) -> None:
        async def main() -> None:
            calls: list[asyncio.Future[Any]] = []
            with pytest.raises(LookupError):
                async with Runner(workers=2) as runner:
                    calls += [
                        runner.submit(coroutines.mark_cancellation, *gate.fds, trace.fd)
                        for _ in range(10)
                    ]
                    await gate.reached(10)
                    raise LookupError
            assert all(call.cancelled() for call in calls)
            assert Counter(trace.marks()) == Counter(b"cf" * 10)

        asyncio.run(main())

    @pytest.mark.parametrize("arrange", ["spin", "whatever", "task", "swallow", "get"])
    def test_nothing_that_they_do_keeps_a_runner_from_being_stopped(
        self, arrange: str, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            announce = gate.fds[0]
            with pytest.raises(LookupError):
                async with Runner(workers=1) as runner:
                    match arrange:
                        case "spin":
                            call = runner.submit(coroutines.spin, announce, trace.fd)
                        case "whatever":
                            call = runner.submit(coroutines.spin_whatever_comes, announce, trace.fd)
                        case "task":
                            call = runner.submit(coroutines.spin_in_a_task, announce)
                        case "swallow":
                            call = runner.submit(coroutines.swallow_cancellations, *gate.fds)
                        case _:
                            queue: Queue[int] = Queue()
                            call = runner.submit(coroutines.block_in_get, queue, announce, trace.fd)
                    await gate.reached()
                    raise LookupError
            assert call.cancelled()

        asyncio.run(main())

    def test_a_loops_thread_and_descriptors_go_with_its_runner(self) -> None:
        if not LINUX:
            pytest.skip("looks into /proc")

        async def main() -> tuple[int, int]:
            before = native_threads(), open_fds()
            async with Runner(workers=2) as runner:
                await asyncio.gather(*(runner.run(asyncio.sleep, 0) for _ in range(10)))
            return before

        threads, fds = asyncio.run(main())
        assert eventually(lambda: native_threads() <= threads)
        assert eventually(lambda: open_fds() <= fds)

    def test_a_thread_of_the_executor_is_waited_for(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                await runner.run(coroutines.leave_a_thread, *gate.fds)
                await gate.reached()
                gate.open()
                await runner.aclose()

        asyncio.run(main())

    @pytest.mark.parametrize("end", ["pass", "sys.exit(0)", "raise SystemExit(0)"])
    def test_a_program_ends_while_they_run(self, end: str, program: Program) -> None:
        program(
            f"""
            import asyncio, sys
            from aiointerpreters import Runner
            from workfns import values

            runner = Runner(workers=2).start()

            async def main():
                calls = [runner.submit(asyncio.sleep, 3600) for _ in range(10)]
                await runner.run(asyncio.sleep, 0)
                {end}

            asyncio.run(main())
            """,
            flags=("-W", "ignore::ResourceWarning"),
        ).assert_ended()

    def test_ctrl_c(self, program: Program) -> None:
        ended = program(
            """
            import asyncio
            from aiointerpreters import Runner
            from workfns import coroutines

            async def main():
                async with Runner(workers=2) as runner:
                    await runner.run(asyncio.sleep, 0)
                    print("ready", flush=True)
                    await asyncio.gather(*(runner.run(asyncio.sleep, 3600) for _ in range(10)))

            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                print("interrupted")
            """,
            interrupt=True,
        )
        ended.assert_fine()
        assert ended.out.endswith("interrupted\n")


class TestCallers:
    def test_several_loops_in_several_threads(self, runner: Runner) -> None:
        async def main() -> list[int]:
            calls = (runner.run(coroutines.add, n, 1) for n in range(200))
            return await asyncio.gather(*calls)

        outcomes: list[list[int]] = []
        threads = [
            threading.Thread(target=lambda: outcomes.append(asyncio.run(main()))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        assert outcomes == [list(range(1, 201))] * 4

    def test_a_loop_that_is_closed_first(self, runner: Runner, gate: Gate) -> None:
        async def main() -> None:
            runner.submit(coroutines.wait_at, *gate.fds)
            await gate.reached()

        asyncio.run(main())
        gate.open()
        assert asyncio.run(runner.run(coroutines.add, 1, 2)) == 3

    def test_uvloop(self, runner: Runner, gate: Gate, signals: Signals) -> None:
        uvloop = pytest.importorskip("uvloop")

        async def main() -> None:
            calls = (runner.run(coroutines.add, n, 1) for n in range(200))
            assert await asyncio.gather(*calls) == list(range(1, 201))
            call = runner.submit(coroutines.mark_cancellation, *gate.fds, signals.fd)
            await gate.reached()
            call.cancel()
            assert await signals.arrive(2) == b"cf"

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
            loop_runner.run(main())

    def test_a_worker_that_is_a_caller_in_turn(self, call: Callable[..., Any]) -> None:
        assert call(coroutines.run_a_runner) == 42


class TestParameters:
    @pytest.mark.parametrize("concurrency", [0, -1])
    def test_concurrency_must_be_positive(self, concurrency: int) -> None:
        with pytest.raises(ValueError, match="concurrency"):
            Runner(concurrency=concurrency)

    @pytest.mark.parametrize("concurrency", ["3", 2.5, None])
    def test_concurrency_must_be_an_integer(self, concurrency: Any) -> None:
        with pytest.raises(TypeError, match="concurrency"):
            Runner(concurrency=concurrency)
