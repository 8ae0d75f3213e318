"""Workers are replaced by fresh ones: after a number of calls, or on demand. No call is lost."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import BrokenRunner, Runner, RunnerError
from helpers.gate import Gate, Trace
from helpers.limits import SOON
from helpers.process import until
from workfns import control, values, waiting, worker

GRACE = 0.05


@pytest.fixture(autouse=True)
def _watch(silent: Callable[[], None]) -> Callable[[], None]:
    return silent


class TestMaxTasksPerWorker:
    @pytest.mark.parametrize("most", [1, 2, 7])
    def test_after_so_many_calls_a_fresh_worker_takes_over(
        self, most: int, silent: Callable[[], None]
    ) -> None:
        """Its modules are new, so is its state."""

        async def main() -> None:
            silent()
            async with Runner(workers=1, max_tasks_per_worker=most) as runner:
                got = [await runner.run(control.count_calls) for _ in range(3 * most)]
                assert got == [(n, None) for n in range(1, most + 1)] * 3
                await runner.run(control.remember, "forgotten")
                for _ in range(most - 1):
                    assert await runner.run(control.recall) == "forgotten"
                assert await runner.run(control.recall) is None

        asyncio.run(main())

    def test_without_it_a_worker_stays(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner:
                got = [await runner.run(control.count_calls) for _ in range(50)]
                assert got == [(n, None) for n in range(1, 51)]
                assert runner.stats().started == 1

        asyncio.run(main())

    def test_each_new_worker_runs_the_initializer(
        self, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            runner = Runner(
                workers=1,
                max_tasks_per_worker=2,
                initializer=control.prepare_with_index,
                initargs=(trace.fd,),
            )
            async with runner:
                got = [await runner.run(control.count_calls) for _ in range(4)]
                assert [calls for calls, _ in got] == [1, 2, 1, 2]
                assert all(prepared.startswith("prepared ") for _, prepared in got)
            assert len(trace.marks()) >= 2

        asyncio.run(main())

    @pytest.mark.parametrize("most", [1, 3])
    @pytest.mark.parametrize("workers", [1, 2])
    def test_no_call_is_lost_and_results_are_each_calls_own(
        self, workers: int, most: int, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=workers, max_tasks_per_worker=most) as runner:
                futures = [runner.submit(values.square, n) for n in range(60)]
                assert await asyncio.gather(*futures) == [n * n for n in range(60)]
                assert runner.stats().started >= 60 // most
                assert await until(lambda: runner.stats().retiring == 0)
                stats = runner.stats()
                assert stats.starting + stats.idle + stats.busy == workers

        asyncio.run(main())

    def test_calls_are_begun_in_their_order(self, trace: Trace, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, max_tasks_per_worker=1) as runner:
                for n in range(40):
                    runner.submit(os.write, trace.fd, bytes([n]))
            assert trace.marks() == bytes(range(40))

        asyncio.run(main())

    def test_closing_finishes_a_long_queue(self, trace: Trace, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2, max_tasks_per_worker=1) as runner:
                futures = [runner.submit(values.square, n) for n in range(50)]
                runner.close()
                assert await asyncio.gather(*futures) == [n * n for n in range(50)]

        asyncio.run(main())

    def test_closing_with_an_empty_queue_starts_nobody(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            with gate:
                async with Runner(workers=1, max_tasks_per_worker=2) as runner:
                    held = runner.submit(control.number_of_calls_at, *gate.fds)
                    last = runner.submit(control.count_calls)
                    await gate.reached()
                    runner.close()
                    gate.open()
                    assert await held == 1
                    assert await last == (2, None)
                assert runner.stats().started == 1

        asyncio.run(main())

    def test_no_more_calls_run_at_once_than_there_are_workers(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        """The last call of a worker is one of them."""

        async def main() -> None:
            silent()
            async with Runner(workers=2, max_tasks_per_worker=1) as runner, gate:
                held = [runner.submit(control.number_of_calls_at, *gate.fds) for _ in range(2)]
                await gate.reached(2)
                queued = [runner.submit(waiting.leave_mark, trace.fd) for _ in range(20)]
                stats = runner.stats()
                assert (stats.started, stats.queued) == (2, 20)
                queued[3].cancel()
                assert trace.marks() == b""
                gate.open()
                assert await asyncio.gather(*held) == [1, 1]
                await asyncio.wait(queued)
                assert trace.marks() == b"." * 19

        asyncio.run(main())

    def test_an_initializer_that_raises_in_a_replacement_breaks_the_runner(
        self, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            read, write = os.pipe()
            os.write(write, b".")
            runner = Runner(
                workers=1,
                max_tasks_per_worker=1,
                initializer=control.break_all_but_the_first,
                initargs=(read,),
            )
            async with runner:
                futures = [runner.submit(values.square, n) for n in range(20)]
                got = await asyncio.gather(*futures, return_exceptions=True)
                assert got[0] == 0
                for error in got[1:]:
                    assert isinstance(error, BrokenRunner)
                    assert isinstance(error.__cause__, LookupError)
                with pytest.raises(BrokenRunner):
                    await runner.run(values.square, 1)
                with pytest.raises(BrokenRunner):
                    runner.recycle()
                with pytest.raises(BrokenRunner):
                    runner.resize(2)
            os.close(read)
            os.close(write)

        asyncio.run(main())

    @pytest.mark.parametrize("most", [0, -1])
    def test_fewer_than_one_call_is_a_value_error(self, most: int) -> None:
        with pytest.raises(ValueError, match="max_tasks_per_worker must be at least 1"):
            Runner(max_tasks_per_worker=most)

    @pytest.mark.parametrize("most", ["2", 2.5, b"2"])
    def test_a_number_of_calls_that_is_none_is_a_type_error(self, most: Any) -> None:
        with pytest.raises(TypeError, match="max_tasks_per_worker must be an integer"):
            Runner(max_tasks_per_worker=most)


class TestRecycle:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_afterwards_only_fresh_workers_serve(
        self, workers: int, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=workers) as runner:
                for round in range(1, 4):
                    futures = [runner.submit(control.remember, "old") for _ in range(100)]
                    await asyncio.gather(*futures)
                    assert await runner.recycle() is None
                    recalls = [runner.submit(control.recall) for _ in range(100)]
                    assert set(await asyncio.gather(*recalls)) == {None}
                    assert runner.stats().started == workers * (round + 1)
                assert await until(lambda: runner.stats().retiring == 0)
                stats = runner.stats()
                assert stats.idle == workers
                assert stats.replaced == stats.stuck == 0

        asyncio.run(main())

    def test_it_begins_without_being_awaited(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner:
                future = runner.recycle()
                assert isinstance(future, asyncio.Future)
                assert await until(lambda: runner.stats().started == 4)
                await future

        asyncio.run(main())

    def test_each_new_worker_runs_the_initializer(
        self, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            runner = Runner(workers=2, initializer=worker.prepare_with_mark, initargs=(trace.fd,))
            async with runner:
                assert await until(lambda: runner.stats().idle == 2)
                await runner.recycle()
                assert trace.marks() == b"iiii"

        asyncio.run(main())

    def test_calls_in_flight_finish(self, gate: Gate, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner, gate:
                held = [runner.submit(control.number_of_calls_at, *gate.fds) for _ in range(2)]
                await gate.reached(2)
                await runner.recycle()
                assert not any(future.done() for future in held)
                assert runner.stats().retiring == 2
                gate.open()
                assert await asyncio.gather(*held) == [1, 1]
                assert await until(lambda: runner.stats().retiring == 0)

        asyncio.run(main())

    def test_new_calls_run_while_old_ones_hold_their_workers(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            second = Gate()
            async with Runner(workers=2) as runner, gate, second:
                held = [runner.submit(control.number_of_calls_at, *gate.fds) for _ in range(2)]
                await gate.reached(2)
                recycled = runner.recycle()
                more = [runner.submit(control.number_of_calls_at, *second.fds) for _ in range(2)]
                await second.reached(2)
                await recycled
                second.open()
                assert await asyncio.gather(*more) == [1, 1]
                gate.open()
                assert await asyncio.gather(*held) == [1, 1]
            second.close()

        asyncio.run(main())

    def test_nothing_is_lost_under_load(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner:
                for round in range(5):
                    recycled = [runner.recycle()]
                    calls = []
                    for n in range(300):
                        calls.append(runner.submit(values.square, n))
                        if n % 50 == 0:
                            await asyncio.sleep(0)
                            recycled.append(runner.recycle())
                    assert await asyncio.gather(*calls) == [n * n for n in range(300)]
                    await asyncio.gather(*recycled)
                    stats = runner.stats()
                    assert stats.starting + stats.idle + stats.busy == 2, round

        asyncio.run(main())

    def test_the_first_of_two_is_done_when_all_that_were_there_are_gone(
        self, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner:
                await asyncio.gather(*(runner.run(control.remember, "old") for _ in range(50)))
                first = runner.recycle()
                second = runner.recycle()
                await first
                recalls = [runner.submit(control.recall) for _ in range(50)]
                assert set(await asyncio.gather(*recalls)) == {None}
                await second

        asyncio.run(main())

    def test_a_recycle_may_be_cancelled_and_goes_on(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner:
                await asyncio.gather(*(runner.run(control.remember, "old") for _ in range(50)))
                runner.recycle().cancel()
                await runner.recycle()
                recalls = [runner.submit(control.recall) for _ in range(50)]
                assert set(await asyncio.gather(*recalls)) == {None}

        asyncio.run(main())

    @pytest.mark.parametrize("how", ["close", "aclose", "leave", "stop"])
    def test_closing_ends_it(self, how: str, gate: Gate, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            runner = Runner(workers=2)
            with gate:
                try:
                    async with runner:
                        held = runner.submit(control.number_of_calls_at, *gate.fds)
                        await gate.reached()
                        recycled = runner.recycle()
                        queued = [runner.submit(values.square, n) for n in range(20)]
                        if how == "close":
                            runner.close()
                        elif how == "aclose":
                            closing = asyncio.create_task(runner.aclose())
                            await asyncio.sleep(0)
                        gate.open()
                        if how == "stop":
                            raise LookupError
                except LookupError:
                    await asyncio.wait([held, recycled, *queued])
                else:
                    assert await held == 1
                    assert await asyncio.gather(*queued) == [n * n for n in range(20)]
                    if how == "aclose":
                        await closing
                await asyncio.wait([recycled], timeout=SOON)
                assert recycled.done()
                with pytest.raises(RunnerError, match="closed"):
                    runner.recycle()

        asyncio.run(main())

    def test_a_replacement_that_fails_breaks_the_runner_and_ends_it(
        self, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            read, write = os.pipe()
            os.write(write, b"..")
            runner = Runner(
                workers=2, initializer=control.break_all_but_the_first, initargs=(read,)
            )
            async with runner:
                assert await runner.run(values.square, 3) == 9
                assert await until(lambda: runner.stats().idle == 2)
                await runner.recycle()
                with pytest.raises(BrokenRunner):
                    await runner.run(values.square, 3)
            os.close(read)
            os.close(write)

        asyncio.run(main())

    def test_a_stuck_worker_is_recycled_as_well(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=GRACE) as runner, gate:
                call = runner.submit(control.read_until, *gate.fds, trace.fd)
                await gate.reached()
                call.cancel()
                await runner.recycle()
                assert await runner.run(control.recall) is None
                assert await until(lambda: runner.stats().stuck == 1)
                await runner.recycle()
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())

    def test_without_any_worker_it_is_done_at_once(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2, min_workers=0) as runner:
                await runner.recycle()
                assert runner.stats().started == 0
                assert await runner.run(control.count_calls) == (1, None)
                await runner.recycle()
                assert await runner.run(control.count_calls) == (1, None)

        asyncio.run(main())

    def test_workers_that_idle_meanwhile_stay_if_there_would_be_too_few(
        self, silent: Callable[[], None]
    ) -> None:
        """The new worker takes an old one's place: it does not make another one superfluous."""

        async def main() -> None:
            silent()
            arrivals, announce = os.pipe()
            wait, hold = os.pipe()
            options: dict[str, Any] = {
                "min_workers": 2,
                "idle_timeout": 0.0003,
                "initializer": control.hold_up_the_set_up,
                "initargs": (announce, wait),
            }
            os.write(hold, b"..")
            async with Runner(workers=3, **options) as runner:
                assert await until(lambda: runner.stats().idle == 2)
                recycled = runner.recycle()
                assert await runner.run(values.square, 3) == 9
                await asyncio.sleep(0.05)  # many times what makes an idle worker retire
                os.write(hold, b"." * 8)
                await recycled
                assert await until(lambda: runner.stats().retiring == 0)
                stats = runner.stats()
                assert stats.starting + stats.idle + stats.busy >= 2
            for fd in (arrivals, announce, wait, hold):
                os.close(fd)

        asyncio.run(main())

    def test_together_with_max_tasks_per_worker(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2, max_tasks_per_worker=3) as runner:
                calls = []
                for n in range(60):
                    calls.append(runner.submit(values.square, n))
                    if n % 20 == 0:
                        await runner.recycle()
                assert await asyncio.gather(*calls) == [n * n for n in range(60)]
                assert await until(lambda: runner.stats().retiring == 0)
                stats = runner.stats()
                assert stats.starting + stats.idle + stats.busy == 2

        asyncio.run(main())

    def test_from_several_loops(self, silent: Callable[[], None]) -> None:
        with Runner(workers=2) as runner:

            async def use() -> None:
                for n in range(5):
                    recycled = runner.recycle()
                    assert await runner.run(values.square, n) == n * n
                    await recycled

            async def main() -> None:
                silent()
                await asyncio.gather(*(asyncio.to_thread(asyncio.run, use()) for _ in range(3)))

            asyncio.run(main())

    def test_without_a_loop_nothing_is_recycled(self) -> None:
        with Runner(workers=1) as runner:
            with pytest.raises(RunnerError):
                runner.recycle()
            assert runner.stats().started == 1

    def test_a_runner_that_is_not_started_says_so(self) -> None:
        async def main() -> None:
            with pytest.raises(RunnerError, match="not started"):
                Runner(workers=1).recycle()

        asyncio.run(main())
