"""`Runner.stream`: iterate here over a generator that runs in a worker.

      worker: _pumping.pump ──► items, a bounded Queue ──► Stream.__anext__
                            ──► gate, a Queue for one: has it begun, has it ended

The pump is a call as any other. When that is done, its callback shuts `items` down: what was put
before can still be got, then comes the end, and the call's outcome.

A stream that is closed early cancels the call, once: which takes it back if no worker has begun
it, or interrupts it. Who puts first into the gate, the pump or the consumer that closes, decides
whether the function is called at all; so the consumer knows whether there is an end to wait for.
Until then `items` stays open, because a put that fails by a shutdown would make the pump close
its generator, and the interruption come in the midst of that.
"""

import asyncio
import contextlib
import functools
import inspect
import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, cast

from . import _naming, _pumping
from .errors import RunnerError
from .queues import Queue, QueueFull, QueueShutDown

if TYPE_CHECKING:
    from ._calls import Calls

_NOTHING: Any = object()

#: Seconds for which aclose() waits beyond the runner's grace period: by then a worker that is stuck
#: has been given up.
_PATIENCE = 1.0

#: After so many items in a row that were there already, the loop gets a turn.
_ITEMS_PER_TURN = 128


class Stream[T](AsyncIterator[T]):
    """The items of :meth:`Runner.stream`, an asynchronous iterator.

    Iterate it once, in one task. Leave it early with a ``break``, or, to know when the generator
    has been closed, by :meth:`aclose` (``contextlib.aclosing`` calls it).
    """

    def __init__(
        self,
        calls: "Calls",
        fn: Callable[..., Iterable[T] | AsyncIterable[T]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._calls = calls  # which keeps the runner
        self._pump, self._arguments = _pump_for(fn, args, kwargs)
        self._given: tuple[Any, ...] = (fn, args, kwargs)  # until it begins
        self._elsewhere_items: Queue[T] | None = None  # if it runs in a process, or a thread
        self._items = Queue[T](calls._options.buffer)
        self._gate = Queue[None](1)
        self._on_done = functools.partial(_shut_down, self._items)
        self._call: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # set by the first __anext__()
        self._thread = 0
        self._in_a_row = 0
        self._is_waiting = False
        self._is_over = False  # or stopped: there is nothing more to come
        self._is_closed = False  # aclose() has nothing more to do

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._is_waiting:
            raise RuntimeError("another task waits for the next item already")
        if self._is_over:
            raise StopAsyncIteration
        self._is_waiting = True
        try:
            if self._call is None:
                await self._begin()
            elif self._in_a_row >= _ITEMS_PER_TURN:
                self._in_a_row = 0
                await asyncio.sleep(0)
            item = self._items._try_get(_NOTHING)
            if item is _NOTHING:
                self._in_a_row = 0
                return await self._items.aget()
            self._in_a_row += 1
            return item
        except QueueShutDown:
            pass
        except BaseException:  # cancelled, or the item can't be rebuilt here
            self._stop()
            raise
        finally:
            self._is_waiting = False
        if self._call is not None and not self._call.done():  # its runner is being stopped
            await asyncio.wait((self._call,))
        self._stop()
        try:
            self._outcome()
        except StopAsyncIteration as error:
            # As in asynchronous generators: it would pass for the end.
            raise RuntimeError("the generator raised StopAsyncIteration") from error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop early: close the generator, in its worker.

        When this returns its ``finally`` blocks have run; unless that takes longer than the
        runner's ``grace_period``. May be called again, and at any time but while a task waits for
        the next item.
        """
        if self._is_waiting:
            raise RuntimeError("a task waits for the next item: cancel it instead")
        self._stop()
        if self._call is None or self._is_closed:
            return
        self._is_closed = True
        try:
            async with asyncio.timeout(self._calls._runner()._grace_period + _PATIENCE):
                while True:  # what the pump said at its begin, then its end
                    await self._gate.aget()
        except (QueueShutDown, TimeoutError):
            pass
        finally:
            self._items.shutdown(immediate=True)

    def __del__(self) -> None:
        # An __init__ that raised leaves no _loop.
        loop = getattr(self, "_loop", None)
        if loop is None or self._is_over or self._call is None:
            return
        what = (self._call, self._on_done, self._gate, self._elsewhere_items)
        if not loop.is_closed():
            if self._thread == threading.get_ident():
                _stop(*what)
                return
            with contextlib.suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(_stop, *what)
                return
        _stop(*what)
        # The call may have been let go with its loop, and not be interrupted any more.
        self._items.shutdown(immediate=True)

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        (fn, args, kwargs), self._given = self._given, ()
        calls, buffer = self._calls, self._calls._options.buffer
        where = await calls._where(fn)
        pump: Any = self._pump
        if where == "interpreter":
            arguments: tuple[Any, ...] = (self._items, self._gate, *self._arguments)
        else:
            from ._elsewhere_stream import Streaming

            arguments = ()
            pump = Streaming(where, fn, args, kwargs, self._gate, buffer)
            self._items = self._elsewhere_items = pump.items
            self._on_done = functools.partial(_shut_down, self._items)
        self._arguments = ()
        del args, kwargs
        self._call = await calls._submit_in_turn(pump, arguments, {})
        self._call.add_done_callback(self._on_done)
        # As an asynchronous generator would: so that asyncio.run() closes it before the loop, if it
        # has not been iterated to its end. After that nobody could stop the worker.
        begun = sys.get_asyncgen_hooks().firstiter
        if begun is not None:
            begun(cast(Any, self))

    def _outcome(self) -> None:
        """Raise what the call raised."""
        call = self._call
        assert call is not None
        try:
            call.result()
        finally:
            del call  # or the traceback would keep it, which keeps the exception

    def _stop(self) -> None:
        """There is nothing more to come: nor shall the worker do more, if it is at it yet."""
        if self._is_over:
            return
        self._is_over = True
        if self._call is not None:
            _stop(self._call, self._on_done, self._gate, self._elsewhere_items)


def _pump_for(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """What to call in the worker, and its arguments but for the queues."""
    if isinstance(fn, functools.partial):
        args = (*fn.args, *args)
        kwargs = {**fn.keywords, **kwargs}
        fn = fn.func
    if _naming.is_coroutine_function(fn):
        raise RunnerError(
            f"{fn!r} is a coroutine function, which has one result: pass it to run(); stream() "
            "takes generator functions, also asynchronous ones"
        )
    pump = _pumping.pump_async if inspect.isasyncgenfunction(fn) else _pumping.pump
    # What has no name travels by pickle, with the rest.
    return pump, (_naming.describe(cast(Any, fn)) or fn, args, kwargs)


def _shut_down(items: Queue[Any], call: asyncio.Future[None]) -> None:
    items.shutdown()
    if not call.cancelled():
        call.exception()  # which is raised where all items have been taken, or not at all


def _stop(
    call: asyncio.Future[None],
    on_done: Callable[..., None],
    gate: Queue[None],
    elsewhere_items: Queue[Any] | None,
) -> None:
    """Take the call back, or interrupt it."""
    call.remove_done_callback(on_done)
    if elsewhere_items is not None:  # who puts into it is no worker, and can't be interrupted
        elsewhere_items.shutdown(immediate=True)
    with contextlib.suppress(RuntimeError):  # its loop is closed: nobody can be told
        call.cancel()
    try:
        gate.put_nowait(None)
    except (QueueFull, QueueShutDown):
        return  # it has begun
    gate.shutdown()  # it never will
