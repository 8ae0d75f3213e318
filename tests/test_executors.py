"""The original's executors: threads, and interpreters for what is tagged."""

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from typing import Any

import pytest

from aiointerpreters import BrokenRunner, NotShareableError, RunnerError
from aiointerpreters.executors import InterpreterThreadPoolExecutor, interpreter
from helpers.gate import Gate, Trace
from helpers.limits import SOON
from helpers.programs import Program
from workfns import failing, tagged, values, waiting

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


@pytest.fixture(scope="module")
def executor() -> Iterator[InterpreterThreadPoolExecutor]:
    with InterpreterThreadPoolExecutor(2, "mine") as executor:
        yield executor


def loops() -> list[Any]:
    factories: list[Any] = [pytest.param(asyncio.new_event_loop, id="asyncio")]
    try:
        import uvloop  # type: ignore[import-not-found]
    except ImportError:
        skip = pytest.mark.skip(reason="uvloop has no wheel for this Python")
        factories.append(pytest.param(None, id="uvloop", marks=skip))
    else:
        factories.append(pytest.param(uvloop.new_event_loop, id="uvloop"))
    return factories


every_loop = pytest.mark.parametrize("new_loop", loops())


class TestWhere:
    def test_a_tagged_function_runs_in_an_interpreter(
        self, executor: InterpreterThreadPoolExecutor
    ) -> None:
        assert executor.submit(interpreter(values.add), 2, right=3).result() == 5
        worker, args, kwargs = executor.submit(interpreter(tagged.where_with), 1, two=2).result()
        assert worker.startswith("mine-")
        assert (args, kwargs) == ((1,), {"two": 2})

    def test_any_other_runs_in_a_thread(self, executor: InterpreterThreadPoolExecutor) -> None:
        assert executor.submit(tagged.where).result().startswith("mine_")
        assert executor.submit(lambda: threading.current_thread()).result().name.startswith("mine_")

    def test_a_decorated_function_runs_in_an_interpreter(
        self, executor: InterpreterThreadPoolExecutor
    ) -> None:
        assert executor.submit(tagged.square, 3).result() == 9
        assert executor.submit(tagged.where_tagged).result().startswith("mine-")

    def test_a_function_that_is_tagged_twice(self, executor: InterpreterThreadPoolExecutor) -> None:
        assert executor.submit(tagged.cube, 3).result() == 27
        assert executor.submit(interpreter(tagged.cube), 3).result() == 27
        doubly = interpreter(interpreter(tagged.where))
        assert executor.submit(doubly).result().startswith("mine-")

    def test_a_coroutine_function(self, executor: InterpreterThreadPoolExecutor) -> None:
        assert inspect.iscoroutinefunction(tagged.coroutine_square)
        assert executor.submit(tagged.coroutine_square, 3).result() == 9

    def test_map_goes_by_the_tag(self, executor: InterpreterThreadPoolExecutor) -> None:
        assert list(executor.map(interpreter(values.add), range(5), range(5))) == [0, 2, 4, 6, 8]
        assert list(executor.map(lambda number: number + 1, range(5))) == [1, 2, 3, 4, 5]
        assert list(executor.map(tagged.square, range(5))) == [0, 1, 4, 9, 16]


class TestPartials:
    """The original looks at a partial's arguments only."""

    def test_of_a_tagged_function(self, executor: InterpreterThreadPoolExecutor) -> None:
        call = functools.partial(interpreter(tagged.where_with), 1, two=2)
        worker, args, kwargs = executor.submit(call, 3, four=4).result()
        assert worker.startswith("mine-")
        assert (args, kwargs) == ((1, 3), {"two": 2, "four": 4})

    def test_keywords_that_come_later_win(self, executor: InterpreterThreadPoolExecutor) -> None:
        call = functools.partial(interpreter(values.add), 1, right=2)
        assert executor.submit(call, right=5).result() == 6

    def test_of_a_partial(self, executor: InterpreterThreadPoolExecutor) -> None:
        call = functools.partial(functools.partial(interpreter(tagged.where_with), 1), 2)
        call.__setstate__((functools.partial(interpreter(tagged.where_with), 1), (2,), {}, {}))
        assert executor.submit(call, 3).result()[1] == (1, 2, 3)

    def test_a_tag_around_a_partial(self, executor: InterpreterThreadPoolExecutor) -> None:
        call = interpreter(functools.partial(tagged.where_with, 1))
        worker, args, _ = executor.submit(call, 2).result()
        assert worker.startswith("mine-")
        assert args == (1, 2)

    def test_whose_first_argument_is_tagged_keeps_its_own_function(
        self, executor: InterpreterThreadPoolExecutor
    ) -> None:
        call = functools.partial(tagged.apply, interpreter(values.add), 2)
        where, result = executor.submit(call, 3).result()
        assert where.startswith("mine_")
        assert result == 5

    def test_with_a_placeholder(self, executor: InterpreterThreadPoolExecutor) -> None:
        if not hasattr(functools, "Placeholder"):
            pytest.skip("functools.Placeholder came with Python 3.14")
        later = functools.Placeholder
        call = functools.partial(interpreter(tagged.where_with), later, 2, later, 4)
        assert executor.submit(call, 1, 3, 5).result()[1] == (1, 2, 3, 4, 5)
        with pytest.raises(TypeError, match="positional"):
            executor.submit(call, 1)


