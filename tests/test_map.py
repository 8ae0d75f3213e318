"""`Runner.map`: all items through one function, a bounded number of them at a time."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from aiointerpreters import NotShareableError, Runner, RunnerError
from helpers.gate import Gate, Trace
from helpers.limits import SOON
from helpers.process import until
from workfns import failing, values, waiting


async def settle() -> None:
    """Let every callback that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def collect[T](iterator: AsyncIterator[T]) -> list[T]:
    return [item async for item in iterator]


def pending(runner: Runner) -> int:
    """How many calls are queued or running."""
    assert runner._pool is not None
    return runner._pool.pending


class Source:
    """A synchronous input that counts what is pulled, and knows whether it was closed."""

    def __init__(self, items: Iterable[Any], error: BaseException | None = None) -> None:
        self.items = items
        self.error = error
        self.pulled = 0
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        try:
            for item in self.items:
                self.pulled += 1
                yield item
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


class AsyncSource(Source):
    """Asynchronous, too; at the item `stop` it waits for ever."""

    def __init__(
        self, items: Iterable[Any], error: BaseException | None = None, stop: Any = None
    ) -> None:
        super().__init__(items, error)
        self.stop = stop

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                await asyncio.sleep(0)
                if self.stop is not None and item == self.stop:
                    await asyncio.get_running_loop().create_future()
                self.pulled += 1
                yield item
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


class OnlyAsync:
    """The same without `__iter__`."""

    def __init__(self, source: AsyncSource) -> None:
        self.source = source

    def __aiter__(self) -> AsyncIterator[Any]:
        return aiter(self.source)


@pytest.fixture(params=["synchronous", "asynchronous"])
def source(request: pytest.FixtureRequest) -> type[Source]:
    """Either kind of input."""
    return Source if request.param == "synchronous" else AsyncSource


