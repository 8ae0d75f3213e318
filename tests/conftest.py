"""Fixtures for every test: a shared runner, gates and traces, programs of their own."""

import asyncio
import faulthandler
import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.gate import Gate, Signals, Trace
from helpers.limits import SLOWNESS
from helpers.programs import Program

# Ignored where a shell has started this in the background; tests' programs would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Seconds for what fixtures have to do after a test.
TEARDOWN = 120 * SLOWNESS

_terminal = 2


def pytest_configure() -> None:
    global _terminal
    _terminal = os.dup(2)  # while nothing is captured


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, Any, Any]:
    """pytest-timeout has no limit for a test that has failed, which may have left a runner busy."""
    faulthandler.dump_traceback_later(TEARDOWN, exit=True, file=_terminal)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def runner() -> Iterator[Any]:
    """A started runner of two workers, shared by the tests of a module."""
    from aiointerpreters import Runner

    with Runner(workers=2).start() as runner:
        yield runner


@pytest.fixture
def call(runner: Any) -> Callable[..., Any]:
    """`call(fn, …)`: the result of one call in the shared runner."""

    def call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(runner.run(fn, *args, **kwargs))

    return call


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture
def trace() -> Iterator[Trace]:
    trace = Trace()
    yield trace
    trace.close()


@pytest.fixture
def signals() -> Iterator[Signals]:
    signals = Signals()
    yield signals
    signals.close()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def silent() -> Iterator[Callable[[], None]]:
    """`silent()`, called in a running loop: from then on that loop may complain of nothing.

    Collects garbage at the end, for what complains when it is collected.
    """
    complaints: list[dict[str, Any]] = []

    def watch() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: complaints.append(context)
        )

    yield watch
    gc.collect()
    assert complaints == []
