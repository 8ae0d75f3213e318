"""`Runner.map` with short calls, which travel together: nothing else may be seen of that."""

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiointerpreters import NotShareableError, Queue, Runner, RunnerError, Shared
from aiointerpreters.errors import RemoteTraceback
from helpers.gate import Gate, Trace
from helpers.limits import SOON
from helpers.process import until
from test_map import collect, pending, settle
from workfns import lazily, refusing, together, values

#: By so many items, calls of nothing travel in large batches.
SETTLED = 2_000


@pytest.fixture(autouse=True)
def _watch(silent: Callable[[], None]) -> None:
    """Every test ends by collecting garbage, of which nothing may complain."""


@pytest.fixture(params=[True, False], ids=["ordered", "unordered"])
def ordered(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """Two pipes, the end to read from first."""
    fds = (*os.pipe(), *os.pipe())
    yield fds
    for fd in fds:
        os.close(fd)


async def prefix(mapped: Any, count: int) -> list[Any]:
    """So many results, soon."""
    async with asyncio.timeout(SOON):
        return [await anext(mapped) for _ in range(count)]


class TestSlowItems:
    def test_results_before_a_slow_item_do_not_wait_for_it(self, gate: Gate) -> None:
        async def main(workers: int) -> None:
            with Gate() as gate:
                async with Runner(workers=workers) as runner:
                    fn = functools.partial(
                        together.square_or_wait, stop=SETTLED, announce_fd=gate.fds[0],
                        wait_fd=gate.fds[1],
                    )  # fmt: skip
                    mapped = runner.map(fn, range(2 * SETTLED))
                    async with aclosing(mapped):
                        got = await prefix(mapped, SETTLED)
                        gate.open()
                        got += await collect(mapped)
                    assert got == [n * n for n in range(2 * SETTLED)]

        asyncio.run(main(1))
        asyncio.run(main(2))

    def test_unordered_the_items_behind_it_do_not_wait_for_it_either(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=2) as runner, gate:
                count = 2 * SETTLED
                fn = functools.partial(
                    together.square_or_wait, stop=SETTLED, announce_fd=gate.fds[0],
                    wait_fd=gate.fds[1],
                )  # fmt: skip
                mapped = runner.map(fn, range(count), ordered=False)
                async with aclosing(mapped):
                    got = await prefix(mapped, count - 1)
                    gate.open()
                    got += await collect(mapped)
                assert got.pop() == SETTLED**2
                assert sorted(got) == [n * n for n in range(count) if n != SETTLED]
                async with asyncio.timeout(SOON):
                    await runner.drain()  # what the worker was told last comes a moment later
                assert pending(runner) == 0

        asyncio.run(main())

    def test_slow_items_beside_each_other_run_at_the_same_time(
        self,
        runner: Runner,
        pipes: tuple[int, int, int, int],
        ordered: bool,
    ) -> None:
        async def main() -> None:
            count = 2 * SETTLED
            fn = functools.partial(
                together.square_or_meet, first=SETTLED + 20, fds=pipes, limit=SOON
            )
            got = await collect(runner.map(fn, range(count), ordered=ordered))
            assert len(got) == count
            assert [item for item in got if item is True] == [True, True]

        asyncio.run(main())

    def test_leaving_early_interrupts_it(
        self,
        trace: Trace,
        ordered: bool,
        silent: Callable[[], None],
    ) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=1) as runner:
                fn = functools.partial(together.square_or_spin, stop=SETTLED, fd=trace.fd)
                mapped = runner.map(fn, range(2 * SETTLED), ordered=ordered)
                async with aclosing(mapped):
                    await prefix(mapped, SETTLED)
                    assert await until(lambda: trace.marks() == b"(")
                assert await until(lambda: pending(runner) == 0)
                assert trace.marks() == b")"
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())


