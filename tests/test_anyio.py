"""aiointerpreters.anyio: functions in workers for anyio and trio, stopped by cancel scopes."""

import asyncio
import contextlib
import functools
import gc
import importlib.util
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiointerpreters import (
    BrokenRunner,
    NotShareableError,
    Queue,
    Runner,
    RunnerError,
)
from helpers.gate import Gate, Trace
from helpers.limits import SOON
from helpers.process import LINUX, eventually, open_fds
from helpers.programs import Program
from workfns import control, coroutines, failing, lazily, queues, refusing, values, waiting

anyio = pytest.importorskip("anyio", reason="anyio has no wheel for this Python")

from aiointerpreters.anyio import current_default_runner, run_sync, started  # noqa: E402

#: Seconds. Long enough for a clean end where one is expected on the way.
GRACE = 0.05
PATIENT = 10 * SOON

type Run = Callable[..., Any]


def _backend(name: str, needs: str, **options: Any) -> Any:
    marks = []
    if importlib.util.find_spec(needs) is None:
        marks.append(pytest.mark.skip(reason=f"{needs} has no wheel for this Python"))
    return pytest.param((name, options), id=needs, marks=marks)


@pytest.fixture(
    params=[
        _backend("asyncio", "asyncio"),
        _backend("asyncio", "uvloop", use_uvloop=True),
        _backend("trio", "trio"),
    ]
)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """`run(main, …)`: its result, on the backend; which is to end in time, with no warning."""
    backend, options = request.param

    def run(main: Callable[..., Any], *args: Any) -> Any:
        async def limited() -> Any:
            with anyio.fail_after(SOON):
                return await main(*args)

        return anyio.run(limited, backend=backend, backend_options=options)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield run
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def reached(gate: Gate, count: int = 1) -> None:
    await anyio.to_thread.run_sync(gate.reached_blocking, count)


def assert_ended(runner: Runner) -> None:
    assert "closed" in repr(runner)
    stats = runner.stats()
    assert (stats.starting, stats.idle, stats.busy, stats.retiring) == (0, 0, 0, 0)


class TestCalls:
    def test_a_call_gives_its_result(self, run: Run) -> None:
        assert run(run_sync, values.add, 2, 3) == 5

    def test_it_runs_in_a_worker(self, run: Run) -> None:
        assert run(run_sync, control.name_and_repr)[0].startswith("aio-worker-")

    def test_keyword_arguments_come_by_partial(self, run: Run) -> None:
        assert run(run_sync, functools.partial(values.add, right=5), 2) == 7

    def test_a_coroutine_function_is_run_by_the_workers_loop(self, run: Run) -> None:
        assert run(run_sync, coroutines.add, 2, 3) == 5

    def test_a_large_result_arrives(self, run: Run) -> None:
        assert run(run_sync, values.zeros, 50_000_000) == bytes(50_000_000)

    def test_a_memoryview_is_the_callers_own_memory(self, run: Run) -> None:
        async def main() -> None:
            data = bytearray(b"before")
            view = await run_sync(values.echo, memoryview(data))
            data[:] = b"after."
            assert view == b"after."

        run(main)

    def test_many_calls_at_once(self, run: Run) -> None:
        async def main() -> None:
            results = {}

            async def square(number: int) -> None:
                results[number] = await run_sync(values.square, number)

            async with anyio.create_task_group() as group:
                for number in range(1000):
                    group.start_soon(square, number)
            assert results == {number: number**2 for number in range(1000)}

        run(main)

    def test_calls_run_in_parallel(self, run: Run, gate: Gate) -> None:
        async def main() -> None:
            with gate:
                async with (
                    started(Runner(workers=3)) as runner,
                    anyio.create_task_group() as group,
                ):
                    for _ in range(3):
                        group.start_soon(
                            functools.partial(run_sync, waiting.wait_at, *gate.fds, runner=runner)
                        )
                    await reached(gate, 3)
                    gate.open()

        run(main)

    def test_other_tasks_go_on_meanwhile(self, run: Run, gate: Gate) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(run_sync, waiting.wait_at, *gate.fds)
                await reached(gate)
                gate.open()

        run(main)

    def test_under_trio_no_thread_stands_between(self) -> None:
        trio = pytest.importorskip("trio", reason="trio has no wheel for this Python")

        async def main() -> None:
            before = set(threading.enumerate())
            assert await run_sync(values.square, 3) == 9
            started = set(threading.enumerate()) - before
            # It handles log records, and has no part in calls.
            assert {thread.name for thread in started} <= {"aiointerpreters-listener"}

        trio.run(main)

    def test_it_needs_an_event_loop(self) -> None:
        with pytest.raises(RuntimeError):
            current_default_runner()


