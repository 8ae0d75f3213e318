"""What pickle carries: its own hooks, buffers out of band, shared references and circles."""

import array
import asyncio
import gc
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import NotShareableError, Runner
from helpers.gate import Signals
from helpers.process import until
from helpers.programs import Program
from helpers.sameness import references, same
from workfns import classes, pickled, values, views


class TestHooks:
    def test_copyreg_is_asked_first(self, call: Callable[..., Any]) -> None:
        got = call(values.echo, [pickled.Temperature(1.5)])[0]
        assert (type(got), got.degrees, got.how) == (pickled.Temperature, 1.5, "by copyreg")

    def test_reductions_of_every_length(self, call: Callable[..., Any]) -> None:
        got = call(values.echo, pickled.Reduced("name"))
        assert (got.name, got.items, got.table) == ("name", [1, [2]], {"k": "v"})
        assert got.history == ["state {'x': 1}"]

    def test_the_state_is_got_and_set(self, call: Callable[..., Any]) -> None:
        got = call(values.echo, {"a": pickled.Stateful("name")})["a"]
        assert (got.name, got.got, got.cache) == ("name", "by __getstate__", "made anew")

    def test_arguments_for_new(self, call: Callable[..., Any]) -> None:
        value = pickled.NewArguments(1, [2], three=3)
        assert call(values.echo, value).made_with == ((1, [2]), {"three": 3})

    def test_slots(self, call: Callable[..., Any]) -> None:
        got = call(values.echo, pickled.Slots([1], memoryview(b"abc")))
        assert (got.first, got.second) == ([1], b"abc")
        assert not hasattr(got, "__dict__")

    def test_a_subclass_of_a_list_keeps_items_and_attributes(
        self, call: Callable[..., Any]
    ) -> None:
        value = pickled.ListWithState([1, [2]])
        value.note = memoryview(b"abc")  # type: ignore[attr-defined]
        got = call(values.echo, value)
        assert (type(got), list(got), got.note) == (pickled.ListWithState, [1, [2]], b"abc")

    def test_an_enum_is_the_member_itself(self, call: Callable[..., Any]) -> None:
        assert call(values.echo, [pickled.Global.ONE])[0] is pickled.Global.ONE

    def test_an_error_in_a_hook_is_the_cause(self, call: Callable[..., Any]) -> None:
        with pytest.raises(NotShareableError, match=r"args\[0\]\[1\].*Unpicklable") as caught:
            call(values.echo, [1, pickled.Unpicklable()])
        assert "never to be pickled" in str(caught.value.__cause__)
        with pytest.raises(NotShareableError, match=r"args\[0\]"):
            call(values.echo, pickled.Bundle(rest=[pickled.Unpicklable()]))
        assert call(values.square, 3) == 9


SIZES = [0, 1, 100, 10_000, 1_000_000]