class TestErrors:
    def test_no_item_behind_one_that_fails_is_run_with_it(
        self,
        trace: Trace,
        ordered: bool,
    ) -> None:
        async def main() -> int:
            """How often the next item was run: it may have begun another batch."""
            run = 0
            async with Runner(workers=1) as runner:
                for stop in range(SETTLED, SETTLED + 20):
                    fn = functools.partial(together.fail_at, stop=stop, fd=trace.fd)
                    got = []
                    with pytest.raises(LookupError, match=f"at {stop}"):
                        async for result in runner.map(fn, range(2 * SETTLED), ordered=ordered):
                            got.append(result)
                    # If not ordered, a batch that was split may come after the one behind it.
                    assert (got if ordered else sorted(got)) == list(range(stop))
                    await runner.drain()
                    run += len(trace.marks())
            return run

        assert asyncio.run(main()) < 20

    @pytest.mark.parametrize("fn", [together.unsendable_at, together.poisoned_at])
    def test_a_result_that_cannot_be_had_fails_at_its_place(self, runner: Runner, fn: Any) -> None:
        async def main() -> None:
            error, match = (
                (NotShareableError, r"result\['key'\]\[1\]: lock")
                if fn is together.unsendable_at
                else (LookupError, "refuses")
            )
            got = []
            with pytest.raises(error, match=match):
                async for result in runner.map(
                    functools.partial(fn, stop=SETTLED), range(2 * SETTLED)
                ):
                    got.append(result)
            assert got == list(range(SETTLED))

        asyncio.run(main())

    def test_an_argument_that_cannot_be_sent_fails_at_its_place(
        self,
        runner: Runner,
        ordered: bool,
    ) -> None:
        async def main() -> None:
            bad: list[Any] = [*range(SETTLED), [0, {"x": threading.Lock()}], *range(10)]
            got = []
            with pytest.raises(NotShareableError, match=r"args\[1\]\[1\]\['x'\]: lock"):
                async for result in runner.map(
                    values.apply, [values.echo] * len(bad), bad, ordered=ordered
                ):
                    got.append(result)
            assert sorted(got) == list(range(SETTLED))

        asyncio.run(main())

    def test_the_traceback_is_that_of_a_single_call(self, runner: Runner) -> None:
        async def raised(calling: Any) -> str:
            with pytest.raises(LookupError, match="deep") as info:
                await calling
            cause = info.value.__cause__
            assert isinstance(cause, RemoteTraceback)
            return str(cause)

        async def main() -> None:
            alone = await raised(runner.run(together.raise_deeply, 700))
            mapped = runner.map(together.raise_deeply, range(SETTLED))
            assert await raised(collect(mapped)) == alone

        asyncio.run(main())

    def test_an_error_of_the_input_comes_after_the_results_before_it(
        self,
        runner: Runner,
        ordered: bool,
    ) -> None:
        def numbers() -> Iterator[int]:
            yield from range(SETTLED)
            raise LookupError("of the input")

        async def main() -> None:
            got = []
            with pytest.raises(LookupError, match="of the input"):
                async for result in runner.map(values.square, numbers(), ordered=ordered):
                    got.append(result)
            assert sorted(got) == [n * n for n in range(SETTLED)]

        asyncio.run(main())


class TestClosing:
    def test_closing_the_runner_lets_finish_what_was_accepted(self, gate: Gate) -> None:
        async def main() -> None:
            runner = Runner(workers=2).start()
            fn = functools.partial(
                together.square_or_wait, stop=SETTLED, announce_fd=gate.fds[0],
                wait_fd=gate.fds[1],
            )  # fmt: skip
            numbers = iter(range(2 * SETTLED))
            mapped = runner.map(fn, numbers)
            got = await prefix(mapped, SETTLED)
            closing = asyncio.ensure_future(runner.aclose())
            await settle()
            accepted = next(numbers)
            gate.open()
            with pytest.raises(RunnerError, match="closed"):
                async for result in mapped:
                    got.append(result)
            await closing
            assert got == [n * n for n in range(accepted)]

        asyncio.run(main())

    def test_closing_it_in_haste_cancels_the_rest(self, gate: Gate) -> None:
        async def main() -> None:
            runner = Runner(workers=1).start()
            fn = functools.partial(
                together.square_or_wait, stop=SETTLED, announce_fd=gate.fds[0],
                wait_fd=gate.fds[1],
            )  # fmt: skip
            mapped = runner.map(fn, range(2 * SETTLED))
            got = await prefix(mapped, SETTLED)
            closing = asyncio.ensure_future(runner.aclose(cancel_pending=True))
            await settle()
            gate.open()
            with pytest.raises(asyncio.CancelledError):
                async for result in mapped:
                    got.append(result)
            await closing
            assert SETTLED < len(got) < 2 * SETTLED
            assert got == [n * n for n in range(len(got))]

        asyncio.run(main())

    def test_what_is_dropped_is_taken_back(self, runner: Runner, ordered: bool) -> None:
        async def main() -> None:
            for _ in range(20):
                count = 0
                async for _ in runner.map(together.none_at, range(10 * SETTLED), ordered=ordered):
                    count += 1
                    if count == SETTLED:
                        break
            async with asyncio.timeout(SOON):
                await runner.drain()
            assert pending(runner) == 0
            assert runner.stats().queued == 0

        asyncio.run(main())


