"""Cancelling running work interrupts its Python code, once, and hits nothing else."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import InterpreterError, Interrupted, Queue, Runner
from helpers.gate import Gate, Trace
from helpers.limits import SLOWNESS, SOON
from helpers.process import LINUX
from helpers.programs import Program
from workfns import control, values

#: No worker is to count as stuck, on however slow a machine.
PATIENT = 10 * SOON


@pytest.fixture(autouse=True)
def _watch(silent: Callable[[], None]) -> Callable[[], None]:
    return silent


async def leave_by_cancel(call: asyncio.Task[Any]) -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def leave_by_timeout(call: asyncio.Task[Any]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await call


async def leave_by_wait_for(call: asyncio.Task[Any]) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, 0.001)


async def leave_by_gather(call: asyncio.Task[Any]) -> None:
    gathered = asyncio.gather(call, asyncio.sleep(0))
    await asyncio.sleep(0)
    gathered.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gathered


async def leave_by_task_group(call: asyncio.Task[Any]) -> None:
    async def wait() -> None:
        await call

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            group.create_task(fail())


class TestHowItIsAskedFor:
    @pytest.mark.parametrize(
        "leave",
        [
            leave_by_cancel,
            leave_by_timeout,
            leave_by_wait_for,
            leave_by_gather,
            leave_by_task_group,
        ],
        ids=lambda leave: leave.__name__.removeprefix("leave_by_"),
    )
    def test_whatever_cancels_the_awaiter_interrupts_the_work(
        self, leave: Any, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner:
                await runner.run(control.remember, "kept")
                work = runner.run(control.go_on, "spin_in_a_loop", gate.fds[0], trace.fd)
                call = asyncio.create_task(work)
                await gate.reached()
                await leave(call)
                assert call.cancelled()
                assert await runner.run(control.recall) == "kept"
                assert trace.marks() == b"mif"
                assert runner.stats().replaced == 0

        asyncio.run(main())

    def test_cancelling_its_future_interrupts_the_work(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner:
                future = runner.submit(control.go_on, "sleep_long", gate.fds[0], trace.fd)
                await gate.reached()
                assert future.cancel()
                assert not future.cancel()
                assert await runner.run(values.square, 3) == 9
                assert trace.marks() == b"mif"

        asyncio.run(main())

    def test_a_wrapped_function_is_interrupted(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner:
                go_on = runner.wrap(control.go_on)
                call = asyncio.create_task(go_on("spin_in_a_loop", gate.fds[0], trace.fd))
                await gate.reached()
                await leave_by_cancel(call)
                assert await runner.run(values.square, 3) == 9
                assert trace.marks() == b"mif"

        asyncio.run(main())

    def test_a_result_that_is_set_by_hand_leaves_the_work_alone(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        """Nobody cancels it; though nobody waits for it."""

        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                future = runner.submit(control.read_until, *gate.fds, trace.fd)
                await gate.reached()
                future.set_result(None)
                gate.open()
                assert await runner.run(values.square, 3) == 9
                assert trace.marks() == b"f"

        asyncio.run(main())

    def test_ctrl_c_interrupts_the_work(self, program: Program) -> None:
        ended = program(
            """
            import asyncio, os, signal
            from aiointerpreters import Runner
            from workfns import control, values

            signal.signal(signal.SIGINT, signal.default_int_handler)
            announced, announce = os.pipe()
            read, mark = os.pipe()

            async def main():
                # Or asyncio might miss a Ctrl-C while it falls asleep.
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
                call = runner.submit(control.go_on, "spin_in_a_loop", announce, mark)
                os.read(announced, 1)
                print("ready", flush=True)
                await call

            with Runner(workers=1, grace_period=100) as runner:
                try:
                    asyncio.run(main())
                except KeyboardInterrupt:
                    print(asyncio.run(runner.run(values.square, 7)))
                    print(os.read(read, 10), runner.stats().replaced)
            """,
            interrupt=True,
        )
        ended.assert_fine()
        assert ended.out == "ready\n49\nb'mif' 0\n"


class TestWhatIsInterrupted:
    @pytest.mark.parametrize("way", control.WITHOUT_END)
    def test_python_code_and_waits_end_wherever_they_are(
        self, way: str, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        """By an exception that only `except Interrupted` and `finally` see; the worker lives on."""

        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner:
                await runner.run(control.remember, "kept")
                for _ in range(3):
                    future = runner.submit(control.go_on, way, gate.fds[0], trace.fd)
                    await gate.reached()
                    future.cancel()
                    assert await runner.run(control.recall) == "kept"
                    assert trace.marks() == b"mif"
                stats = runner.stats()
                assert (stats.replaced, stats.stuck, stats.started) == (0, 0, 1)

        asyncio.run(main())

    def test_the_unpickling_of_arguments_is_interrupted(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner:
                argument = control.SpinsWhenUnpickled(gate.fds[0], trace.fd)
                future = runner.submit(values.echo, argument)
                await gate.reached()
                future.cancel()
                assert await runner.run(values.square, 3) == 9
                assert trace.marks() == b"mif"

        asyncio.run(main())

    def test_the_pickling_of_the_result_is_interrupted(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner:
                fds = (gate.fds[0], trace.fd)
                future = runner.submit(control.return_what_spins_when_pickled, *fds)
                await gate.reached()
                future.cancel()
                assert await runner.run(values.square, 3) == 9
                assert trace.marks() == b"mif"

        asyncio.run(main())

    def test_each_of_many_is_interrupted(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=3, grace_period=PATIENT) as runner:
                for _ in range(20):
                    futures = [
                        runner.submit(control.go_on, "spin_in_a_loop", gate.fds[0], trace.fd)
                        for _ in range(3)
                    ]
                    await gate.reached(3)
                    for future in futures:
                        future.cancel()
                await runner.drain()
                assert sorted(trace.marks()) == sorted(b"mif" * 60)
                assert runner.stats().started == 3

        asyncio.run(main())

    def test_others_are_not(self, gate: Gate, trace: Trace, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2, grace_period=PATIENT) as runner, gate:
                reading = runner.submit(control.read_until, *gate.fds, trace.fd)
                spinning = runner.submit(control.go_on, "sleep_long", gate.fds[0], trace.fd)
                await gate.reached(2)
                spinning.cancel()
                assert await runner.run(values.square, 3) == 9
                assert trace.marks() == b"mif"
                gate.open()
                assert await reading is None

        asyncio.run(main())


class TestOnce:
    @pytest.mark.parametrize(
        ("function", "marks"),
        [
            (control.finish_in_peace, b"swq"),
            (control.finish_in_peace_amid_other_exceptions, b"l"),
            (control.finish_a_generator_in_peace, b"g"),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_what_cleans_up_is_not_interrupted_again(
        self, function: Any, marks: bytes, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner:
                for _ in range(5):
                    future = runner.submit(function, gate.fds[0], trace.fd)
                    await gate.reached()
                    future.cancel()
                    assert await runner.run(values.square, 3) == 9
                    assert trace.marks() == marks

        asyncio.run(main())

    def test_code_that_looks_by_itself_may_hold_the_interruption_off(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner:
                future = runner.submit(control.stop_when_asked, gate.fds[0])
                await gate.reached()
                future.cancel()
                assert await runner.run(values.square, 3) == 9
                assert runner.stats().replaced == 0

        asyncio.run(main())

    def test_should_stop_tells_clean_up_code_that_nobody_waits(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner:
                fds = (gate.fds[0], trace.fd)
                future = runner.submit(control.should_stop_before_and_after, *fds)
                await gate.reached()
                future.cancel()
                assert await runner.run(values.square, 3) == 9
                assert trace.marks() == b"-s"

        asyncio.run(main())

    def test_what_it_is_turned_into_is_dropped(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner:
                future = runner.submit(control.turn_into_another, gate.fds[0])
                await gate.reached()
                future.cancel()
                assert await runner.run(values.square, 3) == 9
                assert future.cancelled()

        asyncio.run(main())


@pytest.mark.skipif(not LINUX, reason="counts threads in /proc")
def test_what_a_forked_child_cancels_concerns_nobody(program: Program) -> None:
    """The calls are its parent's, where they go on."""
    ended = program("""
        import asyncio, gc, os, warnings
        from aiointerpreters import Runner
        from helpers.process import native_threads
        from workfns import control, values, waiting

        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        announced, announce = os.pipe()
        wait, hold = os.pipe()

        async def main():
            async with Runner(workers=1) as runner:
                running = runner.submit(waiting.wait_at, announce, wait, "done")
                with_limits = (values.square, (3,), {}, 0, 1_000.0, 1_000.0, None)
                queued = [
                    runner.submit(values.square, 3),
                    runner._pool.submit_with(*with_limits),
                ]
                os.read(announced, 1)
                child = os.fork()
                if child == 0:
                    for future in (running, *queued):
                        assert future.cancel()
                    del running, queued, future
                    gc.collect()
                    os._exit(native_threads())
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
                os.close(hold)
                print(await running, await asyncio.gather(*queued))

        asyncio.run(main())
    """)
    ended.assert_ended(0)
    assert ended.out == "done [9, 9]\n"


