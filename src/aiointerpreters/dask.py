"""Subinterpreters for the workers of a Dask cluster (``pip install aiointerpreters[dask]``).

    from aiointerpreters.dask import Interpreters

    client.register_plugin(Interpreters())
    with dask.annotate(executor="interpreters"):
        futures = client.map(parse, pages)  # or delayed, bags, ...

A Dask worker with threads runs pure-Python tasks one at a time, for its GIL. As many processes as
cores run them in parallel, and each has its own copy of the data that tasks share. With this plugin
one process per machine does: its data are there once, and its tasks run on all its cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent import futures
from typing import TYPE_CHECKING, Any

from distributed import Reschedule, Status, WorkerPlugin

from ._call_future import CallFuture
from .executor import Executor

if TYPE_CHECKING:
    from distributed import Worker

__all__ = ("Interpreters",)


class Interpreters(WorkerPlugin):
    """A Dask worker plugin: gives each worker an executor made of subinterpreters.

    Tasks annotated with its name run there, each in one interpreter; Dask's scheduler does all that
    it does for other tasks. What a task needs is sent to the interpreter, and its result back, as
    it is for a :class:`Runner`: by copy, but for memoryviews and what has buffers.

    In a task there is no Dask worker: ``get_worker()`` and ``worker_client()`` don't work, and
    packages that refuse subinterpreters can't be imported. ``async`` tasks, and whatever is not
    annotated, run in the worker's own interpreter.

    A task that is cancelled while it runs is interrupted, as Dask's threads can't be.

    Args:
        workers: How many interpreters in each Dask worker; by default as many as it has threads,
            since Dask gives it no more tasks at a time.
        name: The executor's, for ``dask.annotate(executor=...)``.
        default: Whether tasks without an annotation run there, too. Then most of what Dask itself
            brings (arrays, dataframes) fails, for numpy and pandas refuse subinterpreters.
        initializer: A function that every interpreter calls first.
        initargs: The arguments for ``initializer``.
        preload: Names of modules that every interpreter imports first.
        max_tasks_per_worker: An interpreter is replaced by a fresh one after so many tasks.
        grace_period: How many seconds an interrupted task has to come to its end.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        name: str = "interpreters",
        default: bool = False,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        preload: Iterable[str] = (),
        max_tasks_per_worker: int | None = None,
        grace_period: float = 1.0,
    ) -> None:
        self.name = f"aiointerpreters: {name}"  # Dask's, of the plugin
        self._names = (name, "default") if default else (name,)
        self._workers = workers
        self._options: dict[str, Any] = {
            "initializer": initializer,
            "initargs": initargs,
            "preload": (preload,) if isinstance(preload, str) else tuple(preload),
            "max_tasks_per_worker": max_tasks_per_worker,
            "grace_period": grace_period,
        }
        # What is wrong with them is said here, and not in some worker's log.
        Executor(1 if workers is None else workers, **self._options).shutdown()

    def setup(self, worker: Worker) -> None:
        """Give a Dask worker its executor."""
        threads = worker.state.nthreads
        count = threads if self._workers is None else self._workers
        prefix = f"{self._names[0]}-{worker.name}"
        self._pool = _TaskExecutor(Executor(count, prefix, **self._options), threads)
        self._replaced = {name: worker.executors.get(name) for name in self._names}
        for name in self._names:
            worker.executors[name] = self._pool

    def teardown(self, worker: Worker) -> None:
        """Take it away again.

        Tasks that run there finish, unless the worker is closing: then they are interrupted, since
        the scheduler has them run elsewhere.
        """
        for name, executor in self._replaced.items():
            if worker.executors.get(name) is not self._pool:
                continue
            if executor is None:
                del worker.executors[name]
            else:
                worker.executors[name] = executor
        if worker.status is Status.closing:
            self._pool.cancel_all()
        self._pool.shutdown(wait=False)

    def transition(self, key: Hashable, start: str, finish: str, **kwargs: Any) -> None:
        """Interrupt a task that nobody wants any more."""
        if start in ("executing", "long-running") and finish in ("released", "cancelled"):
            self._pool.cancel(key)


class _TaskExecutor(futures.Executor):
    """What Dask calls with a task.

    Its work with a task (clocks, failures, sizes) is done by a thread in the worker's interpreter,
    with a copy of the task whose function is called elsewhere. Dask's own code can't be imported in
    a subinterpreter: it needs psutil.

    Dask treats whatever has "ThreadPoolExecutor" in its type's name in another way.
    """

    def __init__(self, executor: Executor, threads: int) -> None:
        self._executor = executor
        self._drivers = futures.ThreadPoolExecutor(threads, "dask-interpreters")
        self._lock = threading.Lock()  # guards the calls
        self._calls: dict[Hashable, _Call] = {}
        self._closing = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        """Call `fn(task, ...)` in a thread, the task's function in a subinterpreter."""
        task = args[0] if args else None
        function = getattr(task, "func", None)
        if task is None or function is None:  # no task, or one without work
            return self._drivers.submit(fn, *args, **kwargs)
        call = _Call(self._executor, function)
        with self._lock:
            self._calls[task.key] = call
        try:
            task = task.copy()
            task.func = call
            future = self._drivers.submit(fn, task, *args[1:], **kwargs)
        except BaseException:
            self._forget(args[0].key, call)
            raise
        key = task.key
        future.add_done_callback(lambda _: self._forget(key, call))
        return future

    def _forget(self, key: Hashable, call: _Call) -> None:
        with self._lock:
            if self._calls.get(key) is call:
                del self._calls[key]
            ended = self._closing and not self._calls
        if ended:
            self._executor.shutdown(wait=False)

    def cancel(self, key: Hashable) -> None:
        """Interrupt a task, if it is here."""
        with self._lock:
            call = self._calls.get(key)
        if call is not None:
            call.cancel()

    def cancel_all(self) -> None:
        """Interrupt all tasks that are here."""
        with self._lock:
            calls = list(self._calls.values())
        for call in calls:
            call.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As that of any executor."""
        self._drivers.shutdown(wait, cancel_futures=cancel_futures)
        with self._lock:
            self._closing = True  # or else a thread would find no executor for its task
            ended = not self._calls
        if wait or ended:
            self._executor.shutdown(wait)


class _Call:
    """A task's function, called in a subinterpreter; in a driver's thread."""

    def __init__(self, executor: Executor, function: Callable[..., Any]) -> None:
        self._executor = executor
        self._function = function
        self._lock = threading.Lock()  # guards the rest
        self._future: CallFuture[Any] | None = None
        self._cancelled = False

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            if not self._cancelled:
                self._future = self._executor.submit(self._function, *args, **kwargs)
        try:
            if self._future is None:
                raise futures.CancelledError
            return self._future.result()
        except futures.CancelledError:
            # If it is wanted again in the meantime, it is done again.
            raise Reschedule from None
        finally:
            self._future = None

    def cancel(self) -> None:
        """Interrupt it, or keep it from beginning."""
        with self._lock:
            self._cancelled = True
            future = self._future
        if future is not None:
            future.interrupt()
