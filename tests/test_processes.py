"""Functions that can't run in a subinterpreter, in processes: the choice, and what a call is there.

faulthandler refuses subinterpreters on every Python, so that these tests need nothing installed.
"""

import asyncio
import contextvars
import os
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import (
    BrokenRunner,
    InterpreterError,
    NotShareableError,
    Queue,
    Runner,
    RunnerError,
    RunnerFull,
    Shared,
    UnsupportedModule,
    _wire,
)
from helpers.process import until
from workfns import lazily, refusing, values


def run(main: Callable[[Runner], Any], **options: Any) -> Any:
    async def with_runner() -> Any:
        async with Runner(**{"workers": 2, "unsupported": "process"} | options) as runner:
            return await main(runner)

    return asyncio.run(with_runner())


class TestByDefault:
    """unsupported="error" """

    def test_the_error_names_function_module_and_options(self) -> None:
        async def main(runner: Runner) -> None:
            with pytest.raises(UnsupportedModule) as caught:
                await runner.run(refusing.pid)
            text = str(caught.value)
            assert "workfns.refusing.pid" in text
            assert "faulthandler" in text
            assert 'Runner(unsupported="process")' in text
            assert 'options(where="process")' in text
            assert caught.value.name == "faulthandler"
            assert caught.value.function == "workfns.refusing.pid"
            assert isinstance(caught.value, ImportError)
            assert isinstance(caught.value.__cause__, ImportError)
            assert await runner.run(values.square, 3) == 9

        run(main, unsupported="error")

    def test_coroutines_maps_and_streams_say_so_too(self) -> None:
        async def main(runner: Runner) -> None:
            with pytest.raises(UnsupportedModule, match="async_square"):
                await runner.run(refusing.async_square, 3)
            with pytest.raises(UnsupportedModule, match="square"):
                _ = [x async for x in runner.map(refusing.square, range(5))]
            with pytest.raises(UnsupportedModule, match="count"):
                _ = [x async for x in runner.stream(refusing.count, 5)]

        run(main, unsupported="error")

    def test_an_import_in_the_body_fails_with_the_same_advice(self) -> None:
        async def main(runner: Runner) -> None:
            with pytest.raises(ImportError) as caught:
                await runner.run(lazily.body_imports)
            assert not isinstance(caught.value, UnsupportedModule)
            assert 'options(where="process")' in caught.value.__notes__[-1]
            in_process = runner.options(where="process")
            assert await in_process.run(lazily.body_imports) == "faulthandler"

        run(main, unsupported="error")
        run(main)

    @pytest.mark.parametrize("unsupported", ["processes", "", None])
    def test_another_option_is_refused(self, unsupported: Any) -> None:
        with pytest.raises(ValueError, match="unsupported must be 'error' or 'process'"):
            Runner(unsupported=unsupported)
        with pytest.raises(TypeError, match="unsupported must be a string"):
            Runner(unsupported=3)  # type: ignore[arg-type]

    def test_another_where_is_refused(self) -> None:
        with pytest.raises(ValueError, match="where must be 'interpreter' or 'process'"):
            Runner().options(where="here")  # type: ignore[arg-type]


