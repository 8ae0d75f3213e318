"""Trio runs calls: the little of an asyncio event loop that the core asks for, on trio's own terms.

The core registers a descriptor's reader, has callbacks run soon, and makes futures; calls in
processes and threads need timers, too. That is what a :class:`Loop` does, one for each run of trio.
The readers are system tasks which wait in ``trio.lowlevel.wait_readable``: workers wake trio's own
``epoll``, and no thread stands between.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from typing import Any, cast

import outcome
import trio
from trio.lowlevel import Abort, RaiseCancelT

from ._calls import Calls
from .errors import RunnerError
from .runner import Runner

_run_loop: trio.lowlevel.RunVar[Loop] = trio.lowlevel.RunVar("aiointerpreters")

_logger = logging.getLogger("aiointerpreters")


class Loop:
    """A run of trio, as the core sees it. All its methods belong to trio's thread, but for one."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        # By their descriptors: the tasks that wait for them, and what these call.
        self._readers: dict[int, tuple[trio.CancelScope, Callable[[], object]]] = {}
        self._soon: deque[tuple[Context | None, Callable[..., object], tuple[Any, ...]]] = deque()
        self._parked: trio.lowlevel.Task | None = None
        self._soon_scope = trio.CancelScope(shield=True)
        self._runner: Runner | None = None
        self._is_closed = False
        trio.lowlevel.spawn_system_task(self._live)
        trio.lowlevel.spawn_system_task(self._run_soon)

    # ---- what the core and asyncio's futures call ----

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return self._is_closed

    def is_running(self) -> bool:
        """In any thread."""
        return not self._is_closed

    def time(self) -> float:
        return trio.current_time()

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._as_asyncio())

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        if self._is_closed:
            raise RuntimeError("this run of trio is at its end")
        scope = trio.CancelScope(shield=True)
        self._readers[fd] = scope, callback
        trio.lowlevel.spawn_system_task(self._read, fd, scope, callback)

    def remove_reader(self, fd: int) -> bool:
        scope, _ = self._readers.pop(fd, (None, None))
        if scope is not None:
            scope.cancel()
        return scope is not None

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> None:
        self._soon.append((context, callback, args))
        task, self._parked = self._parked, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> None:
        """In any thread. Raises RuntimeError once trio's run has ended, as asyncio does."""
        self._token.run_sync_soon(lambda: self.call_soon(callback, *args, context=context))

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> _Timer:
        timer = _Timer(when)
        trio.lowlevel.spawn_system_task(self._wait_for, timer, partial(callback, *args), context)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        _logger.error(context.get("message"), exc_info=context.get("exception"))

    # ---- for run_sync() ----

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the core find this loop."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self._as_asyncio())
        try:
            yield
        finally:
            asyncio._set_running_loop(before)

    async def submit(
        self, calls: Calls, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> asyncio.Future[Any]:
        """As Calls.submit(); waits for its turn where calls are limited."""
        if calls._slots is not None:
            if calls._options.deadline is not None:
                raise RunnerError(
                    "a deadline for a call that waits for its turn (max_pending) needs asyncio: "
                    "under trio use trio.fail_after(), or a timeout"
                )
            return cast(
                "asyncio.Future[Any]", await self.drive(calls._submit_in_turn(function, args, {}))
            )
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self._as_asyncio())
        try:
            return calls._submit(function, args, {})
        finally:
            asyncio._set_running_loop(before)

    def runner(self) -> Runner:
        """The runner of this run of trio, which ends with it."""
        if self._runner is None:
            if self._is_closed:
                raise RunnerError("this run of trio is at its end: it has no runner any more")
            self._runner = Runner(min_workers=0).start()
        return self._runner

    async def wait(self, future: Any, abandon_on_cancel: bool) -> Any:
        """The result of a call. Where it is cancelled the call is stopped first."""
        task = trio.lowlevel.current_task()

        def wake(_: object) -> None:
            trio.lowlevel.reschedule(task)

        def abort(raise_cancel: RaiseCancelT) -> Abort:
            future.remove_done_callback(wake)
            future.cancel()
            ended = future.ended
            if abandon_on_cancel or ended is None:
                return Abort.SUCCEEDED

            def end(_: object) -> None:
                if not ended.cancelled():
                    ended.exception()  # nobody is to miss it
                trio.lowlevel.reschedule(task, outcome.capture(raise_cancel))

            ended.add_done_callback(end)
            return Abort.FAILED

        future.add_done_callback(wake)
        await trio.lowlevel.wait_task_rescheduled(abort)
        if future.cancelled():
            raise RunnerError("the call was cancelled, as its runner was stopped")
        return future.result()

    async def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of this package that waits for nothing but futures."""
        try:
            while True:
                try:
                    with self.running():
                        future = coroutine.send(None)
                except StopIteration as stop:
                    return stop.value
                future._asyncio_future_blocking = False
                await self._until_done(future)
        finally:
            with self.running():
                coroutine.close()  # where it was cancelled: nothing else will end it

    async def close_runner(self, runner: Runner, *, interrupt: bool) -> None:
        pool = runner._close(interrupt, interrupt)
        try:
            await self.drive(runner._until_ended(pool))
        except trio.Cancelled:
            runner._close(True, True)
            raise

    # ---- its tasks ----

    async def _live(self) -> None:
        """Until trio has run all other tasks, and ends the system's."""
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                if self._runner is not None:
                    await self.close_runner(self._runner, interrupt=True)
            self._is_closed = True
            for _, callback in list(self._readers.values()):
                cast(Any, callback).__self__.close()  # the bridge, which removes its reader
            self._soon_scope.cancel()

    async def _read(self, fd: int, scope: trio.CancelScope, callback: Callable[[], object]) -> None:
        with scope:
            while not scope.cancel_called:  # or the descriptor may be closed
                await trio.lowlevel.wait_readable(fd)
                # It calls callbacks of futures, in which calls are made.
                before = asyncio._get_running_loop()
                asyncio._set_running_loop(self._as_asyncio())
                try:
                    callback()
                finally:
                    asyncio._set_running_loop(before)

    async def _run_soon(self) -> None:
        with self._soon_scope:
            while True:
                if self._soon:
                    await trio.lowlevel.checkpoint()
                else:
                    self._parked = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(self._unpark)
                with self.running():
                    for _ in range(len(self._soon)):
                        context, callback, args = self._soon.popleft()
                        if context is None:
                            callback(*args)
                        else:
                            context.run(callback, *args)
                        del context, callback, args  # or they would be kept until the next ones

    async def _wait_for(
        self, timer: _Timer, callback: Callable[[], object], context: Context | None
    ) -> None:
        with timer.scope:
            await trio.sleep_until(timer.when())
            self.call_soon(callback, context=context)

    def _unpark(self, _: RaiseCancelT) -> Abort:
        self._parked = None
        return Abort.SUCCEEDED

    async def _until_done(self, future: asyncio.Future[Any]) -> None:
        done = trio.Event()
        future.add_done_callback(lambda _: done.set())
        await done.wait()

    def _as_asyncio(self) -> asyncio.AbstractEventLoop:
        return cast(asyncio.AbstractEventLoop, self)


class _Timer:
    """What call_at() returns."""

    def __init__(self, when: float) -> None:
        self._when = when
        self.scope = trio.CancelScope()

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self.scope.cancel()


def current_loop() -> Loop:
    """The loop of this run of trio."""
    try:
        return _run_loop.get()
    except LookupError:
        loop = Loop()
        _run_loop.set(loop)
        return loop
