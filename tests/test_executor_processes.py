"""Executor(unsupported="process"): functions that can't run in a subinterpreter, in processes.

faulthandler refuses subinterpreters on every Python, so that these tests need nothing installed.
"""

import asyncio
import concurrent.futures
import contextvars
import functools
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from aiointerpreters import (
    BrokenRunner,
    CallFuture,
    Executor,
    NotShareableError,
    ProcessDied,
    RunnerError,
    UnsupportedModule,
)
from helpers.gate import Gate
from helpers.limits import SOON
from helpers.programs import Program
from workfns import executors, lazily, refusing, values, waiting


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(2, unsupported="process") as executor:
        yield executor


@pytest.fixture
def single() -> Iterator[Executor]:
    with Executor(1, unsupported="process") as executor:
        yield executor


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)


def say(fifo: str, text: str = "go") -> None:
    Path(fifo).write_text(text)


def hanging(executor: Executor, fifo: str) -> tuple[CallFuture[None], int]:
    """A call that hangs in a process, and the pid of that."""
    future = executor.submit(refusing.say_and_hang, fifo)
    return future, int(Path(fifo).read_text())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class TestByDefault:
    """unsupported="error" """

    def test_the_error_names_function_module_and_option(self) -> None:
        with Executor(1) as executor:
            error = executor.submit(refusing.pid).exception(SOON)
            assert isinstance(error, UnsupportedModule)
            assert "workfns.refusing.pid" in str(error)
            assert "faulthandler" in str(error)
            assert 'Executor(unsupported="process")' in str(error)
            assert executor.submit(values.square, 3).result(SOON) == 9

    @pytest.mark.parametrize("unsupported", ["processes", "", None])
    def test_another_option_is_refused(self, unsupported: Any) -> None:
        with pytest.raises(ValueError, match="unsupported must be 'error' or 'process'"):
            Executor(unsupported=unsupported)