class TestToThread:
    @every_loop
    def test_a_tagged_function_goes_to_an_interpreter(self, new_loop: Any) -> None:
        async def main() -> None:
            InterpreterThreadPoolExecutor(1, "mine").set_as_event_loop_default()
            where = await asyncio.to_thread(interpreter(tagged.where_with), 1, two=2)
            assert where == ("mine-0", (1,), {"two": 2})
            assert await asyncio.to_thread(tagged.square, 3) == 9
            assert await asyncio.to_thread(tagged.where) == "mine_0"

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())

    def test_what_is_not_tagged_has_its_context(self) -> None:
        async def main() -> None:
            InterpreterThreadPoolExecutor(1).set_as_event_loop_default()
            variable.set("seen")
            assert await asyncio.to_thread(variable.get) == "seen"
            assert await asyncio.to_thread(interpreter(tagged.square), 3) == 9

        asyncio.run(main())

    def test_a_function_to_be_run_in_a_context(
        self, executor: InterpreterThreadPoolExecutor
    ) -> None:
        context = contextvars.copy_context()
        call = executor.submit(context.run, interpreter(tagged.where))
        assert call.result().startswith("mine-")
        assert executor.submit(context.run, tagged.where).result().startswith("mine_")

    def test_run_in_executor(self, executor: InterpreterThreadPoolExecutor) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            call = functools.partial(interpreter(values.add), right=5)
            assert await loop.run_in_executor(executor, call, 2) == 7
            squares = [loop.run_in_executor(executor, tagged.square, n) for n in range(100)]
            assert await asyncio.gather(*squares) == [n * n for n in range(100)]

        asyncio.run(main())


