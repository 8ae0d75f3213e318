"""A memoryview crosses without a copy: both sides see the same memory, for as long as they look.

Exporters that tell when a buffer comes back (`workfns.views.Exporter`) show that nothing more than
letting go of the last view is needed: no further call, and no timer in the event loop.
"""

import array
import asyncio
import ctypes
import gc
import mmap
import os
import textwrap
import threading
from collections.abc import Callable
from multiprocessing import shared_memory
from typing import Any, ClassVar

import pytest

from aiointerpreters import NotShareableError, Runner
from helpers.forking import busy
from helpers.gate import Gate, Signals
from helpers.limits import SOON
from helpers.process import LINUX, eventually, native_threads, until
from helpers.programs import Program
from helpers.sameness import same, view_facts
from workfns import values, views, worker


def resizable(data: bytearray) -> bool:
    try:
        data.append(0)
    except BufferError:
        return False
    del data[-1]
    return True


def ctypes_matrix() -> memoryview:
    matrix = ((ctypes.c_int16 * 3) * 2)()
    matrix[1][2] = 5
    return memoryview(matrix)


VIEWS: dict[str, memoryview] = (
    {
        "bytes": memoryview(b"abc"),
        "empty": memoryview(b""),
        "empty and writable": memoryview(bytearray()),
        "empty slice": memoryview(bytearray(b"abc"))[3:],
        "empty slice with step": memoryview(bytearray(b"abc"))[1:1:2],
        "bytearray": memoryview(bytearray(b"abc")),
        "readonly of bytearray": memoryview(bytearray(b"abc")).toreadonly(),
        "slice": memoryview(b"abcdef")[2:4],
        "large": memoryview(bytes(5_000_000)),
        "two dimensions": memoryview(bytes(range(6))).cast("B", shape=[2, 3]),
        "three dimensions": memoryview(bytearray(range(24))).cast("B", shape=[2, 3, 4]),
        "64 dimensions": memoryview(bytearray(2)).cast("B", shape=[1] * 63 + [2]),
        "no dimension": memoryview(bytes(4)).cast("i", shape=[]),
        "no dimension, writable": memoryview(bytearray(8)).cast("d", shape=[]),
        "ints in two dimensions": memoryview(array.array("i", range(12)))
        .cast("B")
        .cast("i", shape=[3, 4]),
        "ctypes array": memoryview((ctypes.c_int32 * 3)(1, 2, 3)),
        "ctypes matrix": ctypes_matrix(),
        "ctypes number": memoryview(ctypes.c_double(1.5)),
        "step": memoryview(b"abcdefgh")[::2],
        "reversed": memoryview(b"abcdefgh")[::-1],
        "part with step": memoryview(bytearray(b"abcdefgh"))[1:7:3],
        "ints, reversed with step": memoryview(array.array("i", range(10)))[::-3],
        "one item with step": memoryview(bytearray(b"abcdefgh"))[7::5],
        "rows, reversed": memoryview(bytearray(range(10))).cast("B")[::-2][::2],
    }
    | {f"format {code}": memoryview(bytes(range(1, 49))).cast(code) for code in "bBchHiIlLqQnNPfd"}
    | {
        "format ?": memoryview(bytes([0, 1])).cast("?"),
        "format e": memoryview(bytes(8)).cast("e"),
    }
)


