"""Threads that serve calls one after the other, in the order of their priorities.

    submit ──► heap of calls ──► a server's thread: call.run() ──► call's on_done

What serves is a process (_processes.py) or the thread itself (_threads.py): a *server*, on a thread
that waits for calls, and then for the outcome. It belongs to no event loop: calls tell of their end
in the server's thread.
"""

from __future__ import annotations

import atexit
import contextlib
import heapq
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol

from .errors import RunnerError


class State(Enum):
    QUEUED = auto()
    RUNNING = auto()
    DONE = auto()


class Stream(Protocol):
    """Where the items of a generator go."""

    @property
    def window(self) -> int: ...
    def begin(self) -> None: ...
    def put(self, item: Any, timeout: float | None, /) -> bool: ...
    def abandon(self) -> None: ...
    def end(self) -> None: ...


class Call:
    """A call that is to be served."""

    def __init__(self, priority: int, on_done: Callable[[Any, BaseException | None], None]) -> None:
        self.priority = priority
        #: Told of the result, or the exception, in some thread; not if the call was abandoned.
        self.on_done = on_done
        #: Where the items of a generator go, if it is one.
        self.stream: Stream | None = None
        # The rest is guarded by the crew's lock.
        self.state = State.QUEUED
        self.is_abandoned = False
        self.server: Server | None = None  # while it runs
        self.crew: Crew | None = None
        self.number = 0

    def __lt__(self, other: Call) -> bool:
        return (self.priority, self.number) < (other.priority, other.number)

    def abandon(self) -> None:
        """Nobody waits for it any more: take it back, or stop it."""
        if self.crew is not None:
            self.crew._abandon(self)

    def withdraw(self) -> bool:
        """Take it back, if no server has begun it; whether that is so."""
        return self.crew is not None and self.crew._withdraw(self)


class Server:
    """What serves calls, on a thread of its own."""

    def __init__(self, crew: Crew, index: int) -> None:
        self.crew = crew
        self.index = index
        self.is_ready = False  # has been set up
        self.call: Call | None = None  # guarded by the crew's lock
        self.leaves = False  # it has been idle for long
        self.shortage: str | None = None  # for which it leaves
        self.generation = crew.generation
        self.thread = threading.Thread(
            target=self._live, name=f"{crew.name}-{crew.kind}-{index}", daemon=True
        )

    def set_up(self) -> None:
        """Get ready. Raises NoRoom, or what makes the whole crew useless."""

    def serve(self, call: Call) -> tuple[Any, BaseException | None]:
        """Make a call."""
        raise NotImplementedError

    def interrupt(self, call: Call) -> None:
        """Stop the call that runs; the crew's lock is held."""
        if call.stream is not None:
            call.stream.abandon()

    def hurry(self) -> None:
        """Stop the set-up: there is no need for it; the crew's lock is held."""

    def is_worn(self) -> bool:
        """Whether it must be set up again before the next call."""
        return False

    def tear_down(self) -> None:
        """Let go of what set_up() has got."""

    def _live(self) -> None:
        crew = self.crew
        try:
            while crew._goes_on(self):
                if not self.is_ready or self.is_worn() or self.generation != crew.generation:
                    self.is_ready = False
                    self.tear_down()
                    self.generation = crew.generation
                    try:
                        self.set_up()
                    except NoRoom as shortage:
                        self.shortage = str(shortage)
                        return
                    except BaseException as error:
                        crew._break(error)
                        return
                    crew._is_ready(self)
                    continue
                call = crew._next(self)
                if call is not None:
                    try:
                        outcome = self.serve(call)
                    except BaseException as error:  # which nobody has thought of
                        outcome = (None, error)
                    crew._served(self, call, *outcome)
                    del outcome
                    del call  # or it would be kept until the next one
        finally:
            try:
                self.tear_down()
            finally:
                crew._left(self)


