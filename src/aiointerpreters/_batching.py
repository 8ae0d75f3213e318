"""How `Runner.map` sends several calls together, and how many.

The way to a worker and back costs some microseconds, whatever it is for. So items of short calls
travel in batches, of as many as a worker needs some 200 microseconds for, by what the ones before
have taken. The first calls are single ones; then a batch has twice as many as the one before it.

A batch that takes much longer has met a slow item: then it is *split*. The results that there are
come at once, the slow item stays where it is, and the items after it are sent anew, over all
workers.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from ._calls import Calls, Submit

#: What the future of a batch gets: results, the error after them, nanoseconds spent on that in the
#: worker, what comes next (futures of batches, and how many items they stand for), and whether
#: results are large.
type Outcome = tuple[
    list[Any], BaseException | None, int, list[tuple[asyncio.Future[Any], int]], bool
]

#: The most items of a batch. With more the way counts for next to nothing.
MOST_ITEMS = 128

#: How long a worker shall be at a batch, in nanoseconds.
_AIM = 200_000

#: How long it may be at it, before it is split, in nanoseconds.
_TOO_LONG = 1_000_000

#: In how many seconds that is looked at: at first, and at the most.
_FIRST_LOOK = 0.001
_LONGEST_PAUSE = 1.0


class Batches:
    """Sends the items of one `map()`, and learns how many of them should travel together."""

    def __init__(
        self,
        pool: _core.Pool,
        fn: Callable[..., Any],
        prefix: tuple[Any, ...],
        kwargs: dict[str, Any],
        priority: int,
        workers: int,
    ) -> None:
        self._pool = pool
        self._submit: Submit | None = None  # sends the calls that no batch takes
        self._plain: frozenset[type] = frozenset()  # types of arguments that batches take then
        self._call = (fn, prefix, kwargs)
        self._priority = priority
        #: So many batches keep the workers busy: each has one at hand when it has done another.
        self.in_flight = 2 * workers
        #: How many items the next one should have.
        self.size = 1
        #: Whether that is likely to grow: so it is too early to send as many as are accepted.
        self.is_learning = True
        self._most = MOST_ITEMS
        self._cost = float("inf")  # of an item in the batch before, in nanoseconds

    def limit(self, items: int) -> None:
        """At most so many items are accepted at a time: all workers shall have some of them."""
        self._most = max(1, min(MOST_ITEMS, items // self.in_flight))

    def send_others_by(self, submit: Submit, plain: frozenset[type]) -> None:
        """Let batches take arguments of these types only: other calls might have to be moved."""
        self._submit = submit
        self._plain = plain

    def submit(
        self, arguments: Iterator[tuple[Any, ...]], most: int
    ) -> tuple[list[tuple[asyncio.Future[Any], int]], bool, BaseException | None]:
        """See Pool.submit_batch()."""
        if self._submit is None:
            return self._pool.submit_batch(*self._call, arguments, most, self._priority)
        plain = _Plain(arguments, self._plain)
        outcome = self._pool.submit_batch(*self._call, plain, most, self._priority)
        if plain.other is None or outcome[2] is not None:
            return outcome
        sent = outcome[0]
        try:
            fn, prefix, kwargs = self._call
            sent.append((self._submit(fn, (*prefix, *plain.other), kwargs), 0))
        except BaseException as error:
            return sent, False, error
        self.is_learning = False  # nothing is learnt from those: as many as are accepted may go
        return sent, True, None

    def learn(self, sent: int, outcome: Outcome) -> None:
        """A batch of so many items is done."""
        values, _, spent, _, is_large = outcome
        if is_large:  # it would wait for the others, and they for it
            self.size = self._most = 1
            self.is_learning = False
            return
        cost = spent / (len(values) or 1)
        # The lesser of two: a worker may have had to wait for a processor.
        fitting = max(1, int(_AIM / (min(cost, self._cost) or 1)))
        self._cost = cost
        if fitting < self.size:
            self.size = fitting
        elif sent >= self.size:
            self.size = min(2 * self.size, fitting, self._most)
        self.is_learning = self.size < min(fitting, self._most)

    def split(self, future: asyncio.Future[Any]) -> bool:
        """Split a batch if it has been run for too long; true if it was."""
        if not self._pool.split(future, _TOO_LONG, self.in_flight):
            return False
        self.size = max(1, self.size // 2)
        return True


class _Plain:
    """The arguments of plain types, up to the first that are not: these are `other`."""

    def __init__(self, arguments: Iterator[tuple[Any, ...]], plain: frozenset[type]) -> None:
        self._arguments = arguments
        self._plain = plain
        self.other: tuple[Any, ...] | None = None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self

    def __next__(self) -> tuple[Any, ...]:
        args = next(self._arguments)
        for arg in args:
            if type(arg) not in self._plain:
                self.other = args
                raise StopIteration
        return args


class Watch:
    """Calls back while there are batches that may have to be split.

    A batch may wait for long before a worker begins it. So the looks at those that wait come less
    and less often.
    """

    def __init__(self) -> None:
        self._look: Callable[[], bool | None] | None = None  # while it watches
        self._delay = _FIRST_LOOK
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, look: Callable[[], bool | None]) -> None:
        """Watch, if that is not done already.

        ``look`` returns None if there is nothing to watch any more, else whether it did anything.
        """
        if self._look is None:
            self._look = look
            self._delay = _FIRST_LOOK
            self._schedule()

    def end(self) -> None:
        self._look = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._delay, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        progress = None if self._look is None else self._look()
        if progress is None:
            self._look = None
            return
        self._delay = _FIRST_LOOK if progress else min(2 * self._delay, _LONGEST_PAUSE)
        self._schedule()


def batches(calls: Calls, fn: Callable[..., Any]) -> Batches | None:
    """What sends these calls in batches; None if each has to travel by itself.

    So it is where a call takes more with it than its arguments: a time limit, context variables, a
    function that no worker finds by name; where it needs a slot; and where it is a coroutine.

    Nor does a batch take arguments for which a call might have to be moved to a process.
    """
    options, runner = calls._options, calls._runner()
    moves = runner.unsupported == "process" and options.where is None
    if options.where in ("process", "thread") or (
        moves and runner._get_elsewhere().choices.in_process(fn) is not False
    ):
        return None
    if (
        calls._slots is not None
        or options.timeout is not None
        or options.deadline is not None
        or runner._capture is not None
    ):
        return None
    prefix: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if type(fn) is functools.partial:
        partial: functools.partial[Any] = fn
        fn, prefix, kwargs = partial.func, partial.args, partial.keywords
    try:
        pool = runner._started()
        if not pool.takes_batches(fn):
            return None
    except Exception:  # the first call will raise that
        return None
    sending = Batches(pool, fn, prefix, kwargs, options.priority, runner.workers)
    if moves:
        from ._choices import PLAIN, are_plain

        plain = PLAIN if are_plain(prefix, kwargs) else frozenset()
        sending.send_others_by(calls._submit, plain)
    return sending