class TestBuffers:
    @pytest.mark.parametrize("size", SIZES)
    def test_a_record_of_everything_large_comes_back_as_it_was(
        self, size: int, call: Callable[..., Any]
    ) -> None:
        for got in (call(values.echo, pickled.bundle(size)), call(pickled.bundle, size)):
            expected = pickled.bundle(size)
            assert type(got) is pickled.Bundle
            assert (type(got.view), got.view.readonly) == (memoryview, False)
            assert same(got.data, expected.data)
            assert same(got.array, expected.array)
            assert same(got.text, expected.text)
            assert got.view == expected.view
            assert bytes(got.buffer.memory) == bytes(size)
            assert got.buffer.name == "name"
            assert bytes(got.rest[0].memory) == bytes(size)

    def test_a_hundred_megabytes_in_a_record(self, call: Callable[..., Any]) -> None:
        data = bytearray(100_000_000)
        got = call(values.echo, pickled.Bundle(buffer=pickled.Buffer(data), data=bytes(data)))
        assert len(got.data) == 100_000_000
        memoryview(got.buffer.memory)[99_999_999] = 7
        assert data[-1] == 7

    @pytest.mark.parametrize("kind", [pickled.Buffer, pickled.StatefulBuffer])
    def test_a_worker_writes_to_the_callers_buffer(
        self, kind: Any, call: Callable[..., Any]
    ) -> None:
        data = bytearray(1_000_000)
        call(pickled.write_buffer, kind(data), 999_999, 7)
        assert data[-1] == 7

    def test_even_to_a_small_one(self, call: Callable[..., Any]) -> None:
        data = bytearray(1)
        call(pickled.write_buffer, pickled.Buffer(data), 0, 7)
        assert data == b"\7"

    def test_a_worker_writes_to_an_array(self, call: Callable[..., Any]) -> None:
        numbers = array.array("q", [1, 2, 3])
        call(pickled.write_buffer, pickled.Buffer(memoryview(numbers).cast("B")), 0, 7)
        assert numbers[0] == 7

    def test_a_readonly_buffer_cannot_be_written(self, call: Callable[..., Any]) -> None:
        for data in (bytes(1_000_000), memoryview(bytearray(10)).toreadonly()):
            with pytest.raises(TypeError, match="read-only"):
                call(pickled.write_buffer, pickled.Buffer(data), 0, 7)

    def test_caller_and_worker_share_the_buffer_of_a_result(self) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                got = await runner.run(pickled.make_buffer_and_keep, b"abc")
                memoryview(got.memory)[0] = ord("X")
                await runner.run(pickled.write_kept, 1, ord("Y"))
                assert bytes(got.memory) == await runner.run(pickled.read_kept) == b"XYc"

        asyncio.run(main())

    def test_a_buffer_that_comes_back_is_the_callers_own_memory(
        self, call: Callable[..., Any]
    ) -> None:
        data = bytearray(b"abc")
        got = call(values.echo, [pickled.Buffer(data)])[0]
        memoryview(got.memory)[0] = ord("X")
        assert data == b"Xbc"

    def test_the_exporter_has_it_back_after_the_last_object_around_it(
        self, signals: Signals
    ) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            async with Runner(workers=1) as runner:
                await runner.run(pickled.keep_buffer, pickled.Buffer(memoryview(exporter)))
                gc.collect()
                assert exporter.returned < exporter.lent
                await runner.run(pickled.drop_buffer)
                assert await until(lambda: exporter.returned == exporter.lent)

        asyncio.run(main())

    def test_objects_that_are_refused_give_their_buffers_back(self) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), -1)
            async with Runner(workers=1) as runner:
                for _ in range(5):
                    with pytest.raises(NotShareableError):
                        await runner.run(
                            values.echo, [pickled.Buffer(exporter), pickled.Unpicklable()]
                        )
                    with pytest.raises(NotShareableError):
                        await runner.run(
                            values.echo,
                            pickled.Bundle(pickled.Buffer(exporter), pickled.Unpicklable()),
                        )
                gc.collect()
                assert await until(lambda: exporter.returned == exporter.lent)

        asyncio.run(main())

    def test_objects_that_cannot_be_rebuilt_give_their_buffers_back(self) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), -1)
            async with Runner(workers=1) as runner:
                for _ in range(5):
                    with pytest.raises((LookupError, NotShareableError)):
                        await runner.run(
                            values.echo,
                            pickled.Bundle(
                                pickled.Buffer(exporter),
                                memoryview(exporter),
                                classes.RaisesWhenRebuilt(),
                            ),
                        )
                gc.collect()
                assert await until(lambda: exporter.returned == exporter.lent)

        asyncio.run(main())

    def test_a_buffer_that_is_not_contiguous_is_refused_or_crosses(
        self, call: Callable[..., Any]
    ) -> None:
        """Pickle refuses it; nothing else happens."""
        view = memoryview(bytearray(b"abcdef"))[::2]
        try:
            got = call(values.echo, pickled.Buffer(view))
        except NotShareableError as error:
            assert isinstance(error.__cause__, (pickle.PicklingError, BufferError))  # noqa: PT017
        else:
            assert memoryview(got.memory).tolist() == view.tolist()
        assert call(values.square, 3) == 9


@pytest.mark.parametrize("kind", pickled.SHARED)
class TestSharedReferences:
    def test_what_is_one_stays_one(self, kind: str, call: Callable[..., Any]) -> None:
        assert call(pickled.are_one, pickled.same_twice(kind))
        assert pickled.are_one(call(pickled.same_twice, kind))
        assert pickled.are_one(call(values.echo, pickled.same_twice(kind)))

    def test_between_native_containers_and_objects(
        self, kind: str, call: Callable[..., Any]
    ) -> None:
        thing = pickled.shared(kind)
        value = [thing, pickled.Link(thing), {"k": (pickled.Link([thing]),)}]
        got = call(values.echo, value)
        assert got[0] is got[1].after is got[2]["k"][0].after[0]
        assert references(got) == references(value)

    def test_what_is_equal_only_stays_apart(self, kind: str, call: Callable[..., Any]) -> None:
        one, other = call(values.echo, [pickled.shared(kind), pickled.shared(kind)])
        assert one is not other

    def test_through_a_tuple_that_occurs_twice(self, kind: str, call: Callable[..., Any]) -> None:
        pair = (pickled.shared(kind), 1)
        left, right = call(values.echo, [pair, pair])
        assert left[0] is right[0]

    def test_as_a_keyword_argument(self, kind: str, call: Callable[..., Any]) -> None:
        thing = pickled.shared(kind)
        _, kwargs = call(values.everything, value=[thing, [thing]])
        assert kwargs["value"][0] is kwargs["value"][1][0]


def test_a_change_of_what_is_shared_is_seen_everywhere(call: Callable[..., Any]) -> None:
    thing: list[int] = []
    left, right = call(values.echo, [thing, thing])
    left.append(1)
    assert right == [1]
    assert thing == []


def test_many_shared_references(call: Callable[..., Any]) -> None:
    things: list[Any] = [[n] for n in range(1_000)]
    value = [*things, *reversed(things)]
    got = call(values.echo, value)
    assert all(one is other for one, other in zip(got, reversed(got), strict=True))
    assert len({id(thing) for thing in got}) == 1_000


