"""Executor: what concurrent.futures promises of an executor, and what ours adds."""

import asyncio
import concurrent.futures
import contextlib
import functools
import os
import queue
import re
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

import aiointerpreters
from aiointerpreters import (
    BrokenRunner,
    CallFuture,
    Executor,
    NotShareableError,
    RunnerError,
)
from helpers import programs
from helpers.gate import Gate, Trace
from helpers.limits import SLOWNESS, SOON
from helpers.programs import Program
from workfns import context, control, coroutines, executors, values, waiting


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(2) as executor:
        yield executor


@contextlib.contextmanager
def held(executor: Executor, gate: Gate, count: int = 2) -> Iterator[list[CallFuture[Any]]]:
    """So many workers are busy at the gate."""
    futures = [executor.submit(waiting.wait_at, *gate.fds, "held") for _ in range(count)]
    gate.reached_blocking(count)
    with gate:
        yield futures


@contextlib.contextmanager
def without_others() -> Iterator[None]:
    """No other thread of this interpreter runs, but where this one waits."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


class TestSubmit:
    def test_a_call_runs_in_a_worker_and_its_future_has_the_result(
        self, executor: Executor
    ) -> None:
        future = executor.submit(values.everything, 1, self=2, fn=3)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result(SOON) == ((1,), {"self": 2, "fn": 3})
        assert future.done()
        assert not future.running()
        assert future.exception() is None

    def test_what_the_function_raises_is_the_futures_exception(self, executor: Executor) -> None:
        future = executor.submit(values.square, "no number")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            future.result(SOON)
        assert isinstance(future.exception(), TypeError)

    def test_what_cannot_be_sent_fails_its_own_future_only(self, executor: Executor) -> None:
        future = executor.submit(values.echo, threading.Lock())
        assert isinstance(future.exception(0), NotShareableError)
        assert not future.cancel()
        assert not future.interrupt()
        assert executor.submit(values.square, 3).result(SOON) == 9

    def test_any_thread_may_submit_and_wait(self, executor: Executor) -> None:
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            submit = functools.partial(executor.submit, values.square)
            squares = threads.map(lambda n: submit(n).result(SOON), range(99))
            assert list(squares) == [n * n for n in range(99)]

    def test_a_future_waits_no_longer_than_it_is_told(self, executor: Executor, gate: Gate) -> None:
        with held(executor, gate, 1) as (future,):
            for timeout in (0, -1, 0.01):
                with pytest.raises(TimeoutError):
                    future.result(timeout)
            with pytest.raises(TimeoutError):
                future.exception(0.01)
            gate.open()
            assert future.result(SOON) == "held"

    def test_workers_are_named_by_the_prefix(self) -> None:
        with Executor(1, "spinner") as executor:
            assert executor.submit(control.name_and_repr).result(SOON)[0].startswith("spinner")

    def test_context_variables_follow_a_call(self) -> None:
        with Executor(1, context=[context.request_id]) as executor:
            token = context.request_id.set("r1")
            assert executor.submit(context.seen).result(SOON) == ("r1", "nobody")
            context.request_id.reset(token)

    def test_coroutine_functions_run_in_the_workers_loop(self, executor: Executor) -> None:
        assert executor.submit(coroutines.add, 4, 4).result(SOON) == 8  # type: ignore[arg-type]


class TestCallbacks:
    def test_callbacks_run_though_nobody_waits(self, executor: Executor) -> None:
        done = threading.Event()
        executor.submit(values.square, 3).add_done_callback(lambda _: done.set())
        assert done.wait(SOON)

    def test_a_callback_may_call_and_wait(self, executor: Executor) -> None:
        found: list[int] = []
        done = threading.Event()

        def call_again(future: Any) -> None:
            found.append(executor.submit(values.square, future.result()).result(SOON))
            done.set()

        executor.submit(values.square, 3).add_done_callback(call_again)
        assert done.wait(SOON)
        assert found == [81]

    def test_a_callback_waits_on_where_another_thread_has_stopped_to(
        self, executor: Executor, gate: Gate
    ) -> None:
        """That one sees to all results, but only until its own has come."""
        in_callback, other_waits = threading.Event(), threading.Event()
        found: queue.SimpleQueue[str] = queue.SimpleQueue()

        def call_again(_: Any) -> None:
            later = executor.submit(waiting.wait_at, *gate.fds, "later")
            in_callback.set()
            assert other_waits.wait(SOON)
            time.sleep(0.01)  # mostly the other one has come first then; it must work either way
            found.put(later.result(SOON))

        def wait_for(future: CallFuture[Any]) -> None:
            other_waits.set()
            found.put(future.result(SOON))

        with contextlib.closing(Gate()) as earlier:
            executor.submit(values.square, 3).add_done_callback(call_again)
            assert in_callback.wait(SOON)
            sooner = executor.submit(waiting.wait_at, *earlier.fds, "sooner")
            thread = threading.Thread(target=wait_for, args=(sooner,))
            thread.start()
            earlier.reached_blocking()
            gate.reached_blocking()
            time.sleep(0.05)  # and the callback waits too
            earlier.open()
            assert found.get(timeout=SOON) == "sooner"
            thread.join(SOON)
            gate.open()
            assert found.get(timeout=SOON) == "later"

    def test_a_callback_that_lasts_holds_up_nobody_who_waits(
        self, executor: Executor, gate: Gate
    ) -> None:
        for _ in range(10):  # spinning does not pay then: who waits sleeps
            executor.submit(time.sleep, 0.002).result(SOON)
        in_callback, found = threading.Event(), threading.Event()
        was_in_time: queue.SimpleQueue[bool] = queue.SimpleQueue()

        def last(_: Any) -> None:
            in_callback.set()
            was_in_time.put(found.wait(SOON / 2))

        future = executor.submit(waiting.wait_at, *gate.fds, "held")
        future.add_done_callback(last)
        gate.reached_blocking()
        time.sleep(0.05)  # the executor's thread sleeps by now, mostly
        gate.open()
        assert in_callback.wait(SOON)
        assert executor.submit(time.sleep, 0.01).result(SOON) is None
        found.set()
        assert was_in_time.get(timeout=SOON)

    def test_a_callback_may_wait_for_what_one_holds_who_waits_for_a_result(self) -> None:
        """Even where both results come at once to a third, who waits for another one."""

        def hold_and_wait(lock: threading.Lock, call: Any, holds: threading.Event) -> None:
            with lock:
                holds.set()
                call.result(SOON)

        with Executor(3) as executor, contextlib.closing(Gate()) as last:
            third = executor.submit(waiting.wait_at, *last.fds)
            leader = threading.Thread(target=third.result, args=(SOON,))
            leader.start()
            last.reached_blocking()
            for _ in range(10):
                with contextlib.closing(Gate()) as gate:
                    first, second = (executor.submit(waiting.wait_at, *gate.fds) for _ in range(2))
                    gate.reached_blocking(2)
                    lock, holds, called = threading.Lock(), threading.Event(), threading.Event()

                    def take_the_lock(
                        _: Any, lock: threading.Lock = lock, called: threading.Event = called
                    ) -> None:
                        with lock:
                            called.set()

                    first.add_done_callback(take_the_lock)
                    waits = threading.Thread(target=hold_and_wait, args=(lock, second, holds))
                    waits.start()
                    assert holds.wait(SOON)
                    with without_others():
                        gate.open()
                        deadline = time.monotonic() + 0.02  # in which both results arrive
                        while time.monotonic() < deadline:
                            pass
                    waits.join(SOON / 2)
                    assert not waits.is_alive()
                    assert called.wait(SOON)
            last.open()
            leader.join(SOON)

    def test_callbacks_are_the_executors_threads_business(
        self, executor: Executor, gate: Gate
    ) -> None:
        callers: queue.SimpleQueue[str] = queue.SimpleQueue()
        future = executor.submit(waiting.wait_at, *gate.fds, "waited for")
        for _ in range(2):
            future.add_done_callback(lambda _: callers.put(threading.current_thread().name))
        gate.reached_blocking()
        opener = threading.Timer(0.05, gate.open)  # when this thread waits, mostly
        opener.start()
        assert future.result(SOON) == "waited for"
        names = {callers.get(timeout=SOON) for _ in range(2)}
        assert threading.current_thread().name not in names
        assert len(names) == 1
        opener.join()

    def test_a_callback_may_shut_the_executor_down(self) -> None:
        executor = Executor(1)
        done = threading.Event()

        def shut_down(_: Any) -> None:
            executor.shutdown(wait=True)
            done.set()

        executor.submit(values.square, 3).add_done_callback(shut_down)
        assert done.wait(SOON)

    def test_wait_and_as_completed_know_the_futures(self, executor: Executor) -> None:
        futures = [executor.submit(values.square, n) for n in range(100)]
        assert sum(f.result() for f in concurrent.futures.as_completed(futures, SOON)) == 328350
        futures = [executor.submit(values.square, n) for n in range(100)]
        assert concurrent.futures.wait(futures, SOON).done == set(futures)


class TestCancel:
    def test_a_call_that_waits_is_taken_back(
        self, executor: Executor, gate: Gate, trace: Trace
    ) -> None:
        with held(executor, gate) as futures:
            waits = executor.submit(waiting.leave_mark, trace.fd, b"x")
            assert not waits.running()
            assert futures[0].running()
            assert waits.cancel()
            assert waits.cancel()
            assert waits.cancelled()
            with pytest.raises(CancelledError):
                waits.result()
            assert not futures[0].cancel()
        assert [f.result(SOON) for f in futures] == ["held"] * 2
        assert trace.marks() == b""

    def test_a_cancelled_future_is_done_for_those_who_wait_for_it(
        self, executor: Executor, gate: Gate
    ) -> None:
        with held(executor, gate):
            future = executor.submit(values.square, 3)
            threading.Timer(0.01, future.cancel).start()
            assert concurrent.futures.wait([future], SOON).done == {future}

    def test_who_waits_in_result_learns_that_it_is_cancelled(
        self, executor: Executor, gate: Gate
    ) -> None:
        with held(executor, gate):
            future = executor.submit(values.square, 3)
            threading.Timer(0.05, future.cancel).start()
            with pytest.raises(CancelledError):
                future.result(SOON)

    def test_a_call_that_runs_is_stopped_by_interrupt(self, executor: Executor, gate: Gate) -> None:
        future = executor.submit(control.spin_in_a_loop)
        while not future.running():
            pass
        assert future.interrupt()
        assert future.cancelled()
        assert executor.submit(values.square, 3).result(SOON) == 9

    def test_who_waits_in_result_learns_that_it_is_interrupted(self, executor: Executor) -> None:
        future = executor.submit(control.spin_in_a_loop)
        threading.Timer(0.05, future.interrupt).start()
        with pytest.raises(CancelledError):
            future.result(SOON)

    def test_a_future_that_is_settled_by_hand_keeps_that(
        self, executor: Executor, gate: Gate
    ) -> None:
        with held(executor, gate, 1) as (future,):
            threading.Timer(0.05, future.set_result, ["by hand"]).start()
            assert future.result(SOON) == "by hand"
            gate.open()
            assert executor.submit(values.square, 3).result(SOON) == 9
            assert future.result() == "by hand"

    def test_a_future_is_not_cancelled_once_it_is_done(self, executor: Executor) -> None:
        future = executor.submit(values.square, 3)
        assert future.result(SOON) == 9
        assert not future.cancel()
        assert not future.interrupt()


class TestMap:
    @pytest.mark.parametrize("chunksize", [1, 2, 7, 100])
    @pytest.mark.parametrize("buffersize", [None, 1, 3, 100])
    def test_results_come_in_order(
        self, executor: Executor, chunksize: int, buffersize: int | None
    ) -> None:
        results = executor.map(
            values.add, range(50), range(50), chunksize=chunksize, buffersize=buffersize
        )
        assert list(results) == [2 * n for n in range(50)]

    def test_a_buffer_bounds_what_is_pulled(self, executor: Executor) -> None:
        pulled = 0

        def numbers() -> Iterator[int]:
            nonlocal pulled
            for n in range(100):
                pulled += 1
                yield n

        results = executor.map(values.square, numbers(), buffersize=4)
        assert pulled == 4
        assert next(results) == 0
        assert pulled == 5

    @pytest.mark.parametrize("chunksize", [1, 3])
    def test_results_before_an_error_come_first(self, executor: Executor, chunksize: int) -> None:
        results = executor.map(divmod, [4, 5, 6, 7], [2, 5, 0, 1], chunksize=chunksize)
        assert next(results) == (2, 0)
        assert next(results) == (1, 0)
        with pytest.raises(ZeroDivisionError):
            next(results)

    @pytest.mark.parametrize("chunksize", [1, 3])
    def test_what_cannot_be_sent_fails_at_its_place(
        self, executor: Executor, chunksize: int
    ) -> None:
        results = executor.map(values.echo, [1, threading.Lock(), 3], chunksize=chunksize)
        assert next(results) == 1
        with pytest.raises(NotShareableError):
            next(results)

    def test_partials_and_large_items_travel_in_chunks(self, executor: Executor) -> None:
        items = [b"x" * 10, b"y" * 100_000, b"z"]
        call = functools.partial(values.everything, 1, key=2)
        assert list(executor.map(call, items, chunksize=3)) == [
            ((1, item), {"key": 2}) for item in items
        ]

    def test_the_time_is_limited(self, executor: Executor, gate: Gate) -> None:
        with held(executor, gate):
            with pytest.raises(TimeoutError):
                next(executor.map(values.square, [1, 2], timeout=0.01))

    def test_leaving_early_cancels_what_has_not_begun(
        self, executor: Executor, gate: Gate, trace: Trace
    ) -> None:
        with held(executor, gate):
            results = executor.map(waiting.leave_mark, [trace.fd] * 9, [b"x"] * 9, timeout=0)
            with pytest.raises(TimeoutError):
                next(results)
        executor.shutdown()
        assert trace.marks() == b""

    def test_wrong_sizes_are_refused(self, executor: Executor) -> None:
        for wrong in ({"buffersize": 0}, {"chunksize": 0}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                executor.map(values.square, [1], **wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="buffersize"):
            executor.map(values.square, [1], buffersize="1")  # type: ignore[arg-type]


class TestShutdown:
    def test_accepted_calls_are_done_when_it_returns(self) -> None:
        with Executor(2) as executor:
            futures = [executor.submit(values.square, n) for n in range(200)]
        assert all(f.done() for f in futures)
        assert [f.result() for f in futures] == [n * n for n in range(200)]
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(values.square, 3)
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.map(values.square, [3])
        executor.shutdown()

    def test_one_that_was_never_used_refuses_calls_too(self) -> None:
        executor = Executor()
        executor.shutdown()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(values.square, 3)

    def test_what_waits_can_be_cancelled(self, gate: Gate) -> None:
        executor = Executor(2)
        with held(executor, gate) as futures:
            waits = [executor.submit(values.square, n) for n in range(50)]
            executor.shutdown(wait=False, cancel_futures=True)
            assert all(f.cancelled() for f in waits)
            gate.open()
            executor.shutdown()
            assert [f.result(0) for f in futures] == ["held"] * 2

    def test_one_that_is_dropped_finishes_its_work(self, gate: Gate) -> None:
        executor = Executor(1)
        with held(executor, gate, 1) as (first,):
            second = executor.submit(values.square, 3)
            results = executor.map(values.square, range(9))
            del executor
            gate.open()
            assert first.result(SOON) == "held"
            assert second.result(SOON) == 9
            assert list(results) == [n * n for n in range(9)]

    def test_its_threads_have_ended(self) -> None:
        before = set(threading.enumerate())
        with Executor(2, logging=False) as executor:
            executor.submit(values.square, 3).result(SOON)
        assert set(threading.enumerate()) <= before

    def test_the_program_ends_when_the_work_is_done(self, program: Program) -> None:
        ended = program(
            """
            import os
            from aiointerpreters import Executor
            from workfns import waiting, values

            if __name__ == "__main__":
                executor = Executor(2)
                executor.submit(values.square, 3).add_done_callback(
                    lambda f: os.write(1, b"%d " % f.result())
                )
                other = Executor(1)
                other.submit(values.square, 4).add_done_callback(
                    lambda f: os.write(1, b"%d " % f.result())
                )
                other.shutdown(wait=False)
            """
        )
        ended.assert_fine()
        assert sorted(ended.out.split()) == ["16", "9"]

    def test_ctrl_c_ends_a_program_that_waits(self, program: Program) -> None:
        ended = program(
            """
            from aiointerpreters import Executor
            from workfns import control

            if __name__ == "__main__":
                executor = Executor(1)
                future = executor.submit(control.spin_in_a_loop)
                while not future.running():
                    pass
                try:
                    print("ready", flush=True)
                    future.result()
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
                    future.interrupt()
            """,
            interrupt=True,
        )
        ended.assert_fine()
        assert ended.out.split() == ["ready", "interrupted"]

    def test_a_forked_child_is_refused(self, executor: Executor) -> None:
        executor.submit(values.square, 3).result(SOON)
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CPython's, of forking beside threads
            child = os.fork()
        if child == 0:
            try:
                executor.submit(values.square, 3)
            except RunnerError as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.close(write)
        said = os.read(read, 500).decode()
        os.close(read)
        assert os.waitpid(child, 0)[1] == 0
        assert "make a new Executor here" in said
        assert executor.submit(values.square, 3).result(SOON) == 9


class TestBroken:
    def test_an_initializer_runs_in_every_worker(self) -> None:
        with Executor(2, initializer=control.remember, initargs=("it",)) as executor:
            assert executor.submit(control.recall).result(SOON) == "it"

    def test_one_that_raises_breaks_the_executor(self, caplog: pytest.LogCaptureFixture) -> None:
        with Executor(2, initializer=divmod, initargs=(1, 0)) as executor:
            future = executor.submit(values.square, 3)
            with pytest.raises(concurrent.futures.BrokenExecutor) as caught:
                future.result(SOON)
            assert isinstance(caught.value, BrokenRunner)
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
            with pytest.raises(BrokenRunner):
                executor.submit(values.square, 3)
            with pytest.raises(BrokenRunner):
                executor.map(values.square, [3])
        assert "Exception in initializer" in caplog.text

    def test_wrong_arguments_are_refused(self) -> None:
        for wrong in (0, -1):
            with pytest.raises(ValueError, match="max_workers must be greater than 0"):
                Executor(wrong)
        with pytest.raises(TypeError, match="initializer must be a callable"):
            Executor(initializer="no function")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="thread_name_prefix"):
            Executor(thread_name_prefix=3)  # type: ignore[arg-type]


class TestAsyncio:
    def test_a_loop_runs_calls_in_it(self, executor: Executor) -> None:
        async def main() -> list[int]:
            loop = asyncio.get_running_loop()
            calls = (loop.run_in_executor(executor, values.square, n) for n in range(200))
            return await asyncio.gather(*calls)

        assert asyncio.run(main()) == [n * n for n in range(200)]

    def test_it_can_be_a_loops_default_executor(self) -> None:
        async def main() -> int:
            loop = asyncio.get_running_loop()
            loop.set_default_executor(Executor(1))
            return await loop.run_in_executor(None, values.square, 3)

        assert asyncio.run(main()) == 9  # which shuts it down

    def test_asyncio_waits_for_its_futures(self, executor: Executor) -> None:
        async def main() -> int:
            futures = [asyncio.wrap_future(executor.submit(values.square, n)) for n in range(9)]
            done, _ = await asyncio.wait(futures)
            return sum(f.result() for f in done)

        assert asyncio.run(main()) == 204

    def test_cancelling_takes_a_call_back_that_waits(
        self, executor: Executor, gate: Gate, trace: Trace
    ) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await loop.run_in_executor(executor, waiting.leave_mark, trace.fd, b"x")

        with held(executor, gate):
            asyncio.run(main())
        executor.shutdown()
        assert trace.marks() == b""

    def test_dask_does_not_take_it_for_a_pool_of_threads(self) -> None:
        assert "ThreadPoolExecutor" not in str(Executor)
        assert isinstance(Executor(), concurrent.futures.ThreadPoolExecutor)


class TestInAWorker:
    def test_a_worker_may_use_an_executor_of_its_own(self, executor: Executor) -> None:
        assert executor.submit(executors.sum_of_squares, 20).result(SOON) == 2470

    def test_one_that_a_function_leaves_open_does_not_keep_its_worker(self) -> None:
        with Executor(1) as executor:
            assert executor.submit(executors.leave_one_open).result(SOON) == 9


def test_the_names_are_exported() -> None:
    assert {"Executor", "CallFuture"} <= set(aiointerpreters.__all__)


@pytest.mark.timeout(120 * SLOWNESS)
def test_each_future_is_settled_once_whatever_threads_do() -> None:
    ended = programs.run(["-m", "helpers.executor_races", "--seconds", "5"], limit=100 * SLOWNESS)
    ended.assert_fine()
    assert re.search(r"^\d{3,} calls$", ended.out, re.MULTILINE), ended.out
