"""The future of a call that is, or may come to be, in a process or a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from ._crew import Cancelled


class Future(asyncio.Future[Any]):
    """Stands for a call that is, or may come to be, in a process or a thread."""

    _abandon: Callable[[], object] | None = None
    _timer: asyncio.TimerHandle | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        self._let_go()
        return True

    def settle(self, result: Any, error: BaseException | None) -> None:
        """The call is done."""
        abandon, self._abandon = self._abandon, None
        self._let_go()
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
        self._timer = self.get_loop().call_at(end, self.expire, text)

    def _let_go(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        abandon, self._abandon = self._abandon, None
        if abandon is not None:
            abandon()


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
