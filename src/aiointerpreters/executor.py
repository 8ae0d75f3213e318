"""An Executor: subinterpreters for code that knows concurrent.futures, and no event loop.

from aiointerpreters import Executor

with Executor(max_workers=4) as executor:
    for page in executor.map(parse, documents):
        ...
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures._base import LOGGER  # what its executors say goes there
from contextvars import ContextVar
from functools import partial
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from . import _checks, _core
from ._call_future import CallFuture, failed
from .errors import BrokenRunner, RunnerError
from .runner import Runner

if TYPE_CHECKING:
    from ._batching import Outcome

__all__ = ("CallFuture", "Executor")

#: Seconds that nobody will wait.
_FOR_EVER = 1e9

_next_number = itertools.count().__next__


class Executor(ThreadPoolExecutor):
    """A pool of subinterpreters with the interface of :class:`concurrent.futures.Executor`.

    It takes the place of an ``InterpreterPoolExecutor`` (which CPython has from 3.14 on), and works
    in whatever expects an executor: :func:`concurrent.futures.wait` and ``as_completed``,
    ``loop.run_in_executor``, ``loop.set_default_executor``. Functions and values cross as they do
    for a :class:`Runner`. Workers are started when calls wait for one.

    (It is a ``ThreadPoolExecutor`` to :func:`isinstance` only, which ``set_default_executor`` asks
    for.)

    Args:
        max_workers: How many workers, at most; by default as many as the process may use
            processors.
        thread_name_prefix: Names the workers: ``"prefix-0"`` and so on; by default the class's name
            and a number.
        initializer: A function that every worker calls first. If it raises, the executor is broken:
            all calls fail with :exc:`BrokenRunner`, a ``BrokenExecutor``.
        initargs: The arguments for ``initializer``.
        preload: Names of modules that every worker imports first.
        max_tasks_per_worker: A worker is replaced by a fresh one after so many calls.
        idle_timeout: After how many seconds of idling a worker ends; by default it stays.
        grace_period: As for :class:`Runner`.
        context: As for :class:`Runner`.
        logging: As for :class:`Runner`.
        unsupported: What becomes of a function that can't be called in a worker, because an
            extension module that it needs does not support subinterpreters: ``"error"``: its
            futures raise :exc:`UnsupportedModule`; ``"process"``: it runs in processes, as many as
            ``max_workers``, where :meth:`CallFuture.interrupt` kills the process.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: ``max_workers`` is not greater than 0, or another number too small.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        preload: Iterable[str] = (),
        max_tasks_per_worker: int | None = None,
        idle_timeout: float | None = None,
        grace_period: float = 1.0,
        context: Iterable[ContextVar[Any]] = (),
        logging: bool = True,
        unsupported: Literal["error", "process"] = "error",
    ) -> None:
        if max_workers is None:
            max_workers = os.process_cpu_count() or 1
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if not isinstance(thread_name_prefix, str):
            kind = _checks.kind(thread_name_prefix)
            raise TypeError(f"thread_name_prefix must be a string, not {kind}")
        prefix = thread_name_prefix or f"{type(self).__name__}-{_next_number()}"
        super().__init__(max_workers, prefix)
        runner = Runner(
            workers=max_workers,
            initializer=initializer,
            initargs=initargs,
            preload=preload,
            max_tasks_per_worker=max_tasks_per_worker,
            min_workers=0,
            idle_timeout=_FOR_EVER if idle_timeout is None else idle_timeout,
            grace_period=grace_period,
            name=prefix,
            context=context,
            logging=logging,
            unsupported=unsupported,
        )
        #: Of the workers; it isn't started before the first call.
        self._service = _service_for(runner)
        # Who drops an executor without a shutdown still gets the results of his futures.
        weakref.finalize(self, self._service.close).atexit = False

    def submit[**P, R](
        self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> CallFuture[R]:
        """Call ``fn(*args, **kwargs)`` in a worker; return the future of its result.

        The future raises what ``fn`` raised; or :exc:`NotShareableError` where an argument or the
        result can't be sent, :exc:`RunnerError` where no worker could find ``fn``,
        :exc:`InterpreterError` for an exception that can't be rebuilt.

        Raises:
            RuntimeError: The executor is shut down, or the interpreter; or this is a forked child
                of its process.
            BrokenRunner: A worker could not start.
        """
        return self._service.submit_or_fail(fn, args, kwargs)

    def map[T](
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call ``fn`` in workers with the items of iterables; return an iterator over the results.

        As :meth:`concurrent.futures.Executor.map`. If the iterator is closed early, calls that have
        not begun are cancelled.

        Args:
            timeout: In how many seconds from now the last result must be there.
            chunksize: So many calls are sent to a worker together, which pays where they are short.
            buffersize: How many calls may be submitted whose results have not been consumed; the
                input is pulled only as fast. By default all of it is, at once.

        Raises:
            TypeError: ``buffersize`` or ``chunksize`` is no integer.
            ValueError: It is less than 1.
            RuntimeError: As :meth:`submit`.

        Iterating raises what a call raised, and ``TimeoutError``.
        """
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        chunksize = _checks.integer("chunksize", chunksize, 1, or_none=False)
        end = None if timeout is None else monotonic() + timeout
        # Neither keeps the executor: who drops that gets the results all the same.
        parts = self._service.parts(fn, zip(*iterables, strict=False), chunksize)
        if buffersize is not None:
            buffersize = -(-buffersize // chunksize)
        return _results(deque(islice(parts, buffersize)), parts, end)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls, and let the workers end when the accepted ones are done.

        Args:
            wait: Wait until then, and until all futures are done.
            cancel_futures: Cancel the calls that no worker has begun.
        """
        with self._shutdown_lock:
            self._shutdown = True
        self._service.close(cancel_futures)
        if wait:
            self._service.join()

    def __repr__(self) -> str:
        name = self._service.runner.name
        return f"<{type(self).__name__} {name!r} max_workers={self._max_workers}>"


class _Service:
    """The workers of an executor, and the thread that settles futures when no other does.

    It does not refer to the executor, and goes on without it until all calls are done.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.broken = False
        self._lock = threading.Lock()  # guards the start
        self._closed = False
        self._pool: _core.Pool | None = None
        self._collector: _core.Collector
        self._thread: threading.Thread | None = None

    # ---- calls ----

    def submit_or_fail(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> CallFuture[Any]:
        """Submit a call. If only this one can't be sent, its future has failed."""
        pool = self._pool or self._start()
        capture = self.runner._capture
        context = None if capture is None else capture()
        try:
            return pool.submit_to(self._collector, fn, args, kwargs, 0, None, None, context)
        except Exception as error:
            self._raise_if_closed(pool, error)
            return failed(error)

    def parts(
        self, fn: Callable[..., Any], arguments: Iterator[tuple[Any, ...]], chunksize: int
    ) -> Iterator[_Part]:
        """Submit calls, so many together, as it is iterated over."""
        if chunksize == 1 or not self._takes_chunks(fn):
            for args in arguments:
                yield self.submit_or_fail(fn, args, {}), 0
            return
        prefix: tuple[Any, ...] = ()
        kwargs: dict[str, Any] = {}
        if type(fn) is partial:
            whole: partial[Any] = fn
            fn, prefix, kwargs = whole.func, whole.args, whole.keywords
        pool = self._pool or self._start()
        while chunk := list(islice(arguments, chunksize)):
            items, more = iter(chunk), True
            while more:
                # What is large is sent alone.
                sent, more, error = pool.submit_batch(
                    fn, prefix, kwargs, items, chunksize, 0, self._collector
                )
                yield from sent
                if error is not None:
                    self._raise_if_closed(pool, error)
                    yield failed(error), 0
                    more = True

    def _takes_chunks(self, fn: Callable[..., Any]) -> bool:
        try:
            named: Any = fn.func if type(fn) is partial else fn
            pool = self._pool or self._start()
            return self.runner._capture is None and pool.takes_batches(named)
        except RunnerError:  # each call will say so
            return False

    # ---- life ----

    def _start(self) -> _core.Pool:
        with self._lock:
            if self._pool is not None:
                return self._pool
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            _services.add(self)
            try:
                if _is_ending:
                    raise RuntimeError("cannot schedule new futures after interpreter shutdown")
                pool = self.runner.start()._started()
                try:
                    self._collector = pool.collector()
                    self._thread = threading.Thread(
                        target=self._run, args=(pool,), name=f"{self.runner.name}-results"
                    )
                    self._thread.start()
                except BaseException:
                    self.runner.close(cancel_pending=True)
                    raise
            except BaseException:
                _services.discard(self)
                raise
            self._pool = pool
            return pool

    def _run(self, pool: _core.Pool) -> None:
        """Settle futures, until the workers have ended."""
        try:
            self._collector.run()
        except BaseException:
            pool.close(True, True)
            self._collector.close()
            if not _core.in_worker():  # where everything is stopped when the worker ends
                raise
        finally:
            self._finish(pool)
            _services.discard(self)

    def _finish(self, pool: _core.Pool) -> None:
        """The workers have ended, and what they have done is settled."""
        self._note_failure(pool.failure)
        self.runner.close()

    def _note_failure(self, failure: BaseException | None) -> None:
        if failure is not None:
            LOGGER.critical("Exception in initializer:", exc_info=failure)
            self.broken = True

    def _raise_if_closed(self, pool: _core.Pool, error: BaseException) -> None:
        """Raise why the executor takes no calls; or return if it is only this one."""
        if pool.forked:
            raise RunnerError(
                "the executor belongs to the parent process: its workers do not exist in a forked "
                "child; make a new Executor here"
            ) from None
        if isinstance(error, BrokenRunner) or not isinstance(error, Exception):
            raise error
        if pool.closing:
            when = "interpreter shutdown" if _is_ending else "shutdown"
            raise RuntimeError(f"cannot schedule new futures after {when}") from None

    def close(self, cancel_pending: bool = False) -> None:
        """Take no more calls. Does not wait."""
        with self._lock:
            self._closed = True
            pool = self._pool
        if pool is not None and not pool.forked:
            self.runner._close(cancel_pending)
            if cancel_pending:
                self._collector.drain()  # they are cancelled when this returns

    def join(self) -> None:
        """Wait until the workers have ended, and all futures are done."""
        pool, thread = self._pool, self._thread
        if pool is None or thread is None or pool.forked:
            return
        if not self._is_ours(threading.current_thread()):  # a callback would wait in vain
            thread.join()

    def _is_ours(self, thread: threading.Thread) -> bool:
        return thread is self._thread

    def stop(self) -> None:
        """Cancel everything, and interrupt what runs."""
        if self._pool is not None:
            self._pool.close(True, True)


def _service_for(runner: Runner) -> _Service:
    if runner.unsupported == "error":
        return _Service(runner)
    from ._executor_where import MovingService

    return MovingService(runner)


# ---- results of map() ----

#: Either a call's future and 0, or a chunk's, and how many calls it has.
type _Part = tuple[CallFuture[Any], int]


def _results(pending: deque[_Part], parts: Iterator[_Part], end: float | None) -> Iterator[Any]:
    """The results of what is pending; for each of these, another part is submitted."""
    try:
        while pending:
            pending.extend(islice(parts, 1))
            # Nothing here keeps a future that has been consumed, nor its result.
            if pending[0][1] == 0:
                yield _result(pending.popleft()[0], end)
            else:
                yield from _unpack(_result(pending.popleft()[0], end))
    finally:
        for future, _ in pending:
            future.cancel()


def _result(future: CallFuture[Any], end: float | None) -> Any:
    try:
        try:
            return future.result(None if end is None else end - monotonic())
        finally:
            future.cancel()
    finally:
        del future  # or the traceback of what it raises would keep it


def _unpack(outcome: Outcome) -> Iterator[Any]:
    values, error = outcome[:2]
    values.reverse()
    while values:
        yield values.pop()
    if error is not None:
        try:
            raise error
        finally:
            del error, outcome


# ---- the end of the program ----

#: Those that have workers.
_services: set[_Service] = set()

_is_ending = False


def _finish_all() -> None:
    """Let all executors finish their work, as those of concurrent.futures do."""
    global _is_ending
    _is_ending = True  # a service looks at this after it has joined the others
    services = list(_services)
    for service in services:
        service.close()
    try:
        for service in services:
            service.join()
    except BaseException:  # Ctrl-C
        for service in services:
            service.stop()
        raise


# As concurrent.futures has it: before the threads are joined, and so before what `atexit` runs.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_services.clear)