class TestFormsOfViews:
    @pytest.mark.parametrize("name", VIEWS)
    def test_the_worker_sees_the_view_as_it_is(self, name: str, call: Callable[..., Any]) -> None:
        assert call(views.facts, VIEWS[name]) == view_facts(VIEWS[name])

    @pytest.mark.parametrize("name", VIEWS)
    def test_a_view_comes_back_as_it_was(self, name: str, call: Callable[..., Any]) -> None:
        view = VIEWS[name]
        got = call(values.echo, view)
        assert type(got) is memoryview
        assert view_facts(got) == view_facts(view)
        if view.format in "bBchHiIlLqQnNPefd?":
            assert got.tolist() == view.tolist()

    @pytest.mark.parametrize("name", VIEWS)
    def test_a_view_stays_as_it_is_inside_of_others(
        self, name: str, call: Callable[..., Any]
    ) -> None:
        value = {"native": [1, (VIEWS[name],)], "pickled": views.Record(VIEWS[name])}
        got = call(values.echo, value)
        assert view_facts(got["native"][1][0]) == view_facts(VIEWS[name])
        assert view_facts(got["pickled"].view) == view_facts(VIEWS[name])

    def test_views_of_strange_exporters(self, call: Callable[..., Any]) -> None:
        """Fortran's order, formats of structs, and pointers to rows (suboffsets)."""
        testbuffer = pytest.importorskip("_testbuffer")
        for exporter in (
            testbuffer.ndarray(list(range(12)), shape=[3, 4], flags=testbuffer.ND_FORTRAN),
            testbuffer.ndarray(list(range(12)), shape=[3, 4], flags=testbuffer.ND_PIL),
            testbuffer.ndarray(
                list(range(12)), shape=[12], flags=testbuffer.ND_PIL | testbuffer.ND_WRITABLE
            )[::-2],
            testbuffer.ndarray(
                [(1, 2.5), (3, 4.5)], shape=[2], format="<hd", flags=testbuffer.ND_WRITABLE
            ),
            testbuffer.ndarray(list(range(24)), shape=[2, 3, 4])[::-1, 1:, ::2],
        ):
            view = memoryview(exporter)
            assert call(views.facts, view) == view_facts(view)
            assert view_facts(call(values.echo, view)) == view_facts(view)
            assert same(call(values.echo, [view]), [view])

    def test_two_views_of_one_buffer_are_two_views_of_one_buffer(
        self, call: Callable[..., Any]
    ) -> None:
        data = bytearray(b"abcdef")
        first, second = call(values.echo, [memoryview(data)[:4], memoryview(data)[2:]])
        first[3] = ord("X")
        assert second[1] == ord("X")
        assert data == b"abcXef"

    def test_more_views_than_fit_anywhere(self, call: Callable[..., Any]) -> None:
        data = bytearray(10_000)
        got = call(values.echo, [memoryview(data)[n : n + 1] for n in range(10_000)])
        for n, view in enumerate(got):
            view[0] = n % 251
        assert data == bytes(n % 251 for n in range(10_000))


class TestOneMemory:
    def test_a_worker_fills_a_bytearray_in_place(self, call: Callable[..., Any]) -> None:
        data = bytearray(1_000_000)
        call(views.fill, memoryview(data), 7)
        assert data == b"\7" * 1_000_000

    def test_a_worker_fills_an_array_in_place(self, call: Callable[..., Any]) -> None:
        numbers = array.array("q", range(1_000))
        assert call(views.count_and_write, memoryview(numbers)) == list(range(1_000))
        assert numbers == array.array("q", range(1, 1_001))

    def test_a_worker_fills_a_mapping_in_place(self, call: Callable[..., Any]) -> None:
        with mmap.mmap(-1, 100_000) as mapping:
            with memoryview(mapping) as view:
                call(views.fill, view, 7)
            assert mapping[:] == b"\7" * 100_000
            assert eventually(lambda: closes(mapping))  # a BufferError, as long as it is lent

    def test_a_worker_fills_shared_memory_in_place(self, call: Callable[..., Any]) -> None:
        memory = shared_memory.SharedMemory(create=True, size=5_000, track=False)
        try:
            call(views.fill, memory.buf, 7)
            assert bytes(memory.buf) == b"\7" * memory.size
            assert eventually(lambda: closes(memory))
        finally:
            memory.unlink()

    def test_a_worker_fills_a_part_of_ctypes_memory_in_place(
        self, call: Callable[..., Any]
    ) -> None:
        numbers = (ctypes.c_uint8 * 10)()
        call(views.fill, memoryview(numbers).cast("B")[2:5], 7)
        assert list(numbers) == [0, 0, 7, 7, 7, 0, 0, 0, 0, 0]

    def test_a_worker_writes_through_a_step(self, call: Callable[..., Any]) -> None:
        data = bytearray(b"abcdef")
        call(views.write_at, memoryview(data)[::-2], 0, ord("X"))
        assert data == b"abcdeX"

    def test_a_worker_writes_to_several_dimensions_and_to_none(
        self, call: Callable[..., Any]
    ) -> None:
        matrix = array.array("i", range(12))
        call(views.write_at, memoryview(matrix).cast("B").cast("i", shape=[3, 4]), (1, 2), -1)
        assert matrix[6] == -1
        number = array.array("d", [1.5])
        call(views.write_at, memoryview(number).cast("B").cast("d", shape=[]), (), 2.5)
        assert number[0] == 2.5

    def test_a_worker_fills_views_wherever_they_are(self, call: Callable[..., Any]) -> None:
        data = [bytearray(10) for _ in range(5)]
        a, b, c, d, e = map(memoryview, data)
        assert call(views.fill_all, 7, a, [b, {"c": c}], record=views.Record(d), tuple=((e,),)) == 5
        assert data == [b"\7" * 10] * 5

    def test_a_readonly_view_cannot_be_written_in_the_worker(
        self, call: Callable[..., Any]
    ) -> None:
        for view in (memoryview(b"abc"), memoryview(bytearray(b"abc")).toreadonly()):
            with pytest.raises(TypeError, match="read-only"):
                call(views.write_at, view, 0, 7)
            assert view == b"abc"

    def test_a_readonly_result_cannot_be_written(self, call: Callable[..., Any]) -> None:
        view = call(views.make_readonly, 3)
        with pytest.raises(TypeError, match="read-only"):
            view[0] = 7

    def test_a_readonly_view_shows_what_its_owner_writes(self) -> None:
        async def main() -> None:
            data = bytearray(b"abc")
            async with Runner(workers=1) as runner:
                await runner.run(views.keep, memoryview(data).toreadonly())
                data[1] = ord("Y")
                assert await runner.run(views.read_kept) == b"aYc"

        asyncio.run(main())

    def test_the_caller_sees_later_writes_of_the_worker_and_the_worker_the_callers(self) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                view = await runner.run(views.lend_own, b"abc")
                assert not view.readonly
                await runner.run(views.write_own, 0, ord("X"))
                assert view == b"Xbc"
                view[1] = ord("Y")
                assert await runner.run(views.read_own) == b"XYc"

        asyncio.run(main())

    def test_a_worker_sees_later_writes_of_the_caller_and_the_caller_the_workers(self) -> None:
        async def main() -> None:
            data = bytearray(b"abc")
            async with Runner(workers=1) as runner:
                await runner.run(views.keep, memoryview(data))
                data[0] = ord("X")
                assert await runner.run(views.read_kept) == b"Xbc"
                await runner.run(views.write_kept, 1, ord("Y"))
                assert data == b"XYc"

        asyncio.run(main())

    def test_several_workers_fill_parts_of_one_buffer_at_once(self) -> None:
        async def main() -> None:
            data = bytearray(4_000)
            whole = memoryview(data)
            async with Runner(workers=4) as runner:
                await asyncio.gather(
                    *(
                        runner.run(views.fill, whole[n * 100 : (n + 1) * 100], n + 1)
                        for n in range(40)
                    )
                )
            assert data == b"".join(bytes([n + 1]) * 100 for n in range(40))

        asyncio.run(main())


