"""The coroutine that run() gives, and what waits for a result: tasks, callbacks, loops."""

import asyncio
import contextvars
import gc
import inspect
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from aiointerpreters import NotShareableError, Runner
from helpers.gate import Gate
from helpers.limits import SOON
from helpers.programs import Program
from workfns import classes, failing, values, waiting


def arrive_together(runner: Runner, count: int) -> list[asyncio.Future[int]]:
    """Results of so many calls that the loop will find at one go, in this order."""
    assert runner.workers == 1
    futures = [runner.submit(values.square, n) for n in range(count)]
    end = time.monotonic() + SOON
    while runner.stats().pending > 0:
        assert time.monotonic() < end
        time.sleep(0.001)
    return futures


@pytest.fixture
def single() -> Iterator[Runner]:
    """A runner whose results come in the order of the calls."""
    with Runner(workers=1) as runner:
        yield runner


class TestTheCoroutine:
    def test_it_is_one_for_asyncio_and_inspect(self, runner: Runner) -> None:
        async def main() -> None:
            coroutine = runner.run(values.square, 3)
            assert isinstance(coroutine, Coroutine)
            assert asyncio.iscoroutine(coroutine)
            assert inspect.isawaitable(coroutine)
            assert not asyncio.isfuture(coroutine)
            assert "Runner.run" in repr(coroutine)
            assert coroutine.__name__ == "run"
            assert await coroutine == 9

        assert inspect.iscoroutinefunction(runner.run)
        assert list(inspect.signature(runner.run).parameters) == ["fn", "args", "kwargs"]
        assert "coroutine" not in (runner.submit.__doc__ or "").splitlines()[0]
        asyncio.run(main())

    @pytest.mark.parametrize("factory", [None, "eager", "python"])
    def test_everything_that_takes_coroutines_takes_it(self, factory: str, runner: Runner) -> None:
        async def main() -> None:
            if factory == "eager":
                asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            elif factory == "python":
                task_type: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
                asyncio.get_running_loop().set_task_factory(
                    lambda loop, coroutine, **options: task_type(coroutine, loop=loop, **options)
                )

            def square(n: int) -> Coroutine[Any, Any, int]:
                return runner.run(values.square, n)

            assert await asyncio.create_task(square(2), name="two") == 4
            assert await asyncio.ensure_future(square(3)) == 9
            assert await asyncio.wait_for(square(4), SOON) == 16
            assert await asyncio.shield(square(5)) == 25
            assert await asyncio.gather(square(6), square(7)) == [36, 49]
            as_completed = asyncio.as_completed([square(1), square(2)])
            assert sorted([await each for each in as_completed]) == [1, 4]
            done, _ = await asyncio.wait([asyncio.create_task(square(8))])
            assert [task.result() for task in done] == [64]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(square(n)) for n in range(100)]
            assert [task.result() for task in tasks] == [n * n for n in range(100)]
            with pytest.raises(ZeroDivisionError):
                await asyncio.create_task(runner.run(failing.divide_by_zero))
            with pytest.raises(NotShareableError):
                await asyncio.create_task(runner.run(values.square, gc))  # type: ignore[arg-type]

        asyncio.run(main())
        assert asyncio.run(runner.run(values.square, 9)) == 81

    @pytest.mark.parametrize(
        "value", [None, (), (1, 2), [3], StopIteration(4), ValueError(5)], ids=repr
    )
    def test_any_result_is_returned_as_it_is(self, value: Any, runner: Runner) -> None:
        async def main() -> None:
            got = await runner.run(values.echo, value)
            assert type(got) is type(value)
            assert getattr(got, "args", got) == getattr(value, "args", value)

        asyncio.run(main())

    def test_stop_iteration_from_a_function_is_a_runtime_error_as_from_any_coroutine(
        self, runner: Runner
    ) -> None:
        async def main() -> None:
            with pytest.raises(RuntimeError) as caught:
                await runner.run(next, iter(()))
            assert isinstance(caught.value.__cause__, StopIteration)

        asyncio.run(main())

    def test_one_that_is_never_awaited_is_warned_of_and_calls_nothing(self, runner: Runner) -> None:
        before = runner.stats().done
        with pytest.warns(RuntimeWarning, match=r"never awaited, so .*square.* was not called"):
            runner.run(values.square, 1)
        runner.run(values.square, 1).close()  # no warning
        assert runner.stats().done == before

    def test_it_can_be_awaited_once(self, runner: Runner, gate: Gate) -> None:
        async def main() -> None:
            coroutine = runner.run(values.square, 3)
            assert await coroutine == 9
            with pytest.raises(RuntimeError, match="already awaited"):
                await coroutine
            running = runner.run(waiting.wait_at, *gate.fds)
            task = asyncio.create_task(running)
            await gate.reached()
            with pytest.raises(RuntimeError, match="being awaited already"):
                await running
            gate.open()
            await task

        asyncio.run(main())

    def test_send_throw_and_close_are_a_coroutines(self, runner: Runner) -> None:
        async def main() -> None:
            with pytest.raises(TypeError, match="just-started"):
                runner.run(values.square, 3).send(1)
            for error in (KeyError("no"), KeyError):
                thrown = runner.run(values.square, 3)
                with pytest.raises(KeyError):
                    thrown.throw(error)  # type: ignore[arg-type]
                with pytest.raises(RuntimeError, match="already awaited"):
                    thrown.send(None)
            running = runner.run(values.square, 3)
            assert running.send(None) is not None
            running.close()
            with pytest.raises(RuntimeError, match="already awaited"):
                running.send(None)

        with pytest.warns(RuntimeWarning, match="never awaited"):
            asyncio.run(main())

    def test_closing_one_that_waits_stops_its_call(self, runner: Runner, gate: Gate) -> None:
        async def main() -> None:
            running = runner.run(waiting.announce_and_spin, gate.fds[0])
            running.send(None)
            await gate.reached()
            running.close()
            async with asyncio.timeout(SOON):
                await runner.drain()

        asyncio.run(main())

    def test_cancelling_its_task_carries_the_message(self, runner: Runner, gate: Gate) -> None:
        async def main() -> None:
            task = asyncio.create_task(runner.run(waiting.wait_at, *gate.fds))
            await gate.reached()
            task.cancel("because")
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert caught.value.args == ("because",)
            gate.open()

        asyncio.run(main())

    def test_it_keeps_no_argument_once_it_runs(self, runner: Runner, gate: Gate) -> None:
        async def main() -> None:
            argument = classes.Point(1, 2)
            gone = weakref.ref(argument)
            task = asyncio.create_task(runner.run(waiting.wait_at, *gate.fds, argument))
            del argument
            await gate.reached()
            assert gone() is None
            gate.open()
            await task

        asyncio.run(main())

    def test_a_subclass_may_have_methods_of_its_own(self) -> None:
        class Counting(Runner):
            calls = 0

            async def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
                self.calls += 1
                return await super().run(fn, *args, **kwargs)

        async def main() -> None:
            async with Counting(workers=1) as runner:
                assert await runner.run(values.square, 3) == 9
                assert await runner.wrap(values.square)(4) == 16
                assert await runner.submit(values.square, 5) == 25
                assert runner.calls == 2

        asyncio.run(main())


