"""How many workers there are: as many as asked for, or as there is work for."""

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import Runner, RunnerError
from helpers.forking import busy
from helpers.gate import Gate
from helpers.limits import SLOWNESS
from helpers.process import until
from helpers.programs import Program
from workfns import control, values, waiting

#: Seconds.
AT_ONCE = 0.001
NEVER = 1_000


@pytest.fixture(autouse=True)
def _watch(silent: Callable[[], None]) -> Callable[[], None]:
    return silent


def serving(runner: Runner) -> int:
    stats = runner.stats()
    return stats.starting + stats.idle + stats.busy


class TestElastic:
    @pytest.mark.parametrize("least", [0, 1, 3])
    def test_so_many_workers_are_there_from_the_start(self, least: int) -> None:
        with Runner(workers=4, min_workers=least) as runner:
            assert serving(runner) == runner.stats().started == least

    def test_it_grows_while_calls_wait_up_to_its_limit(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=3, min_workers=0, idle_timeout=NEVER) as runner, gate:
                calls: list[Any] = []
                for n in range(1, 4):
                    calls.append(runner.submit(waiting.wait_at, *gate.fds, n))
                    await gate.reached()
                    assert serving(runner) == n
                calls.append(runner.submit(waiting.wait_at, *gate.fds, 4))
                assert serving(runner) == runner.stats().started == 3
                gate.open()
                assert await asyncio.gather(*calls) == [1, 2, 3, 4]

        asyncio.run(main())

    def test_a_burst_gets_as_many_workers_as_it_has_calls(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=8, min_workers=0, idle_timeout=NEVER) as runner, gate:
                calls = [runner.submit(waiting.wait_at, *gate.fds) for _ in range(3)]
                await gate.reached(3)
                assert runner.stats().started == 3
                gate.open()
                await asyncio.gather(*calls)

        asyncio.run(main())

    def test_a_sequence_of_calls_does_not_take_all_workers(
        self, silent: Callable[[], None]
    ) -> None:
        """At most one more, for when the last call's worker is not back yet."""

        async def main() -> None:
            silent()
            async with Runner(workers=4, min_workers=0, idle_timeout=NEVER) as runner:
                for n in range(200):
                    assert await runner.run(values.square, n) == n * n
                assert runner.stats().started <= 2

        asyncio.run(main())

    @pytest.mark.parametrize("least", [0, 1, 2])
    def test_it_shrinks_when_idle_down_to_its_minimum(
        self, least: int, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=4, min_workers=least, idle_timeout=AT_ONCE) as runner, gate:
                calls = [runner.submit(waiting.wait_at, *gate.fds) for _ in range(4)]
                await gate.reached(4)
                assert serving(runner) == 4
                gate.open()
                await asyncio.gather(*calls)
                assert await until(lambda: serving(runner) == least)
                assert await until(lambda: runner.stats().retiring == 0)
                assert runner.stats().started == 4
                assert serving(runner) == least
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())

    def test_it_does_not_shrink_before_its_time(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2, min_workers=0, idle_timeout=NEVER) as runner, gate:
                calls = [runner.submit(waiting.wait_at, *gate.fds) for _ in range(2)]
                await gate.reached(2)
                gate.open()
                await asyncio.gather(*calls)
                assert await until(lambda: runner.stats().idle == 2)

        asyncio.run(main())

    @pytest.mark.timeout(90 * SLOWNESS)
    @pytest.mark.parametrize("least", [0, 1])
    def test_calls_that_race_with_idling_out_are_not_lost(
        self, least: int, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            dice = random.Random(7)
            options: dict[str, Any] = {"min_workers": least, "idle_timeout": 0.0003}
            async with Runner(workers=2, **options) as runner:
                for n in range(250):
                    calls = [runner.submit(values.square, n) for _ in range(dice.randrange(1, 4))]
                    assert set(await asyncio.gather(*calls)) == {n * n}
                    await asyncio.sleep(dice.random() * 0.0008)
                assert runner.stats().started > 2

        asyncio.run(main())

    def test_an_idle_timeout_of_zero_is_one(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2, min_workers=0, idle_timeout=0) as runner:
                for n in range(10):
                    assert await runner.run(values.square, n) == n * n
                assert await until(lambda: serving(runner) == 0)

        asyncio.run(main())

    def test_a_worker_that_may_not_retire_sleeps(self, program: Program) -> None:
        """Whatever the idle timeout: it uses no processor time."""
        program("""
            import asyncio, threading, time
            from aiointerpreters import Runner
            from workfns import values

            async def main():
                async with Runner(workers=2, min_workers=1, idle_timeout=0) as runner:
                    assert await runner.run(values.square, 3) == 9
                    before = time.process_time()
                    threading.Event().wait(0.5)
                    assert time.process_time() - before < 0.25

            asyncio.run(main())
        """).assert_ended(0)

    def test_a_worker_whose_coroutines_run_on_sleeps(self, program: Program) -> None:
        """It retires when they have ended, and asks for that no more often than it need."""
        program("""
            import asyncio, threading, time
            from aiointerpreters import Runner
            from helpers.process import until

            async def main():
                async with Runner(workers=2, min_workers=0, idle_timeout=0) as runner:
                    await runner.run(asyncio.sleep, 0)
                    call = runner.submit(asyncio.sleep, 0.5)
                    assert await until(lambda: runner.stats().busy == 1)
                    before = time.process_time()
                    threading.Event().wait(0.4)
                    used = time.process_time() - before
                    assert used < 0.2, used  # who asks again and again uses all of it
                    await call
                    assert await until(lambda: runner.stats()[3:7] == (0, 0, 0, 0))

            asyncio.run(main())
        """).assert_ended(0)

    def test_two_calls_can_wait_for_each_other(self, silent: Callable[[], None]) -> None:
        """Though the first has a worker that idles, or retires, when they come."""
        import os

        async def main() -> None:
            silent()
            async with Runner(workers=2, min_workers=0, idle_timeout=AT_ONCE) as runner:
                for _ in range(30):
                    one, other = os.pipe(), os.pipe()
                    meet = waiting.meet
                    both = (
                        runner.submit(meet, one[1], other[0], 15 * SLOWNESS),
                        runner.submit(meet, other[1], one[0], 15 * SLOWNESS),
                    )
                    assert await asyncio.gather(*both) == [True, True]
                    for fd in (*one, *other):
                        os.close(fd)

        asyncio.run(main())

    @pytest.mark.parametrize("how", ["close", "stop"])
    @pytest.mark.parametrize("least", [0, 1])
    def test_closing(self, how: str, least: int, silent: Callable[[], None]) -> None:
        """With workers that idle, retire, start or are not there; at any moment."""

        async def main() -> None:
            silent()
            dice = random.Random(11)
            for _ in range(30):
                runner = Runner(workers=2, min_workers=least, idle_timeout=0.0003)
                calls: list[asyncio.Future[int]] = []
                try:
                    async with runner:
                        calls += [runner.submit(values.square, 3) for _ in range(dice.randrange(3))]
                        await asyncio.sleep(dice.random() * 0.02)
                        calls += [runner.submit(values.square, 3) for _ in range(dice.randrange(3))]
                        if how == "stop":
                            raise LookupError
                except LookupError:
                    await asyncio.gather(*calls, return_exceptions=True)
                else:
                    got = await asyncio.gather(*calls)
                    assert got == [9] * len(calls)

        asyncio.run(main())

    def test_awaits_in_sequence_need_no_second_worker(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            for _ in range(5):
                async with Runner(workers=4, min_workers=0, idle_timeout=NEVER) as runner:
                    for n in range(300):
                        assert await runner.run(values.square, n) == n * n
                    assert runner.stats().started == 1

        asyncio.run(main())

    @busy
    def test_a_forked_child_can_use_a_runner_of_its_own(self, program: Program) -> None:
        ended = program("""
            import asyncio, os, sys, warnings
            from aiointerpreters import Runner, RunnerError
            from workfns import values

            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads

            async def use(runner):
                return await runner.run(values.square, 7)

            runner = Runner(workers=2, min_workers=0, idle_timeout=0.001).start()
            for used in (False, True):
                if used:
                    assert asyncio.run(use(runner)) == 49
                sys.stdout.flush()
                child = os.fork()
                if child == 0:
                    try:
                        asyncio.run(use(runner))
                    except RunnerError:
                        print("refused")
                    runner.close()
                    with Runner(workers=2, min_workers=0, idle_timeout=0.001) as own:
                        print(asyncio.run(use(own)))
                    sys.stdout.flush()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            assert asyncio.run(use(runner)) == 49
            runner.close()
        """)
        ended.assert_ended(0)
        assert ended.out == "refused\n49\n" * 2


class TestResize:
    def test_up(self, gate: Gate, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                calls = [runner.submit(waiting.wait_at, *gate.fds) for _ in range(3)]
                await gate.reached(1)
                runner.resize(3)
                assert runner.workers == 3
                await gate.reached(2)
                assert serving(runner) == 3
                gate.open()
                await asyncio.gather(*calls)

        asyncio.run(main())

    def test_down_ends_idle_workers_first(self, gate: Gate, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=4) as runner, gate:
                held = runner.submit(control.number_of_calls_at, *gate.fds)
                await gate.reached()
                assert await until(lambda: runner.stats().idle == 3)
                runner.resize(1)
                assert await until(lambda: runner.stats().retiring == 0)
                stats = runner.stats()
                assert (stats.busy, stats.idle) == (1, 0)
                gate.open()
                assert await held == 1
                assert await runner.run(control.count_calls) == (2, None)

        asyncio.run(main())

    def test_below_running_calls_lets_them_finish(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=3) as runner, gate:
                held = [runner.submit(waiting.wait_at, *gate.fds, n) for n in range(3)]
                await gate.reached(3)
                runner.resize(1)
                stats = runner.stats()
                assert (stats.busy, stats.retiring) == (1, 2)
                more = [runner.submit(values.square, n) for n in range(20)]
                gate.open()
                assert await asyncio.gather(*held) == [0, 1, 2]
                assert await asyncio.gather(*more) == [n * n for n in range(20)]
                assert await until(lambda: runner.stats().retiring == 0)
                assert serving(runner) == 1

        asyncio.run(main())

    def test_up_and_down_under_load_loses_nothing(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            dice = random.Random(3)
            async with Runner(workers=2) as runner:
                calls = []
                for n in range(400):
                    calls.append(runner.submit(values.square, n))
                    if n % 10 == 0:
                        runner.resize(dice.randrange(1, 4))
                        await asyncio.sleep(0)
                assert await asyncio.gather(*calls) == [n * n for n in range(400)]
                runner.resize(2)
                assert await until(lambda: runner.stats().retiring == 0)
                assert serving(runner) == 2

        asyncio.run(main())

    def test_an_elastic_runner_stays_elastic(self, gate: Gate, silent: Callable[[], None]) -> None:
        """Also if it was as small as its minimum in between."""

        async def main() -> None:
            silent()
            async with Runner(workers=4, min_workers=1, idle_timeout=AT_ONCE) as runner, gate:
                runner.resize(1)
                runner.resize(3)
                assert runner.stats().started == 1
                held = [runner.submit(waiting.wait_at, *gate.fds) for _ in range(4)]
                await gate.reached(3)
                assert serving(runner) == 3
                gate.open()
                await asyncio.gather(*held)
                assert await until(lambda: serving(runner) == 1)

        asyncio.run(main())

    def test_below_the_minimum_and_back(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=4, min_workers=3, idle_timeout=AT_ONCE) as runner:
                runner.resize(2)
                assert serving(runner) == 2
                runner.resize(5)
                assert serving(runner) == 3
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())

    def test_while_recycling(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=3) as runner:
                for workers in (1, 4, 2, 1, 3):
                    recycled = runner.recycle()
                    runner.resize(workers)
                    await asyncio.sleep(0)
                    assert await runner.run(values.square, 3) == 9
                    await recycled
                    assert await until(lambda: runner.stats().retiring == 0)
                    assert serving(runner) == workers

        asyncio.run(main())

    def test_in_any_thread(self, silent: Callable[[], None]) -> None:
        with Runner(workers=1) as runner:
            threads = [threading.Thread(target=runner.resize, args=(n,)) for n in (3, 2, 3, 4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            runner.resize(2)
            assert serving(runner) == 2

    @pytest.mark.parametrize("workers", [0, -1])
    def test_fewer_than_one_is_a_value_error(self, runner: Runner, workers: int) -> None:
        with pytest.raises(ValueError, match="workers must be at least 1"):
            runner.resize(workers)

    @pytest.mark.parametrize("workers", ["2", 2.0, None])
    def test_what_is_no_integer_is_a_type_error(self, runner: Runner, workers: Any) -> None:
        with pytest.raises(TypeError, match="workers must be an integer"):
            runner.resize(workers)

    def test_a_runner_that_is_not_started_or_closed_says_so(self) -> None:
        runner = Runner(workers=1)
        with pytest.raises(RunnerError, match="not started"):
            runner.resize(2)
        with runner:
            pass
        with pytest.raises(RunnerError, match="closed"):
            runner.resize(2)
        assert runner.workers == 1


class TestParameters:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"workers": 2, "min_workers": 3}, ValueError, "min_workers must be at most workers"),
            ({"workers": 2, "min_workers": -1}, ValueError, "min_workers must be at least 0"),
            ({"workers": 2, "min_workers": 1.5}, TypeError, "min_workers must be an integer"),
            ({"workers": 2, "idle_timeout": 1}, ValueError, "idle_timeout is of no use without"),
            (
                {"workers": 2, "min_workers": 1, "idle_timeout": -1},
                ValueError,
                "idle_timeout must be a number of seconds, 0 or more",
            ),
            (
                {"workers": 2, "min_workers": 1, "idle_timeout": "1"},
                TypeError,
                "idle_timeout must be a number of seconds",
            ),
            ({"grace_period": -0.1}, ValueError, "grace_period must be .* 0 or more"),
            ({"grace_period": float("nan")}, ValueError, "grace_period must be .* 0 or more"),
            ({"grace_period": "1"}, TypeError, "grace_period must be a number of seconds"),
            ({"concurrency": None}, TypeError, "concurrency must be an integer, not NoneType"),
            ({"name": 5}, TypeError, "name must be a string or None, not int"),
            ({"context": 5}, TypeError, "context must be context variables, not int"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, options: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            Runner(**options)

    def test_a_runner_is_not_resized_to_nothing_in_particular(self) -> None:
        with (
            Runner(workers=1) as runner,
            pytest.raises(TypeError, match="workers must be an integer, not NoneType"),
        ):
            runner.resize(None)  # type: ignore[arg-type]

    def test_a_number_may_be_as_good_as_any(self) -> None:
        with Runner(workers=1, max_tasks_per_worker=2**64, concurrency=2**64) as runner:
            assert asyncio.run(runner.run(values.square, 3)) == 9

    def test_for_ever_is_a_time(self) -> None:
        forever = float("inf")
        with Runner(workers=1, min_workers=0, idle_timeout=forever, grace_period=forever) as runner:
            assert asyncio.run(runner.run(values.square, 3)) == 9


def test_workers_that_are_not_ready_go_first(silent: Callable[[], None]) -> None:
    async def main() -> None:
        silent()
        async with Runner(workers=2) as runner:
            assert await until(lambda: runner.stats().idle == 2)
            for workers in (30, 2):
                runner.resize(workers)
            assert (runner.stats().starting, runner.stats().idle) == (0, 2)
            assert await runner.run(values.square, 3) == 9

    asyncio.run(main())