def closes(thing: Any) -> bool:
    try:
        thing.close()
    except BufferError:
        return False
    return True


class TestSentOn:
    def test_a_part_that_comes_back_is_the_callers_own_memory(
        self, call: Callable[..., Any]
    ) -> None:
        data = bytearray(b"abcdef")
        part = call(views.part_of, memoryview(data), 2, 5)
        part[0] = ord("X")
        assert data == b"abXdef"
        backwards = call(views.part_of, part, 2, None, -1)
        backwards[0] = ord("Y")
        assert data == b"abXdYf"

    def test_a_view_goes_to_and_fro_many_times_and_stays_the_same_memory(
        self, call: Callable[..., Any]
    ) -> None:
        data = bytearray(200)
        view = memoryview(data)
        for n in range(50):
            view = call(views.part_of, view, 1, None)
            view[0] = n
        assert data[1:51] == bytes(range(50))
        del view
        assert eventually(lambda: resizable(data))

    def test_the_memory_of_one_worker_is_written_by_another(self) -> None:
        async def main() -> None:
            async with Runner(workers=1) as first, Runner(workers=1) as second:
                view = await first.run(views.lend_own, b"abc")
                await second.run(views.write_at, view, 0, ord("X"))
                assert await first.run(views.read_own) == b"Xbc"
                again = await second.run(views.part_of, view, 1, 3)
                again[0] = ord("Y")
                assert await first.run(views.read_own) == b"XYc"
                await second.run(views.keep, again)
                await first.run(views.write_own, 2, ord("Z"))
                assert await second.run(views.read_kept) == b"YZ"

        asyncio.run(main())

    def test_a_worker_gets_its_own_memory_back(self) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                view = await runner.run(views.lend_own, b"abc")
                await runner.run(views.write_at, view, 0, ord("X"))
                assert await runner.run(views.read_own) == b"Xbc"
                await runner.run(views.keep, view)
                del view
                await runner.run(views.write_own, 1, ord("Y"))
                assert await runner.run(views.read_kept) == b"XYc"
                with pytest.raises(BufferError):
                    await runner.run(views.resize_own)
                await runner.run(views.drop_kept)
                await runner.run(views.resize_own)

        asyncio.run(main())

    def test_the_owner_gets_it_back_after_the_last_of_all(self, signals: Signals) -> None:
        async def main() -> None:
            async with Runner(workers=1) as first, Runner(workers=1) as second:
                view = await first.run(views.lend, b"abc", signals.fd)
                await second.run(views.keep, view)
                del view
                await first.run(values.echo, 1)
                assert not signals.any_came()
                assert await second.run(views.read_kept) == b"abc"
                await second.run(views.drop_kept)
                assert await signals.arrive() == b"r"

        asyncio.run(main())

    def test_a_worker_that_looks_at_the_memory_of_one_that_is_gone(self, signals: Signals) -> None:
        async def main() -> None:
            async with Runner(workers=1) as second:
                async with Runner(workers=1) as first:
                    await second.run(views.keep, await first.run(views.lend, b"abc", signals.fd))
                assert await second.run(views.read_kept) == b"abc"
                assert not signals.any_came()
                await second.run(views.drop_kept)
                assert await signals.arrive() == b"r"

        asyncio.run(main())


