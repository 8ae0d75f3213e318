"""How functions are called in workers: by a Runner, or by a view of one with options."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Literal, overload

from . import _checks, _context, _core, _naming
from ._mapping import AnyIterable, Mapped
from ._options import UNCHANGED, Options, Where
from ._slots import Slot, Slots
from ._streaming import Stream

if TYPE_CHECKING:
    from ._where import Elsewhere
    from .runner import Runner

type ModuleInfo = tuple[Literal["module", "path"], str, str]

#: Submits a call: the function, its positional and its keyword arguments.
type Submit = Callable[[Any, tuple[Any, ...], dict[str, Any]], asyncio.Future[Any]]


def submitter(pool: _core.Pool, capture: _context.Capture | None = None) -> Submit:
    """Return what submits to ``pool``: C's own function, unless there is something to add."""
    if capture is None:
        return pool.submit

    def submit(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> asyncio.Future[Any]:
        return pool.submit_with(fn, args, kwargs, 0, None, None, capture())

    return submit


def call_directly(calls: Calls, pool: _core.Pool, elsewhere: Elsewhere | None = None) -> None:
    """Replace the methods of ``calls`` by C's own, which add nothing to a call.

    Where calls may have to go elsewhere, only run() is replaced, by what uses C's where it can.
    """
    moves = elsewhere is not None and elsewhere.moves
    for name, runs in (("run", True), ("submit", False)):
        function = getattr(Calls, name)
        if getattr(type(calls), name) is function:  # no subclass has its own
            method: Any = _core.Method(pool, runs)
            if moves:
                if not runs:
                    continue
                assert elsewhere is not None
                method = elsewhere.run_by(method)
            functools.update_wrapper(method, function)
            del method.__wrapped__  # it takes `self`
            method.__signature__ = _SIGNATURE
            setattr(calls, name, method)


_SIGNATURE = inspect.Signature(
    [
        inspect.Parameter("fn", inspect.Parameter.POSITIONAL_ONLY),
        inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
)


class Calls:
    """The calls of a :class:`Runner`, and of what its :meth:`Runner.options` returns."""

    #: Sends a call on its way, without waiting for a slot.
    _submit: Submit
    #: Of a runner with ``max_pending``.
    _slots: Slots | None
    _options: Options

    def options(
        self,
        *,
        timeout: float | None = UNCHANGED,
        deadline: float | None = UNCHANGED,
        priority: int = UNCHANGED,
        buffer: int = UNCHANGED,
        where: Where | None = UNCHANGED,
    ) -> RunnerView:
        """Return a view of the runner whose calls have these options.

            urgent = runner.options(priority=-1, timeout=5)
            page = await urgent.run(parse, content)

        A view is light, and may be made before the runner is started. Views of views combine: what
        is not given stays as it was.

        Args:
            timeout: For how many seconds a function may run, from its start in a worker; the time
                in the queue does not count. Then it is interrupted: its ``finally`` blocks run,
                and the caller gets :exc:`TimeoutError`. For a stream, that is its whole run.
            deadline: In how many seconds from the call it must be done, in all. Then it is taken
                back, or interrupted as by ``timeout``. For a stream, from its first item's request.
            priority: Calls with lower numbers are begun first, calls with the same number in the
                order in which they came. An integer of 64 bits.
            buffer: How many items of a :meth:`stream` may be ready before they are consumed.
            where: ``"interpreter"``: in a worker, as usual. ``"process"``: in a process of its own,
                for functions whose modules don't support subinterpreters; a call that is cancelled
                or out of time ends with its process. ``"thread"``: in a thread of this program,
                with its GIL, for what releases it; a running call can't be stopped, only its caller
                is released. By default as the runner's ``unsupported`` says.

        Raises:
            TypeError: An option is of another type.
            ValueError: ``timeout`` or ``deadline`` is negative or no finite number, ``priority``
                is too large, ``buffer`` is less than 1, ``where`` is something else.
        """
        return RunnerView(
            self._runner(), self._options.combined(timeout, deadline, priority, buffer, where)
        )

    @overload
    def submit[**P, R](
        self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[R]: ...
    @overload
    def submit[**P, R](
        self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[R]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Start ``fn(*args, **kwargs)`` in a worker now; return the future of its result.

        A coroutine function runs in the worker's own event loop, beside others.

        Cheaper than a task around :meth:`run`. Cancelling the future takes a queued call back, and
        interrupts a running one: :exc:`Interrupted` is raised in its Python code, and a coroutine
        is cancelled.

        Raises:
            RunnerError: No event loop runs in this thread; or the runner is not started, is closed,
                or belongs to the parent of this forked process; or ``fn`` is an asynchronous
                generator function, or nothing that a worker could find: a lambda, a function inside
                a function, one of a REPL, unless cloudpickle is installed.
            NotShareableError: An argument can't be sent; the text says which part of it.
            BrokenRunner: A worker could not start.
            RunnerFull: The runner has ``max_pending``, and as many calls are pending.

        The future raises what ``fn`` raised, or :exc:`InterpreterError` if that can't be rebuilt,
        or :exc:`NotShareableError` for a result that can't be sent.
        """
        if self._slots is None:
            return self._submit(fn, args, kwargs)
        return _submit_in(self._submit, self._slots.take_or_refuse(), fn, args, kwargs)

    @overload
    async def run[**P, R](
        self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def run[**P, R](self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @inspect.markcoroutinefunction
    def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Run ``fn(*args, **kwargs)`` in a worker and return its result.

            links = await runner.run(parse, content)

        If the runner has ``max_pending``, it waits for its turn, first come first served.

        Cancelling it (also by ``asyncio.timeout``) stops the call, as with :meth:`submit`.

        Raises:
            Exception: What ``fn`` raised, with its own type, args, notes and causes; its last
                ``__cause__`` shows the traceback in the worker.
            RunnerError: As :meth:`submit`.
            NotShareableError: An argument or the result can't be sent; the text says which part.
            InterpreterError: ``fn`` raised something that can't be rebuilt here.
            BrokenRunner: A worker could not start.
        """
        return self._run_in_turn(fn, args, kwargs)

    @overload
    def wrap[**P, R](
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Callable[P, Coroutine[None, None, R]]: ...
    @overload
    def wrap[**P, R](self, fn: Callable[P, R], /) -> Callable[P, Coroutine[None, None, R]]: ...
    def wrap(self, fn: Callable[..., Any], /) -> Callable[..., Coroutine[None, None, Any]]:
        """Return a coroutine function that runs ``fn`` in a worker; it keeps fn's signature.

            parse_in_worker = runner.wrap(parse)
            links = await parse_in_worker(content)

        Raises:
            RunnerError: ``fn`` is nothing that a worker could find.
        """
        if not isinstance(fn, functools.partial):
            _naming.describe_call(fn)

        @inspect.markcoroutinefunction
        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Coroutine[None, None, Any]:
            return self.run(fn, *args, **kwargs)

        return wrapped

    @overload
    def map[R](
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        /,
        *iterables: AnyIterable,
        concurrency: int | None = None,
        ordered: bool = True,
    ) -> Mapped[R]: ...
    @overload
    def map[R](
        self,
        fn: Callable[..., R],
        /,
        *iterables: AnyIterable,
        concurrency: int | None = None,
        ordered: bool = True,
    ) -> Mapped[R]: ...
    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: AnyIterable,
        concurrency: int | None = None,
        ordered: bool = True,
    ) -> Mapped[Any]:
        """Call ``fn`` in workers with the items of iterables; iterate over the results.

            async for links in runner.map(parse, pages()):
                ...

        As the builtin :func:`map`, it takes an argument from each iterable, and ends with the
        shortest. They may be asynchronous, too. Nothing is begun before the first result is asked
        for; then the input is pulled only as fast as results are consumed.

        When a call fails, or an iterable, that is raised at its place: what was before it comes
        first (in whatever order, if not ``ordered``), the rest is cancelled. Leaving early cancels
        the calls that are on their way, and closes those iterables that are generators: with a
        ``break`` soon, with ``contextlib.aclosing`` before the block is left.

        Args:
            concurrency: How many calls are accepted and not yet consumed, at most; by default as
                many as keep the workers busy: twice the number of workers, or 16 if that is more;
                more for calls of some microseconds, which are sent together, up to 256 per worker.
            ordered: Whether results come in the order of the input, or as they are done.

        Raises:
            TypeError: ``fn`` can't be called, ``concurrency`` is no integer, or an iterable none.
            ValueError: ``concurrency`` is less than 1.

        Iterating raises what :meth:`run` raises.
        """
        if concurrency is not None:
            concurrency = _checks.integer("concurrency", concurrency, 1)
        if not callable(fn):
            raise TypeError(f"map() takes a function, not {_checks.kind(fn)}")
        return Mapped(self, fn, iterables, concurrency, ordered)

    def stream[**P, T](
        self,
        fn: Callable[P, Iterable[T] | AsyncIterable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Stream[T]:
        """Iterate over a generator that runs in a worker.

            async for row in runner.stream(read_rows, path):
                ...

        ``fn`` is a generator function, or any other that returns something to iterate over; or an
        asynchronous generator function, which runs in the worker's event loop. It is called when
        the first item is asked for, and, unless it is asynchronous, keeps its worker until it ends.
        Each item is sent at once; when 128 (see :meth:`options`) are waiting to be consumed, the
        generator waits, too.

        What the generator raises is raised after the items before it. An item that can't be sent
        raises :exc:`NotShareableError`, whose text says which part of it, and closes the generator.
        Leaving early closes the generator in its worker, so that its ``finally`` blocks run: with
        a ``break`` soon, with ``contextlib.aclosing`` before the block is left.

        Raises:
            RunnerError: ``fn`` is nothing that a worker could find.

        Iterating raises what :meth:`run` raises.
        """
        return Stream(self, fn, args, kwargs)

    async def run_module_function(
        self, module_info: ModuleInfo, *args: object, **kwargs: object
    ) -> object:
        """Run the function that :func:`get_module_info` described, as :meth:`run` does."""
        if self._slots is None:
            return await self._submit(module_info, args, kwargs)
        return await (await self._submit_in_turn(module_info, args, kwargs))

    async def _run_in_turn(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Submit a call, as soon as there is a slot for it, and wait for its result."""
        if self._slots is None:
            future = self._submit(fn, args, kwargs)
        else:
            future = await self._submit_in_turn(fn, args, kwargs)
        del args, kwargs  # or the traceback of what it raises would keep them
        return await future

    # ---- slots ----

    async def _submit_in_turn(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        """Submit a call, as soon as there is a slot for it."""
        if self._slots is None:
            return self._submit(fn, args, kwargs)
        return _submit_in(self._submit, await self._slots.wait(), fn, args, kwargs)

    def _runner(self) -> Runner:
        raise NotImplementedError

    async def _where(self, fn: Any) -> Where:
        """Where a function runs, when it is known."""
        if self._may_move():
            elsewhere = self._runner()._get_elsewhere()
            await elsewhere.decide(fn)
            return "process" if elsewhere.choices.in_process(fn) else "interpreter"
        return self._options.where or "interpreter"

    def _may_move(self) -> bool:
        """Whether calls may go to processes, because their functions need that."""
        runner = self._runner()
        return (
            runner.unsupported == "process"
            and self._options.where is None
            and runner._pool is not None
        )


class RunnerView(Calls):
    """A runner's calls with options: what :meth:`Runner.options` returns."""

    def __init__(self, runner: Runner, options: Options) -> None:
        self._of = runner
        self._slots = runner._slots
        self._options = options

    def _runner(self) -> Runner:
        return self._of

    def _submit(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        return self._send(fn, args, kwargs, self._options.deadline)

    def _send(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], deadline: float | None
    ) -> asyncio.Future[Any]:
        options = self._options
        if options.is_plain():
            return self._of._submit(fn, args, kwargs)
        if options.where in ("process", "thread") or self._of.unsupported == "process":
            self._of._started()
            return self._of._get_elsewhere().submit(fn, args, kwargs, options, deadline)
        pool, capture = self._of._started(), self._of._capture
        context = None if capture is None else capture()
        return pool.submit_with(
            fn, args, kwargs, options.priority, options.timeout, deadline, context
        )

    async def _submit_in_turn(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        slots, deadline = self._slots, self._options.deadline
        if slots is None or deadline is None:
            return await super()._submit_in_turn(fn, args, kwargs)
        # The deadline counts from here, not from the submit.
        slot = slots.take()
        if slot is None:
            time = asyncio.get_running_loop().time
            end = time() + deadline
            try:
                async with asyncio.timeout_at(end):
                    slot = await slots.wait()
            except TimeoutError:
                raise TimeoutError(
                    f"the call was not done {deadline:.12g} seconds after it was made (deadline)"
                ) from None
            deadline = max(0.0, end - time())
        send = functools.partial(self._send, deadline=deadline)
        return _submit_in(send, slot, fn, args, kwargs)

    def __repr__(self) -> str:
        options = repr(self._options)
        return f"<{type(self).__name__} of {self._of!r}{options and ' with '}{options}>"


def _submit_in(
    submit: Submit, slot: Slot | None, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> asyncio.Future[Any]:
    """Submit a call, which gives the slot back. None: it will be refused, and told why."""
    future = None
    try:
        future = submit(fn, args, kwargs)
    finally:
        if slot is not None and future is None:
            slot()
    if slot is not None:
        future.add_done_callback(slot)
    return future