class TestByHand:
    def test_an_interruption_that_nobody_asked_for_is_a_failure(
        self, runner: Runner, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            with pytest.raises(InterpreterError, match="by myself") as caught:
                await runner.run(control.raise_interrupted)
            assert caught.value.type_name == "aiointerpreters.Interrupted"
            assert await runner.run(values.square, 3) == 9

        asyncio.run(main())

    def test_it_may_be_the_cause_of_a_failure(self, call: Callable[..., Any]) -> None:
        with pytest.raises(ValueError, match="caused") as caught:
            call(control.fail_with_an_exception_caused_by_interrupted)
        assert "by myself" in str(caught.value.__cause__)

    def test_it_is_no_exception_that_is_caught_by_chance(self) -> None:
        assert issubclass(Interrupted, BaseException)
        assert not issubclass(Interrupted, Exception)


class TestNothingElse:
    @pytest.mark.timeout(60 * SLOWNESS)
    @pytest.mark.parametrize("workers", [1, 3])
    def test_calls_cancelled_at_random_moments_never_hit_others(
        self, workers: int, silent: Callable[[], None]
    ) -> None:
        """Calls of some microseconds, cancelled around their end; others in between are checked."""
        seed = random.SystemRandom().randrange(2**32)
        print("seed", seed)
        dice = random.Random(seed)

        async def main() -> None:
            silent()
            async with Runner(workers=workers, grace_period=PATIENT) as runner:
                end = time.monotonic() + 3
                calls = cancelled = 0
                while time.monotonic() < end:
                    doomed = [
                        runner.submit(values.echo, [dice.random()] * dice.randrange(300))
                        for _ in range(dice.randrange(1, 6))
                    ]
                    others = [runner.submit(values.square, n) for n in range(4)]
                    until = time.perf_counter() + dice.random() * 0.0003
                    while time.perf_counter() < until:
                        pass
                    for future in doomed:
                        cancelled += future.cancel()
                    others += [runner.submit(values.square, n) for n in range(4)]
                    got = await asyncio.gather(*others)
                    assert got == [0, 1, 4, 9, 0, 1, 4, 9]
                    calls += 1
                assert calls
                assert cancelled
                assert runner.stats().started == workers
                await runner.drain()

        asyncio.run(main())

    @pytest.mark.timeout(60 * SLOWNESS)
    def test_interrupting_and_ending_at_the_same_moment(self, silent: Callable[[], None]) -> None:
        """Work that is interrupted as it ends; the next on the same worker is left alone."""
        dice = random.Random(5)

        async def main() -> None:
            silent()
            async with Runner(workers=2, grace_period=PATIENT) as runner:
                end = time.monotonic() + 3
                calls = 0
                while time.monotonic() < end:
                    doomed = [runner.submit(control.sleep_at_least, 0.001) for _ in range(2)]
                    await asyncio.sleep(0.0008 + dice.random() * 0.0005)
                    for future in doomed:
                        future.cancel()
                    waits = [runner.submit(control.sleep_at_least, 0.001) for _ in range(2)]
                    assert await asyncio.gather(*waits) == [True, True]
                    calls += 1
                assert calls
                assert runner.stats().started == 2

        asyncio.run(main())

    def test_a_queues_next_wait_is_not_disturbed(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            queue = Queue[int]()
            async with Runner(workers=1, grace_period=PATIENT) as runner:
                for n in range(20):
                    fds = (gate.fds[0], trace.fd)
                    future = runner.submit(control.go_on, "get_from_an_empty_queue", *fds)
                    await gate.reached()
                    future.cancel()
                    got = runner.submit(control.get_from, queue, gate.fds[0])
                    await gate.reached()
                    queue.put(n)
                    assert await got == n

        asyncio.run(main())


class TestSleep:
    """time.sleep() in a worker is as everywhere, but that it can be interrupted."""

    @pytest.mark.parametrize("seconds", [0, 1e-5, 0.0009, 0.001, 0.0011, 0.03, 1])
    def test_it_lasts_as_long_as_asked(self, seconds: float, call: Callable[..., Any]) -> None:
        assert call(control.sleep_at_least, seconds)

    def test_it_lasts_in_other_threads(self, call: Callable[..., Any]) -> None:
        assert call(control.sleep_in_a_thread, 0.03)

    @pytest.mark.parametrize("name", control.SLEEPS)
    def test_it_takes_and_refuses_what_cpython_does(
        self, name: str, call: Callable[..., Any]
    ) -> None:
        assert call(control.outcome_of_sleep, name) == control.outcome_of_sleep(name)

    def test_it_refuses_no_arguments(self, call: Callable[..., Any]) -> None:
        assert call(control.outcome_of_sleep_without_arguments) == "TypeError"

    def test_outside_of_workers_it_is_cpythons(self) -> None:
        assert time.sleep.__module__ == "time"