class TestGivenBack:
    """The exporter has its buffer back promptly, and exactly once."""

    def test_the_callers_bytearray_cannot_be_resized_while_a_worker_looks_at_it(
        self, gate: Gate
    ) -> None:
        async def main() -> None:
            data = bytearray(b"abc")
            async with Runner(workers=1) as runner, gate:
                held = runner.submit(views.hold, *gate.fds, memoryview(data))
                await gate.reached()
                with pytest.raises(BufferError):
                    data.append(0)
                gate.open()
                await held
                assert await until(lambda: resizable(data))
                await runner.run(views.keep, memoryview(data))
                with pytest.raises(BufferError):
                    data.append(0)
                await runner.run(views.drop_kept)
                assert await until(lambda: resizable(data))

        asyncio.run(main())

    def test_a_workers_bytearray_cannot_be_resized_while_the_caller_looks_at_it(self) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                view = await runner.run(views.lend_own, b"abc")
                part = view[1:]
                for _ in range(2):
                    with pytest.raises(BufferError):
                        await runner.run(views.resize_own)
                    view.release()
                del part
                await runner.run(views.resize_own)  # what was let go before a call is back in it
                assert await runner.run(views.read_own) == b"abc\0"

        asyncio.run(main())

    def test_a_loop_that_sleeps_gives_a_callers_buffer_back(
        self, gate: Gate, signals: Signals
    ) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            async with Runner(workers=1) as runner, gate:
                await runner.run(views.keep, memoryview(exporter))
                assert exporter.returned == 0
                dropping = runner.submit(views.drop_kept_and_wait, *gate.fds)
                await signals.arrive()  # and the call has not ended: nothing else wakes the loop
                assert not dropping.done()
                gate.open()
                await dropping
            assert (exporter.lent, exporter.returned) == (1, 1)
            assert not signals.any_came()

        asyncio.run(main())

    def test_an_idle_worker_gives_its_buffer_back(self, signals: Signals) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                view = await runner.run(views.lend, b"abc", signals.fd)
                assert not signals.any_came()
                del view
                await signals.arrive()
                for view in [await runner.run(views.lend, b"abc", signals.fd) for _ in range(10)]:
                    assert view == b"abc"
                    view.release()
                await signals.arrive(10)
                assert not signals.any_came()

        asyncio.run(main())

    def test_an_idle_worker_gives_a_buffer_back_that_another_thread_drops(
        self, signals: Signals
    ) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                box = [await runner.run(views.lend, b"abc", signals.fd)]
                thread = threading.Thread(target=box.clear)
                thread.start()
                thread.join()
                await signals.arrive()

        asyncio.run(main())

    def test_a_buffer_comes_back_with_no_loop_at_all(self, signals: Signals) -> None:
        with Runner(workers=1).start() as runner:
            view = asyncio.run(runner.run(views.lend, b"abc", signals.fd))
            assert view == b"abc"
            del view
            signals.arrive_blocking()

    def test_a_callers_buffer_comes_back_with_no_loop_at_all(self, signals: Signals) -> None:
        exporter = views.Exporter(bytearray(b"abc"), signals.fd)
        with Runner(workers=1).start() as runner:
            asyncio.run(runner.run(views.keep, memoryview(exporter)))
            assert not exporter.returned
        assert eventually(lambda: exporter.returned == 1)

    def test_a_busy_worker_gives_its_buffer_back_after_its_task_at_the_latest(
        self, gate: Gate, signals: Signals
    ) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                view = await runner.run(views.lend, b"abc", signals.fd)
                busy = runner.submit(views.hold, *gate.fds)
                await gate.reached()
                del view
                gate.open()
                await busy
                await signals.arrive()

        asyncio.run(main())

    def test_every_exporter_in_a_nested_value_has_its_buffer_back(self, signals: Signals) -> None:
        async def main() -> None:
            exporters = [views.Exporter(bytearray(b"abc"), signals.fd) for _ in range(4)]
            a, b, c, d = exporters
            async with Runner(workers=1) as runner:
                call = runner.run(
                    views.fill_all,
                    7,
                    memoryview(a),
                    [{"b": memoryview(b)}],
                    views.Record(memoryview(c)),
                    d=(memoryview(d), 1),
                )
                assert await call == 4
                del call
                await signals.arrive(4)
                got = await runner.run(views.lend_in_containers, b"abc", signals.fd)
                assert got["views"][0] == got["views"][1][0].view == b"abc"
                del got
                await signals.arrive(2)
            assert [(each.lent, each.returned) for each in exporters] == [(1, 1)] * 4
            assert not signals.any_came()

        asyncio.run(main())

    def test_views_in_a_circle_of_garbage_are_let_go_when_it_is_collected(
        self, signals: Signals
    ) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                circle: list[Any] = [await runner.run(views.lend, b"abc", signals.fd)]
                circle.append(circle)
                del circle
                gc.collect()
                await signals.arrive()

        asyncio.run(main())

    def test_a_failed_task_gives_its_arguments_back(self, signals: Signals) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                view = memoryview(views.Exporter(bytearray(b"abc"), signals.fd))
                with pytest.raises(LookupError):
                    await runner.run(views.fail, view, [view])
                del view
                await signals.arrive()

        asyncio.run(main())

    def test_a_refused_call_gives_its_arguments_back(self, signals: Signals) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                exporter = views.Exporter(bytearray(b"abc"), signals.fd)
                with pytest.raises(NotShareableError):
                    await runner.run(
                        views.nothing,
                        memoryview(exporter),
                        views.Record(memoryview(exporter)),
                        threading.Lock(),
                    )
                gc.collect()  # the traceback holds the arguments, too
                await signals.arrive(2)
                assert (exporter.lent, exporter.returned) == (2, 2)

        asyncio.run(main())

    def test_a_result_that_cannot_cross_gives_its_views_back(self, signals: Signals) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                with pytest.raises(NotShareableError, match=r"result\[1\]"):
                    await runner.run(views.lend_and_fail, b"abc", signals.fd)
                await signals.arrive()

        asyncio.run(main())

    def test_a_call_that_is_cancelled_in_the_queue_gives_its_arguments_back(
        self, gate: Gate, signals: Signals
    ) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            async with Runner(workers=1) as runner, gate:
                held = runner.submit(views.hold, *gate.fds)
                await gate.reached()
                queued = runner.submit(views.nothing, memoryview(exporter))
                assert exporter.returned == 0
                queued.cancel()
                await signals.arrive()  # the worker is still busy
                assert not held.done()
                gate.open()
            assert (exporter.lent, exporter.returned) == (1, 1)

        asyncio.run(main())

    def test_a_call_that_is_cancelled_while_it_runs_gives_back_what_it_had_and_made(
        self, gate: Gate, signals: Signals
    ) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                running = runner.submit(views.lend_after, *gate.fds, b"abc", signals.fd)
                await gate.reached()
                running.cancel()
                gate.open()
                assert await signals.arrive() == b"r"

        asyncio.run(main())

    def test_a_result_that_arrives_after_its_future_was_cancelled(self, signals: Signals) -> None:
        """At whatever moment that is."""

        async def main() -> None:
            async with Runner(workers=1) as runner:
                for steps in range(100):
                    future = runner.submit(views.lend, b"abc", signals.fd)
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    future.cancel()
                    del future
                await runner.drain()
                await runner.run(views.lend, b"abc", signals.fd, b"l")
                await last(signals, b"l")
                assert await runner.run(views.still_lent) == 0

        async def last(signals: Signals, mark: bytes) -> None:
            while await signals.arrive() != mark:
                pass

        asyncio.run(main())

    @pytest.mark.parametrize("cancel_pending", [False, True])
    def test_a_runner_that_is_closed_gives_everything_back(
        self, cancel_pending: bool, gate: Gate, signals: Signals
    ) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            async with Runner(workers=1) as runner, gate:
                await runner.run(views.keep, memoryview(exporter))
                held = runner.submit(views.hold, *gate.fds, memoryview(exporter))
                await gate.reached()
                queued = [runner.submit(views.nothing, memoryview(exporter)) for _ in range(10)]
                runner.close(cancel_pending=cancel_pending)
                gate.open()
                await held
                await asyncio.wait(queued)
            await signals.arrive(12)
            assert (exporter.lent, exporter.returned) == (12, 12)

        asyncio.run(main())

    def test_an_exception_that_leaves_the_block_gives_everything_back(
        self, gate: Gate, signals: Signals
    ) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            with pytest.raises(LookupError):
                async with Runner(workers=1) as runner:
                    await runner.run(views.keep, memoryview(exporter))
                    for _ in range(5):
                        runner.submit(views.nothing, memoryview(exporter))
                    raise LookupError
            await signals.arrive(6)
            assert (exporter.lent, exporter.returned) == (6, 6)

        asyncio.run(main())

    def test_a_loop_that_is_closed_gives_everything_back(
        self, gate: Gate, signals: Signals
    ) -> None:
        exporter = views.Exporter(bytearray(b"abc"), signals.fd)

        async def leave() -> None:
            runner.submit(views.hold, *gate.fds, memoryview(exporter))
            await gate.reached()
            for _ in range(5):
                runner.submit(views.nothing, memoryview(exporter))
                runner.submit(views.lend, b"abc", signals.fd, b"w")

        with Runner(workers=1).start() as runner, gate:
            asyncio.run(leave())
            gate.open()
        assert eventually(lambda: exporter.returned == exporter.lent == 6)
        found = signals.arrive_blocking(6)
        while signals.any_came():
            found += signals.arrive_blocking()
        assert found.count(b"r") == 6

    def test_buffers_of_a_loop_in_a_thread_that_has_ended_come_back(self, signals: Signals) -> None:
        exporter = views.Exporter(bytearray(b"abc"), signals.fd)

        async def main() -> None:
            async with Runner(workers=1) as runner:
                thread = threading.Thread(
                    target=asyncio.run, args=(runner.run(views.keep, memoryview(exporter)),)
                )
                thread.start()
                await asyncio.to_thread(thread.join, SOON)
                assert not exporter.returned
                await runner.run(views.drop_kept)
                assert await until(lambda: exporter.returned == 1)

        asyncio.run(main())

    def test_an_exporter_that_raises_as_its_buffer_comes_back_harms_nobody(
        self, program: Program
    ) -> None:
        ended = program("""
            import asyncio, sys
            from aiointerpreters import Runner
            from workfns import views, values

            class Bad(views.Exporter):
                def __release_buffer__(self, view):
                    super().__release_buffer__(view)
                    raise LookupError("on purpose")

            sys.unraisablehook = lambda _: None
            bad = Bad(bytearray(3), -1)

            async def main():
                async with Runner(workers=1) as runner:
                    for _ in range(10):
                        await runner.run(views.nothing, memoryview(bad))
                    assert await runner.run(values.square, 3) == 9

            if __name__ == "__main__":
                asyncio.run(main())
        """)
        ended.assert_ended()


