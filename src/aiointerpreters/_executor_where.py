"""Where the calls of an Executor(unsupported="process") run: as _where.py, but without event loops.

      a function that is not known yet ──► a probe ──► the pool, or a process
      the pool                         ──► back from it, with nothing run ──► a process

A call that may be moved has a future whose ticket is a Movable. What comes from the pool settles it
as any call of an executor, in the thread that delivers it. What comes from a process does so in the
thread that serves that. But callbacks must not keep that thread, nor whoever waits for the next
result from there: they are left to a thread of their own, the caller.

   _choices.py ◄── MovingService, Movable (_movable.py) ──► _crew.py ──► CallFuture ──► the caller
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures._base import LOGGER
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from . import _chunks, _core, _finding, _naming
from ._call_future import CallFuture, failed
from ._choices import FIRST, are_plain, key_of
from ._crew import Cancelled
from ._movable import Movable, Sent, Wanted
from ._processes import ProcessCall
from .errors import BrokenRunner, RunnerError
from .executor import _Part, _Service

if TYPE_CHECKING:
    from ._choices import Choices
    from ._where import Elsewhere
    from .runner import Runner


class MovingService(_Service):
    """The workers of an executor, and its processes."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        # Reentrant, as an executor may be dropped, and so closed, while it is held.
        self._moving = threading.RLock()  # guards the next four
        self._changed = threading.Condition(self._moving)
        self._undecided: set[Movable] = set()  # they are not yet where they run in the end
        self._probes: dict[Any, CallFuture[None]] = {}
        self._caller: threading.Thread | None = None
        #: Futures that are done, and whose callbacks are to be called; None is the end.
        self._due: SimpleQueue[CallFuture[Any] | None] = SimpleQueue()
        self._is_closing = threading.Event()

    @property
    def elsewhere(self) -> Elsewhere:
        return self.runner._get_elsewhere()

    @property
    def collector(self) -> _core.Collector:
        return self._collector

    @property
    def choices(self) -> Choices:
        return self.elsewhere.choices

    # ---- calls ----

    def submit_or_fail(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> CallFuture[Any]:
        """As ever where it is known that the pool can run the call; else as one to be moved."""
        pool = self._pool or self._start()
        capture = self.runner._capture
        named, all_args, all_kwargs = fn, args, kwargs
        if type(fn) is partial:
            named, all_args, all_kwargs = fn.func, (*fn.args, *args), {**fn.keywords, **kwargs}
        plain = are_plain(all_args, all_kwargs)
        if not capture and plain and self.choices.in_process(named) is False:
            return super().submit_or_fail(fn, args, kwargs)
        context = None if capture is None else capture()
        call: Sent = (fn, args, kwargs)
        return self._submit(pool, Wanted(named, all_args, all_kwargs, call, False, context))

    def _submit(self, pool: _core.Pool, wanted: Wanted) -> CallFuture[Any]:
        movable = None
        try:
            if pool.forked or self._closed:
                raise RunnerError("the executor is closed")
            if self.broken and pool.failure is not None:
                raise pool.failure
            key = key_of(wanted.fn)
            if key is not None:
                _naming.describe_call(key)  # which refuses generator functions at once
            movable = Movable(self, wanted)
            future = movable.future
            with self._moving:
                self._undecided.add(movable)
            probe = None
            if not self.is_for_process(wanted) and self.choices.in_process(wanted.fn) is None:
                probe = self._probe(pool, key)
            if probe is None:
                movable.begin()
            else:
                movable.begin_after(probe)
        except BaseException as error:
            if movable is not None:
                self.has_decided(movable)
            is_broken = isinstance(error, BrokenRunner) or not isinstance(error, Exception)
            if is_broken or pool.forked or self._closed:
                self._raise_if_closed(pool, error)
                raise RuntimeError("cannot schedule new futures after shutdown") from None
            return failed(error)
        return future

    def is_for_process(self, wanted: Wanted) -> bool:
        choices = self.choices
        return choices.in_process(wanted.fn) is True or choices.need_process(
            wanted.args, wanted.kwargs
        )

    def must_move(self, error: RunnerError) -> bool:
        return self.elsewhere.must_move(error)

    def send_to_pool(self, wanted: Wanted) -> CallFuture[Any]:
        assert self._pool is not None
        return self._pool.submit_to(self._collector, *wanted.call, 0, None, None, wanted.context)

    def send_to_process(self, call: ProcessCall) -> None:
        if self.elsewhere.is_stopped:
            raise Cancelled
        crew = self.elsewhere.crew("process")
        with self._moving:
            if self._caller is None:
                caller = threading.Thread(
                    target=self._call_all, name=f"{self.runner.name}-moved", daemon=True
                )
                caller.start()
                self._caller = caller
        crew.submit(call)

    def has_decided(self, movable: Movable) -> None:
        """The call is where it runs, or done."""
        with self._moving:
            self._undecided.discard(movable)
            if not self._undecided:
                self._changed.notify_all()

    def _probe(self, pool: _core.Pool, key: Any) -> CallFuture[None] | None:
        """Have a worker import the module of an unknown function; None if it has no name."""
        name = None if key is None else _naming.describe(key)
        if type(name) is not tuple:
            return None
        with self._moving:
            probe = self._probes.get(key)
            if probe is not None:
                return probe
            try:
                probe = pool.submit_to(
                    self._collector, _finding.probe, name, {}, FIRST, None, None, None
                )
            except BrokenRunner as error:
                self.choices.learn(key, error)
                return None
            probe._is_internal = True
            self._probes[key] = probe
        probe.add_done_callback(partial(self._learn, key))
        return probe

    def _learn(self, key: Any, probe: Future[None]) -> None:
        self._probes.pop(key, None)
        if not probe.cancelled():
            self.choices.learn(key, probe.exception())

    def parts(
        self, fn: Callable[..., Any], arguments: Iterator[tuple[Any, ...]], chunksize: int
    ) -> Iterator[_Part]:
        """As ever where it is known that the pool can run the calls."""
        prefix: tuple[Any, ...] = ()
        kwargs: dict[str, Any] = {}
        named: Any = fn
        if type(fn) is partial:
            named, prefix, kwargs = fn.func, fn.args, fn.keywords
        name = None
        if chunksize > 1 and self._takes_chunks(fn):
            name = _naming.describe(named)
        if type(name) is not tuple:
            yield from super().parts(fn, arguments, 1)
            return
        while chunk := list(islice(arguments, chunksize)):
            flat = tuple(itertools.chain(prefix, *chunk))
            if self.choices.in_process(named) is False and are_plain(flat, kwargs):
                yield from super().parts(fn, iter(chunk), chunksize)
                continue
            call: Sent = (_chunks.run, (name, prefix, kwargs, chunk), {})
            pool = self._pool or self._start()
            yield self._submit(pool, Wanted(named, flat, kwargs, call, True, None)), len(chunk)

    # ---- what processes have done ----

    def _call_all(self) -> None:
        """In the caller."""
        while (future := self._due.get()) is not None:
            try:
                future._invoke_callbacks()
            except BaseException:  # of a callback; others wait
                LOGGER.exception("exception calling callbacks of a future")
            del future  # or it would be kept until the next one

    def call_soon(self, future: CallFuture[Any]) -> bool:
        """Have the callbacks of a future called in that thread."""
        self._due.put(future)
        return True

    def is_forked(self) -> bool:
        return self._pool is not None and self._pool.forked

    # ---- life ----

    def _finish(self, pool: _core.Pool) -> None:
        failure = pool.failure
        if failure is not None and self.choices.has_refused(failure):
            self._is_closing.wait()  # the processes go on without it
        else:
            self._note_failure(failure)
        with self._moving:
            while self._undecided:
                self._changed.wait()
        self.runner.close()  # which waits for the processes
        processes = self.elsewhere._processes
        if processes is not None:
            self._note_failure(processes._failure)
        if self._caller is not None:
            self._due.put(None)
            self._caller.join()

    def close(self, cancel_pending: bool = False) -> None:
        """Take no more calls. Does not wait."""
        super().close(cancel_pending)
        if self._pool is not None and not self._pool.forked and cancel_pending:
            self._take_all_back(Movable.cancel)
        self._is_closing.set()

    def _is_ours(self, thread: threading.Thread) -> bool:
        return super()._is_ours(thread) or thread is self._caller

    def stop(self) -> None:
        """Cancel everything, and interrupt what runs."""
        super().stop()
        if self._pool is not None:
            self.elsewhere.close(True, True)
            self._take_all_back(Movable.interrupt)
        self._is_closing.set()

    def _take_all_back(self, how: Callable[[Movable], bool]) -> None:
        with self._moving:
            undecided = list(self._undecided)
        for movable in undecided:
            how(movable)
