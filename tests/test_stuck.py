"""Work that can't be interrupted: its caller goes on at once, its worker is replaced."""

import asyncio
import os
import re
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import Runner, RunnerError, WorkerStuck
from helpers.gate import Gate, Trace
from helpers.limits import SOON
from helpers.process import LINUX, eventually, until
from helpers.programs import Program
from workfns import control, coroutines, streams, values, waiting

#: Seconds. Long enough for a clean end where one is expected on the way.
GRACE = 0.05
PATIENT = 10 * SOON

STUCK = [
    control.read_until,
    control.lock_until,
    control.hold_the_gil_until,
    control.swallow_until,
]
stuck_functions = pytest.mark.parametrize(
    "function", STUCK, ids=[function.__name__ for function in STUCK]
)


@pytest.fixture(autouse=True)
def _watch(silent: Callable[[], None]) -> Callable[[], None]:
    return silent


async def get_stuck(runner: Runner, gate: Gate, *calls: asyncio.Future[Any]) -> None:
    """Cancel what has come to the gate, and wait until its workers have been replaced."""
    before = runner.stats().replaced
    await gate.reached(len(calls))
    for call in calls:
        call.cancel()
    assert await until(lambda: runner.stats().replaced == before + len(calls))


class TestStuck:
    @stuck_functions
    def test_the_caller_is_released_at_once(
        self, function: Any, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner, gate:
                call = asyncio.create_task(runner.run(function, *gate.fds, trace.fd))
                await gate.reached()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                # It still runs, and nobody has given it up.
                assert runner.stats().busy == 1
                assert b"f" not in trace.marks()
                gate.open()
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())

    @pytest.mark.parametrize(
        "function", [control.read_until, coroutines.stay_in_c], ids=["plain", "coroutine"]
    )
    def test_who_drains_the_runner_does_not_wait_for_it(
        self, function: Any, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=GRACE) as runner, gate:
                marks = [trace.fd] if function is control.read_until else []
                call = runner.submit(function, *gate.fds, *marks)
                await get_stuck(runner, gate, call)
                async with asyncio.timeout(SOON):
                    await runner.drain()
                assert (runner.stats().pending, runner.stats().stuck) == (0, 1)
                gate.open()
                assert await until(lambda: runner.stats().stuck == 0)
                assert await runner.run(values.square, 3) == 9
                await runner.drain()
                assert runner.stats().pending == 0

        asyncio.run(main())

    @stuck_functions
    def test_after_the_grace_period_its_worker_is_replaced(
        self, function: Any, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=GRACE) as runner, gate:
                await runner.run(control.remember, "the first worker")
                call = runner.submit(function, *gate.fds, trace.fd)
                await get_stuck(runner, gate, call)
                assert await runner.run(control.recall) is None
                stats = runner.stats()
                assert (stats.stuck, stats.replaced, stats.started) == (1, 1, 2)
                assert stats.idle + stats.busy == 1
                gate.open()
                # It ends when it comes back, and takes no other call.
                assert await until(lambda: runner.stats().stuck == 0)
                for _ in range(20):
                    assert await runner.run(control.recall) is None
                stats = runner.stats()
                assert (stats.replaced, stats.started, stats.retiring) == (1, 2, 0)

        asyncio.run(main())

    def test_queued_calls_go_on(self, gate: Gate, trace: Trace, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=GRACE) as runner, gate:
                call = runner.submit(control.read_until, *gate.fds, trace.fd)
                queued = [runner.submit(values.square, n) for n in range(50)]
                await gate.reached()
                call.cancel()
                assert await asyncio.gather(*queued) == [n * n for n in range(50)]
                assert runner.stats().stuck == 1

        asyncio.run(main())

    def test_the_runner_keeps_its_full_capacity(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        """However many workers are stuck, so many others can run at once."""

        async def main() -> None:
            silent()
            stuck, meeting = gate, Gate()
            async with Runner(workers=2, grace_period=GRACE) as runner, stuck, meeting:
                for n in range(1, 4):
                    calls = [
                        runner.submit(control.read_until, *stuck.fds, trace.fd) for _ in range(2)
                    ]
                    await get_stuck(runner, stuck, *calls)
                    assert runner.stats().stuck == 2 * n
                both = [runner.submit(waiting.wait_at, *meeting.fds, n) for n in range(2)]
                await meeting.reached(2)
                meeting.open()
                assert await asyncio.gather(*both) == [0, 1]
                stuck.open()
                assert await until(lambda: runner.stats().stuck == 0)
                assert runner.stats().started == 8
            meeting.close()

        asyncio.run(main())

    def test_indexes_of_stuck_workers_are_not_used_again_while_they_live(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=GRACE) as runner, gate:
                call = runner.submit(control.read_until, *gate.fds, trace.fd)
                await get_stuck(runner, gate, call)
                assert await runner.run(control.index) == 1

        asyncio.run(main())

    def test_it_is_interrupted_again_until_it_ends(
        self, gate: Gate, signals: Any, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=GRACE) as runner, gate:
                call = runner.submit(control.swallow_and_mark_until, *gate.fds, signals.fd)
                await gate.reached()
                call.cancel()
                assert await signals.arrive(3) == b"iii"
                assert runner.stats().replaced == 1

        asyncio.run(main())

    def test_a_clean_end_within_the_grace_period_keeps_the_worker(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner, gate:
                await runner.run(control.remember, "kept")
                call = runner.submit(control.read_until, *gate.fds, trace.fd)
                await gate.reached()
                call.cancel()
                recall = runner.submit(control.recall)
                gate.open()
                assert await recall == "kept"
                assert runner.stats().started == 1

        asyncio.run(main())

    def test_without_any_grace_a_stuck_worker_is_replaced_at_once(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=0) as runner, gate:
                call = runner.submit(control.read_until, *gate.fds, trace.fd)
                await get_stuck(runner, gate, call)
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())


class TestLogging:
    @pytest.mark.parametrize(
        ("function", "name"),
        [
            (control.lock_until, r"workfns\.control\.lock_until"),
            (coroutines.stay_in_c, r"workfns\.coroutines\.stay_in_c"),
        ],
    )
    def test_a_record_tells_of_a_worker_that_is_stuck(
        self,
        function: Any,
        name: str,
        gate: Gate,
        trace: Trace,
        caplog: pytest.LogCaptureFixture,
        silent: Callable[[], None],
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=GRACE, name="parser") as runner, gate:
                marks = [] if function is coroutines.stay_in_c else [trace.fd]
                call = runner.submit(function, *gate.fds, *marks)
                await get_stuck(runner, gate, call)
                await runner.run(values.square, 3)
            (record,) = (record for record in caplog.records if record.name == "aiointerpreters")
            assert record.levelname == "WARNING"
            assert re.fullmatch(
                name + r" has not ended 0\.\d+ seconds after it was told to stop: the worker "
                r"parser-0 is stuck, and another one has taken its place",
                record.getMessage(),
            )

        asyncio.run(main())

    def test_of_a_generator_too(
        self, gate: Gate, trace: Trace, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            async with Runner(workers=1, grace_period=GRACE) as runner, gate:
                consumer = asyncio.create_task(
                    anext(runner.stream(control.read_until, *gate.fds, trace.fd))
                )
                await gate.reached()
                consumer.cancel()
                assert await until(lambda: runner.stats().stuck == 1)
                await runner.run(values.square, 3)

        asyncio.run(main())
        assert "the generator of a stream has not ended" in caplog.text


class TestStuckLoops:
    """Where it is a coroutine that holds up its worker's loop."""

    def test_calls_that_its_loop_has_not_begun_go_on(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=GRACE) as runner, gate:
                call = runner.submit(coroutines.stay_in_c, *gate.fds)
                await gate.reached()
                queued = [runner.submit(coroutines.echo, n) for n in range(10)]
                call.cancel()
                assert await asyncio.gather(*queued) == list(range(10))
                assert runner.stats().stuck == 1

        asyncio.run(main())

    def test_in_a_runner_that_is_closed_as_well(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            with gate:
                async with Runner(workers=1, grace_period=GRACE) as runner:
                    call = runner.submit(coroutines.stay_in_c, *gate.fds)
                    await gate.reached()
                    queued = [runner.submit(coroutines.echo, n) for n in range(10)]
                    call.cancel()
                assert await asyncio.gather(*queued) == list(range(10))
                assert runner.stats().stuck == 1

        asyncio.run(main())

    def test_calls_that_its_loop_has_taken_but_not_come_to_go_on(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=GRACE) as runner, gate:
                call = runner.submit(coroutines.stay_in_c, *gate.fds)
                # The loop's thread takes them all when it has started, and begins with the first.
                taken = [runner.submit(coroutines.echo, n) for n in range(10)]
                dropped = runner.submit(coroutines.echo, None)
                await gate.reached()
                dropped.cancel()
                call.cancel()
                assert await asyncio.gather(*taken) == list(range(10))
                await runner.drain()
                assert runner.stats().stuck == 1
                gate.open()
                assert await until(lambda: runner.stats().stuck == 0)

        asyncio.run(main())

    def test_those_that_it_has_begun_fail_at_once_and_are_cancelled_when_it_comes_back(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            stuck, meeting = gate, Gate()
            async with Runner(workers=1, grace_period=GRACE) as runner, stuck, meeting:
                begun = [
                    runner.submit(coroutines.mark_cancellation, *meeting.fds, trace.fd)
                    for _ in range(4)
                ]
                await meeting.reached(4)
                call = runner.submit(coroutines.stay_in_c, *stuck.fds)
                await stuck.reached()
                call.cancel()
                begun.pop().cancel()
                for one in begun:
                    with pytest.raises(WorkerStuck, match=r"aio-worker-0 is stuck in another"):
                        await one
                async with asyncio.timeout(SOON):
                    await runner.drain()
                assert (runner.stats().pending, runner.stats().stuck) == (0, 1)
                assert trace.marks() == b""
                assert await runner.run(coroutines.echo, 1) == 1
                stuck.open()
                assert await until(lambda: runner.stats().stuck == 0)
                assert sorted(trace.marks()) == sorted(4 * b"cf")
                await runner.drain()
                assert runner.stats().pending == 0
            meeting.close()

        asyncio.run(main())

    def test_closing_the_runner_does_not_wait_for_them(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            meeting = Gate()
            with gate, meeting:
                async with Runner(workers=1, grace_period=GRACE) as runner:
                    begun = runner.submit(coroutines.wait_at, *meeting.fds)
                    await meeting.reached()
                    call = runner.submit(coroutines.stay_in_c, *gate.fds)
                    await gate.reached()
                    call.cancel()
                assert isinstance(begun.exception(), WorkerStuck)
            assert await until(lambda: runner.stats().stuck == 0)
            meeting.close()

        asyncio.run(main())

    def test_a_stream_from_there_fails_after_what_it_has_sent(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=GRACE) as runner, gate:
                stream = runner.options(buffer=1).stream(streams.asynchronous, 1_000)
                assert await anext(stream) == 0
                call = runner.submit(coroutines.stay_in_c, *gate.fds)
                await gate.reached()
                call.cancel()
                with pytest.raises(WorkerStuck):
                    async for _ in stream:
                        pass
                gate.open()
                assert await until(lambda: runner.stats().stuck == 0)

        asyncio.run(main())

    @pytest.mark.parametrize("pause", [0.0, 0.002, 0.005, 0.01])
    def test_one_that_ends_at_that_moment_ends_once(
        self, pause: float, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            outcomes: list[object] = []
            async with Runner(workers=1, grace_period=0.005) as runner:
                for _ in range(10):
                    stuck, meeting = Gate(), Gate()
                    with stuck, meeting:
                        begun = [
                            runner.submit(coroutines.wait_at, *meeting.fds, n) for n in range(5)
                        ]
                        for one in begun:
                            one.add_done_callback(lambda one: outcomes.append(one.exception()))
                        await meeting.reached(5)
                        call = runner.submit(coroutines.stay_in_c, *stuck.fds)
                        await stuck.reached()
                        meeting.open()
                        call.cancel()
                        await asyncio.sleep(pause)
                        stuck.open()
                        await asyncio.wait(begun)
                    stuck.close()
                    meeting.close()
                await runner.drain()
                assert runner.stats().pending == 0
            assert len(outcomes) == 50
            assert {type(outcome) for outcome in outcomes} <= {type(None), WorkerStuck}

        asyncio.run(main())

    def test_the_error_is_a_runners(self) -> None:
        assert issubclass(WorkerStuck, RunnerError)

    @pytest.mark.parametrize("pauses", [0, 2 * round(GRACE / 0.01)])
    def test_a_clean_up_that_never_ends_is_interrupted_in_turn(
        self, pauses: int, gate: Gate, signals: Any, silent: Callable[[], None]
    ) -> None:
        """The grace period is for each of its steps: as long as it awaits it holds up nobody."""

        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=GRACE) as runner, gate:
                call = runner.submit(
                    coroutines.spin_in_the_clean_up, gate.fds[0], signals.fd, pauses
                )
                await gate.reached()
                call.cancel()
                assert await signals.arrive() == b"c"
                assert runner.stats().replaced == 1
                assert await runner.run(coroutines.echo, 1) == 1

        asyncio.run(main())


class TestEnding:
    @stuck_functions
    def test_closing_does_not_wait_for_stuck_work(
        self, function: Any, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            with gate:
                async with Runner(workers=1, grace_period=GRACE) as runner:
                    call = runner.submit(function, *gate.fds, trace.fd)
                    await gate.reached()
                    call.cancel()
                    done = runner.submit(values.square, 3)
                assert await done == 9
                assert b"f" not in trace.marks()  # it has not ended
                assert runner.stats().stuck == 1
                gate.open()
                assert await until(lambda: runner.stats().stuck == 0)

        asyncio.run(main())

    @pytest.mark.parametrize("asynchronous", [True, False])
    @stuck_functions
    def test_a_stopped_runner_does_not_wait_for_stuck_work_and_cancels_it(
        self,
        function: Any,
        asynchronous: bool,
        gate: Gate,
        trace: Trace,
        silent: Callable[[], None],
    ) -> None:
        async def main() -> None:
            silent()
            runner = Runner(workers=2, grace_period=GRACE)
            with gate:
                calls = []
                with pytest.raises(LookupError):
                    if asynchronous:
                        async with runner:
                            calls = [runner.submit(function, *gate.fds, trace.fd) for _ in "12"]
                            await gate.reached(2)
                            raise LookupError
                    else:
                        with runner:
                            calls = [runner.submit(function, *gate.fds, trace.fd) for _ in "12"]
                            await gate.reached(2)
                            raise LookupError
                await runner.aclose()
                assert b"f" not in trace.marks()
                done, _ = await asyncio.wait(calls, timeout=SOON)
                assert len(done) == 2
                assert all(call.cancelled() for call in calls)

        asyncio.run(main())

    def test_a_worker_that_is_stuck_in_its_set_up_does_not_hold_up_the_end(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            with gate:
                runner = Runner(
                    workers=1,
                    initializer=control.hold_up_the_set_up,
                    initargs=gate.fds,
                    grace_period=GRACE,
                )
                with pytest.raises(LookupError):
                    async with runner:
                        queued = runner.submit(values.square, 3)
                        await gate.reached()
                        raise LookupError
                assert queued.cancelled()

        asyncio.run(main())

    @pytest.mark.parametrize("asynchronous", [True, False])
    def test_nor_if_the_runner_is_closed_and_nothing_waits_for_it(
        self, asynchronous: bool, gate: Gate, trace: Trace
    ) -> None:
        runner = Runner(
            workers=2,
            initializer=control.read_until,
            initargs=(*gate.fds, trace.fd),
            grace_period=GRACE,
        )

        async def main() -> None:
            async with runner:
                await gate.reached(2)
            assert runner.stats().stuck == 2

        with gate:
            if asynchronous:
                asyncio.run(main())
            else:
                with runner.start():
                    asyncio.run(gate.reached(2))
                runner.close()
                assert runner.stats().stuck == 2
        assert eventually(lambda: runner.stats().stuck == 0)

    def test_a_set_up_that_is_in_vain_is_interrupted(self, gate: Gate, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(
                workers=2,
                initializer=control.go_on,
                initargs=("spin_in_a_loop", gate.fds[0], trace.fd),
                grace_period=PATIENT,
            ) as runner:
                await gate.reached(2)
            assert sorted(trace.marks()) == sorted(2 * b"imf")
            with pytest.raises(RunnerError, match="closed"):
                runner.submit(values.square, 3)

        asyncio.run(main())

    def test_accepted_calls_wait_for_the_set_up_of_a_closed_runner(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            runner = Runner(workers=1, initializer=control.hold_up_the_set_up, initargs=gate.fds)
            with runner.start():
                call = runner.submit(values.square, 3)
                coroutine = runner.submit(coroutines.echo, 4)
                await gate.reached()
            gate.open()
            assert (await call, await coroutine) == (9, 4)
            await runner.aclose()

        asyncio.run(main())

    def test_until_the_last_of_them_is_cancelled(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            runner = Runner(
                workers=1,
                initializer=control.read_until,
                initargs=(*gate.fds, trace.fd),
                grace_period=GRACE,
            )
            with gate, runner.start():
                calls = [runner.submit(values.square, 3), runner.submit(coroutines.echo, 4)]
                await gate.reached()
                runner.close()
                for call in calls:
                    call.cancel()
                await runner.aclose()
                assert runner.stats().stuck == 1

        asyncio.run(main())

    @pytest.mark.parametrize("function", [waiting.wait_at, control.read_until])
    def test_or_another_worker_has_done_the_last_of_them_or_is_stuck_in_it(
        self, function: Any, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            held, calls = gate, Gate()
            passes, give_pass = os.pipe()
            os.set_blocking(passes, False)
            with held, calls:
                os.write(give_pass, b".")
                async with Runner(
                    workers=2,
                    initializer=control.hold_up_all_but_one,
                    initargs=(passes, *held.fds, trace.fd),
                    grace_period=GRACE,
                ) as runner:
                    call = runner.submit(function, *calls.fds, trace.fd)
                    await calls.reached()
                    await held.reached()
                    if function is control.read_until:
                        call.cancel()
                    else:
                        calls.open()
                assert runner.stats().stuck == (2 if function is control.read_until else 1)
            calls.close()
            os.close(passes)
            os.close(give_pass)

        asyncio.run(main())

    @stuck_functions
    def test_the_programs_end_waits_for_a_c_call_that_returns(
        self, function: Any, program: Program
    ) -> None:
        ended = program(f"""
            import asyncio, os, threading
            from aiointerpreters import Runner
            from workfns import control, values

            announced, announce = os.pipe()
            wait, hold = os.pipe()
            trace, mark = os.pipe()

            async def main():
                with Runner(workers=1, grace_period=0.05) as runner:
                    call = runner.submit(control.{function.__name__}, announce, wait, mark)
                    os.read(announced, 1)
                    call.cancel()
                    print(await runner.run(values.square, 7), flush=True)

            asyncio.run(main())
            threading.Timer(0.2, os.close, (hold,)).start()
        """)
        assert (ended.status, ended.out) == (0, "49\n"), ended.err
        assert "Warning: 1 call(s) of the runner aio-worker could not be stopped" in ended.err

    @pytest.mark.skipif(not LINUX, reason="counts threads in /proc")
    def test_a_stuck_workers_thread_ends_when_it_returns(self, program: Program) -> None:
        program("""
            import asyncio, os
            from aiointerpreters import Runner
            from helpers.process import eventually, native_threads
            from workfns import control, values

            announced, announce = os.pipe()
            wait, hold = os.pipe()
            before = native_threads()

            async def main():
                async with Runner(workers=2, grace_period=0.01) as runner:
                    calls = [
                        runner.submit(control.read_until, announce, wait, 1) for _ in range(2)
                    ]
                    for _ in calls:
                        os.read(announced, 1)
                    for call in calls:
                        call.cancel()
                    assert await runner.run(values.square, 7) == 49

            asyncio.run(main())
            assert native_threads() >= before + 2
            os.close(hold)
            assert eventually(lambda: native_threads() <= before)
        """).assert_ended(0)
