"""An executor of threads, in which tagged functions run in subinterpreters.

with InterpreterThreadPoolExecutor() as executor:
    executor.set_as_event_loop_default()
    page = await asyncio.to_thread(interpreter(parse), content)  # in an interpreter
    text = await asyncio.to_thread(path.read_text)  # in a thread
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from . import _checks
from ._tagging import interpreter, untag
from .executor import Executor

__all__ = ("InterpreterThreadPoolExecutor", "interpreter")

_next_number = itertools.count().__next__


class InterpreterThreadPoolExecutor(ThreadPoolExecutor):
    """A ``ThreadPoolExecutor`` in which functions with a tag run in subinterpreters.

        with InterpreterThreadPoolExecutor() as executor:
            future = executor.submit(interpreter(parse), content)

    What :class:`interpreter` has tagged runs in an isolated interpreter with its own GIL, so that
    it uses another core; a ``functools.partial`` of it does, too. Everything else runs in a thread.
    Tagged functions and their values cross as they do for a :class:`Runner`, with the same errors.
    Context variables do not follow them, also not from ``asyncio.to_thread``.

    Threads and interpreters are made when calls wait for one, and used again. A tagged call
    occupies no thread, so that long ones don't keep short waits from theirs.

    Args:
        max_workers: How many threads, at most, and how many interpreters; by default as for a
            ``ThreadPoolExecutor``.
        thread_name_prefix: Names threads and interpreters.
        initializer: A function that every thread calls first, and every interpreter. If it raises
            there, calls fail with a ``BrokenExecutor``: in interpreters, :exc:`BrokenRunner`.
        initargs: The arguments for ``initializer``.

    Raises:
        TypeError: ``initializer`` can't be called, or ``thread_name_prefix`` is no string.
        ValueError: ``max_workers`` is not greater than 0.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        prefix = thread_name_prefix or f"{type(self).__name__}-{_next_number()}"
        super().__init__(max_workers, prefix, initializer, initargs)
        self._interpreters = Executor(self._max_workers, prefix, initializer, initargs)

    def submit[**P, R](self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call ``fn(*args, **kwargs)``, in an interpreter if it is tagged; return its future.

        Raises:
            RuntimeError: The executor is shut down.
            BrokenExecutor: A thread, or for a tagged function an interpreter, could not start.
        """
        call = untag(fn, args, kwargs)
        if call is None:
            return super().submit(fn, *args, **kwargs)
        function, positional, keyword = call
        return self._interpreters.submit(function, *positional, **keyword)

    def set_as_event_loop_default(
        self, ctx: asyncio.AbstractEventLoop | asyncio.Runner | None = None
    ) -> None:
        """Let ``asyncio.to_thread`` and ``loop.run_in_executor(None, …)`` use this executor.

        The loop shuts it down at its end, as ``asyncio.run`` and ``asyncio.Runner`` have it.

        Args:
            ctx: An event loop, of uvloop too; or that of an ``asyncio.Runner``; or, by default,
                the one that runs in this thread.

        Raises:
            TypeError: ``ctx`` is none of these.
            RuntimeError: No event loop runs in this thread.
        """
        if ctx is None:
            loop = asyncio.get_running_loop()
        elif isinstance(ctx, asyncio.Runner):
            loop = ctx.get_loop()
        elif isinstance(ctx, asyncio.AbstractEventLoop):
            loop = ctx
        else:
            raise TypeError(
                f"ctx must be an event loop, an asyncio.Runner or None, not {_checks.kind(ctx)}"
            )
        loop.set_default_executor(self)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls, and let threads and interpreters end after the accepted ones.

        Args:
            wait: Wait until then.
            cancel_futures: Cancel the calls that have not begun.
        """
        self._interpreters.shutdown(wait=False, cancel_futures=cancel_futures)
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            self._interpreters.shutdown(wait=True)
