"""`Runner.stream`: iterate here over a generator that runs in a worker."""

import asyncio
import functools
import gc
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aiointerpreters import InterpreterError, NotShareableError, Queue, Runner, RunnerError
from helpers.gate import Gate, Trace
from helpers.limits import SOON
from helpers.programs import Program
from workfns import classes, failing, streams, values, waiting

BUFFER = 128

#: For runners in which nothing gets stuck: a limit passes only where an interruption is missing.
PATIENT: Any = {"grace_period": 2 * SOON}


async def settle() -> None:
    """Let every callback that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def collect[T](iterator: AsyncIterator[T]) -> list[T]:
    return [item async for item in iterator]


async def soon[T](awaitable: Any) -> Any:
    async with asyncio.timeout(SOON):
        return await awaitable


def run_in_a_careless_loop(main: Coroutine[Any, Any, Any]) -> Any:
    """As asyncio.run(), but close nothing before the loop."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


@asynccontextmanager
async def closing_soon[T](stream: T) -> AsyncIterator[T]:
    try:
        yield stream
    finally:
        await soon(stream.aclose())  # type: ignore[attr-defined]


def pending(runner: Runner) -> int:
    """How many calls are queued or running."""
    assert runner._pool is not None
    return runner._pool.pending


@pytest.fixture(autouse=True)
def _watch(silent: Callable[[], None]) -> None:
    """Every test ends by collecting garbage, of which nothing may complain."""


