"""Every kind of event loop, several of them, closed ones and collected ones."""

import asyncio
import contextlib
import gc
import select
import selectors
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import Runner, RunnerError
from helpers.gate import Gate, Trace
from helpers.limits import SOON
from helpers.programs import Program
from workfns import failing, values, waiting


async def use(runner: Runner, count: int = 200) -> None:
    """Calls of every kind, all with the right outcome."""
    calls = (runner.run(values.square, n) for n in range(count))
    assert await asyncio.gather(*calls) == [n * n for n in range(count)]
    futures = [runner.submit(values.square, n) for n in range(count)]
    assert await asyncio.gather(*futures) == [n * n for n in range(count)]
    with pytest.raises(ZeroDivisionError):
        await runner.run(failing.divide_by_zero)
    cancelled = runner.submit(values.square, 1)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled


def in_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    """Start `function` in a thread; what comes back waits for its end, and for its outcome."""
    outcome: list[Any] = []

    def target() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=target, daemon=True)
    thread.start()

    def join() -> Any:
        thread.join(SOON)
        assert not thread.is_alive(), "the thread did not end"
        result, error = outcome[0]
        if error is not None:
            raise error
        return result

    return join


def loop_factories() -> list[Any]:
    factories = [
        pytest.param(asyncio.new_event_loop, id="default"),
        pytest.param(lambda: asyncio.SelectorEventLoop(selectors.SelectSelector()), id="select"),
    ]
    if hasattr(select, "poll"):
        factories.append(
            pytest.param(lambda: asyncio.SelectorEventLoop(selectors.PollSelector()), id="poll")
        )
    try:
        import uvloop  # type: ignore[import-not-found]
    except ImportError:
        factories.append(
            pytest.param(None, id="uvloop", marks=pytest.mark.skip(reason="no uvloop here"))
        )
    else:
        factories.append(pytest.param(uvloop.new_event_loop, id="uvloop"))
    return factories


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("factory", loop_factories())
class TestKinds:
    def test_calls(
        self,
        factory: Callable[[], asyncio.AbstractEventLoop],
        debug: bool,
        silent: Callable[[], None],
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner:
                await use(runner)
            with Runner(workers=2) as runner:
                await use(runner)

        with asyncio.Runner(loop_factory=factory, debug=debug) as loop_runner:
            loop_runner.run(main())

    def test_a_loop_that_is_closed_while_work_is_pending(
        self,
        factory: Callable[[], asyncio.AbstractEventLoop],
        debug: bool,
        gate: Gate,
        trace: Trace,
    ) -> None:
        async def leave_work() -> None:
            runner.submit(waiting.wait_at, *gate.fds)
            for _ in range(20):
                runner.submit(waiting.leave_mark, trace.fd)
            await gate.reached()

        with Runner(workers=1) as runner:
            with gate, asyncio.Runner(loop_factory=factory, debug=debug) as loop_runner:
                loop_runner.run(leave_work())
            with asyncio.Runner(loop_factory=factory, debug=debug) as loop_runner:
                loop_runner.run(use(runner))
        assert trace.marks() == b"." * 20

    def test_a_loop_that_stops_and_runs_again(
        self,
        factory: Callable[[], asyncio.AbstractEventLoop],
        debug: bool,
        gate: Gate,
    ) -> None:
        futures: list[asyncio.Future[Any]] = []

        async def begin() -> None:
            futures.append(runner.submit(waiting.wait_at, *gate.fds, "late"))
            await gate.reached()

        async def end() -> Any:
            return await futures[0]

        with Runner(workers=1) as runner, gate:
            with asyncio.Runner(loop_factory=factory, debug=debug) as loop_runner:
                loop_runner.run(begin())
                gate.open()
                assert loop_runner.run(end()) == "late"

    def test_a_loop_that_stops_right_after_a_call_delivers_when_it_runs_again(
        self, factory: Callable[[], asyncio.AbstractEventLoop], debug: bool
    ) -> None:
        def stop() -> None:
            raise KeyboardInterrupt

        async def begin(number: int) -> asyncio.Future[int]:
            return runner.submit(values.square, number)

        async def begin_and_be_thrown_out(number: int) -> None:
            asyncio.get_running_loop().call_soon(stop)
            futures.append(runner.submit(values.square, number))
            await futures[-1]

        futures: list[asyncio.Future[int]] = []
        with Runner(workers=1) as runner:
            loop = factory()
            loop.set_debug(debug)
            for number in range(50):
                future = loop.run_until_complete(begin(number))
                assert loop.run_until_complete(future) == number**2
                task = loop.create_task(begin_and_be_thrown_out(number))
                with pytest.raises(KeyboardInterrupt):
                    loop.run_until_complete(task)
                # If the task ended in the very turn that was broken off, the loop is still to be
                # stopped for that, as with any future.
                with contextlib.suppress(RuntimeError):
                    loop.run_until_complete(asyncio.sleep(0))
                loop.run_until_complete(task)
                assert futures[-1].result() == number**2
            loop.close()

    def test_several_loops_in_several_threads_share_a_runner(
        self, factory: Callable[[], asyncio.AbstractEventLoop], debug: bool
    ) -> None:
        def run_a_loop() -> None:
            with asyncio.Runner(loop_factory=factory, debug=debug) as loop_runner:
                loop_runner.run(use(runner))

        with Runner(workers=2) as runner:
            for join in [in_thread(run_a_loop) for _ in range(4)]:
                join()


def test_successive_loops_use_a_runner() -> None:
    with Runner(workers=2) as runner:
        for n in range(50):
            assert asyncio.run(runner.run(values.square, n)) == n * n


def test_a_wrapped_function_works_in_any_loop() -> None:
    with Runner(workers=2) as runner:
        square = runner.wrap(values.square)
        assert asyncio.run(square(3)) == 9
        assert in_thread(lambda: asyncio.run(square(4)))() == 16


def test_a_runner_may_be_started_in_one_thread_and_closed_in_another() -> None:
    runner = in_thread(Runner(workers=2).start)()
    asyncio.run(use(runner))
    in_thread(runner.close)()
    with pytest.raises(RunnerError, match="closed"):
        asyncio.run(runner.run(values.square, 1))


def test_results_reach_the_loop_that_asked(gate: Gate) -> None:
    """Two loops have work in one queue; each gets its own, in its own thread."""

    async def main(name: str) -> None:
        loop_thread = threading.get_ident()
        held = runner.submit(waiting.wait_at, *gate.fds, name)
        futures = [runner.submit(values.echo, (name, n)) for n in range(100)]
        threads: set[int] = set()
        for future in futures:
            future.add_done_callback(lambda _: threads.add(threading.get_ident()))
        assert await held == name
        assert await asyncio.gather(*futures) == [(name, n) for n in range(100)]
        await asyncio.sleep(0)
        assert threads == {loop_thread}

    with Runner(workers=1) as runner, gate:
        joins = [in_thread(lambda name=name: asyncio.run(main(name))) for name in "ab"]
        gate.reached_blocking()
        gate.open()
        for join in joins:
            join()


def test_a_runner_that_is_closed_by_another_thread_delivers_what_is_pending(gate: Gate) -> None:
    async def main() -> None:
        held = runner.submit(waiting.wait_at, *gate.fds, "held")
        queued = [runner.submit(values.square, n) for n in range(50)]
        await gate.reached()
        join = in_thread(runner.close)
        while True:  # until the other thread has closed it
            try:
                queued.append(runner.submit(values.square, len(queued)))
            except RunnerError:
                break
            await asyncio.sleep(0)
        gate.open()
        assert await held == "held"
        assert await asyncio.gather(*queued) == [n * n for n in range(len(queued))]
        await asyncio.to_thread(join)

    runner = Runner(workers=1).start()
    with gate:
        asyncio.run(main())
    runner.close()


def test_a_runner_that_is_closed_by_another_thread_cancels_what_is_queued(gate: Gate) -> None:
    async def main() -> None:
        held = runner.submit(waiting.wait_at, *gate.fds, "held")
        queued = [runner.submit(values.square, n) for n in range(50)]
        await gate.reached()
        join = in_thread(lambda: runner.close(cancel_pending=True))
        got = await asyncio.gather(*queued, return_exceptions=True)
        assert {type(error) for error in got} == {asyncio.CancelledError}
        gate.open()
        assert await held == "held"
        await asyncio.to_thread(join)

    runner = Runner(workers=1).start()
    with gate:
        asyncio.run(main())
    runner.close()


def test_a_broken_runner_tells_every_loop() -> None:
    from aiointerpreters import BrokenRunner
    from workfns import worker

    async def main() -> None:
        with pytest.raises(BrokenRunner):
            await runner.run(values.square, 1)

    with Runner(workers=1, initializer=worker.fail_to_prepare) as runner:
        for join in [in_thread(lambda: asyncio.run(main())) for _ in range(3)]:
            join()


def test_a_closed_loop_is_collected_while_the_runner_lives_or_after_it_closed() -> None:
    references = []

    def use_a_loop(runner: Runner) -> None:
        loop = asyncio.new_event_loop()
        references.append(weakref.ref(loop))
        loop.run_until_complete(use(runner, 5))
        loop.close()

    with Runner(workers=1) as runner:
        for _ in range(5):
            use_a_loop(runner)
        asyncio.run(use(runner, 5))
    gc.collect()
    assert [reference() for reference in references] == [None] * 5


def test_a_closed_loop_with_pending_work_is_collected_after_the_runner_closed(gate: Gate) -> None:
    async def leave_work() -> None:
        runner.submit(waiting.wait_at, *gate.fds)
        runner.submit(values.square, 2)
        await gate.reached()

    def use_a_loop() -> weakref.ref[Any]:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave_work())
        loop.close()
        return weakref.ref(loop)

    with Runner(workers=1) as runner, gate:
        reference = use_a_loop()
    gc.collect()
    assert reference() is None