class TestTheChoice:
    def test_what_is_unsupported_runs_in_a_process_and_the_rest_does_not(self) -> None:
        async def main(runner: Runner) -> None:
            assert await runner.run(values.process_id) == os.getpid()
            assert runner.stats().processes == 0
            there = await runner.run(refusing.pid)
            assert there != os.getpid()
            assert await runner.submit(refusing.pid) != os.getpid()
            assert await runner.wrap(refusing.pid)() != os.getpid()
            stats = runner.stats()
            assert stats.in_processes == ("workfns.refusing.pid",)
            assert 1 <= stats.processes <= 2
            assert await runner.run(values.process_id) == os.getpid()

        run(main)

    def test_many_calls_at_once_are_decided_by_one_probe(self) -> None:
        async def main(runner: Runner) -> None:
            calls = (runner.run(refusing.square, n) for n in range(50))
            assert await asyncio.gather(*calls) == [n * n for n in range(50)]
            assert await asyncio.gather(*(runner.submit(refusing.echo, n) for n in range(50)))
            assert runner.stats().done <= 102

        run(main)

    def test_an_argument_may_be_the_reason(self) -> None:
        async def main(runner: Runner) -> None:
            assert await runner.run(lazily.type_name, 1) == "int"
            value = refusing.Value()
            assert await runner.run(lazily.type_name, value) == "Value"
            assert await runner.submit(lazily.type_name, [value]) == "list"

        run(main)

    def test_a_context_variable_may_be_the_reason(self) -> None:
        async def main(runner: Runner) -> None:
            assert await runner.run(lazily.request) == "none"
            assert await runner.run(os.getpid) == os.getpid()
            refusing.REQUEST.set("r1")
            for _ in range(2):
                assert await runner.run(lazily.request) == "r1"
                assert await runner.run(os.getpid) != os.getpid()
            assert [n async for n in runner.map(values.square, range(3))] == [0, 1, 4]

        contextvars.Context().run(run, main, context=[refusing.REQUEST])

    def test_where_overrides_it(self) -> None:
        async def main(runner: Runner) -> None:
            assert await runner.options(where="process").run(values.process_id) != os.getpid()
            assert await runner.options(where="thread").run(refusing.pid) == os.getpid()
            with pytest.raises(UnsupportedModule):
                await runner.options(where="interpreter").run(refusing.pid)

        run(main)

    def test_a_lambda_goes_by_value(self) -> None:
        async def main(runner: Runner) -> None:
            assert await runner.options(where="process").run(lambda x: x + 1, 4) == 5

        run(main)

    def test_a_method_and_a_partial(self) -> None:
        from functools import partial

        async def main(runner: Runner) -> None:
            assert await runner.run(partial(refusing.square, 5)) == 25
            assert await runner.options(where="process").run("abc".upper) == "ABC"

        run(main)

    def test_an_initializer_that_is_unsupported_sends_everything_there(self) -> None:
        async def main(runner: Runner) -> None:
            assert await runner.run(refusing.remembered) == 42
            assert await runner.run(values.process_id) != os.getpid()
            assert await runner.submit(values.square, 4) == 16

        run(main, initializer=refusing.remember, initargs=(42,))

    def test_preload_passes_over_it_in_interpreters(self) -> None:
        async def main(runner: Runner) -> None:
            assert await runner.run(values.process_id) == os.getpid()
            assert await runner.run(refusing.pid) != os.getpid()

        run(main, preload=("faulthandler",))


