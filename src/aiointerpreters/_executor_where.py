"""Where the calls of an Executor(unsupported="process") run: as _where.py, but without event loops.

      a function that is not known yet ──► a probe ──► the pool, or a process
      the pool                         ──► back from it, with nothing run ──► a process

A call that may be moved has a future whose ticket is a Movable. What comes from the pool settles it
as any call of an executor, in the thread that delivers it. What comes from a process goes to a
thread, the settler, as the thread that serves a process must not be kept by callbacks.

      _where.py: Choices ◄── MovingService, Movable ──► _crew.py ──► the settler ──► CallFuture
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import LOGGER
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from . import _chunks, _core, _failures, _finding, _naming
from ._call_future import CallFuture, failed, set_cancelled, set_exception, set_result
from ._crew import Cancelled, State
from ._processes import ProcessCall
from ._where import _FIRST, are_plain, key_of
from .errors import BrokenRunner, RunnerError
from .executor import _Part, _Service

if TYPE_CHECKING:
    from ._context import Pairs
    from ._core import Ticket
    from ._where import Choices, Elsewhere
    from .runner import Runner

#: Put among the outcomes, it wakes a settler that waits for a certain future.
_NUDGE = object()


type _Sent = tuple[Any, tuple[Any, ...], dict[str, Any]]


class Wanted(NamedTuple):
    """A call: by which function and values its place is chosen, and what is sent there."""

    fn: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    call: _Sent
    is_chunk: bool
    context: Pairs | None


class MovingService(_Service):
    """The workers of an executor, and its processes."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        # Reentrant, as an executor may be dropped, and so closed, while it is held.
        self._moving = threading.RLock()  # guards the next four
        self._changed = threading.Condition(self._moving)
        self._undecided: set[Movable] = set()  # they are not yet where they run in the end
        self._probes: dict[Any, CallFuture[None]] = {}
        self._settler: threading.Thread | None = None
        #: Of calls in processes: (Movable, result, exception); None is the end.
        self._outcomes: SimpleQueue[Any] = SimpleQueue()
        self._pumps = 0  # the settler is in a callback that waits for a future
        self._is_closing = threading.Event()

    @property
    def elsewhere(self) -> Elsewhere:
        return self.runner._get_elsewhere()

    @property
    def choices(self) -> Choices:
        return self.elsewhere.choices

    # ---- calls ----

    def submit_or_fail(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> CallFuture[Any]:
        """As ever where it is known that the pool can run the call; else as one to be moved."""
        pool = self._pool or self._start()
        choices = self.choices
        if choices.in_process(fn) is False and are_plain(args, kwargs):
            return super().submit_or_fail(fn, args, kwargs)
        capture = self.runner._capture
        context = None if capture is None else capture()
        return self._submit(pool, Wanted(fn, args, kwargs, (fn, args, kwargs), False, context))

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
            if self._settler is None:
                settler = threading.Thread(
                    target=self._settle_all, name=f"{self.runner.name}-moved", daemon=True
                )
                settler.start()
                self._settler = settler
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
                    self._collector, _finding.probe, name, {}, _FIRST, None, None, None
                )
            except BrokenRunner as error:
                self.choices.learn(key, error)
                return None
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
            call: _Sent = (_chunks.run, (name, prefix, kwargs, chunk), {})
            pool = self._pool or self._start()
            yield self._submit(pool, Wanted(named, flat, kwargs, call, True, None)), len(chunk)

    # ---- what processes have done ----

    def _settle_all(self) -> None:
        """In the settler."""
        while (outcome := self._outcomes.get()) is not None:
            if outcome is not _NUDGE:
                self._settle(*outcome)
            del outcome  # or it would be kept until the next one

    def _settle(self, movable: Movable, result: Any, error: BaseException | None) -> None:
        try:
            movable.settle(result, error)
        except BaseException:  # of a callback; others wait
            LOGGER.exception("exception calling callbacks of a future")

    def came_from_process(self, movable: Movable, result: Any, error: BaseException | None) -> None:
        self._outcomes.put((movable, result, error))

    def is_forked(self) -> bool:
        return self._pool is not None and self._pool.forked

    def is_settler(self) -> bool:
        return threading.current_thread() is self._settler

    def settle_until(self, movable: Movable, end: float | None) -> None:
        """In the settler, in a callback that waits for a future: others don't have to."""
        self._pumps += 1
        try:
            while not movable.is_over:
                rest = None if end is None else end - monotonic()
                if rest is not None and rest < 0:
                    return
                outcome = self._outcomes.get(timeout=rest)
                if outcome is None:
                    self._outcomes.put(None)
                    return
                if outcome is not _NUDGE:
                    self._settle(*outcome)
        except Empty:
            pass
        finally:
            self._pumps -= 1

    def nudge(self) -> None:
        """A call is over: the settler may wait for that."""
        if self._pumps:
            self._outcomes.put(_NUDGE)

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
        if self._settler is not None:
            self._outcomes.put(None)
            self._settler.join()

    def close(self, cancel_pending: bool = False) -> None:
        """Take no more calls. Does not wait."""
        super().close(cancel_pending)
        if self._pool is not None and not self._pool.forked and cancel_pending:
            self._take_all_back(Movable.cancel)
        self._is_closing.set()

    def _is_ours(self, thread: threading.Thread) -> bool:
        return super()._is_ours(thread) or thread is self._settler

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


