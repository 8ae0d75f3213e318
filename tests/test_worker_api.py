"""What code in a worker can know of that, and what a runner counts."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import Runner, RunnerError, RunnerStats, current_worker, worker
from helpers.gate import Gate, Trace
from helpers.process import until
from workfns import control, failing, values, waiting


@pytest.fixture(autouse=True)
def _watch(silent: Callable[[], None]) -> Callable[[], None]:
    return silent


class TestWorker:
    def test_indexes_are_small_and_each_live_workers_own(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=4) as runner, gate:
                calls = [runner.submit(control.index_at, *gate.fds) for _ in range(4)]
                await gate.reached(4)
                gate.open()
                assert sorted(await asyncio.gather(*calls)) == [0, 1, 2, 3]

        asyncio.run(main())

    def test_the_indexes_of_workers_that_have_ended_are_used_again(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner, gate:
                for _ in range(4):
                    await runner.recycle()
                    assert await until(lambda: runner.stats().retiring == 0)
                calls = [runner.submit(control.index_at, *gate.fds) for _ in range(2)]
                await gate.reached(2)
                gate.open()
                indexes = await asyncio.gather(*calls)
                assert len(set(indexes)) == 2
                assert max(indexes) <= 2  # with the one more that recycling takes

        asyncio.run(main())

    def test_its_name_is_made_of_the_runners_and_the_index(self) -> None:
        with Runner(workers=1, name="parsers") as runner:
            name, text = asyncio.run(runner.run(control.name_and_repr))
            assert name == "parsers-0"
            assert "parsers-0" in text

    def test_it_is_the_same_object_all_its_life(self, call: Callable[..., Any]) -> None:
        assert call(control.is_always_the_same)

    def test_its_state_lasts_and_is_its_own(self, gate: Gate, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as one, Runner(workers=1) as other:
                assert await one.run(control.recall) is None
                await one.run(control.remember, ["kept"])
                assert await one.run(control.recall) == ["kept"]
                assert await other.run(control.recall) is None

        asyncio.run(main())

    def test_an_initializer_may_use_it(self, trace: Trace, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            runner = Runner(workers=3, initializer=control.prepare_with_index, initargs=(trace.fd,))
            async with runner:
                assert await until(lambda: runner.stats().idle == 3)
                got = await runner.run(control.recall)
                assert got.startswith("prepared ")
            assert sorted(trace.marks()) == sorted(b"012")

        asyncio.run(main())

    def test_a_thread_of_the_worker_knows_it(self, call: Callable[..., Any]) -> None:
        in_thread, in_call = call(control.index_in_a_thread)
        assert in_thread == in_call

    def test_outside_of_workers_there_is_none(self) -> None:
        assert current_worker() is None
        with pytest.raises(RunnerError, match="not run by a worker"):
            worker()

    def test_what_nobody_has_cancelled_should_not_stop(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner:
                assert await runner.run(control.should_stop) is False
                spinning = runner.submit(control.stop_when_asked, gate.fds[0])
                await gate.reached()
                spinning.cancel()
                # That was the other call's affair.
                assert await runner.run(control.should_stop) is False

        asyncio.run(main())

    def test_code_of_a_stopped_runner_should_stop(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            with pytest.raises(LookupError):
                async with Runner(workers=1) as runner:
                    fds = (gate.fds[0], trace.fd)
                    call = runner.submit(control.should_stop_before_and_after, *fds)
                    await gate.reached()
                    raise LookupError
            assert call.cancelled()
            assert trace.marks() == b"-s"

        asyncio.run(main())


class TestStats:
    def test_they_count_calls_by_their_state(self, gate: Gate, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner, gate:
                assert isinstance(runner.stats(), RunnerStats)
                held = [runner.submit(waiting.wait_at, *gate.fds) for _ in range(2)]
                queued = [runner.submit(values.square, n) for n in range(5)]
                await gate.reached(2)
                stats = runner.stats()
                assert (stats.pending, stats.queued, stats.done) == (7, 5, 0)
                assert (stats.busy, stats.idle) == (2, 0)
                queued[0].cancel()
                stats = runner.stats()
                assert (stats.pending, stats.queued, stats.done) == (6, 4, 0)
                gate.open()
                await asyncio.gather(*held, *queued[1:])
                await runner.drain()
                stats = runner.stats()
                assert (stats.pending, stats.queued, stats.done) == (0, 0, 6)
                assert await until(lambda: runner.stats().idle == 2)
                assert runner.stats().started == 2

        asyncio.run(main())

    def test_calls_count_as_done_whatever_their_outcome(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, max_tasks_per_worker=2) as runner:
                with pytest.raises(ZeroDivisionError):
                    await runner.run(failing.divide_by_zero)
                spinning = runner.submit(control.stop_when_asked, gate.fds[0])
                await gate.reached()
                spinning.cancel()
                for n in range(3):
                    assert await runner.run(values.square, n) == n * n
                assert runner.stats().done == 5  # those of workers that have ended, too

        asyncio.run(main())

    def test_they_count_workers_by_their_state(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            starting = Gate()
            runner = Runner(
                workers=2, initializer=control.hold_up_the_set_up, initargs=starting.fds
            )
            async with runner, gate, starting:
                await starting.reached(2)
                stats = runner.stats()
                assert (stats.starting, stats.idle, stats.busy) == (2, 0, 0)
                starting.open()
                assert await until(lambda: runner.stats().idle == 2)
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                stats = runner.stats()
                assert (stats.starting, stats.idle, stats.busy) == (0, 1, 1)
                await runner.recycle()
                stats = runner.stats()
                assert (stats.busy, stats.retiring) == (0, stats.retiring)
                assert stats.retiring >= 1
                gate.open()
                await held
                assert await until(lambda: runner.stats().retiring == 0)
                assert runner.stats().started == 4
            stats = runner.stats()
            assert (stats.starting, stats.idle, stats.busy, stats.retiring) == (0, 0, 0, 0)
            starting.close()

        asyncio.run(main())

    def test_a_runner_that_is_not_started_says_so(self) -> None:
        with pytest.raises(RunnerError, match="not started"):
            Runner(workers=1).stats()
