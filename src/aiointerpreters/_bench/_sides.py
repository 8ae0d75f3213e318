"""The sides: our runner, its peers, and what they are measured against.

Each is opened in a process of its own (see `_harness.py`), with all of its workers started.
"""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ._harness import Settings
from ._work import nap, noop

type Call = Callable[..., Awaitable[Any]]
type Map = Callable[[Callable[[Any], Any], Iterable[Any]], AsyncIterator[Any]]


@dataclass(frozen=True)
class Opened:
    """An open side, as turns get it."""

    workers: int
    call: Call  # call(function, *args)
    map: Map | None = None  # the side's own, if it has one: map(function, items)
    burst: int = 5_000  # so many calls at once don't take for ever

    async def in_every_worker(self, function: Callable[..., object], *args: object) -> None:
        """Call it in each worker; it must take long enough for that."""
        await asyncio.gather(*(self.call(function, *args) for _ in range(2 * self.workers)))


type Open = Callable[[int], AbstractAsyncContextManager[Opened]]


@dataclass(frozen=True)
class Side:
    """One way to call functions, or a floor, which calls nothing."""

    open: Open
    needs: str = ""  # the module to be installed
    python: tuple[int, int] = (3, 13)
    environment: Mapping[str, str] = field(default_factory=dict)  # of its process, besides ours

    def missing(self, settings: Settings) -> str | None:
        """Say why it can't be measured here; None if it can."""
        if sys.version_info < self.python:
            return "needs Python {}.{}".format(*self.python)
        if self.open is original:
            if settings.original is None:
                return "not installed"
        elif self.needs and importlib.util.find_spec(self.needs) is None:
            return "not installed"
        return None


# ---- ours ----


def _ours(method: str) -> Open:
    @asynccontextmanager
    async def open_runner(workers: int) -> AsyncIterator[Opened]:
        from .. import Runner

        async with Runner(workers=workers) as runner:
            opened = Opened(workers, getattr(runner, method), runner.map)
            await opened.in_every_worker(nap, 0.05)
            yield opened

    return open_runner


# ---- peers ----


@asynccontextmanager
async def _executor(pool: Executor, workers: int) -> AsyncIterator[Opened]:
    """Any executor, called as asyncio's users do."""
    loop = asyncio.get_running_loop()

    async def map_in_thread(function: Callable[[Any], Any], items: Iterable[Any]) -> Any:
        # Its iterator blocks, so a thread has to consume it.
        for result in await asyncio.to_thread(lambda: list(pool.map(function, items))):
            yield result

    opened = Opened(workers, partial(loop.run_in_executor, pool), map_in_thread)
    try:
        await opened.in_every_worker(nap, 0.05)
        yield opened
    finally:
        pool.shutdown(wait=True)


def _thread_pool(workers: int) -> AbstractAsyncContextManager[Opened]:
    return _executor(ThreadPoolExecutor(workers), workers)


def _interpreter_pool(workers: int) -> AbstractAsyncContextManager[Opened]:
    if sys.version_info >= (3, 14):
        from concurrent.futures import InterpreterPoolExecutor

        return _executor(InterpreterPoolExecutor(workers), workers)
    raise NotImplementedError


def _process_pool(workers: int) -> AbstractAsyncContextManager[Opened]:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    return _executor(ProcessPoolExecutor(workers, get_context("spawn")), workers)


def _loky(workers: int) -> AbstractAsyncContextManager[Opened]:
    from loky import ProcessPoolExecutor

    return _executor(ProcessPoolExecutor(workers, timeout=None), workers)


@asynccontextmanager
async def _anyio(workers: int) -> AsyncIterator[Opened]:
    from anyio import CapacityLimiter, to_interpreter

    limiter = CapacityLimiter(workers)
    call = partial(to_interpreter.run_sync, limiter=limiter)
    # Whatever the limiter says, each call of a burst that finds no idle interpreter makes one.
    opened = Opened(workers, call, burst=100)
    await opened.in_every_worker(nap, 0.05)
    yield opened


@asynccontextmanager
async def _aiomultiprocess(workers: int) -> AsyncIterator[Opened]:
    from aiomultiprocess import Pool

    from ._work import call

    async with Pool(workers) as pool:

        def call_in_pool(function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
            result: Awaitable[Any] = pool.apply(call, (function, *args))
            return result

        async def map_in_pool(function: Callable[[Any], Any], items: Iterable[Any]) -> Any:
            # Awaited as a whole: to iterate takes a pause of 5 ms for each.
            for result in await pool.starmap(call, [(function, item) for item in items]):
                yield result

        opened = Opened(workers, call_in_pool, map_in_pool, burst=1000)
        await opened.in_every_worker(nap, 0.05)
        yield opened


@asynccontextmanager
async def original(workers: int) -> AsyncIterator[Opened]:
    """The package from PyPI whose name ours has; its process finds it in place of ours."""
    from aiointerpreters.runner import Runner

    with Runner(workers=workers).start() as runner:
        await runner.run(noop, 0)
        yield Opened(workers, runner.run)


# ---- floors ----


@asynccontextmanager
async def _on_the_loop(workers: int) -> AsyncIterator[Opened]:
    """The function is called on the loop's thread: no offloading at all."""

    async def call(function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    yield Opened(workers, call)


@asynccontextmanager
async def _nothing(workers: int) -> AsyncIterator[Opened]:
    """A process for a floor that calls nothing: its turns do all themselves."""

    async def call(function: Callable[..., Any], *args: Any) -> Any:
        raise TypeError("this side calls nothing")

    yield Opened(workers, call)


SIDES: dict[str, Side] = {
    "run": Side(_ours("run")),
    "submit": Side(_ours("submit")),
    "run, no spinning": Side(_ours("run"), environment={"AIOINTERPRETERS_SPIN": "0"}),
    "ThreadPoolExecutor": Side(_thread_pool),
    "InterpreterPoolExecutor": Side(_interpreter_pool, python=(3, 14)),
    "ProcessPoolExecutor": Side(_process_pool),
    "anyio.to_interpreter": Side(_anyio, needs="anyio", python=(3, 14)),
    "loky": Side(_loky, needs="loky"),
    "aiomultiprocess": Side(_aiomultiprocess, needs="aiomultiprocess"),
    "original 0.5.0": Side(original, python=(3, 14)),
    "(on the loop)": Side(_on_the_loop),
    "(asyncio alone)": Side(_nothing),
    "(futex and eventfd)": Side(_nothing),
}

OURS = ("run", "submit")
PEERS = tuple(name for name in SIDES if not name.startswith((*OURS, "(")))
