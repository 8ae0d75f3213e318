"""A call of an Executor(unsupported="process"), on its way to where it runs in the end."""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from . import _failures
from ._call_future import CallFuture, set_cancelled, set_exception, set_result
from ._crew import Cancelled, State
from ._processes import ProcessCall
from .errors import RunnerError

if TYPE_CHECKING:
    from ._context import Pairs
    from ._core import Ticket
    from ._executor_where import MovingService

type Sent = tuple[Any, tuple[Any, ...], dict[str, Any]]


class Wanted(NamedTuple):
    """A call: by which function and values its place is chosen, and what is sent there."""

    fn: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    call: Sent
    is_chunk: bool
    context: Pairs | None


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
        self._teller = 0  # the thread of the process that settles it: callbacks must not keep it
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
            inner._is_internal = True
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

    def settle(self, result: Any, error: BaseException | None, teller: int = 0) -> None:
        wanted = self._wanted
        future = self._claim()
        if future is not None and wanted is not None:
            self._teller = teller
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
        with self._lock:  # it may be on its way
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
        last = None
        while (future := self._awaited()) is not None and future is not last:
            future._ticket.wait(None if end is None else max(0.0, end - monotonic()))
            if not future.done():  # time is up, or another thread sees to it
                return
            last = future

    def _awaited(self) -> CallFuture[Any] | None:
        with self._lock:
            return self._inner or self._probe

    def defer(self, future: CallFuture[Any]) -> bool:
        """As that of C."""
        if threading.get_ident() != self._teller:
            return self._service.collector.defer(future)
        # The first one is our own, and short.
        return len(future._done_callbacks) > 1 and self._service.call_soon(future)

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
    is_closing = isinstance(error, Cancelled)
    movable.settle(result, error, 0 if is_closing else threading.get_ident())


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
