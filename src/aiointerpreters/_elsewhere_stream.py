"""A stream's generator that runs in a process or a thread, not in a subinterpreter."""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import Any

from . import _pumping
from .queues import Queue, QueueFull, QueueShutDown


class Streaming:
    """A generator that is to run in a process or a thread, and where its items go.

    What is ready in a process before it is consumed is partly here, partly on the way.
    """

    def __init__(
        self,
        where: str,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        gate: Queue[None],
        buffer: int,
    ) -> None:
        self.where = where
        self._call = (fn, args, kwargs)
        self._gate = gate
        self.window = max(1, buffer // 2)
        size = max(1, buffer + 1 - self.window) if where == "process" else buffer
        self.items: Queue[Any] = Queue(size)

    def call(self, where: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """The function to be called there, and its arguments."""
        if where == "process":
            return self._call
        fn, args, kwargs = self._call
        function = fn
        while type(function) is functools.partial:
            function = function.func
        is_async = inspect.isasyncgenfunction(function)
        pump = _pumping.pump_async if is_async else _pumping.pump
        return pump, (self.items, self._gate, fn, args, kwargs, False), {}

    def begin(self) -> None:
        """As _pumping.pump() begins."""
        with contextlib.suppress(QueueFull, QueueShutDown):
            self._gate.put_nowait(None)

    def put(self, item: Any, timeout: float | None = None) -> bool:
        """Pass an item on, in the process's thread; false if no more are wanted.

        Raises TimeoutError if nobody has made room for it in time.
        """
        try:
            self.items.put(item, timeout=timeout)
        except QueueShutDown:
            return False
        except QueueFull:
            raise TimeoutError from None
        return True

    def abandon(self) -> None:
        """Nobody takes items any more: let go who waits to put one."""
        self.items.shutdown(immediate=True)

    def end(self) -> None:
        self._gate.shutdown()