class TestRefused:
    CASES: ClassVar[dict[str, Any]] = {
        "args[0]": lambda view: ((view,), {}),
        "args[1]['key'][1]": lambda view: ((1, {"key": [0, view]}), {}),
        "kwargs['n'][0]": lambda view: ((), {"n": (view,)}),
    }

    @pytest.mark.parametrize("path", CASES)
    def test_a_released_view_is_refused_with_its_path(
        self, path: str, call: Callable[..., Any]
    ) -> None:
        args, kwargs = self.CASES[path](views.released())
        with pytest.raises(NotShareableError, match="released") as caught:
            call(values.everything, *args, **kwargs)
        assert f"{path}:" in str(caught.value)
        assert call(values.square, 2) == 4

    def test_a_released_view_inside_of_an_object_is_refused(self, call: Callable[..., Any]) -> None:
        with pytest.raises(NotShareableError, match=r"args\[0\].*"):
            call(values.echo, [views.Record(views.released())])

    def test_a_released_view_as_a_result_is_refused_with_its_path(
        self, call: Callable[..., Any]
    ) -> None:
        with pytest.raises(NotShareableError, match=r"result: .*released"):
            call(views.released)
        with pytest.raises(NotShareableError, match=r"result\['key'\]\[1\]: .*released"):
            call(views.released_inside)

    def test_a_view_may_be_released_as_soon_as_it_is_sent(
        self, gate: Gate, signals: Signals
    ) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            async with Runner(workers=1) as runner, gate:
                runner.submit(views.hold, *gate.fds)
                await gate.reached()
                with memoryview(exporter) as view, view[1:] as part:
                    future = runner.submit(views.facts, part)
                gate.open()
                assert (await future)[-1] == b"bc"
            await signals.arrive()

        asyncio.run(main())


