"""Where calls run that may run elsewhere than in a subinterpreter: the choice, and the way there.

      a function that is not known yet ──► a probe: a worker imports its module
          it can            ──► the pool, as any call
          an extension module refuses, and the runner has unsupported="process"
                            ──► a process; so do all functions of that module from then on

Arguments may need such a module, too, or context variables, where the function doesn't: then the
call comes back from the worker, with nothing of it run, and goes on to a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from . import _core, _finding, _naming, _pumping
from ._choices import FIRST, PLAIN, Choices, are_plain, key_of
from ._context import Capture
from ._crew import Call, Crew
from ._elsewhere_future import Future, deadline_text, expire_soon, settle_soon
from ._elsewhere_stream import Streaming
from ._forwarding import Link
from ._options import Options
from ._processes import ProcessCall, Processes, Settings
from ._threads import ThreadCall, Threads
from .errors import BrokenRunner, RunnerError, UnsupportedModule

type _Probes = weakref.WeakValueDictionary[Any, asyncio.Future[Any]]


class _Token:
    """A call of which is not known yet where it will run. Dropped, it is released."""

    __slots__ = ("__weakref__", "_owner", "loop")

    def __init__(self, owner: Elsewhere) -> None:
        self._owner: Elsewhere | None = owner
        self.loop = asyncio.get_running_loop()

    def release(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner._released(self)

    __del__ = release


class Elsewhere:
    """The processes and threads of a runner, and which calls go there."""

    def __init__(
        self,
        *,
        moves: bool,
        name: str,
        size: int,
        least: int,
        idle_timeout: float | None,
        settings: Settings,
        capture: Capture | None,
    ) -> None:
        #: Whether functions whose modules refuse subinterpreters go to processes.
        self.moves = moves
        self.choices = Choices()
        self._name = name
        self._size = size
        self._least = least
        self._idle_timeout = idle_timeout
        self._settings = settings
        self._capture = capture
        self._pool: _core.Pool | None = None
        # Reentrant, as tokens are released by finalizers, too. Guards the rest.
        self._lock = threading.RLock()
        self._processes: Processes | None = None
        self._threads: Threads | None = None
        self._token_loops: dict[int, weakref.ref[asyncio.AbstractEventLoop]] = {}
        self._on_released: list[Callable[[], None]] = []
        self._is_closed = False
        self._is_stopped = False
        self._is_finishing = False
        # By loops, and functions. The pool keeps them; here they would keep their loops.
        self._probes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Probes] = (
            weakref.WeakKeyDictionary()
        )

    def start(self, pool: _core.Pool, link: Link | None) -> None:
        """The runner has started; its log records go there."""
        self._settings = self._settings._replace(link=link)
        self._pool = pool

    # ---- calls ----

    def submit(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options = Options(),  # noqa: B008 - it is immutable
        deadline: float | None = None,
    ) -> asyncio.Future[Any]:
        """Send a call where it is to run. Raises as :meth:`Runner.submit`."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._check_open()
            raise RunnerError(
                "no event loop is running in this thread: call the runner from a coroutine"
            ) from None
        where = fn.where if type(fn) is Streaming else options.where
        if fn is _pumping.pump or fn is _pumping.pump_async:  # of a stream that was placed already
            where = "interpreter"
        if where is None:
            in_process = self.choices.in_process(fn) if self.moves else False
            if self.moves and not in_process:
                if self.choices.need_process(args, kwargs):
                    in_process = True
                elif in_process is None or self._capture or not are_plain(args, kwargs):
                    return self._submit_movable(loop, fn, args, kwargs, options, deadline)
            where = "process" if in_process else "interpreter"
        if where == "interpreter":
            return self._submit_to_pool(fn, args, kwargs, options, deadline)
        future = Future(loop=loop)
        end = None
        if deadline is not None:
            end = loop.time() + deadline
            future.expire_at(end, deadline_text(deadline))
        try:
            self._begin(future, where, fn, args, kwargs, options)
        except BaseException:
            future.cancel()
            raise
        return future

    def run_by(self, method: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
        """What a runner's run() is, made of C's own, which serves where nothing is to be added."""
        by_function = self.choices.by_function
        plain = PLAIN
        run_elsewhere = self._run

        def run(fn: Any, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
            try:
                if by_function.get(fn) is False and not kwargs:
                    for arg in args:
                        if type(arg) not in plain:
                            break
                    else:
                        return method(fn, *args)  # type: ignore[no-any-return]
            except TypeError:  # it can't be hashed
                pass
            return run_elsewhere(fn, args, kwargs)

        return run

    async def _run(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        choices = self.choices
        self._check_open()
        if not choices.in_process(fn) and not choices.need_process(args, kwargs):
            token = self._token()
            try:
                await self.decide(fn)
                if not self._is_stopped and not choices.in_process(fn):
                    inner = None
                    try:
                        inner = self._submit_to_pool(fn, args, kwargs, Options(), None)
                        return await inner
                    except RunnerError as error:
                        if choices.has_refused(error):
                            choices.move(fn, args, kwargs, error)
                        elif inner is not None or not self._is_closed:
                            raise
                        # Else the runner was closed meanwhile, and the pool takes it no more.
                    finally:
                        del inner  # which has what it raises, whose traceback has this frame
                if self._is_stopped:
                    raise asyncio.CancelledError
                future = self.submit_moved(fn, args, kwargs)
            finally:
                token.release()
        else:
            future = self.submit(fn, args, kwargs)
        del args, kwargs  # or the traceback of what it raises would keep them
        return await future

    def submit_moved(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        """Send a call to a process that had been accepted before, perhaps by now closed runner."""
        future = Future(loop=asyncio.get_running_loop())
        self._begin(future, "process", fn, args, kwargs, Options(), is_new=False)
        return future

    async def decide(self, fn: Any) -> None:
        """Wait until it is known where a function runs, if that is to be known at all."""
        if self.moves and self.choices.in_process(fn) is None:
            probe = self._probe(fn)
            if probe is not None:
                await asyncio.wait((probe,))

    def _submit_movable(
        self,
        loop: asyncio.AbstractEventLoop,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        deadline: float | None,
    ) -> asyncio.Future[Any]:
        self._check_open()
        key = key_of(fn)
        if key is not None:
            _naming.describe_call(key)  # which refuses generator functions at once
        future = Future(loop=loop)
        end = None if deadline is None else loop.time() + deadline
        call = _Movable(self, future, fn, args, kwargs, options, end)
        probe = self._probe(fn) if self.choices.in_process(fn) is None else None
        if probe is None:
            try:
                call.begin()
            except BaseException:
                call.token.release()
                raise
            return future
        if end is not None and deadline is not None:
            future.expire_at(end, deadline_text(deadline))
        probe.add_done_callback(call.begin_after_probe)
        return future

    def _probe(self, fn: Any) -> asyncio.Future[Any] | None:
        """Have a worker import the module of an unknown function; None if it has no name."""
        key = key_of(fn)
        if key is None:
            return None
        name = _naming.describe(key)
        if type(name) is not tuple:
            return None
        self._check_open()
        assert self._pool is not None
        loop = asyncio.get_running_loop()
        with self._lock:
            probes = self._probes.setdefault(loop, weakref.WeakValueDictionary())
        probe = probes.get(key)
        if probe is not None:
            return probe
        try:
            probe = self._pool.submit_with(_finding.probe, name, {}, FIRST, None, None, None)
        except BrokenRunner as error:
            self.choices.learn(key, error)
            return None
        probes[key] = probe
        probe.add_done_callback(functools.partial(_learn, self.choices, key, probes))
        return probe

    def _submit_to_pool(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        deadline: float | None,
    ) -> asyncio.Future[Any]:
        assert self._pool is not None
        context = None if self._capture is None else self._capture()
        if options.timeout is None and deadline is None and options.priority == 0 and not context:
            return self._pool.submit(fn, args, kwargs)
        return self._pool.submit_with(
            fn, args, kwargs, options.priority, options.timeout, deadline, context
        )

    def _begin(
        self,
        future: Future,
        where: str,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        is_new: bool = True,
    ) -> None:
        """Send a call to a process or a thread, for that future."""
        if is_new:
            self._check_open()
        on_done = functools.partial(settle_soon, future.get_loop(), future)
        call: Call
        streaming = None
        if type(fn) is Streaming:
            streaming = fn
            fn, args, kwargs = fn.call(where)
        if where == "process":
            context = None if self._capture is None else self._capture()
            call = ProcessCall(
                fn,
                args,
                kwargs,
                on_done,
                priority=options.priority,
                timeout=options.timeout,
                context=context,
                stream=streaming,
            )
        else:
            on_begin = None
            if options.timeout is not None:
                on_begin = functools.partial(
                    expire_soon, future.get_loop(), future, options.timeout
                )
            call = ThreadCall(
                fn, args, kwargs, on_done, priority=options.priority, on_begin=on_begin
            )
        call.stream = streaming
        self.crew(where).submit(call)
        future._abandon = call.abandon

    def crew(self, where: str) -> Crew:
        """The processes, or the threads; made when they are first asked for."""
        with self._lock:
            if self._is_finishing:
                raise RunnerError("the runner is closed: make a new one")
            if where == "thread":
                if self._threads is None:
                    self._threads = Threads(self._size, self._name)
                return self._threads
            if self._processes is None:
                self._processes = Processes(
                    self._size, self._name, self._settings, self._idle_timeout, self._least
                )
            return self._processes

    def _check_open(self) -> None:
        if self._pool is None:
            raise RunnerError(
                "the runner is not started: use `async with runner:` or `with runner.start():`"
            )
        if self._pool.forked:
            raise RunnerError(
                "the runner belongs to the parent of this process, and has no workers in a forked "
                "child; make a new Runner here"
            )
        if self._is_closed:
            raise RunnerError("the runner is closed: make a new one")

    def must_move(self, error: RunnerError) -> bool:
        """Whether the pool does not take a call, or gives it back, that was accepted here.

        It may have been closed just when the call's place had been found.
        """
        if isinstance(error, UnsupportedModule | BrokenRunner):
            return self.choices.has_refused(error)
        return self._is_closed and not self.is_stopped

    @property
    def is_stopped(self) -> bool:
        """Whether calls that were accepted are given up."""
        return self._is_stopped

    # ---- tokens ----

    def _token(self) -> _Token:
        token = _Token(self)
        with self._lock:
            self._token_loops[id(token)] = weakref.ref(token.loop)
        return token

    def _released(self, token: _Token) -> None:
        with self._lock:
            self._token_loops.pop(id(token), None)
            told = self._unless_moving()
        for tell in told:
            tell()

    def _unless_moving(self) -> list[Callable[[], None]]:
        """Who is to be told that all calls are where they run; the lock is held."""
        loops = [loop() for loop in self._token_loops.values()]
        if any(loop is not None and loop.is_running() for loop in loops):
            return []
        told, self._on_released = self._on_released, []
        return told

    def _when_released(self, tell: Callable[[], None]) -> None:
        with self._lock:
            self._on_released.append(tell)
            told = self._unless_moving()
        for tell in told:
            tell()

    # ---- the runner's life ----

    def _crews(self) -> list[Crew]:
        with self._lock:
            return [crew for crew in (self._processes, self._threads) if crew is not None]

    def close(self, cancel_pending: bool, interrupt: bool) -> None:
        """Accept no new calls; those that are to be moved from the pool still come."""
        self._is_closed = True
        self._is_stopped |= cancel_pending or interrupt
        if cancel_pending or interrupt:
            with self._lock:
                self._is_finishing |= interrupt
            for crew in self._crews():
                crew.close(cancel_pending, interrupt)

    def _finish(self) -> None:
        """The pool has ended, and no call is to be moved any more."""
        with self._lock:
            self._is_finishing = True
        for crew in self._crews():
            crew.close()

    def finish_soon(self, then: Callable[[], None]) -> None:
        """The pool has ended. Does not wait; `then` is called, in some thread, after the end."""

        def finish() -> None:
            self._finish()
            after(self._crews())

        def after(crews: list[Crew]) -> None:
            if crews:
                crews[0].when_ended(functools.partial(after, crews[1:]))
            else:
                then()

        self._when_released(finish)

    def join(self, patience: float) -> None:
        """The pool has ended: wait, in a thread without an event loop, for what is here."""
        released = threading.Event()
        self._when_released(released.set)
        # For loops in other threads, which are told by now what has come back from the pool.
        released.wait(patience)
        self._finish()
        for crew in self._crews():
            crew.join()

    async def ended(self) -> None:
        """As join(), without blocking the loop."""
        await _told(self._when_released)
        self._finish()
        for crew in self._crews():
            await _told(crew.when_ended)

    async def idle(self) -> None:
        """Wait until no call is pending, where the pool has none."""
        await _told(self._when_released)
        for crew in self._crews():
            await _told(crew.when_idle)

    def resize(self, size: int) -> None:
        self._size = size
        for crew in self._crews():
            crew.resize(size)

    def recycle(self) -> None:
        for crew in self._crews():
            crew.recycle()

    def stats(self) -> dict[str, Any]:
        """What RunnerStats says of processes and threads, and what is to be added to the pool's."""
        pending = queued = done = 0
        facts: dict[str, Any] = {}
        for crew in self._crews():
            of_crew = crew.counts()
            pending += of_crew[0]
            queued += of_crew[1]
            done += of_crew[2]
            if isinstance(crew, Processes):
                facts["processes"], facts["busy_processes"] = of_crew[3:]
        facts["in_processes"] = tuple(self.choices.moved)
        return {"pending": pending, "queued": queued, "done": done, **facts}


class _Movable:
    """A submitted call of which is not known yet where it will run."""

    def __init__(
        self,
        elsewhere: Elsewhere,
        future: Future,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        end: float | None,
    ) -> None:
        self._elsewhere = elsewhere
        self._future = future
        self._call = (fn, args, kwargs)
        self._options = options
        self._end = end
        self.token = elsewhere._token()

    def begin_after_probe(self, probe: asyncio.Future[Any]) -> None:
        future = self._future
        if not future.done():
            if probe.cancelled() or self._elsewhere.is_stopped:
                future.cancel()
            else:
                try:
                    self.begin()
                except BaseException as error:
                    if self._elsewhere.is_stopped:
                        future.cancel()
                    else:
                        future.settle(None, error)
                else:
                    return
        self.token.release()

    def begin(self) -> None:
        """Send it to the pool, or to where it is known to belong. Raises what that raises."""
        elsewhere, future = self._elsewhere, self._future
        if elsewhere.choices.in_process(self._call[0]):
            self._move()
            return
        rest = None
        if self._end is not None:
            rest = max(0.0, self._end - future.get_loop().time())
        try:
            inner = elsewhere._submit_to_pool(*self._call, self._options, rest)
        except RunnerError as error:
            if not elsewhere.must_move(error):
                raise
            self._move()
            return
        if future._timer is not None:  # the pool sees to it
            future._timer.cancel()
            future._timer = None
        future._abandon = inner.cancel
        inner.add_done_callback(self._came_back)

    def _came_back(self, inner: asyncio.Future[Any]) -> None:
        future, choices = self._future, self._elsewhere.choices
        future._abandon = None
        error = None if inner.cancelled() else inner.exception()
        if future.done():
            pass
        elif inner.cancelled():
            future.cancel()
        elif error is None:
            future.settle(inner.result(), None)
        elif not choices.has_refused(error):
            future.settle(None, error)
        elif self._elsewhere.is_stopped:
            future.cancel()
        else:
            choices.move(*self._call, error)
            try:
                self._move()
            except BaseException as failure:
                future.settle(None, failure)
            return
        self.token.release()

    def _move(self) -> None:
        future = self._future
        try:
            if self._end is not None and future._timer is None:
                deadline = self._options.deadline
                future.expire_at(self._end, deadline_text(deadline or 0.0))
            self._elsewhere._begin(future, "process", *self._call, self._options, is_new=False)
        finally:
            self.token.release()


def _learn(
    choices: Choices,
    key: Any,
    probes: _Probes,
    probe: asyncio.Future[Any],
) -> None:
    probes.pop(key, None)
    if not probe.cancelled():
        choices.learn(key, probe.exception())


async def _told(when: Callable[[Callable[[], None]], None]) -> None:
    """Wait for something that calls back, in whichever thread."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle)

    when(tell)
    await future