class TestItems:
    @pytest.mark.parametrize("count", [0, 1, BUFFER - 1, BUFFER, BUFFER + 1, 10_000])
    def test_they_come_in_their_order(
        self, runner: Runner, count: int, silent: Callable[[], None]
    ) -> None:
        async def main() -> list[int]:
            silent()
            return await collect(runner.stream(streams.numbers, count))

        assert asyncio.run(main()) == list(range(count))

    def test_of_anything_that_can_be_iterated_over(self, runner: Runner) -> None:
        async def main() -> None:
            assert await collect(runner.stream(streams.letters, "abc")) == ["a", "b", "c"]
            assert await collect(runner.stream(range, 3)) == [0, 1, 2]
            assert await collect(runner.stream(zip, "ab", (1, 2))) == [("a", 1), ("b", 2)]

        asyncio.run(main())

    def test_arguments_go_to_the_function_whatever_they_are_called(self, runner: Runner) -> None:
        async def main() -> None:
            kwargs = {name: name for name in ("fn", "self", "buffer", "timeout", "items", "gate")}
            got = await collect(runner.stream(streams.words, 1, [2], **kwargs))
            assert got == [(1, [2]), kwargs]
            partial = functools.partial(streams.words, 1, buffer=2, kept=3)
            assert await collect(runner.stream(partial, 4, buffer=5)) == [
                (1, 4),
                {"buffer": 5, "kept": 3},
            ]

        asyncio.run(main())

    def test_a_lambda_and_a_local_generator(self, runner: Runner) -> None:
        pytest.importorskip("cloudpickle")

        def local(count: int) -> Any:
            yield from range(count)

        async def main() -> None:
            assert await collect(runner.stream(local, 3)) == [0, 1, 2]
            assert await collect(runner.stream(lambda: "ab")) == ["a", "b"]

        asyncio.run(main())

    def test_an_item_is_there_before_the_next_one_is_made(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                numbers = runner.stream(streams.gated, *gate.fds, 3, 2)
                assert [await soon(anext(numbers)) for _ in range(3)] == [0, 1, 2]
                await gate.reached()
                gate.open()
                assert await collect(numbers) == [3, 4]

        asyncio.run(main())

    def test_large_items(self, runner: Runner) -> None:
        async def main() -> None:
            size = 200_000
            few = runner.options(buffer=3)
            number = 0
            async for blob in few.stream(streams.blobs, size, 50):
                assert blob == bytes([number]) * size
                number += 1
            assert number == 50

        asyncio.run(main())

    def test_several_at_a_time(self, runner: Runner) -> None:
        async def main() -> None:
            counts = [3_000, 2_000, 1_000, 10, 0]
            got = await asyncio.gather(
                *(collect(runner.stream(streams.numbers, count)) for count in counts)
            )
            assert got == [list(range(count)) for count in counts]

        asyncio.run(main())

    def test_after_the_end_there_is_nothing_more(self, runner: Runner) -> None:
        async def main() -> None:
            numbers = runner.stream(streams.numbers, 2)
            assert await collect(numbers) == [0, 1]
            assert await collect(numbers) == []
            await numbers.aclose()

        asyncio.run(main())

    def test_a_fast_generator_leaves_the_loop_to_others(self, runner: Runner) -> None:
        async def main() -> None:
            turns = 0

            async def others() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            other = asyncio.create_task(others())
            items = 0
            async for _ in runner.stream(streams.numbers, 20_000):
                items += 1
                assert turns >= items // BUFFER - 1
            other.cancel()

        asyncio.run(main())


class TestBounds:
    @pytest.mark.parametrize("buffer", [None, 1, 7])
    def test_the_generator_waits_for_its_consumer(self, trace: Trace, buffer: int | None) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                view = runner if buffer is None else runner.options(buffer=buffer)
                limit = BUFFER if buffer is None else buffer
                made = consumed = 0
                async for _ in view.stream(streams.counted, trace.fd, 500):
                    consumed += 1
                    made += len(trace.marks())
                    # One more is in the generator's hands.
                    assert made <= consumed + limit + 1
                assert made + len(trace.marks()) == consumed == 500

        asyncio.run(main())

    def test_nothing_runs_before_the_first_item_is_asked_for(
        self, runner: Runner, trace: Trace
    ) -> None:
        async def main() -> None:
            numbers = runner.stream(streams.counted, trace.fd, 3)
            await settle()
            await numbers.aclose()
            assert await collect(numbers) == []
            await runner.drain()
            assert trace.marks() == b""

        asyncio.run(main())


class TestErrors:
    def test_an_error_comes_after_the_items_before_it(
        self, runner: Runner, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            for count in (0, 1, BUFFER, 1_000):
                numbers = runner.stream(streams.failing_after, count)
                got = []
                with pytest.raises(LookupError, match="after the items"):
                    async for number in numbers:
                        got.append(number)
                assert got == list(range(count))
                assert await collect(numbers) == []

        asyncio.run(main())

    def test_an_item_that_cannot_be_sent_is_named_and_closes_the_generator(
        self, runner: Runner, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            items = runner.stream(streams.unsendable_after, trace.fd, 3)
            got = []
            with pytest.raises(NotShareableError, match=r"^item\['key'\]\[1\]: generator"):
                async for item in items:
                    got.append(item)
            assert got == [0, 1, 2]
            assert trace.marks() == b"f"

        asyncio.run(main())

    def test_an_item_that_cannot_be_rebuilt_ends_it(self, runner: Runner) -> None:
        async def main() -> None:
            items = runner.stream(streams.unbuildable)
            assert await anext(items) == 1
            with pytest.raises(LookupError, match="refuses to be rebuilt"):
                await anext(items)
            assert await collect(items) == []
            await items.aclose()

        asyncio.run(main())

    def test_an_argument_that_cannot_be_sent_is_named(self, runner: Runner) -> None:
        async def main() -> None:
            with pytest.raises(NotShareableError, match="lock cannot be sent"):
                await anext(runner.stream(streams.words, threading.Lock()))

        asyncio.run(main())

    def test_what_cannot_be_iterated_over_is_an_error(self, runner: Runner) -> None:
        async def main() -> None:
            with pytest.raises(TypeError, match="'int' object is not iterable"):
                await anext(runner.stream(streams.nothing_to_iterate_over))  # type: ignore[type-var]
            with pytest.raises(ZeroDivisionError):
                await anext(runner.stream(failing.divide_by_zero))  # type: ignore[type-var]

        asyncio.run(main())

    @pytest.mark.parametrize(
        ("raised", "kind"),
        [
            (StopAsyncIteration("no end"), RuntimeError),
            (StopIteration("no end"), RuntimeError),
            (SystemExit(3), InterpreterError),
            (failing.Own("of the user's own"), failing.Own),
        ],
        ids=lambda case: getattr(case, "__name__", type(case).__name__),
    )
    def test_of_any_kind(self, runner: Runner, raised: Any, kind: type[Exception]) -> None:
        async def main() -> None:
            items = runner.stream(streams.raising, raised)
            assert await anext(items) == 0
            with pytest.raises(kind):
                await anext(items)

        asyncio.run(main())

    def test_a_function_that_no_worker_finds_is_refused_at_the_call(
        self, runner: Runner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "cloudpickle", None)
        with pytest.raises(RunnerError, match="lambda"):
            runner.stream(lambda: [1])

    def test_an_unstarted_and_a_closed_runner_say_so(self) -> None:
        async def main() -> None:
            runner = Runner(workers=1)
            with pytest.raises(RunnerError, match="not started"):
                await anext(runner.stream(streams.numbers, 1))
            async with runner:
                pass
            with pytest.raises(RunnerError, match="closed"):
                await anext(runner.stream(streams.numbers, 1))

        asyncio.run(main())

    def test_it_may_be_made_before_the_runner_is_started(self) -> None:
        async def main() -> None:
            runner = Runner(workers=1)
            numbers = runner.stream(streams.numbers, 2)
            async with runner:
                assert await collect(numbers) == [0, 1]

        asyncio.run(main())


class TestClosing:
    def test_aclose_returns_when_the_generator_is_closed(
        self, trace: Trace, silent: Callable[[], None]
    ) -> None:
        """Be it in its own code, or in the wait for room."""

        async def main() -> None:
            silent()
            async with Runner(workers=1, **PATIENT) as runner:
                for consumed in (1, BUFFER, 1_000):
                    async with closing_soon(runner.stream(streams.endless, trace.fd)) as numbers:
                        for number in range(consumed):
                            assert await anext(numbers) == number
                        assert trace.marks() == b""
                    assert trace.marks() == b"f"
                    assert await collect(numbers) == []
                    assert await runner.run(values.square, 3) == 9

        asyncio.run(main())

    def test_a_long_finally_runs_once_and_to_its_end(self, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(workers=1, **PATIENT) as runner:
                for buffer in (1, 100):
                    view = runner.options(buffer=buffer)
                    async with closing_soon(
                        view.stream(streams.slowly_guarded, trace.fd, 10**9)
                    ) as numbers:
                        assert await anext(numbers) == 0
                    assert trace.marks() == b"()"

        asyncio.run(main())

    def test_a_generator_that_computes_is_interrupted(self, trace: Trace, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1, **PATIENT) as runner:
                numbers = runner.stream(streams.spin_after, trace.fd, gate.fds[0], 2)
                assert [await anext(numbers), await anext(numbers)] == [0, 1]
                await gate.reached()
                await soon(numbers.aclose())
                assert trace.marks() == b"f"
                assert await soon(runner.run(values.square, 3)) == 9

        asyncio.run(main())

    def test_break_closes_the_generator(self, trace: Trace, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, **PATIENT) as runner:
                async for number in runner.stream(streams.endless, trace.fd):
                    if number == 10:
                        break
                assert await soon(runner.run(values.square, 3)) == 9
                assert trace.marks() == b"f"

        asyncio.run(main())

    @pytest.mark.parametrize("buffer", [1, 100])
    def test_a_cancelled_consumer_closes_the_generator(
        self, trace: Trace, gate: Gate, buffer: int, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, **PATIENT) as runner:
                numbers = runner.options(buffer=buffer).stream(
                    streams.spin_after, trace.fd, gate.fds[0], 3
                )
                consumer = asyncio.create_task(collect(numbers))
                await gate.reached()
                await settle()
                consumer.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await consumer
                assert await collect(numbers) == []
                await soon(numbers.aclose())
                assert trace.marks() == b"f"

        asyncio.run(main())

    def test_a_custom_iterators_close_is_called(self, trace: Trace) -> None:
        async def main() -> None:
            async with Runner(workers=1, **PATIENT) as runner:
                async with closing_soon(runner.stream(streams.closeable, trace.fd)) as numbers:
                    assert await anext(numbers) == 1
                assert trace.marks() == b"c"

        asyncio.run(main())

    def test_at_its_end_too(self, runner: Runner, trace: Trace) -> None:
        async def main() -> None:
            await collect(runner.stream(streams.guarded, trace.fd, 5))
            assert trace.marks() == b"f"

        asyncio.run(main())

    def test_in_uvloop(self, trace: Trace) -> None:
        uvloop = pytest.importorskip("uvloop")

        async def main() -> None:
            async with Runner(workers=1, **PATIENT) as runner:
                assert await collect(runner.stream(streams.numbers, 500)) == list(range(500))
                for consumed in (1, 500):
                    async with closing_soon(runner.stream(streams.endless, trace.fd)) as numbers:
                        for number in range(consumed):
                            assert await anext(numbers) == number
                    assert trace.marks() == b"f"

        uvloop.run(main())

    def test_what_no_worker_has_begun_never_begins(
        self, gate: Gate, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, **PATIENT) as runner, gate:
                held = runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                numbers = runner.stream(streams.counted, trace.fd, 3)
                first = asyncio.ensure_future(anext(numbers))
                await settle()
                assert pending(runner) == 2
                first.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await first
                assert pending(runner) == 1
                await numbers.aclose()  # there is nothing to wait for
                assert not held.done()
                gate.open()
                await held
            assert trace.marks() == b""

        asyncio.run(main())

    def test_closing_as_it_begins_never_leaves_it_half_begun(self, trace: Trace) -> None:
        """At any moment: when aclose() returns it has been closed, or it never begins."""

        async def main() -> None:
            async with Runner(workers=2, **PATIENT) as runner:
                for turns in range(200):
                    numbers = runner.stream(streams.guarded, trace.fd, 3)
                    first = asyncio.ensure_future(anext(numbers))
                    for _ in range(turns % 20):
                        await asyncio.sleep(0)
                    first.cancel()
                    await asyncio.wait([first])
                    await numbers.aclose()
                    ended = len(trace.marks())
                    await runner.drain()
                    assert trace.marks() == b""
                    assert ended <= 1

        asyncio.run(main())

    def test_all_that_was_sent_is_closed_when_the_runner_stops(
        self, trace: Trace, gate: Gate
    ) -> None:
        async def main() -> None:
            with pytest.raises(LookupError, match="leave"):
                async with Runner(workers=2, **PATIENT) as runner:
                    full = runner.stream(streams.endless, trace.fd)
                    busy = runner.stream(streams.spin_after, trace.fd, gate.fds[0], 1)
                    assert await anext(full) == await anext(busy) == 0
                    waiting_for_more = asyncio.ensure_future(anext(busy))
                    await gate.reached()
                    raise LookupError("leave")
            assert trace.marks() == b"ff"
            with pytest.raises(asyncio.CancelledError):
                await waiting_for_more
            with pytest.raises(asyncio.CancelledError):
                await collect(full)

        asyncio.run(main())

    def test_it_may_be_dropped_in_another_thread(
        self, trace: Trace, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1, **PATIENT) as runner:
                held = [runner.stream(streams.endless, trace.fd)]
                assert await anext(held[0]) == 0
                await asyncio.to_thread(held.clear)
                assert await soon(runner.run(values.square, 3)) == 9
                assert trace.marks() == b"f"

        asyncio.run(main(), debug=True)

    @pytest.mark.parametrize("max_pending", [None, 3])
    @pytest.mark.parametrize("thread", ["its own thread", "another"])
    def test_it_may_be_dropped_after_its_loop(
        self, trace: Trace, thread: str, max_pending: int | None
    ) -> None:
        async def main(runner: Runner) -> Any:
            numbers = runner.stream(streams.endless, trace.fd)
            assert await anext(numbers) == 0
            return numbers

        with Runner(workers=1, max_pending=max_pending, **PATIENT).start() as runner:
            held = [run_in_a_careless_loop(main(runner))]
            if thread == "another":
                dropping = threading.Thread(target=held.clear)
                dropping.start()
                dropping.join(SOON)
            held.clear()
            gc.collect()
            assert asyncio.run(soon(runner.run(values.square, 3))) == 9
        assert trace.marks() == b"f"

    def test_it_may_be_dropped_when_its_loop_has_been_forgotten(self, trace: Trace) -> None:
        """By the runner, as it is when another loop comes: then the call can't be interrupted."""

        async def main(runner: Runner) -> Any:
            numbers = runner.stream(streams.endless, trace.fd)
            assert await anext(numbers) == 0
            return numbers

        with Runner(workers=2, **PATIENT).start() as runner:
            numbers = run_in_a_careless_loop(main(runner))
            assert asyncio.run(runner.run(values.square, 3)) == 9
            del numbers
        assert trace.marks() == b"f"

    def test_asyncio_run_closes_what_is_left_open(self, trace: Trace) -> None:
        """As it does asynchronous generators."""

        async def main(runner: Runner) -> Any:
            numbers = runner.stream(streams.endless, trace.fd)
            assert await anext(numbers) == 0
            return numbers

        with Runner(workers=1, **PATIENT).start() as runner:
            numbers = asyncio.run(main(runner))
            assert trace.marks() == b"f"
            assert asyncio.run(collect(numbers)) == []

    def test_one_task_at_a_time_may_wait_for_it(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1, **PATIENT) as runner, gate:
                numbers = runner.stream(streams.gated, *gate.fds, 0, 1)
                first = asyncio.ensure_future(anext(numbers))
                await gate.reached()
                with pytest.raises(RuntimeError, match="another task"):
                    await anext(numbers)
                with pytest.raises(RuntimeError, match="a task waits"):
                    await numbers.aclose()
                gate.open()
                assert await first == 0

        asyncio.run(main())


class TestAsynchronous:
    """Of an asynchronous generator function, which runs in the worker's event loop."""

    @pytest.mark.parametrize("count", [0, 1, BUFFER + 1, 2_000])
    def test_items_come_in_their_order(self, runner: Runner, count: int) -> None:
        async def main() -> list[int]:
            return await collect(runner.stream(streams.asynchronous, count))

        assert asyncio.run(main()) == list(range(count))

    def test_many_share_a_worker(self, trace: Trace, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1, **PATIENT) as runner:
                waiting = [
                    runner.stream(streams.asynchronous_guarded, trace.fd, gate.fds[0], 1)
                    for _ in range(5)
                ]
                for numbers in waiting:
                    assert await soon(anext(numbers)) == 0
                await gate.reached(5)
                assert await soon(collect(runner.stream(streams.asynchronous, 3))) == [0, 1, 2]
                for numbers in waiting:
                    assert trace.marks() == b""
                    await soon(numbers.aclose())
                    assert trace.marks() == b"()"

        asyncio.run(main())

    @pytest.mark.parametrize("buffer", [1, 100])
    def test_closing_closes_the_generator(
        self, trace: Trace, gate: Gate, buffer: int, silent: Callable[[], None]
    ) -> None:
        """In its wait for room, or in its own."""

        async def main() -> None:
            silent()
            async with Runner(workers=1, **PATIENT) as runner:
                view = runner.options(buffer=buffer)
                arguments = (trace.fd, gate.fds[0], 50)
                async with closing_soon(
                    view.stream(streams.asynchronous_guarded, *arguments)
                ) as numbers:
                    assert await anext(numbers) == 0
                assert trace.marks() == b"()"
                async for _ in view.stream(streams.asynchronous_guarded, *arguments):
                    break
                await soon(runner.drain())
                assert trace.marks() == b"()"

        asyncio.run(main())

    def test_an_item_that_cannot_be_sent_closes_it(self, runner: Runner, trace: Trace) -> None:
        async def main() -> None:
            items = runner.stream(streams.asynchronous_failing_after, trace.fd, 2)
            assert [await anext(items), await anext(items)] == [0, 1]
            with pytest.raises(NotShareableError, match=r"^item\['key'\]: generator"):
                await anext(items)
            assert trace.marks() == b"f"

        asyncio.run(main())


class TestMainScript:
    def test_generators_of_the_main_script(self, program: Program) -> None:
        program(
            """
            import asyncio
            from aiointerpreters import Runner

            def rows(count):
                yield from range(count)

            async def ticks(count):
                for number in range(count):
                    yield number

            async def main():
                async with Runner(workers=1) as runner:
                    for function in (rows, ticks):
                        print([item async for item in runner.stream(function, 3)])

            if __name__ == "__main__":
                asyncio.run(main())
            """
        ).assert_fine()

    def test_a_program_may_end_with_streams_and_maps_that_nobody_closed(
        self, program: Program
    ) -> None:
        program(
            """
            import asyncio, itertools
            from aiointerpreters import Runner

            runner = Runner(workers=2)

            async def numbers():
                for number in itertools.count():
                    yield number

            async def main():
                global kept
                runner.start()
                kept = [
                    runner.stream(itertools.count),
                    runner.map(abs, itertools.count()),
                    runner.map(abs, numbers(), ordered=False),
                ]
                for iterator in kept:
                    print(await anext(iterator))

            if __name__ == "__main__":
                asyncio.run(main())
            """,
            flags=("-W", "ignore::ResourceWarning"),
        ).assert_ended()


class TestMemory:
    def test_items_that_nobody_took_are_let_go(self) -> None:
        """And with them what they lend: a worker whose memory is in use would not end."""

        async def main() -> None:
            async with Runner(workers=1, **PATIENT) as runner:
                numbers = runner.options(buffer=4).stream(streams.blobs, 200_000, 4)
                assert await anext(numbers) == bytes(200_000)
                await runner.drain()
                await numbers.aclose()
                assert numbers._items.qsize() == 0

        asyncio.run(main())

    def test_a_stream_of_queues(self, runner: Runner) -> None:
        async def main() -> None:
            queue = Queue[Any]()
            (got,) = await collect(runner.stream(streams.letters, [queue]))  # type: ignore[arg-type]
            assert got == queue
            points = await collect(runner.stream(streams.letters, [classes.Point(1, 2)]))  # type: ignore[arg-type]
            assert points == [classes.Point(1, 2)]

        asyncio.run(main())
