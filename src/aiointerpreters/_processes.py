"""Processes that run calls, for functions that can't run in a subinterpreter: the program's side.

Each is a Python of its own, started as a program (never forked), at the other end of a socket; a
thread here sends it a call and waits for the outcome (_crew.py). To stop a call is to kill its
process, which the thread finds at the end of the socket; then it starts another one.

The standard library's pools don't serve: a ProcessPoolExecutor is broken when one of its processes
is killed; and it, as all of multiprocessing, loads the main script in every process before anything
else. So this stands on subprocess, socket and mmap.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from . import _core, _failures, _main, _naming, _parcels, _wire
from ._context import Pairs, Places
from ._crew import Call, Cancelled, Crew, NoRoom, Server, Stream
from ._forwarding import Link, Outlet
from ._process_logging import LOGGED
from ._process_worker import (
    BROKEN,
    CALL,
    CLOSE,
    ITEM,
    MORE,
    RAISED,
    SET_UP,
    STREAM,
)
from ._worker import FirstSteps
from .errors import BrokenRunner, ProcessDied, RunnerError

#: Processes that die while they are set up, in a row, before that counts as the runner's failure.
_MOST_DEATHS = 3

#: What the system says when it has no room for a process, or its descriptors, for now.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS)


class Settings(NamedTuple):
    """What every process is told first."""

    first_steps: FirstSteps | None
    places: Places
    max_tasks: int | None
    grace_period: float
    #: Where log records and warnings go, if they do.
    link: Link | None = None


class ProcessCall(Call):
    """A call for a process."""

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        on_done: Callable[[Any, BaseException | None], None],
        *,
        priority: int = 0,
        timeout: float | None = None,
        context: Pairs | None = None,
        stream: Stream | None = None,
    ) -> None:
        """Encode a call; ``stream`` gets the items, if it is one of a generator.

        Raises:
            RunnerError: ``fn`` is nothing that a process could find.
            NotShareableError: Something can't be sent.
        """
        super().__init__(priority, on_done)
        self.timeout = timeout
        self.failure: Exception | None = None  # of the program's own
        self.stream = stream
        window = 0
        #: As error messages have it.
        self.name = getattr(fn, "__qualname__", None) or repr(fn)
        function: Any = fn
        while type(function) is functools.partial:
            args = (*function.args, *args)
            kwargs = {**function.keywords, **kwargs}
            function = function.func
        if stream is None:
            name, is_coroutine = _naming.describe_call(function)
        else:
            window = stream.window
            name = _naming.describe(function)
            is_coroutine = _naming.is_asyncgen_function(function)
        if type(name) is tuple:
            function = None
        else:
            name = None
        self.message = _parcels.pack(
            (context, function, args, kwargs), "", (name, is_coroutine, window)
        )


class Processes(Crew):
    """The processes of a runner."""

    kind = "process"

    def __init__(
        self,
        size: int,
        name: str,
        settings: Settings,
        idle_timeout: float | None = None,
        least: int = 0,
    ) -> None:
        if _core.in_worker():
            raise RunnerError("processes can't be started from within a worker")
        if not sys.executable:
            raise RunnerError("processes can't be started: sys.executable does not say of what")
        super().__init__(size, name, idle_timeout, least)
        self.settings = settings
        self.deaths = 0  # in a row, while they were set up; guarded by the lock

    def make_server(self, index: int) -> Process:
        return Process(self, index)

    def failure(self, error: BaseException) -> BaseException:
        broken = BrokenRunner(f"a process could not start: {type(error).__name__}: {error}")
        broken.__cause__ = error
        return broken

    def forget(self) -> None:
        self._lock = threading.RLock()
        for server in self._servers.values():
            if isinstance(server, Process):
                server.close_descriptors()


class Process(Server):
    """One process, and the thread that speaks with it."""

    def __init__(self, crew: Processes, index: int) -> None:
        super().__init__(crew, index)
        self._settings = crew.settings
        # Guarded by the crew's lock.
        self._child: subprocess.Popen[bytes] | None = None
        self._is_killed = False
        self._channel: _wire.Channel | None = None
        self._lifeline = -1
        self._is_dead = False
        self._left = 0
        self._sending = threading.Lock()  # what is sent while another thread receives
        self._outlet: Outlet | None = None

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    # ---- life ----

    def set_up(self) -> None:
        while True:
            self._is_dead = self._is_killed = False
            self._left = self._settings.max_tasks or -1
            try:
                self._start()
            except _wire.Disconnected:
                code = self._reap()
                self.tear_down()
                crew = self.crew
                assert isinstance(crew, Processes)
                if not self._is_killed:
                    crew.deaths += 1
                if self._is_killed or crew.deaths >= _MOST_DEATHS:
                    text = f"it ended while it was set up: {_describe_end(code)}"
                    raise RunnerError(text) from None
            else:
                return

    def _start(self) -> None:
        """Start a process. Raises NoRoom, Disconnected if it dies, or what its set-up raises."""
        crew = self.crew
        main: dict[str, Any] = {
            "argv": [str(word) for word in sys.argv],
            "main": _main.describe(),
            "places": self._settings.places,
            "index": self.index,
            "shared_from": _wire.SHARED_FROM,
            "name": f"{crew.name}-process",
            "levels": None,
        }
        link = self._settings.link
        if link is not None:
            queue, main["levels"] = link
            self._outlet = Outlet(queue, f"{crew.name}-process-{self.index}")
        message = _parcels.pack(self._settings.first_steps, "initargs", main)
        try:
            channel = self._launch(message)
        except OSError as error:
            if error.errno not in _SHORTAGES:
                raise
            raise NoRoom(f"a process could not be started: {error}") from error
        kind, segments = self._receive(channel)
        if kind == BROKEN:
            raise _failures.rebuild(_parcels.unpack(segments))
        assert isinstance(crew, Processes)
        crew.deaths = 0

    def _launch(self, message: list[Any]) -> _wire.Channel:
        """Start a process, and tell it how to set itself up. Raises OSError, and Disconnected."""
        crew = self.crew
        here, there = socket.socketpair()
        self._channel = channel = _wire.Channel(here)
        with there:
            lifeline, self._lifeline = os.pipe()
            try:
                child = subprocess.Popen(
                    _command(there.fileno(), lifeline),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(there.fileno(), lifeline),
                )
            finally:
                os.close(lifeline)
        with crew._lock:
            self._child = child
            is_needless = self.call is None and crew._is_closing and not crew._heap
            if self._is_killed or crew._is_stopping or is_needless:
                self._kill()
        with self._sending:
            channel.send(SET_UP, message)
        return channel

    def _receive(
        self, channel: _wire.Channel, end: float | None = None
    ) -> tuple[int, list[memoryview]]:
        """As the channel's receive(), until that time; what is logged is passed on."""
        while True:
            kind, segments = channel.receive(_rest(end))
            if kind != LOGGED:
                return kind, segments
            if self._outlet is not None:
                self._outlet.send(pickle.loads(segments[0]))
            _check_time(end)

    def tear_down(self) -> None:
        channel, child = self._channel, self._child
        if channel is None:
            return
        if child is not None and child.returncode is None:
            if not self._is_killed and not self._is_dead:
                channel.end()  # and it ends as any program
            end = time.monotonic() + self._settings.grace_period
            # Until the time is over, or it has gone; what else may be wrong with it is over, too.
            with contextlib.suppress(Exception):
                while True:
                    self._receive(channel, end)
                    _check_time(end)
            self._reap()
        if self._outlet is not None:
            self._outlet.end()
        self.close_descriptors()
        with self.crew._lock:
            self._child = None

    def close_descriptors(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        lifeline, self._lifeline = self._lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)

    def is_worn(self) -> bool:
        if self._is_dead or self._is_killed or self._left == 0:
            return True
        assert self._child is not None
        return self._child.poll() is not None

    def _reap(self) -> int:
        """It has gone, or is to go; what it ended with."""
        self._is_dead = True
        child = self._child
        if child is None:
            return 0
        # It may have closed its end and go on; a process that is about to end keeps its status.
        child.kill()
        return child.wait()

    def _kill(self) -> None:
        """With the crew's lock held."""
        self._is_killed = True
        if self._child is not None:
            self._child.kill()

    def hurry(self) -> None:
        self._kill()

    # ---- a call ----

    def serve(self, call: Call) -> tuple[Any, BaseException | None]:
        assert isinstance(call, ProcessCall)
        if call.stream is None:
            return self._serve(call)
        call.stream.begin()
        try:
            result, error = self._serve(call)
            return result, call.failure or error
        finally:
            call.stream.end()

    def _serve(self, call: ProcessCall) -> tuple[Any, BaseException | None]:
        if self.is_worn():  # it has died while it was idle
            self.is_ready = False
            self.tear_down()
            try:
                self.set_up()
            except NoRoom as shortage:
                return None, RunnerError(str(shortage))
            except BaseException as error:
                return None, self.crew.failure(error)
            self.is_ready = True
        with self.crew._lock:
            if call.is_abandoned:  # when there was no process yet that could have been stopped
                return None, Cancelled()
        self._left -= 1
        channel = self._channel
        assert channel is not None
        message, call.message = call.message, []
        try:
            with self._sending:
                channel.send(CALL if call.stream is None else STREAM, message)
            del message
            kind, segments = self._await_outcome(channel, call)
        except TimeoutError:
            with self.crew._lock:
                self._kill()
            return None, TimeoutError(
                f"the call was stopped after it had run for {call.timeout:.12g} seconds (timeout)"
            )
        except _wire.Disconnected:
            code = self._reap()
            died = ProcessDied(
                f"the process that ran {call.name} has died: {_describe_end(code)}; "
                "other calls go on, and another process takes its place"
            )
            died.exit_code = code
            return None, died
        except BaseException as error:  # no memory to be shared, for example
            # It may be in the middle of this call, whose outcome the next one must not get.
            with self.crew._lock:
                self._kill()
            return None, error
        try:
            value = _parcels.unpack(segments)
            return (None, _failures.rebuild(value)) if kind == RAISED else (value, None)
        except Exception as error:
            return None, error

    def _await_outcome(
        self, channel: _wire.Channel, call: ProcessCall
    ) -> tuple[int, list[memoryview]]:
        end = None if call.timeout is None else time.monotonic() + call.timeout
        while True:
            kind, segments = self._receive(channel, end)
            if kind != ITEM:
                return kind, segments
            wants_more = _pass_on(call, segments, end)
            del segments
            _check_time(end)
            with self._sending:
                channel.send(MORE if wants_more else CLOSE, [])
            if wants_more and call.is_abandoned:  # interrupt() may have found us sending
                with self._sending:
                    channel.send(CLOSE, [])

    def interrupt(self, call: Call) -> None:
        super().interrupt(call)
        channel = self._channel
        is_stopping = self.crew._is_stopping or not self.is_ready
        if call.stream is None or is_stopping or channel is None:
            self._kill()
            return
        # The generator is to be closed. If that takes too long, the process is killed.
        grace_period = self._settings.grace_period
        if grace_period <= threading.TIMEOUT_MAX:  # or that is never, and could not be waited for
            timer = threading.Timer(grace_period, self._kill_if_runs, (call,))
            timer.daemon = True
            timer.start()
        if self._sending.acquire(blocking=False):
            try:
                channel.send(CLOSE, [])
            except (_wire.Disconnected, OSError):
                pass
            finally:
                self._sending.release()

    def _kill_if_runs(self, call: Call) -> None:
        with self.crew._lock:
            if self.call is call:
                self._kill()