def test_a_value_that_would_be_huge_without_shared_references(call: Callable[..., Any]) -> None:
    """Each of 20 lists holds the one before twice: a million paths lead to the first."""
    value: Any = [1]
    for _ in range(20):
        value = [value, value]
    got = call(values.echo, value)
    for _ in range(20):
        assert got[0] is got[1]
        got = got[0]
    assert got == [1]


@pytest.mark.parametrize("kind", pickled.CIRCLES)
class TestCircles:
    def test_a_value_that_holds_itself_crosses(self, kind: str, call: Callable[..., Any]) -> None:
        assert call(pickled.is_circle, kind, pickled.circle(kind))
        assert pickled.is_circle(kind, call(pickled.circle, kind))
        assert pickled.is_circle(kind, call(values.echo, pickled.circle(kind)))

    def test_inside_of_others(self, kind: str, call: Callable[..., Any]) -> None:
        got = call(values.echo, {"a": [(pickled.circle(kind),)], "b": pickled.Link(1)})
        assert pickled.is_circle(kind, got["a"][0][0])
        got = call(values.echo, pickled.Link([pickled.circle(kind)]))
        assert pickled.is_circle(kind, got.after[0])

    def test_they_leave_nothing_behind_once_collected(self, kind: str, signals: Signals) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                exporter = views.Exporter(bytearray(b"abc"), -1)
                value = [pickled.circle(kind), memoryview(exporter)]
                value.append(value)
                await runner.run(values.echo, value)
                del value
                await asyncio.sleep(0)  # asyncio keeps a result until the task suspends again
                gc.collect()
                await runner.run(gc.collect)
                assert await until(lambda: exporter.returned == exporter.lent)

        asyncio.run(main())


DEEP = """
import asyncio, sys, threading
from aiointerpreters import NotShareableError, Runner
from workfns import pickled, values

{prologue}

async def main():
    kind = sys.argv[1]
    async with Runner(workers=1) as runner:
        for _ in range(2):
            for depth in (2_000, 100_000):
                try:
                    got = await runner.run(values.echo, pickled.deep(kind, depth))
                except NotShareableError as error:
                    text = f"{{error}} {{error.__cause__!r}}"
                    assert "deep" in text or "recursion" in text.lower(), text
                    assert len(str(error)) < 10_000
                    print("argument", depth)
                try:
                    await runner.run(pickled.deep, kind, depth)
                except NotShareableError as error:
                    text = f"{{error}} {{error.__cause__!r}}"
                    assert "deep" in text or "recursion" in text.lower(), text
                    assert len(str(error)) < 10_000
                    print("result", depth)
                assert await runner.run(values.square, 3) == 9

{epilogue}
"""


class TestDeepNesting:
    @pytest.mark.parametrize("kind", pickled.DEEP)
    def test_it_is_an_error_that_says_so_and_the_runner_goes_on(
        self, kind: str, program: Program
    ) -> None:
        source = DEEP.format(prologue="", epilogue="asyncio.run(main())")
        ended = program(source, kind)
        ended.assert_fine()
        assert ended.out.count("argument 100000\n") == 2
        assert ended.out.count("result 100000\n") == 2

    @pytest.mark.skipif(
        sys.version_info < (3, 14), reason="pickle itself overflows such a stack on CPython 3.13"
    )
    def test_in_a_thread_with_a_small_stack(self, program: Program) -> None:
        epilogue = """
threading.stack_size(512 * 1024)
thread = threading.Thread(target=lambda: asyncio.run(main()))
thread.start()
thread.join()
"""
        ended = program(DEEP.format(prologue="", epilogue=epilogue), "list")
        ended.assert_fine()
        assert ended.out.count("argument 100000\n") == 2

    def test_with_a_high_limit_of_recursion(self, program: Program) -> None:
        source = DEEP.format(
            prologue="sys.setrecursionlimit(10_000_000)", epilogue="asyncio.run(main())"
        )
        ended = program(source, "list")
        ended.assert_fine()
        assert ended.out.count("argument 100000\n") == 2

    @pytest.mark.parametrize("kind", pickled.DEEP)
    def test_sensible_nesting_crosses(self, kind: str, call: Callable[..., Any]) -> None:
        def depth_of(value: Any) -> int:
            depth = 0
            while value is not None:
                if isinstance(value, (pickled.Link, pickled.Bundle)):
                    value = value.after if isinstance(value, pickled.Link) else value.view
                else:
                    (value,) = value.values() if isinstance(value, dict) else value
                depth += 1
            return depth

        expected = depth_of(pickled.deep(kind, 100))
        assert depth_of(call(values.echo, pickled.deep(kind, 100))) == expected
        assert depth_of(call(pickled.deep, kind, 100)) == expected


def test_values_are_encoded_in_several_threads_at_once(runner: Runner) -> None:
    failures: list[BaseException] = []
    thing: list[Any] = [bytearray(100), pickled.Link(), pickled.circle("mixed")]
    thing += [thing[0], pickled.Link(thing)]

    async def use() -> None:
        for got in await asyncio.gather(*(runner.run(values.echo, thing) for _ in range(50))):
            assert references(got) == references(thing)
            assert got[0] is got[3]

    def run() -> None:
        try:
            asyncio.run(use())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
