"""The worker's side of `Runner.stream`: iterate there, and put each item into a queue. In a thread
of the program's it is the same.

Loaded into workers, so it imports as little as can be.
"""

from __future__ import annotations

from ._finding import resolve
from .queues import QueueFull, QueueShutDown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Mapping
    from typing import Any

    from ._finding import FunctionName
    from .queues import Queue

#: Seconds to wait for an interruption that is on its way.
_ON_ITS_WAY = 1.0


def pump(
    items: Queue[Any],
    gate: Queue[None],
    function: FunctionName | Callable[..., Iterable[Any]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    is_interrupted: bool = True,
) -> None:
    """Call ``function``, iterate over what it returns, and put the items into ``items``.

    The consumer and this contend for the one place in ``gate``: who puts something there first
    decides whether this begins. Once it has begun, it ends with the gate's shutdown, by which
    time the iterator is closed.

    When the consumer needs no more, this is interrupted: by one exception, wherever it stands. Or
    it is not, in a thread of the program's (``is_interrupted``), and ends at the next item.
    """
    try:
        try:
            gate.put_nowait(None)
        except (QueueFull, QueueShutDown):
            return
        _iterate(items, gate, function, args, kwargs, is_interrupted)
    finally:
        gate.shutdown()


def _found(function: FunctionName | Callable[..., Any]) -> Any:
    try:
        return resolve(*function) if isinstance(function, tuple) else function
    except ImportError as error:
        from ._refusals import note_not_begun

        assert isinstance(function, tuple)
        note_not_begun(error, function)
        raise


def _iterate(
    items: Queue[Any],
    gate: Queue[None],
    function: FunctionName | Callable[..., Iterable[Any]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    is_interrupted: bool,
) -> None:
    found: Any = _found(function)
    iterator = iter(found(*args, **kwargs))
    try:
        for item in iterator:
            try:
                items.put(item)
            except QueueShutDown:
                if is_interrupted:
                    _await_interruption(gate)
                return
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _await_interruption(gate: Queue[None]) -> None:
    """Nobody will take another item. Whoever saw to that has this interrupted, too.

    That must not come when the generator is at its `finally` already, so it is awaited here, where
    nothing is harmed: the gate is full for good.
    """
    try:
        gate.put(None, timeout=_ON_ITS_WAY)
    except (QueueFull, QueueShutDown):
        return


# ---- the same for asynchronous generator functions, in the worker's event loop ----


async def pump_async(
    items: Queue[Any],
    gate: Queue[None],
    function: FunctionName | Callable[..., AsyncIterable[Any]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    is_interrupted: bool = True,
) -> None:
    """As :func:`pump`; the interruption is a cancellation here."""
    try:
        try:
            gate.put_nowait(None)
        except (QueueFull, QueueShutDown):
            return
        await _iterate_async(items, gate, function, args, kwargs, is_interrupted)
    finally:
        gate.shutdown()


async def _iterate_async(
    items: Queue[Any],
    gate: Queue[None],
    function: FunctionName | Callable[..., AsyncIterable[Any]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    is_interrupted: bool,
) -> None:
    found: Any = _found(function)
    iterator = aiter(found(*args, **kwargs))
    try:
        async for item in iterator:
            try:
                await items.aput(item)
            except QueueShutDown:
                if is_interrupted:
                    await _await_cancellation(gate)
                return
    finally:
        close = getattr(iterator, "aclose", None)
        # A generator that has ended has nothing to close; and if this were cancelled between the
        # call and its `await`, CPython would warn of a coroutine that was never awaited.
        if close is not None and getattr(iterator, "ag_frame", close) is not None:
            await close()


async def _await_cancellation(gate: Queue[None]) -> None:
    import asyncio

    try:
        async with asyncio.timeout(_ON_ITS_WAY):
            await gate.aput(None)
    except (QueueShutDown, TimeoutError):
        return