def _pass_on(call: ProcessCall, segments: list[memoryview], end: float | None) -> bool:
    """Pass an item of a generator on; whether more are wanted. Raises TimeoutError at that time."""
    assert call.stream is not None
    try:
        item = _parcels.unpack(segments)
    except Exception as error:  # it can't be rebuilt here
        call.failure = error
        return False
    try:
        return call.stream.put(item, _rest(end))
    except TimeoutError:
        raise
    except Exception as error:
        call.failure = error
        return False


def _rest(end: float | None) -> float | None:
    """How many seconds are left; not 0, which would be not to wait at all."""
    return None if end is None else max(end - time.monotonic(), 1e-6)


def _check_time(end: float | None) -> None:
    """Raise TimeoutError after that time: where messages keep coming, no waiting ever does."""
    if end is not None and time.monotonic() >= end:
        raise TimeoutError


def _command(channel: int, lifeline: int) -> list[str]:
    path = [entry for entry in sys.path if type(entry) is str]
    package_path = os.path.dirname(os.path.dirname(__file__))
    if package_path not in path:
        path.append(package_path)
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    code = (
        f"import sys; sys.path[:] = {path!a}; "
        f"from aiointerpreters._process_worker import main; main({channel}, {lifeline})"
    )
    return [sys.executable, *flags, "-c", code]


def _describe_end(code: int) -> str:
    if code >= 0:
        return f"it exited with status {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"
