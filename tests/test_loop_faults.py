"""Loops that end, stop or change at the wrong moment: nothing hangs, and nothing is lost unsaid."""

import asyncio
import threading
from typing import Any

import pytest

from aiointerpreters import Runner, RunnerError
from helpers.gate import Gate, Signals, Trace
from helpers.process import LINUX
from helpers.programs import Program
from workfns import values, waiting


def test_a_future_of_a_closed_loop_is_refused_in_another(gate: Gate) -> None:
    async def begin() -> asyncio.Future[Any]:
        future = runner.submit(waiting.wait_at, *gate.fds)
        await gate.reached()
        return future

    async def end(future: asyncio.Future[Any]) -> None:
        await future

    with Runner(workers=1) as runner, gate:
        future = asyncio.run(begin())
        with pytest.raises(RuntimeError, match="loop"):
            asyncio.run(end(future))
        assert not future.done()


@pytest.mark.parametrize("end", ["drain", "aclose"])
def test_another_loop_waits_for_the_work_of_a_closed_one(
    end: str, gate: Gate, trace: Trace
) -> None:
    async def begin() -> None:
        runner.submit(waiting.wait_at, *gate.fds)
        for _ in range(20):
            runner.submit(waiting.leave_mark, trace.fd)
        await gate.reached()

    async def finish() -> None:
        waiter = asyncio.create_task(getattr(runner, end)())
        await asyncio.sleep(0)
        assert not waiter.done()
        gate.open()
        await waiter
        assert trace.marks() == b"." * 20

    with gate:
        runner = Runner(workers=1).start()
        asyncio.run(begin())
        asyncio.run(finish())
    runner.close()


@pytest.mark.parametrize("end", ["drain", "aclose"])
def test_a_loop_is_closed_while_it_waits_for_a_runner(end: str, gate: Gate) -> None:
    """The runner does what was asked all the same; others can wait for it."""

    async def begin() -> None:
        runner.submit(waiting.wait_at, *gate.fds)
        await gate.reached()
        loop = asyncio.get_running_loop()
        loop.create_task(getattr(runner, end)())  # noqa: RUF006
        loop.call_soon(loop.stop)
        await asyncio.Event().wait()

    with gate:
        runner = Runner(workers=1).start()
        loop = asyncio.new_event_loop()
        task = loop.create_task(begin())
        with pytest.raises(RuntimeError, match="stopped before"):
            loop.run_until_complete(task)
        for pending in asyncio.all_tasks(loop):
            pending.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        gate.open()
        if end == "drain":
            assert asyncio.run(runner.run(values.square, 3)) == 9
        else:
            with pytest.raises(RunnerError, match="closed"):
                asyncio.run(runner.run(values.square, 3))
        asyncio.run(runner.aclose())


def test_a_runner_is_closed_by_another_thread_while_a_loop_drains_it(gate: Gate) -> None:
    async def main() -> None:
        held = runner.submit(waiting.wait_at, *gate.fds, "held")
        await gate.reached()
        draining = asyncio.create_task(runner.drain())
        await asyncio.sleep(0)
        closer = threading.Thread(target=runner.close)
        closer.start()
        gate.open()
        await draining
        assert await held == "held"
        await asyncio.to_thread(closer.join)

    with gate:
        runner = Runner(workers=1).start()
        asyncio.run(main())


def test_two_loops_close_one_runner(signals: Signals) -> None:
    async def main() -> None:
        await runner.run(waiting.leave_mark, signals.fd)
        await runner.aclose()

    def run() -> None:
        try:
            asyncio.run(main())
        except RunnerError as error:
            errors.append(error)

    for _ in range(20):
        errors: list[RunnerError] = []
        runner = Runner(workers=2).start()
        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        signals.arrive_blocking(2 - len(errors))
        assert all("closed" in str(error) for error in errors)
        assert len(errors) < 2


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.skipif(not LINUX, reason="counts threads and descriptors in /proc")
def test_a_runner_that_is_collected_open_gives_everything_back(
    busy: bool, program: Program
) -> None:
    ended = program(f"""
        import asyncio, gc, os, warnings
        from aiointerpreters import Runner
        from helpers.process import eventually, native_threads, open_fds
        from workfns import values, waiting

        async def use(runner):
            assert await runner.run(values.square, 3) == 9
            if {busy}:
                runner.submit(waiting.announce_and_spin, announce)
                os.read(announced, 1)

        warnings.simplefilter("ignore", ResourceWarning)
        announced, announce = os.pipe()
        asyncio.run(asyncio.sleep(0))
        before = native_threads(), open_fds()
        for _ in range(3):
            runner = Runner(workers=2).start()
            asyncio.run(use(runner))
            del runner
            gc.collect()
        assert eventually(lambda: (native_threads(), open_fds()) == before)
        """)
    ended.assert_fine()


def test_a_stopped_loop_holds_up_nobody_and_gets_its_results_when_it_runs_again(
    gate: Gate,
) -> None:
    async def main() -> Any:
        future = runner.submit(waiting.wait_at, *gate.fds, "late")
        await gate.reached()
        asyncio.get_running_loop().stop()
        return await future

    with Runner(workers=1) as runner:
        with gate:
            loop = asyncio.new_event_loop()
            task = loop.create_task(main())
            with pytest.raises(RuntimeError, match="stopped before"):
                loop.run_until_complete(task)
        # Nobody reads its descriptor; the worker goes on all the same.
        assert asyncio.run(runner.run(values.square, 3)) == 9
        loop.run_until_complete(task)
        assert task.result() == "late"
        loop.close()


def test_loops_that_come_and_go_with_work_in_flight(trace: Trace) -> None:
    async def main(number: int) -> None:
        for _ in range(10):
            runner.submit(waiting.leave_mark, trace.fd)
        assert await runner.run(values.square, number) == number**2
        for _ in range(10):
            runner.submit(waiting.leave_mark, trace.fd)

    with Runner(workers=2) as runner:
        for number in range(50):
            asyncio.run(main(number))
    assert trace.marks() == b"." * 1_000
