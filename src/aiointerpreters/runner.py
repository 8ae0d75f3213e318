"""The Runner: CPU-bound functions in subinterpreters, awaited like coroutines."""

import asyncio
import atexit
import functools
import inspect
import operator
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, NoReturn, Self, cast

from . import _core, _main, _naming
from ._calls import Calls, ModuleInfo, Submit
from .errors import InterpreterError, NotShareableError, RunnerError

__all__ = ("InterpreterError", "Runner", "RunnerError", "get_module_info")


class Runner(Calls):
    """A pool of workers, each a subinterpreter with its own GIL on its own thread.

        async with Runner() as runner:
            results = await asyncio.gather(*(runner.run(parse, page) for page in pages))

    Functions are found by name in the workers: any function, class, builtin or static method at the
    top level of a module can be called, those of the main script included, and
    ``functools.partial`` of them; lambdas, closures and what a notebook defines are sent by value,
    where cloudpickle is installed. Arguments and results are copied: ``None``, ``bool``, ``int``,
    ``float``, ``complex``, ``str``, ``bytes``, ``bytearray``, ``tuple``, ``list``, ``dict``,
    ``set`` and ``frozenset`` directly, everything else by pickle; but a ``memoryview`` shows the
    sender's own memory, and so do buffers in what is pickled.

    One runner may be used from several event loops in several threads. Workers follow PEP 684 (a
    GIL per interpreter) and PEP 734 (multiple interpreters).

    Args:
        workers: How many workers; by default as many as the process may use processors.
        initializer: A function that every worker calls first. If it raises, the runner is broken:
            all calls fail with :exc:`BrokenRunner`.
        initargs: The arguments for ``initializer``.
        preload: Names of modules that every worker imports first, so that the first call need not.
        name: Names the threads, for debuggers; at most 15 characters of it are shown.

    Raises:
        TypeError: ``workers`` is no integer, ``initializer`` can't be called, or ``preload`` is not
            names of modules.
        ValueError: ``workers`` is less than 1.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        preload: Iterable[str] = (),
        name: str | None = None,
    ) -> None:
        if workers is None:
            workers = os.process_cpu_count() or 1
        elif not hasattr(workers, "__index__"):
            raise TypeError(f"workers must be an integer or None, not {_kind(workers)}")
        elif operator.index(workers) < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {_kind(initializer)}")
        if not isinstance(initargs, Iterable):
            raise TypeError(f"initargs must be a tuple of arguments, not {_kind(initargs)}")
        if isinstance(preload, str):
            raise TypeError("preload takes several names of modules: write it as a tuple")
        if not isinstance(preload, Iterable):
            raise TypeError(f"preload must be a tuple of names of modules, not {_kind(preload)}")
        preload = tuple(preload)
        for module in preload:
            if not isinstance(module, str):
                raise TypeError(f"preload must be names of modules: {module!r} is none")
        self.workers = workers
        self.name = "aio-worker" if name is None else name
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._preload = preload
        self._pool: _core.Pool | None = None
        self._submit: Submit = _refuse_unstarted
        self._closed = False

    # ---- life ----

    def start(self) -> Self:
        """Start the workers and return the runner, which is a context manager.

        Does not wait for the workers: calls that come before they are ready are queued. Leaving the
        ``with`` block lets accepted work finish, then stops the workers, as :meth:`close` does; an
        exception that leaves it cancels queued work and interrupts running work.

        Raises:
            RunnerError: It was started before, its ``initializer`` can't be sent to a worker, or
                the system has no room for another thread.
            NotShareableError: ``initargs`` can't be sent to a worker.
        """
        if self._pool is not None:
            raise RunnerError(
                "the runner is closed: make a new one"
                if self._closed
                else "the runner has been started already"
            )
        if _main.is_loading():
            raise RunnerError(
                "a runner is started while a worker loads the main script, to find a function in "
                "it: put the script's main part below `if __name__ == '__main__':`"
            )
        # What is no string the import system passes over.
        import_path = [entry for entry in sys.path if type(entry) is str]
        try:
            pool = _core.Pool(import_path, self._setup(), self.workers, self.name)
        except NotShareableError as error:
            # What is sent is the arguments of _worker.set_up().
            text = str(error).replace("setup[4]", "initargs", 1)
            text = text.replace("setup[3]", "initializer", 1)
            raise NotShareableError(text) from error.__cause__
        pool.start()
        self._pool = pool
        self._submit = pool.submit
        return self

    def _setup(self) -> tuple[object, ...]:
        """The arguments of _worker.set_up()."""
        initializer: object = self._initializer
        initargs, initkwargs = self._initargs, {}
        if isinstance(initializer, functools.partial):
            initargs = (*initializer.args, *initargs)
            initkwargs = initializer.keywords
            initializer = initializer.func
        if initializer is not None:
            # What has no name travels by pickle, with the rest.
            initializer = _naming.describe(cast(Any, initializer)) or initializer
        return (sys.argv, _main.describe(), self._preload, initializer, initargs, initkwargs)

    def _started(self) -> _core.Pool:
        return _refuse_unstarted() if self._pool is None else self._pool

    def close(self, cancel_pending: bool = False) -> None:
        """Accept no more calls, let the accepted ones finish, and stop the workers.

        Blocks until the workers have ended, except in a thread in which an event loop runs: that
        must not be blocked, so there the runner ends in the background, and results still arrive;
        ``await`` :meth:`aclose` to wait for it. May be called again.

        Args:
            cancel_pending: Cancel the calls that no worker has begun.
        """
        if self._pool is not None:
            self._close(cancel_pending)
            self._join_unless_in_loop()

    async def aclose(self, cancel_pending: bool = False) -> None:
        """As :meth:`close`, but wait for the workers without blocking the event loop."""
        if self._pool is not None:
            await self._close(cancel_pending).when_ended()

    async def drain(self) -> None:
        """Wait until every call that was accepted, from any event loop, is done.

        The futures that this loop got for them are settled then.

        Raises:
            RunnerError: The runner is not started.
        """
        await self._started().when_idle()

    def _close(self, cancel_pending: bool, interrupt: bool = False) -> _core.Pool:
        """Begin to close; does not wait."""
        self._closed = True
        pool = self._started()
        pool.close(cancel_pending, interrupt)
        return pool

    def _join_unless_in_loop(self) -> None:
        if self._pool is None or _runs_loop():
            return
        try:
            self._pool.join()
        except BaseException:
            # Ctrl-C while we waited: don't leave the work running behind the program's back.
            self._pool.close(True, True)
            raise

    def __enter__(self) -> Self:
        return self.start() if self._pool is None or self._closed else self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        has_failed = exc_type is not None
        self._close(cancel_pending=has_failed, interrupt=has_failed)
        self._join_unless_in_loop()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        has_failed = exc_type is not None
        pool = self._close(cancel_pending=has_failed, interrupt=has_failed)
        try:
            await pool.when_ended()
        except asyncio.CancelledError:
            pool.close(True, True)
            raise

    def __del__(self) -> None:
        pool = getattr(self, "_pool", None)
        if pool is not None and not pool.closing and not pool.forked:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            pool.close(True, True)

    def __repr__(self) -> str:
        if self._pool is None:
            state = "not started"
        else:
            state = "closed" if self._closed else f"{self._pool.pending} pending"
        return f"<{type(self).__name__} {self.name!r} workers={self.workers} {state}>"


def get_module_info(fn: Callable[..., Any]) -> ModuleInfo:
    """Describe where ``fn`` can be imported from, for :meth:`Runner.run_module_function`.

    Returns:
        ``("module", module, name)``, or ``("path", file, name)`` for the main script's functions.

    Raises:
        RunnerError: ``fn`` is no top-level function of a module.
    """
    module = getattr(fn, "__module__", None)
    if module is None:
        raise RunnerError(f"{fn} is not a top level function")
    if module in _main.NAMES:
        return ("path", inspect.getfile(fn), fn.__qualname__)
    return ("module", module, fn.__qualname__)


def _refuse_unstarted(*_: object) -> NoReturn:
    raise RunnerError(
        "the runner is not started: use `async with runner:` or `with runner.start():`"
    )


def _kind(value: object) -> str:
    return type(value).__name__


def _runs_loop() -> bool:
    """Whether an event loop runs in this thread, which therefore must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _stop_all_pools() -> None:
    """At the program's end: stop what still runs, or CPython would end with threads in it."""
    try:
        _core.shut_down()
    except KeyboardInterrupt:
        # A worker sits in a C function that can't be interrupted; the user won't wait for it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


atexit.register(_stop_all_pools)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_core.before_fork, after_in_parent=_core.after_fork)
