"""Log records and warnings of processes reach the program, as those of workers do."""

import asyncio
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aiointerpreters import Runner
from helpers.limits import SOON
from workfns import logs, refusing


class Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("app"):
            self.records.append(record)

    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def handler() -> Iterator[Collector]:
    collector = Collector()
    logging.root.addHandler(collector)
    yield collector
    logging.root.removeHandler(collector)


def in_process(fn: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """The result of one call in a process, whose runner is closed then."""

    async def main() -> Any:
        async with Runner(workers=1, name="crew", **options) as runner:
            async with asyncio.timeout(SOON):
                return await runner.options(where="process").run(fn, *args)

    return asyncio.run(main())


def test_records_come_in_order_and_with_the_processes_name(handler: Collector) -> None:
    assert in_process(logs.log_many, "app", 500) == "crew-process-0"
    assert handler.messages() == [str(number) for number in range(500)]
    assert {record.threadName for record in handler.records} == {"crew-process-0"}
    assert {record.process for record in handler.records} != {os.getpid()}


def test_a_record_is_there_before_the_result(handler: Collector) -> None:
    """Or as soon as the listener has come to it: so after closing."""

    async def main() -> None:
        async with Runner(workers=1) as runner:
            run = runner.options(where="process").run
            for number in range(20):
                await run(logs.log, "app", logging.WARNING, str(number))

    asyncio.run(main())
    assert handler.messages() == [str(number) for number in range(20)]


def test_threads_of_it_log_too(handler: Collector) -> None:
    in_process(logs.log_in_thread, "app", "helper")
    assert [record.threadName for record in handler.records] == ["crew-process-0/helper"]


def test_threads_that_log_while_items_are_sent_break_no_message(handler: Collector) -> None:
    async def main() -> None:
        async with Runner(workers=1) as runner:
            stream = runner.options(where="process").stream
            items = stream(logs.log_in_threads_and_yield, "app", 4, 200, 300)
            assert [len(item) async for item in items] == [100_000] * 300

    asyncio.run(main())
    assert sorted(handler.messages()) == sorted(
        f"{thread}: {number}" for thread in range(4) for number in range(200)
    )


def test_an_initializers_records_and_a_streams(handler: Collector) -> None:
    async def main() -> None:
        initargs = ("app", logging.WARNING, "from the initializer")
        async with Runner(workers=1, initializer=logs.log, initargs=initargs) as runner:
            stream = runner.options(where="process").stream(logs.log_and_yield, "app", 5)
            assert [item async for item in stream] == list(range(5))

    asyncio.run(main())
    # One was made for the worker, and one for the process.
    assert handler.messages().count("from the initializer") == 2
    assert [text for text in handler.messages() if text.isdigit()] == list("01234")


def test_what_a_process_logged_before_it_was_killed_comes(handler: Collector) -> None:
    async def main() -> None:
        async with Runner(workers=1) as runner:
            with pytest.raises(TimeoutError):
                await runner.options(where="process", timeout=1).run(logs.log_and_hang, "app")

    asyncio.run(main())
    assert handler.messages() == ["before"]


def test_levels_of_the_program_hold_there(handler: Collector) -> None:
    logger = logging.getLogger("app.quiet")
    logger.setLevel(logging.ERROR)
    try:
        in_process(logs.log_many, "app.quiet", 3)
        in_process(logs.log, "app.quiet", logging.ERROR, "loud")
    finally:
        logger.setLevel(logging.NOTSET)
    assert handler.messages() == ["loud"]


def test_without_logging_nothing_comes(
    handler: Collector, capfd: pytest.CaptureFixture[str]
) -> None:
    in_process(logs.log, "app", logging.WARNING, "on its own", logging=False)
    assert handler.records == []
    assert "on its own" in capfd.readouterr().err


def test_warnings_reach_the_programs_filters() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        in_process(refusing.warn)
    assert [(str(warning.message), warning.category) for warning in caught] == [
        ("from a process", UserWarning)
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_of_it_logs_on_its_own(
    handler: Collector, capfd: pytest.CaptureFixture[str]
) -> None:
    assert in_process(logs.log_in_forked_child, "app", "from a child") == 0
    assert handler.messages() == ["from the parent"]
    assert "from a child" in capfd.readouterr().err


def test_a_runner_in_a_process_passes_on_its_workers_records(handler: Collector) -> None:
    in_process(logs.log_in_a_runner, "app")
    assert handler.messages() == ["from within"]
