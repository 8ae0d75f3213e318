"""`Runner.options`: views of a runner whose calls have priorities and limits of time."""

import asyncio
import math
from collections.abc import Callable
from contextlib import aclosing
from fractions import Fraction
from typing import Any

import pytest

from aiointerpreters import Runner, RunnerError, RunnerView
from helpers.gate import Gate, Trace
from helpers.limits import SOON
from workfns import failing, streams, values, waiting

#: So that no import in a worker takes a part of a call's time.
PRELOAD = ("aiointerpreters._pumping", "workfns.streams", "workfns.values", "workfns.waiting")


async def settle() -> None:
    """Let every callback that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def soon[T](awaitable: Any) -> Any:
    async with asyncio.timeout(SOON):
        return await awaitable


@pytest.fixture(autouse=True)
def _watch(silent: Callable[[], None]) -> None:
    """Every test ends by collecting garbage, of which nothing may complain."""


class TestViews:
    def test_a_view_has_all_the_calls_of_its_runner(self, runner: Runner) -> None:
        async def main() -> None:
            for view in (runner.options(), runner.options(priority=1, timeout=60, deadline=90)):
                assert isinstance(view, RunnerView)
                assert await view.run(values.square, 3) == 9
                assert await view.submit(values.square, 4) == 16
                assert await view.wrap(values.add)(1, right=2) == 3
                assert [n async for n in view.map(values.square, [1, 2])] == [1, 4]
                assert [n async for n in view.stream(streams.numbers, 3)] == [0, 1, 2]
                info = ("module", "workfns.values", "square")
                assert await view.run_module_function(info, 5) == 25  # type: ignore[arg-type]
                with pytest.raises(ZeroDivisionError):
                    await view.run(failing.divide_by_zero)

        asyncio.run(main())

    def test_views_of_views_combine(self) -> None:
        runner = Runner(workers=1)
        view = runner.options(priority=1).options(timeout=3).options(deadline=9, buffer=5)
        assert repr(view) == f"<RunnerView of {runner!r} with " + (
            "timeout=3.0 deadline=9.0 priority=1 buffer=5>"
        )
        assert repr(view.options(timeout=4)).endswith(
            "with timeout=4.0 deadline=9.0 priority=1 buffer=5>"
        )
        assert repr(view.options()) == repr(view)
        back = view.options(timeout=None, deadline=None, priority=0, buffer=128)
        assert repr(back) == f"<RunnerView of {runner!r}>"

    def test_a_view_may_be_made_before_the_runner_is_started(self) -> None:
        async def main() -> None:
            runner = Runner(workers=1)
            plain, with_options = runner.options(buffer=3), runner.options(priority=3)
            for view in (plain, with_options):
                with pytest.raises(RunnerError, match="not started"):
                    await view.run(values.square, 3)
            async with runner:
                assert await plain.run(values.square, 3) == 9
                assert await with_options.run(values.square, 3) == 9
            for view in (plain, with_options):
                with pytest.raises(RunnerError, match="closed"):
                    await view.run(values.square, 3)

        asyncio.run(main())

    def test_a_view_keeps_its_runner(self) -> None:
        async def main() -> None:
            view = Runner(workers=1).start().options(priority=1)
            assert await view.run(values.square, 3) == 9
            await view._runner().aclose()

        asyncio.run(main())


class TestValidation:
    @pytest.mark.parametrize("name", ["timeout", "deadline"])
    @pytest.mark.parametrize("value", ["3", b"3", [1], 1j])
    def test_limits_of_time_are_numbers(self, name: str, value: Any) -> None:
        with pytest.raises(TypeError, match=f"{name} must be a number of seconds or None, not"):
            Runner().options(**{name: value})

    @pytest.mark.parametrize("name", ["timeout", "deadline"])
    @pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, -math.inf, 10**400])
    def test_limits_of_time_are_finite_and_not_negative(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"{name} must be a finite number of seconds"):
            Runner().options(**{name: value})

    @pytest.mark.parametrize("value", [0, 0.0, 1, 0.25, True, Fraction(1, 4), None])
    def test_any_kind_of_number_will_do(self, value: Any) -> None:
        Runner().options(timeout=value, deadline=value)

    @pytest.mark.parametrize("value", ["3", 1.0, None])
    def test_a_priority_is_an_integer(self, value: Any) -> None:
        with pytest.raises(TypeError, match="priority must be an integer, not"):
            Runner().options(priority=value)

    @pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**100])
    def test_a_priority_fits_in_64_bits(self, value: int) -> None:
        with pytest.raises(ValueError, match="priority must fit in 64 bits"):
            Runner().options(priority=value)

    @pytest.mark.parametrize("value", ["3", 1.0, None])
    def test_a_buffer_is_an_integer(self, value: Any) -> None:
        with pytest.raises(TypeError, match="buffer must be an integer"):
            Runner().options(buffer=value)

    @pytest.mark.parametrize("value", [0, -1])
    def test_a_buffer_has_room_for_one(self, value: int) -> None:
        with pytest.raises(ValueError, match="buffer must be at least 1"):
            Runner().options(buffer=value)


class TestPriority:
    async def order_of(
        self, gate: Gate, trace: Trace, priorities: list[int], cancelled: tuple[int, ...] = ()
    ) -> list[int]:
        """In which order calls of these priorities begin, by their place in the list."""
        async with Runner(workers=1) as runner, gate:
            held = runner.submit(waiting.wait_at, *gate.fds)
            await gate.reached()
            calls = [
                runner.options(priority=priority).submit(
                    waiting.leave_mark, trace.fd, bytes([place])
                )
                for place, priority in enumerate(priorities)
            ]
            for place in cancelled:
                assert calls[place].cancel()
            gate.open()
            await held
            await asyncio.wait(calls)
        return list(trace.marks())

    def test_lower_numbers_come_first_and_equal_ones_in_their_order(
        self, gate: Gate, trace: Trace
    ) -> None:
        priorities = [0, 5, -5, 0, 2**63 - 1, 5, -(2**63), -5, 0]
        order = asyncio.run(self.order_of(gate, trace, priorities))
        assert order == sorted(range(len(priorities)), key=priorities.__getitem__)

    def test_many(self, gate: Gate, trace: Trace) -> None:
        priorities = [(n * 7919) % 13 - 6 for n in range(250)]
        order = asyncio.run(self.order_of(gate, trace, priorities))
        assert order == sorted(range(len(priorities)), key=priorities.__getitem__)

    def test_cancelling_keeps_the_order_of_the_others(self, gate: Gate, trace: Trace) -> None:
        priorities = [n % 3 for n in range(60)]
        cancelled = (0, 1, 2, 29, 30, 31, 57, 58, 59, *range(10, 20))
        order = asyncio.run(self.order_of(gate, trace, priorities, cancelled))
        left = [n for n in range(60) if n not in cancelled]
        assert order == sorted(left, key=priorities.__getitem__)

    def test_calls_without_options_have_priority_zero(self, gate: Gate, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                views = [runner.options(priority=1), runner, runner.options(priority=-1)]
                calls = [
                    view.submit(waiting.leave_mark, trace.fd, bytes([n]))
                    for n, view in enumerate(views)
                ]
                gate.open()
                await asyncio.gather(held, *calls)
                assert list(trace.marks()) == [2, 1, 0]

        asyncio.run(main())


class TestTimeout:
    def test_a_call_that_runs_too_long_is_stopped(
        self, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, preload=PRELOAD) as runner:
                view = runner.options(timeout=0.2)
                for call in (view.run, view.submit, lambda f, *a: view.wrap(f)(*a)):
                    with pytest.raises(TimeoutError, match=r"run for 0\.2 seconds \(timeout\)"):
                        await soon(call(waiting.mark_and_spin, trace.fd))
                    assert await soon(runner.run(values.square, 3)) == 9
                    assert trace.marks() == b"()"

        asyncio.run(main())

    def test_it_counts_from_the_start_in_a_worker(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1, preload=PRELOAD) as runner, gate:
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                queued = runner.options(timeout=0.3).submit(values.square, 3)
                await asyncio.sleep(0.4)
                assert not queued.done()
                gate.open()
                await held
                assert await soon(queued) == 9

        asyncio.run(main())

    def test_a_call_that_is_done_in_time_is_not_disturbed(self, runner: Runner) -> None:
        async def main() -> None:
            view = runner.options(timeout=60)
            assert await asyncio.gather(*(view.run(values.square, n) for n in range(500))) == [
                n * n for n in range(500)
            ]

        asyncio.run(main())

    def test_the_next_call_of_the_worker_is_not_disturbed(self) -> None:
        """Time-outs that come as their calls end, or just after."""

        async def main() -> None:
            async with Runner(workers=1, preload=PRELOAD) as runner:
                view = runner.options(timeout=0.003)
                for n in range(60):
                    short = view.submit(waiting.pause, n / 10_000)
                    after = runner.submit(values.square, n)
                    (outcome,) = await soon(asyncio.gather(short, return_exceptions=True))
                    assert outcome == n / 10_000 or isinstance(outcome, TimeoutError)
                    assert await soon(after) == n * n

        asyncio.run(main())

    def test_an_own_timeout_error_is_the_functions(self, runner: Runner) -> None:
        async def main() -> None:
            with pytest.raises(TimeoutError, match="of the function's own"):
                await runner.options(timeout=60).run(
                    failing.throw, TimeoutError("of the function's own")
                )

        asyncio.run(main())

    def test_for_a_map_it_is_each_calls(self, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(workers=1, preload=PRELOAD) as runner:
                mapped = runner.options(timeout=1).map(
                    values.apply,
                    [waiting.pause, waiting.pause, waiting.mark_and_spin, waiting.pause],
                    [0.6, 0.6, trace.fd, 0],
                )
                assert [await anext(mapped), await anext(mapped)] == [0.6, 0.6]
                with pytest.raises(TimeoutError):
                    await soon(anext(mapped))
                assert await soon(runner.run(values.square, 3)) == 9
                assert trace.marks() == b"()"

        asyncio.run(main())

    def test_for_a_stream_it_is_its_whole_run(self, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(workers=1, preload=PRELOAD) as runner:
                items = 0
                async with aclosing(
                    runner.options(timeout=0.2).stream(streams.endless, trace.fd)
                ) as numbers:
                    with pytest.raises(TimeoutError, match=r"run for 0\.2 seconds \(timeout\)"):
                        async for number in numbers:
                            assert number == items
                            items += 1
                assert trace.marks() == b"f"
                assert await soon(runner.run(values.square, 3)) == 9

        asyncio.run(main())


class TestDeadline:
    def test_a_queued_call_is_ended_by_it_and_never_runs(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                with pytest.raises(
                    TimeoutError, match=r"not done 0\.05 seconds after it was made \(deadline\)"
                ):
                    await soon(runner.options(deadline=0.05).run(waiting.leave_mark, trace.fd))
                gate.open()
            assert trace.marks() == b""

        asyncio.run(main())

    def test_a_running_call_is_stopped_by_it(
        self, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner:
                with pytest.raises(
                    TimeoutError, match=r"not done 0\.2 seconds after it was made \(deadline\)"
                ):
                    await soon(runner.options(deadline=0.2).run(waiting.mark_and_spin, trace.fd))
                assert await soon(runner.run(values.square, 3)) == 9
                assert trace.marks() in (b"()", b"")  # a slow machine may not have begun it

        asyncio.run(main())

    def test_whichever_comes_first_counts(self, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                with pytest.raises(TimeoutError, match=r"run for 0\.05 seconds \(timeout\)"):
                    await soon(
                        runner.options(timeout=0.05, deadline=60).run(
                            waiting.mark_and_spin, trace.fd
                        )
                    )
                with pytest.raises(
                    TimeoutError, match=r"not done 0\.05 seconds after it was made \(deadline\)"
                ):
                    await soon(
                        runner.options(timeout=60, deadline=0.05).run(
                            waiting.mark_and_spin, trace.fd
                        )
                    )

        asyncio.run(main())

    def test_zero_is_for_what_must_be_done_already(self, runner: Runner, trace: Trace) -> None:
        async def main() -> None:
            with pytest.raises(TimeoutError):
                await soon(runner.options(deadline=0).run(waiting.mark_and_spin, trace.fd))

        asyncio.run(main())

    def test_the_wait_for_a_slot_counts(self, gate: Gate, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, max_pending=1) as runner, gate:
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                with pytest.raises(
                    TimeoutError, match=r"not done 0\.05 seconds after it was made \(deadline\)"
                ):
                    await soon(runner.options(deadline=0.05).run(values.square, 3))
                behind = asyncio.ensure_future(runner.run(values.square, 3))
                await settle()
                gate.open()
                await held
                assert await soon(behind) == 9

        asyncio.run(main())

    def test_what_is_done_in_time_is_not_disturbed(self, runner: Runner) -> None:
        async def main() -> None:
            view = runner.options(deadline=60)
            assert await asyncio.gather(*(view.run(values.square, n) for n in range(500))) == [
                n * n for n in range(500)
            ]

        asyncio.run(main())
