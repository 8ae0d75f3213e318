"""`Runner.map`: calls for all items of iterables, a bounded number of them at a time.

      input ──► feed ──► window: calls accepted, not yet consumed ──► the consumer

Where calls are short, several travel together (_batching.py): the future of such a batch is in the
window like any other, and when its turn comes its results are put where the consumer takes them
from without further ado.

Where the input is synchronous and calls need not wait for a slot, the consumer itself feeds: it
fills the window each time that it asks for a result. Otherwise a task feeds, so that nobody who
waits for the input holds up results that are there.

The task and the callbacks of futures know the window alone. So an iterator that is dropped, by a
`break` for example, is collected at once, and stops what still runs for it.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import TYPE_CHECKING, Any, Self, cast

from ._batching import Batches, Outcome, Watch, batches

if TYPE_CHECKING:
    from ._calls import Calls

type AnyIterable = Iterable[Any] | AsyncIterable[Any]

#: How many calls at least are on their way, by default: the results of quick ones come together.
_LEAST_CONCURRENCY = 16

#: After so many results in a row that were there already, the loop gets a turn.
_RESULTS_PER_TURN = 512


def default_concurrency(workers: int) -> int:
    """Twice the number of workers, so that none has to wait for the loop; but at least 16."""
    return max(2 * workers, _LEAST_CONCURRENCY)


class Mapped[R](AsyncIterator[R]):
    """The results of :meth:`Runner.map`, an asynchronous iterator.

    Iterate it once, in one task. Leave it early with a ``break``, or, to know when its inputs have
    been closed, by :meth:`aclose` (``contextlib.aclosing`` calls it).
    """

    def __init__(
        self,
        calls: "Calls",
        fn: Callable[..., Any],
        iterables: tuple[AnyIterable, ...],
        concurrency: int | None,
        ordered: bool,
    ) -> None:
        self._calls = calls  # which keeps the runner
        self._fn = fn
        self._limit = concurrency
        limit = default_concurrency(calls._runner().workers) if concurrency is None else concurrency
        self._window = _Window(limit) if ordered else _UnorderedWindow(limit)
        self._ready = self._window.ready
        if not iterables:
            raise TypeError("map() takes at least one iterable")
        self._inputs = [_Input(iterable) for iterable in iterables]
        # What the consumer feeds from itself; None if a task does it, and when it is exhausted.
        self._arguments: Iterator[tuple[Any, ...]] | None = None
        self._batches: Batches | None = None  # if that is done in batches
        self._feeder: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # set by the first __anext__()
        self._thread = 0
        self._in_a_row = 0
        self._is_waiting = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        ready = self._ready
        if ready:
            result: R = ready.popleft()
            return result
        return await self._next()

    async def _next(self) -> R:
        """The next result, where it is not ready already."""
        if self._is_waiting:
            raise RuntimeError("another task waits for the next result already")
        if self._loop is None:
            if self._calls._may_move():
                self._is_waiting = True
                try:
                    await self._calls._runner()._get_elsewhere().decide(self._fn)
                finally:
                    self._is_waiting = False
            self._begin()
        if self._arguments is not None:
            self._fill()
        window = self._window
        self._is_waiting = True
        try:
            if self._in_a_row >= _RESULTS_PER_TURN:
                self._in_a_row = 0
                await asyncio.sleep(0)
            while not window.is_over():
                if not window.results:
                    await window.changed()
                    continue
                future = window.results[0]
                if not future.done():
                    self._in_a_row = 0
                result: R = await future
                window.results.popleft()
                sent = window.batches.pop(future, 0)
                del future  # or the traceback of what it raises next would keep it
                if sent == 0:
                    self._in_a_row += 1
                    window.consume(1)
                    return result
                self._receive(sent, cast(Outcome, result))
                if self._ready:
                    result = self._ready.popleft()
                    return result
        except StopAsyncIteration as error:
            await self._close()
            # As in asynchronous generators: it would pass for the end.
            raise RuntimeError("a call raised StopAsyncIteration") from error
        except BaseException:
            await self._close()
            raise
        finally:
            self._is_waiting = False
        is_input = window.error is None
        failure = window.failure if is_input else window.error
        await self._close()
        if failure is None:
            raise StopAsyncIteration
        try:
            if isinstance(failure, StopAsyncIteration):
                who = "an input" if is_input else "a call"
                raise RuntimeError(f"{who} raised StopAsyncIteration") from failure
            raise failure
        finally:
            del failure  # or its traceback would refer to itself

    def _receive(self, sent: int, outcome: Outcome) -> None:
        """The outcome of a batch is there."""
        values, error, _, rest, _ = outcome
        window = self._window
        window.consume(len(values))
        window.ready.extend(values)
        window.error = error
        window.put_back(rest)
        self._in_a_row += len(values)
        if self._batches is not None:
            self._batches.learn(sent, outcome)

    async def aclose(self) -> None:
        """Stop early: cancel the calls that are on their way, and close the inputs.

        Inputs that are generators, asynchronous or not, are closed when this returns. May be
        called again, and at any time but while a task waits for the next result.
        """
        if self._is_waiting:
            raise RuntimeError("a task waits for the next result: cancel it instead")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.get_ident()
        await self._close()

    def __del__(self) -> None:
        # An __init__ that raised leaves no _loop.
        loop = getattr(self, "_loop", None)
        if loop is None or self._window.is_closed:
            return
        if loop.is_closed() or self._thread == threading.get_ident():
            _stop(self._window, self._feeder)
            return
        try:
            loop.call_soon_threadsafe(_stop, self._window, self._feeder)
        except RuntimeError:  # it was closed just now
            _stop(self._window, self._feeder)

    # ---- feeding ----

    def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        if self._window.is_closed:
            return
        if self._calls._slots is None and not any(source.is_async for source in self._inputs):
            self._arguments = zip(*(source.iterator for source in self._inputs), strict=False)
            self._batches = batches(self._calls, self._fn)
            if self._batches is not None:
                self._window.split = self._batches.split
                if self._limit is not None:
                    self._batches.limit(self._limit)
        else:
            feeding = _feed(self._window, self._calls, self._fn, self._inputs)
            self._feeder = self._loop.create_task(feeding)

    def _fill(self) -> None:
        """Submit calls until the window is full, the input exhausted, or something goes wrong."""
        if self._batches is not None:
            self._fill_with(self._batches)
            return
        window, arguments, submit = self._window, self._arguments, self._calls._submit
        assert arguments is not None
        try:
            while window.length() < window.limit:
                args = next(arguments, None)
                if args is None:
                    break
                window.add(submit(self._fn, args, {}))
            else:
                return
        except Exception as error:
            window.failure = error
        self._arguments = None
        window.is_fed = True

    def _fill_with(self, batches: Batches) -> None:
        """The same in batches."""
        window, arguments = self._window, self._arguments
        assert arguments is not None
        size = batches.size
        enough = max(_LEAST_CONCURRENCY, size * batches.in_flight)
        if self._limit is None:
            window.limit = max(window.limit, enough)
        else:
            window.limit = min(self._limit, enough) if batches.is_learning else self._limit
        while (length := window.length()) < window.limit:
            room = window.limit - length
            if room < size and length > 0:  # there will be room for a whole one
                return
            sent, has_more, failure = batches.submit(arguments, min(room, size))
            for future, count in sent:
                window.add(future, count)
            if failure is not None and not isinstance(failure, Exception):
                raise failure
            if not has_more:
                window.failure = failure
                self._arguments = None
                window.is_fed = True
                return

    # ---- ending ----

    async def _close(self) -> None:
        if self._window.is_closed:
            return
        _stop(self._window, self._feeder)
        self._arguments = self._batches = None
        inputs, self._inputs = self._inputs, []
        failure = None
        if self._feeder is not None:
            await asyncio.wait([self._feeder])
        for source in inputs:
            try:
                await source.close()
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure


class _Input:
    """One of the iterables."""

    def __init__(self, iterable: AnyIterable) -> None:
        self.is_async = isinstance(iterable, AsyncIterable)
        untyped = cast(Any, iterable)
        self.iterator: Any = aiter(untyped) if self.is_async else iter(untyped)

    async def close(self) -> None:
        """Of generators; anything else, a file say, may be of use to others."""
        if isinstance(self.iterator, Generator):
            self.iterator.close()
        elif isinstance(self.iterator, AsyncGenerator):
            await self.iterator.aclose()


class _Window:
    """The calls that are accepted and not consumed yet, in the order of the input."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # What the consumer may take.
        self.ready: deque[Any] = deque()
        # What comes next is first. Here: each call as it is accepted.
        self.results: deque[asyncio.Future[Any]] = deque()
        # Those futures that are of batches, and of how many calls; and what will follow them there
        # where they are split.
        self.batches: dict[asyncio.Future[Any], int] = {}
        self.split: Callable[[asyncio.Future[Any]], bool] | None = None
        self._watch = Watch()
        self._count = 0  # calls that are accepted, without those whose results are ready
        self.error: BaseException | None = None  # of a call: comes after what is ready
        self.is_fed = False  # nothing more will be added
        self.failure: BaseException | None = None  # of the input, or of a submit: comes last
        self.is_closed = False
        self._consumer: asyncio.Future[None] | None = None  # waits for the next result
        self._feeder: asyncio.Future[None] | None = None  # waits for room

    def length(self) -> int:
        return self._count + len(self.ready)

    def add(self, future: asyncio.Future[Any], batch: int = 0) -> None:
        """A call, or a batch of so many, has been accepted."""
        self._count += batch or 1
        self._append(future)
        if batch:
            self.batches[future] = batch
            if batch > 1:
                self._watch.begin(self._look)

    def consume(self, count: int) -> None:
        """The results of so many calls have been taken from their futures."""
        self._count -= count
        if self._feeder is not None and not self._feeder.done():
            self._feeder.set_result(None)

    def put_back(self, rest: list[tuple[asyncio.Future[Any], int]]) -> None:
        """A batch was split: what was behind the results that have been taken comes next."""
        self.results.extendleft(future for future, _ in reversed(rest))

    def is_over(self) -> bool:
        """Whether nothing comes any more but an error, or the end."""
        return self.error is not None or (not self.results and self.is_complete())

    def _append(self, future: asyncio.Future[Any]) -> None:
        self.results.append(future)
        self._wake_consumer()

    def _look(self) -> bool | None:
        """Split the batches that take too long; None if there are none that could."""
        assert self.split is not None
        running = [future for future, n in self.batches.items() if n > 1 and not future.done()]
        if not running:
            return None
        was_split = False
        for future in running:
            if self.split(future):
                was_split = True
                outcome: Outcome = future.result()
                self._follow(outcome[3])
        return was_split

    def _follow(self, rest: list[tuple[asyncio.Future[Any], int]]) -> None:
        """A batch was split; the consumer will put back what comes next."""
        self.batches.update(rest)

    def is_complete(self) -> bool:
        """Whether no result will come any more."""
        return self.is_fed or self.is_closed

    def end(self, failure: BaseException | None) -> None:
        """Nothing more will be added."""
        if not self.is_closed:
            self.failure = failure
            self.is_fed = True
            self._wake_consumer()

    async def changed(self) -> None:
        """Wait for a result, or the end."""
        self._consumer = asyncio.get_running_loop().create_future()
        try:
            await self._consumer
        finally:
            self._consumer = None

    async def room(self) -> None:
        """Wait until there is room for another call."""
        while self.length() >= self.limit:
            self._feeder = asyncio.get_running_loop().create_future()
            try:
                await self._feeder
            finally:
                self._feeder = None

    def close(self) -> list[asyncio.Future[Any]]:
        """What is left, now the caller's."""
        self.is_closed = True
        self._watch.end()
        self.failure = self.error = None  # whose tracebacks refer to this
        left = list({*self.results, *self.batches})
        self.ready.clear()
        self.results.clear()
        self.batches.clear()
        self.split = None
        return left

    def _wake_consumer(self) -> None:
        if self._consumer is not None and not self._consumer.done():
            self._consumer.set_result(None)


