"""Fixtures for every test: a shared runner, gates and traces, programs of their own."""

import asyncio
import gc
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.gate import Gate, Signals, Trace
from helpers.programs import Program

# Ignored where a shell has started this in the background; tests' programs would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