class TestBeyondTheRunner:
    def test_a_result_outlives_its_runner(self, signals: Signals) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                view = await runner.run(views.lend, b"still there", signals.fd)
                await runner.run(worker.mark_at_exit, signals.fd, b"x")
            assert view == b"still there"
            view[0] = ord("S")
            assert view.tobytes() == b"Still there"
            assert not signals.any_came()
            del view
            assert await signals.arrive(2) == b"rx"  # the buffer first, then its interpreter

        asyncio.run(main())

    @pytest.mark.skipif(not LINUX, reason="counts threads in /proc")
    def test_the_workers_thread_ends_with_the_last_view(self) -> None:
        before = native_threads()

        async def main() -> tuple[memoryview, memoryview]:
            async with Runner(workers=2) as runner:
                view, _ = await asyncio.gather(
                    runner.run(views.make, 1_000, 7), runner.run(views.make, 1_000, 8)
                )
            return view[10:20], view

        part, view = asyncio.run(main())
        del view
        assert part == b"\7" * 10
        del part
        gc.collect()
        assert eventually(lambda: native_threads() <= before)

    def test_a_result_outlives_a_runner_that_failed(self, signals: Signals) -> None:
        async def main() -> None:
            with pytest.raises(LookupError):
                async with Runner(workers=1) as runner:
                    view = await runner.run(views.lend, b"still there", signals.fd)
                    raise LookupError
            assert view == b"still there"
            del view
            await signals.arrive()

        asyncio.run(main())

    def test_a_result_outlives_a_runner_that_is_collected(self, signals: Signals) -> None:
        async def main() -> memoryview:
            with Runner(workers=1).start() as runner:
                return await runner.run(views.lend, b"still there", signals.fd)

        view = asyncio.run(main())
        gc.collect()
        assert view == b"still there"
        del view
        signals.arrive_blocking()

    def test_closing_does_not_wait_for_views(self) -> None:
        with Runner(workers=1).start() as runner:
            view = asyncio.run(runner.run(views.make, 10, 7))
        runner.close()
        assert view == b"\7" * 10

    def test_a_view_of_a_closed_runner_can_be_sent_on(self, signals: Signals) -> None:
        async def main() -> None:
            async with Runner(workers=1) as first:
                view = await first.run(views.lend, b"abc", signals.fd)
            async with Runner(workers=1) as second:
                await second.run(views.write_at, view, 0, ord("X"))
                assert view == b"Xbc"
                part = await second.run(views.part_of, view, 1, 3)
            del view
            assert part == b"bc"
            assert not signals.any_came()
            del part
            await signals.arrive()

        asyncio.run(main())

    def test_many_runners_come_and_go_and_their_views_stay(self, signals: Signals) -> None:
        async def main() -> None:
            kept: list[memoryview] = []
            for n in range(10):
                async with Runner(workers=1) as runner:
                    kept.append(await runner.run(views.lend, bytes([n]) * 100, signals.fd))
            assert [view[99] for view in kept] == list(range(10))
            kept.reverse()
            while kept:
                kept.pop()
                await signals.arrive()

        asyncio.run(main())

    def test_a_worker_that_ends_gives_back_the_callers_view_that_it_kept(
        self, signals: Signals
    ) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            async with Runner(workers=1) as runner:
                await runner.run(views.keep, memoryview(exporter))
                assert not exporter.returned
            await signals.arrive()
            assert (exporter.lent, exporter.returned) == (1, 1)

        asyncio.run(main())

    def test_an_interpreter_where_one_was_that_is_gone_is_another(self, program: Program) -> None:
        """With all memory from one arena an interpreter gets the address of an earlier one.

        The views are of interpreters that have ended with their own: what holds them must neither
        be taken for the new interpreter's, nor be freed in it.
        """
        ended = program(
            """
            import asyncio
            from aiointerpreters import Queue, Runner
            from workfns import queues

            async def start(workers, *found):
                async with Runner(
                    workers=workers, initializer=queues.take_views_at, initargs=(lent, told, found)
                ):
                    return [await told.aget() for _ in range(workers)]

            async def main():
                await start(6)
                await start(8)
                async with Runner(workers=1) as runner:
                    gone = await runner.run(queues.put_views_of_a_runner, lent, told, 8, 1_000)
                for number in range(20):
                    if set(gone) & set(await start(8 + number % 5, *gone)):
                        break

            lent, told = Queue(), Queue()
            asyncio.run(main())
            """,
            env={"MALLOC_ARENA_MAX": "1"},
        )
        ended.assert_fine()