class _UnorderedWindow(_Window):
    """In the order in which they are done: `results` has those that are."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._running: set[asyncio.Future[Any]] = set()

    def put_back(self, rest: list[tuple[asyncio.Future[Any], int]]) -> None:
        """Whatever is done comes next."""

    def _append(self, future: asyncio.Future[Any]) -> None:
        self._running.add(future)
        future.add_done_callback(self._done)

    def _follow(self, rest: list[tuple[asyncio.Future[Any], int]]) -> None:
        super()._follow(rest)
        for future, _ in rest:
            self._append(future)

    def _done(self, future: asyncio.Future[Any]) -> None:
        if not self.is_closed:
            self._running.discard(future)
            self.results.append(future)
            self._wake_consumer()

    def is_complete(self) -> bool:
        return super().is_complete() and not self._running

    def close(self) -> list[asyncio.Future[Any]]:
        left = [*super().close(), *self._running]
        self._running.clear()
        return left


async def _feed(
    window: _Window, calls: "Calls", fn: Callable[..., Any], inputs: list[_Input]
) -> None:
    """Submit calls as there is room for them, until the shortest input ends."""
    failure: BaseException | None = None
    try:
        while True:
            await window.room()
            args = []
            for source in inputs:
                item = await anext(source.iterator) if source.is_async else next(source.iterator)
                args.append(item)
            if window.is_closed:  # an input took no notice of being cancelled
                return
            window.add(await calls._submit_in_turn(fn, tuple(args), {}))
            del args, item
    except (StopIteration, StopAsyncIteration):
        pass
    except Exception as error:
        failure = error
    except BaseException as error:
        window.end(error)
        raise
    window.end(failure)


def _stop(window: _Window, feeder: asyncio.Task[None] | None) -> None:
    """Cancel all that is on its way, and whoever sends more."""
    for future in window.close():
        try:
            if not future.cancel() and not future.cancelled():
                future.exception()  # which nobody will look at, and asyncio need not complain of
        except RuntimeError:  # its loop is closed: nobody can be told
            pass
    if feeder is not None:
        with contextlib.suppress(RuntimeError):
            feeder.cancel()
