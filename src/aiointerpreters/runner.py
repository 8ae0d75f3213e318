"""The Runner: CPU-bound functions in subinterpreters, awaited like coroutines."""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from . import _checks, _context, _core, _listening, _main, _naming
from ._calls import Calls, ModuleInfo, Submit, call_directly, submitter
from ._forwarding import Link
from ._options import Options
from ._slots import Slots
from ._stats import RunnerStats
from ._worker import FirstSteps
from .errors import InterpreterError, NotShareableError, RunnerError

if TYPE_CHECKING:
    from ._where import Elsewhere
if sys.version_info < (3, 14):
    # The process may crash if two workers import it at the same time, or end with it, and the main
    # interpreter has not imported it before (python/cpython#136421, #136423).
    import datetime as datetime

__all__ = ("InterpreterError", "Runner", "RunnerError", "get_module_info")


#: Held while what a runner makes at first need is put into its place.
_making = threading.Lock()

#: Seconds; creating a worker takes a hundredth of one.
_IDLE_TIMEOUT = 10.0


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
        max_pending: How many calls may be accepted and not done, queued or running. When there are
            as many, :meth:`run`, :meth:`map` and :meth:`stream` wait for their turn, first come
            first served, and :meth:`submit` raises :exc:`RunnerFull`. By default, any number.
        initializer: A function that every worker calls first. If it raises, the runner is broken:
            all calls fail with :exc:`BrokenRunner`.
        initargs: The arguments for ``initializer``.
        concurrency: How many coroutines a worker runs at a time, at most; more wait for a place.
        preload: Names of modules that every worker imports first, so that the first call need not.
        max_tasks_per_worker: A worker is replaced by a fresh one after so many calls, so that what
            leaks is gone. (Coroutines don't count.)
        min_workers: If given, workers are started when calls wait, up to ``workers``, and end when
            they have been idle for ``idle_timeout``, down to this number, which may be 0.
        idle_timeout: In seconds; by default 10.
        grace_period: How many seconds interrupted code has to come to its end (``finally`` blocks
            and all), before its worker counts as stuck and is replaced.
        name: Names the workers: ``"name-0"`` and so on. Debuggers show 15 characters of it.
        context: Context variables that follow a call into its worker: where they are set in the
            caller, the function sees their values. Each must be at the top level of a module.
        logging: Whether log records and warnings of the workers go to this program's handlers.
        unsupported: What becomes of a function that can't be called in a worker, because an
            extension module that it needs does not support subinterpreters, as numpy and most
            others don't: ``"error"``: calls fail with :exc:`UnsupportedModule`; ``"process"``: they
            run in processes, as many as ``workers``, which are started when they are first needed.

    Raises:
        TypeError: A number is none, ``initializer`` can't be called, ``preload`` is not names of
            modules, or ``context`` not context variables.
        ValueError: A number is too small, ``min_workers`` is more than ``workers``,
            ``idle_timeout`` comes without ``min_workers``, or a worker could not find a variable
            of ``context``.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        max_pending: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        preload: Iterable[str] = (),
        max_tasks_per_worker: int | None = None,
        min_workers: int | None = None,
        idle_timeout: float | None = None,
        grace_period: float = 1.0,
        concurrency: int = 100,
        name: str | None = None,
        context: Iterable[ContextVar[Any]] = (),
        logging: bool = True,
        unsupported: Literal["error", "process"] = "error",
    ) -> None:
        if workers is None:
            workers = os.process_cpu_count() or 1
        else:
            workers = _checks.integer("workers", workers, 1)
        if max_pending is not None:
            max_pending = _checks.integer("max_pending", max_pending, 1)
        if min_workers is None:
            if idle_timeout is not None:
                raise ValueError("idle_timeout is of no use without min_workers")
            min_workers = workers
        elif _checks.integer("min_workers", min_workers, 0) > workers:
            raise ValueError(f"min_workers must be at most workers, {workers}, not {min_workers}")
        if max_tasks_per_worker is not None:
            max_tasks_per_worker = _checks.count("max_tasks_per_worker", max_tasks_per_worker, 1)
        concurrency = _checks.count("concurrency", concurrency, 1, or_none=False)
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {_checks.kind(initializer)}")
        if not isinstance(initargs, Iterable):
            raise TypeError(f"initargs must be a tuple of arguments, not {_checks.kind(initargs)}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string or None, not {_checks.kind(name)}")
        if not isinstance(context, Iterable):
            raise TypeError(f"context must be context variables, not {_checks.kind(context)}")
        self.unsupported = _checks.one_of("unsupported", unsupported, "error", "process")
        self.workers = workers
        self.max_pending = max_pending
        self.name = "aio-worker" if name is None else name
        self.concurrency = concurrency
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._preload = _checks.module_names("preload", preload)
        self._min_workers = min_workers
        self._idle_timeout = _checks.seconds(
            "idle_timeout", _IDLE_TIMEOUT if idle_timeout is None else idle_timeout
        )
        self._grace_period = _checks.seconds("grace_period", grace_period)
        self._max_tasks_per_worker = max_tasks_per_worker
        context = tuple(context)
        self._capture = _context.Capture(context) if context else None
        self._logging = logging
        self._hold: _listening.Hold | None = None
        self._pool: _core.Pool | None = None
        self._submit: Submit = _refuse_unstarted
        self._elsewhere: Elsewhere | None = None  # made at first need
        self._slots = None if max_pending is None else Slots(max_pending)
        self._options = Options()
        self._closed = False
        self._is_heard = False  # something waits for the end in the background

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
        hold = _listening.hold() if self._logging else None
        try:
            pool = self._start_pool(None if hold is None else hold.link)
        except BaseException:
            if hold is not None:
                hold.release()
            raise
        self._hold = hold
        self._pool = pool
        self._submit = submitter(pool, self._capture)
        if self.unsupported == "process":
            self._submit = self._get_elsewhere().submit
        if self._elsewhere is not None:
            self._elsewhere.start(pool, self._link())
        if self._capture is None and self._slots is None:
            call_directly(self, pool, self._elsewhere)
        return self

    def _get_elsewhere(self) -> Elsewhere:
        """What sends calls to processes and threads."""
        if self._elsewhere is None:
            from ._processes import Settings
            from ._where import Elsewhere

            places = {} if self._capture is None else self._capture.places
            steps = self._first_steps(False)
            is_elastic = self._min_workers < self.workers
            made = Elsewhere(
                moves=self.unsupported == "process",
                name=self.name,
                size=self.workers,
                least=self._min_workers,
                idle_timeout=self._idle_timeout if is_elastic else None,
                settings=Settings(steps, places, self._max_tasks_per_worker, self._grace_period),
                capture=self._capture,
            )
            if self._pool is not None:
                made.start(self._pool, self._link())
            with _making:
                if self._elsewhere is None:
                    self._elsewhere = made
            if self._closed:  # perhaps before there was something to be closed
                self._elsewhere.close(False, False)
        return self._elsewhere

    def _link(self) -> Link | None:
        return None if self._hold is None else self._hold.link

    def _start_pool(self, link: Link | None) -> _core.Pool:
        places = {} if self._capture is None else self._capture.places
        try:
            pool = _core.Pool(
                _start(),
                (_main.describe(), link, places),
                self._first_steps(self.unsupported == "process"),
                link is not None,
                self.name,
                workers=self.workers,
                min_workers=self._min_workers,
                idle_timeout=self._idle_timeout,
                grace_period=self._grace_period,
                max_tasks_per_worker=self._max_tasks_per_worker or -1,
                concurrency=self.concurrency,
            )
        except NotShareableError as error:
            text = str(error).replace("first_steps[2]", "initargs", 1)
            text = text.replace("first_steps[1]", "initializer", 1)
            raise NotShareableError(text) from error.__cause__
        pool.start()
        return pool

    def _first_steps(self, skips_refused: bool) -> FirstSteps | None:
        initializer: Any = self._initializer
        initargs, initkwargs = self._initargs, {}
        if isinstance(initializer, functools.partial):
            initargs = (*initializer.args, *initargs)
            initkwargs = initializer.keywords
            initializer = initializer.func
        if _naming.is_coroutine_function(initializer):
            raise RunnerError("the initializer is a coroutine function: no event loop runs yet")
        if initializer is not None:
            # What has no name travels by pickle, with the rest.
            initializer = _naming.describe(initializer) or initializer
        if initializer is None and not initargs and not self._preload:
            return None
        return (self._preload, initializer, initargs, initkwargs, skips_refused)

    def _runner(self) -> Runner:
        return self

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
            pool = self._close(cancel_pending)
            if not pool.forked:  # in a forked child asyncio knows of no running loop, either
                await self._until_ended(pool)

    async def drain(self) -> None:
        """Wait until every call that was accepted, from any event loop, is done.

        The futures that this loop got for them are settled then.

        Raises:
            RunnerError: The runner is not started.
        """
        await self._started().when_idle()
        if self._elsewhere is not None:
            await self._elsewhere.idle()

    def stats(self) -> RunnerStats:
        """Count calls, and workers by their state.

        Raises:
            RunnerError: The runner is not started.
        """
        counts: dict[str, Any] = self._started().stats()
        if self._elsewhere is not None:
            for name, count in self._elsewhere.stats().items():
                counts[name] = count + counts[name] if name in counts else count
        return RunnerStats(**counts)

    def resize(self, workers: int) -> None:
        """Have so many workers from now on; at most so many, if there are ``min_workers``.

        Returns at once. What is too many ends after what it runs; idle workers go first.

        Raises:
            TypeError: ``workers`` is no integer.
            ValueError: It is less than 1.
            RunnerError: The runner is not started, or closed; or the system has no room for another
                thread.
        """
        workers = _checks.integer("workers", workers, 1, or_none=False)
        self._started().resize(workers)
        self.workers = workers
        if self._elsewhere is not None:
            self._elsewhere.resize(workers)

    def recycle(self) -> asyncio.Future[None]:
        """Replace all workers by fresh ones: modules are loaded anew, what leaked is gone.

        Begins at once, and goes from one to the next: a new worker is set up (``initializer`` and
        all) before an old one retires, which finishes what it runs. No call is lost, none waits
        longer.

        Returns:
            A future, no coroutine, that is done when the last old worker takes no more calls; it
            may still be at its last one.

        Raises:
            RunnerError: The runner is not started, or closed; or no event loop runs in this thread.
        """
        recycled = self._started().recycle()
        if self._elsewhere is not None:
            self._elsewhere.recycle()
        return recycled

    def _close(self, cancel_pending: bool, interrupt: bool = False) -> _core.Pool:
        """Begin to close; does not wait."""
        self._closed = True
        pool = self._started()
        # First: calls that are accepted, but not sent yet, go there if the pool refuses them.
        if self._elsewhere is not None:
            self._elsewhere.close(cancel_pending, interrupt)
        pool.close(cancel_pending, interrupt)
        if self._slots is not None:
            self._slots.close()
        return pool

    def _join_unless_in_loop(self) -> None:
        if self._pool is None:
            return
        if _runs_loop():
            self._hear_until_ended()
            return
        try:
            self._pool.join()
            if self._elsewhere is not None:
                self._elsewhere.join(self._grace_period)
        except BaseException:
            # Ctrl-C while we waited: don't leave the work running behind the program's back.
            self._close(True, True)
            raise
        if self._hold is not None:
            self._hold.finish()

    async def _until_ended(self, pool: _core.Pool) -> None:
        """Wait until the workers have ended, and what they logged has been handled."""
        try:
            await pool.when_ended()
            if self._elsewhere is not None:
                await self._elsewhere.ended()
        except BaseException:
            self._hear_until_ended()
            raise
        if self._hold is not None:
            await self._hold.afinish()

    def _hear_until_ended(self) -> None:
        """The workers end in the background: handle what they log until then, and end the rest."""
        pool, hold, elsewhere = self._started(), self._hold, self._elsewhere
        if (hold is None and elsewhere is None) or self._is_heard or pool.forked:
            return
        self._is_heard = True

        def finish(_: object = None) -> None:
            if elsewhere is None:
                release()
            else:
                elsewhere.finish_soon(release)

        def release() -> None:
            if hold is not None:
                hold.release_soon()

        def wait() -> None:
            pool.join()
            finish()

        # In a thread, as the loop may be closed before the workers have ended.
        try:
            threading.Thread(target=wait, name=f"{self.name}-closing", daemon=True).start()
            return
        except RuntimeError:  # there may be no daemons here, or no more threads
            pass
        try:
            pool.when_ended().add_done_callback(finish)
        except (OSError, RuntimeError):  # no descriptor for this loop
            finish()

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
        if pool.forked:
            return
        try:
            await self._until_ended(pool)
        except asyncio.CancelledError:
            self._close(True, True)
            raise

    def __del__(self) -> None:
        pool = getattr(self, "_pool", None)
        if pool is not None and not pool.closing and not pool.forked:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            pool.close(True, True)
            if self._elsewhere is not None:
                self._elsewhere.close(True, True)
            if self._hold is not None:
                self._hold.release_soon()

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


def _start() -> tuple[list[str], list[str], str, str]:
    """What a worker needs before it can import anything; plain builtins only."""
    # What is no string the import system passes over.
    path = [entry for entry in sys.path if type(entry) is str]
    package_path = os.path.dirname(os.path.dirname(__file__))
    return (path, [str(word) for word in sys.argv], _core.__file__, package_path)


def _refuse_unstarted(*_: object) -> NoReturn:
    raise RunnerError(
        "the runner is not started: use `async with runner:` or `with runner.start():`"
    )


def _runs_loop() -> bool:
    """Whether an event loop runs in this thread, which therefore must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _stop_all_pools() -> None:
    """At the program's end: stop what still runs, or CPython would end with threads in it.

    Then handle what the workers have logged.
    """
    try:
        _core.shut_down()
        _listening.stop()
    except KeyboardInterrupt:
        # A worker sits in a C function that can't be interrupted; the user won't wait for it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


atexit.register(_stop_all_pools)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_core.before_fork, after_in_parent=_core.after_fork)
