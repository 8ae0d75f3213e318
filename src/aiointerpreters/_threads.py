"""Threads of the program itself that run calls, for `options(where="thread")`."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from . import _core, _failures, _naming
from ._crew import Call, Crew, Server
from .errors import RunnerError


class ThreadCall(Call):
    """A call for a thread. Nothing is copied; the caller's context variables are seen."""

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        on_done: Callable[[Any, BaseException | None], None],
        *,
        priority: int = 0,
        on_begin: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(priority, on_done)
        function: Any = fn
        while type(function) is functools.partial:
            function = function.func
        if type(function) is tuple:
            found: Any = _naming.find(function)
            if found is None:
                raise RunnerError(f"{function!r} is not loaded in this program")
            fn = found
        _naming.refuse_generators(fn)
        self.is_coroutine = _naming.is_coroutine_function(function)
        self.on_begin = on_begin
        self.function: Callable[[], Any] | None = functools.partial(fn, *args, **kwargs)
        self.context = copy_context()


class Threads(Crew):
    """The threads of a runner."""

    kind = "thread"
    can_interrupt = False

    def __init__(self, size: int, name: str) -> None:
        if _core.in_worker():
            raise RunnerError("threads of a runner can't be started from within a worker")
        super().__init__(size, name)

    def make_server(self, index: int) -> Server:
        return _Thread(self, index)

    def forget(self) -> None:
        self._lock = threading.RLock()


class _Thread(Server):
    def serve(self, call: Call) -> tuple[Any, BaseException | None]:
        assert isinstance(call, ThreadCall)
        function, call.function = call.function, None
        assert function is not None
        if call.on_begin is not None:
            call.on_begin()
        try:
            if call.is_coroutine:
                return call.context.run(_run_coroutine, function), None
            return call.context.run(function), None
        except BaseException as error:
            if _failures.would_be_mistaken(error):
                error = _failures.rebuild(_failures.pack(error))
            return None, error


def _run_coroutine(function: Callable[[], Any]) -> Any:
    async def run() -> Any:
        return await function()

    return asyncio.run(run())