class Movable:
    """The ticket of a future whose call may come to be in a process."""

    def __init__(self, service: MovingService, wanted: Wanted) -> None:
        self._service = service
        # Guards the rest. Held while the call is sent, so that nobody believes to have taken it
        # back then; never while callbacks run. Reentrant, for what pickle calls.
        self._lock = threading.RLock()
        self.is_over = False  # who has set this settles the future
        # Until it is over:
        self._wanted: Wanted | None = wanted
        self._future: CallFuture[Any] | None = CallFuture()
        # Where it is; at most one is set.
        self._probe: CallFuture[None] | None = None
        self._inner: CallFuture[Any] | None = None  # in the pool
        self._call: ProcessCall | None = None
        self._future._ticket = cast("Ticket", self)
        self._future.add_done_callback(self._is_done)  # the first one

    @property
    def future(self) -> CallFuture[Any]:
        assert self._future is not None
        return self._future

    # ---- its way ----

    def begin_after(self, probe: CallFuture[None]) -> None:
        with self._lock:
            if not self.is_over:
                self._probe = probe
        probe.add_done_callback(self._has_probed)

    def _has_probed(self, probe: Future[None]) -> None:
        try:
            if probe.cancelled():  # the executor is being stopped
                raise Cancelled
            self.begin()
        except BaseException as error:
            self._fail(error)

    def begin(self) -> None:
        """Send it to the pool, or to where it is known to belong. Raises what that raises."""
        service, inner = self._service, None
        with self._lock:
            wanted, self._probe = self._wanted, None
            if wanted is None:
                return
            if not service.is_for_process(wanted):
                try:
                    inner = self._inner = service.send_to_pool(wanted)
                except RunnerError as error:
                    if not service.must_move(error):
                        raise
            if inner is None:
                self._move(wanted)
        if inner is not None:
            inner.add_done_callback(self._came_back)

    def _came_back(self, inner: Future[Any]) -> None:
        try:
            if inner.cancelled():
                raise Cancelled
            error = inner.exception()
            if error is None:
                self.settle(inner.result(), None)
            elif not self._service.choices.has_refused(error):
                self.settle(None, error)
            else:
                self._move_back(error)
        except BaseException as failure:
            self._fail(failure)

    def _move_back(self, error: BaseException) -> None:
        with self._lock:
            wanted, self._inner = self._wanted, None
            if wanted is not None:
                self._service.choices.move(wanted.fn, wanted.args, wanted.kwargs, error)
                self._move(wanted)

    def _move(self, wanted: Wanted) -> None:
        """To a process; the lock is held."""
        call = self._call = ProcessCall(*wanted.call, partial(_tell, self), context=wanted.context)
        self._service.send_to_process(call)
        self._service.has_decided(self)

    def _fail(self, error: BaseException) -> None:
        is_stopped = self._service.elsewhere.is_stopped and isinstance(error, RunnerError)
        self.settle(None, Cancelled() if is_stopped else error)
        if not isinstance(error, Exception):  # Ctrl-C
            raise error

    # ---- its end ----

    def settle(self, result: Any, error: BaseException | None) -> None:
        wanted = self._wanted
        future = self._claim()
        if future is not None and wanted is not None:
            if wanted.is_chunk and error is None:
                result, error = _unpacked(result)
            del wanted
            _publish(future, result, error)

    def _claim(self) -> CallFuture[Any] | None:
        """The future, for the one who is to settle it."""
        with self._lock:
            if self.is_over:
                return None
            self.is_over = True
            future = self._future
            self._wanted = self._future = self._probe = self._inner = self._call = None
        self._service.nudge()
        return future

    def _is_done(self, _: object) -> None:
        self._service.has_decided(self)

    # ---- what a ticket does ----

    def cancel(self, _: object = None) -> bool:
        return self._take_back(stops=False)

    def interrupt(self, _: object = None) -> bool:
        return self._take_back(stops=True)

    def _take_back(self, stops: bool) -> bool:
        while True:
            with self._lock:
                if self.is_over:
                    return False
                inner, call = self._inner, self._call
                if inner is None:
                    if call is not None and stops:
                        call.abandon()
                    elif call is not None and not call.withdraw():
                        return False
                    future = self._claim()
                    break
            is_taken = inner.interrupt() if stops else inner.cancel()
            if is_taken:
                future = self._claim()  # unless the callback has it
                break
            if self._inner is inner:
                return False
        if future is not None:
            _publish(future, None, Cancelled())
        return True

    def is_waiting(self) -> bool:
        inner, call = self._inner, self._call
        if call is not None:
            return call.state is State.QUEUED
        if inner is not None:
            return inner._ticket.is_waiting()
        return not self.is_over

    def wait(self, seconds: float | None) -> None:
        """Settle what comes, as the one of C does, if that may be needed."""
        if self._service.is_forked():
            raise RunnerError(
                "the call was made in the parent process: its result does not come to a forked "
                "child"
            )
        end = None if seconds is None else monotonic() + seconds
        if self._service.is_settler():
            self._service.settle_until(self, end)
            return
        last = None
        while (future := self._inner or self._probe) is not None and future is not last:
            future._ticket.wait(None if end is None else max(0.0, end - monotonic()))
            if not future.done():  # time is up, or another thread sees to it
                return
            last = future

    def settled_by_hand(self) -> None:
        """Its own result comes too late."""
        with self._lock:
            inner, call = self._inner, self._call
            self._claim()
        if inner is not None:
            inner.interrupt()
        if call is not None:
            call.abandon()


def _tell(movable: Movable, result: Any, error: BaseException | None) -> None:
    """In the thread that serves the process, or that closes the executor."""
    if isinstance(error, Cancelled):
        movable.settle(None, error)
    else:
        movable._service.came_from_process(movable, result, error)


def _unpacked(
    outcome: tuple[list[Any], _failures.Account | None],
) -> tuple[Any, BaseException | None]:
    """Of a chunk: what executor.map() takes apart; or why that can't be."""
    values, account = outcome
    try:
        return (values, None if account is None else _failures.rebuild(account)), None
    except Exception as error:
        return None, error


def _publish(future: CallFuture[Any], result: Any, error: BaseException | None) -> None:
    try:
        if isinstance(error, Cancelled):
            set_cancelled(future)
        elif error is not None:
            set_exception(future, error)
        else:
            set_result(future, result)
    except InvalidStateError:  # it has just been settled by hand
        pass
    finally:
        del future, error