PROGRAM = """
import asyncio, atexit, os, sys

def read_late():
    try:
        text = bytes(view)
    except ValueError:  # released, which is fair
        text = b"abc"
    print("late:", text.decode(), flush=True)

{before}
from aiointerpreters import Runner
from helpers.process import at_rest
from workfns import values, views

{body}

if __name__ == "__main__":
    view = asyncio.run(main())
    {end}
"""

BODIES = {
    "closed": """
        async def main():
            async with Runner(workers=1) as runner:
                return await runner.run(views.lend_own, b"abc")
    """,
    "open": """
        async def main():
            global runner
            runner = Runner(workers=2).start()
            return await runner.run(views.lend_own, b"abc")
    """,
    "exporter": """
        async def main():
            async with Runner(workers=1) as runner:
                return await runner.run(views.lend, b"abc", -1)
    """,
    "in a circle": """
        class Circle:
            pass

        async def main():
            async with Runner(workers=1) as runner:
                view = await runner.run(views.lend, b"abc", -1)
                circle = Circle()
                circle.self = circle
                circle.view = view[1:]
                return view
    """,
    "kept by a worker": """
        async def main():
            global runner
            runner = Runner(workers=1).start()
            view = memoryview(views.Exporter(bytearray(b"abc"), -1))
            await runner.run(views.keep, view)
            return view
    """,
    "of one worker in another": """
        async def main():
            global first, second
            first, second = Runner(workers=1).start(), Runner(workers=1).start()
            view = await first.run(views.lend, b"abc", -1)
            await second.run(views.keep, view)
            await first.run(views.keep, await second.run(views.lend, b"abc", -1))
            return view
    """,
    "on its way": """
        async def main():
            global runner
            runner = Runner(workers=1).start()
            view = memoryview(bytearray(b"abc"))
            for _ in range(20):
                runner.submit(views.keep, memoryview(bytearray(1_000)))
                runner.submit(views.lend, b"abc", -1)
            return view
    """,
}