class TestCallbacks:
    def test_they_run_in_their_order_and_context(self, runner: Runner) -> None:
        async def main() -> None:
            variable = contextvars.ContextVar("variable", default=0)
            seen: list[tuple[str, int]] = []

            def note(name: str) -> Callable[[Any], None]:
                return lambda _: seen.append((name, variable.get()))

            future = runner.submit(values.square, 3)
            variable.set(1)
            future.add_done_callback(note("first"))
            variable.set(2)
            context = contextvars.copy_context()
            variable.set(3)
            future.add_done_callback(note("second"), context=context)
            removed = note("third")
            future.add_done_callback(removed)
            future.add_done_callback(removed)
            future.add_done_callback(note("fourth"))
            assert future.remove_done_callback(removed) == 2
            assert future.remove_done_callback(removed) == 0
            assert await future == 9
            assert seen == [("first", 1), ("second", 2), ("fourth", 3)]
            future.add_done_callback(note("late"))
            assert len(seen) == 3  # soon, as with any future
            await asyncio.sleep(0)
            assert seen[-1] == ("late", 3)

        asyncio.run(main())

    def test_what_one_raises_is_the_loops_handlers_and_stops_no_other(self, single: Runner) -> None:
        async def main() -> None:
            told: list[dict[str, Any]] = []
            ran: list[int] = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: told.append(context))

            def fail(_: object) -> None:
                raise KeyError("no")

            futures = arrive_together(single, 2)
            for future in futures:
                future.add_done_callback(lambda future: ran.append(future.result()))
                future.add_done_callback(fail)
                future.add_done_callback(lambda future: ran.append(future.result()))
            await asyncio.gather(*futures)
            assert ran == [0, 0, 1, 1]
            assert [type(of["exception"]) for of in told] == [KeyError, KeyError]
            assert all("fail" in of["message"] for of in told)

        asyncio.run(main())

    def test_one_may_cancel_what_has_arrived_with_it(self, single: Runner) -> None:
        async def main() -> None:
            first, second, third = arrive_together(single, 3)
            first.add_done_callback(lambda _: second.cancel())
            assert await first == 0
            with pytest.raises(asyncio.CancelledError):
                await second
            assert await third == 4

        asyncio.run(main())

    @pytest.mark.parametrize("settle", ["set_result", "set_exception"])
    def test_settling_by_hand_calls_them_soon(
        self, settle: str, runner: Runner, gate: Gate
    ) -> None:
        async def main() -> None:
            seen: list[object] = []
            future: asyncio.Future[Any] = runner.submit(waiting.wait_at, *gate.fds)
            await gate.reached()
            future.add_done_callback(seen.append)
            getattr(future, settle)(KeyError())
            assert not seen
            assert future.cancel() is False
            await asyncio.sleep(0)
            assert seen == [future]
            assert isinstance(future.exception() or future.result(), KeyError)
            future.add_done_callback(seen.append)
            await asyncio.sleep(0)
            assert seen == [future, future]
            gate.open()
            await runner.drain()  # its own result is dropped

        asyncio.run(main())

    def test_they_are_shown(self, runner: Runner, gate: Gate) -> None:
        async def main() -> None:
            future = runner.submit(waiting.wait_at, *gate.fds)
            assert "cb=" not in repr(future)
            future.add_done_callback(gc.collect)
            assert "cb=[collect()" in repr(future)
            gate.open()
            await future

        asyncio.run(main())

    def test_a_long_chain_of_calls_in_callbacks_needs_no_stack(self, runner: Runner) -> None:
        async def main() -> None:
            count = 10_000
            end = asyncio.get_running_loop().create_future()

            def go_on(future: asyncio.Future[int] | None) -> None:
                nonlocal count
                count -= 1
                if count == 0:
                    end.set_result(None)
                else:
                    runner.submit(values.square, 3).add_done_callback(go_on)

            go_on(None)
            async with asyncio.timeout(10 * SOON):
                await end

        asyncio.run(main())

    def test_a_loop_that_runs_within_one_delivers_the_others(self, single: Runner) -> None:
        """As nest_asyncio does in notebooks."""

        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            first, second, third = arrive_together(single, 3)
            later: list[int] = []

            def run_loop(_: object) -> None:
                another = single.submit(values.square, 7)
                end = time.monotonic() + SOON
                while not (third.done() and another.done()):
                    assert time.monotonic() < end
                    loop._run_once()
                later.extend((second.result(), third.result(), another.result()))

            first.add_done_callback(run_loop)
            assert await first == 0
            assert later == [1, 4, 49]

        asyncio.run(main())

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
    def test_what_ends_the_loop_leaves_the_rest_to_its_next_run(
        self, error: type[BaseException], single: Runner
    ) -> None:
        def end(_: object) -> None:
            raise error

        async def begin() -> None:
            futures.extend(arrive_together(single, 3))
            futures[0].add_done_callback(end)
            futures[0].add_done_callback(after.append)
            await futures[2]

        async def go_on() -> None:
            assert await asyncio.gather(*futures) == [0, 1, 4]
            assert after == [futures[0]]

        futures: list[asyncio.Future[int]] = []
        after: list[object] = []
        with asyncio.Runner() as own:
            with pytest.raises(error):
                own.get_loop().run_until_complete(begin())
            assert [future.done() for future in futures] == [True, False, False]
            own.run(go_on())

    def test_those_of_a_loop_that_was_closed_are_dropped(self, program: Program) -> None:
        program(
            """
            import asyncio, gc, weakref
            from aiointerpreters import Runner
            from workfns import values

            class Callback:
                def __call__(self, future):
                    print("called")

            async def main():
                callback = Callback()
                runner.submit(values.square, 3).add_done_callback(callback)
                return weakref.ref(callback)

            with Runner(workers=1) as runner:
                callback = asyncio.run(main())
            gc.collect()
            assert callback() is None
            """
        ).assert_fine()