class Crew:
    """A number of servers, started as there are calls for them."""

    kind = "worker"
    #: Whether a call that runs can be stopped. If not, it is not waited for by who stops the crew.
    can_interrupt = True

    def __init__(
        self, size: int, name: str, idle_timeout: float | None = None, least: int = 0
    ) -> None:
        self.size = size
        self.name = name
        self.generation = 0
        if idle_timeout is not None and idle_timeout > threading.TIMEOUT_MAX:
            idle_timeout = None  # never, and it could not be waited for
        self._idle_timeout = idle_timeout
        self._least = least
        # Reentrant, as a finalizer may come to abandon a call while it is held. Guards the rest.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._heap: list[Call] = []
        self._servers: dict[int, Server] = {}
        self._telling = 0  # calls that are done, whose callers are being told
        self._numbers = itertools.count()
        self._failure: BaseException | None = None
        self._is_closing = False
        self._is_stopping = False
        self._on_idle: list[Callable[[], None]] = []
        self._on_end: list[Callable[[], None]] = []
        self.done = 0
        self._process = os.getpid()
        _crews.add(self)

    def make_server(self, index: int) -> Server:
        raise NotImplementedError

    def failure(self, error: BaseException) -> BaseException:
        """What calls fail with where a server could not be set up."""
        return error

    # ---- for those who call ----

    def submit(self, call: Call) -> None:
        """Accept a call.

        Raises RunnerError where the crew is closed, or the parent's; BrokenRunner where it broke.
        """
        if self._process != os.getpid():
            raise RunnerError(
                "the runner belongs to the parent of this process, and has no workers in a forked "
                "child; make a new Runner here"
            )
        with self._lock:
            if self._failure is not None:
                raise self.failure(self._failure)
            if self._is_closing:
                raise RunnerError("the runner is closed: make a new one")
            call.crew = self
            call.number = next(self._numbers)
            heapq.heappush(self._heap, call)
            try:
                self._start_if_needed()
            except RuntimeError as error:  # no more threads: those that there are may do
                if not self._servers:
                    self._heap.remove(call)
                    raise RunnerError(f"a thread could not be started: {error}") from error
            self._changed.notify()

    def close(self, cancel_pending: bool = False, interrupt: bool = False) -> None:
        """Accept no more calls, and end when those that there are are done."""
        if self._process != os.getpid():
            return
        cancelled: list[Call] = []
        with self._lock:
            self._is_closing = True
            self._is_stopping |= interrupt
            if cancel_pending:
                cancelled, self._heap = self._heap, []
                for call in cancelled:
                    call.state = State.DONE
            for server in self._servers.values():
                if interrupt and server.call is not None:
                    server.call.is_abandoned = True
                    server.interrupt(server.call)
                    cancelled.append(server.call)
            self._hurry_needless()
            self._changed.notify_all()
            told = self._settled()
        for call in cancelled:
            call.on_done(None, Cancelled())
        for tell in told:
            tell()

    def join(self) -> None:
        """Wait for the end, in a thread without an event loop."""
        if self._process != os.getpid():
            return
        ended = threading.Event()
        self.when_ended(ended.set)
        ended.wait()

    def when_idle(self, tell: Callable[[], None]) -> None:
        """Have it called, in some thread, when no call is pending."""
        with self._lock:
            self._on_idle.append(tell)
            told = self._settled()
        for tell in told:
            tell()

    def when_ended(self, tell: Callable[[], None]) -> None:
        """Have it called, in some thread, when the crew is closed and all servers have ended."""
        with self._lock:
            self._on_end.append(tell)
            told = self._settled()
        for tell in told:
            tell()

    def resize(self, size: int) -> None:
        with self._lock:
            self.size = size
            # Where there is no room for a thread, those that there are may do.
            with contextlib.suppress(RuntimeError):
                while self._start_if_needed():
                    pass
            self._changed.notify_all()

    def recycle(self) -> None:
        """Set all servers up anew, before the next call of each."""
        with self._lock:
            self.generation += 1
            self._changed.notify_all()

    def counts(self) -> tuple[int, int, int, int, int]:
        """Calls that are pending, queued and done; servers, and those that are busy."""
        with self._lock:
            busy = sum(server.call is not None for server in self._servers.values())
            return len(self._heap) + busy, len(self._heap), self.done, len(self._servers), busy

    def forget(self) -> None:
        """In a forked child, where the threads don't exist, nor who held the lock."""

    # ---- for servers; called in their threads ----

    def _goes_on(self, server: Server) -> bool:
        """Whether a server should get ready for another call."""
        with self._lock:
            if self._failure is not None or server.leaves or server.index >= self.size:
                return False
            return bool(self._heap) or not self._is_closing

    def _is_ready(self, server: Server) -> None:
        with self._lock:
            server.is_ready = True

    def _next(self, server: Server) -> Call | None:
        """A call, when there is one; None if something has changed."""
        with self._lock:
            if not self._heap and not self._needs_other(server):
                has_woken = self._changed.wait(self._patience())
                if not has_woken and not self._heap and self._may_leave():
                    server.leaves = True
                    return None
            if not self._heap or server.generation != self.generation or server.index >= self.size:
                if self._heap:
                    self._changed.notify()  # it was meant for another; but idle ones would go on so
                return None
            call = heapq.heappop(self._heap)
            call.state = State.RUNNING
            call.server = server
            server.call = call
            self._hurry_needless()
            return call

    def _needs_other(self, server: Server) -> bool:
        return (
            self._is_closing
            or server.generation != self.generation
            or server.index >= self.size
            or self._failure is not None
        )

    def _patience(self) -> float | None:
        return self._idle_timeout if self._may_leave() else None

    def _may_leave(self) -> bool:
        staying = sum(not server.leaves for server in self._servers.values())
        return self._idle_timeout is not None and staying > self._least

    def _served(self, server: Server, call: Call, result: Any, error: BaseException | None) -> None:
        with self._lock:
            server.call = call.server = None
            call.state = State.DONE
            self.done += 1
            is_wanted = not call.is_abandoned
            self._telling += 1
        try:
            if is_wanted:
                call.on_done(result, error)
        finally:
            with self._lock:
                self._telling -= 1
                told = self._settled()
        for tell in told:
            tell()

    def _break(self, error: BaseException) -> None:
        """A server could not be set up: so all calls fail."""
        with self._lock:
            if self._is_closing and not self._heap:
                return  # it was hurried
            self._failure = error
            failed, self._heap = self._heap, []
            for call in failed:
                call.state = State.DONE
            self._hurry_needless()
            self._changed.notify_all()
            told = self._settled()
        for call in failed:
            call.on_done(None, self.failure(error))
        for tell in told:
            tell()

    def _left(self, server: Server) -> None:
        failed: list[Call] = []
        with self._lock:
            for index, other in list(self._servers.items()):
                if other is server:
                    del self._servers[index]
            shortage = server.shortage
            if self._heap and self._failure is None:
                if shortage is None:
                    try:
                        self._start_if_needed()
                    except RuntimeError as error:
                        shortage = f"a thread could not be started: {error}"
                if shortage is not None and not self._servers:  # or those that there are may do
                    failed, self._heap = self._heap, []
                    for call in failed:
                        call.state = State.DONE
            told = self._settled()
        for call in failed:
            call.on_done(None, RunnerError(shortage))
        for tell in told:
            tell()

    # ---- with the lock held ----

    def _start_if_needed(self) -> bool:
        """Start a server if there are more calls than can be served soon; whether that was so."""
        free = sum(server.call is None for server in self._servers.values())
        is_needed = len(self._servers) < self.size and len(self._heap) > free
        if is_needed:
            index = next(i for i in itertools.count() if i not in self._servers)
            server = self.make_server(index)
            self._servers[index] = server
            try:
                server.thread.start()
            except BaseException:
                del self._servers[index]
                raise
        return is_needed

    def _settled(self) -> list[Callable[[], None]]:
        """Who is to be told that the crew is idle, or has ended."""
        told: list[Callable[[], None]] = []
        is_busy = self._telling > 0 or any(s.call is not None for s in self._servers.values())
        if self._is_stopping and not self.can_interrupt:
            is_busy = False
        if not self._heap and not is_busy:
            told, self._on_idle = self._on_idle, []
            if self._is_closing and (not self._servers or self._is_stopping > self.can_interrupt):
                told += self._on_end
                self._on_end = []
        return told

    def _abandon(self, call: Call) -> None:
        with self._lock:
            call.is_abandoned = True
            is_withdrawn = self._take_from_heap(call)
            if not is_withdrawn and call.state is State.RUNNING and call.server is not None:
                call.server.interrupt(call)
            told = self._settled()
        for tell in told:
            tell()

    def _withdraw(self, call: Call) -> bool:
        with self._lock:
            if not self._take_from_heap(call):
                return False
            told = self._settled()
        for tell in told:
            tell()
        return True

    def _take_from_heap(self, call: Call) -> bool:
        if call.state is not State.QUEUED or call not in self._heap:
            return False
        self._heap.remove(call)
        heapq.heapify(self._heap)
        call.state = State.DONE
        if self._is_closing and not self._heap:
            self._hurry_needless()
            self._changed.notify_all()
        return True

    def _hurry_needless(self) -> None:
        """Stop set-ups for which there is no call, and won't be."""
        if self._is_closing and not self._heap:
            for server in self._servers.values():
                if not server.is_ready and server.call is None:
                    server.hurry()


class NoRoom(Exception):  # noqa: N818
    """A server can't be set up for now: the system lacks what the text says."""


class Cancelled(Exception):  # noqa: N818
    """Stands for the cancellation of a call by the runner's end."""


_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """The program ends."""
    crews = [crew for crew in _crews if crew._process == os.getpid()]
    for crew in crews:
        crew.close(True, True)
    for crew in crews:
        crew.join()


def _forget_all() -> None:
    for crew in list(_crews):
        crew.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