class TestEndOfTheProgram:
    """With views that are still alive."""

    @staticmethod
    def write(body: str, before: str = "", end: str = "pass") -> str:
        return PROGRAM.format(body=textwrap.dedent(BODIES[body]), before=before, end=end)

    @pytest.mark.parametrize("body", BODIES)
    @pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "raise LookupError", "os._exit(4)"])
    def test_it_ends_with_its_own_status(self, body: str, end: str, program: Program) -> None:
        status = {"pass": 0, "sys.exit(3)": 3, "raise LookupError": 1, "os._exit(4)": 4}[end]
        program(self.write(body, end=end)).assert_ended(status)

    @pytest.mark.parametrize("body", BODIES)
    def test_a_view_may_be_read_at_exit_after_everything_of_ours(
        self, body: str, program: Program
    ) -> None:
        ended = program(self.write(body, before="atexit.register(read_late)"))
        ended.assert_ended()
        assert ended.out == "late: abc\n"

    @pytest.mark.parametrize("body", BODIES)
    def test_a_view_may_be_read_while_the_interpreter_is_torn_down(
        self, body: str, program: Program
    ) -> None:
        before = textwrap.dedent("""
            class Late:
                def __init__(self):
                    # Hidden where the interpreter finds it late.
                    self.circle = self
                    sys.late = self

                def __del__(self, write=os.write, bytes=bytes, ValueError=ValueError):
                    try:
                        text = bytes(self.view)
                    except ValueError:
                        text = b"abc"
                    write(1, b"late: " + text)
        """)
        end = "late = Late(); late.view = view; del late"
        ended = program(self.write(body, before=before, end=end))
        ended.assert_ended()
        assert ended.out in ("late: abc", "")

    @pytest.mark.parametrize("body", BODIES)
    def test_a_view_may_be_let_go_at_exit_after_everything_of_ours(
        self, body: str, program: Program
    ) -> None:
        before = "atexit.register(lambda: globals().pop('view'))"
        program(self.write(body, before=before)).assert_ended()

    @pytest.mark.parametrize("body", BODIES)
    def test_a_thread_may_hold_a_view_to_the_end(self, body: str, program: Program) -> None:
        end = """
    import threading
    held = threading.Event()
    def hold(view):
        held.set()
        threading.Event().wait()
    threading.Thread(target=hold, args=(view,), daemon=True).start()
    assert held.wait(10)
"""
        program(self.write(body, end=end.strip())).assert_ended()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.parametrize(
        "body", [pytest.param(body, marks=busy if body == "on its way" else ()) for body in BODIES]
    )
    @pytest.mark.parametrize("end", ["sys.exit(5)", "os._exit(5)"])
    def test_a_forked_child_may_read_and_drop_a_view(
        self, body: str, end: str, program: Program
    ) -> None:
        rest = "assert at_rest(runner)" if body == "open" else "pass"
        fork = f"""
    {rest}
    child = os.fork()
    if not child:
        assert bytes(view) == b"abc"
        del view
        {end}
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    assert bytes(view) == b"abc"
"""
        source = self.write(body, end=fork.strip())
        program(source, flags=["-W", "ignore::DeprecationWarning"]).assert_ended()


class TestRefusedViews:
    def test_references_to_objects_are_refused(self, call: Callable[..., Any]) -> None:
        pointers = memoryview((ctypes.py_object * 2)([1], {}))
        for value in (pointers, [pointers], views.Record(pointers)):
            with pytest.raises(NotShareableError, match="references to Python objects"):
                call(values.echo, value)

    def test_a_field_may_have_that_letter_in_its_name(self, call: Callable[..., Any]) -> None:
        class Pair(ctypes.Structure):
            _fields_ = (("OO", ctypes.c_int), ("b", ctypes.c_int))

        pair = Pair(1, 2)
        assert call(views.facts, memoryview(pair)) == views.facts(memoryview(pair))

    def test_what_a_failed_call_was_lent_is_back_with_its_exception(self, runner: Any) -> None:
        async def main() -> None:
            for _ in range(50):
                data = bytearray(10)
                with pytest.raises(IndexError):
                    await runner.run(views.write_at, memoryview(data), 1000, 3)
                data.append(1)

        asyncio.run(main())