class TestAsDefault:
    @every_loop
    def test_of_a_given_loop(self, new_loop: Any) -> None:
        loop = new_loop()
        InterpreterThreadPoolExecutor(1, "mine").set_as_event_loop_default(loop)
        try:
            where = asyncio.to_thread(interpreter(tagged.where))
            assert loop.run_until_complete(where) == "mine-0"
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()

    @every_loop
    def test_of_an_asyncio_runner(self, new_loop: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            InterpreterThreadPoolExecutor(1, "mine").set_as_event_loop_default(runner)
            assert runner.run(asyncio.to_thread(interpreter(tagged.where))) == "mine-0"

    def test_the_loops_end_shuts_it_down(self) -> None:
        executor = InterpreterThreadPoolExecutor(1)

        async def main() -> None:
            executor.set_as_event_loop_default()
            await asyncio.to_thread(tagged.square, 3)

        asyncio.run(main())
        with pytest.raises(RuntimeError, match="shutdown"):
            executor.submit(tagged.square, 3)

    def test_without_a_loop(self, executor: InterpreterThreadPoolExecutor) -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            executor.set_as_event_loop_default()

    def test_of_something_else(self, executor: InterpreterThreadPoolExecutor) -> None:
        with pytest.raises(TypeError, match=r"ctx must be an event loop.* not str"):
            executor.set_as_event_loop_default("loop")  # type: ignore[arg-type]


class TestLife:
    def test_interpreters_are_made_lazily(self) -> None:
        with InterpreterThreadPoolExecutor(4, "lazy") as executor:
            assert executor.submit(tagged.where).result() == "lazy_0"
            assert not [t for t in threading.enumerate() if t.name.startswith("lazy-")]
            assert executor.submit(interpreter(tagged.where)).result() == "lazy-0"

    def test_an_interpreter_is_used_again(self) -> None:
        with InterpreterThreadPoolExecutor(4) as executor:
            counts = [executor.submit(interpreter(tagged.count)).result() for _ in range(5)]
            assert counts == [1, 2, 3, 4, 5]

    def test_interpreters_are_isolated(self) -> None:
        tagged.places.add("here")
        with InterpreterThreadPoolExecutor(1) as executor:
            assert executor.submit(tagged.was_noted).result()
            assert not executor.submit(interpreter(tagged.was_noted)).result()

    def test_so_many_run_at_once_and_no_more(self, gate: Gate) -> None:
        with InterpreterThreadPoolExecutor(2) as executor, gate:
            calls = [executor.submit(interpreter(waiting.wait_at), *gate.fds) for _ in range(3)]
            gate.reached_blocking(2)
            assert not gate.more_arrived()
            assert executor.submit(values.square, 3).result(SOON) == 9  # in a thread
            gate.open()
            assert [call.result(SOON) for call in calls] == [None] * 3

    def test_a_queued_call_can_be_cancelled(self, gate: Gate, trace: Trace) -> None:
        with InterpreterThreadPoolExecutor(1) as executor, gate:
            call = executor.submit(interpreter(waiting.wait_at), *gate.fds)
            gate.reached_blocking()
            queued = executor.submit(interpreter(waiting.leave_mark), trace.fd)
            assert call.running()
            assert not call.cancel()
            assert queued.cancel()
        assert trace.marks() == b""

    @pytest.mark.parametrize("wait", [True, False])
    def test_shutdown_lets_accepted_calls_finish(self, wait: bool, gate: Gate) -> None:
        executor = InterpreterThreadPoolExecutor(1)
        calls: list[Future[Any]] = [
            executor.submit(interpreter(waiting.wait_at), *gate.fds, "in an interpreter"),
            executor.submit(waiting.wait_at, *gate.fds, "in a thread"),
        ]
        gate.reached_blocking(2)
        if wait:
            opens = threading.Thread(target=gate.open)
            opens.start()
        executor.shutdown(wait)
        assert all(call.done() for call in calls) or not wait
        for function in (tagged.square, values.square):
            with pytest.raises(RuntimeError, match="after shutdown"):
                executor.submit(function, 3)
        gate.open()
        assert [call.result(SOON) for call in calls] == ["in an interpreter", "in a thread"]
        executor.shutdown()

    def test_shutdown_can_cancel_what_is_queued(self, gate: Gate) -> None:
        executor = InterpreterThreadPoolExecutor(1)
        running = [executor.submit(tag(waiting.wait_at), *gate.fds) for tag in (interpreter, id_)]
        gate.reached_blocking(2)
        queued = [executor.submit(function, 3) for function in (tagged.square, values.square)]
        executor.shutdown(wait=False, cancel_futures=True)
        assert all(call.cancelled() for call in queued)
        gate.open()
        assert [call.result(SOON) for call in running] == [None, None]
        executor.shutdown()

    def test_the_initializer_is_called_in_both(self) -> None:
        tagged.places.clear()
        with InterpreterThreadPoolExecutor(1, "mine", tagged.note_place, (1, 2)) as executor:
            assert executor.submit(interpreter(tagged.was_noted)).result()
            assert tagged.places == set()
            executor.submit(tagged.was_noted).result()
            assert tagged.places == {"mine_0"}

    def test_an_initializer_that_fails(self) -> None:
        with InterpreterThreadPoolExecutor(1, initializer=tagged.fail) as executor:
            with pytest.raises(BrokenRunner):
                executor.submit(interpreter(values.square), 3).result()
            with pytest.raises(BrokenExecutor):
                executor.submit(values.square, 3).result()

    def test_it_is_a_thread_pool_executor(self, executor: InterpreterThreadPoolExecutor) -> None:
        assert isinstance(executor, concurrent.futures.ThreadPoolExecutor)
        calls = {executor.submit(tagged.square, n) for n in range(5)}
        calls |= {executor.submit(values.square, n) for n in range(5)}
        done, pending = concurrent.futures.wait(calls, SOON)
        assert (len(done), len(pending)) == (10, 0)

    @pytest.mark.parametrize("number", [0, -1])
    def test_it_has_at_least_one_worker(self, number: int) -> None:
        with pytest.raises(ValueError, match="max_workers"):
            InterpreterThreadPoolExecutor(number)

    def test_an_initializer_that_cannot_be_called(self) -> None:
        with pytest.raises(TypeError, match="initializer"):
            InterpreterThreadPoolExecutor(initializer=5)  # type: ignore[arg-type]


def id_(function: Any) -> Any:
    return function


class TestErrors:
    def test_what_the_function_raises_is_raised(
        self, executor: InterpreterThreadPoolExecutor
    ) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            executor.submit(interpreter(failing.divide_by_zero)).result()
        assert "Traceback" in str(caught.value.__cause__)

    def test_what_cannot_be_sent(self, executor: InterpreterThreadPoolExecutor) -> None:
        with pytest.raises(NotShareableError, match=r"args\[0\]"):
            executor.submit(interpreter(values.echo), threading.Lock()).result()
        with pytest.raises(NotShareableError):
            executor.submit(interpreter(values.lock)).result()

    def test_what_no_interpreter_can_find(
        self, executor: InterpreterThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from aiointerpreters import _pickling

        monkeypatch.setattr(_pickling, "has_cloudpickle", lambda: False)
        with pytest.raises(RunnerError, match="lambda"):
            executor.submit(interpreter(lambda: 1)).result()


class TestTags:
    def test_to_call_it_is_to_call_the_function(self) -> None:
        assert tagged.square(3) == 9
        assert interpreter(values.add)(2, right=5) == 7
        assert tagged.where_tagged() == threading.current_thread().name

    def test_it_looks_like_its_function(self) -> None:
        assert tagged.square.__name__ == "square"
        assert tagged.square.__doc__ == "Square a number."
        assert str(inspect.signature(tagged.square)) == "(number: int) -> int"
        assert repr(interpreter(len)) == "interpreter(fn=<built-in function len>)"

    def test_it_holds_its_function_as_the_original_does(self) -> None:
        match interpreter(len):
            case interpreter(function):
                assert function is len
        assert interpreter(fn=len).fn is len
        assert interpreter(len) == interpreter(len) != interpreter(abs)
        assert interpreter(len) != len
        assert len({interpreter(len), interpreter(len)}) == 1

    @pytest.mark.parametrize("tag", [tagged.square, interpreter(len), interpreter(values.add)])
    def test_it_can_be_pickled(self, tag: Any) -> None:
        assert pickle.loads(pickle.dumps(tag)) == tag

    def test_a_runner_takes_it_as_well(self, call: Callable[..., Any]) -> None:
        assert call(tagged.square, 3) == 9
        assert call(tagged.coroutine_square, 3) == 9
        assert call(interpreter(values.square), 3) == 9
        assert call(values.apply, tagged.square, 3) == 9

    def test_only_functions_can_be_tagged(self) -> None:
        with pytest.raises(TypeError, match=r"interpreter\(\) takes a function, not int"):
            interpreter(5)  # type: ignore[arg-type]


class TestPrograms:
    def test_the_functions_of_a_script(self, program: Program) -> None:
        ended = program("""
            import asyncio
            from aiointerpreters.executors import InterpreterThreadPoolExecutor, interpreter

            @interpreter
            def decorated(n: int) -> int:
                return n * n

            def plain(n: int) -> int:
                return -n

            async def main() -> None:
                InterpreterThreadPoolExecutor().set_as_event_loop_default()
                print(await asyncio.to_thread(decorated, 7))
                print(await asyncio.to_thread(interpreter(plain), 7))
                print(await asyncio.to_thread(plain, 8))

            if __name__ == "__main__":
                asyncio.run(main())
        """)
        ended.assert_fine()
        assert ended.out == "49\n-7\n-8\n"

    def test_one_that_is_never_shut_down(self, program: Program) -> None:
        ended = program("""
            from aiointerpreters.executors import InterpreterThreadPoolExecutor, interpreter
            import time

            def slow():
                time.sleep(0.1)
                return "done"

            if __name__ == "__main__":
                executor = InterpreterThreadPoolExecutor()
                for call in (slow, interpreter(slow)):
                    executor.submit(call).add_done_callback(lambda call: print(call.result()))
        """)
        ended.assert_fine()
        assert ended.out == "done\ndone\n"
