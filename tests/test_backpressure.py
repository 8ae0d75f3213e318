"""`Runner(max_pending=…)`: a bounded number of calls that are accepted and not done."""

import asyncio
import gc
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aiointerpreters import AioInterpretersError, BrokenRunner, Runner, RunnerError, RunnerFull
from helpers.forking import busy
from helpers.gate import Gate, Trace
from helpers.limits import SOON
from helpers.programs import Program
from workfns import failing, streams, values, waiting


async def settle() -> None:
    """Let every callback that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def soon[T](awaitable: Any) -> Any:
    async with asyncio.timeout(SOON):
        return await awaitable


def pending(runner: Runner) -> int:
    """How many calls are queued or running."""
    assert runner._pool is not None
    return runner._pool.pending


def start_thread(function: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def join(thread: threading.Thread) -> None:
    thread.join(SOON)
    assert not thread.is_alive(), "the thread hangs"


class TestWaiting:
    def test_no_more_than_that_are_accepted(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, max_pending=3) as runner, gate:
                calls = [asyncio.create_task(runner.run(waiting.wait_at, *gate.fds))]
                await gate.reached()
                calls += [
                    asyncio.create_task(runner.run(waiting.leave_mark, trace.fd, bytes([n])))
                    for n in range(20)
                ]
                await settle()
                assert pending(runner) == 3
                gate.open()
                await soon(asyncio.gather(*calls))
                assert list(trace.marks()) == list(range(20))

        asyncio.run(main())

    def test_a_million_offered_calls_are_not_kept_in_memory(self) -> None:
        """A tenth of it, to be quick. Each item that is pulled and not done is counted."""

        async def main() -> None:
            offered = 0

            def items() -> Iterator[int]:
                nonlocal offered
                for number in range(100_000):
                    offered += 1
                    yield number

            done = 0
            async with Runner(workers=2, max_pending=50) as runner:
                async for result in runner.map(values.echo, items(), concurrency=10_000):
                    assert result == done
                    done += 1
                    if done % 100 == 0:
                        assert pending(runner) <= 50
                    assert offered - done <= 10_001
                assert done == 100_000

        asyncio.run(main())

    def test_run_wrap_map_and_stream_wait(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=2, max_pending=1) as runner, gate:
                held = asyncio.create_task(runner.run(waiting.wait_at, *gate.fds))
                await gate.reached()
                others = [
                    asyncio.ensure_future(call)
                    for call in (
                        runner.run(values.square, 3),
                        runner.wrap(values.square)(4),
                        anext(runner.map(values.square, [5])),
                        anext(runner.stream(streams.letters, "f")),
                        runner.options().run(values.square, 6),
                        runner.run_module_function(("module", "workfns.values", "square"), 7),
                    )
                ]
                await settle()
                assert pending(runner) == 1
                assert not any(other.done() for other in others)
                gate.open()
                assert await soon(asyncio.gather(*others)) == [9, 16, 25, "f", 36, 49]
                await held

        asyncio.run(main())

    @pytest.mark.parametrize("function", [values.square, failing.divide_by_zero])
    def test_slots_come_back_however_calls_end(
        self, function: Callable[..., Any], silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2, max_pending=2) as runner:
                for _ in range(10):
                    arguments = (2,) if function is values.square else ()
                    calls = (runner.run(function, *arguments) for _ in range(10))
                    await soon(asyncio.gather(*calls, return_exceptions=True))
                    with pytest.raises(RunnerError, match="cannot be sent"):
                        await soon(runner.run(values.echo, threading.Lock()))
                    cancelled = runner.submit(values.square, 3)
                    cancelled.cancel()
                    await settle()
                both = [runner.submit(values.square, n) for n in range(2)]
                assert await asyncio.gather(*both) == [0, 1]

        asyncio.run(main())

    def test_nobody_overtakes_who_waits(self, gate: Gate, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(workers=1, max_pending=1) as runner, gate:
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                first = asyncio.create_task(runner.run(waiting.leave_mark, trace.fd, b"1"))
                await settle()
                gate.open()
                await held
                # There may be a slot by now, but it is the first one's.
                late = asyncio.create_task(runner.run(waiting.leave_mark, trace.fd, b"2"))
                with pytest.raises(RunnerFull):
                    runner.submit(waiting.leave_mark, trace.fd, b"3")
                await asyncio.gather(first, late)
                assert trace.marks() == b"12"

        asyncio.run(main())

    def test_loops_in_threads_take_turns_in_the_order_of_their_coming(
        self, gate: Gate, trace: Trace
    ) -> None:
        with Runner(workers=1, max_pending=1).start() as runner, gate:
            come = threading.Barrier(2)

            async def one(mark: bytes) -> None:
                call = asyncio.ensure_future(runner.run(waiting.leave_mark, trace.fd, mark))
                await settle()
                come.wait(SOON)
                await soon(call)

            async def main() -> None:
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                for mark in (b"1", b"2", b"3", b"4"):
                    threads.append(start_thread(lambda mark=mark: asyncio.run(one(mark))))
                    await asyncio.to_thread(come.wait, SOON)
                gate.open()
                await held
                await asyncio.to_thread(lambda: [join(thread) for thread in threads])

            threads: list[threading.Thread] = []
            asyncio.run(main())
            assert trace.marks() == b"1234"

    def test_many_calls_of_many_loops(self) -> None:
        with Runner(workers=2, max_pending=3).start() as runner:
            results: list[list[int]] = []

            async def main(seed: int) -> None:
                calls = [asyncio.create_task(runner.run(values.square, n)) for n in range(300)]
                for call in calls[seed::7]:
                    await asyncio.sleep(0)
                    call.cancel()
                await soon(asyncio.wait(calls))
                results.append([n for n in range(300) if not calls[n].cancelled()])
                assert all(
                    call.cancelled() or call.result() == n * n for n, call in enumerate(calls)
                )

            threads = [start_thread(lambda seed=seed: asyncio.run(main(seed))) for seed in range(4)]
            for thread in threads:
                join(thread)
            assert len(results) == 4

            async def all_slots_are_there() -> None:
                futures = [runner.submit(values.square, n) for n in range(3)]
                assert await soon(asyncio.gather(*futures)) == [0, 1, 4]

            asyncio.run(all_slots_are_there())


class TestFull:
    def test_submit_does_not_wait_but_says_so(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1, max_pending=2) as runner, gate:
                futures = [runner.submit(waiting.wait_at, *gate.fds) for _ in range(2)]
                for submit in (runner.submit, runner.options().submit):
                    with pytest.raises(
                        RunnerFull, match=r"^2 calls are pending.*max_pending.*await run\(\)"
                    ):
                        submit(values.square, 3)
                gate.open()
                await asyncio.gather(*futures)
                assert await runner.submit(values.square, 3) == 9

        asyncio.run(main())

    def test_outside_a_loop_submit_says_that(self) -> None:
        with Runner(workers=1, max_pending=1).start() as runner:
            with pytest.raises(RunnerError, match="no event loop is running"):
                runner.submit(values.square, 3)
            assert asyncio.run(runner.run(values.square, 3)) == 9

    def test_it_is_what_users_would_catch(self) -> None:
        assert issubclass(RunnerFull, RunnerError)
        assert issubclass(RunnerFull, AioInterpretersError)
        assert issubclass(RunnerFull, queue.Full)

    def test_a_call_is_pending_until_its_future_is_done(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1, max_pending=1) as runner, gate:
                future = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                with pytest.raises(RunnerFull):
                    runner.submit(values.square, 3)
                future.cancel()
                await settle()
                gate.open()
                assert await runner.submit(values.square, 3) == 9

        asyncio.run(main())


class TestGivingUp:
    def test_a_cancelled_call_gives_its_place_up(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, max_pending=1) as runner, gate:
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                calls = [
                    asyncio.create_task(runner.run(waiting.leave_mark, trace.fd, bytes([n])))
                    for n in range(6)
                ]
                await settle()
                for n in (0, 3, 5):
                    calls[n].cancel()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await runner.run(waiting.leave_mark, trace.fd, b"x")
                gate.open()
                await held
                await soon(asyncio.wait(calls))
                assert trace.marks() == bytes([1, 2, 4])

        asyncio.run(main())

    def test_a_slot_that_comes_as_its_call_is_cancelled_goes_to_the_next(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, max_pending=1) as runner, gate:
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                first = asyncio.create_task(runner.run(values.square, 1))
                second = asyncio.create_task(runner.run(values.square, 2))
                await settle()
                # In one turn of the loop: the slot is granted, and the call cancelled.
                held.add_done_callback(lambda _: first.cancel())
                gate.open()
                assert await soon(second) == 4
                assert first.cancelled()

        asyncio.run(main())

    def test_a_slot_for_a_loop_that_is_closed_goes_to_the_next(self, gate: Gate) -> None:
        with Runner(workers=1, max_pending=1).start() as runner, gate:
            abandoned = asyncio.new_event_loop()

            async def wait_in_vain() -> Any:
                call = asyncio.ensure_future(runner.run(values.square, 1))
                await settle()
                return call

            async def main() -> None:
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                calls = await asyncio.to_thread(abandoned.run_until_complete, wait_in_vain())
                abandoned.close()
                second = asyncio.ensure_future(runner.run(values.square, 2))
                await settle()
                gate.open()
                await held
                assert await soon(second) == 4
                calls.get_coro().close()
                calls._log_destroy_pending = False

            asyncio.run(main())

    def test_calls_of_a_loop_that_is_closed_are_pending_no_more(self) -> None:
        """Its futures are never done."""
        with Runner(workers=1, max_pending=2).start() as runner:

            async def submit() -> Any:
                return [runner.submit(values.square, 1) for _ in range(2)]

            async def main() -> int:
                return await soon(runner.run(values.square, 3))  # type: ignore[no-any-return]

            for _ in range(3):
                futures = asyncio.run(submit())
                assert asyncio.run(main()) == 9
                del futures
                asyncio.run(submit())
                assert asyncio.run(main()) == 9

    def test_a_coroutine_that_is_collected_gives_its_place_up(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1, max_pending=1) as runner, gate:
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                coroutine = runner.run(values.square, 1)
                coroutine.send(None)
                second = asyncio.ensure_future(runner.run(values.square, 2))
                await settle()
                coroutine.close()
                gc.collect()
                gate.open()
                await held
                assert await soon(second) == 4

        asyncio.run(main())


class TestEnding:
    @pytest.mark.parametrize("cancel_pending", [False, True])
    def test_closing_refuses_those_that_wait(
        self, gate: Gate, cancel_pending: bool, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, max_pending=1) as runner, gate:
                held = runner.submit(waiting.wait_at, *gate.fds, "done")
                await gate.reached()
                calls = [asyncio.create_task(runner.run(values.square, n)) for n in range(5)]
                await settle()
                runner.close(cancel_pending=cancel_pending)
                for call in calls:
                    with pytest.raises(RunnerError, match="closed"):
                        await soon(call)
                with pytest.raises(RunnerError, match="closed"):
                    await runner.run(values.square, 1)
                with pytest.raises(RunnerError, match="closed") as refused:
                    runner.submit(values.square, 1)
                assert not isinstance(refused.value, RunnerFull)
                gate.open()
                assert await held == "done"

        asyncio.run(main())

    def test_closing_refuses_those_that_wait_in_other_threads(self, gate: Gate) -> None:
        come = threading.Event()
        refused: list[str] = []

        async def wait() -> None:
            call = asyncio.ensure_future(runner.run(values.square, 1))
            await settle()
            come.set()
            try:
                await soon(call)
            except RunnerError as error:
                refused.append(str(error))

        async def main() -> None:
            runner.submit(waiting.wait_at, *gate.fds)
            await gate.reached()
            thread = start_thread(lambda: asyncio.run(wait()))
            await asyncio.to_thread(come.wait, SOON)
            runner.close()
            await asyncio.to_thread(join, thread)
            gate.open()

        with Runner(workers=1, max_pending=1).start() as runner, gate:
            asyncio.run(main())
        assert refused == ["the runner is closed: it takes no more calls"]

    def test_stopping_refuses_those_that_wait(self, gate: Gate) -> None:
        async def main() -> None:
            calls = []
            with pytest.raises(LookupError, match="leave"):
                async with Runner(workers=1, max_pending=1) as runner:
                    running = runner.submit(waiting.announce_and_spin, gate.fds[0])
                    await gate.reached()
                    calls += [asyncio.create_task(runner.run(values.square, n)) for n in range(5)]
                    await settle()
                    raise LookupError("leave")
            for call in calls:
                with pytest.raises(RunnerError, match="closed"):
                    await soon(call)
            assert running.cancelled()

        asyncio.run(main())

    def test_those_that_wait_for_a_broken_runner_are_told(self) -> None:
        async def main() -> None:
            runner = Runner(workers=1, max_pending=1, initializer=failing.divide_by_zero)
            async with runner:
                calls = [asyncio.create_task(runner.run(values.square, n)) for n in range(5)]
                for call in calls:
                    with pytest.raises(BrokenRunner, match="ZeroDivisionError"):
                        await soon(call)

        asyncio.run(main())

    def test_closed_loops_are_not_kept(self) -> None:
        class Loop(asyncio.SelectorEventLoop):
            pass

        async def main(runner: Runner) -> None:
            assert await runner.run(values.square, 3) == 9

        with Runner(workers=1, max_pending=5).start() as runner:
            loops = []
            for _ in range(4):
                with asyncio.Runner(loop_factory=Loop) as of_the_loop:
                    of_the_loop.run(main(runner))
                    loops.append(weakref.ref(of_the_loop.get_loop()))
                del of_the_loop
            gc.collect()
            assert [loop() for loop in loops[:-1]] == [None] * 3

    def test_an_unstarted_runner_says_so(self) -> None:
        async def main() -> None:
            runner = Runner(workers=1, max_pending=1)
            for _ in range(3):
                with pytest.raises(RunnerError, match="not started"):
                    await runner.run(values.square, 1)
                with pytest.raises(RunnerError, match="not started"):
                    runner.submit(values.square, 1)

        asyncio.run(main())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @busy
    def test_a_forked_child_is_refused_and_does_not_wait(self, program: Program) -> None:
        program(
            """
            import asyncio, os, time
            from aiointerpreters import Runner, RunnerError

            def child(runner):
                async def main():
                    for call in (runner.run, runner.submit):
                        try:
                            await call(time.sleep, 0)
                        except RunnerError as error:
                            assert "parent process" in str(error), error
                        else:
                            raise AssertionError
                asyncio.run(main())

            if __name__ == "__main__":
                with Runner(workers=1, max_pending=1).start() as runner:
                    held = []
                    async def main():
                        held.append(runner.submit(time.sleep, 0.2))
                    asyncio.run(main())
                    pid = os.fork()
                    if pid == 0:
                        status = 1
                        try:
                            child(runner)
                            status = 0
                        finally:
                            os._exit(status)
                    assert os.waitpid(pid, 0)[1] == 0
            """,
            flags=("-W", "ignore::DeprecationWarning"),
        ).assert_ended()


class TestParameter:
    @pytest.mark.parametrize("value", ["3", 2.0, [1]])
    def test_it_is_an_integer(self, value: Any) -> None:
        with pytest.raises(TypeError, match="max_pending must be an integer or None, not"):
            Runner(max_pending=value)

    @pytest.mark.parametrize("value", [0, -3])
    def test_it_is_at_least_one(self, value: int) -> None:
        with pytest.raises(ValueError, match=f"max_pending must be at least 1, not {value}"):
            Runner(max_pending=value)

    def test_it_is_told(self) -> None:
        assert Runner(max_pending=5).max_pending == 5
        assert Runner().max_pending is None
