"""The future of a call whose result no event loop waits for: concurrent.futures' own, and more."""

from __future__ import annotations

from concurrent.futures import Future
from time import monotonic
from typing import TYPE_CHECKING, Any, cast, final

if TYPE_CHECKING:
    from ._core import Ticket


@final
class CallFuture[T](Future[T]):
    """What :meth:`Executor.submit` returns: a :class:`concurrent.futures.Future`.

    It is settled by a thread of the executor's, or by one that waits in :meth:`result` or
    :meth:`exception` meanwhile. Its callbacks are called by the former.
    """

    #: The call's; C sets it, and nobody else makes a CallFuture.
    _ticket: Ticket
    #: Its callbacks are the package's own, and short.
    _is_internal = False
    #: The base class's.
    _done_callbacks: list[Any]

    def cancel(self) -> bool:
        """Take the call back, unless a worker has begun it.

        Returns:
            Whether it is cancelled now. A call that runs goes on; :meth:`interrupt` stops it.
        """
        return self._ticket.cancel(self) or self.cancelled()

    def interrupt(self) -> bool:
        """Cancel the call, even if it runs.

        :exc:`Interrupted` is raised in its Python code. The future is cancelled at once, and does
        not wait for that.

        Returns:
            Whether it is cancelled now; ``False`` if it was done before.
        """
        return self._ticket.interrupt(self) or self.cancelled()

    def running(self) -> bool:
        """Whether a worker has begun the call, and the future is not done."""
        return not self.done() and not self._ticket.is_waiting()

    def result(self, timeout: float | None = None) -> T:
        """As :meth:`concurrent.futures.Future.result`."""
        if not self.done():
            timeout = self._wait(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As :meth:`concurrent.futures.Future.exception`."""
        if not self.done():
            timeout = self._wait(timeout)
        return super().exception(timeout)

    def _wait(self, timeout: float | None) -> float | None:
        """Help to settle futures, until this one is, or somebody else does. Returns what is left
        of the time.
        """
        if timeout is None:
            self._ticket.wait(None)
            return None
        end = monotonic() + timeout
        self._ticket.wait(timeout)
        return max(0.0, end - monotonic())

    def _invoke_callbacks(self) -> None:
        # They may last, or wait for what somebody holds who waits for a result: so they are not for
        # a thread that waits for one itself.
        is_due = bool(self._done_callbacks) and not self._is_internal
        if not (is_due and self._ticket.defer(self)):
            super()._invoke_callbacks()  # type: ignore[misc]

    def set_result(self, result: T) -> None:
        """As :meth:`concurrent.futures.Future.set_result`: the call is stopped, if it runs."""
        super().set_result(result)
        self._ticket.settled_by_hand()

    def set_exception(self, exception: BaseException | None) -> None:
        """As :meth:`concurrent.futures.Future.set_exception`: the call is stopped, if it runs."""
        super().set_exception(exception)
        self._ticket.settled_by_hand()


class _NoCall:
    """The ticket of a future without a call, which is done."""

    def cancel(self, _: CallFuture[Any]) -> bool:
        return False

    interrupt = defer = cancel

    def settled_by_hand(self) -> None: ...


def failed(error: BaseException) -> CallFuture[Any]:
    """A future of a call that could not be sent."""
    future = CallFuture[Any]()
    future._ticket = cast("Ticket", _NoCall())
    future.set_exception(error)
    return future


# What C settles a future with.

set_result = Future.set_result
set_exception = Future.set_exception


def set_cancelled(future: Future[Any]) -> None:
    """Settle a future as cancelled, and tell all who wait for it."""
    if Future.cancel(future):
        future.set_running_or_notify_cancel()
