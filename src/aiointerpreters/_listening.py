"""Log records and warnings of workers, in the main program; _forwarding.py is the other end.

    workers ──► queue ──► the listener's thread ──► loggers and handlers, warnings.warn_explicit()

One listener serves all runners of the process. It begins with the first of them, and ends with the
last. In a worker that starts runners of its own there is none: their workers get the way to the
main program that it has itself. The threads that serve processes put into the queue what comes from
these.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

from . import _core, _finding, _forwarding, _records
from .errors import AioInterpretersError
from .queues import QueueShutDown

type _Then = Callable[[], None]
type _Key = tuple[int, int]


class Hold:
    """A runner's part in the listener, which listens until all have released theirs."""

    def __init__(self) -> None:
        """Raises RuntimeError where there can be no listener."""
        self._listener: _Listener | None = None
        self._releases = itertools.count()
        own = _forwarding.channel
        if isinstance(own, _forwarding.Channel):
            queue = own.queue
        else:
            self._listener = _acquire()
            queue = self._listener.queue
        #: For the set-up of the runner's workers.
        self.link: _forwarding.Link = (queue, _records.levels())

    def release(self) -> None:
        """The runner's workers have ended, or could not be started."""
        if self._listener is not None and self._is_first_release():
            _release(self._listener)

    def release_soon(self) -> None:
        """Release it when what has been sent up to now is handled. Takes no lock: for __del__."""
        if self._listener is not None and self._is_first_release():
            with contextlib.suppress(AioInterpretersError):  # has ended; or in a forked child
                self._listener.queue.put_nowait(("release",))

    def _is_first_release(self) -> bool:
        # Of a loop that waits for the end, and of a thread that does, too: next() is atomic.
        return next(self._releases) == 0

    def finish(self) -> None:
        """Release it, and block until what has been sent up to now is handled."""
        listener = self._listener
        if listener is None or threading.current_thread() is listener.thread:
            self.release_soon()
            return
        handled = threading.Event()
        listener.when_handled(handled.set)
        self.release()
        handled.wait()

    async def afinish(self) -> None:
        """As finish(), without blocking the loop."""
        if self._listener is None:
            return
        loop = asyncio.get_running_loop()
        handled = loop.create_future()

        def settle() -> None:
            if not handled.done():
                handled.set_result(None)

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle)

        self._listener.when_handled(tell)
        self.release()
        await handled


def hold() -> Hold | None:
    """Listen for a runner; None where that cannot be.

    That is a subinterpreter that is no worker, as it may have no daemon threads; and a program that
    is ending, which may start no threads.
    """
    try:
        return Hold()
    except RuntimeError:
        return None