class TestErrors:
    def test_what_the_function_raises_is_raised(self, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(ZeroDivisionError) as caught:
                await run_sync(failing.divide_by_zero)
            assert "Traceback" in str(caught.value.__cause__)
            assert await run_sync(values.square, 3) == 9

        run(main)

    def test_what_cannot_be_sent_is_refused(self, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(NotShareableError, match=r"args\[0\]"):
                await run_sync(values.echo, threading.Lock())
            with pytest.raises(NotShareableError):
                await run_sync(values.lock)

        run(main)

    def test_a_runner_that_is_not_started_refuses(self, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(RunnerError, match="not started"):
                await run_sync(values.square, 3, runner=Runner())

        run(main)

    def test_a_broken_runner_says_so(self, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(BrokenRunner):
                async with started(Runner(workers=1, initializer=values.add)) as runner:
                    await run_sync(values.square, 3, runner=runner)

        run(main)

    def test_a_call_whose_runner_is_stopped_fails(self, run: Run, gate: Gate) -> None:
        async def main() -> None:
            async def call(runner: Runner) -> None:
                with pytest.raises(RunnerError, match="stopped"):
                    await run_sync(
                        control.go_on, "spin_in_a_loop", gate.fds[0], gate.fds[0], runner=runner
                    )

            async with anyio.create_task_group() as group:
                with pytest.raises(LookupError):
                    async with started(Runner(workers=1)) as runner:
                        group.start_soon(call, runner)
                        await reached(gate)
                        raise LookupError

        run(main)


class TestCancelling:
    @pytest.mark.parametrize("abandon", [False, True], ids=["waits", "abandons"])
    @pytest.mark.parametrize("way", ["spin_in_a_loop", "sleep_long", "get_from_an_empty_queue"])
    def test_a_scope_stops_the_work(
        self, run: Run, way: str, abandon: bool, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            async with started(Runner(workers=1, grace_period=PATIENT)) as runner:
                await run_sync(control.remember, "kept", runner=runner)
                async with anyio.create_task_group() as group:
                    group.start_soon(
                        functools.partial(
                            run_sync,
                            control.go_on,
                            way,
                            gate.fds[0],
                            trace.fd,
                            abandon_on_cancel=abandon,
                            runner=runner,
                        )
                    )
                    await reached(gate)
                    group.cancel_scope.cancel()
                if not abandon:  # it has come to its end
                    assert trace.marks() == b"mif"
                assert await run_sync(control.recall, runner=runner) == "kept"

        run(main)

    def test_a_deadline_stops_the_work(self, run: Run) -> None:
        async def main() -> None:
            with anyio.move_on_after(0.01) as scope:
                await run_sync(control.spin_in_a_loop)
            assert scope.cancelled_caught
            with pytest.raises(TimeoutError), anyio.fail_after(0.01):
                await run_sync(control.spin_in_a_loop)

        run(main)

    def test_nothing_runs_any_more_when_the_scope_is_left(
        self, run: Run, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(run_sync, control.finish_in_peace, gate.fds[0], trace.fd)
                await reached(gate)
                group.cancel_scope.cancel()
            assert trace.marks() == b"swq"

        run(main)

    def test_a_call_that_waits_for_a_worker_is_taken_back(
        self, run: Run, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            async with started(Runner(workers=1)) as runner, anyio.create_task_group() as group:
                call = functools.partial(run_sync, runner=runner)
                group.start_soon(call, waiting.wait_at, *gate.fds)
                await reached(gate)
                with anyio.move_on_after(0.01) as scope:
                    await call(waiting.leave_mark, trace.fd)
                assert scope.cancelled_caught
                gate.open()
            assert trace.marks() == b""

        run(main)

    def test_in_a_cancelled_scope_nothing_is_begun(self, run: Run, trace: Trace) -> None:
        async def main() -> None:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await run_sync(waiting.leave_mark, trace.fd)
            assert scope.cancelled_caught
            assert await run_sync(values.square, 3) == 9
            assert trace.marks() == b""

        run(main)

    def test_a_shield_lets_it_finish(self, run: Run, gate: Gate) -> None:
        async def main() -> None:
            results = []

            async def call() -> None:
                with anyio.CancelScope(shield=True):
                    results.append(await run_sync(waiting.wait_at, *gate.fds, "whole"))

            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await reached(gate)
                group.cancel_scope.cancel()
                gate.open()
            assert results == ["whole"]

        run(main)

    def test_who_abandons_goes_on_at_once(self, run: Run, gate: Gate, trace: Trace) -> None:
        async def main() -> None:
            async with started(Runner(workers=1, grace_period=PATIENT)) as runner:
                with gate:
                    async with anyio.create_task_group() as group:
                        group.start_soon(
                            functools.partial(
                                run_sync,
                                control.read_until,
                                *gate.fds,
                                trace.fd,
                                abandon_on_cancel=True,
                                runner=runner,
                            )
                        )
                        await reached(gate)
                        group.cancel_scope.cancel()
                    assert b"f" not in trace.marks()
                    assert runner.stats().busy == 1

        run(main)

    def test_who_waits_does_so_until_c_code_returns(
        self, run: Run, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            async with started(Runner(workers=1, grace_period=PATIENT)) as runner, gate:
                async with anyio.create_task_group() as group:
                    group.start_soon(
                        functools.partial(
                            run_sync, control.read_until, *gate.fds, trace.fd, runner=runner
                        )
                    )
                    await reached(gate)
                    group.cancel_scope.cancel()
                    with anyio.CancelScope(shield=True):
                        await anyio.lowlevel.checkpoint()
                        assert b"f" not in trace.marks()
                    gate.open()
                assert b"f" in trace.marks()
                assert runner.stats().replaced == 0

        run(main)

    @pytest.mark.parametrize(
        "function", [control.read_until, coroutines.stay_in_c], ids=["plain", "coroutine"]
    )
    def test_who_waits_does_so_until_the_grace_period_is_over(
        self, run: Run, function: Any, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            async with started(Runner(workers=1, grace_period=GRACE)) as runner, gate:
                async with anyio.create_task_group() as group:
                    marks = [trace.fd] if function is control.read_until else []
                    group.start_soon(
                        functools.partial(run_sync, function, *gate.fds, *marks, runner=runner)
                    )
                    await reached(gate)
                    group.cancel_scope.cancel()
                # It is still there; another worker serves.
                assert await run_sync(values.square, 3, runner=runner) == 9
                assert runner.stats().stuck == 1

        run(main)

    @pytest.mark.parametrize("outcome", ["returns", "raises"])
    def test_what_a_cancelled_call_comes_to_is_dropped(
        self, run: Run, outcome: str, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(run_sync, control.spin_and_turn_into, gate.fds[0], outcome)
                await reached(gate)
                group.cancel_scope.cancel()
            assert await run_sync(values.square, 3) == 9

        run(main)

    def test_many_calls_are_stopped_at_once(self, run: Run) -> None:
        async def main() -> None:
            with anyio.move_on_after(0.05) as scope:
                async with anyio.create_task_group() as group:
                    for _ in range(200):
                        group.start_soon(run_sync, control.spin_in_a_loop)
            assert scope.cancelled_caught
            assert await run_sync(values.square, 3) == 9
            assert current_default_runner().stats().replaced == 0

        run(main)

    def test_cancelling_by_asyncio_itself(self, gate: Gate, trace: Trace) -> None:
        async def main() -> None:
            work = run_sync(control.go_on, "spin_in_a_loop", gate.fds[0], trace.fd)
            call = asyncio.create_task(work)
            await gate.reached()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert trace.marks() == b"mif"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await run_sync(control.spin_in_a_loop)

        asyncio.run(main())

    def test_cancelling_twice_by_asyncio_itself_goes_on_at_once(
        self, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            async with Runner(workers=1, grace_period=PATIENT) as runner, gate:
                work = run_sync(control.read_until, *gate.fds, trace.fd, runner=runner)
                call = asyncio.create_task(work)
                await gate.reached()
                call.cancel()
                await asyncio.sleep(0)
                assert not call.done()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                assert b"f" not in trace.marks()

        asyncio.run(main())


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def said(fifo: str) -> int:
    """The pid that `refusing.say_and_hang` tells."""
    return int(await anyio.to_thread.run_sync(Path(fifo).read_text))


async def hang_until_stopped(fifo: str, runner: Any) -> None:
    with pytest.raises(RunnerError, match="stopped"):
        await run_sync(refusing.say_and_hang, fifo, runner=runner)


class TestElsewhere:
    """Calls in processes and threads."""

    def test_calls_go_where_they_can_run(self, run: Run) -> None:
        async def main() -> None:
            async with started(Runner(workers=1, unsupported="process")) as runner:
                call = functools.partial(run_sync, runner=runner)
                for _ in range(2):
                    assert await call(refusing.pid) != os.getpid()
                    assert await call(values.process_id) == os.getpid()
                    assert await call(lazily.type_name, refusing.Value()) == "Value"
                    assert await call(refusing.async_square, 3) == 9
                    with pytest.raises(refusing.OwnError):
                        await call(refusing.fail)

        run(main)

    def test_they_go_where_they_are_told_to(self, run: Run) -> None:
        async def main() -> None:
            async with started(Runner(workers=1)) as runner:
                in_process = runner.options(where="process")
                assert await run_sync(values.process_id, runner=in_process) != os.getpid()
                value = refusing.Value()
                in_thread = runner.options(where="thread")
                assert await run_sync(refusing.echo, value, runner=in_thread) is value

        run(main)

    def test_many_calls_at_once(self, run: Run) -> None:
        async def main() -> None:
            results = {}
            async with started(Runner(workers=2, unsupported="process")) as runner:

                async def square(number: int) -> None:
                    function = refusing.square if number % 2 else values.square
                    results[number] = await run_sync(function, number, runner=runner)

                async with anyio.create_task_group() as group:
                    for number in range(100):
                        group.start_soon(square, number)
            assert results == {number: number**2 for number in range(100)}

        run(main)

    @pytest.mark.parametrize("abandon", [False, True], ids=["waits", "abandons"])
    @pytest.mark.parametrize("where", [None, "process"])
    def test_a_scope_ends_the_process(self, run: Run, where: Any, abandon: bool, fifo: str) -> None:
        async def main() -> None:
            options: Any = {"unsupported": "process", "grace_period": PATIENT}
            async with started(Runner(workers=1, **options)) as runner:
                call = functools.partial(run_sync, runner=runner.options(where=where))
                async with anyio.create_task_group() as group:
                    group.start_soon(
                        functools.partial(
                            call, refusing.say_and_hang, fifo, abandon_on_cancel=abandon
                        )
                    )
                    pid = await said(fifo)
                    group.cancel_scope.cancel()
                if not abandon:
                    assert not is_alive(pid)
                assert await call(refusing.square, 3) == 9
                assert not is_alive(pid)

        run(main)

    @pytest.mark.parametrize("abandon", [False, True], ids=["waits", "abandons"])
    def test_a_scope_stops_a_call_that_might_have_moved(
        self, run: Run, abandon: bool, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            options: Any = {"unsupported": "process", "grace_period": PATIENT}
            async with started(Runner(workers=1, **options)) as runner:
                async with anyio.create_task_group() as group:
                    group.start_soon(
                        functools.partial(
                            run_sync,
                            control.go_on,
                            "spin_in_a_loop",
                            gate.fds[0],
                            trace.fd,
                            abandon_on_cancel=abandon,
                            runner=runner,
                        )
                    )
                    await reached(gate)
                    group.cancel_scope.cancel()
                if not abandon:
                    assert trace.marks() == b"mif"
                assert await run_sync(values.square, 3, runner=runner) == 9

        run(main)

    def test_a_call_that_waits_is_taken_back(self, run: Run, fifo: str, trace: Trace) -> None:
        async def main() -> None:
            async with started(Runner(workers=1)) as runner:
                call = functools.partial(run_sync, runner=runner.options(where="process"))
                async with anyio.create_task_group() as group:
                    group.start_soon(call, refusing.say_and_hang, fifo)
                    await said(fifo)
                    with anyio.CancelScope() as scope:
                        async with anyio.create_task_group() as waiting_ones:
                            waiting_ones.start_soon(call, refusing.square, 3)
                            while runner.stats().queued == 0:
                                await anyio.lowlevel.checkpoint()
                            scope.cancel()
                    assert runner.stats().queued == 0
                    assert runner.stats().busy_processes == 1
                    group.cancel_scope.cancel()

        run(main)

    def test_who_waits_for_a_thread_does_so_until_its_function_returns(
        self, run: Run, gate: Gate
    ) -> None:
        async def main() -> None:
            has_left = False

            async def call(runner: Any) -> None:
                nonlocal has_left
                try:
                    await run_sync(waiting.wait_at, *gate.fds, runner=runner)
                finally:
                    has_left = True

            async with started(Runner(workers=1, grace_period=PATIENT)) as runner, gate:
                async with anyio.create_task_group() as group:
                    group.start_soon(call, runner.options(where="thread"))
                    await reached(gate)
                    group.cancel_scope.cancel()
                    with anyio.CancelScope(shield=True):
                        for _ in range(10):
                            await anyio.lowlevel.checkpoint()
                        assert not has_left
                    gate.open()
                assert has_left

        run(main)

    @pytest.mark.parametrize("abandon", [False, True], ids=["waits", "abandons"])
    def test_a_thread_that_goes_on_is_left_in_the_end(
        self, run: Run, abandon: bool, gate: Gate
    ) -> None:
        async def main() -> None:
            grace_period = PATIENT if abandon else GRACE
            async with started(Runner(workers=1, grace_period=grace_period)) as runner, gate:
                async with anyio.create_task_group() as group:
                    group.start_soon(
                        functools.partial(
                            run_sync,
                            waiting.wait_at,
                            *gate.fds,
                            abandon_on_cancel=abandon,
                            runner=runner.options(where="thread"),
                        )
                    )
                    await reached(gate)
                    group.cancel_scope.cancel()

        run(main)

    def test_time_limits_are_kept(self, run: Run) -> None:
        async def main() -> None:
            async with started(Runner(workers=1, unsupported="process")) as runner:
                for options in ({"timeout": 0.01}, {"deadline": 0.01}):
                    limited: Any = runner.options(**options)
                    with pytest.raises(TimeoutError):
                        await run_sync(refusing.hang, runner=limited)
                    with contextlib.closing(Gate()) as gate, gate, pytest.raises(TimeoutError):
                        await run_sync(
                            waiting.wait_at, *gate.fds, runner=limited.options(where="thread")
                        )
                in_time: Any = runner.options(deadline=PATIENT, timeout=PATIENT)
                assert await run_sync(refusing.square, 3, runner=in_time) == 9

        run(main)

    def test_a_call_whose_runner_is_stopped_fails(self, run: Run, fifo: str) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as group:
                with pytest.raises(LookupError):
                    async with started(Runner(workers=1)) as runner:
                        group.start_soon(hang_until_stopped, fifo, runner.options(where="process"))
                        await said(fifo)
                        raise LookupError

        run(main)

    def test_no_time_limit_keeps_what_a_call_returned(self, run: Run) -> None:
        async def main() -> None:
            async with started(Runner(workers=1)) as runner:
                limits: Any = {"timeout": PATIENT, "deadline": PATIENT}
                value = refusing.Value()
                limited = runner.options(where="thread", **limits)
                assert await run_sync(lazily.identity, value, runner=limited) is value
                gone = weakref.ref(value)
                del value
                while gone() is not None:
                    gc.collect()
                    await anyio.lowlevel.checkpoint()

        run(main)

    def test_who_no_longer_waits_for_the_end_stops_processes_too(self, run: Run, fifo: str) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as group:
                with anyio.CancelScope() as scope:
                    async with started(Runner(workers=1)) as runner:
                        group.start_soon(hang_until_stopped, fifo, runner.options(where="process"))
                        await said(fifo)
                        scope.cancel()

        run(main)


class TestLimiter:
    def test_a_limiter_is_honoured(self, run: Run, gate: Gate) -> None:
        async def main() -> None:
            limiter = anyio.CapacityLimiter(1)
            async with started(Runner(workers=2)) as runner, anyio.create_task_group() as group:
                call = functools.partial(
                    run_sync, waiting.wait_at, *gate.fds, limiter=limiter, runner=runner
                )
                group.start_soon(call)
                group.start_soon(call)
                await reached(gate)
                assert limiter.statistics().borrowed_tokens == 1
                assert limiter.statistics().tasks_waiting == 1
                assert not gate.more_arrived()
                gate.open()
            assert limiter.statistics().borrowed_tokens == 0

        run(main)

    def test_a_cancelled_call_keeps_its_token_until_it_has_ended(
        self, run: Run, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            limiter = anyio.CapacityLimiter(1)
            async with anyio.create_task_group() as group:
                group.start_soon(
                    functools.partial(
                        run_sync,
                        control.go_on,
                        "spin_in_a_loop",
                        gate.fds[0],
                        trace.fd,
                        limiter=limiter,
                    )
                )
                await reached(gate)
                group.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    async with limiter:
                        assert trace.marks() == b"mif"

        run(main)


class TestRunners:
    def test_a_view_with_options_serves_as_a_runner(self, run: Run) -> None:
        async def main() -> None:
            async with started(Runner(workers=1)) as runner:
                urgent, short = runner.options(priority=-1), runner.options(timeout=0.01)
                assert await run_sync(values.square, 3, runner=urgent) == 9
                with pytest.raises(TimeoutError, match="timeout"):
                    await run_sync(control.spin_in_a_loop, runner=short)

        run(main)

    def test_calls_wait_for_their_turn_where_they_are_limited(self, run: Run) -> None:
        async def main() -> None:
            results = []

            async def square(runner: Runner, number: int) -> None:
                results.append(await run_sync(values.square, number, runner=runner))

            async with started(Runner(workers=2, max_pending=2)) as runner:
                async with anyio.create_task_group() as group:
                    for number in range(100):
                        group.start_soon(square, runner, number)
            assert sorted(results) == [number**2 for number in range(100)]

        run(main)

    def test_under_trio_a_deadline_for_the_turn_is_refused(self) -> None:
        trio = pytest.importorskip("trio", reason="trio has no wheel for this Python")

        async def main() -> None:
            async with started(Runner(workers=1, max_pending=1)) as runner:
                with pytest.raises(RunnerError, match="fail_after"):
                    await run_sync(values.square, 3, runner=runner.options(deadline=SOON))

        trio.run(main)

    def test_a_turn_that_is_waited_for_can_be_cancelled(self, run: Run, gate: Gate) -> None:
        async def main() -> None:
            async with started(Runner(workers=1, max_pending=1)) as runner, gate:
                async with anyio.create_task_group() as group:
                    call = functools.partial(run_sync, runner=runner)
                    group.start_soon(call, waiting.wait_at, *gate.fds)
                    await reached(gate)
                    with anyio.move_on_after(0.01) as scope:
                        await call(values.square, 3)
                    assert scope.cancelled_caught
                    gate.open()
                assert await call(values.square, 3) == 9

        run(main)

    def test_leaving_lets_accepted_calls_finish(self, run: Run, gate: Gate) -> None:
        async def main() -> None:
            results = []

            async def call(runner: Runner) -> None:
                results.append(await run_sync(waiting.wait_at, *gate.fds, "whole", runner=runner))

            async with anyio.create_task_group() as group:
                async with started(Runner(workers=1)) as runner:
                    group.start_soon(call, runner)
                    await reached(gate)
                    gate.open()
            assert results == ["whole"]
            with pytest.raises(RunnerError, match="closed"):
                await run_sync(values.square, 3, runner=runner)

        run(main)

    def test_leaving_a_cancelled_block_stops_what_runs(
        self, run: Run, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            with anyio.CancelScope() as scope:
                async with started(Runner(workers=1)) as runner:
                    async with anyio.create_task_group() as group:
                        group.start_soon(
                            functools.partial(
                                run_sync,
                                control.go_on,
                                "sleep_long",
                                gate.fds[0],
                                trace.fd,
                                runner=runner,
                            )
                        )
                        await reached(gate)
                        scope.cancel()
            assert trace.marks() == b"mif"

        run(main)

    def test_a_loop_has_one_default(self, run: Run) -> None:
        async def main() -> None:
            assert await run_sync(values.square, 3) == 9
            assert current_default_runner() is current_default_runner()
            assert current_default_runner().stats().done == 1
            current_default_runner().resize(3)
            assert current_default_runner().workers == 3

        run(main)

    def test_the_default_ends_with_its_loop(self, run: Run) -> None:
        async def main() -> Runner:
            await run_sync(values.square, 3)
            return current_default_runner()

        runner = run(main)
        assert_ended(runner)

    def test_the_default_ends_with_its_loop_when_that_fails(self, run: Run) -> None:
        runners = []

        async def main() -> None:
            runners.append(current_default_runner())
            await run_sync(values.square, 3)
            raise LookupError

        with pytest.raises(LookupError):
            run(main)
        assert_ended(runners[0])

    @pytest.mark.skipif(not LINUX, reason="/proc is Linux's")
    def test_loops_come_and_go_and_leave_no_descriptor(self, run: Run) -> None:
        assert run(run_sync, values.square, 3) == 9
        gc.collect()
        before = open_fds()
        for _ in range(5):
            assert run(run_sync, values.square, 3) == 9
        gc.collect()
        assert eventually(lambda: open_fds() <= before)

    def test_a_runner_outlives_loops(self, run: Run) -> None:
        with Runner(workers=1).start() as runner:
            for _ in range(3):
                assert run(functools.partial(run_sync, values.square, 3, runner=runner)) == 9

    def test_a_runner_serves_two_kinds_of_loops_at_once(self) -> None:
        pytest.importorskip("trio", reason="trio has no wheel for this Python")

        async def main(runner: Runner) -> None:
            async with anyio.create_task_group() as group:
                for number in range(200):
                    group.start_soon(
                        functools.partial(run_sync, values.square, number, runner=runner)
                    )

        with Runner(workers=2).start() as runner:
            in_thread(
                *(
                    functools.partial(anyio.run, main, runner, backend=name)
                    for name in ("asyncio", "trio")
                )
            )
            assert runner.stats().done == 400

    def test_a_queue_joins_them(self, run: Run) -> None:
        async def main() -> None:
            queue: Queue[int] = Queue()
            await run_sync(queues.put, queue, 5)
            assert queue.get_nowait() == 5

        run(main)


def in_thread(*functions: Callable[[], object]) -> None:
    """Call each in a thread of its own, at once; raise what they raise."""
    failures: list[BaseException] = []

    def call(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)


class TestSeveralRuns:
    def test_two_at_once_in_two_threads(self, run: Run) -> None:
        async def main() -> Runner:
            async with anyio.create_task_group() as group:
                for number in range(200):
                    group.start_soon(run_sync, values.square, number)
            return current_default_runner()

        runners = []
        in_thread(*[lambda: runners.append(run(main))] * 2)
        assert runners[0] is not runners[1]

    def test_one_within_another_in_a_thread(self, run: Run) -> None:
        async def inner() -> int:
            return await run_sync(values.square, 4)

        async def main() -> None:
            assert await run_sync(values.square, 3) == 9
            assert await anyio.to_thread.run_sync(run, inner) == 16
            assert await run_sync(values.square, 5) == 25

        run(main)

    def test_trio_as_a_guest_of_asyncio(self) -> None:
        trio = pytest.importorskip("trio", reason="trio has no wheel for this Python")

        async def guest() -> int:
            assert await run_sync(values.square, 3) == 9
            return await run_sync(values.square, 4)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            trio.lowlevel.start_guest_run(
                guest,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                done_callback=done.set_result,
            )
            async with asyncio.timeout(SOON):
                assert await run_sync(values.square, 5) == 25
                assert (await done).unwrap() == 16
                assert await run_sync(values.square, 6) == 36

        asyncio.run(main())

    def test_a_loop_that_is_closed_without_asyncio_run(self) -> None:
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(run_sync(values.square, 3)) == 9
        loop.close()
        assert asyncio.run(run_sync(values.square, 4)) == 16  # closes what the other left


class TestPrograms:
    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_a_program_of_its_own(self, backend: str, program: Program) -> None:
        pytest.importorskip(backend, reason=f"{backend} has no wheel for this Python")
        ended = program(f"""
            import anyio
            from aiointerpreters.anyio import run_sync

            def square(n):
                return n * n

            async def main():
                print(await run_sync(square, 7))
                with anyio.move_on_after(0.01):
                    await run_sync(spin)
                print("stopped")

            def spin():
                while True:
                    pass

            if __name__ == "__main__":
                anyio.run(main, backend={backend!r})
        """)
        ended.assert_fine()
        assert ended.out == "49\nstopped\n"

    def test_trio_alone(self, program: Program) -> None:
        pytest.importorskip("trio", reason="trio has no wheel for this Python")
        ended = program("""
            import trio
            from aiointerpreters.anyio import run_sync

            def square(n):
                return n * n

            async def show(n):
                print(await run_sync(square, n))

            async def main():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(show, 7)
                    nursery.start_soon(show, 7)

            if __name__ == "__main__":
                trio.run(main)
        """)
        ended.assert_fine()
        assert ended.out == "49\n49\n"

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_ctrl_c_ends_it_and_its_work(self, backend: str, program: Program) -> None:
        pytest.importorskip(backend, reason=f"{backend} has no wheel for this Python")
        ended = program(
            f"""
            import os, sys
            import anyio
            from aiointerpreters.anyio import run_sync

            def spin(ready_fd):
                os.write(ready_fd, b".")
                while True:
                    pass

            async def main():
                read, write = os.pipe()
                async with anyio.create_task_group() as group:
                    group.start_soon(run_sync, spin, write)
                    await anyio.wait_readable(read)
                    print("ready", flush=True)
                    await anyio.sleep_forever()

            if __name__ == "__main__":
                try:
                    anyio.run(main, backend={backend!r})
                except* KeyboardInterrupt:
                    print("interrupted")
            """,
            interrupt=True,
        )
        ended.assert_fine()
        assert ended.out == "ready\ninterrupted\n"

    def test_trio_ends_while_abandoned_work_goes_on(self, program: Program) -> None:
        pytest.importorskip("trio", reason="trio has no wheel for this Python")
        ended = program("""
            import os, time
            import trio
            from aiointerpreters.anyio import run_sync

            def swallow(ready_fd):
                try:
                    os.write(ready_fd, b".")
                    while True:
                        pass
                finally:
                    time.sleep(0.1)

            async def main():
                read, write = os.pipe()
                async with trio.open_nursery() as nursery:
                    async def call():
                        await run_sync(swallow, write, abandon_on_cancel=True)
                    nursery.start_soon(call)
                    await trio.lowlevel.wait_readable(read)
                    nursery.cancel_scope.cancel()
                print("left")

            if __name__ == "__main__":
                trio.run(main)
                print("ended")
        """)
        ended.assert_fine()
        assert ended.out == "left\nended\n"


def test_our_module_is_not_anyio_itself() -> None:
    import aiointerpreters.anyio as ours

    assert ours.anyio is anyio
    assert ours.anyio.__name__ == "anyio"