@pytest.fixture(params=[True, False], ids=["ordered", "unordered"])
def ordered(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(autouse=True)
def _watch(silent: Callable[[], None]) -> None:
    """Every test ends by collecting garbage, of which nothing may complain."""


class TestResults:
    def test_they_come_in_the_order_of_the_input(
        self, runner: Runner, source: type[Source], silent: Callable[[], None]
    ) -> None:
        async def main() -> list[int]:
            silent()
            return await collect(runner.map(values.square, source(range(1_000))))

        assert asyncio.run(main()) == [n * n for n in range(1_000)]

    def test_unordered_all_of_them_come_once(
        self, runner: Runner, source: type[Source], silent: Callable[[], None]
    ) -> None:
        async def main() -> list[int]:
            silent()
            mapped = runner.map(values.square, source(range(1_000)), ordered=False)
            return sorted(await collect(mapped))

        assert asyncio.run(main()) == [n * n for n in range(1_000)]

    def test_several_iterables_give_an_argument_each_and_the_shortest_ends(
        self, runner: Runner, ordered: bool
    ) -> None:
        async def main() -> None:
            inputs: list[tuple[Any, Any]] = [
                (range(3), [10, 20, 30, 40]),
                (range(30), iter([10, 20, 30])),
                (AsyncSource(range(30)), (10, 20, 30)),
                (OnlyAsync(AsyncSource(range(3))), AsyncSource(range(10, 99, 10))),
            ]
            for left, right in inputs:
                mapped = runner.map(values.add, left, right, ordered=ordered)
                assert sorted(await collect(mapped)) == [10, 21, 32]

        asyncio.run(main())

    @pytest.mark.parametrize("concurrency", [1, 2, 3, 100, None])
    def test_with_any_concurrency(
        self, runner: Runner, concurrency: int | None, source: type[Source], ordered: bool
    ) -> None:
        async def main() -> list[int]:
            mapped = runner.map(
                values.square, source(range(50)), concurrency=concurrency, ordered=ordered
            )
            return sorted(await collect(mapped))

        assert asyncio.run(main()) == [n * n for n in range(50)]

    def test_of_nothing_there_are_none(
        self, runner: Runner, source: type[Source], ordered: bool
    ) -> None:
        async def main() -> None:
            assert await collect(runner.map(values.square, source(()), ordered=ordered)) == []
            one_empty = runner.map(values.add, source(range(3)), source(()), ordered=ordered)
            assert await collect(one_empty) == []

        asyncio.run(main())

    def test_unordered_the_first_to_be_done_comes_first(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=2) as runner, gate:
                calls = [(waiting.wait_at, (*gate.fds, "held")), (values.square, (3,))]
                mapped = runner.map(values.apply_all, *zip(*calls, strict=True), ordered=False)
                assert await anext(mapped) == 9
                gate.open()
                assert await anext(mapped) == "held"
                with pytest.raises(StopAsyncIteration):
                    await anext(mapped)

        asyncio.run(main())

    def test_ordered_what_is_done_first_waits_for_its_turn(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=2) as runner, gate:
                calls = [(waiting.wait_at, (*gate.fds, "held")), (values.square, (3,))]
                mapped = runner.map(values.apply_all, *zip(*calls, strict=True))
                first = asyncio.ensure_future(anext(mapped))
                await gate.reached()
                assert await until(lambda: pending(runner) == 1)
                await settle()
                assert not first.done()
                gate.open()
                assert await first == "held"
                assert await anext(mapped) == 9

        asyncio.run(main())

    def test_in_uvloop(self, runner: Runner, source: type[Source], ordered: bool) -> None:
        uvloop = pytest.importorskip("uvloop")

        async def main() -> None:
            mapped = runner.map(values.square, source(range(100)), ordered=ordered)
            assert sorted(await collect(mapped)) == [n * n for n in range(100)]
            numbers = source(range(1_000))
            async for _ in runner.map(values.square, numbers, ordered=ordered):
                break
            assert await until(lambda: numbers.closed == 1)

        uvloop.run(main())

    def test_after_the_end_there_is_nothing_more(self, runner: Runner, ordered: bool) -> None:
        async def main() -> None:
            mapped = runner.map(values.square, [3], ordered=ordered)
            assert await collect(mapped) == [9]
            assert await collect(mapped) == []

        asyncio.run(main())


class TestBounds:
    @pytest.mark.parametrize("concurrency", [1, 5, None])
    def test_input_is_pulled_only_as_fast_as_results_are_consumed(
        self, runner: Runner, concurrency: int | None, source: type[Source], ordered: bool
    ) -> None:
        async def main() -> None:
            numbers = source(range(1_000))
            mapped = runner.map(values.square, numbers, concurrency=concurrency, ordered=ordered)
            # Of calls so short, more are accepted by default.
            limit = concurrency or (512 if source is Source else 16)
            consumed = 0
            async with aclosing(mapped):
                async for _ in mapped:
                    consumed += 1
                    # One more may be at hand: pulled, and not accepted yet.
                    assert numbers.pulled <= consumed + limit
                    if consumed % 50 == 0:
                        await runner.drain()
                        await settle()
                        assert numbers.pulled <= consumed + limit
            assert consumed == 1_000

        asyncio.run(main())

    def test_slow_calls_are_accepted_up_to_the_bound(self, runner: Runner, ordered: bool) -> None:
        """Once it is known that they are slow, and need not travel together."""

        async def main() -> None:
            pauses = Source([0.001] * 200)
            mapped = runner.map(waiting.pause, pauses, concurrency=100, ordered=ordered)
            async with aclosing(mapped):
                for _ in range(3):
                    await anext(mapped)
                assert 100 <= pauses.pulled <= 103

        asyncio.run(main())

    def test_so_many_run_at_a_time_and_no_more(self, gate: Gate, ordered: bool) -> None:
        async def main() -> None:
            async with Runner(workers=4) as runner, gate:
                mapped = runner.map(
                    waiting.wait_at, [gate.fds[0]] * 9, [gate.fds[1]] * 9, concurrency=3,
                    ordered=ordered,
                )  # fmt: skip
                async with aclosing(mapped):
                    first = asyncio.ensure_future(anext(mapped))
                    await gate.reached(3)
                    assert pending(runner) == 3
                    gate.open()
                    assert await first is None
                    assert await collect(mapped) == [None] * 8

        asyncio.run(main())

    def test_by_default_twice_the_workers_but_at_least_sixteen(self, gate: Gate) -> None:
        async def main(workers: int, expected: int) -> None:
            async with Runner(workers=workers) as runner:
                with Gate() as gate:
                    numbers = Source(range(1_000))
                    fds = [gate.fds[0]] * 1_000, [gate.fds[1]] * 1_000
                    mapped = runner.map(waiting.wait_at, *fds, numbers)
                    first = asyncio.ensure_future(anext(mapped))
                    await gate.reached()
                    assert numbers.pulled == expected
                    gate.open()
                    await first
                    await mapped.aclose()

        asyncio.run(main(1, 16))
        asyncio.run(main(9, 18))

    def test_nothing_is_begun_before_the_first_result_is_asked_for(
        self, runner: Runner, source: type[Source]
    ) -> None:
        async def main() -> None:
            numbers = source(range(3))
            mapped = runner.map(values.square, numbers)
            await settle()
            assert numbers.pulled == 0
            await mapped.aclose()
            assert numbers.pulled == 0
            assert await collect(mapped) == []

        asyncio.run(main())

    def test_a_slow_input_does_not_hold_results_back(self, runner: Runner, ordered: bool) -> None:
        async def main() -> None:
            numbers = AsyncSource(range(10), stop=4)
            mapped = runner.map(values.square, numbers, ordered=ordered)
            async with aclosing(mapped):
                async with asyncio.timeout(SOON):
                    assert sorted([await anext(mapped) for _ in range(4)]) == [0, 1, 4, 9]
            assert numbers.closed == 1

        asyncio.run(main())

    def test_a_slow_consumer_leaves_the_loop_to_others(self, runner: Runner) -> None:
        async def main() -> None:
            turns = 0

            async def others() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            other = asyncio.create_task(others())
            await collect(runner.map(values.square, range(20_000)))
            assert turns > 10
            other.cancel()

        asyncio.run(main())


class TestErrors:
    def test_an_error_of_a_call_comes_at_its_place(
        self, runner: Runner, source: type[Source], silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            numbers = source([values.square] * 5 + [failing.throw] + [values.square] * 500)
            errors = [*range(5), LookupError("the sixth"), *range(500)]
            mapped = runner.map(values.apply, numbers, errors)
            got = []
            with pytest.raises(LookupError, match="the sixth"):
                async for result in mapped:
                    got.append(result)
            assert got == [0, 1, 4, 9, 16]
            assert await collect(mapped) == []
            assert numbers.closed == 1
            assert numbers.pulled < 50

        asyncio.run(main())

    def test_unordered_an_error_comes_when_it_is_there(
        self, gate: Gate, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner, gate:
                calls = [(waiting.wait_at, gate.fds), (failing.throw, (LookupError("quick"),))]
                mapped = runner.map(values.apply_all, *zip(*calls, strict=True), ordered=False)
                with pytest.raises(LookupError, match="quick"):
                    await anext(mapped)
                gate.open()
                assert await collect(mapped) == []

        asyncio.run(main())

    def test_after_an_error_what_is_queued_is_taken_back(
        self, gate: Gate, trace: Trace, ordered: bool, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner, gate:
                calls: list[Any] = [
                    (waiting.fail_after, gate.fds),
                    *[(waiting.mark_and_wait, (trace.fd, b".", *second.fds))] * 10,
                ]
                mapped = runner.map(values.apply_all, *zip(*calls, strict=True), ordered=ordered)
                first = asyncio.ensure_future(anext(mapped))
                await gate.reached()
                await second.reached()
                assert pending(runner) == 11
                gate.open()
                with pytest.raises(ValueError, match="after the gate"):
                    await first
                assert pending(runner) <= 2  # what runs
                second.open()
            assert len(trace.marks()) <= 2

        with Gate() as second:
            asyncio.run(main())

    def test_an_error_of_the_input_comes_after_the_results_before_it(
        self, runner: Runner, source: type[Source], ordered: bool
    ) -> None:
        async def main() -> None:
            numbers = source(range(100), LookupError("of the input"))
            mapped = runner.map(values.square, numbers, ordered=ordered)
            got = []
            with pytest.raises(LookupError, match="of the input"):
                async for result in mapped:
                    got.append(result)
            assert sorted(got) == [n * n for n in range(100)]
            assert await collect(mapped) == []

        asyncio.run(main())

    def test_an_argument_that_cannot_be_sent_fails_at_its_place(
        self, runner: Runner, source: type[Source], ordered: bool
    ) -> None:
        async def main() -> None:
            inputs = source([1, 2, threading.Lock(), 3])
            mapped = runner.map(values.echo, inputs, ordered=ordered)
            got = []
            with pytest.raises(NotShareableError, match=r"args\[0\]: lock"):
                async for result in mapped:
                    got.append(result)
            assert sorted(got) == [1, 2]

        asyncio.run(main())

    @pytest.mark.parametrize("where", ["call", "input"])
    def test_stop_async_iteration_is_an_error_and_no_end(
        self, runner: Runner, where: str, ordered: bool
    ) -> None:
        async def main() -> None:
            if where == "call":
                mapped = runner.map(failing.throw, [StopAsyncIteration("no end")], ordered=ordered)
            else:
                mapped = runner.map(values.square, StopsWrongly(), ordered=ordered)
            with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
                await anext(mapped)

        asyncio.run(main())

    def test_closing_the_runner_on_the_way(self, source: type[Source], ordered: bool) -> None:
        async def main() -> None:
            runner = Runner(workers=1).start()
            mapped = runner.map(values.square, source(range(1_000)), ordered=ordered)
            assert await anext(mapped) == 0
            await runner.aclose()
            got = []
            with pytest.raises(RunnerError, match="closed"):
                async for result in mapped:
                    got.append(result)
            assert len(got) <= 16

        asyncio.run(main())


class StopsWrongly:
    def __iter__(self) -> "StopsWrongly":
        return self

    def __next__(self) -> int:
        raise StopAsyncIteration("no end")


class TestClosing:
    async def begin(self, mapped: Any, count: int) -> None:
        for _ in range(count):
            await anext(mapped)

    def test_aclose_cancels_what_is_queued(
        self, gate: Gate, trace: Trace, source: type[Source], ordered: bool,
        silent: Callable[[], None],
    ) -> None:  # fmt: skip
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                marks = source([b"1", b"2", b"3", b"4"])
                async with aclosing(
                    runner.map(waiting.leave_mark, [trace.fd] * 4, marks, concurrency=1,
                               ordered=ordered)
                ) as mapped:  # fmt: skip
                    assert await anext(mapped) == b"1"
                    held = runner.submit(waiting.wait_at, *gate.fds)
                    await gate.reached()
                    await settle()
                await settle()
                assert pending(runner) == 1
                gate.open()
                await held
                assert marks.closed == 1
            assert trace.marks().startswith(b"1")
            assert await collect(mapped) == []

        asyncio.run(main())

    @pytest.mark.parametrize("kind", ["class", "generator"])
    def test_inputs_are_closed_when_aclose_returns(
        self, runner: Runner, source: type[Source], kind: str, ordered: bool
    ) -> None:
        async def main() -> None:
            left, right = source(range(1_000)), AsyncSource(range(1_000), stop=20)
            first: Any = left if kind == "class" else make_generator(left)
            mapped = runner.map(values.add, first, right, ordered=ordered)
            await self.begin(mapped, 10)
            assert left.closed == right.closed == 0
            await mapped.aclose()
            assert left.closed == right.closed == 1
            await mapped.aclose()

        asyncio.run(main())

    def test_inputs_are_closed_at_the_end(self, runner: Runner, source: type[Source]) -> None:
        async def main() -> None:
            shorter, longer = source(range(5)), source(range(1_000))
            await collect(runner.map(values.add, longer, shorter))
            assert shorter.closed == longer.closed == 1

        asyncio.run(main())

    def test_what_is_no_generator_is_left_open(self, runner: Runner, tmp_path: Any) -> None:
        async def main(lines: Iterator[str]) -> None:
            mapped = runner.map(int, lines, concurrency=1)
            assert await anext(mapped) == 1
            await mapped.aclose()

        (tmp_path / "lines").write_text("1\n2\n3\n")
        with open(tmp_path / "lines") as lines:
            asyncio.run(main(lines))
            assert next(lines) == "2\n"

    def test_break_stops_it_too(
        self, runner: Runner, source: type[Source], ordered: bool, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            numbers = source(range(1_000))
            async for _ in runner.map(values.square, numbers, ordered=ordered):
                if numbers.pulled >= 20:
                    break
            assert await until(lambda: numbers.closed == 1)
            pulled = numbers.pulled
            await runner.drain()
            await settle()
            assert numbers.pulled == pulled < 50

        asyncio.run(main())

    def test_a_cancelled_consumer_cancels_the_calls(
        self, gate: Gate, source: type[Source], ordered: bool, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner, gate:
                numbers = source([gate.fds[0]] * 10)
                mapped = runner.map(waiting.wait_at, numbers, [gate.fds[1]] * 10, ordered=ordered)
                consumer = asyncio.ensure_future(anext(mapped))
                await gate.reached()
                assert pending(runner) == 10
                consumer.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await consumer
                assert pending(runner) <= 1  # what runs
                assert numbers.closed == 1
                assert await collect(mapped) == []
                gate.open()

        asyncio.run(main())

    def test_results_that_nobody_took_are_no_reason_to_complain(
        self, runner: Runner, source: type[Source], ordered: bool, silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            functions = [values.square, *[failing.throw] * 10]
            errors = [1, *[LookupError("never looked at")] * 10]
            mapped = runner.map(values.apply, functions, errors, ordered=ordered)
            if ordered:
                assert await anext(mapped) == 1
            await runner.drain()
            await settle()
            del mapped
            gc.collect()
            await settle()

        asyncio.run(main())

    def test_it_may_be_dropped_in_another_thread(
        self, runner: Runner, source: type[Source], silent: Callable[[], None]
    ) -> None:
        async def main() -> None:
            silent()
            numbers = source(range(1_000))
            held = [runner.map(values.square, numbers)]
            await anext(held[0])
            await asyncio.to_thread(held.clear)
            assert await until(lambda: numbers.closed == 1)

        asyncio.run(main(), debug=True)

    @pytest.mark.parametrize("thread", ["its own thread", "another"])
    def test_it_may_be_dropped_after_its_loop(
        self, runner: Runner, source: type[Source], ordered: bool, thread: str
    ) -> None:
        async def main() -> Any:
            mapped = runner.map(values.square, source(range(1_000)), ordered=ordered)
            await anext(mapped)
            return mapped

        held = [asyncio.run(main())]
        if thread == "another":
            dropping = threading.Thread(target=held.clear)
            dropping.start()
            dropping.join(SOON)
        held.clear()
        gc.collect()
        assert asyncio.run(runner.run(values.square, 3)) == 9

    def test_one_task_at_a_time_may_wait_for_it(self, gate: Gate, ordered: bool) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                mapped = runner.map(waiting.wait_at, *([fd] for fd in gate.fds), ordered=ordered)
                first = asyncio.ensure_future(anext(mapped))
                await gate.reached()
                with pytest.raises(RuntimeError, match="another task"):
                    await anext(mapped)
                with pytest.raises(RuntimeError, match="a task waits"):
                    await mapped.aclose()
                gate.open()
                assert await first is None

        asyncio.run(main())


def make_generator(source: Source) -> Any:
    return aiter(source) if isinstance(source, AsyncSource) else iter(source)


class TestArguments:
    @pytest.mark.parametrize("concurrency", ["3", 2.0, [1]])
    def test_concurrency_is_an_integer(self, runner: Runner, concurrency: Any) -> None:
        with pytest.raises(TypeError, match="concurrency must be an integer or None, not"):
            runner.map(values.square, [1], concurrency=concurrency)

    @pytest.mark.parametrize("concurrency", [0, -1])
    def test_concurrency_is_at_least_one(self, runner: Runner, concurrency: int) -> None:
        with pytest.raises(ValueError, match=f"concurrency must be at least 1, not {concurrency}"):
            runner.map(values.square, [1], concurrency=concurrency)

    def test_what_cannot_be_iterated_over_is_refused_at_the_call(self, runner: Runner) -> None:
        with pytest.raises(TypeError, match="'int' object is not iterable"):
            runner.map(values.square, 5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="at least one iterable"):
            runner.map(values.square)

    def test_an_unstarted_runner_says_so(self, source: type[Source], ordered: bool) -> None:
        async def main() -> None:
            with pytest.raises(RunnerError, match="not started"):
                await anext(Runner(workers=1).map(values.square, source([1]), ordered=ordered))

        asyncio.run(main())

    def test_a_closed_runner_says_so(self, source: type[Source], ordered: bool) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                pass
            with pytest.raises(RunnerError, match="closed"):
                await anext(runner.map(values.square, source([1]), ordered=ordered))

        asyncio.run(main())

    def test_it_may_be_made_before_the_runner_is_started(self) -> None:
        async def main() -> None:
            runner = Runner(workers=1)
            mapped = runner.map(values.square, [1, 2])
            async with runner:
                assert await collect(mapped) == [1, 4]

        asyncio.run(main())
