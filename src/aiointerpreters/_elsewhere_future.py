"""The future of a call that is, or may come to be, in a process or a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from ._crew import Call, Cancelled, State


class Future(asyncio.Future[Any]):
    """Stands for a call that is, or may come to be, in a process or a thread."""

    #: None, or what follow() says.
    ended: asyncio.Future[Any] | None = None

    #: A method of the call; or of its future, where that is in the pool.
    _abandon: Callable[[], object] | None = None
    _timer: asyncio.TimerHandle | None = None
    _patience: float | None = None

    def follow(self, patience: float) -> None:
        """If the call is cancelled while it runs, let `ended` be a future that is done when it has
        come to its end, or so many seconds later.
        """
        self._patience = patience

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        abandon, patience = self._abandon, self._patience
        if abandon is not None and patience is not None:
            self._abandon = None
        self._let_go()
        if abandon is not None and patience is not None:
            self._stop(abandon, patience)
        return True

    def _stop(self, abandon: Callable[[], object], patience: float) -> None:
        """Stop the call, and let `ended` tell of its end."""
        owner: Any = abandon.__self__  # type: ignore[attr-defined]
        if not isinstance(owner, Call):
            owner.follow()
            abandon()
            self.ended = owner.ended
        elif _stop(owner):
            loop = self.get_loop()
            self.ended = loop.create_future()
            self._timer = loop.call_at(loop.time() + patience, self._has_ended)

    def _has_ended(self) -> None:
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)

    def settle(self, result: Any, error: BaseException | None) -> None:
        """The call is done."""
        abandon, self._abandon = self._abandon, None
        self._let_go()
        self._has_ended()
        if self.done():
            return
        if error is None:
            self.set_result(result)
        elif isinstance(error, Cancelled):
            super().cancel()
        else:
            self.set_exception(error)
        del abandon, error

    def expire(self, text: str) -> None:
        """Its time is up."""
        if not self.done():
            self.set_exception(TimeoutError(text))
        self._let_go()

    def expire_at(self, end: float, text: str) -> None:
        """Let its time be up then, unless it is sooner already."""
        timer = self._timer
        if timer is not None:
            if timer.when() <= end:
                return
            timer.cancel()
        self._timer = self.get_loop().call_at(end, self.expire, text)

    def _let_go(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        abandon, self._abandon = self._abandon, None
        if abandon is not None:
            abandon()


def _stop(call: Call) -> bool:
    """Stop a call, as its abandon() does; but it tells of its end. False if it had not begun."""
    crew = call.crew
    if crew is None or call.withdraw():
        return False
    with crew._lock:
        if call.state is State.RUNNING and call.server is not None:
            call.server.interrupt(call)
    return True


def settle_soon(
    loop: asyncio.AbstractEventLoop, future: Future, result: Any, error: BaseException | None
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody can be told
        loop.call_soon_threadsafe(future.settle, result, error)


def expire_soon(loop: asyncio.AbstractEventLoop, future: Future, timeout: float) -> None:
    text = (
        f"the call had not ended after {timeout:.12g} seconds (timeout); a thread can't be "
        "stopped, and goes on"
    )
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(
            lambda: None if future.done() else future.expire_at(loop.time() + timeout, text)
        )


def deadline_text(deadline: float) -> str:
    return f"the call was not done {deadline:.12g} seconds after it was made (deadline)"