@pytest.mark.parametrize("shared_from", [None, 1000])
class TestValues:
    @pytest.fixture(autouse=True)
    def _share(self, shared_from: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have messages in shared memory that would go through the socket otherwise."""
        if shared_from is not None:
            monkeypatch.setattr(_wire, "SHARED_FROM", shared_from)

    def test_values_arrive_as_they_are(self) -> None:
        async def main(runner: Runner) -> None:
            for value in (
                None,
                {"a": [1, 2.5, (b"x", {3, 4})]},
                "text" * 50_000,
                b"\0\1" * 200_000,
                bytearray(b"y") * 400_000,
                "\ud800" * 40_000,
                frozenset([1]),
                refusing.OwnError,
            ):
                got = await runner.run(refusing.echo, value)
                assert got == value
                assert type(got) is type(value)

        run(main)

    @pytest.mark.parametrize("size", [3, 1_000_000])
    def test_memoryviews_arrive_with_their_layout(self, size: int) -> None:
        async def main(runner: Runner) -> None:
            data = bytearray(range(240)) * (size // 240 + 1)
            views: list[memoryview] = [
                memoryview(data),
                memoryview(bytes(data)),
                memoryview(data)[::2],
                memoryview(data)[:240].cast("i", (3, 20)),
                memoryview(data)[:0],
            ]
            for view in views:
                got = await runner.run(refusing.echo, view)
                assert type(got) is memoryview
                assert (got.format, got.shape, got.readonly) == (
                    view.format,
                    view.shape,
                    view.readonly,
                )
                assert got.tolist() == view.tolist()
            assert await runner.run(refusing.add_in_place, memoryview(data)) == 1
            assert data[0] == 0  # it was the process's own memory

        run(main)

    def test_a_shared_value_arrives(self) -> None:
        async def main(runner: Runner) -> None:
            shared = Shared({"key": "x" * 100_000})
            assert await runner.run(refusing.kind_of, shared) == "dict"

        run(main)


def test_without_memfd_a_file_without_a_name_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire, "SHARED_FROM", 1000)
    monkeypatch.delattr(os, "memfd_create", raising=False)

    async def main(runner: Runner) -> None:
        data = bytearray(range(256)) * 1000
        assert await runner.run(refusing.echo, data) == data

    run(main)


class TestCalls:
    def test_an_argument_that_cannot_be_sent_is_named(self) -> None:
        async def main(runner: Runner) -> None:
            await runner.run(refusing.pid)
            for call in (runner.run, runner.submit):
                with pytest.raises(NotShareableError, match=r"args\[1\]\['key'\]\[0\]: Queue"):
                    await call(max, 1, {"key": [Queue()]})  # builtins can't refuse, but:
                with pytest.raises(NotShareableError, match=r"kwargs\['value'\]\[1\]: frame"):
                    await call(refusing.echo, value=[0, refusing.sys._getframe()])

        run(lambda runner: main(runner.options(where="process")))  # type: ignore[arg-type]

    def test_a_result_that_cannot_be_sent_is_named(self) -> None:
        async def main(runner: Runner) -> None:
            with pytest.raises(NotShareableError, match=r"result\['key'\]\[1\]: frame"):
                await runner.run(refusing.unsendable)
            assert await runner.run(refusing.square, 2) == 4

        run(main)

    def test_an_exception_arrives_as_it_is(self) -> None:
        async def main(runner: Runner) -> None:
            with pytest.raises(refusing.OwnError) as caught:
                await runner.run(refusing.fail)
            assert (caught.value.first, caught.value.second) == (7, "seven")
            assert caught.value.__notes__ == ["a note"]
            assert isinstance(caught.value.__cause__, KeyError)
            remote = str(caught.value.__cause__.__cause__)
            assert "in fail" in remote
            assert "_process_worker" not in remote
            with pytest.raises(InterpreterError, match="SystemExit"):
                await runner.run(refusing.exit_politely)

        run(main)

    def test_coroutine_functions(self) -> None:
        async def main(runner: Runner) -> None:
            assert await runner.run(refusing.async_square, 4) == 16
            assert await runner.options(where="thread").run(refusing.async_square, 5) == 25

        run(main)

    def test_map(self) -> None:
        async def main(runner: Runner) -> None:
            for where in (None, "process", "thread"):
                view = runner.options(where=where)
                got = [x async for x in view.map(refusing.square, range(40))]
                assert got == [n * n for n in range(40)]
            got = [x async for x in runner.map(values.square, range(40))]
            assert got == [n * n for n in range(40)]

        run(main)

    def test_a_worker_there_has_state_a_name_and_context(self) -> None:
        async def main(runner: Runner) -> None:
            refusing.REQUEST.set("r1")
            assert await runner.run(refusing.request) == "r1"
            await runner.run(refusing.remember, 5)
            assert await runner.run(refusing.remembered) == 5
            assert await runner.run(refusing.worker_name) == "mine-process-0"

        run(main, workers=1, name="mine", context=[refusing.REQUEST])

    def test_a_thread_sees_the_callers_objects(self) -> None:
        async def main(runner: Runner) -> None:
            value = object()
            refusing.REQUEST.set("r2")
            in_thread = runner.options(where="thread")
            assert await in_thread.run(refusing.echo, value) is value
            assert await in_thread.run(refusing.request) == "r2"
            with pytest.raises(refusing.OwnError):
                await in_thread.run(refusing.fail)
            with pytest.raises(InterpreterError, match="SystemExit"):
                await in_thread.run(refusing.exit_politely)

        run(main)

    def test_max_tasks_per_worker_renews_processes(self) -> None:
        async def main(runner: Runner) -> None:
            pids = [await runner.run(refusing.pid) for _ in range(4)]
            assert pids[0] == pids[1] != pids[2] == pids[3]

        run(main, workers=1, max_tasks_per_worker=2)

    def test_recycle_renews_them(self) -> None:
        async def main(runner: Runner) -> None:
            before = await runner.run(refusing.pid)
            await runner.recycle()
            assert await runner.run(refusing.pid) != before

        run(main, workers=1)

    def test_resize_starts_processes_for_calls_that_wait(self, tmp_path: Any) -> None:
        for name in "ab":
            os.mkfifo(tmp_path / name)

        async def main(runner: Runner) -> None:
            calls = [runner.submit(refusing.wait_for, str(tmp_path / name)) for name in "ab"]
            assert await until(lambda: runner.stats().busy_processes == 1)
            runner.resize(2)
            assert await until(lambda: runner.stats().busy_processes == 2)
            # The second may be let go first, as it runs.
            for name in "ba":
                await asyncio.to_thread((tmp_path / name).write_text, name)
            assert await asyncio.gather(*calls) == ["a", "b"]
            runner.resize(1)
            assert await until(lambda: runner.stats().processes == 1)
            assert await runner.run(refusing.square, 3) == 9

        run(main, workers=1)

    def test_idle_processes_end_down_to_the_least_number(self, tmp_path: Any) -> None:
        for name in "abc":
            os.mkfifo(tmp_path / name)

        async def main(runner: Runner) -> None:
            assert runner.stats().processes == 0
            calls = [runner.submit(refusing.wait_for, str(tmp_path / name)) for name in "abc"]
            assert await until(lambda: runner.stats().busy_processes == 3)
            for name in "abc":
                await asyncio.to_thread((tmp_path / name).write_text, name)
            assert await asyncio.gather(*calls) == ["a", "b", "c"]
            assert await until(lambda: runner.stats().processes == 1)
            assert await runner.run(refusing.square, 3) == 9

        run(main, workers=3, min_workers=1, idle_timeout=0.1)

    def test_max_pending_counts_them(self, tmp_path: Any) -> None:
        os.mkfifo(tmp_path / "fifo")

        async def main(runner: Runner) -> None:
            first = runner.submit(refusing.wait_for, str(tmp_path / "fifo"))
            with pytest.raises(RunnerFull):
                runner.submit(refusing.pid)
            later = asyncio.ensure_future(runner.run(refusing.square, 3))
            await asyncio.to_thread((tmp_path / "fifo").write_text, "go")
            assert await first == "go"
            assert await later == 9

        run(main, max_pending=1)

    def test_an_initializer_that_raises_there_breaks_it(self) -> None:
        async def main(runner: Runner) -> None:
            for _ in range(2):
                with pytest.raises(BrokenRunner, match="this initializer fails"):
                    await runner.run(refusing.pid)

        run(main, initializer=refusing.fail_to_begin)

    def test_priorities_are_kept(self, tmp_path: Any) -> None:
        os.mkfifo(tmp_path / "fifo")

        async def main(runner: Runner) -> None:
            await runner.run(refusing.pid)
            done: list[str] = []
            first = runner.submit(refusing.wait_for, str(tmp_path / "fifo"))
            calls = [
                runner.options(priority=priority).submit(refusing.echo, name)
                for priority, name in ((1, "last"), (0, "middle"), (-1, "first"))
            ]
            for call in calls:
                call.add_done_callback(lambda call: done.append(call.result()))
            await asyncio.to_thread((tmp_path / "fifo").write_text, "go")
            await asyncio.gather(first, *calls)
            await asyncio.sleep(0)  # for callbacks, of what was done when gather() looked
            assert done == ["first", "middle", "last"]

        run(main, workers=1)


class TestStreams:
    @pytest.mark.parametrize("where", [None, "process", "thread"])
    def test_all_items_come_in_order(self, where: Any) -> None:
        async def main(runner: Runner) -> None:
            view = runner.options(where=where)
            assert [x async for x in view.stream(refusing.count, 500)] == list(range(500))
            assert [x async for x in view.stream(refusing.async_count, 20)] == list(range(20))
            small = view.options(buffer=1)
            assert [x async for x in small.stream(refusing.count, 10)] == list(range(10))
            assert [x async for x in runner.stream(range, 5)] == list(range(5))

        run(main)

    @pytest.mark.parametrize("where", [None, "thread"])
    def test_an_error_comes_after_the_items(self, where: Any) -> None:
        async def main(runner: Runner) -> None:
            got = []
            with pytest.raises(refusing.OwnError):
                async for item in runner.options(where=where).stream(refusing.count_and_fail, 3):
                    got.append(item)
            assert got == [0, 1, 2]

        run(main)

    @pytest.mark.parametrize("where", ["process", "thread"])
    def test_leaving_early_closes_the_generator(self, where: Any, tmp_path: Any) -> None:
        async def main(runner: Runner) -> None:
            path = tmp_path / "closed"
            stream = runner.options(where=where).stream(refusing.count_for_ever, str(path))
            async for item in stream:
                if item == 300:
                    break
            await stream.aclose()
            assert path.read_text() == "closed"
            assert await runner.run(refusing.square, 3) == 9

        run(main, workers=1)


class TestSeveralLoops:
    def test_loops_in_threads_share_the_processes(self) -> None:
        with Runner(workers=2, unsupported="process").start() as runner:

            async def many() -> list[int]:
                return await asyncio.gather(*(runner.run(refusing.square, n) for n in range(20)))

            async def main() -> None:
                threads = (asyncio.to_thread(asyncio.run, many()) for _ in range(3))
                for got in await asyncio.gather(*threads):
                    assert got == [n * n for n in range(20)]

            asyncio.run(main())

    def test_a_closed_runner_takes_no_more(self) -> None:
        async def main() -> None:
            runner = Runner(workers=1, unsupported="process")
            with pytest.raises(RunnerError, match="not started"):
                await runner.options(where="process").run(refusing.pid)
            async with runner:
                await runner.run(refusing.pid)
            for view in (runner, runner.options(where="process"), runner.options(where="thread")):
                with pytest.raises(RunnerError, match="closed"):
                    await view.run(refusing.pid)

        asyncio.run(main())
