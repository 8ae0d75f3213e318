"""Cancelling: queued work never runs, running work lets its caller go, nobody complains.

That running work is interrupted, and how, is in test_interrupt.py and test_stuck.py.
"""

import asyncio
import gc
from collections.abc import Callable

import pytest

from aiointerpreters import Runner
from helpers.gate import Gate, Trace
from workfns import control, failing, values, waiting


async def settle() -> None:
    """Let every callback that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _watch(silent: Callable[[], None]) -> Callable[[], None]:
    return silent


class TestQueued:
    def test_a_queued_task_that_is_cancelled_never_runs(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                held = runner.submit(waiting.wait_at, *gate.fds, "held")
                await gate.reached()
                first = asyncio.create_task(runner.run(waiting.leave_mark, trace.fd, b"1"))
                second = runner.submit(waiting.leave_mark, trace.fd, b"2")
                third = runner.submit(waiting.leave_mark, trace.fd, b"3")
                await settle()
                assert first.cancel()
                assert second.cancel()
                for cancelled in (first, second):
                    with pytest.raises(asyncio.CancelledError):
                        await cancelled
                    assert cancelled.cancelled()
                gate.open()
                assert await held == "held"
                assert await third == b"3"
            assert trace.marks() == b"3"

        asyncio.run(main())

    def test_a_task_that_is_cancelled_before_its_first_step_never_runs(
        self, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner:
                task = asyncio.create_task(runner.run(waiting.leave_mark, trace.fd))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert trace.marks() == b""

        asyncio.run(main())

    def test_timeout_removes_a_queued_task(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await runner.run(waiting.leave_mark, trace.fd)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(runner.run(waiting.leave_mark, trace.fd), 0.01)
            assert trace.marks() == b""

        asyncio.run(main())

    def test_cancelling_many(self, gate: Gate, trace: Trace, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                futures = [runner.submit(values.square, n) for n in range(3_000)]
                marks = [runner.submit(waiting.leave_mark, trace.fd) for _ in range(1_000)]
                for future in [*futures[::2], *marks]:
                    assert future.cancel()
                gate.open()
                got = await asyncio.gather(*futures, return_exceptions=True)
                assert got[1::2] == [n * n for n in range(1, 3_000, 2)]
                assert {type(error) for error in got[::2]} == {asyncio.CancelledError}
            assert trace.marks() == b""

        asyncio.run(main())

    def test_cancelling_one_does_not_change_the_order_of_the_others(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                marks = [bytes([n]) for n in range(100)]
                futures = [runner.submit(waiting.leave_mark, trace.fd, mark) for mark in marks]
                for future in (futures[0], futures[50], futures[99], *futures[20:30]):
                    future.cancel()
                gate.open()
                await runner.drain()
                gone = {0, 50, 99, *range(20, 30)}
                assert list(trace.marks()) == [n for n in range(100) if n not in gone]

        asyncio.run(main())

    def test_a_queue_of_cancelled_tasks_does_not_keep_the_runner_from_closing(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                for _ in range(100):
                    runner.submit(values.square, 1).cancel()

        asyncio.run(main())

    def test_gather_that_is_cancelled_cancels_all_its_calls(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                calls = (runner.run(waiting.leave_mark, trace.fd) for _ in range(100))
                gathered = asyncio.gather(*calls)
                await settle()
                gathered.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await gathered
            assert trace.marks() == b""

        asyncio.run(main())


class TestRunning:
    def test_the_caller_of_a_running_task_is_released_at_once(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                task = asyncio.create_task(runner.run(waiting.wait_at, *gate.fds))
                await gate.reached()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                gate.open()
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())

    def test_a_timeout_releases_the_caller(self, gate: Gate, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await runner.run(waiting.wait_at, *gate.fds)

        asyncio.run(main())

    @pytest.mark.parametrize("outcome", ["result", "exception", "unsendable result"])
    def test_what_arrives_for_a_cancelled_future_is_dropped(
        self, outcome: str, gate: Gate, silent: Callable[[], None]
    ) -> None:
        """From work that comes to its own end, whatever it is told."""

        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner, gate:
                end = control.end_by_oneself
                future = runner.submit(end, *gate.fds, outcome)
                task = asyncio.create_task(runner.run(end, *gate.fds, outcome))
                await gate.reached(2)
                future.cancel()
                task.cancel()
                await asyncio.wait([future, task])
                gate.open()
                await runner.drain()
                assert await runner.run(values.square, 3) == 9
                assert future.cancelled()
                assert task.cancelled()

        asyncio.run(main())

    def test_cancelling_as_results_arrive(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner:
                for n in range(300):
                    futures = [runner.submit(values.square, k) for k in range(n % 7 + 1)]
                    if n % 3:
                        await asyncio.sleep(0)
                    for future in futures:
                        future.cancel()
                    got = await asyncio.gather(*futures, return_exceptions=True)
                    for k, result in enumerate(got):
                        assert result == k * k or isinstance(result, asyncio.CancelledError)
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())

    def test_a_shielded_call_goes_on(self, gate: Gate, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                future = runner.submit(waiting.wait_at, *gate.fds, "done")
                outer = asyncio.shield(future)
                await gate.reached()
                outer.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await outer
                gate.open()
                assert await future == "done"

        asyncio.run(main())


class TestClosedLoop:
    @pytest.mark.parametrize("called_back", [False, True])
    def test_a_call_of_a_loop_that_is_closed_can_be_cancelled(
        self, gate: Gate, called_back: bool
    ) -> None:
        """asyncio raises where it can't call anybody back."""

        async def main() -> asyncio.Future[None]:
            future = runner.submit(waiting.announce_and_spin, gate.fds[0])
            if called_back:
                future.add_done_callback(print)
            await gate.reached()
            return future

        with Runner(workers=1).start() as runner:
            future = asyncio.run(main())
            if called_back:
                with pytest.raises(RuntimeError, match="closed"):
                    future.cancel()
            else:
                future.cancel()
            assert future.cancelled()
            assert asyncio.run(runner.run(values.square, 3)) == 9