class _Listener:
    def __init__(self) -> None:
        """Raises RuntimeError where no thread can be had, or no daemon: a subinterpreter."""
        self.queue: _core.Queue[Any] = _core.Queue()
        self.holds = 0  # guarded by the module's _lock
        self._tokens = itertools.count()
        # Guards the next two.
        self._lock = threading.Lock()
        self._has_ended = False
        #: What to do when a token comes through the queue, or the thread ends.
        self._awaited: dict[int, _Then] = {}
        # The thread's own: of the workers that dropped something, by a key, how much that was, as
        # far as it has been told; and the names and counts of those that may have dropped more.
        self._told: dict[_Key, int] = {}
        self._counts: dict[_Key, tuple[str, memoryview]] = {}
        self._registries: dict[str, dict[Any, Any]] = {}
        self.thread = threading.Thread(
            target=self._listen, name="aiointerpreters-listener", daemon=True
        )
        self.thread.start()

    def when_handled(self, then: _Then) -> None:
        """Call it, in any thread, once all that was put before has been handled."""
        token = next(self._tokens)
        with self._lock:
            has_ended = self._has_ended
            if not has_ended:
                self._awaited[token] = then
        if has_ended:
            then()
            return
        with contextlib.suppress(QueueShutDown):  # it is about to end
            self.queue.put_nowait(("token", token))

    def end(self) -> None:
        """Let the thread handle what there is, and end."""
        self.queue.shutdown()

    def forget_threads(self) -> None:
        """In a forked child, where the thread does not exist, nor whoever held the lock."""
        self._lock = threading.Lock()
        self._has_ended = True

    def _listen(self) -> None:
        try:
            while True:
                if self._counts and self.queue.empty():
                    self._tell_last_counts()
                item = self.queue.get()
                try:
                    self._handle(*item)
                except BaseException:  # of a handler: the next record may fare better
                    _complain(None)
                del item
        except QueueShutDown:
            self._tell_last_counts()
        finally:
            with self._lock:
                self._has_ended = True
                awaited = list(self._awaited.values())
                self._awaited.clear()
            for then in awaited:
                then()

    def _handle(self, kind: str, *details: Any) -> None:
        if kind == "record":
            _log(_records.rebuild(*details))
        elif kind == "warning":
            self._warn(*details)
        elif kind == "dropped":
            self._tell_dropped(*details)
        elif kind == "dropping":
            key, worker, count = details
            self._counts[key] = (worker, count)
            self._tell_dropped(key, worker, _number(count))
        elif kind == "token":
            with self._lock:
                then = self._awaited.pop(details[0])
            then()
        elif kind == "release":
            _release(self)

    def _tell_last_counts(self) -> None:
        for key, (worker, count) in self._counts.items():
            self._tell_dropped(key, worker, _number(count))
        self._counts.clear()

    def _tell_dropped(self, key: _Key, worker: str, count: int) -> None:
        more = count - self._told.get(key, 0)
        if more == 0:
            return
        self._told[key] = count
        _log(
            logging.LogRecord(
                "aiointerpreters",
                logging.WARNING,
                __file__,
                0,
                "%d log records of worker %s were dropped: the handlers are too slow",
                (more, worker),
                None,
                "dropped",
            )
        )

    def _warn(
        self, text: str, module: str, name: str, filename: str, lineno: int, where: str | None
    ) -> None:
        warning = _rebuild_warning(text, module, name)
        registry = self._registries.setdefault(filename, {})
        try:
            warnings.warn_explicit(
                warning,
                type(warning),
                filename,
                lineno,
                # As it is by default; but given as None it would mean that Python ends.
                module=filename.removesuffix(".py") if where is None else where,
                registry=registry,
            )
        except Warning:
            # There is nobody to raise it in: show it.
            warnings.showwarning(warning, type(warning), filename, lineno)


def _log(record: logging.LogRecord) -> None:
    logger = logging.getLogger(record.name)
    if not logger.isEnabledFor(record.levelno):
        return
    try:
        logger.handle(record)
    except BaseException:
        _complain(record)


def _complain(record: logging.LogRecord | None) -> None:
    """As logging does of an exception in a handler: depending on logging.raiseExceptions."""
    if record is None:
        record = logging.makeLogRecord({"msg": "what a worker has sent"})
    logging.Handler().handleError(record)


def _number(count: memoryview) -> int:
    return int.from_bytes(count, "little")


def _rebuild_warning(text: str, module: str, name: str) -> Warning:
    try:
        warning = _finding.resolve("module", module, name)(text)
        if isinstance(warning, Warning):
            return warning
    except Exception:  # of the import, or an __init__ that takes something else
        pass
    return UserWarning(text)


# ---- the listener of this process ----

# Guards the next one, and its count of holds. Nothing that could run code of others is done with it
# held.
_lock = threading.Lock()
_current: _Listener | None = None


def _acquire() -> _Listener:
    global _current
    with _lock:
        if _current is None:
            _current = _Listener()
        _current.holds += 1
        return _current


def _release(listener: _Listener) -> None:
    global _current
    with _lock:
        listener.holds -= 1
        is_last = listener.holds == 0 and listener is _current
        if is_last:
            _current = None
    if is_last:
        listener.end()


def stop() -> None:
    """At the program's end, after that of all workers: handle what is left."""
    global _current
    with _lock:
        listener, _current = _current, None
    if listener is not None:
        listener.end()
        listener.thread.join()


def _forget() -> None:
    """In a forked child."""
    global _lock, _current
    listener, _current = _current, None
    _lock = threading.Lock()
    if listener is not None:
        listener.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
