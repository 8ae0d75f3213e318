"""Log records of workers reach the program's handlers."""

import asyncio
import logging
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiointerpreters import Runner, _listening
from aiointerpreters._forwarding import LIMIT, Outlet
from helpers.gate import Gate
from helpers.limits import SOON
from helpers.process import eventually
from helpers.programs import Program
from workfns import classes, logs, values, worker

LISTENER = "aiointerpreters-listener"


class Collector(logging.Handler):
    """Keeps the records of workers; may be made to wait before it takes the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.is_open = threading.Event()
        self.is_open.set()
        self.has_come = threading.Event()
        self.has_dropped = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(("app", "aiointerpreters")):
            return
        self.has_come.set()
        assert self.is_open.wait(SOON)
        self.records.append(record)
        if record.name == "aiointerpreters":
            self.has_dropped.set()

    def messages(self, name: str = "app") -> list[str]:
        return [record.getMessage() for record in self.records if record.name == name]


@pytest.fixture
def handler() -> Iterator[Collector]:
    """A handler of the root logger."""
    collector = Collector()
    logging.root.addHandler(collector)
    yield collector
    collector.is_open.set()
    logging.root.removeHandler(collector)


@pytest.fixture
def set_level() -> Iterator[Callable[[str, int], None]]:
    """`set_level(name, level)`, until the end of the test."""
    before: list[tuple[str, int]] = []

    def set_level(name: str, level: int) -> None:
        before.append((name, logging.getLogger(name).level))
        logging.getLogger(name).setLevel(level)

    yield set_level
    for name, level in reversed(before):
        logging.getLogger(name).setLevel(level)


def in_worker(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """The result of one call in a runner of its own, which is closed then."""

    async def main() -> Any:
        async with Runner(workers=1) as runner:
            return await runner.run(fn, *args, **kwargs)

    return asyncio.run(main())


def listeners() -> int:
    return sum(thread.name == LISTENER for thread in threading.enumerate())


@pytest.fixture(scope="module", autouse=True)
def _no_listener_of_others() -> None:
    """A runner of another test may still end behind a loop that was closed."""
    _listening.stop()


class TestRecords:
    def test_a_record_reaches_the_handlers_of_the_program(self, handler: Collector) -> None:
        in_worker(logs.log, "app.part", logging.ERROR, "%s is %d", "x", 3)
        [record] = handler.records
        assert (record.name, record.levelno, record.levelname) == ("app.part", 40, "ERROR")
        assert record.getMessage() == "x is 3"
        assert logging.Formatter().format(record) == "x is 3"

    def test_it_tells_of_the_place_and_time_in_the_worker(self, handler: Collector) -> None:
        told = in_worker(logs.log_and_tell, "app")
        [record] = handler.records
        assert {key: getattr(record, key) for key in told} == told

    def test_it_bears_the_workers_name_in_place_of_the_threads(self, handler: Collector) -> None:
        async def main() -> str:
            async with Runner(workers=1, name="parsers") as runner:
                return await runner.run(logs.log, "app", logging.WARNING, "named")

        name = asyncio.run(main())
        assert name.startswith("parsers-")
        assert [record.threadName for record in handler.records] == [name]

    def test_other_threads_of_a_worker_are_named_below_it(self, handler: Collector) -> None:
        name = in_worker(logs.log_in_thread, "app", "helper")
        assert [record.threadName for record in handler.records] == [f"{name}/helper"]

    def test_a_record_of_a_coroutine_has_its_loops_name(self, handler: Collector) -> None:
        name = in_worker(logs.log_in_coroutine, "app")
        assert [record.threadName for record in handler.records] == [f"{name}/loop"]

    def test_those_of_one_worker_come_in_order(self, handler: Collector) -> None:
        async def main() -> set[str]:
            async with Runner(workers=2) as runner:
                calls = (runner.run(logs.log_many, "app", 50, f"{call}:") for call in range(20))
                return set(await asyncio.gather(*calls))

        workers = asyncio.run(main())
        assert len(handler.records) == 1_000
        assert {record.threadName for record in handler.records} == workers
        for name in workers:
            said = [r.getMessage() for r in handler.records if r.threadName == name]
            for call in {message.partition(":")[0] for message in said}:
                of_call = [message for message in said if message.startswith(f"{call}:")]
                assert of_call == [f"{call}:{number}" for number in range(50)]

    def test_an_exception_is_told_by_its_traceback(self, handler: Collector) -> None:
        in_worker(logs.log_exception, "app")
        [record] = handler.records
        text = logging.Formatter().format(record)
        assert text.startswith("it failed\nTraceback (most recent call last):\n")
        assert "LookupError: what went wrong" in text
        assert "in log_exception" in text
        assert "Stack (most recent call last):" in text

    def test_extra_attributes_come_along_or_their_repr(self, handler: Collector) -> None:
        in_worker(logs.log_extra, "app")
        [record] = handler.records
        attributes = record.__dict__
        assert attributes["number"] == 3
        assert attributes["point"] == classes.Point(1, 2)
        assert attributes["items"] == [1, {"a": b"b"}]
        assert attributes["unsendable"] == "<an unsendable>"
        assert "RaisesWhenRebuilt object" in attributes["unreadable"]
        assert attributes["silent"] == "<RaisesInRepr: its repr() raises>"

    def test_a_message_that_cannot_be_formatted_harms_no_other(
        self, handler: Collector, capfd: pytest.CaptureFixture[str]
    ) -> None:
        in_worker(logs.log_wrongly, "app")
        assert handler.messages() == ["right"]
        assert "--- Logging error ---" in capfd.readouterr().err

    def test_an_initializers_records_come_too(self, handler: Collector) -> None:
        async def main() -> None:
            async with Runner(
                workers=1, initializer=logs.log, initargs=("app", 30, "begun")
            ) as runner:
                await runner.run(values.square, 3)

        asyncio.run(main())
        assert handler.messages() == ["begun"]

    def test_what_a_worker_says_at_its_exit_comes_too(self, handler: Collector) -> None:
        in_worker(logs.log_at_exit, "app")
        assert handler.messages() == ["at exit"]

    def test_those_of_a_runner_in_a_worker_come_to_the_program(self, handler: Collector) -> None:
        name = in_worker(logs.log_in_nested_runner, "app")
        [record] = handler.records
        assert (record.getMessage(), record.threadName) == ("from below", name)
        assert name.startswith("nested-")

    def test_a_library_with_a_null_handler_is_heard(self, handler: Collector) -> None:
        async def main() -> None:
            async with Runner(
                workers=1, initializer=logs.configure_with_null_handler, initargs=("app.library",)
            ) as runner:
                await runner.run(logs.log, "app.library", logging.WARNING, "heard")

        asyncio.run(main())
        assert handler.messages("app.library") == ["heard"]


class TestLevels:
    def test_levels_that_the_program_has_set_count_in_workers(
        self, handler: Collector, set_level: Callable[[str, int], None]
    ) -> None:
        set_level("root", logging.ERROR)
        set_level("app.part", logging.DEBUG)
        found = in_worker(logs.levels, "root", "other", "app", "app.part", "app.part.deeper")
        assert found == {
            "root": logging.ERROR,
            "other": logging.ERROR,
            "app": logging.ERROR,
            "app.part": logging.DEBUG,
            "app.part.deeper": logging.DEBUG,
        }
        in_worker(logs.log, "app.part", logging.DEBUG, "detail")
        assert handler.messages("app.part") == ["detail"]

    def test_what_the_program_has_disabled_is_so_in_workers(self) -> None:
        logging.disable(logging.ERROR)
        try:
            assert in_worker(logs.is_enabled, "app", logging.ERROR) is False
            assert in_worker(logs.is_enabled, "app", logging.CRITICAL) is True
        finally:
            logging.disable(logging.NOTSET)

    def test_the_programs_logger_decides_once_more(
        self, handler: Collector, set_level: Callable[[str, int], None]
    ) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                set_level("app.part", logging.CRITICAL)
                await runner.run(logs.log, "app.part", logging.ERROR, "not heard")
                await runner.run(logs.log, "app.part", logging.CRITICAL, "heard")

        asyncio.run(main())
        assert handler.messages("app.part") == ["heard"]

    def test_filters_and_propagation_are_the_programs(self, handler: Collector) -> None:
        logger, child = logging.getLogger("app.filtered"), logging.getLogger("app.filtered.child")
        logger.addFilter(lambda record: "secret" not in record.getMessage())
        child.propagate = False
        try:

            async def main() -> None:
                async with Runner(workers=1) as runner:
                    await runner.run(logs.log, "app.filtered", logging.ERROR, "secret")
                    await runner.run(logs.log, "app.filtered", logging.ERROR, "public")
                    await runner.run(logs.log, "app.filtered.child", logging.ERROR, "alone")

            asyncio.run(main())
        finally:
            logger.filters.clear()
            child.propagate = True
        assert [record.getMessage() for record in handler.records] == ["public"]

    def test_a_level_has_the_name_that_either_side_gave_it(self, handler: Collector) -> None:
        async def main() -> None:
            logging.addLevelName(33, "NOTICE")
            async with Runner(
                workers=1, initializer=logs.name_a_level, initargs=(34, "REMARK")
            ) as runner:
                for level in (33, 34, 35):
                    await runner.run(logs.log, "app", level, "named")

        asyncio.run(main())
        assert [r.levelname for r in handler.records] == ["NOTICE", "REMARK", "Level 35"]


class TestClosing:
    """All that the workers logged has been handled when closing is over."""

    COUNT = 2_000

    def test_aclose_waits_without_blocking_the_loop(self, handler: Collector) -> None:
        async def main() -> None:
            runner = Runner(workers=1).start()
            handler.is_open.clear()
            await runner.run(logs.log_many, "app", self.COUNT)
            closing = asyncio.create_task(runner.aclose())
            assert await asyncio.to_thread(handler.has_come.wait, SOON)
            assert not closing.done()
            handler.is_open.set()
            await closing
            assert len(handler.messages()) == self.COUNT

        asyncio.run(main())

    def test_leaving_async_with_waits(self, handler: Collector) -> None:
        in_worker(logs.log_many, "app", self.COUNT)
        assert len(handler.messages()) == self.COUNT

    @pytest.mark.parametrize("way", ["close", "with"])
    def test_outside_of_a_loop_it_blocks(self, way: str, handler: Collector) -> None:
        runner = Runner(workers=1).start()
        asyncio.run(runner.run(logs.log_many, "app", self.COUNT))
        if way == "close":
            runner.close()
        else:
            with runner:
                pass
        assert len(handler.messages()) == self.COUNT

    def test_a_runner_that_ends_in_the_background_is_heard_to_its_end(
        self, handler: Collector, gate: Gate
    ) -> None:
        async def main() -> None:
            with Runner(workers=1) as runner:
                future = runner.submit(logs.wait_then_log, *gate.fds, "app")
                await gate.reached()
            assert handler.messages() == []
            gate.open()
            await future
            await runner.aclose()
            assert handler.messages() == ["after the gate"]

        asyncio.run(main())
        assert eventually(lambda: listeners() == 0)

    def test_a_handler_may_close_a_runner(self) -> None:
        class Closer(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                runner.close()
                closed.set()

        closed = threading.Event()
        runner = Runner(workers=1).start()
        logger = logging.getLogger("app.closing")
        closer = Closer()
        logger.addHandler(closer)
        try:
            asyncio.run(runner.run(logs.log, "app.closing", logging.WARNING, "close!"))
            assert closed.wait(SOON)
        finally:
            logger.removeHandler(closer)
            runner.close()
        assert eventually(lambda: listeners() == 0)

    def test_at_the_programs_end_all_is_handled(self, program: Program) -> None:
        ended = program("""
            import asyncio, logging, sys
            from aiointerpreters import Runner
            from workfns import logs

            logging.basicConfig(stream=sys.stdout, format="%(message)s")

            async def main():
                runner = Runner(workers=1).start()
                keep.append(runner)
                await runner.run(logs.log_many, "app", 3_000)
                await runner.run(logs.log_at_exit, "app")

            keep = []
            if __name__ == "__main__":
                asyncio.run(main())
        """)
        ended.assert_ended()
        assert ended.out.split("\n") == [*map(str, range(3_000)), "at exit", ""]


class TestLocks:
    def test_an_interruption_keeps_none_from_the_workers_other_thread(self) -> None:
        async def main() -> None:
            chance = random.Random(7)
            async with Runner(workers=1, grace_period=10 * SOON) as runner:
                coroutine = runner.submit(logs.log_many_soon, "flood", 20_000)
                async with asyncio.timeout(SOON):
                    while not coroutine.done():
                        plain = runner.submit(logs.log_for_ever, "flood")
                        await asyncio.sleep(chance.random() * 0.02)  # any moment will do
                        plain.cancel()

        asyncio.run(main())

    def test_who_sends_does_not_wait_for_another_one_that_does(self) -> None:
        """It may be in a finalizer that waits for a lock of the first one: that of `warnings`."""
        sent: list[Any] = []

        class Queue:
            def qsize(self) -> int:
                return 0

            def put_nowait(self, item: Any) -> None:
                if not sent:
                    sent.append(item)
                    other = threading.Thread(target=outlet.send, args=(("second",),), daemon=True)
                    other.start()
                    other.join(SOON)
                    assert not other.is_alive()
                    outlet.send(("third",))  # a finalizer logs
                else:
                    sent.append(item)

        queue: Any = Queue()
        outlet = Outlet(queue, "worker")
        outlet.send(("first",))
        assert sent == [("first",), ("second",), ("third",)]


class TestLag:
    def test_what_does_not_fit_is_dropped_and_counted(self, handler: Collector) -> None:
        """The worker is never held up; and says nothing more, once it has dropped something."""

        async def main() -> str:
            async with Runner(workers=1) as runner:
                handler.is_open.clear()
                name = await runner.run(logs.log_many, "app", LIMIT + 500)
                handler.is_open.set()
                assert await asyncio.to_thread(handler.has_dropped.wait, SOON)
                [record] = (r for r in handler.records if r.name == "aiointerpreters")
                assert record.levelno == logging.WARNING
                dropped = LIMIT + 500 - len(handler.messages())
                assert 490 <= dropped <= 500
                assert record.getMessage() == (
                    f"{dropped} log records of worker {name} were dropped: "
                    "the handlers are too slow"
                )
                return await runner.run(logs.log, "app", logging.WARNING, "again")

        asyncio.run(main())
        assert handler.messages()[-1] == "again"
        assert len(handler.messages("aiointerpreters")) == 1

    def test_the_count_has_been_told_when_the_runner_is_closed(self, handler: Collector) -> None:
        runner = Runner(workers=1).start()
        handler.is_open.clear()
        asyncio.run(runner.run(logs.log_many, "app", LIMIT + 500))
        closing = threading.Thread(target=runner.close)
        closing.start()
        handler.is_open.set()
        closing.join()
        [told] = handler.messages("aiointerpreters")
        assert int(told.split()[0]) + len(handler.messages()) == LIMIT + 500

    def test_every_worker_has_a_count_of_its_own(self, handler: Collector) -> None:
        async def main() -> None:
            async with Runner(workers=1, logging=True):  # one listener for all
                for _ in range(2):
                    handler.is_open.clear()
                    async with Runner(workers=1, name="same") as runner:
                        await runner.run(logs.log_many, "app", LIMIT + 500)
                        handler.is_open.set()

        asyncio.run(main())
        told = [int(message.split()[0]) for message in handler.messages("aiointerpreters")]
        assert len(told) == 2
        assert sum(told) + len(handler.messages()) == 2 * (LIMIT + 500)


class TestOwnConfiguration:
    def test_an_initializer_may_have_a_file_of_its_own(
        self, handler: Collector, tmp_path: Path
    ) -> None:
        path = tmp_path / "worker.log"

        async def main() -> None:
            options = {"filename": str(path), "format": "%(name)s %(message)s"}
            async with Runner(
                workers=1, initializer=logs.configure_by, initargs=(options,)
            ) as runner:
                await runner.run(logs.log, "app", logging.ERROR, "in both")

        asyncio.run(main())
        assert path.read_text() == "app in both\n"
        assert handler.messages() == ["in both"]

    def test_the_configuration_of_the_main_script_is_not_repeated(self, program: Program) -> None:
        ended = program("""
            import asyncio, logging, sys
            from aiointerpreters import Runner

            logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level=20)

            def work():
                logging.info("worked")

            async def main():
                async with Runner(workers=1) as runner:
                    await runner.run(work)

            if __name__ == "__main__":
                asyncio.run(main())
        """)
        ended.assert_fine()
        assert ended.out == "INFO worked\n"

    def test_without_any_configuration_warnings_are_printed_once(self, program: Program) -> None:
        ended = program("""
            import asyncio, logging
            from aiointerpreters import Runner

            def work():
                logging.info("not worth it")
                logging.warning("worked")

            async def main():
                async with Runner(workers=1) as runner:
                    await runner.run(work)

            if __name__ == "__main__":
                asyncio.run(main())
        """)
        ended.assert_ended()
        assert ended.err == "worked\n"

    def test_force_replaces_the_way_to_the_program(
        self, handler: Collector, tmp_path: Path
    ) -> None:
        path = tmp_path / "worker.log"

        async def main() -> None:
            options = {"filename": str(path), "force": True}
            async with Runner(
                workers=1, initializer=logs.configure_by, initargs=(options,)
            ) as runner:
                await runner.run(logs.log, "app", logging.ERROR, "in the file")

        asyncio.run(main())
        assert path.read_text() == "ERROR:app:in the file\n"
        assert handler.messages() == []


class TestImport:
    """A worker loads logging when its code does, and not before."""

    def test_a_worker_that_does_not_log_has_not_loaded_it(self) -> None:
        for name in ("logging", "queue", "asyncio", "aiointerpreters._records"):
            assert in_worker(worker.has_module, name) is False

    def test_a_submodule_may_come_first(self, handler: Collector) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                assert await runner.run(logs.import_handlers_first)
                await runner.run(logs.log, "app", logging.WARNING, "heard")

        asyncio.run(main())
        assert handler.messages() == ["heard"]

    def test_it_may_be_preloaded(self, handler: Collector) -> None:
        async def main() -> None:
            async with Runner(workers=1, preload=("logging.config",)) as runner:
                await runner.run(logs.log, "app", logging.WARNING, "heard")

        asyncio.run(main())
        assert handler.messages() == ["heard"]

    def test_it_may_be_reloaded(self, handler: Collector) -> None:
        in_worker(logs.reload_logging, "app")
        assert handler.messages() == ["before", "after"]

    def test_a_failed_import_can_be_repeated(self, handler: Collector) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                await runner.run(logs.fail_to_import_logging_once)
                await runner.run(logs.log, "app", logging.WARNING, "heard")

        asyncio.run(main())
        assert handler.messages() == ["heard"]

    def test_the_module_is_what_it_always_is(self) -> None:
        assert in_worker(logs.loader_of_logging) == ("SourceFileLoader", True)


class TestOff:
    def test_the_workers_handlers_are_their_own_affair(
        self, handler: Collector, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async def main() -> None:
            async with Runner(workers=1, logging=False) as runner:
                assert listeners() == 0
                await runner.run(logs.log, "app", logging.WARNING, "on stderr")

        asyncio.run(main())
        assert handler.messages() == []
        assert capfd.readouterr().err == "on stderr\n"

    def test_a_runner_in_a_worker_of_such_a_runner_has_none_either(
        self, handler: Collector, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async def main() -> None:
            async with Runner(workers=1, logging=False) as runner:
                await runner.run(logs.log_in_nested_runner, "app")

        asyncio.run(main())
        assert handler.messages() == []
        assert "from below" in capfd.readouterr().err

    def test_a_runner_in_a_worker_may_turn_it_off(
        self, handler: Collector, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert in_worker(logs.log_in_nested_runner, "app", logging=False) == ""
        assert handler.messages() == []
        assert capfd.readouterr().err == "from below\n"

    @pytest.mark.skipif(sys.version_info < (3, 14), reason="needs concurrent.interpreters")
    def test_a_subinterpreter_of_others_can_use_a_runner(self, program: Program) -> None:
        """It has no daemon threads, so no listener."""
        ended = program("""
            from concurrent import interpreters

            interpreter = interpreters.create()
            interpreter.exec('''if True:
                import asyncio
                from aiointerpreters import Runner
                from workfns import values

                async def main():
                    async with Runner(workers=1) as runner:
                        print(await runner.run(values.square, 3))

                asyncio.run(main())
            ''')
            interpreter.close()
        """)
        ended.assert_fine()
        assert ended.out == "9\n"


class TestListener:
    def test_one_thread_serves_all_runners_and_ends_with_the_last(self) -> None:
        assert eventually(lambda: listeners() == 0)
        first, second = Runner(workers=1).start(), Runner(workers=1).start()
        assert listeners() == 1
        first.close()
        assert listeners() == 1
        second.close()
        assert eventually(lambda: listeners() == 0)

    def test_a_runner_that_cannot_start_leaves_none(self) -> None:
        with pytest.raises(TypeError):
            Runner(workers=1, initargs=((item for item in ()),)).start()
        assert eventually(lambda: listeners() == 0)

    def test_a_handler_that_raises_stops_nothing(self, program: Program) -> None:
        ended = program("""
            import asyncio, logging, sys
            from aiointerpreters import Runner
            from workfns import logs

            class Raises(logging.Handler):
                def emit(self, record):
                    if record.getMessage() == "1":
                        raise SystemExit("not now")
                    if record.getMessage() == "2":
                        raise LookupError("of the handler")
                    print(record.getMessage())

            async def main():
                logging.root.addHandler(Raises())
                async with Runner(workers=1) as runner:
                    await runner.run(logs.log_many, "app", 5)

            if __name__ == "__main__":
                asyncio.run(main())
        """)
        ended.assert_ended()
        assert ended.out == "0\n3\n4\n"
        assert ended.err.count("--- Logging error ---") == 2
        assert "LookupError: of the handler" in ended.err

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_hears_its_own_runners(self, program: Program) -> None:
        ended = program(
            """
            import asyncio, logging, os, sys
            from aiointerpreters import Runner
            from workfns import logs

            logging.basicConfig(stream=sys.stdout, format="%(message)s")

            async def use(who):
                async with Runner(workers=1) as own:
                    await own.run(logs.log, "app", 30, f"of the {who}")

            if __name__ == "__main__":
                with Runner(workers=1) as runner:
                    asyncio.run(runner.run(logs.log, "app", 30, "before"))
                    asyncio.run(use("parent"))
                    child = os.fork()
                    if not child:
                        asyncio.run(use("child"))
                        runner.close()
                        sys.exit(0)
                    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                    asyncio.run(runner.run(logs.log, "app", 30, "after"))
            """,
            flags=("-W", "ignore::DeprecationWarning"),
        )
        ended.assert_fine()
        assert ended.out == "before\nof the parent\nof the child\nafter\n"

    def test_calls_that_log_nothing_leave_nothing_to_handle(self, handler: Collector) -> None:
        assert in_worker(values.square, 3) == 9
        assert handler.records == []
