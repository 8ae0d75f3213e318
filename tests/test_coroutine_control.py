"""Coroutines in workers: stopped, limited, put in order, and in pools that grow and shrink."""

import asyncio
from collections.abc import Callable

import pytest

from aiointerpreters import Runner
from helpers.gate import Gate, Trace
from helpers.process import until
from workfns import context, coroutines, values

#: Seconds.
SHORT = 0.05
NEVER = 1_000


class TestStuck:
    def test_one_that_can_not_be_interrupted_gets_its_worker_replaced(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=SHORT) as runner, gate:
                call = runner.submit(coroutines.stay_in_c, gate.fds[0], gate.fds[1])
                await gate.reached()
                call.cancel()
                assert await until(lambda: runner.stats().replaced == 1)
                assert runner.stats().stuck == 1
                assert await runner.run(values.square, 3) == 9
                assert await runner.run(coroutines.add, 3, 4) == 7
                gate.open()
                assert await until(lambda: runner.stats().stuck == 0)
                assert runner.stats().replaced == 1

        asyncio.run(main())

    def test_one_that_only_takes_long_over_its_clean_up_is_not_stuck(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=SHORT) as runner, gate:
                call = runner.submit(coroutines.clean_up_slowly, gate.fds[0], trace.fd, 4 * SHORT)
                await gate.reached()
                call.cancel()
                await runner.drain()
                assert trace.marks() == b"cleaned up"
                assert runner.stats().replaced == 0

        asyncio.run(main())

    def test_a_stopped_runner_does_not_wait_for_it(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        class StopError(Exception):
            pass

        async def main() -> None:
            silent()
            with pytest.raises(StopError):
                async with Runner(workers=1, grace_period=SHORT) as runner:
                    call = runner.submit(coroutines.stay_in_c, *gate.fds)
                    await gate.reached()
                    raise StopError
            assert call.cancelled()
            gate.open()
            assert await until(lambda: runner.stats().stuck == 0)

        asyncio.run(main())


class TestLimits:
    def test_a_timeout_counts_from_its_first_step_and_cancels_it(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                limited = runner.options(timeout=SHORT)
                with pytest.raises(TimeoutError, match=r"run for 0\.05 seconds \(timeout\)"):
                    await limited.run(coroutines.mark_cancellation, *gate.fds, trace.fd)
                await runner.drain()
                assert trace.marks() == b"cf"
                assert await limited.run(coroutines.add, 1, 2) == 3

        asyncio.run(main())

    def test_a_timeout_does_not_count_while_it_waits_for_a_place(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, concurrency=1) as runner, gate:
                first = runner.submit(coroutines.wait_at, *gate.fds)
                await gate.reached()
                second = runner.options(timeout=4 * SHORT).submit(coroutines.add, 1, 2)
                with pytest.raises(TimeoutError, match="deadline"):  # of another one, meanwhile
                    await runner.options(deadline=5 * SHORT).run(coroutines.add, 3, 4)
                gate.open()
                assert await second == 3
                await first

        asyncio.run(main())

    def test_lower_priorities_get_a_place_first_and_equal_ones_in_order(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, concurrency=1) as runner, gate:
                first = runner.submit(coroutines.wait_at, *gate.fds)
                await gate.reached()
                for number, priority in enumerate([0, 5, -1, 0, 5, -1, 3]):
                    view = runner.options(priority=priority)
                    view.submit(coroutines.leave_mark, trace.fd, b"%d" % number)
                gate.open()
                await first
                await runner.drain()
                assert trace.marks() == b"2503614"

        asyncio.run(main())


class TestSize:
    def test_a_runner_without_workers_starts_one_for_a_coroutine(
        self, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2, min_workers=0, idle_timeout=NEVER) as runner:
                assert await runner.run(coroutines.add, 1, 2) == 3
                assert runner.stats().started == 1

        asyncio.run(main())

    def test_it_grows_when_every_place_is_taken(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            sizes = {"workers": 3, "min_workers": 0, "idle_timeout": NEVER, "concurrency": 2}
            async with Runner(**sizes) as runner, gate:  # type: ignore[arg-type]
                calls = [runner.submit(coroutines.wait_at, *gate.fds, n) for n in range(7)]
                await gate.reached(6)
                assert (runner.stats().busy, runner.stats().queued) == (3, 1)
                gate.open()
                assert await asyncio.gather(*calls) == list(range(7))

        asyncio.run(main())

    def test_a_worker_with_coroutines_does_not_idle(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, min_workers=0, idle_timeout=0) as runner, gate:
                call = runner.submit(coroutines.wait_at, *gate.fds, "here")
                await gate.reached()
                assert await runner.run(values.square, 3) == 9  # and idles after it, but for that
                assert runner.stats().started == 1
                gate.open()
                assert await call == "here"
                assert await until(lambda: runner.stats().idle == runner.stats().busy == 0)

        asyncio.run(main())

    def test_recycling_lets_coroutines_come_to_their_end(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                call = runner.submit(coroutines.wait_at, *gate.fds, "here")
                await gate.reached()
                old = await runner.run(coroutines.identity)
                await runner.recycle()
                assert runner.stats().retiring == 1
                assert (await runner.run(coroutines.identity))[0] != old[0]
                gate.open()
                assert await call == "here"

        asyncio.run(main())


class TestWhatFollows:
    def test_context_variables_are_each_coroutines_own(self, silent: Callable[[], None]) -> None:
        async def call(runner: Runner, number: int) -> object:
            context.user.set(number)
            return await runner.run(coroutines.user_after_a_while)

        async def main() -> None:
            silent()
            async with Runner(workers=1, context=[context.user]) as runner:
                got = await asyncio.gather(*(call(runner, n) for n in range(20)))
                assert got == list(range(20))

        asyncio.run(main())

    def test_should_stop_is_of_the_coroutine_that_asks(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                call = runner.submit(coroutines.mark_should_stop, *gate.fds, trace.fd)
                await gate.reached()
                assert not await runner.run(coroutines.should_stop)
                call.cancel()
                await runner.drain()
                assert trace.marks() == b"FT"  # before it, and in its clean-up

        asyncio.run(main())
