"""How functions are called in workers: by a Runner, or by a view of one with options."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from . import _naming

type ModuleInfo = tuple[Literal["module", "path"], str, str]

#: Submits a call: the function, its positional and its keyword arguments.
type Submit = Callable[[Any, tuple[Any, ...], dict[str, Any]], asyncio.Future[Any]]


class Calls:
    """The calls of a :class:`Runner`, and of what its :meth:`Runner.options` returns."""

    #: Sends a call on its way, without waiting for room.
    _submit: Submit

    def submit[**P, R](
        self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[R]:
        """Start ``fn(*args, **kwargs)`` in a worker now; return the future of its result.

        Cheaper than a task around :meth:`run`. Cancelling the future takes a queued call back; a
        running one is no longer waited for, and its result is dropped.

        Raises:
            RunnerError: No event loop runs in this thread; or the runner is not started, is closed,
                or belongs to the parent of this forked process; or ``fn`` is a coroutine function,
                or nothing that a worker could find: a lambda, a function inside a function, one of
                a REPL, unless cloudpickle is installed.
            NotShareableError: An argument can't be sent; the text says which part of it.
            BrokenRunner: A worker could not start.

        The future raises what ``fn`` raised, or :exc:`InterpreterError` if that can't be rebuilt,
        or :exc:`NotShareableError` for a result that can't be sent.
        """
        return self._submit(fn, args, kwargs)

    async def run[**P, R](self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``fn(*args, **kwargs)`` in a worker and return its result.

            links = await runner.run(parse, content)

        Cancelling it (also by ``asyncio.timeout``) takes a queued call back; a running one is no
        longer waited for, and its result is dropped.

        Raises:
            Exception: What ``fn`` raised, with its own type, args, notes and causes; its last
                ``__cause__`` shows the traceback in the worker.
            RunnerError: As :meth:`submit`.
            NotShareableError: An argument or the result can't be sent; the text says which part.
            InterpreterError: ``fn`` raised something that can't be rebuilt here.
            BrokenRunner: A worker could not start.
        """
        future = self._submit(fn, args, kwargs)
        del args, kwargs  # or the traceback of what it raises would keep them
        result: R = await future
        return result

    def wrap[**P, R](self, fn: Callable[P, R], /) -> Callable[P, Coroutine[None, None, R]]:
        """Return a coroutine function that runs ``fn`` in a worker; it keeps fn's signature.

            parse_in_worker = runner.wrap(parse)
            links = await parse_in_worker(content)

        Raises:
            RunnerError: ``fn`` is nothing that a worker could find.
        """
        if not isinstance(fn, functools.partial):
            _naming.describe(fn)

        @functools.wraps(fn)
        async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            future = self._submit(fn, args, kwargs)
            del args, kwargs  # as in run()
            result: R = await future
            return result

        return wrapped

    async def run_module_function(
        self, module_info: ModuleInfo, *args: object, **kwargs: object
    ) -> object:
        """Run the function that :func:`get_module_info` described, as :meth:`run` does."""
        return await self._submit(module_info, args, kwargs)