class TestValues:
    def test_what_an_input_reuses_is_sent_as_it_was(self, runner: Runner) -> None:
        def reused() -> Iterator[list[int]]:
            held = [0]
            for number in range(SETTLED):
                held[0] = number
                yield held

        async def main() -> None:
            assert await collect(runner.map(values.total, reused())) == list(range(SETTLED))

        asyncio.run(main())

    def test_large_results_among_small_ones(self, runner: Runner, ordered: bool) -> None:
        async def main() -> None:
            got = await collect(
                runner.map(together.large_at_times, range(SETTLED), ordered=ordered)
            )
            expected = [together.large_at_times(n) for n in range(SETTLED)]
            if ordered:
                assert got == expected
            assert sorted(map(repr, map(plain, got))) == sorted(map(repr, map(plain, expected)))

        def plain(value: Any) -> Any:
            return bytes(value) if isinstance(value, memoryview) else value

        asyncio.run(main())

    def test_large_and_shared_arguments_among_small_ones(
        self,
        runner: Runner,
        ordered: bool,
    ) -> None:
        queue = Queue[int]()
        shared = Shared([1, 2, 3])
        large = b"x" * 1_000_000
        odd = [large, memoryview(large), "y" * 10_000, [0] * 20_000, shared, queue]

        async def main() -> None:
            items = [odd[n // 100 % len(odd)] if n % 100 == 50 else n for n in range(SETTLED)]
            got = await collect(runner.map(together.do, ["echo"] * SETTLED, items, ordered=ordered))
            assert len(got) == SETTLED
            small = [n for n in range(SETTLED) if n % 100 != 50]
            assert sorted(item for item in got if isinstance(item, int)) == small
            if ordered:
                for item, sent in zip(got, items, strict=True):
                    if sent is shared:
                        assert item == [1, 2, 3]
                    elif sent is queue:
                        assert isinstance(item, Queue)
                    else:
                        assert item == sent

        asyncio.run(main())

    @pytest.mark.parametrize(
        "fn",
        [
            together.total,
            functools.partial(together.total, 5, scale=3),
            values.Arithmetic.cube,
            values.Arithmetic(7).plus,
            len,
        ],
    )
    def test_functions_of_every_kind(self, runner: Runner, fn: Any, ordered: bool) -> None:
        async def main() -> None:
            items: list[Any] = ["x" * n for n in range(500)] if fn is len else list(range(SETTLED))
            got = await collect(runner.map(fn, items, ordered=ordered))
            assert sorted(got) == sorted(map(fn, items))

        asyncio.run(main())

    @pytest.mark.parametrize("concurrency", [1, 2, 3, 50, 1_000, None])
    def test_with_any_concurrency(
        self,
        runner: Runner,
        concurrency: int | None,
        ordered: bool,
    ) -> None:
        async def main() -> None:
            mapped = runner.map(
                values.add, range(SETTLED), range(SETTLED), concurrency=concurrency, ordered=ordered
            )
            assert sorted(await collect(mapped)) == [2 * n for n in range(SETTLED)]

        asyncio.run(main())

    def test_several_at_a_time(self, runner: Runner) -> None:
        async def main() -> None:
            got = await asyncio.gather(
                *(collect(runner.map(values.square, range(SETTLED), ordered=n % 2 > 0))
                  for n in range(5))
            )  # fmt: skip
            for results in got:
                assert sorted(results) == [n * n for n in range(SETTLED)]

        asyncio.run(main())


class TestCounting:
    def test_every_item_counts(self) -> None:
        async def main() -> None:
            async with Runner(workers=2) as runner:
                await collect(runner.map(values.square, range(SETTLED)))
                await runner.drain()
                stats = runner.stats()
                assert (stats.done, stats.pending, stats.queued) == (SETTLED, 0, 0)

        asyncio.run(main())

    def test_drain_waits_for_items_that_are_sent_anew(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                fn = functools.partial(
                    together.square_or_wait, stop=SETTLED, announce_fd=gate.fds[0],
                    wait_fd=gate.fds[1],
                )  # fmt: skip
                mapped = runner.map(fn, range(2 * SETTLED))
                got = await prefix(mapped, SETTLED)
                stats = runner.stats()
                assert 0 < stats.queued < stats.pending <= 512
                draining = asyncio.ensure_future(runner.drain())
                await settle()
                assert not draining.done()
                gate.open()
                async with asyncio.timeout(SOON):
                    await draining
                assert pending(runner) == 0
                assert got + await collect(mapped) == [n * n for n in range(2 * SETTLED)]

        asyncio.run(main())

    def test_workers_are_renewed_after_so_many_items(self) -> None:
        async def main() -> None:
            async with Runner(workers=1, max_tasks_per_worker=100) as runner:
                assert len(await collect(runner.map(values.square, range(1_000)))) == 1_000
                assert runner.stats().started >= 10

        asyncio.run(main())


KINDS = st.sampled_from(["echo"] * 30 + ["slow", "large", "fail", "unsendable"])
VALUES = st.one_of(st.integers(), st.text(max_size=20), st.tuples(st.integers(), st.floats()))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    calls=st.lists(st.tuples(KINDS, VALUES), max_size=60),
    repeat=st.sampled_from([1, 1, 20]),
    concurrency=st.sampled_from([None, None, 1, 7, 100]),
)
def test_it_gives_what_the_builtin_map_does(
    runner: Runner, calls: list[Any], repeat: int, concurrency: int | None
) -> None:
    """Up to the first error, which is of the same kind."""
    calls = [("echo", None)] * 5 * repeat + calls * repeat
    expected: list[Any] = []
    failure: type[Exception] | None = None
    for what, value in calls:
        if what == "fail":
            failure = LookupError
            break
        if what == "unsendable":
            failure = NotShareableError
            break
        expected.append(together.do(what, value) if what != "slow" else value)

    async def main() -> tuple[list[Any], type[Exception] | None]:
        got: list[Any] = []
        try:
            async for result in runner.map(
                together.do, *zip(*calls, strict=True), concurrency=concurrency
            ):
                got.append(result)
        except Exception as error:
            return got, type(error)
        return got, None

    got, raised = asyncio.run(main())
    assert repr(got) == repr(expected)
    assert raised is failure


class TestWhereCallsMayMove:
    """What a worker can't rebuild goes to a process, wherever it is among the items."""

    def names(self, fn: Any, items: Any, **options: Any) -> list[str]:
        async def main() -> list[str]:
            async with Runner(workers=2, unsupported="process") as runner, asyncio.timeout(SOON):
                return await collect(runner.map(fn, items, **options))

        return asyncio.run(main())

    def test_one_alone(self) -> None:
        assert self.names(lazily.type_name, [refusing.Value()]) == ["Value"]

    @pytest.mark.parametrize("concurrency", [None, 1, 100])
    def test_among_items_that_travel_together(self, concurrency: int | None, ordered: bool) -> None:
        items = [refusing.Value() if n % 200 in (0, 150, 151) else n for n in range(1_000)]
        got = self.names(lazily.type_name, iter(items), concurrency=concurrency, ordered=ordered)
        expected = [type(item).__name__ for item in items]
        assert got == expected or (not ordered and sorted(got) == sorted(expected))

    def test_in_a_partial(self) -> None:
        fn = functools.partial(lazily.second_type_name, refusing.Value())
        assert self.names(fn, range(20)) == ["int"] * 20
        fn = functools.partial(lazily.second_type_name, 1)
        assert self.names(fn, [2, refusing.Value(), "x"]) == ["int", "Value", "str"]

    def test_what_cannot_be_sent_is_refused_at_its_place(self) -> None:
        async def use() -> None:
            async with Runner(workers=1, unsupported="process") as runner:
                items = [1, 2, threading.Lock(), 3]
                mapped = runner.map(lazily.type_name, items)
                assert await prefix(mapped, 2) == ["int", "int"]
                with pytest.raises(NotShareableError):
                    await anext(mapped)

        asyncio.run(use())

    def test_as_many_run_at_once_as_are_accepted(self) -> None:
        async def main() -> None:
            async with Runner(workers=1, unsupported="process") as runner:
                taken = 0

                def items() -> Iterator[Any]:
                    nonlocal taken
                    for _ in range(50):
                        taken += 1
                        yield [taken]

                mapped = runner.map(lazily.type_name, items(), concurrency=40)
                assert await prefix(mapped, 2) == ["list", "list"]
                assert taken == 41
                await mapped.aclose()

        asyncio.run(main())