def test_a_runner_is_collected_after_it_closed() -> None:
    runner = Runner(workers=1).start()
    asyncio.run(use(runner, 5))
    runner.close()
    reference = weakref.ref(runner)
    del runner
    gc.collect()
    assert reference() is None


def test_futures_and_results_are_collected(runner: Runner) -> None:
    class Result(list[int]):
        pass

    async def main() -> None:
        future = runner.submit(values.echo, {1})
        result = weakref.ref(await future)
        reference = weakref.ref(future)
        del future
        await asyncio.sleep(0)  # what woke this task holds the future until then
        gc.collect()
        assert (reference(), result()) == (None, None)

    asyncio.run(main())


def test_dev_mode_with_warnings_as_errors(program: Program) -> None:
    ended = program(
        """
        import asyncio, gc
        from aiointerpreters import Runner
        from workfns import failing, values

        async def main():
            assert asyncio.get_running_loop().get_debug()
            async with Runner(workers=2) as runner:
                assert await runner.run(values.square, 3) == 9
                futures = [runner.submit(values.square, n) for n in range(1_000)]
                assert await asyncio.gather(*futures) == [n * n for n in range(1_000)]
                for function in (failing.divide_by_zero, failing.raise_holding_a_lock, values.lock):
                    try:
                        await runner.run(function)
                    except Exception:
                        pass
                    else:
                        raise AssertionError("no error")
                running = asyncio.create_task(runner.run(values.nested_list, 100))
                await asyncio.sleep(0)
                running.cancel()
            with Runner(workers=1).start() as runner:
                assert await runner.wrap(values.square)(4) == 16

        asyncio.run(main())
        asyncio.run(main())
        gc.collect()
        """,
        flags=["-X", "dev", "-W", "error"],
    )
    ended.assert_fine()


def test_the_policy_and_the_signal_wakeup_of_the_program_are_left_alone(program: Program) -> None:
    ended = program("""
        import asyncio, signal, threading
        from aiointerpreters import Runner

        async def main():
            heard = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.set)
            async with Runner(workers=2) as runner:
                assert await runner.run(abs, -1) == 1
                signal.raise_signal(signal.SIGUSR1)
                async with asyncio.timeout(10):
                    await heard.wait()
                assert await runner.run(abs, -2) == 2

        handler = signal.getsignal(signal.SIGINT)
        asyncio.run(main())
        assert signal.getsignal(signal.SIGINT) is handler
    """)
    ended.assert_fine()