class TestTheChoice:
    def test_what_is_unsupported_runs_in_a_process_and_the_rest_does_not(
        self, executor: Executor
    ) -> None:
        for _ in range(2):
            future = executor.submit(refusing.pid)
            assert isinstance(future, CallFuture)
            assert future.result(SOON) != os.getpid()
            assert executor.submit(values.process_id).result(SOON) == os.getpid()

    def test_many_calls_at_once_of_an_unknown_function(self, executor: Executor) -> None:
        futures = [executor.submit(refusing.square, n) for n in range(50)]
        assert [f.result(SOON) for f in futures] == [n * n for n in range(50)]
        futures = [executor.submit(values.square, n) for n in range(50)]
        assert [f.result(SOON) for f in futures] == [n * n for n in range(50)]

    def test_an_argument_may_be_the_reason(self, executor: Executor) -> None:
        value = refusing.Value()
        assert executor.submit(lazily.type_name, value).result(SOON) == "Value"
        assert executor.submit(lazily.type_name, 1).result(SOON) == "int"
        assert executor.submit(lazily.type_name, [value]).result(SOON) == "list"
        fixed = functools.partial(lazily.second_type_name, value)
        assert executor.submit(lazily.second_type_name, 1, 2).result(SOON) == "int"
        assert executor.submit(fixed, 1).result(SOON) == "int"

    def test_real_packages(self, executor: Executor) -> None:
        numpy = pytest.importorskip("numpy", reason="numpy has no wheel for this Python")
        from workfns import arrays

        zeros = executor.submit(arrays.zeros, 3).result(SOON)
        assert isinstance(zeros, numpy.ndarray)
        assert executor.submit(lazily.type_name, zeros).result(SOON) == "ndarray"

    def test_partials_and_coroutine_functions(self, executor: Executor) -> None:
        assert executor.submit(functools.partial(refusing.square, 5)).result(SOON) == 25
        assert executor.submit(refusing.async_square, 4).result(SOON) == 16

    def test_context_variables_follow_a_call(self) -> None:
        with Executor(1, unsupported="process", context=[refusing.REQUEST]) as executor:
            context = contextvars.copy_context()
            context.run(refusing.REQUEST.set, "r1")
            future = context.run(executor.submit, refusing.request)
            context.run(refusing.REQUEST.set, "r2")
            assert future.result(SOON) == "r1"

    def test_a_context_variable_may_be_the_reason(self) -> None:
        with Executor(1, unsupported="process", context=[refusing.REQUEST]) as executor:
            assert executor.submit(lazily.request).result(SOON) == "none"
            context = contextvars.copy_context()
            context.run(refusing.REQUEST.set, "r1")
            for _ in range(2):
                assert context.run(executor.submit, lazily.request).result(SOON) == "r1"

    def test_an_initializer_that_is_unsupported_sends_everything_there(self) -> None:
        with Executor(
            2, unsupported="process", initializer=refusing.remember, initargs=(42,)
        ) as executor:
            assert executor.submit(refusing.remembered).result(SOON) == 42
            assert executor.submit(values.process_id).result(SOON) != os.getpid()
            unsendable = executor.submit(values.echo, threading.Lock())
            assert isinstance(unsendable.exception(SOON), NotShareableError)
            assert list(executor.map(values.square, range(5), chunksize=2)) == [0, 1, 4, 9, 16]

    def test_preload_passes_over_it_in_interpreters(self) -> None:
        with Executor(1, unsupported="process", preload=["faulthandler"]) as executor:
            assert executor.submit(values.process_id).result(SOON) == os.getpid()
            assert executor.submit(refusing.pid).result(SOON) != os.getpid()

    def test_an_initializer_that_raises_there_breaks_it(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Executor(1, unsupported="process", initializer=refusing.fail_to_begin) as executor:
            error = executor.submit(refusing.pid).exception(SOON)
            assert isinstance(error, BrokenRunner)
            assert "this initializer fails" in str(error)
            with pytest.raises(BrokenRunner, match="this initializer fails"):
                executor.submit(refusing.pid)
        assert "Exception in initializer" in caplog.text

    def test_an_initializer_that_raises_in_workers_breaks_it(self) -> None:
        with Executor(1, unsupported="process", initializer=divmod, initargs=(1, 0)) as executor:
            assert isinstance(executor.submit(values.square, 3).exception(SOON), BrokenRunner)
            with pytest.raises(BrokenRunner):
                executor.submit(values.square, 3)
            with pytest.raises(BrokenRunner):
                executor.submit(refusing.square, 3)


class TestErrors:
    def test_an_exception_arrives_as_it_is(self, executor: Executor) -> None:
        error = executor.submit(refusing.fail).exception(SOON)
        assert isinstance(error, refusing.OwnError)
        assert (error.first, error.second) == (7, "seven")
        assert error.__notes__ == ["a note"]

    def test_a_process_that_dies_fails_its_call_only(self, single: Executor) -> None:
        error = single.submit(refusing.leave, 5).exception(SOON)
        assert isinstance(error, ProcessDied)
        assert error.exit_code == 5
        assert single.submit(refusing.square, 3).result(SOON) == 9

    def test_what_cannot_be_sent_fails_its_own_future_only(self, executor: Executor) -> None:
        for function in (refusing.echo, refusing.echo, values.echo):
            error = executor.submit(function, threading.Lock()).exception(SOON)
            assert isinstance(error, NotShareableError)
        error = executor.submit(refusing.unsendable).exception(SOON)
        assert isinstance(error, NotShareableError)
        assert executor.submit(refusing.square, 3).result(SOON) == 9

    def test_a_generator_function_is_refused(self, executor: Executor) -> None:
        for _ in range(2):
            error = executor.submit(refusing.count, 3).exception(SOON)
            assert isinstance(error, RunnerError)
            assert "generator function" in str(error)


class TestFutures:
    def test_wait_and_as_completed_know_them(self, executor: Executor) -> None:
        futures = [executor.submit(f, 3) for f in (refusing.square, values.square) * 5]
        assert {f.result() for f in concurrent.futures.as_completed(futures, SOON)} == {9}
        assert not concurrent.futures.wait(futures, SOON).not_done

    def test_asyncio_waits_for_them(self, executor: Executor) -> None:
        async def main() -> list[int]:
            loop = asyncio.get_running_loop()
            first = asyncio.wrap_future(executor.submit(refusing.square, 2))
            calls = (loop.run_in_executor(executor, refusing.square, n) for n in range(20))
            return [await first, *await asyncio.gather(*calls)]

        assert asyncio.run(main()) == [4, *(n * n for n in range(20))]

    def test_callbacks_run_though_nobody_waits(self, executor: Executor) -> None:
        for _ in range(2):
            done = threading.Event()
            executor.submit(refusing.pid).add_done_callback(lambda _, done=done: done.set())  # type: ignore[misc]
            assert done.wait(SOON)

    def test_a_callback_may_call_and_wait(self, single: Executor) -> None:
        answers: list[Any] = []
        done = threading.Event()

        def call_again(future: CallFuture[int]) -> None:
            answers.append(future.result())
            answers.append(single.submit(refusing.square, 4).result(SOON))
            answers.append(single.submit(values.square, 5).result(SOON))
            answers.append(single.submit(lazily.type_name, refusing.Value()).result(SOON))
            done.set()

        for function in (refusing.square, values.square):
            done.clear()
            single.submit(function, 3).add_done_callback(call_again)  # type: ignore[arg-type]
            assert done.wait(SOON)
        assert answers == [9, 16, 25, "Value"] * 2

    def test_a_callback_may_wait_for_what_one_holds_who_waits_for_a_result(
        self, single: Executor, fifo: str
    ) -> None:
        lock, in_callback, called = threading.Lock(), threading.Event(), threading.Event()

        def take_the_lock(_: object) -> None:
            in_callback.set()
            with lock:
                called.set()

        first = single.submit(refusing.wait_for, fifo)
        first.add_done_callback(take_the_lock)
        with lock:
            say(fifo)
            assert in_callback.wait(SOON)
            for function in (refusing.square, values.square, lazily.identity):
                assert single.submit(function, 3).result(SOON) in (3, 9)
            assert single.submit(lazily.type_name, refusing.Value()).result(SOON) == "Value"
        assert called.wait(SOON)

    def test_callbacks_are_called_in_order_once_and_before_the_end(self, fifo: str) -> None:
        called: list[int] = []
        with Executor(1, unsupported="process") as executor:
            blocker = executor.submit(refusing.wait_for, fifo)
            for number in range(50):
                future = executor.submit(refusing.square, number)
                for _ in range(2):
                    future.add_done_callback(lambda f: called.append(f.result()))
            say(fifo)
        assert blocker.result(0) == "go"
        assert called == [n * n for n in range(50) for _ in range(2)]

    def test_a_callback_may_shut_the_executor_down(self) -> None:
        executor = Executor(1, unsupported="process")
        executor.submit(refusing.square, 3).result(SOON)
        done = threading.Event()

        def shut_down(_: object) -> None:
            executor.shutdown()
            done.set()

        executor.submit(refusing.square, 3).add_done_callback(shut_down)
        assert done.wait(SOON)
        executor.shutdown()

    def test_a_future_waits_no_longer_than_it_is_told(self, single: Executor, fifo: str) -> None:
        future = single.submit(refusing.wait_for, fifo)
        for timeout in (0, -1, 0.01):
            with pytest.raises(TimeoutError):
                future.result(timeout)
        say(fifo)
        assert future.result(SOON) == "go"

    def test_a_future_that_is_settled_by_hand_keeps_that(self, single: Executor, fifo: str) -> None:
        future, _ = hanging(single, fifo)
        future.set_result(None)
        assert future.result(0) is None
        assert single.submit(refusing.square, 3).result(SOON) == 9


class TestCancel:
    def test_a_call_that_waits_is_taken_back_and_one_that_runs_is_not(
        self, single: Executor, fifo: str
    ) -> None:
        running, _ = hanging(single, fifo)
        waits = single.submit(refusing.square, 3)
        assert running.running()
        assert not waits.running()
        assert not running.cancel()
        assert waits.cancel()
        assert waits.cancel()
        assert waits.cancelled()
        with pytest.raises(CancelledError):
            waits.result(0)
        assert not concurrent.futures.wait([waits], 0).not_done
        assert running.interrupt()

    def test_a_call_of_an_unknown_function_is_taken_back(
        self, single: Executor, gate: Gate
    ) -> None:
        with gate:
            single.submit(values.square, 3).result(SOON)
            held = single.submit(waiting.wait_at, *gate.fds, "held")
            gate.reached_blocking(1)
            first = single.submit(refusing.pid)
            second = single.submit(refusing.square, 4)
            assert not first.running()
            assert first.cancel()
            with pytest.raises(CancelledError):
                first.result(0)
        assert held.result(SOON) == "held"
        assert second.result(SOON) == 16

    def test_interrupt_kills_the_process(self, single: Executor, fifo: str) -> None:
        single.submit(refusing.pid).result(SOON)
        future, pid = hanging(single, fifo)
        assert future.interrupt()
        assert future.cancelled()
        assert not future.running()
        # The next call's process is started when that one is gone.
        assert single.submit(refusing.pid).result(SOON) != pid
        assert not is_alive(pid)
        assert future.interrupt()

    def test_interrupt_stops_a_call_in_a_worker(self, single: Executor, gate: Gate) -> None:
        future = single.submit(waiting.announce_and_spin, gate.fds[0])
        gate.reached_blocking(1)
        assert future.running()
        assert not future.cancel()
        assert future.interrupt()
        assert single.submit(values.square, 3).result(SOON) == 9

    def test_one_that_is_done_is_not_cancelled(self, executor: Executor) -> None:
        future = executor.submit(refusing.square, 3)
        assert future.result(SOON) == 9
        assert not future.cancel()
        assert not future.interrupt()


class TestMap:
    @pytest.mark.parametrize("chunksize", [1, 3, 100])
    def test_results_come_in_order(self, executor: Executor, chunksize: int) -> None:
        for function in (refusing.square, values.square):
            for _ in range(2):
                results = executor.map(function, range(20), chunksize=chunksize)
                assert list(results) == [n * n for n in range(20)]

    def test_chunks_travel_together(self, executor: Executor) -> None:
        pids = list(executor.map(refusing.pid_of, range(12), chunksize=12))
        assert len(set(pids)) == 1
        assert pids[0] != os.getpid()
        assert set(executor.map(lazily.process_id_of, range(4), chunksize=4)) == {os.getpid()}

    @pytest.mark.parametrize("chunksize", [1, 3])
    def test_results_before_an_error_come_first(self, executor: Executor, chunksize: int) -> None:
        for _ in range(2):
            results = executor.map(refusing.reciprocal, [1, 2, 0, 4], chunksize=chunksize)
            assert next(results) == 1
            assert next(results) == 0.5
            with pytest.raises(ZeroDivisionError):
                next(results)

    def test_arguments_in_chunks_may_be_the_reason(self, executor: Executor) -> None:
        for _ in range(2):
            items = [1, refusing.Value(), "text"]
            names = executor.map(lazily.type_name, items, chunksize=3)
            assert list(names) == ["int", "Value", "str"]

    def test_a_buffer_bounds_what_is_pulled(self, executor: Executor) -> None:
        numbers = iter(range(20))
        results = executor.map(refusing.square, numbers, chunksize=2, buffersize=4)
        assert next(results) == 0
        assert next(numbers) >= 4
        results.close()  # type: ignore[attr-defined]


class TestShutdown:
    def test_accepted_calls_are_done_when_it_returns(self) -> None:
        for warm in (True, False):
            with Executor(2, unsupported="process") as executor:
                if warm:
                    executor.submit(refusing.pid).result(SOON)
                futures = [executor.submit(refusing.square, n) for n in range(30)]
            assert all(f.done() for f in futures)
            assert [f.result() for f in futures] == [n * n for n in range(30)]
            for function in (refusing.square, values.square):
                with pytest.raises(RuntimeError, match="cannot schedule new futures after shut"):
                    executor.submit(function, 3)
                with pytest.raises(RuntimeError, match="cannot schedule new futures after shut"):
                    executor.map(function, [3], chunksize=2)
            executor.shutdown()

    def test_what_waits_can_be_cancelled(self, fifo: str) -> None:
        executor = Executor(1, unsupported="process")
        running = executor.submit(refusing.wait_for, fifo)
        with open(fifo, "w") as file:  # it reads
            waits = [executor.submit(refusing.square, n) for n in range(20)]
            executor.shutdown(wait=False, cancel_futures=True)
            assert all(f.cancelled() for f in waits)
            file.write("go")
        executor.shutdown()
        assert running.result(0) == "go"

    def test_what_is_not_decided_can_be_cancelled(self, gate: Gate) -> None:
        executor = Executor(1, unsupported="process")
        with gate:
            executor.submit(values.square, 3).result(SOON)
            held = executor.submit(waiting.wait_at, *gate.fds, "held")
            gate.reached_blocking(1)
            waits = [executor.submit(refusing.square, n) for n in range(5)]
            executor.shutdown(wait=False, cancel_futures=True)
            assert all(f.cancelled() for f in waits)
        executor.shutdown()
        assert held.result(0) == "held"

    def test_what_is_not_decided_is_done(self, gate: Gate) -> None:
        executor = Executor(1, unsupported="process")
        with gate:
            held = executor.submit(waiting.wait_at, *gate.fds, "held")
            gate.reached_blocking(1)
            waits = [executor.submit(f, 3) for f in (refusing.square, values.square)]
            executor.shutdown(wait=False)
        executor.shutdown()
        assert held.result(0) == "held"
        assert [f.result(0) for f in waits] == [9, 9]

    def test_one_that_is_dropped_finishes_its_work(self, fifo: str) -> None:
        executor = Executor(1, unsupported="process")
        first = executor.submit(refusing.wait_for, fifo)
        second = executor.submit(refusing.square, 3)
        del executor
        say(fifo)
        assert first.result(SOON) == "go"
        assert second.result(SOON) == 9

    def test_its_threads_and_processes_have_ended(self) -> None:
        before = set(threading.enumerate())
        with Executor(2, logging=False, unsupported="process") as executor:
            pid = executor.submit(refusing.pid).result(SOON)
        assert set(threading.enumerate()) <= before
        assert not is_alive(pid)

    def test_one_that_was_never_used(self) -> None:
        executor = Executor(unsupported="process")
        executor.shutdown()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(refusing.pid)

    def test_the_program_ends_when_the_work_is_done(self, program: Program) -> None:
        ended = program(
            """
            import os
            from aiointerpreters import Executor
            from workfns import refusing

            if __name__ == "__main__":
                executor = Executor(1, unsupported="process")
                for number in (3, 4):
                    executor.submit(refusing.square, number).add_done_callback(
                        lambda f: os.write(1, b"%d " % f.result())
                    )
                other = Executor(1, unsupported="process")
                other.submit(refusing.square, 5).add_done_callback(
                    lambda f: os.write(1, b"%d " % f.result())
                )
                other.shutdown(wait=False)
            """
        )
        ended.assert_fine()
        assert sorted(ended.out.split()) == ["16", "25", "9"]

    def test_ctrl_c_ends_a_program_that_waits(self, program: Program) -> None:
        ended = program(
            """
            from aiointerpreters import Executor
            from workfns import refusing

            if __name__ == "__main__":
                executor = Executor(1, unsupported="process")
                executor.submit(refusing.pid).result()
                future = executor.submit(refusing.hang)
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


def test_a_forked_child_is_refused(single: Executor, fifo: str) -> None:
    future, _ = hanging(single, fifo)
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CPython's, of forking beside threads
        child = os.fork()
    if child == 0:
        try:
            for use in (lambda: single.submit(refusing.pid), future.result):
                try:
                    use()
                except RunnerError as error:
                    os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    said = os.read(read, 500).decode()
    os.close(read)
    assert os.waitpid(child, 0)[1] == 0
    assert "make a new Executor here" in said
    assert future.interrupt()
    assert single.submit(refusing.square, 3).result(SOON) == 9


def test_a_worker_can_start_no_processes(single: Executor) -> None:
    error = single.submit(executors.want_a_process).exception(SOON)
    assert isinstance(error, RunnerError)
    assert "processes can't be started from within a worker" in str(error)


def test_each_future_is_settled_once_whatever_threads_do() -> None:
    """Calls of unknown functions, cancelled and interrupted on their way by several threads."""
    settled: list[object] = []
    ways: tuple[Any, ...] = (CallFuture.cancel, CallFuture.interrupt, CallFuture.running)

    def use(number: int) -> None:
        for turn in range(15):
            function: Any = refusing.square if turn % 2 else lazily.type_name
            future = executor.submit(function, turn if turn % 2 else refusing.Value())
            future.add_done_callback(settled.append)
            ways[(number + turn) % 3](future)
            futures.append(future)

    for _ in range(4):
        futures: list[CallFuture[Any]] = []
        settled.clear()
        with Executor(2, unsupported="process") as executor:
            threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SOON)
        assert len(futures) == len(settled) == 60
        assert all(f.done() for f in futures)
        for future in futures:
            assert future.cancelled() or future.result(0) is not None
