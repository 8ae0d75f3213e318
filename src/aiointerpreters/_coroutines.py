"""A worker's event loop, on a thread of its own, which runs the calls of `async def` functions.

It is made when the first of them comes, and only then is asyncio imported in the worker. A call is
a Task of its own; of what happens within a call's steps the C code takes care (async_call.c), and
here is what happens between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from . import _core

#: A pool that is being stopped asks at once, when the grace period is over, and then again and
#: again, with pauses that double from 0.1 s. At the first time all calls are cancelled; at this
#: one, those that are still there are cancelled once more, whatever they do with their time;
CANCELLED_AGAIN_AT = 2
#: and at this one, 0.3 s later, they are given up.
GIVEN_UP_AT = 4


def run(inbox: _core.Inbox) -> None:
    """The life of the loop, and of its thread."""
    _Loop(inbox).run()


class _Loop:
    def __init__(self, inbox: _core.Inbox) -> None:
        self.inbox = inbox
        threading.current_thread().name = "loop"
        self.loop = asyncio.new_event_loop()
        self.calls: dict[asyncio.Task[None], _core.AsyncCall] = {}
        self.rounds = 0
        self.is_over = False  # no call is left, and none will come
        self.ending: asyncio.Task[None] | None = None
        # What they hold is kept by this object, for as long as the loop runs.
        self.cancelled = _cancelled_error(inbox)
        self.await_any = _await_any
        inbox.prepare(self.cancelled, self.await_any)

    def run(self) -> None:
        self.loop.add_reader(self.inbox.fd, self.drain)
        self.loop.call_soon(self.drain)
        try:
            self.run_until(lambda: self.is_over)
            if not self.is_given_up():
                self.ending = self.loop.create_task(self.end())
                self.ending.add_done_callback(lambda _: self.loop.stop())
                self.run_until(self.ending.done)
        finally:
            if self.is_given_up():
                # Nobody is to hear of what is left.
                self.loop.set_exception_handler(lambda *_: None)
            self.calls.clear()
            # Does not wait for its executor's threads: the interpreter's end does, as for any.
            self.loop.close()

    def run_until(self, is_done: Callable[[], bool]) -> None:
        from ._core import Interrupted

        while not is_done() and not self.is_given_up():
            # Of a task that a call has left behind, or a callback: asyncio lets these through.
            with contextlib.suppress(KeyboardInterrupt, SystemExit, Interrupted):
                self.loop.run_forever()

    def is_given_up(self) -> bool:
        return self.rounds >= GIVEN_UP_AT

    def drain(self) -> None:
        """See what has come."""
        calls, has_abandoned, rounds, self.is_over = self.inbox.take()
        for call in calls:
            task = self.loop.create_task(call)
            self.calls[task] = call
            task.add_done_callback(self.calls.pop)
        if has_abandoned or rounds > self.rounds:
            for task, call in list(self.calls.items()):
                if call.must_cancel():
                    task.cancel()
        if self.rounds < CANCELLED_AGAIN_AT <= rounds:
            for task in asyncio.all_tasks(self.loop):
                if task is not self.ending:
                    task.cancel()
        self.rounds = rounds
        if self.is_given_up() or (self.is_over and self.ending is None):
            self.loop.stop()

    async def end(self) -> None:
        """As asyncio.run() ends: cancel the tasks that calls have left behind."""
        left = [task for task in asyncio.all_tasks() if task is not self.ending]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for task in left:
            if not task.cancelled() and task.exception() is not None:
                self.loop.call_exception_handler(
                    {
                        "message": "unhandled exception at the end of a worker's event loop",
                        "exception": task.exception(),
                        "task": task,
                    }
                )
        await self.loop.shutdown_asyncgens()


def _cancelled_error(inbox: _core.Inbox) -> type[asyncio.CancelledError]:
    """What is raised in a step of a cancelled call that keeps the loop from cancelling it."""

    class CancelledError(asyncio.CancelledError):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)
            inbox.note_arrival()

    CancelledError.__qualname__ = asyncio.CancelledError.__qualname__
    CancelledError.__module__ = asyncio.CancelledError.__module__
    return CancelledError


async def _await_any(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