class TestDone:
    def test_cancelling_what_is_done_changes_nothing(
        self, runner: Runner, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            future = runner.submit(values.square, 3)
            assert await future == 9
            assert not future.cancel()
            assert future.result() == 9
            failed = runner.submit(failing.divide_by_zero)
            await asyncio.wait([failed])
            assert not failed.cancel()
            assert isinstance(failed.exception(), ZeroDivisionError)

        asyncio.run(main())

    def test_cancelling_twice(self, gate: Gate, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                running = runner.submit(waiting.wait_at, *gate.fds)
                queued = runner.submit(values.square, 1)
                await gate.reached()
                for future in (running, queued):
                    assert future.cancel()
                    assert not future.cancel()

        asyncio.run(main())

    def test_a_cancel_message_is_kept(self, gate: Gate, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                future = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                future.cancel("not needed any more")
                with pytest.raises(asyncio.CancelledError, match="not needed any more"):
                    await future

        asyncio.run(main())

    def test_a_result_that_the_user_sets_by_hand_stands(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                running = runner.submit(waiting.wait_at, *gate.fds, "the worker's")
                queued = runner.submit(waiting.leave_mark, trace.fd)
                failed = runner.submit(failing.divide_by_zero)
                await gate.reached()
                running.set_result("mine")
                queued.set_result("mine too")
                failed.set_exception(LookupError("mine"))
                gate.open()
                await runner.drain()
                assert await running == "mine"
                assert await queued == "mine too"
                with pytest.raises(LookupError, match="mine"):
                    await failed
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())

    def test_a_future_that_nobody_keeps_harms_nothing(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                runner.submit(waiting.wait_at, *gate.fds)
                for _ in range(10):
                    runner.submit(waiting.leave_mark, trace.fd)
                gc.collect()
                await gate.reached()
                gate.open()
                await runner.drain()
                assert trace.marks() == b"." * 10

        asyncio.run(main())

    def test_callbacks_that_cancel_others_and_submit_more(
        self, runner: Runner, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            futures: list[asyncio.Future[int]] = []
            more: list[asyncio.Future[int]] = []

            def cancel_others_and_submit(_: object) -> None:
                for future in futures:
                    future.cancel()
                more.append(runner.submit(values.square, 5))

            futures += [runner.submit(values.square, n) for n in range(100)]
            futures[0].add_done_callback(cancel_others_and_submit)
            await asyncio.wait(futures)
            assert await more[0] == 25
            assert futures[0].result() == 0

        asyncio.run(main())
