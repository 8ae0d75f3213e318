"""Functions in subinterpreters for anyio and trio, in the shape of ``anyio.to_interpreter``.

    from aiointerpreters.anyio import run_sync

    async with anyio.create_task_group() as group:
        group.start_soon(run_sync, index, page)

    with anyio.move_on_after(1):
        links = await run_sync(parse, page)  # is stopped after a second

It works in programs of anyio, on either backend, and in those of trio or asyncio alone. Needs the
extra ``aiointerpreters[anyio]``, or ``aiointerpreters[trio]``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from ._calls import Calls
from ._elsewhere_future import Future as ElsewhereFuture
from .errors import RunnerError
from .runner import Runner

if TYPE_CHECKING:
    from . import _trio

__all__ = ("current_default_runner", "run_sync", "started")


async def run_sync[*Ts, R](
    func: Callable[[*Ts], R],
    /,
    *args: *Ts,
    abandon_on_cancel: bool = False,
    limiter: anyio.CapacityLimiter | None = None,
    runner: Calls | None = None,
) -> R:
    """Call ``func(*args)`` in a subinterpreter and return its result.

    A cancel scope stops the call: one that no worker has begun is taken back, and in a running one
    :exc:`Interrupted` is raised in its Python code, so that its ``finally`` blocks run. (That is
    not so with ``anyio.to_interpreter``, nor with threads, where it would run to its end. To let it
    do so, use ``anyio.CancelScope(shield=True)``.)

    Args:
        func: Any function that a :class:`Runner` can call. ``functools.partial`` gives it keyword
            arguments.
        abandon_on_cancel: Whether a cancelled call leaves its scope at once. By default it does so
            when its function has come to its end, so that nothing goes on behind its back; or if
            that can't be stopped, when the runner's ``grace_period`` is over.
        limiter: It is entered for the time of the call. By default there is none: all calls may be
            made at once, and wait for the workers, first come first served.
        runner: A started :class:`Runner`, or a view of one with options. By default that of the
            event loop: see :func:`current_default_runner`.

    Raises:
        Exception: What ``func`` raised; else as :meth:`Runner.run`.
        RunnerError: Also where the runner was stopped during the call.
    """
    await checkpoint_if_cancelled()
    call = _call_on_trio if _in_trio() else _call_on_asyncio
    if limiter is None:
        return await call(func, args, abandon_on_cancel, runner)  # type: ignore[no-any-return]
    async with limiter:
        return await call(func, args, abandon_on_cancel, runner)  # type: ignore[no-any-return]


def current_default_runner() -> Runner:
    """The runner that :func:`run_sync` uses in this event loop, where it is not given another.

        current_default_runner().resize(4)

    Each event loop has one, made when it is first used, and closed at the loop's end (of trio's
    run; of asyncio's, where that ends as ``asyncio.run`` does, with ``shutdown_asyncgens()``). Its
    workers are started when calls wait for them, one a processor at most, and end when they have
    been idle for ten seconds.

    Raises:
        RuntimeError: No event loop runs in this thread.
    """
    return _trio_loop().runner() if _in_trio() else _runner_of(asyncio.get_running_loop())


def started(runner: Runner) -> AbstractAsyncContextManager[Runner]:
    """Start a runner, and close it when the block is left; on either backend.

        async with started(Runner(workers=4, preload=["bs4"])) as runner:
            links = await run_sync(parse, page, runner=runner)

    As ``async with runner:``, which asyncio alone can run: accepted calls come to their end; an
    exception that leaves the block, a cancellation too, stops them.
    """
    return _started_on_trio(runner) if _in_trio() else _started_on_asyncio(runner)


def _follow(future: Any, runner: Calls) -> None:
    """Let the future's `ended` tell when a call has come to its end that is cancelled."""
    if isinstance(future, ElsewhereFuture):
        future.follow(runner._runner()._grace_period)
    else:
        future.follow()


def _in_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


# ---- asyncio ----

#: By their loops: the runners that calls use by default, and the generators that end them.
_defaults: dict[asyncio.AbstractEventLoop, tuple[Runner, AsyncGenerator[None]]] = {}


def _runner_of(loop: asyncio.AbstractEventLoop) -> Runner:
    known = _defaults.get(loop)
    if known is not None:
        return known[0]
    for other in list(_defaults):
        if other.is_closed():  # without shutdown_asyncgens()
            left = _defaults.pop(other, None)
            if left is not None:
                left[0]._close(True, True)
    runner = Runner(min_workers=0).start()
    keeper = _keep(loop, runner)
    _defaults[loop] = runner, keeper
    with suppress(StopIteration):
        anext(keeper).send(None)  # from now on the loop knows it
    return runner


async def _keep(loop: asyncio.AbstractEventLoop, runner: Runner) -> AsyncGenerator[None]:
    """The loop closes asynchronous generators at its end, and waits for that."""
    try:
        async with runner:
            yield
    finally:
        _defaults.pop(loop, None)


async def _call_on_asyncio(
    func: Callable[..., Any], args: tuple[Any, ...], abandon_on_cancel: bool, runner: Calls | None
) -> Any:
    if runner is None:
        runner = _runner_of(asyncio.get_running_loop())
    future: Any
    if runner._slots is None:
        future = runner._submit(func, args, {})
    else:
        future = await runner._submit_in_turn(func, args, {})
    if not abandon_on_cancel:
        _follow(future, runner)
    try:
        return await future
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if future.cancelled() and (task is None or not task.cancelling()):
            raise RunnerError("the call was cancelled, as its runner was stopped") from None
        if future.ended is not None:
            await _until_ended(future.ended)
        raise


async def _until_ended(ended: asyncio.Future[Any]) -> None:
    """Wait for a call that was told to stop; shielded, or its scope would tell it in each turn."""
    try:
        with anyio.CancelScope(shield=True):
            await asyncio.wait([ended])
    finally:
        if not ended.cancel() and not ended.cancelled():
            ended.exception()  # nobody is to miss it


@asynccontextmanager
async def _started_on_asyncio(runner: Runner) -> AsyncIterator[Runner]:
    async with runner:
        yield runner


# ---- trio ----


def _trio_loop() -> _trio.Loop:
    from . import _trio

    return _trio.current_loop()


async def _call_on_trio(
    func: Callable[..., Any], args: tuple[Any, ...], abandon_on_cancel: bool, runner: Calls | None
) -> Any:
    loop = _trio_loop()
    if runner is None:
        runner = loop.runner()
    future: Any = await loop.submit(runner, func, args)
    if not abandon_on_cancel:
        _follow(future, runner)
    return await loop.wait(future, abandon_on_cancel)


@asynccontextmanager
async def _started_on_trio(runner: Runner) -> AsyncIterator[Runner]:
    loop = _trio_loop()
    runner.__enter__()
    try:
        yield runner
    except BaseException:
        with anyio.CancelScope(shield=True):
            await loop.close_runner(runner, interrupt=True)
        raise
    await loop.close_runner(runner, interrupt=False)
